"""`compare` on a reader's own data: files of every kind, honest splits, a plan that fits, a verdict that hides nothing."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from browser import Browser, program
from hypothesis import example, given, settings
from hypothesis import strategies as st

from instructlab_apps.compare import (
    audit,
    contenders,
    curve,
    intake,
    launch,
    opening,
    pacing,
    parts,
    report_page,
    trunk,
    verdict,
)
from instructlab_utils import metrics
from instructlab_utils.errors import DataError, ParameterError

ROOT = Path(__file__).resolve().parents[1]
CHINESE = [
    "这本书很好，我非常喜欢",
    "质量太差了，不推荐购买",
    "物流很快，包装也不错",
    "内容空洞，浪费时间和金钱",
]


def table(rows: list[list[str]], sign: str = ",") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=sign, lineterminator="\n").writerows(rows)
    return out.getvalue()


def invented(n: int, seed: int = 0, noise: float = 0.1) -> list[list[str]]:
    """Rows of text and label; each label has words of its own, and ``noise`` of the labels are another one's."""
    rng = random.Random(seed)
    words = {"good": "fine lovely great bright".split(), "bad": "awful poor dull broken".split()}
    common = "the film was a story about people in town who walk home at night and talk of work".split()
    rows = []
    for i in range(n):
        truth = "good" if i % 2 else "bad"
        said = (
            [rng.choice(common) for _ in range(8)] + [rng.choice(words[truth])] + [f"w{rng.randrange(300)}"]
        )
        rng.shuffle(said)
        other = {"good": "bad", "bad": "good"}[truth]
        rows.append([" ".join(said), other if rng.random() < noise else truth])
    return rows


def stored(path: Path, rows: list[list[str]], header: tuple[str, ...] = ("text", "label")) -> Path:
    path.write_text(table([list(header), *rows]), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a BERT of two small layers, random weights, and a tokenizer of English words."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = sorted({word for text, _ in invented(400) for word in text.split()})
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *words,
        *"abcdefghijklmnopqrstuvwxyz0123456789",
    ]
    numbered = {word: i for i, word in enumerate(dict.fromkeys(vocabulary))}
    BertTokenizerFast(vocab=numbered).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(set(vocabulary)), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


# --- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "rows", "told"),
    [
        ("utf-8", CHINESE, ""),
        ("utf-8-sig", CHINESE, ""),
        ("utf-16", CHINESE, "UTF-16"),
        ("utf-16-le", ["plain words"] * 9, "byte-order"),
        ("utf-16-be", ["plain words"] * 9, "byte-order"),
        ("gb18030", CHINESE, "GB18030"),
        ("cp1252", ["très bon café", "déçu, à éviter", "pas mal du tout, l’été"], "Windows-1252"),
    ],
)
def test_every_usual_encoding_is_read_and_told(tmp_path, code, rows, told):
    path = tmp_path / "texts.csv"
    path.write_bytes(table([["text", "label"], *([text, "a"] for text in rows)]).encode(code))
    opened = opening.open_file(path)
    assert [record["text"] for _, record in opened.records] == rows and not opened.broken
    assert told in " ".join(opened.notes) and bool(told) == bool(opened.notes)


def test_lines_of_another_encoding_are_set_aside_and_counted(tmp_path):
    good = invented(60)
    rows = table([["text", "label"], ["naïve café", "good"], *good]).encode()
    path = tmp_path / "mixed.csv"
    path.write_bytes(rows + "caf\xe9 cr\xe8me,bad\n".encode("latin-1"))
    read = intake.take_in(path, "text", "label")
    assert read.aside == {"bytes that do not fit the file's encoding": 1} and len(read.text) == 61
    assert read.examples["bytes that do not fit the file's encoding"] == [63]
    assert "1 line(s) are not UTF-8" in read.notes[0]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_among_texts_full_of_the_others(tmp_path, sign):
    rows = [["a, b; c | d\te", "x;y"], ["one, two", "z"], ["f; g; h", "x;y"]]
    path = tmp_path / "texts.csv"
    path.write_text(table([["the text", "the label"], *rows], sign), encoding="utf-8")
    assert [list(record.values()) for _, record in opening.open_file(path).records] == rows


def test_broken_rows_cost_themselves_only(tmp_path):
    text = (
        'text,label\nfirst,a\n"two\nlines",b\n"never closed,a\nafter it,b\ntoo,many,fields\nfew\n'
        '"a ""quoted"" word",a\n5" screen,b\nnul\x00here,a\n"bad" tail,a\nlast,b\n'
    )
    path = tmp_path / "broken.csv"
    path.write_text(text, encoding="utf-8")
    opened = opening.open_file(path)
    kept = [(line, record["text"]) for line, record in opened.records]
    assert kept == [(2, "first"), (3, "two\nlines"), (6, "after it"), (9, 'a "quoted" word'), (10, '5" screen'),
                    (11, "nul\x00here"), (13, "last")]  # fmt: skip
    assert [line for line, _ in opened.broken] == [5, 7, 8, 12]
    assert "not closed" in opened.broken[0][1] and "3 field(s), the header has 2" in opened.broken[1][1]


