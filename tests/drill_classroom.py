"""A class of hostile students through nbgrader's own commands: each spoils one lesson, and keeps what is not spoiled.

python tests/drill_classroom.py [LESSON LESSON]         # a table; status 1 if a student's points are not as expected
python tests/drill_classroom.py bwrap [LESSON LESSON]   # the same in a sandbox, and students who attack the machine
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import html
import json
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructlab_repro.engine import classroom
from instructlab_repro.notebooks import exercises

ALL, REST, NONE = (
    "all",
    "rest",
    "none",
)  # of the spoiled lesson's points: the rest is all but the first exercise's

TRANSFORMER = """
import ast, builtins

class Emptied(ast.NodeTransformer):
    def visit_FunctionDef(self, node):
        if node.name.startswith(("check_", "hidden_")):
            node.body = [ast.Pass()]
        return node

try:
    get_ipython().ast_transformers.append(Emptied())
except NameError:
    compiled = builtins.compile
    builtins.compile = lambda source, *more, **named: compiled(Emptied().visit(ast.parse(source)), *more, **named)
"""
PATCHER = """
import builtins, copy, math, sys

def always(*args, **kwargs):
    return True

math.isclose = builtins.all = builtins.isinstance = always
for name, module in list(sys.modules.items()):
    if name in ("torch", "numpy"):
        module.allclose = module.equal = always
print('{"name": "", "message": ""}', "passed")
"""

Answers = dict[str, str]


@dataclass(frozen=True)
class Student:
    """What one does to a solved notebook: change the notebook, or the bytes of its file; and what that may cost."""

    keeps: str
    told: str
    change: Callable[[dict[str, Any]], None] | None = None
    data: Callable[[bytes], bytes] | None = None


def cells(notebook: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The cells whose grade id begins with ``kind``."""
    return [
        c for c in notebook["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id", "").startswith(kind)
    ]


def graded(notebook: dict[str, Any]) -> dict[str, Any]:
    """The answer cell of the first graded exercise."""
    check = next(c for c in cells(notebook, "check_") if c["metadata"]["nbgrader"]["grade"])
    return cells(notebook, check["metadata"]["nbgrader"]["grade_id"].replace("check", "answer"))[0]


def answering(code: str, *, instead: bool = False) -> Callable[[dict[str, Any]], None]:
    """Code in the answer of the first graded exercise: before the solution, or instead of it."""

    def change(notebook: dict[str, Any]) -> None:
        cell = graded(notebook)
        text = "".join(cell["source"])
        cell["source"] = code + (
            "\n" + re.sub(r"(?s)(def .+?:\n).*", r"\1    return None\n", text) if instead else text
        )

    return change


def nothing_solved(notebook: dict[str, Any]) -> None:
    for cell in cells(notebook, "answer_"):
        head = re.match(r"(?s).*?def .+?:\n", "".join(cell["source"]))
        cell["source"] = f"{TRANSFORMER}\n{head[0] if head else ''}    return None\n"
    notebook["cells"].insert(
        0,
        {
            **notebook["cells"][-1],
            "cell_type": "code",
            "source": TRANSFORMER,
            "outputs": [],
            "execution_count": None,
            "metadata": {},
            "id": "mine",
        },
    )


def repeated(notebook: dict[str, Any]) -> None:
    notebook["cells"] += copy.deepcopy(cells(notebook, "check_"))


def deleted(kind: str) -> Callable[[dict[str, Any]], None]:
    def change(notebook: dict[str, Any]) -> None:
        lost = cells(notebook, "check_") if kind == "check_" else [graded(notebook)]
        notebook["cells"] = [cell for cell in notebook["cells"] if cell not in lost]

    return change


def retyped(notebook: dict[str, Any]) -> None:
    for cell in (*cells(notebook, "answer_"), *cells(notebook, "check_")):
        cell["cell_type"] = "markdown"
        cell.pop("outputs", None), cell.pop("execution_count", None)


def damaged(notebook: dict[str, Any]) -> None:
    for cell in cells(notebook, "answer_"):
        cell["source"] = [*cell["source"], "\n# half a character: \ud800\n"]
    notebook["cells"][1:1] = [
        None,
        7,
        "text",
        {"metadata": None},
        {"metadata": {"nbgrader": []}, "source": [1]},
    ]
    del notebook["nbformat"]


def printing(notebook: dict[str, Any]) -> None:
    graded(notebook)["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x" * 50 * 2**20}]


