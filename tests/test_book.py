"""The rendered site. What its pages are made of is tested everywhere; the site itself where `make book` has been called.

Where .venv-book is absent (`make test` does not make it) or no Chromium is installed, those tests are skipped and say so.
In .venv-book, without the plugins that pyproject.toml names: python -m pytest -o addopts= tests/test_book.py
"""

from __future__ import annotations

import html.parser
import json
import os
import re
import runpy
import subprocess
import sys
import time
import tomllib
import urllib.parse
from collections.abc import Iterator
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [
    str(ROOT),
    str(ROOT / "tests"),
]  # also where only .venv-book is there, without an installed course

from browser import Browser, tab  # noqa: E402

from book import __main__ as command  # noqa: E402
from book import facts, prose, readme, study  # noqa: E402
from instructlab_repro.notebooks import exercises  # noqa: E402

OWN = ROOT / ".venv-book" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LESSONS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
LOOKED_AT = [
    "index.html",
    "LEDGER.html",
    "docs/glossary.html",
    "docs/claims.html",
    "docs/how-sure.html",
    "notebooks/exercises/index.html",
    "notebooks/exercises/09_lora.html",
    "data/results/tables/index.html",
    "data/results/tables/arena.html",
    *(f"notebooks/{stem}.html" for stem in LESSONS),
    "zh/index.html",
    "zh/docs/glossary.html",
    "zh/notebooks/exercises/09_lora.html",
    *(f"zh/notebooks/{stem}.html" for stem in LESSONS),
]


# --- what the pages are made of ------------------------------------------------------------------------


def test_the_glossary_names_its_terms_in_two_languages_and_where_they_are_taught() -> None:
    rows = facts.glossary()
    assert len(rows) >= 120 and len({row["en"].lower() for row in rows}) == len(rows)
    assert not [row["en"] for row in rows if not re.search(r"[\u4e00-\u9fff]", row["zh"])]
    assert not [row["en"] for row in rows if len(row["text"]) < 20 or not row["text"].endswith((".", "?"))]
    assert not [
        row["en"] for row in rows if set(row) - {"en", "zh", "text", "text_zh", "lesson", "also", "link"}
    ]
    assert not [row["en"] for row in rows if not re.search(r"[\u4e00-\u9fff].*[。？]$", row["text_zh"])]
    kept = re.compile(r"\$[^$]+\$|`[^`]+`")
    assert not [row["en"] for row in rows if kept.findall(row["text"]) != kept.findall(row["text_zh"])]
    untaught = []
    for row in (row for row in rows if "lesson" in row):
        (source,) = (ROOT / "notebooks" / "source").glob(f"{row['lesson']}_*.py")
        text = re.sub(r"\n# ?|\s+", " ", source.read_text(encoding="utf-8")).lower()
        spellings = [re.sub(r" \(.+\)", "", word).lower() for word in (row["en"], *row.get("also", ()))]
        if not any(word in text or word.replace("-", " ") in text for word in spellings):
            untaught.append((row["en"], row["lesson"]))
    assert not untaught


def test_the_chinese_readme_has_the_table_of_lessons_that_is_written_now() -> None:
    text = (ROOT / "README.zh.md").read_text(encoding="utf-8")
    assert readme.chinese() == text, "run `python -m book.readme`"
    rows = re.findall(
        r"^\| \[(\d\d) ([^]]+)\]\(notebooks/\1_\w+\.ipynb\) \| (.+) \| [\d.]+ \|$", text, re.MULTILINE
    )
    assert [number for number, _, _ in rows] == [stem[:2] for stem in LESSONS]
    assert all(re.search(r"[\u4e00-\u9fff]", part) for _, *parts in rows for part in parts)


