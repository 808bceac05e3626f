"""Lesson 19: steps in embedding space, the word attack, the CheckList runner and the bounds, against references.

Everything in float64 where a model allows it; the functions that only the lesson has are read from its source.
"""

from __future__ import annotations

import itertools
import random
import tomllib
import unicodedata
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lessons import defined
from torch import nn

from instructlab_utils import augmentation, checklist, robustness, tasks, training
from instructlab_utils.errors import ConfigError, ParameterError

ROOT = Path(__file__).resolve().parents[1]


class Net(nn.Module):
    """Embeddings, a mean over the real tokens, a hidden layer with dropout, three logits."""

    def __init__(self, dropout: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.words, self.inner, self.outer = nn.Embedding(20, 6), nn.Linear(6, 8), nn.Linear(8, 3)
        self.dropout = nn.Dropout(dropout)
        self.words.weight.requires_grad_(False)
        self.double()

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None):
        x = self.words(input_ids) if inputs_embeds is None else inputs_embeds
        m = attention_mask[..., None].to(x.dtype)
        h = torch.tanh(self.inner(self.dropout(x)))
        return SimpleNamespace(logits=self.outer((h * m).sum(1) / m.sum(1)))


def batch(pad_to: int = 5):
    rows = [[1, 2, 3, 4, 5], [6, 7, 8], [9]]
    examples = [{"input_ids": row, "labels": n % 3} for n, row in enumerate(rows)]
    found = training.collate(examples, 0)
    wider = torch.zeros(3, pad_to - 5, dtype=torch.int64)
    return found | {name: torch.cat([found[name], wider], 1) for name in ("input_ids", "attention_mask")}


# --- a ball -----------------------------------------------------------------------------------------------------------


def test_fgm_step_is_the_closed_form_of_a_linear_model():
    torch.manual_seed(1)
    x, w = torch.randn(3, 4, 5).double(), torch.randn(4, 5).double()
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    y = torch.tensor([1.0, -1.0, 1.0]).double()

    def losses(moved):
        return nn.functional.softplus(-y * (moved * w * mask[..., None]).sum((1, 2)))

    delta = robustness.pgd(losses, x, mask, 0.1, 1, 1.0)
    for n in range(3):
        own = w * mask[n][:, None]
        want = -0.1 * (x[n] * mask[n][:, None]).norm() * y[n] * own / own.norm()
        assert (delta[n] - want).abs().max() < 1e-14


@pytest.mark.parametrize("pad_to", [5, 9])
def test_norms_are_those_of_a_text_and_padding_never_moves(pad_to):
    net, data = Net(), batch(pad_to)
    losses, x, mask = robustness.embedded_losses(net, data)
    delta = robustness.pgd(losses, x, mask, 0.2, 1, 1.0)
    for n, length in enumerate((5, 3, 1)):
        assert robustness.text_norms(x, mask)[n].item() == pytest.approx(
            x[n, :length].norm().item(), rel=1e-14
        )
        assert delta[n, :length].norm().item() == pytest.approx(0.2 * x[n, :length].norm().item(), rel=1e-12)
        assert (delta[n, length:] == 0).all()
    alone = training.collate([{"input_ids": [6, 7, 8], "labels": 1}], 0)
    losses, y, one = robustness.embedded_losses(net, alone)
    assert (
        robustness.pgd(losses, y, one, 0.2, 3) - robustness.pgd(*_all(net, data), 0.2, 3)[1, :3]
    ).abs().max() < 1e-14


def _all(net, data):
    losses, x, mask = robustness.embedded_losses(net, data)
    return losses, x, mask


def test_projection_is_the_nearest_point_of_the_ball():
    torch.manual_seed(2)
    delta, mask, size = (
        torch.randn(4, 3, 2).double(),
        torch.ones(4, 3),
        torch.tensor([0.1, 1.0, 5.0, 0.0]).double(),
    )
    found = robustness.projected(delta, mask, size[:, None, None])
    for n in range(4):
        assert found[n].norm() <= size[n] + 1e-14
        drawn = torch.randn(2000, 3, 2).double()
        drawn = drawn / drawn.flatten(1).norm(dim=1)[:, None, None] * size[n] * torch.rand(2000, 1, 1)
        assert ((drawn - delta[n]).flatten(1).norm(dim=1) >= (found[n] - delta[n]).norm() - 1e-12).all()
    assert torch.equal(found[2], delta[2])  # inside: unchanged