def test_a_huge_cell_and_control_characters_are_told(tmp_path):
    rows = [*invented(60), ["x" * (opening.LONGEST + 1), "good"], ["bell\x07 and nul\x00 here", "good"], ["", "bad"],
            ["no label", " "], ["odd", "two\nlines  of label"]]  # fmt: skip
    read = intake.take_in(stored(tmp_path / "odd.csv", rows), "text", "label")
    assert read.aside["no text"] == 1 and read.aside["no label"] == 1
    assert sum(count for why, count in read.aside.items() if "characters" in why) == 1
    assert "bell and nul here" in read.text and "two lines of label" in read.names
    assert any("control characters" in note for note in read.notes)
    assert read.rows == 65 == len(read.text) + sum(read.aside.values())


def test_csv_jsonl_json_and_parquet_say_the_same(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{"text": text, "label": i % 3, "other": None} for i, (text, _) in enumerate(invented(60))]
    stored(tmp_path / "a.csv", [[row["text"], str(row["label"])] for row in rows])
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    (tmp_path / "c.json").write_text(json.dumps(rows), encoding="utf-8")
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    read = [
        intake.take_in(tmp_path / name, "text", "label")
        for name in ("a.csv", "b.jsonl", "c.json", "d.parquet")
    ]
    assert all(one.text == read[0].text and one.label == read[0].label for one in read)
    assert read[0].names == ["0", "1", "2"]