@pytest.mark.parametrize("stem", LESSONS)
def test_no_exercise_page_holds_a_graded_solution_or_a_hidden_case(stem: str) -> None:
    path = ROOT / "notebooks" / "exercises" / f"{stem}.py"
    page, boxes = study.exercise(path), facts.boxes(path)
    flat = " ".join(page.split())
    assert not re.search(r"(?:BEGIN|END) (?:SOLUTION|HIDDEN)|\{\{", page)
    assert page.count(exercises.STUB) >= len(boxes) and page.count("<summary>The checker") == len(boxes)
    for box in boxes:
        solution = " ".join(exercises.SOLUTION.search(box.answer)["body"].split())
        assert (solution in flat) != box.graded, f"{box.id}: {box.kind}"
        for hidden in exercises.HIDDEN.finditer(box.check):
            assert " ".join(hidden["body"].split()) not in flat, box.id
    folded = re.sub(r"<details.*?</details>", "", page, flags=re.DOTALL)
    assert "<summary>" not in folded and "Hint 1" in page and "Hint 1" not in folded


@pytest.mark.parametrize("stem", LESSONS)
def test_a_lesson_page_is_the_stored_notebook_with_links_and_alternative_texts(stem: str) -> None:
    stored = json.loads((ROOT / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf-8"))
    page = json.loads(study.lesson(facts.lessons()[stem[:2]]))
    code = [
        ["".join(cell["source"]) for cell in found["cells"] if cell["cell_type"] == "code"]
        for found in (stored, page)
    ]
    assert code[0] == code[1]
    pictures = [
        cell["metadata"]["mystnb"]["image"]["alt"]
        for cell in page["cells"]
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", ()))
    ]
    assert pictures and not [alt for alt in pictures if len(alt) < 15 or "\n" in alt]
    top, end = "".join(page["cells"][0]["source"]), page["cells"][-1]["source"]
    assert f"(exercises/{stem}.md)" in top and "| before this |" in top and "| time" in top
    assert "What was last verified" in end and "Outputs of this page: " in end


def test_a_link_leads_to_a_page_to_a_file_that_is_shown_to_the_repository_or_nowhere() -> None:
    pages_of = {"a/b.md": "a/b.md", "LEDGER.md": "LEDGER.md"}
    links = prose.Links(pages_of, {"LEDGER.md#c1": "c1"}, {"d/x.toml", "d/s.py"}.__contains__)
    text = "[b](../a/b.md#part) [c](../LEDGER.md#c1) [t](x.toml) [s](s.py) ![p](../f/p.png) `[k](s.py)` [w](https://w.org)"
    known = "[b](../a/b.md#part) [c](#c1) [t](x.toml) s ![p](../f/p.png) `[k](s.py)` [w](https://w.org)"
    assert links.rewrite(text, "d/e.md") == known
    assert links.files == {"d/x.toml", "f/p.png"}
    links.repository = "https://host/o/n"
    assert "[s](https://host/o/n/blob/main/d/s.py)" in links.rewrite(text, "d/e.md")
    assert (
        links.rewrite("[b](b.md)\n```\n[b](b.md)\n```", "a/c.md", "index.md")
        == "[b](a/b.md)\n```\n[b](b.md)\n```"
    )


def test_the_first_mention_is_a_link_and_code_formulas_and_titles_are_left_alone() -> None:
    found = [
        ("LoRA", "LoRA", r"LoRA\b", "{{term}}`{text} <LoRA>`"),
        ("03", "03", r"lesson 03\b", "[{text}](3.ipynb)"),
    ]
    text = "# LoRA\n`LoRA` $LoRA$ rsLoRA [LoRA](x) and LoRA, as in lesson 03; LoRA.\n\n**References.** LoRA in lesson 03"
    wanted = text.replace("and LoRA", "and {term}`LoRA <LoRA>`").replace(
        "as in lesson 03", "as in [lesson 03](3.ipynb)"
    )
    assert prose.Mentions(found, text).link(text) == wanted


@pytest.mark.parametrize("repository", ["", "https://github.com/owner/name"])
def test_one_setting_makes_every_button(repository: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOK_REPOSITORY", repository)
    options = runpy.run_path(str(ROOT / "book" / "conf.py"))["html_theme_options"]
    assert ("launch_buttons" in options) == bool(repository) == ("repository_url" in options)
    if repository:
        assert set(options["launch_buttons"]) >= {"colab_url", "binderhub_url"}


def test_the_lock_file_of_the_site_is_inside_the_ranges() -> None:
    from packaging.requirements import Requirement

    spec = spec_from_file_location("lock", ROOT / "scripts" / "lock.py")
    assert spec is not None and spec.loader is not None
    lock = module_from_spec(spec)
    spec.loader.exec_module(lock)
    locked = lock.parse((ROOT / "book" / "requirements.lock").read_text(encoding="utf-8"))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    wanted = [Requirement(line) for line in extras["book"]]
    assert len(wanted) > 5 and list(locked) == sorted(locked)
    assert not [str(one) for one in wanted if not one.specifier.contains(locked[lock.normal(one.name)])]
    assert not {"torch", "transformers"} & set(locked)  # rendering runs nothing
    assert {"sphinx"}.isdisjoint(lock.normal(one.name) for one in lock.wanted(ROOT / "pyproject.toml"))


# --- the site ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site() -> Path:
    """build/book/html, built once; a second call finds it up to date."""
    own = sys.executable if find_spec("sphinx_book_theme") and find_spec("myst_nb") else str(OWN)
    if not Path(own).is_file():
        pytest.skip("the site's environment .venv-book is not here: `make book` makes it")
    done = subprocess.run([own, "-m", "book"], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    if (told := re.match(r"\d+ pages, \d+ MB, (\d+) s", done.stdout)) and hasattr(os, "wait4"):
        import resource

        # Processor time, so that a busy machine does not decide. The clock said told[1] seconds.
        assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime < 180, told[0]
    return ROOT / "build" / "book" / "html"


class Page(html.parser.HTMLParser):
    """What a page links, loads and names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.nameless = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.names |= {str(found[key]) for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))
        if tag in ("script", "img", "link", "iframe", "source") and (
            place := found.get("src") or found.get("href")
        ):
            self.loads.append(place)
        self.nameless += tag == "img" and not (found.get("alt") or "").strip()


@pytest.mark.slow
def test_every_link_inside_the_site_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    found = {
        path: Page(path.read_text(encoding="utf-8"))
        for path in site.rglob("*.html")
        if "_static" not in path.parts
    }
    assert len(found) > 100
    broken, loaded = [], []
    for path, page in found.items():
        loaded += [f"{path.name}: {place}" for place in page.loads if re.match(r"(?:https?:)?//", place)]
        for link in page.links:
            target, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:|//", link):
                continue
            place = (path.parent / urllib.parse.unquote(target.split("?")[0])).resolve() if target else path
            there = place in found and (not anchor or urllib.parse.unquote(anchor) in found[place].names)
            if not there and (place in found or not place.is_file()):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken and not loaded
    assert not [path.name for path, page in found.items() if page.nameless]


def test_plain_code_loses_its_tags_and_nothing_else(tmp_path: Path) -> None:
    text = '<pre><span class="n">x</span><span class="w"> </span><span class="o">=</span> <span class="mi">1</span></pre>'
    page = tmp_path / "deep" / "page.html"
    page.parent.mkdir()
    kept = '<span class="n"><b>kept</b></span><p class="n">kept</p>'
    page.write_text(text + kept, encoding="utf-8")
    command.light(tmp_path)
    lighter = '<pre>x <span class="o">=</span> <span class="mi">1</span></pre>'
    assert page.read_text(encoding="utf-8") == lighter + kept


@pytest.mark.slow
def test_the_tags_that_code_loses_had_the_colour_of_plain_code(site: Path) -> None:
    style = (site / "_static" / "pygments.css").read_text(encoding="utf-8")
    for theme in ("light", "dark"):
        (plain,) = re.findall(rf'data-theme="{theme}"\] \.highlight {{[^}}]*[ ;]color: (#\w+)', style)
        lost = dict(re.findall(rf'data-theme="{theme}"\] \.highlight \.([npw]) {{ color: (#\w+) }}', style))
        assert lost == dict.fromkeys("npw", plain)


@pytest.mark.slow
def test_the_site_is_small_shows_no_hidden_case_and_every_page_says_what_was_verified(site: Path) -> None:
    files = [path for path in site.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60 * 2**20
    assert not [path for path in files if "_sources" in path.parts]
    for path in files:
        if path.suffix in (".html", ".js", ".ipynb", ".txt"):
            assert "### BEGIN" not in path.read_text(encoding="utf-8"), path
    silent = set()
    for path in files:
        if path.suffix == ".html" and "_static" not in path.parts and facts.changed():
            if not re.search("What was last verified|最近一次验证了什么", path.read_text(encoding="utf-8")):
                silent.add(path.relative_to(site).as_posix().removeprefix("zh/"))
    lists = {"data/cards/index.html", "data/results/tables/index.html", "notebooks/exercises/index.html"}
    assert silent <= {"search.html"} | lists


@pytest.mark.slow
def test_no_star_of_emphasis_is_left_in_a_chinese_page(site: Path) -> None:
    """Between Chinese characters a star that touches a link would stand as a star."""
    shown = re.compile(
        r"<pre.*?</pre>|<code.*?</code>|<(span|div) class=\"math.*?</\1>|<script.*?</script>|<[^>]+>",
        re.DOTALL,
    )
    left = []
    for path in sorted((site / "zh").rglob("*.html")):
        article = re.search(r"<article.*?</article>", path.read_text(encoding="utf-8"), re.DOTALL)
        if article and "*" in (told := shown.sub("", article[0])):
            left.append(f"{path.name}: {told[max(0, told.index('*') - 20) :][:40]}")
    assert left == []


@pytest.fixture(scope="module")
def browser(site: Path) -> Iterator[Browser]:
    yield from tab()


STILL = "document.head.appendChild(document.createElement('style')).textContent = '* { transition: none !important }';"
OPEN = "document.querySelectorAll('details').forEach(one => { one.open = true });"


@pytest.mark.slow
@pytest.mark.parametrize("page", LOOKED_AT)
def test_a_page_in_a_narrow_window(page: str, site: Path, browser: Browser) -> None:
    """Formulas are set, the console is silent, nothing is asked of the network, only boxes scroll sideways."""
    browser.complaints.clear()
    browser.requests.clear()
    browser.open((site / page).as_uri(), width=390)
    browser.evaluate(OPEN)
    assert browser.evaluate("Math.max(document.documentElement.scrollWidth, innerWidth)") == 390
    raw = browser.evaluate("document.querySelectorAll('.math:not(:has(mjx-container))').length")
    wrong = browser.evaluate(
        "[...document.querySelectorAll('mjx-merror, .mjx-error')].map(e => e.textContent)"
    )
    assert not raw and not wrong
    if re.match(r"(?:zh/)?notebooks/[01]", page):
        assert browser.evaluate("document.querySelectorAll('mjx-container').length") > 5
    assert browser.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    assert browser.complaints == []
    assert not [url for url in browser.requests if not url.startswith(("file:", "data:", "about:", "blob:"))]


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(
    "page", [*LOOKED_AT[:9], "notebooks/09_lora.html", "zh/notebooks/17_preferences.html"]
)
def test_text_stands_out_from_its_ground(page: str, dark: bool, site: Path, browser: Browser) -> None:
    browser.open((site / page).as_uri(), dark=dark)
    browser.evaluate(STILL + OPEN)
    assert browser.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert browser.evaluate((ROOT / "tests" / "contrast.js").read_text(encoding="utf-8")) == []


RESULTS = "[...document.querySelectorAll('#search-results li a')].map(one => one.href)"
WORDS = [
    ("", "AdaLoRA", "09_lora.html"),
    ("", "交叉熵", "glossary.html"),
    ("", "GRIM", "00_instruction_set.html"),
    ("zh", "交叉熵", "01_empirical_risk.html"),
    ("zh", "量化", "25_compression.html"),
    ("zh", "论断台账", "26_capstones.html"),
    ("zh", "低秩更新", "09_lora.html"),
    ("zh", "什么是熵", "glossary.html"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("home", "word", "page"), WORDS)
def test_the_search_finds_a_term(home: str, word: str, page: str, site: Path, browser: Browser) -> None:
    browser.complaints.clear()
    browser.open(f"{(site / home / 'search.html').as_uri()}?q={urllib.parse.quote(word)}")
    end = time.monotonic() + 20
    while time.monotonic() < end and not any(page in link for link in browser.evaluate(RESULTS)):
        time.sleep(0.1)
    assert any(page in link for link in browser.evaluate(RESULTS))
    assert browser.complaints == []
