"""No drift: what README and the tables say is regenerated and compared, and no lesson types a result by hand."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from instructlab_repro import claims, experiments, notebooks
from instructlab_repro.engine import course, jobs
from instructlab_repro.notebooks import exercises
from instructlab_repro.pages import blocks_of, check_blocks, readme, tables
from instructlab_utils import files, tasks
from instructlab_utils.project import PROFILES

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
MEASURED = ROOT / "docs" / "reproduce.md"  # has the block of the last measured course
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
ELSEWHERE = {
    "course",
    "scaling",
    "scaling-7b",
    "benchmark",
    "benchmarks",
    "coverage",
    "worked-example",
    "lessons-zh",
}  # test_slurm.py, test_bench.py, test_claims.py, test_recompute.py, test_book.py
FOLDERS = ("source", "exercises", "experiments/source")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / "notebooks" / folder).glob("*.py"))


# --- generated blocks ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def regenerated() -> dict[str, str]:
    return readme.blocks()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_blocks_are_what_is_regenerated_now(page: Path, regenerated: dict[str, str]) -> None:
    assert blocks_of(page).keys() <= {*regenerated, *ELSEWHERE}
    assert check_blocks(page, readme.for_page(page, regenerated)) == []


def test_each_block_stands_on_a_page() -> None:
    there = {name for page in PAGES for name in blocks_of(page)}
    shown = {"lessons", "remember", "experiments", "claims", "ledger-page", "teaching", "before", *ELSEWHERE}
    assert shown | {"table-arena", "table-baselines", "repetitions", "power", "editions"} <= there


@pytest.mark.parametrize(
    ("page", "name"),
    [(page, name) for page in PAGES for name in sorted(blocks_of(page).keys() - ELSEWHERE)],
    ids=lambda part: getattr(part, "name", part),
)
def test_a_changed_digit_in_a_block_is_told(
    page: Path, name: str, regenerated: dict[str, str], tmp_path: Path
) -> None:
    text, block = page.read_text(encoding="utf-8"), blocks_of(page)[name]
    copy = tmp_path / page.name
    copy.write_text(text.replace(block, re.sub(r"\d", lambda d: str(9 - int(d[0])), block)), encoding="utf-8")
    (told,) = check_blocks(copy, readme.for_page(page, regenerated))
    assert f"generated block {name!r} is out of date" in told


def test_the_measured_block_has_every_notebook_of_the_course_and_all_ended_well() -> None:
    """Its seconds belong to a machine; its rows do not."""
    block = blocks_of(MEASURED)["course"]
    wanted = jobs.all_jobs(course.course_targets("smoke"), "smoke")
    rows = re.findall(r"^\| (\S+) \| (\w+) \| \d+\.\d \| \d+ MB \|$", block, flags=re.MULTILINE)
    assert rows == sorted(
        [(job.name if "/" in job.name else job.notebook.stem, "ok") for job in wanted],
        key=lambda row: ("/" in row[0], row[0]),
    )
    assert block.startswith(f"Notebooks run: {len(wanted)}, all ok, ")


@pytest.mark.slow
def test_the_stored_ledger_is_what_claims_and_results_give_now() -> None:
    """Pages and tables quote the file, so the file itself is computed again."""
    stored = files.read_json(ROOT / "data" / "results" / "ledger.json")
    assert stored == json.loads(files.dumps(claims.ledger())), "run `make reproduce`"


@pytest.mark.parametrize("name", experiments.names())
def test_stored_tables_are_what_the_results_give_now(name: str) -> None:
    stored = sorted((ROOT / "data" / "results" / "tables").glob(f"{name}.*"))
    assert bool(stored) == bool(experiments.results(name, "laptop"))
    for path, text in tables.forms(name).items() if stored else ():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make reproduce`"


# --- counts in prose ---------------------------------------------------------------------------------

SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = dict(
    zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True)
)
SPELT = {word: number for number, word in enumerate(SMALL)} | TENS
SPELT |= {f"{ten}-{SMALL[i]}": number + i for ten, number in TENS.items() for i in range(1, 10)}
COUNTED = re.compile(
    rf"(?<![\w.,-])(?P<number>\d[\d,]*|{'|'.join(sorted(SPELT, key=len, reverse=True))})\s+"
    r"(?P<what>lessons|notebooks|experiments|claims|tasks|exercises)\b",
    re.IGNORECASE,
)
BLOCKS = re.compile(r"<!-- generated:.*?<!-- /generated -->", re.DOTALL)


@pytest.fixture(scope="module")
def true_counts() -> dict[str, set[int]]:
    boxes = sum(len(exercises.load(path)) for path in exercises.sources().values())
    return {
        "lessons": {len(notebooks.lessons())},
        "notebooks": {
            len(notebooks.everything()),
            len(jobs.all_jobs(course.course_targets("smoke"), "smoke")),
        },
        "experiments": {len(experiments.names())},
        "claims": {len(claims.names())},
        "tasks": {len(tasks.names())},
        "exercises": {boxes},
    }


def wrong_counts(text: str, truth: dict[str, set[int]]) -> list[str]:
    """What a text outside its generated blocks counts of the kinds in ``truth``, where the number is not the true one."""
    said = []
    for match in COUNTED.finditer(BLOCKS.sub("", text)):
        number, what = match["number"].lower().replace(",", ""), match["what"].lower()
        if what in truth and (int(number) if number.isdigit() else SPELT[number]) not in truth[what]:
            right = " or ".join(map(str, sorted(truth[what])))
            said.append(
                f"{' '.join(match[0].split())!r}: there are {right}; reword, or put it into a generated block"
            )
    return said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_counts_on_pages_are_true(page: Path, true_counts: dict[str, set[int]]) -> None:
    assert wrong_counts(page.read_text(encoding="utf-8"), true_counts) == []


def test_counts_where_the_project_describes_itself_are_true(true_counts: dict[str, set[int]]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    for text in (project["description"], citation["title"], citation["abstract"]):
        assert wrong_counts(text, true_counts) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_counts_of_the_course_in_notebooks_are_true(path: Path, true_counts: dict[str, set[int]]) -> None:
    """A lesson may have two tasks and three claims of its own; lessons, notebooks and experiments are the course's."""
    whole = {what: true_counts[what] for what in ("lessons", "notebooks", "experiments")}
    prose = [cell.source for cell in notebooks.from_source(path).cells if cell.cell_type == "markdown"]
    assert wrong_counts("\n\n".join(prose), whole) == []


