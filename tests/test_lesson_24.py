"""Lesson 24: BM25, fusion and measures, a graph, reading under a constraint, and the probability that a rule holds."""

from __future__ import annotations

import itertools
import math

import faiss
import numpy as np
import pytest
import rank_bm25
import torch
from sklearn.metrics import ndcg_score
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from instructlab_utils import answering, generation, graphs, models, reading, retrieval, rules, tasks
from instructlab_utils.characters import words_of_text
from instructlab_utils.errors import DataError, ParameterError

TEXTS = [
    "The cat sat on the mat.",
    "Dogs bark at the cat, and the cat runs.",
    "A dog!",
    "",
    "The end of the cat is near, near, near.",
    "Nothing else matters.",
]


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.5, 0.0), (4.0, 1.0)])
def test_bm25_is_rank_bm25s_with_its_idf(k1, b):
    theirs = rank_bm25.BM25Okapi([words_of_text(text) for text in TEXTS], k1=k1, b=b, epsilon=0.25)
    ours = retrieval.BM25(TEXTS, k1, b, "okapi")
    for question in ("cat", "the cat the dog", "near near end", "unicorn", "matters unicorn", ""):
        found = theirs.get_scores(words_of_text(question))
        empty = b == 1 and question != ""  # rank-bm25 divides 0 by 0 for an empty passage
        assert np.isnan(found).tolist() == [empty and i == 3 for i in range(6)]
        assert np.abs(np.nan_to_num(found) - ours.scores(question).numpy()).max() < 1e-12


def by_hand(question, texts, k1, b):
    """Lucene's idf, a sum over words, without a shortcut."""
    words = [words_of_text(text) for text in texts]
    mean = sum(map(len, words)) / len(words)
    found = []
    for own in words:
        score = 0.0
        for w in words_of_text(question):
            n, f = sum(w in each for each in words), own.count(w)
            idf = math.log(1 + (len(words) - n + 0.5) / (n + 0.5))
            score += idf * f * (k1 + 1) / (f + k1 * (1 - b + b * len(own) / mean)) if f else 0.0
        found.append(score)
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.0, 0.5), (2.0, 1.0)])
def test_bm25_by_hand(k1, b):
    for question in ("cat dog", "the the end", "near"):
        scores = retrieval.BM25(TEXTS, k1, b).scores(question)
        assert (
            scores.dtype == torch.float64 and (scores - by_hand(question, TEXTS, k1, b)).abs().max() < 1e-12
        )
        assert scores[3] == 0 and (scores >= 0).all()


def test_kinds_of_idf_differ_where_a_word_is_common():
    n = torch.arange(11)
    robertson, okapi, lucene = (retrieval.rarity(n, 10, kind) for kind in retrieval.KINDS)
    assert (robertson < 0).tolist() == [False] * 6 + [True] * 5 and (lucene > 0).all()
    assert torch.equal(okapi[:6], robertson[:6]) and (okapi[6:] == 0.25 * robertson.mean()).all()
    assert (lucene.diff() < 0).all()


def test_saturation_at_its_ends():
    f = torch.arange(200)
    for k1 in (0.5, 1.5):
        s = retrieval.saturation(f, 1.0, k1, 0.75)
        assert s[0] == 0 and abs(s[1] - 1) < 1e-12 and (s.diff() > 0).all() and s[-1] < k1 + 1
    assert (retrieval.saturation(f[1:], 7.0, 0.0, 0.5) == 1).all()
    assert torch.equal(retrieval.saturation(f, 1.0, 1.5, 0.0), retrieval.saturation(f, 9.0, 1.5, 0.0))


@pytest.mark.parametrize(
    "call",
    [
        lambda: retrieval.BM25([]),
        lambda: retrieval.BM25(TEXTS, kind="bm25+"),
        lambda: retrieval.BM25(TEXTS, k1=-1),
        lambda: retrieval.BM25(TEXTS, b=1.5),
        lambda: retrieval.BM25(TEXTS, b=math.nan),
        lambda: retrieval.rarity(torch.tensor([11]), 10),
        lambda: retrieval.ranking(torch.tensor([1.0, math.nan])),
        lambda: retrieval.fused([]),
        lambda: retrieval.fused([torch.ones(3), torch.ones(4)]),
        lambda: retrieval.fused([torch.ones(3)], -1),
        lambda: retrieval.measures(torch.tensor([])),
        lambda: retrieval.measures(torch.tensor([0, 1])),
        lambda: retrieval.cosines(torch.zeros(1, 3), torch.ones(2, 3)),
        lambda: retrieval.cosines(torch.ones(1, 3), torch.full((2, 3), math.inf)),
    ],
)
def test_a_search_refuses_what_makes_no_sense(call):
    with pytest.raises(ParameterError):
        call()


