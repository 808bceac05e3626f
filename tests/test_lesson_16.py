"""Lesson 16: the ROUGE-L filter equals rouge_score, the set is sound, what is constructed keeps what the module promises."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from instructlab_utils import construction, programs, small, tasks
from instructlab_utils.construction import Clause, Made
from instructlab_utils.errors import ProgramError

ROOT = Path(__file__).resolve().parents[1]
BY_HAND = construction.load(ROOT / "data" / "instructions" / "lists.jsonl")
LEAVES = sorted(construction.LEAVES)
SCORER = RougeScorer(["rougeL"])
HOSTILE = (
    "",
    " ",
    "...",
    "İ ß",
    "a" * 500,
    "the the the",
    "naïve café",
    "字 段 a",
    "2 + 2",
    "\ud800 a",
    "A a B b",
    "_a_ b-c",
)


def seeds(n: int = 4) -> list[Made]:
    """``n`` hand-written instructions of each leaf."""
    mine = {leaf: [one for one in BY_HAND if construction.leaf_of(one.program) == leaf] for leaf in LEAVES}
    return [construction.split(mine[leaf][i]) for i in range(n) for leaf in LEAVES]


@pytest.fixture(scope="module")
def grown():
    return construction.bootstrap(seeds(), 240, random.Random(0), banned=frozenset({"reverse | sort"}))


# --- the hand-written set ----------------------------------------------------------------------------------------------


def test_the_set_has_twenty_of_each_leaf_and_nearly_always_every_step_matters():
    texts = Counter(one.text for one in BY_HAND)
    assert len(texts) == len(BY_HAND) == 300
    assert set(Counter(construction.leaf_of(one.program) for one in BY_HAND).values()) == {20}
    lists = construction.inputs(64, random.Random(1))
    for one in BY_HAND:
        assert one.text == one.text.lower() and construction.labelled(one.program), one
        assert all(str(step) in construction.LEAF_OF for step in one.program), one
    idle = [one.text for one in BY_HAND if not construction.useful(one.program, lists)]
    assert 0 < len(idle) <= 6, (
        idle
    )  # "flip the list, then bring it into ascending order": people write such, too


def test_no_two_wordings_are_near_copies():
    assert tasks.near_duplicates([one.text for one in BY_HAND]) == []


def test_a_line_that_is_no_program_names_its_column(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "program": "reverse | sprt"}\n', encoding="utf-8")
    with pytest.raises(ProgramError, match="column 11: 'sprt' cannot stand here; did you mean 'sort'"):
        construction.load(path)


# --- ROUGE-L and near duplicates -----------------------------------------------------------------------------------------

WORDS = st.lists(st.sampled_from([*"abcd", "the", "İ", "é", "字", "9", "_", "."]), max_size=12).map(" ".join)
TEXTS = st.one_of(WORDS, st.sampled_from(HOSTILE), st.text(max_size=40))


def scored(a: str, b: str) -> float:
    return construction.rouge_l(construction.WORD.findall(a.lower()), construction.WORD.findall(b.lower()))


@settings(max_examples=400, deadline=None)
@given(TEXTS, TEXTS)
def test_rouge_l_is_that_of_rouge_score(a, b):
    assert scored(a, b) == pytest.approx(SCORER.score(a, b)["rougeL"].fmeasure, abs=1e-12)
    assert scored(a, b) == scored(b, a)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, max_size=8), TEXTS)
def test_the_pool_leaves_out_no_near_text(texts, new):
    pool = construction.Pool()
    for text in texts:
        pool.add(text)
    found = [SCORER.score(text, new)["rougeL"].fmeasure for text in texts]
    if not any(abs(score - construction.CLOSE) < 1e-9 for score in found):  # rounding may differ there
        assert pool.near(new) == any(score >= construction.CLOSE for score in found)
    assert pool.near(new, 1.1) is False


def test_rouge_l_equals_rouge_score_on_all_pairs_of_the_set_with_its_largest_difference():
    some = random.Random(0).sample([one.text for one in BY_HAND], 40)
    apart = [abs(scored(a, b) - SCORER.score(a, b)["rougeL"].fmeasure) for a in some for b in some]
    print(f"largest difference of {len(apart)} pairs: {max(apart):.1e}")
    assert max(apart) < 1e-12


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_near_duplicates_are_those_of_an_exact_jaccard(seed):
    r = random.Random(seed)
    texts = [" ".join(r.choice("abcdefgh") for _ in range(r.randint(0, 30))) for _ in range(6)]
    texts += [text.replace("a b", "b a", 1) if r.random() < 0.5 else text + " z" for text in texts] + [
        "",
        "字",
        "🙂",
    ]
    sets = [tasks.shingles(text) for text in texts]
    exact = {
        (i, j) for j in range(len(sets)) for i in range(j)
        if len(sets[i] & sets[j]) >= tasks.JACCARD * len(sets[i] | sets[j])
    }  # fmt: skip
    assert set(tasks.near_duplicates(texts)) == exact


# --- construction ----------------------------------------------------------------------------------------------------------


def test_every_constructed_instruction_is_labelled_new_useful_and_not_held_out(grown):
    made, left = grown
    assert len(made) == 240 and made[:60] == seeds()
    lists = construction.inputs(16, random.Random(0))
    for i, one in enumerate(made[60:], start=60):
        assert construction.labelled(one.program) and construction.useful(one.program, lists), one
        assert programs.render(one.program) != "reverse | sort"
        assert all(scored(one.text, before.text) < construction.CLOSE for before in made[:i]), one
    refused = sum(n for name, n in left.items() if name.startswith("refused"))
    assert left["proposed"] == refused + 180


def test_sizes_are_nested_and_a_seed_gives_the_same_set(grown):
    banned = frozenset({"reverse | sort"})
    assert construction.bootstrap(seeds(), 120, random.Random(0), banned=banned)[0] == grown[0][:120]
    assert construction.bootstrap(seeds(), 120, random.Random(1), banned=banned)[0] != grown[0][:120]


def test_without_the_filter_copies_come_in():
    made, left = construction.bootstrap(seeds(), 240, random.Random(0), filtered=False)
    assert {*left} <= {"proposed", "refused: no label", "refused: held out"}
    assert len({one.text for one in made}) < 240


def test_a_taxonomy_gives_each_leaf_its_share():
    made, _ = construction.bootstrap(seeds(1), 150, random.Random(0), leaves=LEAVES)
    assert set(Counter(construction.leaf_of(one.program) for one in made).values()) == {10}


def test_the_loop_stops_after_so_many_proposals():
    one = [Made((Clause("count them", programs.parse("length")),))]
    made, left = construction.bootstrap(one, 50, random.Random(0), most=300)
    assert len(made) < 50 and left["proposed"] == 300


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(BY_HAND), st.integers(0, 2**32))
def test_operators_change_words_and_program_together(one, seed):
    r, made, bank = random.Random(seed), construction.split(one), construction.single(seeds(1))
    assert (made.text, made.program) == (one.text, one.program)
    for name, operator in construction.OPERATORS.items():
        new = operator(made, bank, r)
        if new is None:
            continue
        assert len(new.program) >= 1 and len(new.joins) == len(new.clauses) - 1
        grown = len(new.program) - len(made.program)
        if name == "another number":
            assert new.program != made.program and new.text != made.text and grown == 0
            assert [construction._kind(s) for s in new.program] == [
                construction._kind(s) for s in made.program
            ]
        elif name == "other words":
            assert new.program == made.program
        elif name == "deepened":
            assert grown == 1 and new.program[:-1] == made.program and new.text.startswith(made.text)
        elif name == "constrained":
            assert grown == 1 and new.program[0].name == "filter" and new.program[1:] == made.program


def test_a_constraint_can_be_checked_by_a_program():
    made = Made((Clause("double everything", programs.parse("map ( times 2 )")),))
    new = construction.constrained(made, [], random.Random(0))
    before, after = (construction.answer(one.program, list(range(10))) for one in (made, new))
    assert set(after) < set(before)


def test_useless_programs_are_refused():
    lists = construction.inputs(64, random.Random(0))
    for text in (
        "reverse | reverse",
        "take 1 | reverse",
        "sort | sort",
        "filter > 8 | drop 3",
        "drop 1 | take 3 | take 3",
    ):
        assert not construction.useful(programs.parse(text), lists), text


# --- words to programs -----------------------------------------------------------------------------------------------------


def test_every_constructed_word_and_program_is_in_the_vocabulary(grown):
    tokenizer = small.word_tokenizer(construction.vocabulary(one.text for one in BY_HAND))
    for one in grown[0]:
        found = construction.example(one.text, programs.render(one.program), tokenizer)
        learned = [i for i in found["labels"] if i != -100]
        assert tokenizer.decode(learned[:-1]) == programs.render(one.program)
        assert learned[-1] == tokenizer.eos_token_id


def test_a_text_of_a_model_is_parsed_or_none_and_never_run():
    hostile = (
        "",
        "reverse |",
        "__import__('os')",
        "take 9999999",
        "length | reverse",
        "map ( sort )",
        "<end>",
        "( " * 50,
    )
    assert [construction.parsed(text) for text in hostile] == [None] * len(hostile)
    lists = construction.inputs(8, random.Random(0))
    a, b = programs.parse("sort | reverse"), programs.parse("reverse | sort")
    assert construction.same(a, a, lists) and not construction.same(a, b, lists)
    assert construction.same(
        programs.parse("filter > 9 | max"), programs.parse("filter < 0 | min"), lists
    )  # no result


def test_an_untrained_model_translates_into_some_text():
    tokenizer = small.word_tokenizer(construction.vocabulary(["mirror it"]))
    net = small.small_decoder(len(tokenizer), width=16, layers=1)
    said = construction.translate(net, tokenizer, ["mirror it", "mirror"], longest=3)
    assert len(said) == 2 and all(len(text.split()) <= 3 for text in said)


def test_word_vectors_put_like_words_near_each_other_and_are_the_same_twice():
    words = construction.vocabulary(one.text for one in BY_HAND)
    found = construction.word_vectors(words, 32)
    assert found.shape == (len(words), 32) and found.std().item() == pytest.approx(0.05)
    assert torch.equal(found, construction.word_vectors(words, 32))
    unit = dict(zip(words, torch.nn.functional.normalize(found, dim=1), strict=True))
    assert unit["final"] @ unit["last"] > unit["final"] @ unit["double"]
