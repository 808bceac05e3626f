#!/usr/bin/env bash
# Grade what lies in CLASS/submitted, each answer shut in, and write the feedback. In the course's environment (activated):
#
#   deploy/grader/grade.sh CLASS [bwrap|docker] [LESSON...]
#
# CLASS is the folder of `make classroom`, or teacher.zip unpacked. Without a lesson: all that somebody has handed in.
# Status 1 if a lesson could not be graded; the others are.
set -euo pipefail

class=${1:?which class? deploy/grader/grade.sh CLASS [bwrap|docker] [LESSON...]}
kind=${2:-bwrap}
if [[ $kind != bwrap && $kind != docker ]]; then
  echo "error: no sandbox $kind; there are bwrap and docker" >&2
  exit 2
fi
if [[ ! -f $class/nbgrader_config.py ]]; then
  echo "error: $class is no class: it has no nbgrader_config.py; make classroom makes one" >&2
  exit 2
fi
cd "$class"
lessons=("${@:3}")
if [[ ${#lessons[@]} -eq 0 ]]; then
  for folder in source/*/; do
    lesson=$(basename "$folder")
    if compgen -G "submitted/*/$lesson" > /dev/null; then lessons+=("$lesson"); fi
  done
fi
if [[ ${#lessons[@]} -eq 0 ]]; then
  echo "error: nobody has handed in: put notebooks into $class/submitted/STUDENT/LESSON/LESSON.ipynb" >&2
  exit 2
fi

failed=0
for lesson in "${lessons[@]}"; do
  echo "== $lesson"
  known=$(python -m nbgrader db assignment list)
  if ! grep -q "^$lesson " <<< "$known"; then # teacher.zip comes without a gradebook
    python -m nbgrader generate_assignment "$lesson" --force || { failed=1; continue; }
  fi
  python -m nbgrader autograde "$lesson" --force "--CheckAnswers.sandbox=$kind" || failed=1
  python -m nbgrader generate_feedback "$lesson" --force || failed=1
done
python -m nbgrader export
echo "points: $PWD/grades.csv"
exit "$failed"
