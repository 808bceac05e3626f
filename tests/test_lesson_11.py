"""What lesson 11 derives equals enumeration and simulation; what it counts equals files, and the experiment's own counts."""

from __future__ import annotations

import ast
import contextlib
import gc
import itertools
import json
import math
import struct
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import BertConfig, BertForSequenceClassification

from instructlab_utils import intervals, metrics, plotting, training, tuners

ROOT = Path(__file__).resolve().parents[1] / "notebooks"
LESSON = ROOT / "source" / "11_arena.py"
EXPERIMENT = ROOT / "experiments" / "source" / "arena.py"
many = settings(max_examples=200, deadline=None, derandomize=True)


def load(path, names, **scope):
    """The functions ``names`` of a notebook's source, in one namespace with ``scope``."""
    nodes = [n for n in ast.parse(path.read_text(encoding="utf-8")).body if getattr(n, "name", "") in names]
    assert len(nodes) == len(names)
    scope |= {"np": np, "torch": torch, "stats": stats, "training": training, "tuners": tuners}
    scope |= {
        "contextlib": contextlib,
        "intervals": intervals,
        "metrics": metrics,
        "pareto_front": metrics.pareto_front,
    }
    scope |= {"make_pipeline": make_pipeline, "StandardScaler": StandardScaler}
    scope |= {"LogisticRegression": LogisticRegression}
    exec(compile(ast.Module(nodes, []), str(path), "exec"), scope)
    return scope


FUNCTIONS = load(LESSON, ["expected_best", "normal_best", "candidates", "optimism", "kept_bytes", "off"])
expected_best, normal_best = FUNCTIONS["expected_best"], FUNCTIONS["normal_best"]
candidates, optimism = FUNCTIONS["candidates"], FUNCTIONS["optimism"]
kept_bytes, off = FUNCTIONS["kept_bytes"], FUNCTIONS["off"]


# --- the front ---------------------------------------------------------------------------------------


@many
@given(
    st.integers(1, 4).flatmap(
        lambda d: st.lists(st.tuples(*[st.integers(-2, 2)] * d), min_size=1, max_size=12)
    )
)
def test_pareto_front_equals_the_definition(points):
    def dominates(a, b):
        return all(x >= y for x, y in zip(a, b, strict=True)) and a != b

    wanted = [not any(dominates(other, point) for other in points) for point in points]
    found = metrics.pareto_front(points)
    assert found.dtype == bool and found.tolist() == wanted
    assert found.any()


def test_pareto_front_keeps_ties_and_refuses_nan():
    assert metrics.pareto_front([[1, 2], [1, 2], [1, 1]]).tolist() == [True, True, False]
    assert metrics.pareto_front([[math.inf, 0.0], [0.0, -math.inf]]).tolist() == [True, False]
    for wrong in ([[1.0, math.nan]], [1.0, 2.0]):
        with pytest.raises(ValueError, match="rows and columns, without NaN"):
            metrics.pareto_front(wrong)


# --- closed forms ------------------------------------------------------------------------------------


@many
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=5), st.integers(1, 4))
def test_expected_best_equals_the_mean_over_all_draws(values, k):
    every = [max(draw) for draw in itertools.product(values, repeat=k)]
    assert expected_best(values, k) == pytest.approx(np.mean(every), abs=1e-9)


def test_normal_best_equals_the_closed_forms_and_stays_below_the_bound():
    assert normal_best(1) == pytest.approx(0, abs=1e-9)
    assert normal_best(2) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-9)
    assert normal_best(3) == pytest.approx(1.5 / math.sqrt(math.pi), abs=1e-9)
    for k in (2, 5, 20, 100, 1000):
        integral = stats.norm.expect(lambda z, k=k: z * k * stats.norm.cdf(z) ** (k - 1))
        assert normal_best(k) == pytest.approx(integral, abs=1e-7)
        assert normal_best(k) <= math.sqrt(2 * math.log(k))


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.8])
def test_candidates_have_the_accuracy_and_the_correlation_that_they_promise(rho):
    rng = np.random.default_rng(0)
    scores = np.array([candidates(2, 50, rho, 0.7, rng) for _ in range(6000)])
    assert scores.mean() == pytest.approx(0.7, abs=0.003)
    assert scores.std() == pytest.approx(math.sqrt(0.7 * 0.3 / 50), rel=0.03)
    assert np.corrcoef(scores.T)[0, 1] == pytest.approx(rho, abs=0.03)


@pytest.mark.parametrize("k,rho", [(2, 0.0), (10, 0.0), (10, 0.5), (40, 0.7)])
def test_optimism_equals_the_simulation(k, rho):
    rng = np.random.default_rng(1)
    best = [candidates(k, 400, rho, 0.7, rng).max() for _ in range(1500)]
    error = np.std(best) / math.sqrt(len(best))
    assert np.mean(best) - 0.7 == pytest.approx(optimism(k, 400, rho, 0.7), abs=4 * error + 0.001)