BAD = {
    "absent.csv": (None, "no such file"),
    "empty.csv": (b"", "is empty"),
    "blank.csv": (b"\xef\xbb\xbf \n\n", "is empty"),
    "nothing.csv": (b"\xff\xfe\x00\x00", "is empty"),
    "spaces16.csv": ("\u2003\n \x00\n".encode("utf-16"), "is empty"),
    "header.csv": (b"text,label\n", "no row that can be read"),
    "book.csv": (b"PK\x03\x04" + b"\0" * 99, "Excel"),
    "weights.csv": (b"\x80\x04\x95" + b"x" * 99, "pickle"),
    "noise.csv": (random.Random(0).randbytes(4000), "not a text file"),
    "one.csv": (table([["text", "label"], *([f"text {i}", "a"] for i in range(50))]).encode(), "two classes"),
    "two.csv": (b"text,label\nfirst,a\nsecond,b\n", "at least 30 rows"),
    "ids.csv": (table([["text", "label"], *([f"t {i}", f"id{i}"] for i in range(50))]).encode(), "few labels"),
    "other.csv": (table([["review", "stars"], *([f"a text {i}", str(i % 2)] for i in range(50))]).encode(),
                  "--text review --label stars"),
    "spaces.csv": (table([["The Text", "its label"], *([f"t {i}", str(i % 2)] for i in range(50))]).encode(),
                   "--text 'The Text' --label 'its label'"),
    "bad.json": (b'[{"text": "a"', "not JSON"),
    "list.jsonl": (b"[1]\n[2]\n", "must be an object"),
    "bad.parquet": (b"PAR1 and no more", "Parquet"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gets_one_sentence_with_the_fix(tmp_path, name):
    data, told = BAD[name]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        intake.take_in(tmp_path / name, "text", "label")
    said = str(caught.value)
    assert told in said and name in said and "\n" not in said and len(said) < 400


def test_a_folder_and_a_same_column_are_refused(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        intake.take_in(tmp_path, "text", "label")
    path = stored(tmp_path / "t.csv", invented(60))
    with pytest.raises(DataError, match="both name 'text'"):
        intake.take_in(path, "text", "text")
    with pytest.raises(DataError, match="try --text text --label label"):
        intake.take_in(path, "", "")
    with pytest.raises(DataError, match="--text text --label label"):
        intake.take_in(path, "Text", "labels")


@example(b"\xff\xfe\x00\x00", ".csv")
@given(st.binary(max_size=400), st.sampled_from([".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet"]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_read_or_refused_in_a_sentence(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("any") / f"any{suffix}"
    path.write_bytes(data)
    try:
        opened = opening.open_file(path)
    except DataError as error:
        assert path.name in str(error) and "\n" not in str(error)
    else:
        assert all(set(record) <= set(opened.columns) for _, record in opened.records)
        assert all(why for _, why in opened.broken)


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00\ufeff"), max_size=20)


@given(
    st.lists(st.tuples(CELL, CELL), min_size=2, max_size=12),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
@settings(max_examples=150, deadline=None)
def test_what_a_table_says_is_read_back(tmp_path_factory, rows, sign, code):
    path = tmp_path_factory.mktemp("table") / "any.csv"
    told = [[text, f"row {i} {label}"] for i, (text, label) in enumerate(rows)]
    data = table([["a long name", "label"], *told], sign)
    if sum(c < " " and c not in "\t\n" for c in data) > 3:
        return  # more control characters than a text has
    path.write_bytes(data.encode(code))
    opened = opening.open_file(path)
    assert [list(record.values()) for _, record in opened.records] == told and not opened.broken


@given(
    st.lists(
        st.sampled_from(['{"text": "a", "label": "b"}', "{broken", "[1]", "", "7", '{"text": 1}']),
        max_size=30,
    )
)
@settings(max_examples=60, deadline=None)
def test_no_line_is_lost_silently(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "any.jsonl"
    path.write_text("\n".join(['{"text": "first", "label": "x"}', *lines]), encoding="utf-8")
    opened = opening.open_file(path)
    assert len(opened.records) + len(opened.broken) == 1 + sum(bool(line) for line in lines)


# --- audit and split -------------------------------------------------------------------------------------------------


def taken(rows: list[list[str]]) -> intake.Intake:
    names = sorted({label for _, label in rows})
    return intake.Intake(
        [text for text, _ in rows], [names.index(label) for _, label in rows], list(range(2, len(rows) + 2)), names,
        Counter(), {}, [], len(rows),
    )  # fmt: skip


class Letters:
    """A tokenizer that knows ASCII letters only."""

    unk_token_id = 0

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[int(c.isascii()) for c in text if not c.isspace()] for text in texts]}


def test_copies_contradictions_and_near_copies_are_found():
    long = (
        "we stayed three nights in the small hotel beside the old harbour and slept well every single night"
    )
    rows = [*invented(80), [long, "good"], [long.upper(), "good"], [long + " again", "good"], ["say what", "good"],
            ["Say  what", "bad"], ["the only one of its kind", "rare"]]  # fmt: skip
    found = audit.audit(taken(rows), Letters(), 6, english=True)
    assert found.copies == 2 and found.contradictions == [[83, 84]] and found.lonely == [("rare", 1)]
    assert (80, 82) in found.near and 85 not in found.keep and 83 not in found.keep
    of = dict(zip(found.keep, found.group, strict=True))
    assert of[80] == of[82]


def test_planted_leaks_are_found_and_honest_words_are_not():
    clean = invented(200, noise=0.2)
    assert audit.audit(taken(clean), Letters(), 6, english=True).leaks == []
    planted = [[f"{text} stars5" if label == "good" else text, label] for text, label in clean]
    (leak, *_) = audit.audit(taken(planted), Letters(), 6, english=True).leaks
    assert (
        leak["word"] == "stars5" and leak["label"] == "good" and leak["share"] == 1 and leak["elsewhere"] == 0
    )
    named = [[f"{text}, so {label}" if i % 3 else text, label] for i, (text, label) in enumerate(clean)]
    assert "the label's own name" in {
        one["kind"] for one in audit.audit(taken(named), Letters(), 6, english=True).leaks
    }


def test_an_encoder_that_cannot_read_the_language_is_told():
    rng = random.Random(0)
    rows = [["".join(rng.choice(CHINESE) for _ in range(3)) + str(i), "ab"[i % 2]] for i in range(60)]
    said = " ".join(audit.audit(taken(rows), Letters(), 6, english=True).warnings)
    assert "nearly blind" in said and "mainly Chinese" in said
    assert audit.audit(taken(invented(300)), Letters(), 6, english=True).warnings == []


def test_a_length_that_gives_labels_away_is_told():
    rows = [[text if label == "good" else f"{text} {text}x", label] for text, label in invented(300, noise=0)]
    assert any(
        "length of a text alone" in one for one in audit.audit(taken(rows), Letters(), 6, True).warnings
    )


@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 60)), min_size=30, max_size=300), st.integers(0, 9)
)
@settings(max_examples=60, deadline=None)
def test_no_group_is_cut_and_every_text_has_one_part(pairs, seed):
    labels, group = [label for label, _ in pairs], [one for _, one in pairs]
    part = parts.spread(labels, group, seed)
    split = parts.Parts(part, np.ones(len(part), dtype=bool), parts.firsts(group))
    assert all(len({part[i] for i in range(len(part)) if group[i] == one}) == 1 for one in set(group))
    for number in range(parts.SEEDS):
        train, test = set(split.train(number)), set(split.test(number))
        assert not train & test and not (train | test) & set(split.dev())
        assert not {group[i] for i in train} & {group[i] for i in test}


def test_classes_are_spread_evenly_and_rare_ones_reach_several_seeds():
    labels = [0] * 300 + [1] * 60 + [2] * 5 + [3] * 2
    part = parts.spread(labels, list(range(len(labels))))
    shares = np.bincount(part, minlength=6) / len(labels)
    assert abs(shares[0] - 0.2) < 0.03 and np.abs(shares[1:] - 0.16).max() < 0.03
    y = np.array(labels)
    assert np.ptp([(part[y == 1] == p).sum() for p in range(1, 6)]) <= 1
    assert len(set(part[y == 2])) == 5 and len(set(part[y == 3])) == 2
    marked = parts.working_set(part, 100)
    assert 95 <= marked.sum() <= 106 and abs((y[marked] == 0).mean() - 300 / 367) < 0.1
    assert parts.working_set(part, 400).all()


# --- the plan ----------------------------------------------------------------------------------------------------------

SPEED = pacing.Speeds(3e-4, 1.2e-3, 8e-4)


@given(
    st.floats(1, 3000),
    st.floats(0.5, 60),
    st.floats(0.05, 30),
    st.lists(st.integers(2, 400), min_size=30, max_size=600),
)
@settings(max_examples=120, deadline=None)
def test_a_plan_fits_into_the_time_that_is_left(left, minutes, slow, lengths):
    clock = pacing.Clock(0.0, minutes)
    speeds = pacing.Speeds(SPEED.reading * slow, SPEED.full * slow, None if slow < 0.1 else 8e-4 * slow)
    made = pacing.plan(left, clock, speeds, lengths)
    assert made.steps >= pacing.LITTLE if made.methods else made.seeds == 5
    if made.working > 60:  # the least that is read, whatever it costs
        assert made.seconds <= max(left - clock.reserve, 1.0)
    assert 8 <= made.cut <= 128 and 0 < made.working <= len(lengths)
    assert "lora" not in made.methods or speeds.lora is not None
    again = pacing.settled(made, left, clock, speeds, lengths)
    assert (again.cut, again.working) == (made.cut, made.working)
    assert again.seconds <= max(left - clock.reserve, 1.0)


def test_more_time_buys_methods_seeds_and_updates_and_cuts_are_told():
    lengths = [20] * 1500
    plans = [pacing.plan(60 * m, pacing.Clock(0.0, m), SPEED, lengths) for m in (0.5, 2, 5, 15, 60)]
    assert not plans[0].methods and "were cut" in " ".join(plans[0].said)
    assert plans[2].methods and plans[-1].methods == ["full", "lora"] and plans[-1].seeds == 5
    assert plans[-1].trials == 3 and plans[0].trials == 2 and not plans[-1].said
    assert sorted(p.working for p in plans) == [p.working for p in plans]


def test_a_slow_machine_keeps_more_for_the_report_and_a_hopeless_plan_is_not_measured_again(monkeypatch):
    now = {"passed": 0.0, "worked": 0.0}
    monkeypatch.setattr(pacing.time, "perf_counter", lambda: now["passed"])
    monkeypatch.setattr(pacing.time, "process_time", lambda: now["worked"])
    clock = pacing.Clock(0.0, 2)
    quiet = clock.reserve
    for _ in range(30):
        now["passed"], now["worked"] = now["passed"] + 1, now["worked"] + 0.25
        assert quiet <= clock.reserve <= quiet + 18.01
    assert clock.pulse.slow() == pytest.approx(4) and clock.reserve == pytest.approx(quiet + 18)
    for _ in range(30):  # the others have gone
        now["passed"], now["worked"] = now["passed"] + 1, now["worked"] + 1
        assert clock.reserve >= quiet
    assert clock.pulse.slow() == 1 and clock.reserve == quiet
    made = pacing.plan(300, clock, SPEED, [20] * 1500)
    assert not pacing.hopeless(made, 300, clock, SPEED, [20] * 1500)
    assert pacing.hopeless(made, 25, clock, SPEED, [20] * 1500)


# --- methods -----------------------------------------------------------------------------------------------------------


def test_tf_idf_weights_come_from_the_training_texts():
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [text for text, _ in invented(120)]
    train = np.arange(80)
    ours = contenders.weighted(contenders.counted(texts, "words", True), train)
    counts = contenders.counted(texts, "words", True)
    assert np.allclose(np.sqrt(ours.multiply(ours).sum(1)), 1) and ours.shape == counts.shape
    once = TfidfVectorizer(analyzer=contenders._words_and_pairs, min_df=2, sublinear_tf=True).fit_transform(
        texts[:80]
    )
    both = contenders.weighted(contenders.counted(texts[:80], "words", True), train)
    assert np.allclose(once.toarray(), both.toarray())


def test_a_class_that_was_never_seen_keeps_a_finite_loss():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 5)), rng.integers(0, 2, 60)
    p = contenders.linear(x, y, 1.0, 4)(x)
    assert p.shape == (60, 4) and np.allclose(p.sum(1), 1) and p[:, 3].max() < 1e-3
    assert np.isfinite(contenders.log_loss(p, np.full(60, 3)))
    assert contenders.linear(x, np.zeros(60, dtype=int), 1.0, 3)(x).argmax(1).max() == 0