def test_pgd_against_plain_loops():
    net, data = Net(), batch()
    losses, x, mask = robustness.embedded_losses(net, data)
    found = robustness.pgd(losses, x, mask, 0.3, 4, 0.5)
    for n, length in enumerate((5, 3, 1)):
        R, d = 0.3 * x[n, :length].norm(), torch.zeros(length, 6, dtype=torch.float64)
        for _ in range(4):
            d.requires_grad_()
            z = net(inputs_embeds=(x[n, :length] + d)[None], attention_mask=torch.ones(1, length)).logits
            (g,) = torch.autograd.grad(nn.functional.cross_entropy(z, data["labels"][n : n + 1]), d)
            d = d.detach() + 0.5 * R * g / g.norm()
            d = d * min(1.0, (R / d.norm()).item())
        assert (found[n, :length] - d).abs().max() < 1e-12
    assert (losses(x + found) > losses(x)).all()


def test_a_zero_gradient_moves_nothing():
    net, data = Net(), batch()
    with torch.no_grad():
        net.outer.weight.zero_()
    losses, x, mask = robustness.embedded_losses(net, data)
    assert torch.equal(robustness.pgd(losses, x, mask, 0.3, 2), torch.zeros_like(x))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_freelb_has_the_mean_of_the_gradients_at_its_points_with_one_dropout_mask(dropout):
    net, data = Net(dropout).train(), batch()
    torch.manual_seed(5)
    loss = robustness.freelb_losses(0.2, 3, net, data)
    found = torch.autograd.grad(loss.sum(), [net.inner.weight, net.outer.bias])
    torch.manual_seed(5)
    losses, x, mask = robustness.embedded_losses(net, data)
    size = 0.2 * robustness.text_norms(x, mask)
    delta = robustness.scaled(torch.randn_like(x), mask, size * torch.rand_like(size))
    each, values = [], []
    for _ in range(3):
        delta = delta.detach().requires_grad_()
        values.append(losses(x + delta))
        each.append(torch.autograd.grad(values[-1].sum(), [net.inner.weight, net.outer.bias, delta]))
        delta = robustness.projected(
            delta.detach() + robustness.scaled(each[-1][2], mask, 0.5 * size), mask, size
        )
    assert (loss - torch.stack(values).mean(0)).abs().max() < 1e-14
    for k in range(2):
        assert (found[k] - sum(g[k] for g in each) / 3).abs().max() < 1e-14
    assert torch.equal(losses(x), losses(x))  # one mask, however often it is called


@pytest.mark.parametrize(
    "objective",
    [
        partial(robustness.noise_losses, 0.1),
        partial(robustness.fgm_losses, 0.1),
        partial(robustness.pgd_losses, 0.1, 3),
        partial(robustness.freelb_losses, 0.1, 3),
    ],
)
def test_objectives_leave_the_embeddings_bit_for_bit_and_no_gradient_behind(objective):
    net, data = Net(0.2).train(), batch()
    before = net.words.weight.clone()
    loss = objective(net, data)
    assert loss.shape == (3,) and all(p.grad is None for p in net.parameters())
    loss.sum().backward()
    assert torch.equal(net.words.weight, before) and net.words.weight.grad is None
    assert net.inner.weight.grad.abs().sum() > 0


def test_without_a_radius_every_objective_is_the_plain_loss():
    net, data = Net(), batch()
    plain = training.target_losses(net, data)
    for objective in (robustness.noise_losses, robustness.fgm_losses):
        assert (objective(0.0, net, data) - plain).abs().max() < 1e-14
    for objective in (robustness.pgd_losses, robustness.freelb_losses):
        assert (objective(0.0, 3, net, data) - plain).abs().max() < 1e-14


def test_noise_has_the_norm_of_fgm_and_the_gradient_hurts_more():
    net, data = Net(), batch()
    losses, x, mask = robustness.embedded_losses(net, data)
    size = 0.2 * robustness.text_norms(x, mask)
    noise = [robustness.scaled(torch.randn_like(x), mask, size) for _ in range(20)]
    for delta in noise:
        assert torch.allclose(robustness.text_norms(delta, mask), size, rtol=1e-12)
    worst = torch.stack([losses(x + delta) for delta in noise]).amax(0)
    assert (losses(x + robustness.pgd(losses, x, mask, 0.2, 1, 1.0)) >= worst).all()