def test_a_text_is_no_list_of_passages():
    with pytest.raises(TypeError):
        retrieval.BM25("one passage")


# --- lists -------------------------------------------------------------------------------------------------------------


def test_fusion_by_hand_and_order_alone_counts():
    a, b = draws(3, 9), draws(3, 9, seed=1)
    want = torch.zeros(3, 9, dtype=torch.float64)
    for scores in (a, b):
        for q in range(3):
            order = sorted(range(9), key=lambda i: -scores[q, i].item())
            for place, i in enumerate(order, start=1):
                want[q, i] += 1 / (60 + place)
    assert (retrieval.fused([a, b]) - want).abs().max() < 1e-15
    assert torch.equal(retrieval.fused([a.exp(), 5 * b - 2]), retrieval.fused([a, b]))


def test_places_and_ties():
    scores = torch.tensor([[0.0, 2, 2, 1], [1.0, 1, 1, 1]])
    assert retrieval.place_of(scores, torch.tensor([2, 3])).tolist() == [2, 4]


def test_measures_are_sklearns():
    scores, right = draws(20, 15), torch.arange(20) % 15
    found = retrieval.measures(retrieval.place_of(scores, right))
    gains = F.one_hot(right, 15).numpy()
    assert abs(found["ndcg10"] - ndcg_score(gains, scores.numpy(), k=10)) < 1e-12
    ranks = [1 + sum(row > row[at]).item() for row, at in zip(scores, right, strict=True)]
    assert abs(found["mrr"] - sum(1 / r for r in ranks) / 20) < 1e-12
    assert found["recall5"] == sum(r <= 5 for r in ranks) / 20


def test_the_flat_index_of_faiss_is_the_matrix_product():
    a, b = draws(4, 8).float(), draws(50, 8, seed=1).float()
    flat = faiss.IndexFlatIP(8)
    flat.add(F.normalize(b).numpy())
    found, places = flat.search(F.normalize(a).numpy(), 10)
    ours = retrieval.cosines(a, b)
    assert np.abs(found - ours.sort(descending=True).values[:, :10].numpy()).max() < 1e-6
    assert places.tolist() == retrieval.ranking(ours)[:, :10].tolist()


def test_a_corpus_keeps_whole_sentences_and_knows_where_an_answer_begins():
    context = "One two three. Four five six seven? Eight. " + "Long " * 12 + "end."
    begins = retrieval.sentences_of(context, 7)
    assert [context[i:].split()[0] for i in begins] == ["One", "Eight.", "Long"]
    rows = [
        {"context": context, "group": "b", "starts": [context.index("Eight")]},
        {"context": "A.", "group": "a"},
    ]
    corpus = retrieval.corpus(rows, 7)
    assert corpus.articles == ["a", "b", "b", "b"] and " ".join(corpus.texts[1:]) == context
    assert corpus.texts[corpus.place(rows[0])] == "Eight."


def test_choices_never_call_a_passage_with_an_answer_wrong():
    rows = [
        {
            "question": "who sat",
            "context": "The cat sat. The dog ran.",
            "answers": ["cat"],
            "starts": [4],
            "group": "x",
        },
        {
            "question": "who ran",
            "context": "The cat sat. The dog ran.",
            "answers": ["dog"],
            "starts": [17],
            "group": "x",
        },
    ]
    found, hits = retrieval.choices(rows, rows, 3)
    assert hits == [1.0, 1.0] and found["gold"] == found["retrieved"] == [["The cat sat."], ["The dog ran."]]
    assert found["wrong"] == [["The dog ran."], ["The cat sat."]]


# --- facts -------------------------------------------------------------------------------------------------------------

FACTS = [
    ("Ann", "birthPlace", "Rome"),
    ("Ann", "birthPlace", "Italy"),
    ("Ann", "club", '"FC"'),
    ("Ann", "height", "1.7"),
    ("Rome", "country", "Italy"),
    ("Italy", "capital", "Rome"),
    ("Ann Lee", "club", "AC"),
]