def test_a_frozen_encoder_lora_and_full_tuning_train_what_they_say(encoder):
    net, tokenizer = trunk.load(str(encoder))
    from instructlab_utils import training, tuners

    rows = [{"text": text, "label": int(label == "good")} for text, label in invented(48)]
    examples = training.encode(rows, tokenizer, 32)
    states = trunk.read(net, examples, tokenizer.pad_token_id)
    assert states.shape == (48, 32)
    full = trunk.prepared("full", net, 2, 0)
    assert full.classifier(__import__("torch").from_numpy(states)).shape == (48, 2)
    assert np.allclose(
        trunk.probabilities(full, examples, 0),
        full.classifier(__import__("torch").from_numpy(states)).softmax(-1).detach().numpy(),
        atol=1e-5,
    )
    lora = trunk.prepared("lora", net, 2, 0)
    assert set(tuners.trainable(lora)) == {
        *(f"encoder.encoder.layer.{i}.attention.self.{q}.{m}" for i in (0, 1) for q in ("query", "value") for m in "AB"),
        "classifier.weight", "classifier.bias",
    }  # fmt: skip
    before = {name: p.clone() for name, p in net.named_parameters()}
    for model in (full, lora):
        trunk.tune(model, examples, 1e-3, 3, 0, tokenizer.pad_token_id, float("inf"))
    assert all(bool((p == before[name]).all()) for name, p in net.named_parameters())
    with pytest.raises(pacing.OutOfTime):
        trunk.tune(full, examples, 1e-3, 3, 0, tokenizer.pad_token_id, time.time() - 1)


