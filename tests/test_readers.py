"""Tasks of questions, tagged tokens and texts: what the readers make of a file, and what they refuse."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructlab_utils import tasks
from instructlab_utils.errors import DataError
from instructlab_utils.tasks import readers

RECORDS = {name: told for name, told in tasks.tables().items() if told.kind != "classification"}


def task_file(tmp_path: Path, examples: object, name: str = "task.json") -> Path:
    path = tmp_path / name
    path.write_text(json.dumps({"examples": examples}), encoding="utf-8")
    return path


def example(source: object, target: object) -> dict[str, object]:
    return {"input": source, "target": target}


def rows_of(reader, *files: Path) -> tuple[list[readers.Record], Counter[str]]:
    counts: Counter[str] = Counter()
    return list(reader(list(files), counts)), counts


@pytest.mark.parametrize("name", RECORDS)
def test_no_group_crosses_the_splits_and_ids_are_unique(name: str) -> None:
    task = tasks.load(name)
    groups = [set(part["group"]) for part in task.splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == task.counts["groups"]
    ids = [key for part in task.splits.values() for key in part["id"]]
    assert len(ids) == len(set(ids)) > (50 if task.kind == "choice" else 100)
    assert list(task.splits) == (["test"] if tasks.table(name).test_only else ["train", "dev", "test"])


@pytest.mark.parametrize("name", [n for n, r in RECORDS.items() if r.kind == "qa"])
def test_every_answer_stands_where_its_offset_says(name: str) -> None:
    for part in tasks.load(name).splits.values():
        for context, answers, starts in zip(part["context"], part["answers"], part["starts"], strict=True):
            assert len(answers) == len(starts)
            assert all(context[s : s + len(a)] == a and a for a, s in zip(answers, starts, strict=True))


@pytest.mark.parametrize("name", ["e2e-slots", "polish-ner"])
def test_tags_are_legal_bio_and_as_many_as_the_tokens(name: str) -> None:
    task = tasks.load(name)
    for part in task.splits.values():
        for tokens, tags in zip(part["tokens"], part["tags"], strict=True):
            assert len(tokens) == len(tags) and set(tags) <= set(task.labels)
            before = ["O", *tags]
            assert all(tag[0] != "I" or last[1:] == tag[1:] for last, tag in zip(before, tags, strict=False))


def test_unanswerable_questions_are_in_disfl_qa_and_nowhere_else() -> None:
    empty = {
        name: sum(not answers for part in tasks.load(name).splits.values() for answers in part["answers"])
        for name, task in RECORDS.items()
        if task.kind == "qa"
    }
    assert empty.pop("disfl-qa") > 1000 and not any(empty.values())


def test_a_wrong_offset_is_moved_to_the_nearest_place() -> None:
    counts: Counter[str] = Counter()
    assert readers.placed("to be or not to be", "be", 15, counts) == ("be", 16)
    assert readers.placed("to be or not to be", " be", 2, counts) == ("be", 3)
    assert readers.placed("to be", "dark", 0, counts) is None
    assert counts == {
        "answers whose offset was wrong: the nearest place is taken": 1,
        "answers left out: they do not stand in the text": 1,
    }


def test_an_answer_is_looked_for_as_a_word_before_it_is_looked_for_inside_one() -> None:
    counts: Counter[str] = Counter()
    assert readers.placed("a party about art", "art", 4, counts) == ("art", 14)
    assert readers.placed("a bit redder", "red", 0, counts) == (
        "red",
        6,
    )  # else nowhere: annotators do cut words
    assert readers.placed("他在北京出生", "北京", 0, counts) == ("北京", 2)
    assert counts == {"answers whose offset was wrong: the nearest place is taken": 3}


def squad_file(tmp_path: Path, **changes: dict[str, object]) -> Path:
    """A file of SQuAD's form; ``changes`` go into the article, the paragraph, the question or the answer. None deletes."""
    context = "Beyoncé was born in Houston, Texas. She sang there."

    def changed(level: str, fields: dict[str, object]) -> dict[str, object]:
        return {k: v for k, v in (fields | changes.get(level, {})).items() if v is not None}

    answer = changed("answer", {"text": "Houston", "answer_start": 20})
    qa = changed("question", {"id": "1", "question": "Where?", "answers": [answer]})
    paragraph = changed("paragraph", {"context": context, "qas": [qa]})
    path = tmp_path / "squad.json"
    article = changed("article", {"title": "B", "paragraphs": [paragraph]})
    path.write_text(json.dumps({"version": "1.1", "data": [article]}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"answer": {"answer_start": None}},
            "question 1, answer 1, field answer_start: None: write a whole number",
        ),
        ({"answer": {"answer_start": "20"}}, "answer 1, field answer_start: '20': write a whole number"),
        ({"answer": {"answer_start": True}}, "field answer_start: True: write a whole number"),
        ({"answer": {"text": None}}, "answer 1, field text: None: write a text"),
        ({"answer": {"answer_end": 27}}, "answer 1, field 'answer_end': no reader knows it"),
        (
            {"question": {"answers": None}},
            "article 1, paragraph 1, question 1, field answers: None: write a list",
        ),
        ({"question": {"answers": [3]}}, "answer 1: 3 is no object"),
        ({"question": {"question": None}}, "question 1, field question: None: write a text"),
        ({"question": {"weight": 0}}, "question 1, field 'weight': no reader knows it"),
        ({"question": {"is_impossible": True}}, "is_impossible: True beside 1 answers: mend one"),
        ({"question": {"is_impossible": "no"}}, "is_impossible: 'no' beside 1 answers"),
        ({"paragraph": {"context": None}}, "paragraph 1, field context: None: write a text"),
        ({"paragraph": {"qas": None}}, "paragraph 1, field qas: None: write a list"),
        ({"article": {"title": None}}, "article 1, field title: None: write a text"),
        ({"article": {"paragraphs": ["x"]}}, "paragraph 1: 'x' is no object"),
    ],
)
def test_a_malformed_squad_row_is_one_sentence(tmp_path: Path, changes, message: str) -> None:
    path = squad_file(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        rows_of(readers.squad, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_starts_in_squad_are_mended_and_counted_or_left_out(tmp_path: Path) -> None:
    for start in (0, 21, 400, -3):
        (row,), counts = rows_of(readers.squad, squad_file(tmp_path, answer={"answer_start": start}))
        assert (
            row["starts"] == [20]
            and counts["answers whose offset was wrong: the nearest place is taken"] == 1
        )
    rows, counts = rows_of(readers.squad, squad_file(tmp_path, answer={"text": "Austin"}))
    assert not rows and counts["questions left out: no answer stands in the text"] == 1


def test_a_question_that_says_it_has_no_answer_has_none(tmp_path: Path) -> None:
    more = {
        "is_impossible": True,
        "answers": [],
        "plausible_answers": [{"text": "Texas", "answer_start": 29}],
    }
    (row,), counts = rows_of(readers.squad, squad_file(tmp_path, question=more))
    assert row["answers"] == row["starts"] == [] and not counts
    assert rows_of(readers.squad, squad_file(tmp_path, question={"is_impossible": False}))[0][0][
        "starts"
    ] == [20]


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "task.json"
    path.write_text(
        '{"examples": [{"input": "q", "target_scores": {"a": 1, "b": 0, "a": 0}}]}', encoding="utf-8"
    )
    with pytest.raises(DataError, match="the key 'a' stands twice in one object"):
        rows_of(readers.choices, path)


def test_a_target_that_contradicts_the_scores_is_left_out_and_counted(tmp_path: Path) -> None:
    scores = {"target_scores": {"Yes": 1, "No": 0}}
    said = ["Yes", "Yes. A comet is one.", " Yes", ["Sure", "Yes"], "No. It is not.", "Yesterday", ["No"]]
    rows, counts = rows_of(
        readers.choices,
        task_file(tmp_path, [{"input": f"q{i}", "target": t} | scores for i, t in enumerate(said)]),
    )
    assert [row["input"] for row in rows] == ["q0", "q1", "q2", "q3"]
    assert counts == {"examples left out: target and target_scores differ": 3}


def test_attributes_may_hold_commas_and_colons_only_between_keys() -> None:
    text = "name: Blue Spice, priceRange: £20-25, customer rating: 3 out of 5, near: Café, the old one"
    assert readers.attributes(text) == {
        "name": "Blue Spice",
        "priceRange": "£20-25",
        "customer rating": "3 out of 5",
        "near": "Café, the old one",
    }


def test_slots_tag_whole_words_and_long_values_first(tmp_path: Path) -> None:
    path = task_file(
        tmp_path,
        [
            example(
                "name: The Pub House, eatType: pub, familyFriendly: no",
                "The pub house is no Publican, but a pub.",
            )
        ],
    )
    (row,), counts = rows_of(readers.slots, path)
    assert list(zip(row["tokens"], row["tags"], strict=True)) == [
        ("The", "B-name"), ("pub", "I-name"), ("house", "I-name"), ("is", "O"), ("no", "O"), ("Publican", "O"),
        (",", "O"), ("but", "O"), ("a", "O"), ("pub", "B-eatType"), (".", "O"),
    ]  # fmt: skip
    assert counts["attribute values"] == 2 == counts["attribute values found verbatim"]


def test_polish_types_become_bio_and_neighbours_of_a_type_merge(tmp_path: Path) -> None:
    path = task_file(
        tmp_path, [example("a b c d e f", "nam_loc nam_loc nam_org O action nam_num2"), example("", "")]
    )
    (row,), counts = rows_of(readers.polish, path)
    assert row["tags"] == ["B-loc", "I-loc", "B-org", "O", "O", "O"]
    assert counts["examples left out: the input is empty"] == 1


def test_pairs_gather_the_texts_of_equal_inputs(tmp_path: Path) -> None:
    path = task_file(
        tmp_path, [example("a", "x"), example("b", [" y ", ""]), example("a ", ["z", "x"]), example("c", " ")]
    )
    rows, counts = rows_of(readers.pairs, path)
    assert [(row["source"], row["targets"]) for row in rows] == [("a", ["x", "z"]), ("b", ["y"])]
    assert counts["inputs left out: no text answers them"] == 1


@pytest.mark.parametrize(
    ("reader", "examples", "message"),
    [
        (readers.pairs, [], "'examples' is empty or no list"),
        (readers.pairs, [example(3, "x")], "example 1, field input: 3: write a text"),
        (
            readers.pairs,
            [example("a", "x"), example("b", None)],
            "example 2, field target: None: write a text",
        ),
        (readers.pairs, [example("a", ["x", 1])], r"field target: \['x', 1\]"),
        (readers.disfluent, [example("no context here", "x")], "field input: no line 'context:'"),
        (readers.polish, [example("a b", "O")], "2 words, 1 tags: write a tag for each word"),
        (readers.triples, [example("(a | b)", "x")], "write .subject . relation . object."),
        (readers.choices, [{"input": 3, "target_scores": {"a": 1, "b": 0}}], "example 1, field input: 3"),
        (
            readers.choices,
            [{"input": "q", "target_scores": {"a": 1}}],
            "target_scores: write two or more options",
        ),
        (readers.choices, [{"input": "q", "target_scores": {"a": 1, "b": "0"}}], "each with a number"),
        (readers.choices, [{"input": "q"}], "example 1, field target_scores"),
        (
            readers.choices,
            [{"input": "q", "target_scores": {"a": float("nan"), "b": 0}}],
            "each with a number",
        ),
        (
            readers.choices,
            [{"input": "q", "target_scores": {"a": 1, "b": 0}, "target": 1}],
            "field target: 1",
        ),
        (readers.choices, ["q"], "example 1: 'q' is no object"),
        (readers.choices, [{"input": "q", "weight": 0}], "example 1, field 'weight': no reader knows it"),
        (readers.pairs, ["q"], "example 1: 'q' is no object"),
        (readers.pairs, [example("a", "x") | {"weight": 0}], "field 'weight': no reader knows it"),
        (
            readers.pairs,
            [example("a", "x") | {"target_scores": {}}],
            "field 'target_scores': no reader knows",
        ),
        (readers.disfluent, [example("q\ncontext: a b", ["a", "b"])], "2 texts, of which one would be read"),
        (readers.polish, [example("a b", ["O O", "O O"])], "2 texts, of which one would be read"),
        (readers.slots, [example("name: A", ["A is", "A was"])], "2 texts, of which one would be read"),
    ],
)
def test_a_malformed_file_is_one_sentence(tmp_path: Path, reader, examples, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        rows_of(reader, task_file(tmp_path, examples))
    assert "\n" not in str(caught.value)


def test_choices_keep_one_best_option_in_an_order_that_tells_nothing(tmp_path: Path) -> None:
    scored = [
        {"input": f"question {i}", "target_scores": {"right": 1, "wrong": 0, "no": 0}} for i in range(90)
    ]
    tie = {"input": "tie", "target_scores": {"a": 1, "b": 1}}
    same = {"input": "same", "target_scores": {"a": 1, "a ": 0}}
    rows, counts = rows_of(readers.choices, task_file(tmp_path, [*scored, tie, same]))
    assert len(rows) == 90 and all(row["options"][row["answer"]] == "right" for row in rows)
    assert all(20 <= Counter(row["answer"] for row in rows)[place] <= 40 for place in range(3))
    assert counts["examples left out: empty, or no single best option"] == 2


def test_a_long_file_is_cut_and_what_is_left_out_is_counted(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(readers, "LONGEST", 3)
    scored = [{"input": f"question {i}", "target_scores": {"right": 1, "wrong": 0}} for i in range(5)]
    rows, counts = rows_of(readers.choices, task_file(tmp_path, scored))
    assert [row["input"] for row in rows] == ["question 0", "question 1", "question 2"]
    assert counts["examples left out: after the first 3"] == 2


def test_closed_answers_become_options_and_rare_ones_are_counted(tmp_path: Path) -> None:
    many = [example(f"q{i}", ["Yes." if i % 2 else "No.", "other"]) for i in range(200)]
    rows, counts = rows_of(readers.closed, task_file(tmp_path, [*many, example("rare", "Perhaps.")]))
    assert len(rows) == 200 and {frozenset(row["options"]) for row in rows} == {frozenset({"Yes", "No"})}
    assert rows[1]["options"][rows[1]["answer"]] == "Yes"
    assert counts["examples left out: a rare answer"] == 1


@pytest.mark.parametrize("name", [n for n, r in RECORDS.items() if r.kind == "choice"])
def test_every_question_has_its_answer_among_different_options(name: str) -> None:
    for part in tasks.load(name).splits.values():
        for options, answer in zip(part["options"], part["answer"], strict=True):
            assert 0 <= answer < len(options) == len(set(options)) and all(options)


def test_parallel_files_must_be_equally_long(tmp_path: Path) -> None:
    def side(name: str, rows: list[tuple[str, int]]) -> Path:
        (tmp_path / name).mkdir()
        body = [{"input": text, "target_scores": {"good": label, "bad": 1 - label}} for text, label in rows]
        return task_file(tmp_path / name, body)

    english = side("x_en", [("one", 1), ("two", 0), ("one", 1), ("three", 1)])
    german = side("x_de", [("eins", 1), ("zwei", 1), ("ein", 1), ("drei", 1)])
    rows, counts = rows_of(readers.parallel, german, english)
    assert [(row["source"], row["targets"], row["label"]) for row in rows] == [
        ("one", ["eins"], "good"),
        ("three", ["drei"], "good"),
    ]
    assert counts == {"rows left out: the two labels differ": 1, "rows left out: empty or found twice": 1}
    for wrong in ({"input": "x"}, {"input": "x", "target_scores": {"good": 1}}, "x"):
        bad = task_file(german.parent, [wrong] * 4)
        with pytest.raises(DataError, match="example 1"):
            rows_of(readers.parallel, english, bad)
    with pytest.raises(DataError, match="equally many rows"):
        rows_of(readers.parallel, english, side("y_de", [("eins", 1)]))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_rows_or_one_sentence(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("raw") / "task.json"
    path.write_bytes(b'{"examples": ' + raw + b"}")
    try:
        rows, _ = rows_of(readers.pairs, path)
    except DataError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert all(row["source"] and row["targets"] for row in rows)
