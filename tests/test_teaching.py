"""The teacher's pages: one a lesson, complete against its source, without typed results, and in nobody else's hands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from test_drift import typed_numbers

from instructlab_repro import notebooks
from instructlab_repro.engine import classroom
from instructlab_repro.notebooks import exercises
from instructlab_utils import files

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "teaching"
LESSONS = notebooks.lessons()
MISSING: set[str] = set()  # every lesson has its page; this list stays empty
PAGES = sorted(FOLDER.glob("*.md"))
WORDS = (500, 1100)
SECTIONS = ["Minutes", "Predictions", "Recall", "Exercises", "Board", "Left open"]
FENCE = re.compile(r"^```\n.*?^```$", re.MULTILINE | re.DOTALL)
VERDICT = re.compile(r"((?:\b[A-Z]{1,3}\d+(?:, | and )?)+) (?:is |are )?(supported|refuted|undecided)\b")
PREDICT = re.compile(r"(?<!\w)\*{1,2}Predict\b")
ITEM = re.compile(r"^(?:- |\d+\. )(?:.|\n(?!\n|- |\d+\. |#))*", re.MULTILINE)


# --- what a lesson holds ------------------------------------------------------------------------------


def prose(lesson: Any) -> list[str]:
    """The Markdown cells of a lesson's source; text on a cell's own marker line is a title to jupytext, and read too."""
    cells = notebooks.from_source(lesson.source).cells
    return [f"{c.metadata.get('title', '')}\n{c.source}" for c in cells if c.cell_type == "markdown"]


def predictions(cells: list[str]) -> list[str]:
    """Of each *Predict* of a lesson, in order, the heading under which it stands."""
    found, heading = [], ""
    for line in "\n".join(cells).split("\n"):
        if match := re.match(r"#+ (.+)$", line):
            heading = match[1].strip()
        found += [heading] * len(PREDICT.findall(line))
    return found


def recalls(cells: list[str]) -> int:
    """How many recall questions a lesson ends with."""
    last = "\n\n".join(cells).rpartition("**Recall")[2]
    numbers = re.findall(r"^(\d)\. ", re.split(r"\n(?=\*\*|<details)", last)[0], flags=re.MULTILINE)
    assert numbers == [str(k) for k in range(1, len(numbers) + 1)]
    return len(numbers)


def has_project(boxes: list[exercises.Exercise]) -> bool:
    return "project" in boxes[-1].title.lower()


# --- what a page must hold ----------------------------------------------------------------------------


def sections(text: str) -> dict[str, str]:
    """Title → body of each second-level section; sketches between fences hold no titles."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {title.strip(): body for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def words(text: str) -> int:
    """Words of a page: what holds a letter or a digit, the sketches left out."""
    return sum(bool(re.search(r"\w", word)) for word in FENCE.sub("", text).split())