def test_only_safetensors_are_loaded(tmp_path, encoder):
    with pytest.raises(DataError, match="no such folder"):
        launch.must_be_encoder(tmp_path / "none")
    with pytest.raises(DataError, match="no config.json"):
        launch.must_be_encoder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(DataError, match="could run code"):
        launch.must_be_encoder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="no tokenizer"):
        launch.must_be_encoder(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]")
    launch.must_be_encoder(tmp_path)
    with pytest.raises(DataError, match="cannot be loaded"):
        trunk.load(str(tmp_path))
    launch.must_be_encoder(encoder)


# --- the verdict ---------------------------------------------------------------------------------------------------------


def contest_lines(
    chances: dict[str, float], tests: int, seeds: int, rng: Any
) -> tuple[list[dict], np.ndarray]:
    """Lines of a contest in which each method is right with its own chance, independently, on two even classes."""
    y = rng.integers(0, 2, tests * seeds)
    lines: list[dict] = []
    for key, chance in chances.items():
        lines += [
            {"kind": "trial", "method": key, "value": v, "dev_loss": 1 - chance + v / 1e4}
            for v in (1.0, 10.0)
        ]
        for seed in range(seeds):
            rows = np.arange(seed * tests, (seed + 1) * tests)
            right = rng.random(tests) < chance
            guess = np.zeros(tests, dtype=int) if key == "majority" else np.where(right, y[rows], 1 - y[rows])
            lines.append({
                "kind": "run", "method": key, "seed": seed, "rows": rows.tolist(), "guess": guess.tolist(),
                "sure": [0.8] * tests, "own": np.where(guess == y[rows], 0.8, 0.2).tolist(), "value": 1.0,
                "seconds": 1.0, "per_text": 0.001, "bytes": 10,
            })  # fmt: skip
    return lines, y


def judged(
    chances: dict[str, float], tests: int, seeds: int, rng: Any
) -> tuple[verdict.Verdict, list[verdict.Standing]]:
    lines, y = contest_lines(chances, tests, seeds, rng)
    standing = verdict.standings(lines, y, np.ones(len(y), dtype=bool))
    losses = {line["method"]: line["dev_loss"] for line in lines if line["kind"] == "trial"}
    return verdict.judge(standing, losses, seeds), standing


@given(
    st.lists(st.floats(0.4, 0.95), min_size=6, max_size=6),
    st.integers(20, 80),
    st.integers(3, 5),
    st.integers(0, 99),
)
@settings(max_examples=12, deadline=None)
def test_no_method_is_ahead_of_the_recommended_one_in_silence(chances, tests, seeds, seed):
    given_ = dict(zip(contenders.BY_KEY, chances, strict=True))
    found, standing = judged(given_, tests, seeds, np.random.default_rng(seed))
    mine = next(one for one in standing if one.key == found.key)
    for one in standing:
        if one.accuracy.mean > mine.accuracy.mean:
            assert any(f"{one.called} is" in said and "ahead" in said for said in found.caveats)


