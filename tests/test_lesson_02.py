"""The optimisers and schedules of lesson 02 equal torch's and transformers'; its derivations hold on random cases."""

from __future__ import annotations

import ast
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup
from transformers.optimization import Adafactor

from instructlab_utils import training

SOURCE = Path(__file__).resolve().parents[1] / "notebooks" / "source" / "02_optimisers.py"
TAUGHT = (
    "sgd",
    "momentum",
    "adam",
    "adamw",
    "with_l2",
    "decoupled_sgd",
    "rms",
    "adafactor",
    "cosine_schedule",
)
F64 = torch.float64


def functions_of_the_lesson():
    """The functions as the lesson writes them, in a namespace of their own."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    chosen = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in TAUGHT]
    assert sorted(node.name for node in chosen) == sorted(TAUGHT)  # each once
    space = {"torch": torch, "math": math}
    exec(compile(ast.Module(chosen, []), str(SOURCE), "exec"), space)
    return {name: space[name] for name in TAUGHT}


L = functions_of_the_lesson()


def difference(ours, theirs, seed=0, updates=100, shapes=((6, 4), (5,)), scale=1.0):
    """Largest difference of a weight after any update, relative to the largest weight if that is above 1."""
    generator, worst = torch.Generator().manual_seed(seed), 0.0
    mine = [torch.randn(shape, generator=generator, dtype=F64) for shape in shapes]
    twins = [p.clone().requires_grad_() for p in mine]
    optimizer, states = theirs(twins), [{} for _ in mine]
    for _ in range(updates):
        for p, q, state in zip(mine, twins, states, strict=True):
            g = scale * (torch.randn(p.shape, generator=generator, dtype=F64) + 0.3 * p)
            q.grad = g.clone()
            ours(p, g, state)
        optimizer.step()
        for p, q in zip(mine, twins, strict=True):
            assert torch.isfinite(p).all()
            worst = max(worst, (p - q).abs().max().item() / max(1.0, p.abs().max().item()))
    return worst


CASES = [
    ("sgd", {}, torch.optim.SGD, {}),
    ("momentum", {"mu": 0.9}, torch.optim.SGD, {"momentum": 0.9}),
    ("momentum", {"mu": 0.3}, torch.optim.SGD, {"momentum": 0.3}),
    ("adam", {}, torch.optim.Adam, {}),
    ("adam", {"beta1": 0.5, "beta2": 0.9, "eps": 1e-3}, torch.optim.Adam, {"betas": (0.5, 0.9), "eps": 1e-3}),
    ("adam", {"beta1": 0.0, "beta2": 0.99}, torch.optim.Adam, {"betas": (0.0, 0.99)}),
    ("adamw", {}, torch.optim.AdamW, {}),
    ("adamw", {"lam": 0.0}, torch.optim.AdamW, {"weight_decay": 0.0}),
    ("adamw", {"lam": 0.5, "eps": 1e-6}, torch.optim.AdamW, {"weight_decay": 0.5, "eps": 1e-6}),
]


@pytest.mark.parametrize("eta", [1e-3, 0.1])
@pytest.mark.parametrize("name,mine,library,theirs", CASES)
def test_optimisers_equal_torch(name, mine, library, theirs, eta):
    assert difference(partial(L[name], eta=eta, **mine), lambda p: library(p, lr=eta, **theirs)) < 1e-12


@pytest.mark.parametrize("lam", [0.01, 0.7])
@pytest.mark.parametrize("name,library", [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)])
def test_a_penalty_in_the_loss_equals_torchs_weight_decay(name, library, lam):
    ours = partial(L["with_l2"](L[name], lam), eta=0.05)
    assert difference(ours, lambda p: library(p, lr=0.05, weight_decay=lam)) < 1e-12


@pytest.mark.parametrize("alpha", [1e-3, 0.1])
@pytest.mark.parametrize("d", [1.0, 0.2, 5.0])
def test_adafactor_equals_transformers(alpha, d):
    def theirs(p):
        return Adafactor(p, lr=alpha, clip_threshold=d, scale_parameter=False, relative_step=False)

    assert difference(partial(L["adafactor"], alpha=alpha, d=d), theirs) < 1e-12
    assert (
        difference(partial(L["adafactor"], alpha=alpha, d=d), theirs, shapes=((1, 7), (9, 1), (1,))) < 1e-12
    )


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw", "adafactor"])
def test_parity_is_not_vacuous(name):
    """A rate that is off by a percent is seen."""
    theirs = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.101),
        "momentum": lambda p: torch.optim.SGD(p, lr=0.101, momentum=0.9),
        "adam": lambda p: torch.optim.Adam(p, lr=0.101),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.101),
        "adafactor": lambda p: Adafactor(p, lr=0.101, scale_parameter=False, relative_step=False),
    }
    rate = {"alpha" if name == "adafactor" else "eta": 0.1}
    assert difference(partial(L[name], **rate), theirs[name], updates=20) > 1e-4


# --- the derivations ---------------------------------------------------------------------------------


@given(
    st.lists(st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-3), min_size=1, max_size=8),
    st.floats(1e-6, 1.0),
)
@settings(max_examples=200, deadline=None)
def test_adams_first_step_has_the_size_of_the_rate(gradient, eta):
    g = torch.tensor(gradient, dtype=F64)
    theta = torch.zeros_like(g)
    L["adam"](theta, g, {}, eta=eta)
    torch.testing.assert_close(theta, -eta * g.sign(), rtol=1e-4, atol=0)


@given(st.integers(0, 10_000), st.floats(0.0, 1.0), st.floats(1e-4, 0.1))
@settings(max_examples=200, deadline=None)
def test_for_sgd_a_penalty_and_decoupled_decay_are_one(seed, lam, eta):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(5, generator=generator, dtype=F64)
    b = a.clone()
    for _ in range(5):
        g = torch.randn(5, generator=generator, dtype=F64)
        L["with_l2"](L["sgd"], lam)(a, g, {}, eta=eta)
        L["decoupled_sgd"](b, g, {}, eta=eta, lam=lam)
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@given(st.integers(0, 10_000), st.floats(0.1, 1.0))
@settings(max_examples=200, deadline=None)
def test_for_adam_they_differ_unless_the_gradient_is_tiny(seed, lam):
    """Decoupled decay moves a weight by eta lam theta; a penalty next to a large gradient hardly moves it."""
    generator = torch.Generator().manual_seed(seed)
    start = 1 + torch.rand(4, generator=generator, dtype=F64)
    g = 1e6 * (1 + torch.rand(4, generator=generator, dtype=F64))
    moved = {}
    for name, step in {
        "adam": L["adam"],
        "adam + l2": L["with_l2"](L["adam"], lam),
        "adamw": partial(L["adamw"], lam=lam),
    }.items():
        theta = start.clone()
        step(theta, g, {}, eta=0.01)
        moved[name] = theta
    torch.testing.assert_close(moved["adam"] - moved["adamw"], 0.01 * lam * start, rtol=1e-6, atol=0)
    torch.testing.assert_close(moved["adam + l2"], moved["adam"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("lam", [0.0, 0.05, 3.0])
def test_the_gradient_of_the_penalty_three_ways(lam):
    theta = torch.randn(6, dtype=F64, generator=torch.Generator().manual_seed(1), requires_grad=True)

    def penalty(x):
        return lam / 2 * (x**2).sum()

    (auto,) = torch.autograd.grad(penalty(theta), theta)
    steps = 1e-5 * torch.eye(6, dtype=F64)
    finite = torch.stack([(penalty(theta + e) - penalty(theta - e)).detach() / 2e-5 for e in steps])
    assert auto.shape == finite.shape == theta.shape
    torch.testing.assert_close(auto, lam * theta.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(finite, lam * theta.detach(), rtol=1e-6, atol=1e-9)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 10_000))
@settings(max_examples=200, deadline=None)
def test_the_factored_moment_keeps_the_sums_and_is_exact_for_rank_one(n, m, seed):
    generator = torch.Generator().manual_seed(seed)
    G = torch.randn(n, m, generator=generator, dtype=F64)
    state: dict = {}
    L["adafactor"](torch.zeros(n, m, dtype=F64), G, state, alpha=0.1)
    V = torch.outer(state["R"], state["C"]) / state["R"].sum()
    torch.testing.assert_close(V.sum(1), (G**2).sum(1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(V.sum(0), (G**2).sum(0), rtol=1e-10, atol=1e-12)
    a, b = (
        torch.rand(n, generator=generator, dtype=F64) + 0.1,
        torch.rand(m, generator=generator, dtype=F64) + 0.1,
    )
    X = torch.zeros(n, m, dtype=F64)
    L["adafactor"](X, torch.outer(a, b), {}, alpha=0.1)
    torch.testing.assert_close(X, torch.full_like(X, -0.1), rtol=1e-10, atol=0)  # g / sqrt(g²) everywhere


@given(st.integers(0, 10_000), st.floats(0.1, 3.0))
@settings(max_examples=200, deadline=None)
def test_adafactor_bounds_the_root_mean_square_of_its_step(seed, d):
    generator, state = torch.Generator().manual_seed(seed), {}
    X = torch.zeros(4, 3, dtype=F64)
    for scale in (1.0, 1e3, 1e-3):
        before = X.clone()
        L["adafactor"](X, scale * torch.randn(4, 3, generator=generator, dtype=F64), state, alpha=0.1, d=d)
        assert L["rms"](X - before) <= 0.1 * d * (1 + 1e-9)


# --- schedules ---------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.integers(0, 400))
@settings(max_examples=200, deadline=None)
def test_schedules_equal_transformers(total, warmup):
    warmup = min(warmup, total)
    dummy = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    for ours, library in (
        (training.cosine_schedule, get_cosine_schedule_with_warmup),
        (L["cosine_schedule"], get_cosine_schedule_with_warmup),
        (training.linear_schedule, get_linear_schedule_with_warmup),
    ):
        theirs = library(dummy, warmup, total).lr_lambdas[0]
        assert [ours(t, total, warmup) for t in range(total + 1)] == [theirs(t) for t in range(total + 1)]


def test_the_cosine_ends_at_zero_and_stays_there():
    """transformers' rises again after the planned end; the lesson says so."""
    dummy = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_cosine_schedule_with_warmup(dummy, 10, 100).lr_lambdas[0]
    assert training.cosine_schedule(100, 100, 10) == 0 == training.cosine_schedule(150, 100, 10)
    assert theirs(150) > 0.5


def test_train_takes_the_cosine_schedule():
    """The loop's rates are those of the schedule that it is given."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = dict(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=50
    )
    net = BertForSequenceClassification(BertConfig(num_labels=2, **sizes))
    examples = [{"input_ids": [1 + i % 9, 2, 3], "labels": i % 2} for i in range(8)]
    history = training.train(
        net, examples, steps=6, learning_rate=1e-3, pad_id=0, batch_size=4, schedule=training.cosine_schedule
    )
    assert history.rates == [1e-3 * training.cosine_schedule(t, 6, round(0.1 * 6)) for t in range(6)]