# --- words ------------------------------------------------------------------------------------------------------------

NEAR = {"good": ["fine", "bad"], "film": ["movie"], "very": ["really"]}
WEIGHTS = {"good": 2.0, "fine": 0.5, "movie": 0.3, "film": 0.6, "bad": -3.0, "very": 0.1, "really": 0.2}


def scorer(sentences):
    z = torch.tensor([sum(WEIGHTS.get(word, 0.0) for word in words) - 0.8 for words in sentences])
    p = torch.sigmoid(z)
    return torch.stack([1 - p, p], 1)


def test_synonyms_drop_opposites_and_kept_words():
    near = {"good": ["great", "bad", "film"], "film": ["movie", "good"], "not": ["never"], "odd": ["not"]}
    found = robustness.synonyms(near, {"not", "never"}, {"good": 1, "great": 1, "bad": -1})
    assert found == {"good": ["great"], "film": ["movie"]}


def test_a_one_word_attack_is_the_best_of_all_exchanges():
    words = "a good film".split()
    for near in ({"good": ["fine"]}, {"good": ["fine", "decent", "bad"]}, {"film": ["movie"]}):
        found = robustness.word_attack(words, 1, scorer, near, share=0.0)
        tried = [
            [*words[:i], other, *words[i + 1 :]]
            for i, word in enumerate(words)
            for other in near.get(word, [])
        ]
        best = min(float(scorer([t])[0, 1]) for t in tried)
        assert float(scorer([found.words])[0, 1]) == best and len(found.changed) == 1
        assert found.flipped == (best < 0.5)


def test_the_budget_of_words_and_the_count_of_queries():
    asked = []

    def counted(sentences):
        asked.extend(sentences)
        return scorer(sentences)

    words = ["very"] * 6 + ["good"] * 4
    found = robustness.word_attack(words, 1, counted, {"good": ["fine"], "very": ["really"]}, share=0.2)
    assert len(found.changed) == 2 and found.queries == len(asked) and not found.flipped
    assert sum(a != b for a, b in zip(words, found.words, strict=True)) == 2


def test_greedy_reaches_what_brute_force_reaches_where_words_add_up():
    near = {"good": ["fine"], "film": ["movie"]}
    words = "good film very good film".split()
    found = robustness.word_attack(words, 1, scorer, near, share=1.0)
    choices = [[word, *near.get(word, [])] for word in words]
    lowest = min(float(scorer([list(t)])[0, 1]) for t in itertools.product(*choices))
    assert found.flipped == (lowest < 0.5)
    if not found.flipped:
        assert float(scorer([found.words])[0, 1]) == pytest.approx(lowest)


def test_similarity_refuses_candidates_without_a_query_and_prefers_the_more_similar_flip():
    words, likes = "a good film".split(), {"bad": 0.4, "fine": 0.9, "poor": 0.95}

    def similar(original, others):
        assert original == words
        return [likes[next(w for w in o if w in likes)] for o in others]

    near = {"good": ["bad", "poor"]}
    WEIGHTS["poor"] = -2.0
    found = robustness.word_attack(words, 1, scorer, near, similar=similar, least=0.0)
    assert found.words == ["a", "poor", "film"] and found.flipped and found.queries == 4
    found = robustness.word_attack(words, 1, scorer, near, similar=similar, least=0.99)
    assert found.words == words and not found.flipped and found.queries == 2
    del WEIGHTS["poor"]


@pytest.mark.parametrize("words", [[], ["good"], ["🙂"], ["🙂", "x", "ß"], ["unknown"] * 3])
def test_hostile_sentences_are_attacked_without_harm(words):
    label = int(scorer([words])[0].argmax())
    found = robustness.word_attack(words, label, scorer, NEAR)
    assert len(found.words) == len(words) and found.queries >= 1
    assert robustness.word_attack(words, 1 - label, scorer, NEAR) == robustness.Attack(
        list(words), (), 1, True
    )


