"""The loop of lesson 03 equals torch and transformers, resumes to the same bits, and says what is wrong."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import pytest
import torch
from drill_training import drill_training
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

from instructlab_utils import checkpoints, models, training
from instructlab_utils.errors import TrainingError
from instructlab_utils.losses import cross_entropy

SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=100)


def tiny(dropout: float = 0.1, seed: int = 0, dtype: torch.dtype = torch.float32):
    torch.manual_seed(seed)
    config = BertConfig(
        num_labels=3, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **SIZES
    )
    return BertForSequenceClassification(config).to(dtype)


def invented(n: int, seed: int = 0, longest: int = 20) -> list[dict]:
    rng = random.Random(seed)
    return [
        {"input_ids": [rng.randrange(1, 100) for _ in range(rng.randrange(2, longest))], "labels": i % 3}
        for i in range(n)
    ]


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=200),
    st.integers(1, 17),
    st.integers(1, 5),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_buckets_hold_every_index_once(lengths, batch_size, window, seed):
    batches = training.length_buckets(lengths, batch_size, torch.Generator().manual_seed(seed), window)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert len(batches) == -(-len(lengths) // batch_size)


def test_buckets_waste_less_than_random_batches():
    examples = invented(320, longest=60)
    lengths = [len(e["input_ids"]) for e in examples]

    def cost(batches):
        return sum(len(b) * max(lengths[i] for i in b) for b in batches)

    buckets = training.length_buckets(lengths, 16, torch.Generator().manual_seed(0))
    order = torch.randperm(320, generator=torch.Generator().manual_seed(0)).tolist()
    assert cost(buckets) < 0.75 * cost([order[i : i + 16] for i in range(0, 320, 16)])


def test_collate_pads_to_the_longest_of_the_batch():
    batch = training.collate(
        [{"input_ids": [5, 6, 7], "labels": 1}, {"input_ids": [8], "labels": 0}], pad_id=9
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0] and batch["labels"].dtype == torch.int64


@pytest.mark.parametrize("total,warmup", [(10, 0), (10, 3), (7, 7), (1, 1)])
def test_schedule_equals_transformers(total, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    library = get_linear_schedule_with_warmup(optimizer, warmup, total).lr_lambdas[0]
    assert [training.linear_schedule(s, total, warmup) for s in range(total + 2)] == [
        library(s) for s in range(total + 2)
    ]


@pytest.mark.parametrize("max_norm", [0.01, 1.0, 1e6])
def test_clipping_equals_torch(max_norm):
    ours = [torch.nn.Parameter(torch.zeros(n, 3)) for n in (1, 4, 7)]
    for p in ours:
        p.grad = torch.randn_like(p)
    theirs = [torch.nn.Parameter(torch.zeros_like(p)) for p in ours]
    for p, q in zip(ours, theirs, strict=True):
        q.grad = p.grad.clone()
    norm = training.clip_gradients(ours, max_norm)
    assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(theirs, max_norm).item(), rel=1e-6)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=0)


def test_accumulation_equals_the_full_batch_in_float64():
    examples, updates = invented(20), []
    for cuts in ([20], [16, 4], [3, 3, 14]):
        net = tiny(dropout=0.0, dtype=torch.float64)
        optimizer = torch.optim.AdamW(training.parameter_groups(net, 0.01))
        micro, begin = [], 0
        for size in cuts:
            micro.append(training.collate(examples[begin : begin + size], 0))
            begin += size
        loss, norm = training.training_step(net, optimizer, micro, 1e-3, 1.0)
        updates.append((loss, norm, torch.cat([p.detach().flatten() for p in net.parameters()])))
    # `logits.float()` makes the loss float32, hence the tolerance.
    for loss, norm, weights in updates[1:]:
        assert loss == pytest.approx(updates[0][0], rel=1e-6) and norm == pytest.approx(
            updates[0][1], rel=1e-5
        )
        assert (weights - updates[0][2]).abs().max() < 2e-4


def test_same_batches_same_losses_as_trainer(tmp_path):
    examples, steps = invented(64), 4
    net = tiny(dropout=0.0)
    optimizer = torch.optim.AdamW(training.parameter_groups(net, 0.01))
    ours = []
    for step in range(steps):
        micro = [training.collate(examples[16 * step + 8 * h : 16 * step + 8 * h + 8], 0) for h in (0, 1)]
        rate = 1e-3 * training.linear_schedule(step, steps, 1)
        ours.append(training.training_step(net, optimizer, micro, rate, 1.0)[0])
    arguments = TrainingArguments(
        str(tmp_path), max_steps=steps, per_device_train_batch_size=8, gradient_accumulation_steps=2, learning_rate=1e-3,
        warmup_steps=1, weight_decay=0.01, logging_steps=1, save_strategy="no", train_sampling_strategy="sequential",
        use_cpu=True, bf16=False, disable_tqdm=True,
    )  # fmt: skip

    def run(loss=None):
        library = tiny(dropout=0.0)
        trainer = Trainer(
            library, arguments, lambda rows: training.collate(rows, 0), examples, compute_loss_func=loss
        )
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], library

    theirs, library = run(
        lambda out, y, num_items_in_batch: cross_entropy(out.logits, y).sum() / num_items_in_batch
    )
    assert ours == pytest.approx(theirs, rel=1e-5)
    for p, q in zip(net.parameters(), library.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
    # What lesson 03 shows: without a loss of its own, this version of the library reports twice the loss.
    assert run()[0][0] / ours[0] == pytest.approx(2.0, rel=1e-4)


def test_predict_keeps_the_order_and_the_mode():
    net, examples = tiny().train(), invented(37, longest=50)
    batched = training.predict(net, examples, 0, batch_size=8)
    alone = torch.cat([training.predict(net, [example], 0) for example in examples])
    assert net.training and batched.shape == (37, 3)
    torch.testing.assert_close(batched, alone, rtol=1e-4, atol=1e-5)


def test_same_seed_same_bits_and_another_seed_other_bits():
    settings_ = dict(steps=5, learning_rate=1e-3, pad_id=0, batch_size=8)
    runs = [training.train(tiny(), invented(40), seed=seed, **settings_).losses for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_training_learns_and_keeps_the_best_weights():
    examples = [{"input_ids": [1 + 30 * (i % 3) + (i * 7) % 30] * 5, "labels": i % 3} for i in range(90)]
    net = tiny()
    history = training.train(
        net, examples[:60], steps=60, learning_rate=3e-3, pad_id=0, dev=examples[60:], eval_every=10, seed=0
    )
    assert history.losses[-1] < 0.5 * history.losses[0]
    targets = torch.tensor([e["labels"] for e in examples[60:]])
    score = (training.predict(net, examples[60:], 0).argmax(-1) == targets).double().mean().item()
    assert score == history.best_score == max(score for _, score in history.dev)


def test_early_stopping_stops():
    history = training.train(
        tiny(),
        invented(16),
        steps=50,
        learning_rate=0.0,
        pad_id=0,
        dev=invented(9, 1),
        eval_every=2,
        patience=3,
    )
    assert history.stopped_early and len(history.losses) == 8 and history.best_step == 2


@pytest.mark.parametrize("until", [1, 4, 7, 9])
def test_resume_gives_the_same_bits(tmp_path, until):
    def run(folder, until=None, weights=0):
        net = tiny(seed=weights)
        training.train(
            net, invented(40), dev=invented(12, 1), eval_every=3, folder=tmp_path / folder, save_every=3, until=until,
            steps=10, learning_rate=1e-3, pad_id=0, batch_size=8, seed=4, recipe=training.Recipe(accumulation=2),
        )  # fmt: skip
        return net, (tmp_path / folder / "log.jsonl").read_text()

    calm, calm_log = run("calm")
    run("cut", until)
    resumed, log = run(
        "cut", weights=0 if until < 3 else 99
    )  # the checkpoint must not depend on the new start
    assert log == calm_log
    for p, q in zip(calm.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)


def test_another_runs_checkpoint_is_refused(tmp_path):
    settings_ = dict(learning_rate=1e-3, pad_id=0, batch_size=8, folder=tmp_path, save_every=2)
    training.train(tiny(), invented(16), steps=2, seed=0, **settings_)
    with pytest.raises(TrainingError, match="seed 0, not seed 1"):
        training.train(tiny(), invented(16), steps=2, seed=1, **settings_)


def test_a_damaged_checkpoint_gets_a_sentence(tmp_path):
    settings_ = dict(learning_rate=1e-3, pad_id=0, batch_size=8, folder=tmp_path, save_every=2, steps=2)
    training.train(tiny(), invented(16), **settings_)
    weights = tmp_path / json.loads((tmp_path / "latest.json").read_text())["folder"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(TrainingError, match="cannot be resumed .* delete the folder"):
        training.train(tiny(), invented(16), **settings_)


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    (tmp_path / ".latest.json.abc123.tmp").write_text('{"folder": "st')
    training.train(
        tiny(),
        invented(16),
        steps=2,
        learning_rate=1e-3,
        pad_id=0,
        batch_size=8,
        folder=tmp_path,
        save_every=2,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.json", "log.jsonl", "step-000002"]


def test_no_examples_and_exploding_loss_get_a_sentence():
    with pytest.raises(TrainingError, match="no examples"):
        training.train(tiny(), [], steps=1, learning_rate=1e-3, pad_id=0)
    with pytest.raises(TrainingError, match="no rows"):
        training.encode([], None, 8)
    net = tiny()
    net.classifier.weight.data.fill_(float("inf"))
    with pytest.raises(TrainingError, match=r"the loss is nan .* \(update 1\)"):
        training.train(net, invented(8), steps=1, learning_rate=1e-3, pad_id=0)


@pytest.mark.filterwarnings("ignore")  # without a GPU torch says that it switches this autocast off
def test_mixed_precision_wraps_the_forward_pass_and_gives_it_back():
    net = tiny(dropout=0.0)
    batch = training.collate(invented(4), 0)
    before = net(input_ids=batch["input_ids"]).logits
    with models.mixed_precision(net, torch.device("cuda")):
        assert "forward" in vars(net) and net(input_ids=batch["input_ids"]).logits.shape == before.shape
    assert "forward" not in vars(net)
    with models.mixed_precision(net, torch.device("cpu")):
        assert "forward" not in vars(net)


def test_tensorboard_is_written_on_request(tmp_path):
    pytest.importorskip("tensorboard")
    training.train(tiny(), invented(8), steps=2, learning_rate=1e-3, pad_id=0, folder=tmp_path)
    checkpoints.to_tensorboard(tmp_path, tmp_path / "events")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "norm", "rate"}
    assert [scalar.step for scalar in events.Scalars("loss")] == [1, 2]


@pytest.mark.timeout(300)
def test_resuming_removes_what_a_kill_left_beside_the_checkpoint(tmp_path):
    """Killed after the last checkpoint was named, before the one before it was removed: nothing will be saved again."""
    settings_ = dict(learning_rate=1e-3, pad_id=0, batch_size=8, folder=tmp_path, save_every=2, steps=4)
    first = training.train(tiny(0.0), invented(16), **settings_)
    for left in ("step-000002", "step-000006.tmp"):
        (tmp_path / left).mkdir()
    again = training.train(tiny(0.0), invented(16), **settings_)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-000004"]
    assert again.losses == first.losses


def test_drill_two_rounds(tmp_path):
    assert drill_training(2, tmp_path, seed=11) == []


def test_collate_tokens_pads_each_list_with_its_own_mark():
    batch = training.collate_tokens(
        [
            {"input_ids": [5, 6, 7], "labels": [1, -100, 2], "token_type_ids": [0, 0, 1]},
            {"input_ids": [5], "labels": [3], "token_type_ids": [0]},
        ],
        pad_id=9,
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7], [5, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[1, -100, 2], [3, -100, -100]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 1], [0, 0, 0]]
    spans = training.collate_tokens(
        [{"input_ids": [5, 6], "labels": [0, 1]}, {"input_ids": [5, 6, 7], "labels": [1, 1]}], 0
    )
    assert spans["labels"].tolist() == [[0, 1], [1, 1]]


def test_one_label_a_text_goes_with_further_lists():
    pairs = [
        {"input_ids": [5, 6, 7], "labels": 1, "token_type_ids": [0, 0, 1]},
        {"input_ids": [5, 6], "labels": 0, "token_type_ids": [0, 1]},
    ]
    batch = next(training.batches_of(pairs, 2, pad_id=9, seed=0))
    rows = dict(zip(batch["labels"].tolist(), batch["token_type_ids"].tolist(), strict=True))
    assert rows == {1: [0, 0, 1], 0: [0, 1, 0]}
    assert batch.keys() == {"input_ids", "attention_mask", "labels", "token_type_ids"}


def token_model() -> torch.nn.Module:
    class Head(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = torch.nn.Embedding(20, 6), torch.nn.Linear(6, 3)

        def forward(self, input_ids, attention_mask):
            return SimpleNamespace(logits=self.out(self.table(input_ids)))

    torch.manual_seed(0)
    return Head().double()


def test_a_step_over_tokens_counts_targets_not_sentences():
    """Two micro-batches with 2 and 5 targets equal the mean over all 7, by torch's own cross-entropy."""
    rows = [
        {"input_ids": [3, 4, 5], "labels": [1, -100, 2]},
        {"input_ids": [6, 7, 8, 9, 10], "labels": [0, 1, 2, 0, 1]},
    ]
    net, reference = token_model(), token_model()
    plain = torch.optim.SGD(net.parameters(), lr=0.1)
    micro = [training.collate_tokens([row], 0) for row in rows]
    loss, _ = training.training_step(net, plain, micro, 0.1, 1e9)
    both = training.collate_tokens(rows, 0)
    logits = reference(both["input_ids"], both["attention_mask"]).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), both["labels"].flatten())
    expected.backward()
    assert abs(loss - expected.item()) < 1e-6  # the losses themselves are computed in float32
    for ours, theirs in zip(net.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours, theirs - 0.1 * theirs.grad, atol=1e-7)