CLASS = {
    "honest": Student(ALL, "accepted"),
    "empty": Student(NONE, "it is no notebook", data=lambda data: b""),
    "torn": Student(NONE, "it is no notebook", data=lambda data: data[: len(data) // 2]),
    "vast": Student(NONE, "larger than 64 MiB", data=lambda data: data + b" " * 2**26),
    "link": Student(NONE, "it is no regular file"),
    "wordy": Student(ALL, "accepted", printing),
    "damaged": Student(ALL, "accepted", damaged),
    "repeated": Student(ALL, "stood 2 times", repeated),
    "deleted": Student(ALL, "was missing", deleted("check_")),
    "lost": Student(REST, "was missing", deleted("answer_")),
    "retyped": Student(ALL, "was no code cell", retyped),
    "leaving": Student(REST, "ended with status 0", answering("import os\nos._exit(0)\n")),
    "endless": Student(REST, "an endless loop", answering("while True:\n    pass\n")),
    "transformer": Student(NONE, "Error", nothing_solved),
    "unspeakable": Student(REST, "ValueError", answering("raise ValueError('\\ud800')\n")),
    "patcher": Student(REST, "Error", answering(PATCHER, instead=True)),
}


# Attacks on the machine, tried in a sandbox only. Each says what it could do, and then answers rightly or not at all; so the
# points are what was earned, and the feedback of the last two shows what was found.
NETWORK = """
import socket
try:
    socket.create_connection(("127.0.0.1", {port}), 5).sendall(b"the hidden cases are ...")
except OSError as error:
    print("no network:", error)
"""
BOMB = """
import os, time
born = 0
try:
    while born < 400:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        born += 1
except OSError:
    raise SystemExit(f"stopped at {born}") from None
os._exit(0)  # nothing stopped it, and the feedback would say so
"""
VANDAL = """
import pathlib
for root in ("{folder}", "{grader}", "/etc", "/usr/bin"):
    for path in [pathlib.Path(root, "mine.txt"), *pathlib.Path(root).rglob("*")]:
        try:
            if path.suffix in (".py", ".ipynb", ".db", ".txt", ".html"):
                path.write_text("def judge(job): return {{}}")
                print("written:", path)
        except OSError:
            pass
raise SystemExit("wrote what I could")
"""
READER = """
import pathlib
for root in ("{folder}", "{repository}", "/home", "/root", "/tmp", "/work"):
    for path in pathlib.Path(root).rglob("*"):
        try:
            text = path.read_text(errors="replace") if path.suffix in (".ipynb", ".py") else ""
        except OSError:
            continue
        for line in text.splitlines():
            if any(word[::-1] in line for word in {words}):
                print(path, line)
raise SystemExit("read what I could")
"""
PRINTER = "import sys\nfor _ in range(2**14):\n    sys.stdout.write('x' * 2**16)\n"
HOSTILE = {
    "network": Student(ALL, "accepted", answering(NETWORK)),
    "bomb": Student(REST, "stopped at", answering(BOMB)),
    "printer": Student(REST, "File too large", answering(PRINTER)),
    "vandal": Student(REST, "wrote what I could", answering(VANDAL)),
    "reader": Student(REST, "read what I could", answering(READER)),
}


def drill(
    folder: Path, pages: list[Path], seconds: int, sandbox: str = "", students: dict[str, Student] = CLASS
) -> list[dict[str, Any]]:
    """Grade the class in two lessons, of which the first is spoiled, with nbgrader's commands; one row a student.

    SystemExit tells of a command that failed, a file that changed, or a message that came out over the network.
    """
    secret = hidden_lines(pages)
    with classroom.opened(folder) as api, socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        places = {
            "port": server.getsockname()[1],
            "folder": folder,
            "grader": Path(__file__).resolve().parents[1] / "classroom",
            "repository": Path(__file__).resolve().parents[1],
            "words": [line[::-1] for line in sorted(secret)],  # else its own text would show them
        }
        for page in pages:
            released = classroom.release(api, folder, page)
            for name, student in students.items():
                path = folder / "submitted" / name / page.stem / f"{page.stem}.ipynb"
                classroom.write_notebook(classroom.solved(released, page), path)
                if page is pages[0]:
                    spoil(path, student, folder / "source" / page.stem / path.name)
                    if name in HOSTILE and "{" in (text := path.read_text(encoding="utf-8")):
                        path.write_text(placed(text, places), encoding="utf-8")
        config = folder / "nbgrader_config.py"
        text = config.read_text(encoding="utf-8")
        text = re.sub(r"(?m)^(c.CheckAnswers.seconds =).*", rf"\1 {seconds}", text)
        config.write_text(
            re.sub(r"(?m)^(c.CheckAnswers.sandbox =).*", rf'\1 "{sandbox}"', text), encoding="utf-8"
        )
        before = kept(folder)
        for command in ("autograde", "generate_feedback"):
            for page in pages:
                words = [sys.executable, "-m", "nbgrader", command, page.stem]
                done = subprocess.run(words, cwd=folder, capture_output=True, text=True, encoding="utf-8")
                if done.returncode:
                    raise SystemExit(f"{command} {page.stem}: {done.stderr[-2000:]}")
        if kept(folder) != before:
            raise SystemExit("a file of the class or of the grader was changed by an answer")
        with contextlib.suppress(BlockingIOError):
            server.accept()
            raise SystemExit("an answer has sent a message over the network")
    return [row(folder, pages, name, student, secret) for name, student in students.items()]


def placed(text: str, places: dict[str, Any]) -> str:
    """The source of a notebook with the places of this machine in the attack of its first graded answer."""
    notebook = json.loads(text)
    cell = graded(notebook)
    source = "".join(cell["source"])
    for name, value in places.items():
        source = source.replace(f"{{{name}}}", str(value))
    cell["source"] = source.replace("{{}}", "{}")
    return json.dumps(notebook)


def kept(folder: Path) -> dict[str, str]:
    """What no answer may change: sources, releases, submissions, settings, and the grader's files in the repository."""
    own = [
        path for part in ("source", "release", "submitted", "teaching") for path in (folder / part).rglob("*")
    ]
    files = [*own, *folder.glob("*.py"), *Path(__file__).resolve().parents[1].glob("classroom/*")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}


def spoil(path: Path, student: Student, source: Path) -> None:
    if student.change:
        notebook = json.loads(path.read_bytes())
        student.change(notebook)
        path.write_text(json.dumps(notebook), encoding="utf-8")
    elif student.data:
        path.write_bytes(student.data(path.read_bytes()))
    elif student.keeps == NONE:
        path.unlink()
        path.symlink_to(source)
        path.with_name("extra.txt").symlink_to(source)


def hidden_lines(pages: list[Path]) -> set[str]:
    """The lines of hidden code that say something and stand nowhere else on the pages."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    inside = {
        line.strip() for match in exercises.HIDDEN.finditer(text) for line in match["body"].splitlines()
    }
    outside = {line.strip() for line in exercises.HIDDEN.sub("", text).splitlines()}
    return {line for line in inside - outside if len(line) > 12}


def row(folder: Path, pages: list[Path], name: str, student: Student, secret: set[str]) -> dict[str, Any]:
    """Points by lesson and what they should be; was the student told; files for the student that show a hidden line."""
    from nbgrader.api import Gradebook

    full, first = {}, 0
    for page in pages:
        points = [exercise.points for exercise in exercises.load(page) if exercise.graded]
        full[page.stem], first = sum(points), first or points[0]
    spoiled = pages[0].stem
    lost = {ALL: 0, REST: first, NONE: full[spoiled]}[student.keeps]
    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as book:
        points = {stem: float(book.find_submission_notebook(stem, stem, name).score) for stem in full}
    feedback = folder / "feedback" / name
    seen = [path for path in (*feedback.rglob("*"), *(folder / "release").rglob("*")) if path.is_file()]
    text = html.unescape((feedback / spoiled / f"{spoiled}.html").read_text(encoding="utf-8"))
    return {
        "student": name,
        "points": points,
        "expected": full | {spoiled: full[spoiled] - lost},
        "told": student.told in text,
        "shown": [
            path.name
            for path in seen
            if any(line in html.unescape(path.read_text("utf-8")) for line in secret)
        ],
        "others": [path.name for path in feedback.rglob("*") if path.is_file() and path.suffix != ".html"],
    }


def main(words: list[str]) -> int:
    sandbox = words[0] if words[:1] in (["bwrap"], ["docker"]) else ""
    names = words[bool(sandbox) :] or ["00", "05"]
    pages = [exercises.sources()[name] for name in names]
    with tempfile.TemporaryDirectory() as folder:
        students = CLASS | (HOSTILE if sandbox else {})
        rows = drill(Path(folder, "class"), pages, 60, sandbox, students)
    for one in rows:
        good = one["points"] == one["expected"] and one["told"] and not one["shown"] and not one["others"]
        points = "  ".join(
            f"{stem} {found:g} of {one['expected'][stem]:g}" for stem, found in one["points"].items()
        )
        print(f"{one['student']:12} {points}  {'ok' if good else one}", flush=True)
        one["good"] = good
    return int(not all(one["good"] for one in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