def test_a_text_is_no_list_of_words():
    with pytest.raises(TypeError, match="list of texts"):
        robustness.word_attack("good film", 1, scorer, NEAR)
    with pytest.raises(ValueError, match="share"):
        robustness.word_attack(["good"], 1, scorer, NEAR, share=1.5)


def test_neighbours_are_those_of_brute_force():
    torch.manual_seed(0)
    words = ["good", "great", "awful", "film", "movie", "not", "##ing", "a1"]
    table = torch.randn(len(words), 5)
    tokenizer = SimpleNamespace(
        convert_ids_to_tokens=lambda ids: [words[i] for i in ids], __len__=lambda self: 8
    )

    class Tokens(list):
        convert_ids_to_tokens = staticmethod(lambda ids: [words[i] for i in ids])

    assert tokenizer
    found = checklist.neighbours(table, Tokens(words), {"film", "good", "not", "##ing"}, 3)
    signs, kept = checklist.polarity()
    whole = words[:6]
    for word in ("film", "good"):
        cosine = {
            o: torch.cosine_similarity(table[words.index(word)], table[words.index(o)], 0).item()
            for o in whole
        }
        nearest = sorted((o for o in whole if o != word), key=lambda o: -cosine[o])[:3]
        assert found.get(word, []) == [
            o for o in nearest if o not in kept and signs.get(o, 0) == signs.get(word, 0)
        ]
    assert "not" not in found and "##ing" not in found


def test_polarity_lists_do_not_overlap():
    told = tomllib.loads((ROOT / "data/suites/polarity.toml").read_text(encoding="utf-8"))
    assert not set(told["positive"]) & set(told["negative"])
    assert all(word == word.lower() for words in told.values() for word in words)


# --- characters -------------------------------------------------------------------------------------------------------


def test_typos_and_look_alikes():
    rng = random.Random(0)
    for text in ("wonderful", "a wonderful day", "naïve café"):
        changed = robustness.typo(text, rng)
        assert sorted(changed) == sorted(text) and changed != text
        assert [len(w) for w in changed.split()] == [len(w) for w in text.split()]
    for text in ("", "a", "🙂 ok", "aaaa", "it is"):
        assert robustness.typo(text, rng) == text
    assert robustness.lookalike("zzz 🙂", rng) == "zzz 🙂" and robustness.lookalike("", rng) == ""
    changed = robustness.lookalike("good day", rng)
    assert changed != "good day" and len(changed) == 8 and not changed.isascii()


# --- CheckList --------------------------------------------------------------------------------------------------------

GOOD = """
name = "s"
labels = ["negative", "positive"]
[words]
good = ["good", "great", "fine"]
[[tests]]
capability = "negation"
type = "MFT"
template = "not {good} ."
label = "negative"
[[tests]]
capability = "order"
type = "INV"
template = "{good} and {good2} ."
against = "{good2} and {good} ."
[[tests]]
capability = "more"
type = "DIR"
template = "{good} ."
against = "very {good} ."
label = "positive"
expects = "up"
"""


def suite(tmp_path, text=GOOD):
    path = tmp_path / "suite.toml"
    path.write_text(text, encoding="utf-8")
    return checklist.load(path)


def test_cases_are_all_different_and_not_shared_between_numbers(tmp_path):
    found = suite(tmp_path)
    first, second = checklist.cases(found, 1, 0), checklist.cases(found, 1, 1)
    assert not {c.text for c in first} & {c.text for c in second}
    every = checklist.cases(found, 100)
    assert len(every) == 3 + 6 + 3 and len({c.text for c in every}) == 12
    assert all(len(set(c.text.split()) - {"and", "."}) == 2 for c in every if c.test.type == "INV")
    with pytest.raises(ConfigError, match="too few"):
        checklist.cases(found, 2, 5)