def test_the_ratio_of_paired_to_unpaired_intervals_is_that_of_scipy():
    rng = np.random.default_rng(2)
    for _ in range(20):
        x, y = rng.normal(size=(2, 5))
        x, y = (v - v.mean() for v in (x, y))
        y *= x.std() / y.std()  # the formula is for equal variances
        paired, unpaired = (
            np.ptp(test.confidence_interval()) for test in (stats.ttest_rel(x, y), stats.ttest_ind(x, y))
        )
        t4, t8 = stats.t.ppf(0.975, [4, 8])
        formula = t4 / t8 * math.sqrt(1 - np.corrcoef(x, y)[0, 1])
        assert paired / unpaired == pytest.approx(formula, rel=1e-9)
        in_lesson = t4 / t8 * (x - y).std() / math.sqrt(x.var() + y.var())
        assert in_lesson == pytest.approx(formula, rel=1e-9)


# --- counts --------------------------------------------------------------------------------------------


def tiny(hidden=12, layers=2, heads=3, inner=20, vocabulary=40, positions=30):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=inner, max_position_embeddings=positions, num_labels=2, use_cache=False,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


@pytest.mark.parametrize("sizes", [{}, {"hidden": 18, "layers": 3, "inner": 7, "vocabulary": 11}])
def test_the_formulas_of_the_lesson_count_the_parameters_of_other_sizes(sizes):
    """The very lines of the lesson, evaluated for a model of another size."""
    tree = ast.parse(LESSON.read_text(encoding="utf-8"))
    names = {"c", "V", "m", "layer", "by_hand"}

    def first(target):
        return (target.elts[0] if isinstance(target, ast.Tuple) else target).id

    def plain(node):
        target = node.targets[0]
        return isinstance(target, ast.Name) or (
            isinstance(target, ast.Tuple) and isinstance(target.elts[0], ast.Name)
        )

    lines = [n for n in tree.body if isinstance(n, ast.Assign) and plain(n) and first(n.targets[0]) in names]
    scope = {"nets": {"full": tiny(**sizes)}}
    exec(compile(ast.Module(lines[:5], []), str(LESSON), "exec"), scope)
    methods = {"lora": tuners.Lora(8, 8), "prompt": tuners.PromptTuning(20)}
    nets = {"full": tiny(**sizes)} | {k: tuners.inject(tiny(**sizes), how) for k, how in methods.items()}
    for name, net in nets.items():
        assert scope["by_hand"][name] == sum(p.numel() for p in tuners.trainable(net).values()), name


@pytest.mark.parametrize("method", [tuners.Lora(4, 4), tuners.PromptTuning(5), tuners.IA3()])
def test_an_adapter_file_holds_four_bytes_per_trained_number_behind_its_header(method, tmp_path):
    net = tuners.inject(tiny(), method)
    tuners.save(net, tmp_path)
    raw = (tmp_path / "adapter_model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__")
    trained = sum(p.numel() for p in tuners.trainable(net).values())
    assert max(entry["data_offsets"][1] for entry in header.values()) == 4 * trained
    assert len(raw) == 8 + length + 4 * trained


def test_kept_bytes_gives_everything_back():
    """With the tensor itself instead of a detached one, an operation that keeps its output would keep itself alive."""

    class Held:
        """Something that a weak reference can point to."""

    class Keeps(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.randn(6, 5))

        def forward(self, x):
            y, held = (x @ self.w).softmax(-1), Held()
            y.register_hook(lambda _gradient, held=held: None)  # lives as long as the graph
            self.graph = weakref.ref(held)
            return (y**2).sum()

    net, x = Keeps(), torch.randn(4, 6)
    kept, result = kept_bytes(net, lambda net: net(x))
    assert kept == 4 * (4 * 6 + 4 * 5)  # x, and the softmax's output: the square keeps the same storage
    assert net.graph() is not None
    del result
    gc.collect()
    assert net.graph() is None


# --- the lesson and the grid's notebook ------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(3)

    def drawn(n):
        return [
            {"input_ids": rng.integers(1, 40, rng.integers(3, 9)).tolist(), "labels": int(rng.integers(2))}
            for _ in range(n)
        ]

    probe = {"train": drawn(45), "test": drawn(50)}
    labels = {name: [example["labels"] for example in part] for name, part in probe.items()}
    return SimpleNamespace(train=drawn(30), probe=probe, labels=labels)