def test_a_wrong_count_is_told(true_counts: dict[str, set[int]]) -> None:
    (told,) = wrong_counts("- **Twelve lessons** of a planned course.", true_counts)
    assert told.startswith("'Twelve lessons': there are ")
    (told,) = wrong_counts("It has 1,000\nclaims.", {"claims": {92}})
    assert told == "'1,000 claims': there are 92; reword, or put it into a generated block"
    right = "Ninety-two claims, 92 claims, one claim, lesson 12, 12 of 15 lessons"
    assert wrong_counts(right, {"claims": {92}, "lessons": {15}}) == []
    assert wrong_counts("<!-- generated:x -->\n3 claims\n<!-- /generated -->", {"claims": {92}}) == []


# --- numbers typed into lessons: the linter ----------------------------------------------------------

SAME_PARAGRAPH = r"(?!\n\s*\n)"
CODE_OR_MATH = re.compile(
    r"^ *(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^ *(?P=fence)|\Z)"
    rf"|(?<!`)(?P<ticks>`+)(?!`)(?:{SAME_PARAGRAPH}.)+?(?<!`)(?P=ticks)(?!`)"
    rf"|(?<!\\)\$\$(?:{SAME_PARAGRAPH}.)+?\$\$"
    rf"|(?<!\\)\$(?![\s$])(?:{SAME_PARAGRAPH}(?:\\.|[^$\\]))+?(?<!\s)\$(?!\d)",
    re.MULTILINE | re.DOTALL,
)
NEVER_A_RESULT = re.compile(
    r"^#+ \d+(?:\.\d+)+ |\b(?:[Ss]ection|[Ee]xercise)s? \d+\.\d+\b"  # a heading's number, a reference to it
    r"|\]\([^)\s]*\)|https?://[^\s)>]+|</?[a-zA-Z][^<>]*>",  # addresses, HTML tags
    re.MULTILINE,
)
BUDGET = re.compile(r"^\| (?:time|memory)\b.*$", re.MULTILINE)
REFERENCES = re.compile(
    r"^(?:#+ (?:\d+ )?|\*\*)References[^\n]*\n.*?(?=^#|^\*\*|\Z)", re.MULTILINE | re.DOTALL
)
IDENTIFIER = re.compile(
    r"\bdoi:\s*10\.\S+|\barxiv:\s*\d{4}\.\d{4,5}|\bversion \d+\.\d+|\b(?:CC[ -]BY[\w-]*|Apache|GPL)[ -]v?\d\.\d",
    re.IGNORECASE,
)
CITATION = r"[(\[](?P<source>[^()\[\]]*)\b(?P<year>(?:19|20)\d\d)[a-z]?\b[^()\[\]]*[)\]]"
BLOCK_QUOTE = re.compile(r"(?:^ *>.*\n?)+", re.MULTILINE)
QUOTED = re.compile(rf'["“](?:{SAME_PARAGRAPH}[^"“”])*["”](?:\s*{CITATION})?')
COUNT = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|\w+ty|hundred)"
NUMBER = re.compile(
    r"(?<![\w.])(?:(?P<digits>(?=\.?\d)(?:\d+(?:,\d{3})*)?(?:\.\d+)*)(?P<exponent>e[-+−]?\d+)?"
    rf"(?P<percent>[\s*_\\-]*(?:%|‰|per ?cent))?|{COUNT}[\s-]+per ?cent)",
    re.IGNORECASE,
)


