"""README, CONTRIBUTING, TEACHING and docs/: short, with links that lead somewhere, commands that exist, tables that agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from instructlab_repro import notebooks
from instructlab_repro.notebooks import exercises

ROOT = Path(__file__).resolve().parents[1]
DOCS = tuple(f"docs/{path.name}" for path in sorted(ROOT.glob("docs/*.md")))
PROSE = ("README.md", "CONTRIBUTING.md", "TEACHING.md", "SCALING.md", "README.zh.md", *DOCS)
PAGES = (*PROSE, "LEDGER.md", "benchmarks/RESULTS.md")
GENERATED = re.compile(r"<!-- generated:([\w.-]+) -->\n.*?<!-- /generated -->", re.DOTALL)


def _text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    named = re.findall(r'<a id="([\w-]+)"></a>', text)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles} | set(named)


@pytest.mark.parametrize("page", PAGES)
def test_local_links_lead_somewhere(page: str) -> None:
    text, broken = _text(page), []
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        target, _, anchor = link.partition("#")
        if target.startswith(("http:", "https:")):
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        if not path.exists():
            broken.append(link)
        elif anchor and anchor not in _anchors(path.read_text(encoding="utf-8")):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PROSE)
def test_make_targets_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", _text("Makefile"), flags=re.MULTILINE))
    called = set(re.findall(r"(?:`|^)make ([a-z]+)", _text(page), flags=re.MULTILINE))
    assert called or page in DOCS
    assert not called - targets


@pytest.mark.parametrize("page", PROSE)
def test_commands_and_their_options_exist(page: str) -> None:
    import typer

    from instructlab_apps.commands import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for command, rest in re.findall(r"-m instructlab_utils ([a-z-]+)([^`\n]*)", _text(page)):
        assert command in commands, f"{page}: unknown command {command}"
        known = {name for parameter in commands[command].params for name in parameter.opts}
        for option in re.findall(r"(?<=\s)--?[a-z][a-z-]*", rest):
            assert option in known, f"{page}: {command} has no option {option}"


@pytest.mark.parametrize("page", PROSE)
def test_named_paths_exist(page: str) -> None:
    """Paths in backticks; those with a placeholder in capitals or angle brackets are patterns."""
    folders = (
        "notebooks",
        "data",
        "tests",
        "instructlab_utils",
        "instructlab_repro",
        "scripts",
        "benchmarks",
        "figures",
        ".github",
    )
    named = re.findall(rf"`((?:{'|'.join(map(re.escape, folders))})/[\w./-]*)`", _text(page))
    missing = [name for name in named if not re.search(r"[A-Z]{2}|NN", name) and not (ROOT / name).exists()]
    assert not missing


def test_lesson_table_of_teaching_agrees_with_the_sources() -> None:
    rows = re.findall(
        r"^\| (\d\d) ([^|]+?) \| \d+ minutes \| (\d+) \| (\d+) \|$", _text("TEACHING.md"), flags=re.M
    )
    found = {number: (title, int(minutes), int(points)) for number, title, minutes, points in rows}
    expected = {}
    for lesson in notebooks.lessons().values():
        boxes = exercises.load(exercises.sources()[lesson.id])
        expected[lesson.id] = (lesson.title, sum(b.minutes for b in boxes), sum(b.points for b in boxes))
    assert found == expected


def test_exercises_named_in_teaching_are_what_it_says() -> None:
    boxes = {box.id: box for path in exercises.sources().values() for box in exercises.load(path)}
    for number, flavour in re.findall(r"(\d\d\.\d) \((bug hunt|prediction)\)", _text("TEACHING.md")):
        assert boxes[number].flavour == flavour
    assert not set(re.findall(r"\b0\d\.\d\b", _text("TEACHING.md"))) - set(boxes)


def test_readme_is_two_screens_with_two_commands_and_one_figure() -> None:
    text = _text("README.md")
    assert len(text.encode()) <= 12 * 1024 and text.count("\n") <= 220
    assert GENERATED.findall(text) == ["lessons", "remember", "benchmark"]
    commands = re.findall(
        r"^make (\w+)", "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)), re.MULTILINE
    )
    assert commands == ["course", "test"] and text.count("![") == 1
    assert len(re.findall(r"^- \*\*(?:supported|refuted)", text, re.MULTILINE)) == 5


def test_the_chinese_readme_has_the_commands_the_links_and_the_verdicts_of_the_english_one() -> None:
    english, chinese = _text("README.md"), _text("README.zh.md")
    assert (
        english.split("\n")[2] == "[中文](README.zh.md)" and chinese.split("\n")[2] == "[English](README.md)"
    )

    def commands(text: str) -> list[str]:
        lines = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).split("\n")
        return [line.split("#")[0].rstrip() for line in lines]

    def links(text: str) -> set[str]:
        return set(re.findall(r"\]\(([^)\s]+)\)", text)) - {"README.md", "README.zh.md"}

    assert commands(chinese) == commands(english)
    assert links(chinese) == links(english)
    assert len(re.findall(r"^## ", chinese, re.MULTILINE)) == len(re.findall(r"^## ", english, re.MULTILINE))
    word = {"成立": "supported", "被推翻": "refuted", "未决": "undecided"}
    told = re.findall(r"^- \*\*(.+?)\*\*：“.+?（\[(\w+)\]\(LEDGER", chinese, re.MULTILINE)
    wanted = re.findall(r"^- \*\*(\w+)\*\*: “.+? \(\[(\w+)\]\(LEDGER", english, re.MULTILINE)
    assert len(told) == 5 and [(word[verdict], claim) for verdict, claim in told] == wanted


def test_contributing_is_one_screen_and_every_page_of_docs_is_linked() -> None:
    assert len(_text("CONTRIBUTING.md").encode()) <= 6 * 1024
    linked = {link for page in PROSE[:4] for link in re.findall(r"\]\((docs/[\w-]+\.md)", _text(page))}
    assert linked == set(DOCS)


@pytest.mark.parametrize("page", PROSE)
def test_no_measured_number_stands_outside_a_generated_block(page: str) -> None:
    prose = GENERATED.sub("", _text(page))
    found = re.findall(
        r"\b\d+(?:\.\d+)? ?(?:seconds|s|ms|GFLOP/s|% accuracy)(?![\w-])|\b0\.\d{2,}\b|±", prose
    )
    assert not found