@pytest.mark.parametrize(
    ("chances", "kinds"),
    [
        (dict(majority=0.5, words=0.7, characters=0.7, frozen=0.9, lora=0.7, full=0.9), {"better"}),
        (dict(majority=0.5, words=0.95, characters=0.88, frozen=0.7, lora=0.7, full=0.6), {"enough"}),
        (dict(majority=0.5, words=0.5, characters=0.5, frozen=0.5, lora=0.5, full=0.5), {"none"}),
        (dict(majority=0.5, words=0.8, characters=0.8, frozen=0.8, lora=0.8, full=0.8), {"open", "enough"}),
    ],
)
def test_clear_cases_are_judged_as_they_are(chances, kinds):
    rng = np.random.default_rng(1)
    found = [judged(chances, 120, 5, rng)[0] for _ in range(3)]
    assert {one.kind for one in found} <= kinds
    if kinds == {"better"}:
        assert {one.key for one in found} == {"frozen"}  # the cheaper of two equals


def test_nothing_is_called_enough_where_no_encoder_was_tried():
    rng = np.random.default_rng(5)
    found, _ = judged(dict(majority=0.5, words=0.7, characters=0.85), 120, 5, rng)
    assert found.kind == "open" and found.key == "characters" and "was not tried" in found.headline
    found, _ = judged(dict(majority=0.5, words=0.5, characters=0.5), 120, 5, rng)
    assert found.kind == "none" and "No encoder was tried" in " ".join(found.caveats)


def test_equal_methods_are_seldom_called_better():
    rng = np.random.default_rng(2)
    chances = dict(majority=0.5, words=0.75, characters=0.75, frozen=0.75, lora=0.75, full=0.75)
    wrong = sum(judged(chances, 60, 3, rng)[0].kind == "better" for _ in range(24))
    assert wrong <= 2


def test_wrong_labels_are_at_the_top_of_the_list():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 400)
    y, flipped = truth.copy(), rng.choice(400, 20, replace=False)
    y[flipped] = (y[flipped] + 1) % 3
    lines = []
    for key in ("words", "characters", "frozen"):
        guess = np.where(rng.random(400) < 0.9, truth, (truth + 2) % 3)
        sure = np.where(guess == truth, rng.uniform(0.7, 1, 400), rng.uniform(0.4, 0.7, 400))
        own = np.where(guess == y, sure, (1 - sure) / 2)
        lines.append({"kind": "run", "method": key, "seed": 0, "rows": list(range(400)), "guess": guess.tolist(),
                      "sure": sure.tolist(), "own": own.tolist()})  # fmt: skip
    found = verdict.suspects(lines, y)
    assert sum(one["place"] in flipped for one in found[:15]) >= 14
    assert all(2 * one["votes"] > one["voters"] for one in found)


def test_the_band_of_the_learning_curve_holds_the_truth_and_flat_curves_stay_flat():
    rng, held = np.random.default_rng(4), 0
    sizes, tests = [100, 200, 400, 800], 1000
    for run in range(40):
        a, b, c = rng.uniform(0, 0.2), rng.uniform(0.5, 2), rng.uniform(0.25, 0.7)
        error = a + b * np.array(sizes, dtype=float) ** -c
        seen = np.clip(rng.binomial(200, np.clip(error, 0, 1), size=(5, 4)) / 200, 0, 1)
        ((low, _, high),) = curve.band(sizes, seen, [1600], tests, run)
        held += low <= a + b * 1600.0**-c <= high
    assert held >= 36
    ((low, middle, high),) = curve.band(sizes, np.full((5, 4), 0.3), [1600], tests)
    assert low <= 0.3 and abs(middle - 0.3) < 0.02 and high - low < 0.12


def test_a_curve_that_does_not_foretell_its_last_point_gives_no_number():
    lines = [
        {
            "kind": "curve",
            "method": "words",
            "seed": seed,
            "share": share,
            "n": int(800 * share),
            "accuracy": 0.6,
        }
        for seed in range(5)
        for share in (0.125, 0.25, 0.5)
    ]
    jump = curve.learned(lines, "words", {seed: (800, 0.9, 200) for seed in range(5)})
    assert jump is not None and not jump.passed and "no number" in jump.words
    flat = curve.learned(lines, "words", {seed: (800, 0.6, 200) for seed in range(5)})
    assert flat is not None and flat.passed and flat.gain[1] < 0.03
    assert curve.learned(lines[:3], "words", {0: (800, 0.6, 200)}) is None