def faults(text: str, lesson: Any) -> list[str]:
    """One sentence for each thing that a page lacks, has too often, or should not say."""
    said, cells, boxes = [], prose(lesson), exercises.load(exercises.sources(ROOT)[lesson.id])
    found = sections(text)
    if not text.startswith(f"# {lesson.id} {lesson.title}\n"):
        said.append(f"the title is not '# {lesson.id} {lesson.title}'")
    for label in ("**What it is for.**", "**The one thing.**", "**Half the time.**"):
        if label not in text:
            said.append(f"{label} is missing")
    wanted = SECTIONS + ["The project"] * has_project(boxes)
    if list(found) != wanted:
        return [*said, f"the sections are {', '.join(found)}; they should be {', '.join(wanted)}"]
    plan = [int(row) for row in re.findall(r"^\| (\d+) \|", found["Minutes"], flags=re.MULTILINE)]
    minutes = notebooks.read_header(lesson.source)["instructlab"]["class_minutes"]
    if sum(plan) != minutes:
        said.append(f"the plan has {sum(plan)} minutes, the lesson's header {minutes}")
    said += _items("Predictions", found, ("*They say:*", "*Print:*", "*Say:*"))
    answered, heading = [], ""
    for line in found["Predictions"].split("\n"):
        heading = line[4:].strip() if line.startswith("### ") else heading
        answered += [heading] * line.startswith("- ")
    if answered != (asked := predictions(cells)):
        for title in dict.fromkeys([*asked, *answered]):
            if answered.count(title) != asked.count(title):
                said.append(
                    f"{title!r}: {asked.count(title)} predictions asked, {answered.count(title)} answered"
                )
        said.append("the predictions do not follow the lesson's")
    said += _items("Recall", found, ("*Half right:*",))
    numbers = re.findall(r"^(\d+)\. ", found["Recall"], flags=re.MULTILINE)
    if numbers != [str(k) for k in range(1, recalls(cells) + 1)]:
        said.append(f"{recalls(cells)} recall questions asked, {len(numbers)} answered")
    said += _items("Exercises", found, ("*Ask:*",))
    if (named := re.findall(r"^- \*\*(\d\d\.\d)\*\* ", found["Exercises"], flags=re.MULTILINE)) != [
        box.id for box in boxes
    ]:
        said.append(f"the exercises named are {', '.join(named)}")
    if len(re.findall(r"\n\n+", "\n".join(FENCE.findall(found["Board"])))) < 1:
        said.append("the board needs two sketches between fences, an empty line between them")
    if len(re.findall(r"^- \*.+?\?\*", found["Left open"], flags=re.MULTILINE)) < 2:
        said.append("at least two open questions are needed")
    for label in ("*Good:*", "*Middling:*", "*Poor:*"):
        if "The project" in found and found["The project"].count(label) != 1:
            said.append(f"the project needs one {label}")
    if not WORDS[0] <= words(text) <= WORDS[1]:
        said.append(f"{words(text)} words; {WORDS[0]} to {WORDS[1]} are wanted")
    plain = re.sub(r"^- \*\*\d\d\.\d\*\*", "-", text, flags=re.MULTILINE)
    return said + [f"line {line}: {number!r} is typed" for line, number in typed_numbers(plain)]


def _items(section: str, found: dict[str, str], labels: tuple[str, ...]) -> list[str]:
    items = [" ".join(item.split()) for item in ITEM.findall(found[section])]
    return [
        f"{section}, {item[:40]!r}: {label} stands there {item.count(label)} times"
        for item in items
        for label in labels
        if item.count(label) != 1
    ]


def wrong_verdicts(text: str, ledger: dict[str, str]) -> list[str]:
    """Claims that a page calls supported, refuted or undecided, where the ledger says something else.

    What students say is left out: they may be wrong.
    """
    plain = re.sub(r"\*They say:\*.*?(?=\*Print:\*)", "", " ".join(text.split()))
    return [
        f"{claim} is {ledger.get(claim, 'no claim')} in the ledger, not {said}"
        for claims, said in VERDICT.findall(plain)
        for claim in re.findall(r"[A-Z]+\d+", claims)
        if ledger.get(claim) != said
    ]


# --- the pages ----------------------------------------------------------------------------------------