@pytest.fixture(scope="module")
def sides(world):
    """The functions of the lesson and of the experiment, over the same little world."""
    rules = SimpleNamespace(batch_size=4, probe_C=0.01)
    run, examples = SimpleNamespace(device="cpu"), {"train": world.train}
    longest = sorted(world.train, key=lambda e: len(e["input_ids"]))[-4:]
    lesson = load(
        LESSON,
        ["kept_bytes", "loss_on", "held_mb", "mean_states", "logistic", "probe"],
        run=run, rules=rules, pad_id=0, probe_examples=world.probe, probe_truth=world.labels,
        batch=training.collate(longest, 0),
    )  # fmt: skip
    experiment = load(
        EXPERIMENT,
        ["States", "hidden", "logistic", "probe", "held_mb"],
        SimpleNamespace=SimpleNamespace,
        run=run, settings=rules, pad_id=0, seed=0, examples=examples, probe_examples=world.probe,
        probe_rows={name: {"label": y} for name, y in world.labels.items()},
    )  # fmt: skip
    return lesson, experiment


NETS = {
    "full": lambda: tiny(),
    "lora": lambda: tuners.inject(tiny(), tuners.Lora(4, 4)),
    "pfeiffer": lambda: tuners.inject(tiny(), tuners.Pfeiffer(4)),
    "prompt": lambda: tuners.inject(tiny(), tuners.PromptTuning(5)),
    "deep": lambda: tuners.inject(tiny(), tuners.DeepPrompts(5)),
}


@pytest.mark.parametrize("name", NETS)
def test_the_probe_of_the_lesson_is_that_of_the_grid(name, world, sides):
    lesson, experiment = sides
    net = NETS[name]()
    ours = lesson["mean_states"](net, world.probe["test"])
    theirs = torch.stack([h.mean(0) for h in experiment["hidden"](net, world.probe["test"])]).numpy()
    assert ours.shape == theirs.shape == (50, 12)
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
    assert lesson["probe"](net) == experiment["probe"](net)


@pytest.mark.parametrize("name", NETS)
def test_the_memory_of_the_lesson_is_that_of_the_grid(name, sides):
    lesson, experiment = sides
    net = NETS[name]()
    assert lesson["held_mb"](net) == pytest.approx(experiment["held_mb"](net), rel=1e-12)


# --- off, choose, labels -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", [tuners.Lora(4, 4), tuners.Pfeiffer(4), tuners.IA3()])
def test_a_method_that_is_switched_off_leaves_nothing_behind(method):
    plain, net = tiny(), tuners.inject(tiny(), method)
    with torch.no_grad():
        for p in tuners.trainable(net).values():
            p.add_(0.3)
    net.classifier.load_state_dict(plain.classifier.state_dict())
    ids = torch.randint(1, 40, (3, 7), generator=torch.Generator().manual_seed(0))
    on = net(ids).logits
    with off(net):
        assert torch.equal(net(ids).logits, plain(ids).logits)
    assert torch.equal(net(ids).logits, on)
    assert not torch.equal(on, plain(ids).logits)


def made_lines(**methods):
    """method = (scores over seeds, trained parameters, forgetting)"""
    return [
        {"method": name, "task": "t", "seed": s, "score": x, "trainable_parameters": n, "forgetting": f}
        for name, (scores, n, f) in methods.items()
        for s, x in enumerate(scores)
    ]


def test_the_rule_is_not_won_by_noise_and_obeys_the_budget():
    lines = made_lines(
        best=([0.94, 0.95, 0.93, 0.94, 0.95], 1000, 0.3),
        near=([0.93, 0.95, 0.94, 0.94, 0.94], 100, 0.1),
        noisy=([0.95, 0.60, 0.95, 0.70, 0.94], 50, 0.1),
        poor=([0.80, 0.81, 0.80, 0.82, 0.80], 40, 0.0),
        gone=([0.99, 0.99, 0.99, 0.99, 0.99], 1, math.nan),  # diverged: it has no costs
    )
    spec = SimpleNamespace(methods=["best", "near", "noisy", "poor", "gone"])
    choose = load(LESSON, ["values", "entered", "choose"], lines=lines, spec=spec)["choose"]
    assert choose("t") == ("noisy", "near")
    assert choose("t", margin=0.3) == ("noisy", "poor")  # surely worse, and surely not by 30 points
    assert choose("t", forgetting=0.05) == ("poor", "poor")
    assert choose("t", trainable_parameters=10) == ("nothing", "nothing")


def test_labels_cover_neither_each_other_nor_the_points():
    from matplotlib import pyplot
    from matplotlib.text import Text

    pyplot.switch_backend("Agg")
    figure, panel = plotting.axes(width=5, height=4)
    rng = np.random.default_rng(4)
    x, y = rng.random((2, 14))
    panel.plot(x, y, "ko", markersize=4)
    plotting.label_points(panel, x, y, [f"method {i}" for i in range(14)])
    figure.canvas.draw()
    boxes = [Text.get_window_extent(note) for note in panel.texts]  # without its line
    dots = panel.transData.transform(np.column_stack([x, y]))
    assert len(boxes) == 14
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box.contains(*dot) for box in boxes for dot in dots)
    inside = panel.get_window_extent()
    assert all(inside.x0 <= b.x0 and b.x1 <= inside.x1 and inside.y0 <= b.y0 for b in boxes)
    pyplot.close(figure)