def test_a_graph_follows_paths_and_reaches():
    graph = graphs.Graph([*FACTS, FACTS[0]])
    assert len(graph.facts) == 7 and graph.follow("Ann", ["birthPlace"]) == ["Italy", "Rome"]
    assert graph.follow("Ann", ["birthPlace", "country"]) == ["Italy"] and graph.follow("Bob", ["club"]) == []
    assert graph.reach("Ann") == ["1.7", "FC", "Italy", "Rome"] and graph.reach("Ann", 2) == ["Italy", "Rome"]
    assert graph.linked("Where was Ann Lee born?") == "Ann Lee" and graph.linked("Annabel?") is None
    assert graph.relations("Ann") == {"birth place": "Italy", "club": "FC", "height": "1.7"}


def test_questions_have_their_answers():
    graph = graphs.Graph(FACTS)
    for steps in (1, 2):
        for question in graph.questions(steps):
            assert question.answers == tuple(graph.follow(question.subject, question.path)) != ()
    one = list(graph.questions(1, 4))
    assert {q.subject for q in one} == {"Ann"} and one[0].asked == "Where was Ann born?"
    assert next(graph.questions(2)).text == "What is the capital of the birth place of Ann?"
    with pytest.raises(ParameterError):
        list(graph.questions(3))
    with pytest.raises(ParameterError, match="no fact"):
        graphs.Graph([("a", "b", "")])


def test_wordings_name_the_subject_once_and_relations_become_words():
    assert all(text.count("{}") == 1 and text.endswith("?") for text in graphs.WORDINGS.values())
    assert graphs.words_of_relation("birthPlace") == "birth place"
    assert graphs.words_of_relation("associatedBand/associatedMusicalArtist") == "associated band"


def test_seeds_have_questions_of_their_own_and_no_dev_subject():
    graph, seeds = graphs.webnlg(), list(range(10))
    sets = [{q.asked for q in graphs.own_questions(graph, 20, seed, seeds)} for seed in seeds]
    assert sum(map(len, sets)) == len(set().union(*sets)) == 200
    assert all(tasks.split_of(q.subject) != "dev" for q in graphs.own_questions(graph, 20, 3, seeds))
    with pytest.raises(DataError):
        graphs.own_questions(graph, 50, 0, seeds)


# --- reading -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """A random decoder with the real tokenizer."""
    torch.manual_seed(0)
    tokenizer = models.load_tokenizer("decoder")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval(), tokenizer


PROMPTS = ["Question: Who?\nAnswer:", "Question: Where was Ada Lovelace born, and when?\nAnswer:"]


def test_free_answers_are_greedys_and_the_cache_is_left_as_it_was(small):
    net, tokenizer = small
    batch = reading.Reading(net, tokenizer, PROMPTS)
    ids = [tokenizer(p)["input_ids"] for p in PROMPTS]
    theirs = generation.greedy(net, ids, 6, tokenizer.eos_token_id)
    first = batch.answers(most=6)
    assert [a.text for a in first] == [tokenizer.decode(each).split("\n")[0].strip() for each in theirs]
    assert batch.answers(most=6) == first and all(0 < a.sure < 1 for a in first)


def test_a_prefix_is_read_once_and_says_the_same(small):
    net, tokenizer = small
    prefix = "Question: What?\nAnswer: That\n\n"
    apart = reading.Reading(net, tokenizer, PROMPTS, prefix)
    for i, prompt in enumerate(PROMPTS):
        ids = tokenizer(prefix)["input_ids"] + tokenizer(prompt)["input_ids"]
        with torch.no_grad():
            whole = net(torch.tensor([ids])).logits[0, -1].log_softmax(0)
        assert (apart.first[i] - whole).abs().max() < 1e-5


def test_held_answers_are_allowed_ones_and_transformers_generate(small):
    net, tokenizer = small
    allowed = ["New York", "New Jersey", "1815-12-10", "Rome"]
    tree = reading.answer_trie(allowed, tokenizer)
    batch = reading.Reading(net, tokenizer, PROMPTS)
    for said, prompt in zip(batch.answers([tree, tree], most=20), PROMPTS, strict=True):
        assert said.text in allowed
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]

        def branches(_, so_far, start=ids.shape[1]):
            node = tree
            for token in so_far[start:].tolist():
                node = node[token]
            return [batch.line if token == reading.END else token for token in node]

        how = {
            "do_sample": False,
            "max_new_tokens": 20,
            "eos_token_id": batch.line,
            "pad_token_id": batch.line,
        }
        theirs = net.generate(
            ids, attention_mask=torch.ones_like(ids), prefix_allowed_tokens_fn=branches, **how
        )
        assert tokenizer.decode(theirs[0, ids.shape[1] :]).strip() == said.text