def test_each_lesson_has_a_page_but_those_on_the_list():
    """A lesson leaves the list with its page; no lesson is added to it."""
    assert {page.stem for page in PAGES} == set(LESSONS) - MISSING
    assert len(MISSING) <= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_answers_what_its_lesson_asks(page: Path):
    assert faults(page.read_text(encoding="utf-8"), LESSONS[page.stem]) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_local_links_of_a_page_lead_somewhere(page: Path):
    for link in re.findall(r"\]\(([^)#\s:]+)[)#]", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


@pytest.fixture(scope="module")
def ledger() -> dict[str, str]:
    return {
        row["claim"]: row["verdict"] for row in files.read_json(ROOT / "data" / "results" / "ledger.json")
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_verdicts_on_a_page_are_those_of_the_ledger(page: Path, ledger: dict[str, str]):
    assert wrong_verdicts(page.read_text(encoding="utf-8"), ledger) == []


def test_a_wrong_verdict_is_told():
    text = "*They say:* C1 supported. *Print:* C2, C3 and C4 are\nsupported; D1 is refuted, X9 undecided."
    assert wrong_verdicts(text, {"C2": "supported", "C3": "refuted", "C4": "supported", "D1": "refuted"}) == [
        "C3 is refuted in the ledger, not supported",
        "X9 is no claim in the ledger, not undecided",
    ]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("# 00 ", "# 01 ", "the title is not"),
        ("**Half the time.**", "Or", "**Half the time.** is missing"),
        ("| 14 |", "| 15 |", "the plan has 91 minutes, the lesson's header 90"),
        ("\n## Board\n", "\n## Blackboard\n", "the sections are"),
        ("\n- *They say:* typing kills", "\n  *They say:* typing kills", "1 answered"),
        ("### The padding trap", "### 4 Answered", "'The padding trap': 1 predictions asked, 0 answered"),
        ("*Print:* `loss: None`", "`loss: None`", "*Print:* stands there 0 times"),
        ("\n5. Yes", "\n   Yes", "5 recall questions asked, 4 answered"),
        ("*Half right:* only the count.", "", "*Half right:* stands there 0 times"),
        ("- **00.3** ", "- ", "the exercises named are 00.1, 00.2, 00.4, 00.5"),
        ("editor's margin say?", "editor's margin say? 0.93", "'0.93' is typed"),
        ("## Recall\n", "## Recall\n\n" + "word " * 1100, "1100 are wanted"),
        ("```\nwrite", "write", "the board needs two sketches"),
    ],
)
def test_a_page_that_breaks_a_rule_is_told(old: str, new: str, told: str):
    text = (FOLDER / "00.md").read_text(encoding="utf-8")
    assert text.count(old) >= 1
    said = faults(text.replace(old, new, 1), LESSONS["00"])
    assert any(told in one for one in said), said


def test_a_project_without_three_hand_ins_is_told():
    text = (FOLDER / "15.md").read_text(encoding="utf-8")
    assert "the project needs one *Middling:*" in faults(text.replace("*Middling:*", "So so:"), LESSONS["15"])
    without = re.sub(r"^## The project\n.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    assert any("the sections are" in one for one in faults(without, LESSONS["15"]))


def test_predictions_and_recalls_are_counted_as_they_are_written():
    cells = [
        "# T\n\n## 1 One\n\n*Predict: a?* **Predict.** b\n\n**Predict**, with a pencil",
        "### Sub\n\nPredict this",
    ]
    assert predictions([*cells, "**Predict, and write it down.**"]) == ["1 One"] * 3 + ["Sub"]
    assert predictions(["Stop at each prediction. *Prediction* is hard, and prediction"]) == []
    assert (
        recalls(["> **Recall.** Early?", "**Recall.** Now.\n\n1. A\n   b\n2. C\n\n**References.**\n\n1. D"])
        == 2
    )


# --- in whose hands -----------------------------------------------------------------------------------


def test_the_teacher_gets_the_pages_and_no_student_does(tmp_path, monkeypatch):
    pytest.importorskip("nbgrader")
    path = exercises.sources(ROOT)["00"]
    folder = tmp_path / "class"
    with classroom.opened(folder) as api:
        classroom.release(api, folder, path)
    assert sorted(page.name for page in (folder / "teaching").iterdir()) == [page.name for page in PAGES]
    given = [file for file in (folder / "release").rglob("*") if file.is_file()]
    assert [file.name for file in given] == [f"{path.stem}.ipynb"]
    assert "They say" not in given[0].read_text(encoding="utf-8")


def test_no_page_is_in_the_site():
    from book import facts, pages

    assert [place for place in facts.site().pages if place.startswith("teaching")] == []
    assert [name for name, _ in pages.everything([]) if name.startswith("teaching")] == []
    link = facts.site().rewrite("[pages](teaching/)", "TEACHING.md")
    assert "teaching" not in link or facts.settings()[0]
