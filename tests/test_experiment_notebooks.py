"""Experiment notebooks stay short: what several need stands in block.py, what a method is in the experiment's TOML."""

import ast
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from instructlab_repro import block as blocks
from instructlab_repro import experiments
from instructlab_utils import tuners
from instructlab_utils.errors import ConfigError, TrainingError
from instructlab_utils.run import Cost

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "notebooks" / "experiments" / "source").glob("*.py"))
LONGEST = 80
EXCEPTIONS = {  # the limit of those that cannot keep the common one, and why
    "instruction_search": (85, "two kinds of candidates, nine ways to choose or to average them"),
    "in_context": (102, "four tasks' texts dealt out to the seeds, wrong labels, a cross-fitted oracle"),
    "demonstration_order": (86, "spreads with and without luck, log-odds, two measures of recency"),
    "arena": (145, "two kinds of tasks, a probe, frozen features, memory and bytes of each method"),
    "policy_gradient": (81, "three ways to learn from draws, three KL penalties, five things to measure"),
    "injection": (81, "four prompts, six detectors, a control; one line to join when the grid is run again"),
    "game": (81, "draws, detectors, seven strategies; one line to join when the grid is run again"),
    "chinese": (123, "two tasks: four ways to read reviews, four to tag names, one trunk for both"),
    "regularisers": (105, "ten methods: four kinds of extra sentences, three objectives, an ensemble"),
}


def code_lines(path):
    """Lines of the code cells without the parameters, blank lines, comments and docstrings."""
    lines, keep = [], False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# %%"):
            keep = "[markdown]" not in line and "parameters" not in line
        lines.append(line if keep else "")
    told = set()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str):
            told |= set(range(node.lineno, node.end_lineno + 1))
    return [
        s for n, s in enumerate(lines, 1) if s.strip() and not s.strip().startswith("#") and n not in told
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_imports_the_engine_through_block(path):
    code = code_lines(path)
    assert len(code) <= EXCEPTIONS.get(path.stem, (LONGEST, ""))[0]
    imports = [line for line in code if line.startswith(("import ", "from ")) and "instructlab_repro" in line]
    assert len(imports) == 1 and "block" in imports[0]


def test_exceptions_are_few_and_needed():
    lengths = {path.stem: len(code_lines(path)) for path in SOURCES}
    assert len(EXCEPTIONS) <= 9
    assert all(lengths[name] > LONGEST for name in EXCEPTIONS)


def test_every_notebook_serves_an_experiment_and_the_shared_one_several():
    served = [experiments.load(name).notebook for name in experiments.names()]
    assert {path.stem for path in SOURCES} == set(served)
    assert served.count("tuning") >= 3


# --- methods as tables -------------------------------------------------------------------------------


def tables():
    for name in experiments.names():
        for profile in ("smoke", "laptop"):
            spec = experiments.load(name).at(profile)
            block = spec.blocks()[-1]
            for method in spec.methods if spec.notebook in ("tuning", "arena") else ():
                yield pytest.param(spec.method(method, block), id=f"{name}-{profile}-{method}")


def tiny(labels=2):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=12, num_hidden_layers=3, num_attention_heads=2, intermediate_size=20,
        max_position_embeddings=64, num_labels=labels,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


OF_THE_LOOP = ("learning_rate", "steps")


@pytest.mark.parametrize("table", list(tables()))
def test_a_table_names_a_tuner_and_its_parameters(table):
    table = {name: value for name, value in table.items() if name not in OF_THE_LOOP}
    if table["tuner"] == "frozen":  # of the arena: nothing is trained
        return
    if table["tuner"] == "Vera":
        table["r"] = 4
    net, more = blocks.tuned(tiny(), table, seed=3)
    assert tuners.trainable(net) and (table["tuner"] == "full") == (more == {})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"tuner": "Lorra"}, "no attribute 'Lorra'"),
        ({"tuner": "Lora", "rank": 8}, "unexpected keyword argument 'rank'"),
    ],
)
def test_a_wrong_table_is_one_sentence(table, message):
    with pytest.raises(ConfigError, match=message):
        blocks.tuned(tiny(), table, seed=0)


def test_a_rounding_twin_moves_every_trainable_value_by_the_last_digit():
    one = tuners.inject(tiny(), tuners.Lora(4, 4), seed=0)
    two = tuners.inject(tiny(), tuners.Lora(4, 4), seed=0)
    blocks.nudge(two)
    for name, p in one.named_parameters():
        q = two.get_parameter(name)
        assert torch.allclose(p, q, rtol=2e-7, atol=0)
        assert bool((p != q).any()) == bool(p.requires_grad and p.any())


# --- what a line says --------------------------------------------------------------------------------


@pytest.fixture
def data():
    def rows(n):
        return {"text": [""] * n, "label": [i % 3 == 0 for i in range(n)]}

    class Tokenizer:
        pad_token_id = 0

        def __call__(self, texts, **_):
            return {"input_ids": [[2, 5 + i, 3] for i in range(len(texts))]}

    found = blocks.Sentences(SimpleNamespace(labels=["a", "b"]), Tokenizer(), 8)
    for split, n in (("train", 12), ("dev", 6), ("test", 9)):
        part = rows(n)
        found.rows[split], found.targets[split] = part, np.array(part["label"], dtype=int)
        found.examples[split] = [
            {"input_ids": [2, 5 + i, 3], "labels": int(y)} for i, y in enumerate(part["label"])
        ]
    return found


def test_a_model_that_diverged_counts_as_the_majority_class(data):
    line = data.fields(data.logits(None))
    assert line["accuracy"] == pytest.approx(6 / 9) and line["one_class"] and set(line["predictions"]) == {0}
    entropy = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
    assert line["dev_loss"] == pytest.approx(entropy, abs=1e-6)
    broken = tiny()
    with torch.no_grad():
        broken.classifier.weight.fill_(torch.nan)
    assert data.fields(data.logits(broken)) == line


def test_tuning_says_nothing_of_test_items(data):
    assert set(data.fields(data.logits(tiny(), "dev"))) == {"dev_accuracy", "dev_loss"}


class Block:
    """What fit() asks of an open block."""

    def __init__(self, stage="run"):
        import contextlib

        self.settings = SimpleNamespace(steps=8, batch_size=4)
        self.run, self.seed = SimpleNamespace(measure=lambda: contextlib.nullcontext(Cost())), 0
        self.block = SimpleNamespace(stage=stage)


def test_fit_says_how_the_loss_fell_and_survives_one_that_is_not_finite(data):
    net, line, _ = blocks.fit(Block(), tiny(), data.examples["train"], 0, learning_rate=1e-2)
    assert line["updates"] == 8 and line["diverged"] == 0
    assert line["trainable_parameters"] == sum(p.numel() for p in tiny().parameters())
    assert line["train_loss"] < line["first_loss"]
    twin, other, _ = blocks.fit(Block("twin"), tiny(), data.examples["train"], 0, learning_rate=1e-2)
    assert other["train_loss"] == pytest.approx(line["train_loss"], rel=1e-3)
    assert any((p != q).any() for p, q in zip(net.parameters(), twin.parameters(), strict=True))

    def diverges(*_):
        raise TrainingError("the loss is nan at update 1: lower the learning rate or look at that batch")

    net, line, _ = blocks.fit(
        Block(), tiny(), data.examples["train"], 0, learning_rate=1.0, objective=diverges
    )
    assert net is None and line["diverged"] == 1 and line["train_loss"] is None
    with pytest.raises(TrainingError, match="got no examples"):
        blocks.fit(Block(), tiny(), [], 0, learning_rate=1.0)