@pytest.mark.parametrize(("n", "classes"), [(30, 2), (90, 15)])
def test_the_smallest_files_get_a_report_too(tmp_path, encoder, n, classes):
    from instructlab_apps.compare.contest import Contest

    rows = [[f"{text} {i}", f"class {i % classes}"] for i, (text, _) in enumerate(invented(n))]
    data, clock = taken(rows), pacing.Clock(time.time() + 400, 1.5)
    found = audit.audit(data, trunk.load(str(encoder))[1], 6, english=False)
    one = Contest(data, found, tmp_path, str(encoder), clock, time.time())
    one.baselines()
    one.lines = [x for x in one.lines if not (x.get("method") == "words" and x.get("seed", 0) > 2)]
    assert len(one.of("run", method="words")) == 3  # as if the time had been short
    one.make_plan()
    one.frozen()
    planned = one.settle()
    assert planned.methods
    planned.seeds, planned.steps = 3, 8
    one.tuned()
    assert all(len(one.of("run", method=kind)) == 5 for kind in planned.methods)  # there was time for all
    one.complete()
    assert len(one.of("run", method="words")) == len(one.of("run", method="characters")) == 5
    assert not [line for line in one.of("note") if "seeds instead" in line["text"]]
    told = {
        "file": "x.csv",
        "text": "text",
        "label": "label",
        "model": "",
        "minutes": 1.5,
        "command": "again",
    }
    summary = report_page.report(one, data, found, told)
    assert summary["kind"] in ("none", "open", "enough") and (tmp_path / "report.html").stat().st_size > 5000
    assert {"majority", "words", "characters", "frozen"} <= set(summary["accuracy"])
    same = taken([[text, label] for text, label in rows[:1] * 20 + rows[1:2] * 20])
    with pytest.raises(DataError, match="more different texts"):
        audit.audit(same, Letters(), 6, False)


# --- the whole ---------------------------------------------------------------------------------------------------------

HOSTILE = [
    '<script>alert(1)</script> good', '=HYPERLINK("http://x")', "{{ 7 * 7 }} {% raw %}", "</style><img src=x onerror=y>",
    "a" * 900, "\u202egnirts desrever", "'; DROP TABLE texts; --",
]  # fmt: skip


MINUTES = 9  # far more than it needs: a slow machine must not cut a method here


