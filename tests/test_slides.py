"""`make slides`. Which slides a lesson has is tested everywhere; the decks where .venv-book and a Chromium are there.

In .venv-book, without the plugins that pyproject.toml names: python -m pytest -o addopts= tests/test_slides.py
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import Browser, tab  # noqa: E402

from book import slides  # noqa: E402
from instructlab_utils.errors import NotebookError  # noqa: E402

OWN = ROOT / ".venv-book" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LESSONS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
TEACHER = """# 99 Toys

**The one thing.** Guess first.

## Predictions

### 1 Adding

- *They say:* three. *Print:* four. *Say:* "Count."
- *They say:* none. *Print:* a line. *Say:* "Look."

## Recall
"""


def markdown(source: str, *tags: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {"tags": list(tags)}, "source": source}


def code(source: str, *tags: str, printed: str = "", figure: bool = False) -> dict[str, Any]:
    outputs: list[dict[str, Any]] = []
    if printed:
        outputs.append({"output_type": "stream", "name": "stdout", "text": printed})
    if figure:
        outputs.append({"output_type": "display_data", "data": {"image/png": "iVBO"}, "metadata": {}})
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": source, "outputs": outputs}


TOY = [
    markdown(
        "# 99 Toys\n\n**The promise.** You add.\n\n**You will be able to**\n\n- *add* [two](../two.md) numbers."
    ),
    markdown("## 1 Adding\n\nA sum is\n\n$$ a + b. $$\n\nSo it follows:"),
    markdown("**Predict.** Two and two?"),
    code("print(2 + 2)", printed="4\n"),
    markdown("**Observe.** It is four. **Predict.** How does it look?"),
    code("draw()", printed="a line\n", figure=True),
    code("helper()", printed="not shown\n"),
    markdown("More words, which no slide has.\n\n## 2 Nothing below\n\n### 2.1 A part\n\nA word."),
    code("draw()", figure=True),
    markdown(
        "**Recall.** Which?\n\n1. One?\n2. Two?\n\n<details><summary>Answers</summary>\n\n1. secret\n\n</details>"
    ),
]


def texts(cells: list[dict[str, Any]], page: str = "") -> list[str]:
    return [slide.text for slide in slides.deck(cells, page)]


# --- the rule ------------------------------------------------------------------------------------------


def test_the_rule_takes_openings_predictions_with_their_answers_figures_and_closing_lists() -> None:
    first, aims, adding, look, part, drawn, recall = deck = slides.deck(TOY)
    kinds = ["slide", "subslide", "slide", "subslide", "slide", "subslide", "subslide"]
    assert [slide.kind for slide in deck] == kinds
    assert first.text == "# 99 Toys\n\n**The promise.** You add."
    assert aims.text.endswith("- *add* two numbers.")  # a link of the repository leads nowhere from here
    assert (
        adding.text
        == "### 1 Adding\n\nA sum is\n\n$$ a + b. $$\n\nSo it follows:\n\n**Predict.** Two and two?"
    )
    assert look.text == "### 1 Adding\n\n**Predict.** How does it look?"
    assert part.text == "### 2.1 A part\n\nA word." and not part.outputs  # "2 Nothing below" would be empty
    assert [slides.drawn(output) for output in drawn.outputs] == [True]
    assert recall.text == "### Recall\n\nWhich?\n\n1. One?\n2. Two?"


def test_a_prediction_stands_with_its_answer_and_what_the_teacher_says() -> None:
    first, _, adding, look, *_ = slides.deck(TOY, TEACHER)
    assert first.notes == ["**The one thing.** Guess first."]
    assert [one["text"] for one in adding.outputs] == ["4"]
    assert adding.notes == ['*They say:* three. *Print:* four. *Say:* "Count."', "**Observe.** It is four."]
    assert [one["output_type"] for one in look.outputs] == ["stream", "display_data"]
    assert look.notes == ['*They say:* none. *Print:* a line. *Say:* "Look."']
    cells = slides.notebook([look])["cells"]
    assert [cell["metadata"]["slideshow"]["slide_type"] for cell in cells] == [
        "subslide",
        "notes",
        "fragment",
    ]
    assert [cell["cell_type"] for cell in slides.notebook([look], plain=True)["cells"]] == [
        "markdown",
        "code",
    ]


def test_what_was_announced_and_did_not_fit_is_not_announced() -> None:
    table = "| a | b |\n|---|---|\n" + "\n".join(f"| {k} | row |" for k in range(30))
    cells = [TOY[0], markdown(f"## 1 Rows\n\nA word.\n\nThe rows are these:\n\n{table}")]
    assert texts(cells)[2] == "### 1 Rows\n\nA word."


@pytest.mark.parametrize(
    ("at", "tag", "more", "fewer"),
    [
        (6, "slide", ["helper()"], []),  # of code: source and output
        (7, "subslide", ["More words"], []),
        (7, "notes", [], ["2.1 A part\n\nA word"]),
        (2, "skip", [], ["Two and two"]),
        (8, "skip", [], []),
    ],
)
def test_a_tag_stands_above_the_rule(at: int, tag: str, more: list[str], fewer: list[str]) -> None:
    tagged = copy.deepcopy(TOY)
    tagged[at]["metadata"]["tags"] = ["other", tag]
    before, after = slides.deck(TOY), slides.deck(tagged)
    told = ["\n".join(slide.text + slide.code for slide in deck) for deck in (before, after)]
    assert before != after
    assert all(word in told[1] and word not in told[0] for word in more)
    assert all(word in told[0] and word not in told[1] for word in fewer)
    if tag == "slide":
        (own,) = [slide for slide in after if slide.code]
        assert own.kind == "slide" and own.outputs[0]["text"] == "not shown"
    if tag == "notes":
        assert any("More words" in note for slide in after for note in slide.notes)


def test_a_lesson_with_too_many_slides_loses_the_least_important_and_never_a_tagged_one() -> None:
    parts = [markdown(f"### 1.{k} Part\n\nA word.") for k in range(40)]
    sections = [markdown(f"## {k} Section\n\nA word.") for k in range(2, 14)]
    found = texts([TOY[0], *parts, *sections])
    assert len(found) == slides.MOST and sum("Section" in text for text in found) == len(sections)
    with pytest.raises(NotebookError, match="tag fewer cells `slide`"):
        slides.deck([TOY[0], *(markdown(f"Text {k}", "slide") for k in range(40))])


def test_a_text_is_cut_between_sentences_items_and_rows_and_nothing_is_lost() -> None:
    long = " ".join(f"Sentence {k} has a few words in it, and some more." for k in range(60))
    items = "\n".join(f"- item {k} with words that fill about half of a line of a slide" for k in range(30))
    table = "| a | b |\n|---|---|\n" + "\n".join(f"| {k} | row |" for k in range(30))
    for block in (long, items, table):
        found = slides.pieces(block)
        assert len(found) > 1 and all(slides.lines(piece) <= slides.LINES for piece in found)
        words = " ".join(piece.removeprefix("| a | b |\n|---|---|\n") for piece in found).split()
        assert words == block.removeprefix("| a | b |\n|---|---|\n").split()
    filler = " ".join(["word"] * 150)
    first, second = slides.packed([filler, "It follows that", "So we have:", "$$ a = b $$"], "T", room=12)
    assert first.endswith("It follows that") and second == "### T\n\nSo we have:\n\n$$ a = b $$"


def test_long_prints_end_in_an_ellipsis_and_wide_tables_are_left_out() -> None:
    assert slides.clipped("a\nb\n", 2) == "a\nb" and slides.clipped("a\nb\nc", 2) == "a\nb\n…"
    assert slides.clipped("x" * 3 * slides.COLUMNS, 2) == "…"
    for cell, there in (("short", 1), ("wide " * 30, 0)):
        data = {"text/html": f"<div><table><tr><td><a href='x.md'>{cell}</a></td></tr></table>rest</div>"}
        found = slides.shown([{"outputs": [{"output_type": "execute_result", "data": data}]}], 0, "T")
        assert len(found) == there
    assert (
        slides.shown([{"outputs": [{"output_type": "stream", "name": "stderr", "text": "a"}]}], 0, "T") == []
    )


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_lesson_has_ten_to_thirty_slides_that_are_not_too_full(lesson: str) -> None:
    cells = json.loads(LESSONS[lesson].read_text(encoding="utf-8"))["cells"]
    page = (ROOT / "teaching" / f"{lesson}.md").read_text(encoding="utf-8")
    deck = slides.deck(cells, page)
    assert 10 <= len(deck) <= slides.MOST and deck == slides.deck(copy.deepcopy(cells), page)
    assert deck[0].text.startswith(f"# {lesson} ") and any(
        slide.text.startswith("### Recall") for slide in deck
    )
    for slide in deck:
        assert slides.lines(slide.text.partition("\n")[2]) < 2 * slides.LINES, slide.text
        assert not re.search(r"<details|\]\((?!http)|\{\{", slide.text) and not slide.empty
    assert sum(slides.drawn(output) for slide in deck for output in slide.outputs) >= 3
    asked = sum("".join(cell["source"]).count("**Predict") for cell in cells)
    assert sum("**Predict" in slide.text for slide in deck) >= 0.8 * asked
    assert sum("They say" in note for slide in deck for note in slide.notes) >= 0.8 * asked


# --- the decks -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decks() -> Path:
    if not OWN.is_file():
        pytest.skip("the site's environment .venv-book is not here: `make slides` makes it")
    done = subprocess.run([OWN, "-m", "book.slides"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert all(re.search(rf"^{lesson}  [1-3]\d slides  ", done.stdout, re.MULTILINE) for lesson in LESSONS)
    return ROOT / "build" / "book" / "slides"


@pytest.fixture(scope="module")
def browser(decks: Path) -> Iterator[Browser]:
    yield from tab()


SLIDES = "[...document.querySelectorAll('.slides > section > section')]"
# Per slide: is the content inside the window when it is shown? The box of every word, figure and formula is asked.
OUTSIDE = """(() => { const found = [];
  SLIDES.forEach(slide => { const at = Reveal.getIndices(slide); Reveal.slide(at.h, at.v, 99);
    const walk = document.createTreeWalker(slide, NodeFilter.SHOW_TEXT), range = document.createRange(), boxes = [];
    while (walk.nextNode()) {
      const text = walk.currentNode, away = text.parentElement.closest('aside, mjx-assistive-mml');
      if (text.data.trim() && !away) { range.selectNodeContents(text); boxes.push(...range.getClientRects()); } }
    slide.querySelectorAll('img').forEach(one => boxes.push(one.getBoundingClientRect()));
    if (!boxes.length || boxes.some(b => b.left < 0 || b.top < 0 || b.right > 1280 || b.bottom > 720))
      found.push(slide.textContent.trim().slice(0, 60)); });
  return found; })()""".replace("SLIDES", SLIDES)


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS)
def test_a_deck_fits_its_window_and_asks_nothing_of_the_network(
    lesson: str, decks: Path, browser: Browser
) -> None:
    browser.complaints.clear()
    browser.requests.clear()
    browser.open((decks / f"{lesson}.html").as_uri())
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=1280, height=720, deviceScaleFactor=1, mobile=False
    )
    browser.until("document.documentElement.dataset.ready === 'yes'", 60)
    assert browser.evaluate(OUTSIDE) == []
    sizes = browser.evaluate(f"{SLIDES}.map(slide => parseInt(slide.dataset.fit))")
    assert (
        min(sizes) >= 75 and 10 <= len(sizes) <= slides.MOST
    )  # per cent: letters that the last row can read
    assert browser.evaluate("[...document.querySelectorAll('mjx-merror')].map(e => e.textContent)") == []
    assert browser.evaluate(f"{SLIDES}.filter(slide => /\\$[^$]+\\$/.test(slide.innerText)).length") == 0
    if lesson != "00":
        assert browser.evaluate("document.querySelectorAll('mjx-container').length") > 5
    assert browser.evaluate("[...document.images].every(one => one.naturalWidth > 0 && one.alt.length > 14)")
    assert browser.complaints == []
    assert not [url for url in browser.requests if not url.startswith(("file:", "data:", "about:", "blob:"))]


@pytest.mark.slow
def test_a_deck_for_students_holds_no_notes(decks: Path) -> None:
    def notes() -> int:
        return (decks / "09.html").read_text(encoding="utf-8").count('<aside class="notes">')

    assert notes() > 10
    subprocess.run([OWN, "-m", "book.slides", "--plain", "09"], cwd=ROOT, check=True, capture_output=True)
    assert notes() == 0
    subprocess.run([OWN, "-m", "book.slides", "09"], cwd=ROOT, check=True, capture_output=True)


def test_a_lesson_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert slides.main(["99"]) == 2
    assert "no lesson 99; there are 00, 01" in capsys.readouterr().err
