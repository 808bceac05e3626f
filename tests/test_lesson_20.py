"""Lesson 20: InfoNCE and its gradient, alignment and uniformity, SetFit's pairs, choosing sentences, meta-gradients."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from instructlab_utils import contrast, features, labels, models
from instructlab_utils.errors import ParameterError, TrainingError


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- contrast ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.05, 0.5, 5.0])
def test_info_nce_is_cross_entropy_on_the_table_of_cosines(temperature):
    a, b = draws(7, 5).requires_grad_(), draws(7, 5, seed=1).requires_grad_()
    ours = contrast.info_nce(a, b, temperature)
    table = F.cosine_similarity(a[:, None], b[None], dim=2) / temperature
    theirs = F.cross_entropy(table, torch.arange(7), reduction="none")
    assert ours.shape == theirs.shape == (7,)
    assert (ours - theirs).abs().max() < 1e-12
    for mine, other in zip(
        torch.autograd.grad(ours.sum(), (a, b)), torch.autograd.grad(theirs.sum(), (a, b)), strict=True
    ):
        assert (mine - other).abs().max() < 1e-11


def test_the_gradient_of_info_nce_in_the_cosines_is_p_minus_one_hot():
    z = draws(6, 6).requires_grad_()
    (slope,) = torch.autograd.grad((torch.logsumexp(z, 1) - z.diagonal()).sum(), z)
    assert (slope - (torch.softmax(z, 1) - torch.eye(6, dtype=z.dtype))).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("a", "b", "temperature"),
    [
        (torch.ones(3, 2), torch.ones(4, 2), 0.1),
        (torch.ones(1, 2), torch.ones(1, 2), 0.1),
        (torch.ones(3, 2), torch.ones(3, 2), 0.0),
        (torch.ones(3, 2), torch.ones(3, 2), -1.0),
        (torch.ones(3, 2), torch.ones(3, 2), math.nan),
        (torch.zeros(3, 2), torch.ones(3, 2), 0.1),
        (torch.full((3, 2), math.nan), torch.ones(3, 2), 0.1),
        (torch.full((3, 2), math.inf), torch.ones(3, 2), 0.1),
    ],
)
def test_info_nce_refuses_what_has_no_direction(a, b, temperature):
    with pytest.raises(TrainingError):
        contrast.info_nce(a, b, temperature)


def test_info_nce_at_the_ends():
    same = torch.ones(4, 3, dtype=torch.float64)
    assert torch.allclose(contrast.info_nce(same, same, 0.05), torch.full((4,), math.log(4)).double())
    axes = torch.eye(4, dtype=torch.float64)
    assert contrast.info_nce(axes, axes, 1e-3).max() < 1e-12
    assert contrast.info_nce(axes, -axes, 1e-3).isfinite().all()


def test_alignment_and_uniformity_by_brute_force():
    a, b = draws(9, 4), draws(9, 4, seed=1)

    a1, b1 = ([[v / math.hypot(*row) for v in row] for row in part.tolist()] for part in (a, b))
    close = sum(sum((p - q) ** 2 for p, q in zip(x, y, strict=True)) for x, y in zip(a1, b1, strict=True)) / 9
    pairs = [math.exp(-2 * math.dist(x, y) ** 2) for x, y in itertools.combinations(a1, 2)]
    assert abs(contrast.alignment(a, b) - close) < 1e-12
    assert abs(contrast.uniformity(a) - math.log(sum(pairs) / len(pairs))) < 1e-12
    assert contrast.alignment(a, 3 * a) < 1e-12 and abs(contrast.alignment(a, -a) - 4) < 1e-12
    assert contrast.uniformity(torch.ones(5, 3)) == 0


def test_the_loss_of_pairs_is_the_formula_of_sentence_transformers():
    """CosineSimilarityLoss: the mean squared error of cos_sim(u, v) and the label, here over all pairs of a batch."""
    v, y = draws(6, 5).requires_grad_(), torch.tensor([0, 1, 1, 0, 2, 2])
    i, j = zip(*itertools.combinations(range(6), 2), strict=True)
    same = torch.tensor([float(y[a] == y[b]) for a, b in zip(i, j, strict=True)], dtype=torch.float64)
    theirs = F.mse_loss(F.cosine_similarity(v[list(i)], v[list(j)]), same)
    ours = contrast.pair_loss(v, y)
    assert abs(ours - theirs) < 1e-6 and contrast.all_pairs(y)[2].tolist() == same.tolist()
    (mine,), (other,) = torch.autograd.grad(ours, v), torch.autograd.grad(theirs, v)
    assert (mine - other).abs().max() < 1e-12


def test_multiple_negatives_ranking_is_info_nce_with_scale_20():
    """MultipleNegativesRankingLoss: cross-entropy of scale times cos_sim(a, b) at the diagonal; scale is 20."""
    a, b = draws(8, 5), draws(8, 5, seed=1)
    theirs = F.cross_entropy(20 * F.normalize(a) @ F.normalize(b).T, torch.arange(8))
    assert abs(contrast.info_nce(a, b, 1 / 20).mean() - theirs) < 1e-6


def test_the_damage_has_the_singular_values_that_it_promises_and_training_lowers_the_loss():
    g = torch.Generator().manual_seed(0)
    W = contrast.damaged_projection(12, g, decades=2)
    values = torch.linalg.svdvals(W)
    assert torch.allclose(values.log10(), torch.linspace(0, -2, 12), atol=1e-4)
    x = torch.randn(200, 12, generator=g)
    views = [x + 0.1 * torch.randn(200, 12, generator=g) for _ in range(2)]
    new, losses = contrast.train_projection(W, *views, g, rate=1e-2, temperature=0.1, steps=60, batch_size=64)
    assert len(losses) == 60 and losses[-1] < 0.8 * losses[0] and not torch.equal(new, W)
    assert torch.allclose(torch.linalg.svdvals(W), values) and not new.requires_grad


def test_found_again_and_nearest_centre():
    x = torch.eye(4)
    assert contrast.found_again(x[[2, 0]] + 0.1, 5 * x, torch.tensor([2, 1])).tolist() == [True, False]
    y = torch.tensor([0, 0, 1, 1])
    assert contrast.nearest_centre(x, y, torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 7.0]])).tolist() == [0, 1]


# --- labels --------------------------------------------------------------------------------------------


def finite_meta(theta, x, y, cx, cy, alpha=1e-3, h=1e-4):
    """-d/d eps_i of the clean loss after a step of alpha on the sum of eps_i times the loss of i, divided by alpha."""

    def clean_loss(eps):
        t = theta.clone().requires_grad_()
        (step,) = torch.autograd.grad((eps * F.cross_entropy(x @ t.T, y, reduction="none")).sum(), t)
        return F.cross_entropy(cx @ (theta - alpha * step).T, cy)

    found = []
    for i in range(len(x)):
        e = torch.zeros(len(x), dtype=torch.float64)
        e[i] = h
        found.append(-(clean_loss(e) - clean_loss(-e)) / (2 * h * alpha))
    return torch.stack(found)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_meta_gradient_is_that_of_finite_differences_and_of_autograd(classes):
    theta, x, cx = draws(classes, 4), draws(10, 4, seed=1), draws(6, 4, seed=2)
    y, cy = torch.arange(10) % classes, (torch.arange(6) * 3) % classes
    u = finite_meta(theta, x, y, cx, cy, alpha=1.0)
    eps = torch.zeros(10, dtype=torch.float64, requires_grad=True)
    t = theta.clone().requires_grad_()
    inner = (eps * F.cross_entropy(x @ t.T, y, reduction="none")).sum()
    (step,) = torch.autograd.grad(inner, t, create_graph=True)
    (slope,) = torch.autograd.grad(F.cross_entropy(cx @ (t - step).T, cy), eps)
    assert (u + slope).abs().max() < 1e-6
    want = (-slope).clamp(min=0)
    w = labels.meta_weights(theta, x, y, cx, cy)
    assert (w - want / want.sum()).abs().max() < 1e-12
    assert w.min() >= 0 and abs(w.sum() - 1) < 1e-12


def test_meta_weights_at_the_ends():
    theta, x = torch.zeros(2, 3, dtype=torch.float64), draws(4, 3)
    cx, cy = draws(2, 3, seed=1), torch.tensor([0, 1])
    opposite = labels.meta_weights(theta, cx, 1 - cy, cx[:1], cy[:1])
    assert opposite[0] == 0
    nothing = labels.meta_weights(theta, cx[:1], 1 - cy[:1], cx[:1], cy[:1])
    assert nothing.tolist() == [0.0]
    with pytest.raises(TrainingError, match="clean"):
        labels.meta_weights(theta, x, torch.zeros(4).long(), cx[:0], cy[:0])
    with pytest.raises(TrainingError, match="finite"):
        labels.meta_weights(theta, x * math.nan, torch.zeros(4).long(), cx, cy)


def test_weighted_training_is_gradient_descent_on_the_mean_loss():
    x, y = draws(12, 3), torch.arange(12) % 3
    predict, w, losses = labels.fit_weighted(x, y, 3, 0.5, 0.1, steps=20)
    t = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    for _ in range(20):
        loss = F.cross_entropy(x @ t.T, y) + 0.05 * t.square().sum()
        (step,) = torch.autograd.grad(loss, t)
        t = (t - 0.5 * step).detach().requires_grad_()
    assert (predict(x) - torch.softmax(x @ t.T, 1)).abs().max() < 1e-12
    assert w.tolist() == [1 / 12] * 12 and losses[-1] < losses[0] == pytest.approx(math.log(3))


def test_flipped_labels_get_less_weight():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 2
    x = torch.randn(200, 5, generator=g) + 2 * y[:, None] - 1
    flipped = torch.arange(200) % 5 < 2
    said = torch.where(flipped, 1 - y, y)
    _, w, _ = labels.fit_weighted(x, said, 2, 0.1, 0.01, clean=(x[:20], y[:20]), steps=50)
    assert w[flipped].sum() < 0.1


def by_hand(kind, p, x, known, n):
    """What acquire() promises, row by row."""
    left, chosen = [i for i in range(len(x)) if i not in known], []

    def apart(i, j):
        return math.dist(x[i].tolist(), x[j].tolist())

    if kind == "diversity":
        for _ in range(n):
            rest = [i for i in left if i not in chosen]
            chosen.append(max(rest, key=lambda i: min(apart(i, j) for j in (*known, *chosen))))
        return chosen

    def score(i):
        row = p[i].tolist()
        if kind == "entropy":
            return -sum(v * math.log(v) for v in row if v)
        if kind == "margin":
            first, second = sorted(row)[-1:-3:-1]
            return second - first
        near = sorted(known, key=lambda j: apart(i, j))[:10]
        kl = [sum(q * math.log(q / v) for q, v in zip(p[j].tolist(), row, strict=True)) for j in near]
        return sum(kl) / len(kl)

    return sorted(left, key=score, reverse=True)[:n]


@pytest.mark.parametrize("kind", ["entropy", "margin", "diversity", "cal"])
@pytest.mark.parametrize("known", [[3], [0, 5, 7], list(range(12))])
def test_acquisition_by_brute_force(kind, known):
    p, x = torch.softmax(draws(20, 4), 1), draws(20, 3, seed=1)
    generator = torch.Generator().manual_seed(0)
    assert labels.acquire(kind, p, x, known, 5, generator) == by_hand(kind, p, x, known, 5)


@pytest.mark.parametrize("kind", labels.ACQUISITIONS)
def test_acquisition_of_all_that_is_left_and_of_equals(kind):
    p, x = torch.full((6, 2), 0.5, dtype=torch.float64), torch.ones(6, 3)
    generator = torch.Generator().manual_seed(0)
    assert sorted(labels.acquire(kind, p, x, [4], 5, generator)) == [0, 1, 2, 3, 5]
    if kind != "random":
        assert labels.acquire(kind, p, x, [0, 4], 2, generator) == [1, 2]
    with pytest.raises(ParameterError):
        labels.acquire(kind, p, x, [4], 6, generator)
    with pytest.raises(ParameterError):
        labels.acquire("badge", p, x, [4], 1, generator)


def test_with_two_classes_entropy_and_margin_choose_the_same():
    p = torch.softmax(3 * draws(40, 2), 1)
    x, g = draws(40, 3, seed=1), torch.Generator()
    assert labels.acquire("entropy", p, x, [0], 9, g) == labels.acquire("margin", p, x, [0], 9, g)


def test_a_learning_curve_labels_each_row_once_and_trains_anew():
    x, y = draws(60, 4).float(), torch.arange(60) % 3
    seen = []

    def fit(a, b):
        seen.append(len(a))
        return labels.fit_logistic(a, b, 1.0)

    g = torch.Generator().manual_seed(0)
    hits, known = labels.learning_curve("margin", fit, x, y, [0, 1, 2], 7, 4, x[:20], y[:20], g)
    assert hits.shape == (5, 20) and seen == [3, 10, 17, 24, 31]
    assert len(known) == len(set(known)) == 31 and known[:3] == [0, 1, 2]


def test_self_training_learns_from_what_it_is_sure_of():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 2
    x = torch.randn(300, 4, generator=g) + 1.5 * y[:, None]
    fit = functools.partial(labels.fit_logistic, C=1.0)
    predict, sure, guess = labels.self_train(fit, x[:10], y[:10], x[10:], 0.9)
    assert len(sure) == len(guess) > 100 and (guess == y[10:][sure]).double().mean() > 0.9
    again, none, _ = labels.self_train(fit, x[:10], y[:10], x[10:], 1.1)
    assert (
        len(none) == 0
        and torch.equal(again(x), fit(x[:10], y[:10])(x))
        and not torch.equal(predict(x), again(x))
    )


def test_consistency_without_weight_is_logistic_regression():
    x, y = draws(30, 3).float(), torch.arange(30) % 2
    y[:4] = 1
    predict = labels.fit_consistent(x, y, x, x, 0.0, 0.1, steps=600)
    t, b = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, requires_grad=True)
    best = torch.optim.LBFGS([t, b], max_iter=200, tolerance_grad=1e-9)

    def loss():
        best.zero_grad()
        value = F.cross_entropy(x @ t.T + b, y) + 0.05 * t.square().sum()
        value.backward()
        return value

    best.step(loss)
    assert (predict(x) - torch.softmax(x @ t.T + b, 1)).abs().max() < 1e-3


def test_a_head_refuses_classes_that_are_not_there():
    x = draws(4, 3)
    for y in ([0, 0, 0, 0], [0, 2, 0, 2], [1, 1, 1, 1]):
        with pytest.raises(ValueError, match="classes"):
            labels.fit_logistic(x, torch.tensor(y), 1.0)
    p = labels.fit_logistic(x, torch.tensor([0, 1, 1, 0]), 1.0)(x)
    assert p.dtype == torch.float64 and torch.allclose(p.sum(1), torch.ones(4).double())


def test_judged_and_first_of_each():
    y = torch.tensor([1, 0, 1, 1, 0])
    assert labels.first_of_each(y, [1, 2]).tolist() == [1, 0, 2]
    found = labels.judged(lambda x: torch.tensor([[0.25, 0.75]]).expand(len(x), 2), torch.zeros(5, 1), y)
    assert found["accuracy"] == pytest.approx(0.6) and found["one_class"]
    assert found["loss"] == pytest.approx(-(3 * math.log(0.75) + 2 * math.log(0.25)) / 5)


# --- features ------------------------------------------------------------------------------------------


def test_pooled_leaves_the_padding_out():
    states = torch.arange(12.0).reshape(1, 4, 3)
    assert features.pooled(states, torch.tensor([[1, 1, 0, 0]])).tolist() == [[1.5, 2.5, 3.5]]
    with pytest.raises(TrainingError, match="token"):
        features.pooled(states, torch.zeros(1, 4))


def test_shortened_keeps_the_order_and_at_least_a_word():
    texts = ["one two three four five six seven eight", "alone", ""]
    for share in (0.0, 0.5, 1.0):
        short = features.shortened(texts, share)
        assert short == features.shortened(texts, share) and short[1:] == ["alone", ""]
        words = iter(texts[0].split())
        assert short[0] and all(word in words for word in short[0].split())
    assert features.shortened(texts, 0.0) == texts


def test_the_upper_layers_of_the_kept_states_are_the_whole_encoder():
    encoder, tokenizer = models.load_encoder(), models.load_tokenizer("encoder")
    texts = ["A film.", "This is a much longer sentence about a film that nobody wanted to see twice.", "no"]
    whole = features.mean_states(texts)
    for at in (0, 4, 6):
        states, mask = features.lower_states(encoder, tokenizer, texts, at)
        assert (features.UpperLayers(encoder, at)(states, mask) - whole).abs().max() < 1e-5
    assert len(encoder.encoder.layer) == 6 and whole.dtype == torch.float32
    shaken = features.mean_states(texts, dropout=1)
    assert torch.equal(shaken, features.mean_states(texts, dropout=1))
    assert (shaken - whole).abs().max() > 1e-3 and not torch.equal(
        shaken, features.mean_states(texts, dropout=2)
    )


def test_a_pool_shares_no_group_with_what_is_tested_and_its_order_is_the_seeds():
    pool, order, test, dev = features.split_pool("movie-sentiment", 3, 7, 300)
    assert len(pool) == 300 and sorted(order) == list(range(300))
    groups = [set(part["group"]) for part in (pool, test, dev)]
    assert not any(a & b for a, b in itertools.combinations(groups, 2))
    shares = (
        torch.tensor(pool["label"])[order[:50]].double().mean() - torch.tensor(pool["label"]).double().mean()
    )
    assert abs(shares) < 0.03
    assert order != features.split_pool("movie-sentiment", 3, 8, 300)[1]


def test_descent_lowers_a_loss_and_refuses_one_that_is_not_finite():
    net = torch.nn.Linear(3, 1)
    x = torch.eye(3)
    losses = contrast.descend(net, lambda _: (net(x) - 1).square().mean(), steps=50, rate=0.1)
    assert len(losses) == 50 and losses[-1] < 0.05 < losses[0] and not net.training
    with pytest.raises(TrainingError, match="update 1"):
        contrast.descend(net, lambda _: net(x).sum() * math.nan, steps=2, rate=0.1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_losses_are_those_of_sentence_transformers(dtype: torch.dtype) -> None:
    """The library is no dependency: `pip install --no-deps sentence-transformers` lets this run (6.2.0: no difference)."""
    losses = pytest.importorskip("sentence_transformers.losses")

    class Given(torch.nn.Module):
        model_card_data = None

        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"sentence_embedding": features["x"]}

    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 12, 8, generator=g, dtype=dtype)
    y = torch.randint(2, (12,), generator=g)
    ranking = losses.MultipleNegativesRankingLoss(Given(), scale=20.0)([{"x": a}, {"x": b}], None)
    assert (contrast.info_nce(a, b, 0.05).mean() - ranking).abs() < 1e-6
    i, j, same = contrast.all_pairs(y)
    pairs = losses.CosineSimilarityLoss(Given())([{"x": a[i]}, {"x": a[j]}], same.to(dtype))
    assert (contrast.pair_loss(a, y) - pairs).abs() < 1e-6
