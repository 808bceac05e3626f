"""The Chinese edition: nothing is missing, nothing is stale, and no translation loses a formula, a number or a link."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from string import Formatter

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from book import facts, pages, translate  # noqa: E402

LESSONS = [name for name in translate.names() if name != "site"]
OUTCOMES = [one.outcome for one in facts.lessons().values()]


@pytest.mark.parametrize("language", translate.LANGUAGES)
@pytest.mark.parametrize("number", LESSONS)
def test_every_block_of_a_lesson_and_its_exercises_is_translated_and_faithful(
    language: str, number: str
) -> None:
    now = {translate.key(block): block for block in translate.messages(number)}
    words = translate.words_of(language, number)
    assert now.keys() - words.keys() == set(), "new or changed: python -m book messages, then translate"
    assert words.keys() - now.keys() == set(), "gone from the lesson: python -m book messages"
    assert {block: told for one, block in now.items() if (told := translate.wrong(block, words[one]))} == {}


def templates() -> set[str]:
    """What the site says itself: the literal first arguments of every call of ``say`` in book/."""
    found = set()
    for path in (ROOT / "book").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say":
                if isinstance(node.args[0], ast.Constant):
                    found.add(str(node.args[0].value))
    return found


@pytest.mark.parametrize("language", translate.LANGUAGES)
def test_the_site_s_own_words_are_translated_with_the_same_fields(language: str) -> None:
    words = translate.words_of(language, "site")
    own = (
        templates() | set(OUTCOMES) | set(pages.GROUPS) | {"supported", "refuted", "undecided", "not tested"}
    )
    assert {translate.key(text) for text in own} - words.keys() == set()
    for text, told in words.items():
        fields = [Counter(field for _, field, _, _ in Formatter().parse(one)) for one in (text, told)]
        numbers = [translate.kept_apart(one)["number"] for one in (text, told)]
        assert fields[0] == fields[1] and numbers[0] == numbers[1], text
        assert re.search(r"[\u3000-\u9fff\uff00-\uffef]", told), text


def test_the_catalogues_are_as_the_command_writes_them() -> None:
    files = sorted((ROOT / "locales").rglob("*.po"))
    before = {path: path.read_bytes() for path in files}
    told = subprocess.run(
        [sys.executable, "-m", "book", "messages"], cwd=ROOT, env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    changed = [path.name for path, content in before.items() if path.read_bytes() != content]
    for path, content in before.items():
        path.write_bytes(content)
    assert told.returncode == 0 and told.stdout.endswith("without a valid translation: 0\n"), (
        told.stdout + told.stderr
    )
    assert changed == []


def test_blocks_give_the_text_back_and_keep_fences_whole() -> None:
    text = "# Head\n\none\ntwo\n\n```python\nx = 1\n\ny = 2\n```\n\n$$a\n\n= b$$\n\nend $x$"
    assert "\n\n".join(translate.blocks(text)) == text
    assert translate.blocks(text)[2:4] == ["```python\nx = 1\n\ny = 2\n```", "$$a\n\n= b$$"]
    assert [translate.spoken(block) for block in translate.blocks(text)] == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ("在 $x$ 处有 `f(x)`，共3个，见[书](a.md#b)。", ""),
        ("在 $y$ 处有 `f(x)`，共3个，见[书](a.md#b)。", "maths"),
        ("在 $x$ 处有 `f(y)`，共3个，见[书](a.md#b)。", "code"),
        ("在 $x$ 处有 `f(x)`，共4个，见[书](a.md#b)。", "number"),
        ("在 $x$ 处有 `f(x)`，共3个，见[书](a.md)。", "link"),
        ("在 $x$ 处有 `f(x)`，共3个，见<b>[书](a.md#b)</b>。", "tag"),
    ],
)
def test_a_translation_that_loses_something_is_seen(told: str, fault: str) -> None:
    found = translate.wrong("At $x$ stands `f(x)`, 3 of them, see the [book](a.md#b).", told)
    assert [line.partition(":")[0] for line in found] == [fault] * bool(fault)


def test_a_lesson_in_another_language_has_the_same_code_and_links_that_lead_somewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = translate.find_root()
    monkeypatch.setattr(
        translate, "LANGUAGES", {"zh": str(real / "locales" / "zh_CN")}
    )  # read there, written here
    monkeypatch.setattr(translate, "find_root", lambda: tmp_path)
    folder = translate.write_notebooks("zh")
    for number, one in facts.lessons().items():
        new = json.loads((folder / one.notebook.name).read_text(encoding="utf-8"))["cells"]
        old = json.loads(one.notebook.read_text(encoding="utf-8"))["cells"]
        assert [c for c in new if c["cell_type"] == "code"] == [c for c in old if c["cell_type"] == "code"]
        prose = "\n".join(c["source"] for c in new if c["cell_type"] == "markdown")
        assert re.search(r"[\u4e00-\u9fff]", prose), number
        for link in re.findall(r"\]\((\.\./[^)#]+)", prose):
            assert (real / "build" / "zh" / "notebooks" / link).resolve().exists(), f"{number}: {link}"
