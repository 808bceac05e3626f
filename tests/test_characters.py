"""Texts in every script: equivalent ones are equal, different ones are not, and the words are a reader's words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructlab_utils import augmentation, characters, instructions, tasks
from instructlab_utils.tasks import splits

SAME = [
    ("cafe\u0301", "café"),  # two characters and one
    ("５０％", "50%"),  # full width
    ("\u22123", "-3"),
    ("don’t", "don't"),
    ("„Ja“", '"ja"'),
    ("ﬁn", "fin"),
    ("ｶﾞｽ", "ガス"),
    ("\u212b", "å"),  # Ångström sign
    ("\u00b5", "μ"),
    ("co\u00adoperate", "cooperate"),  # soft hyphen
    ("❤\ufe0f", "❤"),
    ("STRASSE", "straße"),
    ("ΣΟΦΟΣ", "σοφος"),
    ("한글", unicodedata.normalize("NFD", "한글")),
]
DIFFERENT = [
    ("größe", "grüße"),
    ("żółć", "zolc"),
    ("x²", "x2"),
    ("①", "1"),
    ("½", "1/2"),
    ("👍", "👎"),
    ("👍", "👍🏽"),
    ("C++", "C"),
    ("x < y", "x > y"),
    ("50 %", "50"),
    ("हिन्दी", "हिन्दा"),
    ("か", "が"),
    ("ℝ", "R"),
    ("مرحبا", "مرحبًا"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_equivalent_texts_are_equal_wherever_they_are_compared(one, other):
    assert characters.canonical(one) == characters.canonical(other)
    assert instructions.normalised(one) == instructions.normalised(other)
    assert tasks.shingles(one) == tasks.shingles(other)
    assert characters.occurs(one, f"It is {other}.") and characters.occurs(other, f"It is {one}.")


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_texts_are_different(one, other):
    assert characters.canonical(one) != characters.canonical(other)
    assert instructions.normalised(one) != instructions.normalised(other)
    assert not characters.occurs(one, other) and not characters.occurs(other, one)


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=20))
def test_the_form_for_comparison_is_reached_once_and_for_every_encoding(text):
    form = characters.canonical(text)
    assert characters.canonical(form) == form
    for encoding in ("NFC", "NFD"):
        assert characters.canonical(unicodedata.normalize(encoding, text)) == form


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(max_codepoint=127), max_size=40))
def test_in_ascii_everything_is_as_the_patterns_had_it(text):
    assert characters.words_of_text(text) == re.findall(r"\w+", text.casefold())
    assert augmentation.words_of(text) == re.findall(r"\w+|[^\w\s]", text.lower())
    assert tasks.shingles(text) == splits.shingles(text)
    assert characters.canonical(text, case=True) == text


WORDS = [
    ("Zażółć gęślą jaźń", ["zażółć", "gęślą", "jaźń"]),
    ("große Grüße!", ["grosse", "grüsse"]),
    ("我喜欢学习 Python。", ["我", "喜", "欢", "学", "习", "python"]),
    ("東京タワー", ["東", "京", "タ", "ワ", "ー"]),
    ("مرحبا بالعالم،", ["مرحبا", "بالعالم"]),
    ("हिन्दी में।", ["हिन्दी", "में"]),
    ("می\u200cخواهم", ["می\u200cخواهم"]),
    ("👩\u200d💻 👍🏽 🇵🇱", ["👩\u200d💻", "👍🏽", "🇵🇱"]),
]


@pytest.mark.parametrize(("text", "words"), WORDS)
def test_words_in_many_scripts(text, words):
    assert characters.words_of_text(text) == words
    assert characters.words_of_text(unicodedata.normalize("NFD", text)) == words


@pytest.mark.parametrize(
    ("texts", "script"),
    [
        (["a b c", "你好"], "latin"),
        (["我喜欢学习 Python"], "chinese"),
        (["東京へ行く"], "unspaced"),
        (["สวัสดี"], "unspaced"),
        (["привет мир"], "other"),
        (["हिन्दी"], "other"),
        (["?!", "12"], "latin"),
        ([], "latin"),
    ],
)
def test_the_script_of_texts(texts, script):
    assert characters.script_of(texts) == script


def test_the_words_that_are_augmented_are_words_in_every_script():
    """`\\w+` broke Hindi at its vowel signs, made one word of a Chinese sentence, and left Polish out of the table."""
    import torch

    assert augmentation.words_of("हिन्दी अच्छी।") == ["हिन्दी", "अच्छी", "।"]
    assert augmentation.words_of("我喜欢。") == ["我", "喜", "欢", "。"]
    assert augmentation.words_of("👩\u200d💻!") == ["👩\u200d💻", "!"]
    table = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    found = augmentation.nearest_words(
        table, ["żółć", "łódź", "good", "हिन्दी", "12", "好"], {"żółć", "हिन्दी"}, k=2
    )
    assert set(found) == {"żółć", "हिन्दी"} and "好" not in {w for near in found.values() for w in near}
    found = augmentation.nearest_words(
        table, ["żółć", "łódź", "good", "हिन्दी", "12", "好"], {"好"}, k=2, least=1
    )
    assert len(found["好"]) == 2
    pairs = [(["good"], ["अच्छी"]), (["good", "film"], ["अच्छी", "फ़िल्म"])]
    assert "अच्छी" in augmentation.dictionary(pairs)["good"]


def test_chinese_near_duplicates_are_found_and_other_texts_are_not():
    long = "请把下面这句话里所有的错别字都找出来并且改正过来然后写在纸上"
    texts = [
        long,
        long + "吧",
        "今天天气很好我们一起去公园散步看花吧",
        unicodedata.normalize("NFD", "café " * 9),
        "café " * 9,
    ]
    assert tasks.near_duplicates(texts) == [(0, 1), (3, 4)]
    assert tasks.near_duplicates(["great 👍", "great 👎", "५०", "हिन्दी", "हिन्दा"]) == []


def test_one_text_in_two_encodings_is_one_example():
    nfd = unicodedata.normalize("NFD", "a café")
    rows = [{"group": "g", "source": text} for text in ("a café", nfd, "a cafe", "A café")]
    counts: Counter[str] = Counter()
    found = [row for part in splits.arrange_records(rows, counts, False).values() for row in part]
    assert counts["copies of another row"] == 1 and len(found) == 3
    rated = [
        SimpleNamespace(text=text, label=None, rating=rating, article="")
        for text, rating in (("a café", 2.0), (nfd, -2.0), ("a bar", 1.0))
    ]
    found = splits.arrange(rated, counts := Counter())
    assert (
        counts["texts dropped: copies with different labels"] == 1
    )  # not two examples that contradict each other
    assert [row["text"] for part in found.values() for row in part] == ["a bar"]


def test_augmentation_refuses_a_text_for_words_and_a_share_out_of_range():
    import random

    rng = random.Random(0)
    near = {"good": ["fine"]}
    calls = [
        lambda words: augmentation.replace_words(words, near, 1, rng),
        lambda words: augmentation.insert_words(words, near, 1, rng),
        lambda words: augmentation.swap_words(words, 1, rng),
        lambda words: augmentation.delete_words(words, 0.1, rng),
        lambda words: augmentation.eda(words, near, 0.1, rng),
        lambda words: augmentation.back_translate(words, {}, {}, 0.1, rng),
        lambda words: augmentation.dictionary([(words, ["gut"])]),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="must be a list of texts, not 'good film'"):
            call("good film")
    for share in (-0.1, 1.5, float("nan")):
        for call in (
            lambda share: augmentation.eda(["good"], near, share, rng),
            lambda share: augmentation.delete_words(["good"], share, rng),
            lambda share: augmentation.back_translate(["good"], {}, {}, share, rng),
        ):
            with pytest.raises(ValueError, match="share is .*: choose a number from 0 to 1"):
                call(share)
    assert all(augmentation.eda([], near, 0.1, random.Random(seed)) == [] for seed in range(20))
    with pytest.raises(ValueError, match="at least one"):
        augmentation.dictionary([])


@given(st.text(st.characters(max_codepoint=127), max_size=30))
def test_the_short_way_for_ascii_finds_what_the_long_one_finds(text: str) -> None:
    assert characters.words_of_text(text) == characters._WORDS.findall(characters.canonical(text))
    assert characters.pieces_of_text(text) == characters._PIECES.findall(text)
    mixed = [text, "žluťoučký"]  # one word that is not ASCII
    letters = sum(any(c.isalpha() for c in word) for word in characters.words_of_text(text))
    assert (
        characters.script_of(mixed) == "latin"
        and characters.script_of([text, "Ж " * (letters + 1)]) == "other"
    )