def test_a_batch_without_a_target_is_refused():
    net = token_model()
    batch = training.collate_tokens([{"input_ids": [3], "labels": [-100]}], 0)
    with pytest.raises(TrainingError, match="every label of this batch is -100"):
        training.training_step(net, torch.optim.SGD(net.parameters(), lr=0.1), [batch], 0.1, 1.0)


def test_train_takes_an_objective_a_schedule_and_a_score():
    """A constant schedule and a score that prefers the first evaluation: its weights come back."""
    rows = [{"input_ids": [3 + i % 7, 4], "labels": [i % 3, -100]} for i in range(12)]
    net, scores = token_model().float(), iter([2.0, 1.0, 0.5])
    history = training.train(
        net, rows, steps=6, learning_rate=0.1, pad_id=0, batch_size=4, eval_every=2,
        objective=lambda model, batch: 2 * training.target_losses(model, batch),
        schedule=lambda step, total, warmup: 1.0, evaluate=lambda model: next(scores),
    )  # fmt: skip
    assert history.rates == [0.1] * 6 and history.best_step == 2 and history.best_score == 2.0
    again = token_model().float()
    half = training.train(
        again, rows, steps=2, learning_rate=0.1, pad_id=0, batch_size=4, schedule=lambda *_: 1.0
    )
    assert history.losses[0] == pytest.approx(2 * half.losses[0])


def test_token_logits_are_those_of_each_row_alone():
    net = token_model().float()
    rows = [{"input_ids": list(range(3, 3 + n)), "labels": [0] * n} for n in (4, 1, 7, 2)]
    found = training.token_logits(net, rows, 0, batch_size=3)
    assert [tuple(f.shape) for f in found] == [(4, 3), (1, 3), (7, 3), (2, 3)]
    for row, logits in zip(rows, found, strict=True):
        alone = net(torch.tensor([row["input_ids"]]), None).logits[0]
        assert torch.allclose(logits, alone, atol=1e-6)


def test_predicting_leaves_each_part_in_the_mode_that_it_had() -> None:
    """A frozen part in evaluation mode stays there, also after an error."""
    net = tiny().train()
    frozen = net.get_submodule("bert.encoder")
    frozen.eval()
    modes = [part.training for part in net.modules()]
    training.predict(net, [{"input_ids": [1, 2], "labels": 0}], 0)
    assert [part.training for part in net.modules()] == modes and len(set(modes)) == 2
    with pytest.raises(IndexError):
        training.predict(net, [{"input_ids": [10**6], "labels": 0}], 0)
    assert [part.training for part in net.modules()] == modes