def command(data: Path, out: Path, model: Path) -> list[str]:
    return [
        sys.executable, "-m", "instructlab_utils", "compare", "--data", str(data), "--text", "text", "--label", "label",
        "--minutes", str(MINUTES), "--out", str(out), "--model", str(model),
    ]  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "INSTRUCTLAB_WARM": "0"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, encoder) -> SimpleNamespace:
    """A comparison that was killed in the middle (SIGKILL) and run again to its end, on texts that try to harm the page."""
    folder = tmp_path_factory.mktemp("whole")
    rows = [
        *invented(200),
        *([text, "<b>odd</b>" if i % 2 else "good"] for i, text in enumerate(HOSTILE * 2)),
    ]
    rows += [[f"{text} {i}", "<b>odd</b>"] for i, text in enumerate(HOSTILE)]
    data, out = stored(folder / "own <i>data.csv", rows), folder / "out"
    ask: dict[str, Any] = {"cwd": ROOT, "env": environment()}
    first = subprocess.Popen(
        command(data, out, encoder), **ask, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    lines, end = out / "results.jsonl", time.monotonic() + 400
    while not (lines.exists() and lines.read_bytes().count(b"\n") > 12):
        assert first.poll() is None, f"it ended with {first.returncode} before it could be killed"
        assert time.monotonic() < end, "no run was written"
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = lines.read_bytes()  # its kernel may still write for a moment: the second one has to wait for it
    done = subprocess.run(command(data, out, encoder), **ask, capture_output=True, text=True, timeout=1200)
    return SimpleNamespace(out=out, before=before, done=done, data=data)


@pytest.mark.slow
def test_a_killed_comparison_goes_on_from_its_lines(finished, encoder, capsys):
    assert finished.done.returncode == 0, finished.done.stderr
    assert "goes on after" in finished.done.stderr
    after = (finished.out / "results.jsonl").read_bytes()
    kept = finished.before[: finished.before.rfind(b"\n") + 1]
    assert after.startswith(kept) and b'"kind": "done"' not in kept and after.count(b'"kind": "done"') == 1
    lines = [json.loads(line) for line in after.splitlines()]
    done = [tuple(x.get(k) for k in ("kind", "method", "value", "seed", "share")) for x in lines]
    done = [key for key in done if key[0] in ("trial", "run", "beside", "curve")]
    assert len(done) == len(set(done))  # nothing was done twice, by either of the two
    assert {method for kind, method, *_ in done if kind == "run"} == set(contenders.BY_KEY)
    again = launch.compare(finished.data, "text", "label", encoder, MINUTES, finished.out)
    assert again == 0 and "already done" in capsys.readouterr().out
    with pytest.raises(ParameterError, match="holds another comparison"):
        launch.compare(finished.data, "text", "label", encoder, MINUTES + 1, finished.out)


def test_a_second_kernel_waits_for_the_first_and_gives_up_in_a_sentence(tmp_path):
    held = launch.alone(tmp_path)
    with pytest.raises(ParameterError, match="another comparison is at work"):
        launch.alone(tmp_path, patience=0.05)
    held.release()
    assert launch.alone(tmp_path, patience=0.05).is_locked


class Seen(HTMLParser):
    """What a browser makes of a page: the elements with their attributes, and the texts of the cards."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.cards: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.open += [tag] if tag in ("p", "div", "section") else []
        if self.open[-2:] == ["div", "p"]:
            self.cards.append("")

    def handle_endtag(self, tag: str) -> None:
        if self.open[-1:] == [tag]:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-2:] == ["div", "p"]:
            self.cards[-1] += data


@pytest.mark.slow
def test_the_report_is_one_page_that_escapes_everything(finished):
    html = (finished.out / "report.html").read_text(encoding="utf-8")
    for bad in ("<script", "<i>data", "<b>odd", "<img", "<link"):
        assert bad not in html, bad
    seen = Seen(html)
    assert not seen.tags & {"script", "img", "link", "a", "iframe", "object", "form", "i"}
    assert not [(k, v) for k, v in seen.attributes if k.startswith("on") or "//" in v or k in ("href", "src")]
    rows = list(csv.reader(io.StringIO(finished.data.read_text(encoding="utf-8"))))
    assert len(seen.cards) > 4 and {card.strip() for card in seen.cards} <= {
        report_page.cut(row[0]) for row in rows
    }
    assert "&lt;b&gt;odd&lt;/b&gt;" in html
    summary = json.loads((finished.out / "summary.json").read_text(encoding="utf-8"))
    assert summary["headline"] in html.replace("&#39;", "'") and summary["kind"] in (
        "better",
        "enough",
        "open",
        "none",
    )
    for words in (
        "What this report cannot say",
        "Would more labels help?",
        "Run it again",
        "Labels to check first",
    ):
        assert words in html
    with open(finished.out / "labels_to_check.csv", encoding="utf-8-sig", newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert not [cell for cell in cells if cell[:1] in "=+-@" and cell]
    assert (finished.out / "executed.ipynb").exists()


@pytest.mark.slow
@pytest.mark.skipif(program() is None, reason="no Chromium on this machine")
def test_the_page_fits_a_telephone_in_light_and_dark(finished):
    with Browser(str(program())) as browser:
        for width in (1280, 390):
            for dark in (False, True):
                browser.open((finished.out / "report.html").as_uri(), width, dark)
                size = browser.call("Page.getLayoutMetrics")["cssContentSize"]
                assert size["width"] <= width
        assert not browser.complaints and not [url for url in browser.requests if not url.startswith("file:")]


@pytest.mark.parametrize("classes", [2, 7])
def test_the_calibration_error_is_the_packages(classes):
    rng = np.random.default_rng(classes)
    p, y = rng.dirichlet(np.ones(classes), 500), rng.integers(0, classes, 500)
    p[:3] = np.eye(classes)[0]  # confidence 1, on the border of the last bin
    ours = verdict.miscalibrated(p.max(1), (p.argmax(1) == y).astype(float))
    assert ours == pytest.approx(metrics.expected_calibration_error(p, y), abs=1e-12)


def test_formulas_get_an_apostrophe():
    assert (
        report_page.harmless("=1+1") == "'=1+1"
        and report_page.harmless(" @x") == "' @x"
        and report_page.harmless("\t=x").startswith("'")
    )
    assert report_page.harmless("plain - text") == "plain - text" and report_page.harmless("") == ""


def test_the_command_line_stays_light_and_says_what_is_wrong(tmp_path):
    code = "import sys; import instructlab_apps.commands; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert loaded.returncode == 0
    assert not {"torch", "transformers", "sklearn", "pyarrow", "numpy", "pandas"} & set(loaded.stdout.split())
    path = stored(tmp_path / "mine.csv", invented(60), ("review", "stars"))
    ask = [sys.executable, "-m", "instructlab_utils", "compare", "--data", str(path)]
    done = subprocess.run(ask, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert (
        done.returncode == 2
        and done.stderr.count("\n") == 1
        and "try --text review --label stars" in done.stderr
    )
    assert "Traceback" not in done.stderr