def _blank(text: str) -> str:
    """The same length and the same lines, nothing to read."""
    return re.sub(r"[^\n]", " ", text)


def _cited(citation: re.Match[str] | None, references: str) -> bool:
    """Whether a citation's first name and its year stand together in one entry of the references."""
    if citation is None or not citation["year"]:
        return False
    name = re.search(r"[^\W\d_a-z]\w+", citation["source"])
    wanted = {name[0], citation["year"]} if name else {""}
    return any(wanted <= set(re.findall(r"\w+", entry)) for entry in references.split("\n- "))


def typed_numbers(markdown: str, references: str = "") -> list[tuple[int, str]]:
    """(line from 1, number) of each decimal or percentage that a reader of this Markdown cell would see as prose.

    docs/lessons.md, "No typed numbers", says what is left alone. ``references`` is the whole file's list.
    """

    def quote_block(block: re.Match[str]) -> str:
        citation = re.search(CITATION + r"[\s>.*_]*\Z", block[0])
        return _blank(block[0]) if _cited(citation, references) else block[0]

    text = CODE_OR_MATH.sub(lambda m: _blank(m[0]), markdown)
    text = NEVER_A_RESULT.sub(lambda m: _blank(m[0]), text)
    text = REFERENCES.sub(lambda part: IDENTIFIER.sub(lambda m: _blank(m[0]), part[0]), text)
    if markdown.startswith("# "):
        text = BUDGET.sub(lambda m: _blank(m[0]), text)
    text = BLOCK_QUOTE.sub(quote_block, text)
    text = QUOTED.sub(lambda m: _blank(m[0]) if _cited(m, references) else m[0], text)
    found = []
    for match in NUMBER.finditer(text):
        points = match["digits"].count(".") if match["digits"] else 0  # two points: a version or a date
        if points == 1 or match["exponent"] or match["percent"] or not match["digits"]:
            found.append((text.count("\n", 0, match.start()) + 1, " ".join(match[0].split())))
    return found


def findings(path: Path) -> list[str]:
    """One sentence for each number typed into a Markdown cell of a py:percent source."""
    text, said, position = path.read_text(encoding="utf-8"), [], 0
    cells = [cell.source for cell in notebooks.from_source(path).cells if cell.cell_type == "markdown"]
    references = "\n".join(part for cell in cells for part in REFERENCES.findall(cell))
    for cell in cells:
        lines = "\n".join(f"# {line}" if line else "#" for line in cell.split("\n"))
        position = text.index(lines, position)
        before = text.count("\n", 0, position)
        for line, number in typed_numbers(cell, references):
            said.append(
                f"{path.name}, line {before + line}: {number!r} is typed into prose; print it from the record, "
                "or put it into math or code if it is a definition."
            )
        position += len(lines)
    return said


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_number_is_typed_into_prose(path: Path) -> None:
    found = findings(path)
    assert not found, "\n".join(found)


LIST = "**References.**\n\n- Student (1908). On means.\n- Wilson, E. B. (1927). Probable\n  inference.\n"