def test_log_probs_are_those_of_the_pairs_one_by_one(small):
    net, tokenizer = small
    answers, batch = ["a b c", "London in the year 1815"], reading.Reading(net, tokenizer, PROMPTS)
    found = batch.log_probs(answers)
    for i, (prompt, answer) in enumerate(zip(PROMPTS, answers, strict=True)):
        before, after = tokenizer(prompt)["input_ids"], tokenizer(" " + answer)["input_ids"]
        with torch.no_grad():
            log_p = net(torch.tensor([before + after])).logits[0].log_softmax(-1)
        each = [log_p[len(before) + j - 1, token].item() for j, token in enumerate(after)]
        assert abs(found[i] - sum(each) / len(each)) < 1e-5
    assert torch.equal(found, batch.log_probs(answers))


@pytest.mark.parametrize(
    "call",
    [
        lambda net, tok: reading.Reading(net, tok, []),
        lambda net, tok: reading.Reading(net, tok, ["a", ""]),
        lambda net, tok: reading.Reading(net, tok, ["word " * 400]),
        lambda net, tok: reading.Reading(net, tok, ["a"]).answers([]),
        lambda net, tok: reading.Reading(net, tok, ["a"]).log_probs(["b", "c"]),
        lambda net, tok: reading.answer_trie([], tok),
        lambda net, tok: reading.answer_trie(["a", " "], tok),
        lambda net, tok: reading.asked(net, tok, ["a"], "facts", [["x"], ["y"]]),
        lambda net, tok: reading.demonstrated("open"),
        lambda net, tok: reading.Reading(net, tok, ["ignore <|im_end|> that"]),
    ],
)
def test_reading_refuses_in_one_sentence(small, call):
    with pytest.raises(ParameterError):
        call(*small)


def test_a_citation_is_whole_words():
    assert reading.cited("The year 1815", "Born in the YEAR, 1815.") and not reading.cited("81", "in 1815")
    assert not reading.cited("the", "the end") and not reading.cited("1815 year", "the year 1815")


def test_the_arms_of_a_graph(small):
    graph = graphs.webnlg()
    items = answering.GraphQuestions(*small, graph, graphs.own_questions(graph, 3, 0, [0]), most=32)
    for q, held, named in zip(
        items.questions, items.answers("facts_entity"), items.answers("query"), strict=True
    ):
        assert held in graph.reach(q.subject) and named in graph.reach(q.subject)
    assert items.right([q.answers[0] for q in items.questions]) == [1.0] * 3
    assert len(items.found) == 3 and items.log_right("closed") < 0
    with pytest.raises(ParameterError):
        items.answers("guess")


# --- rules -------------------------------------------------------------------------------------------------------------

RULES = {
    "exactly one": rules.exactly(4),
    "exactly two": rules.exactly(4, 2),
    "chain": rules.chain(4),
    "implication": rules.worlds(4, lambda b: b[1] or not b[0]),
    "anything": rules.worlds(4, lambda b: True),
}


@pytest.mark.parametrize("name", RULES)
def test_the_probability_that_a_rule_holds_by_enumeration(name):
    z, allowed = 2 * draws(7, 4), RULES[name]
    p = torch.sigmoid(z)
    want = torch.zeros(7, dtype=torch.float64)
    for bits in itertools.product((0, 1), repeat=4):
        if torch.tensor([bits]).bool().eq(allowed).all(1).any():
            want += torch.stack([p[:, i] if bit else 1 - p[:, i] for i, bit in enumerate(bits)]).prod(0)
    assert (rules.log_holds(z, allowed).exp() - want).abs().max() < 1e-12


def test_closed_forms():
    z = 3 * draws(9, 4)
    p = torch.sigmoid(z)
    one = (1 - p).prod(1) * (p / (1 - p)).sum(1)
    assert (rules.log_holds(z, RULES["exactly one"]).exp() - one).abs().max() < 1e-12
    implies = 1 - p[:, 0] * (1 - p[:, 1])
    assert (rules.log_holds(z, RULES["implication"]).exp() - implies).abs().max() < 1e-12
    assert rules.log_holds(z, RULES["anything"]).abs().max() < 1e-12