def test_failures_and_rates(tmp_path):
    found = suite(tmp_path)
    filled = checklist.cases(found, 100)
    always = lambda texts, options: [[0.0, 1.0]] * len(texts)  # noqa: E731
    rates = checklist.rates(filled, checklist.failures(found, filled, always))
    assert rates == {("negation", "MFT"): 1.0, ("order", "INV"): 0.0, ("more", "DIR"): 0.0}

    def odd(texts, options):
        assert all(o == ["negative", "positive"] for o in options)
        return [[0.9, 0.1] if t.startswith(("not", "very", "good and")) else [0.2, 0.8] for t in texts]

    rates = checklist.rates(filled, checklist.failures(found, filled, odd))
    assert rates["negation", "MFT"] == 0 and rates["more", "DIR"] == 1
    assert rates["order", "INV"] == pytest.approx(4 / 6)  # good stands first in two texts, and in two doubles
    slightly = lambda texts, options: [[0.5, 0.5 - 0.05 * t.startswith("very")] for t in texts]  # noqa: E731
    assert (
        checklist.rates(filled, checklist.failures(found, filled, slightly))["more", "DIR"] == 0
    )  # tolerance
    with pytest.raises(ConfigError, match="one number for each label"):
        checklist.failures(found, filled, lambda texts, options: [[1.0]] * len(texts))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('label = "negative"\n', 'label = "neg"\n', "label 'neg' is none of negative, positive"),
        ('type = "MFT"', 'type = "MFTS"', "tests.0.type"),
        ("{good} .", "{god} .", "{god} has no list of words, did you mean 'good'"),
        ('labels = ["negative", "positive"]', 'labels = ["positive"]', "two different labels"),
        ('expects = "up"\n', "", 'needs expects = "up" or "down"'),
        ('against = "{good2} and {good} ."\n', "", "exactly one of against and change"),
        (
            'against = "{good2} and {good} ."\n',
            'change = "typ"\n',
            "unknown change 'typ', did you mean 'typo'",
        ),
        ('against = "{good2} and {good} ."\n', 'against = "{good} and {good2} ."\n', "the same text"),
        ('name = "s"', 'title = "s"', "the key 'name' is missing"),
        ("not {good} .", "not {good .", "a brace that belongs to no"),
        ('good = ["good", "great", "fine"]', "good = []", "words.good"),
        (
            'label = "negative"\n',
            'label = "negative"\nexpects = "up"\n',
            "an MFT has a label and nothing to compare",
        ),
        ("[[tests]]", "[[tests", "not valid TOML"),
    ],
)
def test_a_malformed_suite_is_refused_with_one_sentence(tmp_path, old, new, says):
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        suite(tmp_path, GOOD.replace(old, new, 1))
    assert says in str(caught.value) and "\n" not in str(caught.value) and "suite.toml" in str(caught.value)


def test_a_missing_suite_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        checklist.load(tmp_path / "none.toml")


def test_our_suites_have_twelve_capabilities_and_enough_fillings():
    sentiment, qa = (checklist.load(f"data/suites/{name}.toml") for name in ("sentiment", "qa"))
    assert len({t.capability for t in sentiment.tests}) >= 12 and len({t.capability for t in qa.tests}) >= 5
    seen = [
        {(c.test, c.text, c.double) for c in checklist.cases(sentiment, 6, number)} for number in range(13)
    ]
    counts = Counter(case.test for case in checklist.cases(sentiment, 10**5))
    many = {test for test, n in counts.items() if n >= 78}
    assert {t.capability for t in many} >= {"negation", "negation at the end"}
    for a, b in itertools.combinations(seen, 2):
        assert not {case for case in a & b if case[0] in many}
    assert {t.type for t in sentiment.tests} == {"MFT", "INV", "DIR"}


# --- the lesson's own functions, and what it stores --------------------------------------------------------------------


def test_bounds_contain_every_exchange_and_are_exact_for_one_linear_unit():
    own = defined("19", "word_box", "through", torch=torch)
    word_box, through = own.word_box, own.through
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 1)]).double()
    vectors = torch.randn(3, 3, 4).double()  # three words, three choices each
    A = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    with torch.no_grad():
        l, u, z = word_box(layers[0](vectors), A)
        low, high = through(layers[1], l, u)
        assert torch.allclose(z, layers[0](vectors[:, 0]).mean(0)[None])
        values = []
        for chosen in itertools.product(range(3), repeat=3):
            mean = torch.stack([vectors[i, c] for i, c in enumerate(chosen)]).mean(0)
            h = layers[0](mean)
            assert (l[0] - 1e-12 <= h).all() and (h <= u[0] + 1e-12).all()
            values.append(layers[1](h.relu()).item())
            assert low.item() - 1e-12 <= values[-1] <= high.item() + 1e-12
        hidden = torch.stack([layers[0](torch.stack([vectors[i, c] for i, c in enumerate(chosen)]).mean(0))
                              for chosen in itertools.product(range(3), repeat=3)])  # fmt: skip
        assert torch.allclose(hidden.amin(0), l[0]) and torch.allclose(
            hidden.amax(0), u[0]
        )  # each unit is exact
        assert low.item() < min(values) and max(values) < high.item()  # and the second layer is only safe
        same_low, same_high = through(layers[1], z, z)
        assert torch.allclose(same_low, same_high) and torch.allclose(same_low, layers[1](z.relu()))