@pytest.mark.parametrize(
    ("markdown", "numbers"),
    [
        ("The accuracy is 0.93.", ["0.93"]),
        ("It rose by .5 points.", [".5"]),
        ("A rate of 1e-4, then 3E−2", ["1e-4", "3E−2"]),
        ("between 0.5,0.6 and −1.5x", ["0.5", "0.6", "1.5"]),
        ("1,024.5 seconds", ["1,024.5"]),
        ("93 % of them, 4% here, **7** %, 12\\%, 1,000 %", ["93 %", "4%", "7** %", "12\\%", "1,000 %"]),
        ("ten percent, 5 per cent, 3\npercent", ["ten percent", "5 per cent", "3 percent"]),
        ("sixty percent and seventeen-percent", ["sixty percent", "seventeen-percent"]),
        ("a few percent more", []),
        ("12 items, 1,000 words, 22 million, 1/3, in 2019. Then", []),
        ("from 1...5 on, 3 ‰", ["3 ‰"]),
        ("released as 2.13.0 on 12.03.2024", []),
        ("Qwen2.5 has a name, SmolLM2-135M too", []),
        # mathematics
        ("a rate of $0.02$, and $x\n= 0.5$ here", []),
        ("$$ p = 0.5\n  < 0.7 $$", []),
        ("$a$ is 0.5 and $b$ too", ["0.5"]),
        ("it costs $5 and 0.5 of $6", ["0.5"]),
        ("it costs \\$5 and 0.5 of $b$", ["0.5"]),
        ("\\$5 and 0.5 of a$b$", ["0.5"]),
        ("US$5, 0.5 or US$6", ["0.5"]),
        ("from $5 to 0.5 and $ signs", ["0.5"]),
        ("5 $ and 0.5 of a$ more", ["0.5"]),
        ("costs \\$$0.5$", []),
        ("a lone $x and 0.5\n\nthen y$ again", ["0.5"]),
        ("a lone $$ and 0.5\n\nthen $$ again", ["0.5"]),
        ("$\\$0.5$ is money", []),
        # code
        ("it prints `0.920`", []),
        ("``a ` 0.5`` is code, 0.6 is not", ["0.6"]),
        ("`a` is 0.5 and `b`", ["0.5"]),
        ("a lone ` and 0.5\n\nthen ` again", ["0.5"]),
        ("```python\nx = 0.5\n\ny = 0.7\n```\n0.6", ["0.6"]),
        ("~~~\n0.5\n\n0.6\n~~~", []),
        ("`$` is 0.5, `$` again", ["0.5"]),
        # quotations
        ('"we reach 0.93" (Wilson, 1927)', []),
        ("“we reach 0.93”\n[Wilson 1927, page 3]", []),
        ('"we reach 0.93"', ["0.93"]),
        ('"we reach 0.93" (Wilson)', ["0.93"]),
        ('"we reach 0.93" (in 1927)', ["0.93"]),
        ('"we reach 0.93" (Wilson, 1908)', ["0.93"]),
        ('"we reach 0.93" (Nobody, 1927)', ["0.93"]),
        ('"we reach 0.93", as he says (Wilson, 1927)', ["0.93"]),
        ('"a" has 0.93, "b" (Wilson, 1927) has 0.94', ["0.93", "0.94"]),
        ('the "a" at 0.93" (Wilson, 1927)', ["0.93"]),
        ("> We reach 0.93,\n> or 94 %. (Wilson, 1927)\n\nOr 0.5.", ["0.5"]),
        ("> We reach 0.93.", ["0.93"]),
        ("> Wilson (1927) reaches 0.93. (Nobody, 1927)", ["0.93"]),
        ("> (Wilson, 1927) says so, we reach 0.93.", ["0.93"]),
        ("We reach 0.93. (Wilson, 1927)", ["0.93"]),
        # headings, links, tags
        ("## 6.1 Scores\n\nin section 6.1 and exercise 03.4", []),
        ("## 6.1 Scores of 0.5\n\n6.1 of them", ["0.5", "6.1"]),
        ("[a link](a/0.5.md) to https://example.org/0.5", []),
        ("[0.5](a.md) and <img width='50%'> and a < 0.6", ["0.5", "0.6"]),
        # references
        ("**References.**\n\n- `x`. arXiv:1902.00751, doi:10.1177/19.4, version 2.1, CC BY-SA 4.0", []),
        ("## 9 References\n\n- Apache-2.0. They reach 0.93.", ["0.93"]),
        ("**References.**\n\n- A.\n\n**Exercises.** version 2.1", ["2.1"]),
        ("arXiv:1902.00751", ["1902.00751"]),
        # the budget of a title cell
        ("# 01 Title\n\n| time | 0.5 minutes |\n| memory | 1.5 GB |\n| data | 0.7 |", ["0.7"]),
        ("## 2 Results\n\n| time | 0.5 minutes |", ["0.5"]),
        ("Text.\n\n| memory | 1.5 GB |", ["1.5"]),
    ],
)
def test_the_linter_finds_typed_numbers_and_nothing_else(markdown: str, numbers: list[str]) -> None:
    assert [number for _, number in typed_numbers(markdown, LIST)] == numbers