@pytest.mark.parametrize("name", RULES)
def test_the_gradient_is_what_the_rule_makes_of_the_bits(name):
    z, allowed = draws(5, 4).requires_grad_(), RULES[name]
    (slope,) = torch.autograd.grad(rules.semantic_loss(z, allowed).sum(), z)
    given = torch.softmax(z.detach() @ allowed.double().T, 1) @ allowed.double()
    assert (slope - (torch.sigmoid(z.detach()) - given)).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("dtype", "room"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.1)]
)
def test_narrow_logits_are_counted_in_wider_ones(dtype, room):
    z = draws(6, 4)
    narrow = rules.semantic_loss(z.to(dtype), RULES["exactly one"])
    assert narrow.dtype in (torch.float32, torch.float64)
    assert (narrow.double() - rules.semantic_loss(z, RULES["exactly one"])).abs().max() < room


def test_large_logits_stay_finite():
    z = torch.tensor([[900.0, -900, -900, -900], [900, 900, 900, 900], [-900, -900, -900, -900]]).double()
    z.requires_grad_()
    loss = rules.semantic_loss(z, RULES["exactly one"])
    (slope,) = torch.autograd.grad(loss.sum(), z)
    assert loss.isfinite().all() and slope.isfinite().all() and abs(loss[0]) == 0
    assert abs(loss[1] - (2700 - math.log(4))) < 1e-9 and abs(loss[2] - (900 - math.log(4))) < 1e-9


def test_the_best_world_by_enumeration_and_after_it_nothing_is_broken():
    z = draws(50, 4)
    for allowed in RULES.values():
        best = rules.most_probable(z, allowed)
        p = torch.sigmoid(z)
        each = torch.stack([torch.where(world, p, 1 - p).prod(1) for world in allowed], 1)
        assert torch.equal(best, each.argmax(1))
        assert rules.holds(allowed[best].double() * 2 - 1, allowed).all()
    assert rules.most_probable(z, RULES["exactly one"]).tolist() == z.argmax(1).tolist()
    assert rules.chain(3).int().tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_world_losses_of_exactly_one_are_cross_entropy():
    z, y = draws(8, 5), torch.arange(8) % 5
    assert (
        rules.world_losses(z, rules.exactly(5), y) - F.cross_entropy(z, y, reduction="none")
    ).abs().max() < 1e-12


@pytest.mark.parametrize(
    "call",
    [
        lambda: rules.worlds(17, lambda b: True),
        lambda: rules.worlds(0, lambda b: True),
        lambda: rules.worlds(3, lambda b: False),
        lambda: rules.log_holds(torch.zeros(2, 3), rules.exactly(4)),
        lambda: rules.log_holds(torch.zeros(2, 4), rules.exactly(4).double()),
        lambda: rules.log_holds(torch.full((2, 4), math.nan), rules.exactly(4)),
        lambda: rules.fit_arm(
            "magic", torch.ones(2, 2), torch.tensor([0, 1]), rules.exactly(2), rules.exactly(2), decay=0.1
        ),
        lambda: rules.fit_bits(torch.full((2, 2), math.inf), torch.ones(2, 2), 0.1),
    ],
)
def test_rules_refuse_in_one_sentence(call):
    with pytest.raises(ParameterError):
        call()


def test_a_rule_on_unlabelled_texts_turns_bits_on():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 5
    x = F.normalize(F.one_hot(y, 8).float() + 0.4 * torch.randn(300, 8, generator=g), dim=1)
    told = (x, y[:15], rules.exactly(5), rules.exactly(5, 2))
    found = {}
    for arm in rules.ARMS:
        how = {} if arm in ("no_rule", "permuted") else {"weight": 0.5}
        fit, losses = rules.fit_arm(arm, *told, 0, decay=1e-2, **how)
        assert losses[-1] < losses[0]
        found[arm] = rules.judged(fit(x[15:]), rules.exactly(5), y[15:])
    assert found["rule"]["violations"] < found["no_rule"]["violations"] - 0.05
    assert found["permuted"]["accuracy"] < 0.6 < found["no_rule"]["accuracy"]


def test_bit_entropy_is_torchs():
    z = draws(5, 3)
    want = torch.distributions.Bernoulli(logits=z).entropy().sum(1)
    assert (rules.bit_entropy(z) - want).abs().max() < 1e-12


def test_texts_of_a_rule_share_nothing_between_seeds():
    x, y, new, right = rules.texts("topics", 0, 60, 20, [0, 1])
    other = rules.texts("topics", 1, 60, 20, [0, 1])[2]
    assert len(x) == len(y) == 60 and len(new) == len(right) == 20
    assert torch.allclose(x.norm(dim=1), torch.ones(60)) and not (torch.cdist(new, other) < 1e-6).any()
    assert set(rules.texts("ratings", 0, 60, 20)[1].tolist()) <= {0, 1, 2, 3}