def test_mixed_scripts():
    mixed = defined("19", "mixed_scripts", unicodedata=unicodedata).mixed_scripts
    assert mixed("wоndеrful day") == ["wоndеrful"]
    assert mixed("café Москва 🙂 123") == [] and mixed("") == []


def test_the_audit_names_tweets_that_exist_and_words_that_stand_there():
    audit = tomllib.loads((ROOT / "data/suites/audit.toml").read_text(encoding="utf-8"))["attack"]
    rows = {r["id"]: augmentation.words_of(r["text"]) for r in tasks.load("tweet-sentiment").splits["dev"]}
    assert len(audit) == 50 == len({a["id"] for a in audit})
    for attack in audit:
        words = rows[attack["id"]]
        assert attack["swaps"] and len(attack["swaps"]) <= max(1, int(0.2 * len(words)))
        assert all(words[int(i)] != new for i, new in attack["swaps"].items())
        assert isinstance(attack["kept"], bool) and isinstance(attack["grammar"], bool)


# --- the real encoder -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short():
    return robustness.ShortEncoder(layers=1)


def test_the_short_encoder_is_the_first_layer_and_a_mean(short):
    from instructlab_utils import models

    full = models.load_encoder()
    data = training.collate(
        [{"input_ids": [101, 2204, 102], "labels": 0}, {"input_ids": [101, 102], "labels": 1}], 0
    )
    with torch.no_grad():
        z = short(data["input_ids"], data["attention_mask"]).logits
        h = full(data["input_ids"], data["attention_mask"], output_hidden_states=True).hidden_states[1]
        x = short.get_input_embeddings()(data["input_ids"])
        again = short(inputs_embeds=x, attention_mask=data["attention_mask"]).logits
        alone = short(data["input_ids"][1:, :2]).logits
    assert torch.equal(z, torch.zeros(2, 2))  # the head starts at 0
    with torch.no_grad():
        short.head.weight.normal_()
        z, again = (short(**how, attention_mask=data["attention_mask"]).logits for how in (
            {"input_ids": data["input_ids"]}, {"inputs_embeds": x}))  # fmt: skip
        want = torch.stack([short.head(h[0].mean(0)), short.head(h[1, :2].mean(0))])
        alone = short(data["input_ids"][1:, :2]).logits
    assert torch.allclose(z, again, atol=1e-5) and torch.allclose(z, want, atol=1e-4)
    assert torch.allclose(alone[0], z[1], atol=1e-4)
    frozen = {name for name, p in short.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in short.named_parameters() if "embeddings" in name}


@pytest.mark.parametrize("how", [{"layers": 0}, {"layers": 7}, {"layers": 1, "frozen": 2}])
def test_an_encoder_that_cannot_be_cut_so(how):
    with pytest.raises(ParameterError, match="cannot be cut"):
        robustness.ShortEncoder(**how)


def test_reader_and_similarity_on_hostile_texts(short):
    from instructlab_utils import models

    tokenizer, encoder = models.load_tokenizer("encoder"), models.load_encoder()
    read = checklist.reader(short, tokenizer, 24)
    p = read([[], ["🙂"], ["[SEP]"], ["x"] * 100])
    assert p.shape == (4, 2) and torch.allclose(p.sum(1), torch.ones(4))
    similar = checklist.similarity(encoder, tokenizer, 32)
    words = "a good film".split()
    found = similar(words, [words, "a great film".split(), "the train is late".split(), []])
    assert found[0] == pytest.approx(1, abs=1e-5) and found[0] > found[1] > found[2]
    assert similar(words, []) == []
    assert checklist.by_text(read)(["good", ""], [["a", "b"]] * 2) == read([["good"], [""]]).tolist()