def test_a_finding_is_one_sentence_with_file_line_number_and_fix(write_lesson) -> None:
    path = write_lesson()
    cell = "\n# %% [markdown]\n# `0.1`\n#\n# then 0.25\n# and 7 %\n"
    path.write_text(path.read_text() + cell + "\n# %%\nx = 0.5\n" + cell)
    lines = path.read_text().splitlines()
    fix = "is typed into prose; print it from the record, or put it into math or code if it is a definition."
    assert findings(path) == [
        f"00_tiny.py, line {number}: {typed!r} {fix}"
        for number, line in enumerate(lines, 1)
        for typed in ("0.25", "7 %")
        if line.endswith(typed)
    ]
    assert len(findings(path)) == 4


# --- the budget of a lesson's title cell --------------------------------------------------------------

WORDS = dict(zip("a two three four five six seven eight nine ten".split(), range(1, 11), strict=True))


def _title_row(lesson: notebooks.Notebook, name: str) -> str:
    match = re.search(
        rf"^# \| {name}[^|]*\| (.+) \|$", lesson.source.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert match, f"{lesson.source.name}: the title cell has no row '{name}'"
    return match[1]


def agree(row: str, minutes: dict[str, float]) -> bool:
    """Whether "smoke: under a minute · laptop: about two minutes · gpu: the same" says the header's minutes."""
    said, before = dict(part.split(": ", 1) for part in row.split(" · ")), -1.0
    for profile in PROFILES:
        number = minutes[profile]
        match = re.match(r"(under|about) (\w+) minutes?\b", said.get(profile, ""))
        bound = match and (WORDS.get(match[2]) or int(match[2]))
        if match is None:
            right = said.get(profile, "").startswith("the same") and number == before
            right = right or (profile == "gpu" and said.get(profile) == "not measured yet")
        else:
            right = number < bound if match[1] == "under" else round(number) == bound
        if not right:
            return False
        before = number
    return True


@pytest.mark.parametrize("lesson", notebooks.lessons().values(), ids=lambda lesson: lesson.id)
def test_the_budget_line_agrees_with_the_header_and_with_what_was_measured(
    lesson: notebooks.Notebook,
) -> None:
    assert agree(_title_row(lesson, "time"), lesson.minutes), (
        f"{lesson.source.name}: time and header disagree"
    )
    limit = re.fullmatch(r"under (\d+(?:\.\d+)?) GB", _title_row(lesson, "memory"))
    peak = re.search(
        rf"^\| {lesson.source.stem} \|.* (\d+) MB \|$", blocks_of(MEASURED)["course"], re.MULTILINE
    )
    assert limit and peak and int(peak[1]) < 1000 * float(limit[1])


@pytest.mark.parametrize(
    ("row", "right"),
    [
        ("smoke: under a minute · laptop: about two minutes on one core · gpu: about 12 minutes", True),
        ("smoke: about a minute · laptop: about two minutes · gpu: not measured yet", True),
        ("smoke: about two minutes · laptop: about two minutes · gpu: not measured yet", False),
        ("smoke: under a minute · laptop: about three minutes · gpu: not measured yet", False),
        ("smoke: under a minute · laptop: under two minutes · gpu: not measured yet", False),
        ("smoke: not measured yet · laptop: about two minutes · gpu: not measured yet", False),
        ("smoke: under a minute · laptop: about two minutes · gpu: the same", False),
        ("smoke: under a minute · laptop: about two minutes", False),
    ],
)
def test_minutes_in_words_are_compared(row: str, right: bool) -> None:
    assert agree(row, {"smoke": 0.6, "laptop": 2, "gpu": 12}) is right
    same = {"smoke": 0.6, "laptop": 2, "gpu": 2}
    assert agree("smoke: under a minute · laptop: about 2 minutes · gpu: the same, no GPU needed", same)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_a_lesson_wants_shown_is_its_cell_s_last_line(path: Path) -> None:
    """A table or a fold is a value, and Jupyter shows the last one alone; elsewhere in a cell nobody sees it."""
    for cell in notebooks.from_source(path).cells:
        if cell.cell_type == "code" and "lesson." in cell.source:
            for node in ast.parse(cell.source).body[:-1]:
                assert not re.match(r"lesson\.(folded|table)\(", ast.unparse(node)), ast.unparse(node)
