"""Two zip files of a class: `students.zip` to hand out, `teacher.zip` to keep. Equal files make equal bytes.

`make classroom` calls it. After a change of yours, in this folder, in the course's environment: python bundle.py
"""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

PACKAGES = ("instructlab_utils", "instructlab_apps")  # what the notebooks of students import
SUFFIXES = (".py", ".toml", ".j2", ".css", ".js", ".txt", ".typed")
SECRET = ("BEGIN SOLUTION", "HIDDEN TESTS")
SET_UP = """You need Python 3.11, 3.12 or 3.13 and some gigabytes of disk. Once, in this folder:

    python3 -m venv .venv
    .venv/bin/python -m pip install -r requirements.lock

On Windows it is `py -m venv .venv`, and `.venv\\Scripts\\` in place of `.venv/bin/`.
"""
STUDENTS = f"""# Exercises, one notebook a lesson

{SET_UP}
Then, each time: `.venv/bin/python -m jupyter lab`, and open a notebook. Leave the notebooks where they are: their checkers
import the folders beside them. Nothing needs a network after the set-up.

Write into the answer cells only, and run the checker below each. Hand in the notebook under the name that it has.
"""
TEACHER = f"""# This class, for its teacher

Keep this folder away from students: `source/` holds solutions and hidden cases.

{SET_UP}
Put what you collect into `submitted/STUDENT/LESSON/LESSON.ipynb`. Then, on Linux with bubblewrap, which shuts students' code
in:

    source .venv/bin/activate
    bash deploy/grader/grade.sh . bwrap

Elsewhere, for one lesson, and with your rights:

    nbgrader generate_assignment 01_empirical_risk --force
    nbgrader autograde 01_empirical_risk
    nbgrader generate_feedback 01_empirical_risk

`teaching/` holds a page for each lesson. After a change of yours: `python bundle.py`.
"""


def write(folder: Path) -> list[Path]:
    """Both files, in the folder of the class. ValueError where a student would get a solution or a hidden case."""
    spec = importlib.util.find_spec("instructlab_utils")
    assert spec is not None and spec.origin is not None
    course = Path(spec.origin).parents[1]
    shared = {
        name: course / name for name in ("LICENSE", "requirements.lock", "data/assets.toml", "pyproject.toml")
    }
    released = {path.name: path for path in folder.glob("release/*/*.ipynb")}
    students = {"README.md": STUDENTS, **_package(course, *PACKAGES), **shared, **released}
    for name, content in students.items():
        text = content if isinstance(content, str) else content.read_text(encoding="utf-8")
        for word in SECRET:
            if word in text:
                raise ValueError(f"{name} shows {word!r}: students.zip is not written")
    script = {"deploy/grader/grade.sh": course / "deploy" / "grader" / "grade.sh"}
    own = {path.relative_to(folder).as_posix(): path for path in folder.glob("*.py")}
    for part in ("source/*/*.ipynb", "release/*/*.ipynb", "teaching/*.md"):
        own |= {path.relative_to(folder).as_posix(): path for path in folder.glob(part)}
    teacher = {
        "README.md": TEACHER,
        **_package(course, *PACKAGES, "instructlab_repro"),
        **shared,
        **script,
        **own,
    }
    return [_zip(folder / "students.zip", students), _zip(folder / "teacher.zip", teacher)]


def _package(course: Path, *names: str) -> dict[str, Path]:
    paths = (path for name in names for path in (course / name).rglob("*") if path.suffix in SUFFIXES)
    return {path.relative_to(course).as_posix(): path for path in paths}


def _zip(path: Path, files: dict[str, Path | str] | dict[str, Path]) -> Path:
    """Files by their names, sorted, all of one date and one mode."""
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as bundle:
        for name, content in sorted(files.items()):
            info = zipfile.ZipInfo(f"{path.stem}/{name}", (1980, 1, 1, 0, 0, 0))
            info.external_attr, info.create_system, info.compress_type = 0o644 << 16, 3, zipfile.ZIP_DEFLATED
            bundle.writestr(info, content if isinstance(content, str) else content.read_bytes())
    part.replace(path)
    print(f"{path.name}: {len(files)} files, {path.stat().st_size / 2**20:.1f} MB", flush=True)
    return path


if __name__ == "__main__":
    write(Path(__file__).resolve().parent)
