"""What a training run never does: step on a gradient that is none, lose a good checkpoint, pass for another run."""

from __future__ import annotations

import functools
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from test_training import invented, tiny
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from instructlab_utils import checkpoints, files, guards, identity, losses, training, tuners
from instructlab_utils.errors import TrainingError
from instructlab_utils.run import Run

KNOBS = dict(steps=6, learning_rate=1e-3, pad_id=0, batch_size=8, save_every=1)
TYPES = (torch.float64, torch.float32, torch.bfloat16)


def weights_of(net) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def bad_from(update: int, what: float, real=training.target_losses):
    """An objective whose value is right, and whose gradient is ``what`` from that update on."""
    calls = []

    def objective(model, batch):
        calls.append(1)
        losses = real(model, batch)
        if len(calls) >= update:
            losses.register_hook(lambda gradient: gradient * what)
        return losses

    return objective


# --- checks before the irreversible act -------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [math.nan, math.inf])
def test_no_step_on_a_gradient_that_is_not_finite(what):
    net, batch = tiny(0.0), training.collate(invented(8), 0)
    optimizer, before = torch.optim.AdamW(net.parameters()), weights_of(net)
    with pytest.raises(TrainingError, match=r"the loss is 1\.\d+ and its gradient's norm (nan|inf)"):
        training.training_step(net, optimizer, [batch], 1e-3, 1.0, bad_from(1, what))
    assert torch.equal(weights_of(net), before) and not optimizer.state
    training.training_step(net, optimizer, [batch], 1e-3, 1.0)  # nothing of the bad gradient is left
    assert weights_of(net).isfinite().all()


def test_no_step_on_an_infinite_loss_with_a_finite_gradient():
    net, batch = tiny(0.0), training.collate(invented(8), 0)
    before = weights_of(net)
    with pytest.raises(TrainingError, match=r"the loss is inf and its gradient's norm \d"):
        training.training_step(
            net, torch.optim.AdamW(net.parameters()), [batch], 1e-3, 1.0,
            lambda model, batch: training.target_losses(model, batch) + math.inf,
        )  # fmt: skip
    assert torch.equal(weights_of(net), before)


@pytest.mark.parametrize("what", [math.nan, math.inf])
def test_a_bad_gradient_costs_no_checkpoint(tmp_path, what):
    """Update 3 cannot be made: the checkpoint of update 2 stands, and the run goes on from it once the cause is gone."""
    net, settings = tiny(0.0), KNOBS | {"folder": tmp_path}
    bad = bad_from(3, what)
    # the same code with the same name: only what it counts differs
    with pytest.raises(TrainingError, match=r"norm (nan|inf).*\(update 3\)"):
        training.train(net, invented(16), objective=bad, **settings)
    assert weights_of(net).isfinite().all()
    assert json.loads((tmp_path / "latest.json").read_text())["step"] == 2
    stored = load_file(tmp_path / "step-000002" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in stored.values())
    again = training.train(net, invented(16), objective=bad_from(3, 1.0), **(settings | {"folder": None}))
    assert len(again.losses) == 6


def test_weights_that_are_not_finite_are_not_saved_over_good_ones(tmp_path):
    net = tiny(0.0)
    optimizer = torch.optim.AdamW(net.parameters())
    training.training_step(net, optimizer, [training.collate(invented(4), 0)], 1e-3, 1.0)
    checkpoints.save_checkpoint(tmp_path, net, optimizer, {"step": 1})
    good = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with torch.no_grad():
        net.classifier.weight[0, 0] = math.inf
    with pytest.raises(TrainingError, match=r"classifier\.weight is not after update 2"):
        checkpoints.save_checkpoint(tmp_path, net, optimizer, {"step": 2})
    folder = checkpoints.RunFolder(None)
    with pytest.raises(TrainingError, match=r"classifier\.weight is not after update 2"):
        folder.keep_best(net, 2)
    with torch.no_grad():
        net.classifier.weight[0, 0] = 0.0
    optimizer.state[net.classifier.weight]["exp_avg_sq"][0, 0] = math.inf
    with pytest.raises(TrainingError, match=r"the optimiser's \d+\.exp_avg_sq is not after update 2"):
        checkpoints.save_checkpoint(tmp_path, net, optimizer, {"step": 2})
    assert good == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_a_last_step_into_infinity_is_said():
    with pytest.raises(TrainingError, match="is not after update 1"):
        training.train(
            tiny(0.0), invented(8), steps=1, learning_rate=1e39, pad_id=0, weight_decay=1e3,
            schedule=lambda *_: 1.0,
        )  # fmt: skip


@pytest.mark.parametrize("damage", ["cut", "flipped", "absent"])
def test_the_old_checkpoint_goes_only_after_the_new_one_was_read_back(tmp_path, monkeypatch, damage):
    """A disk that loses bytes of what it was given."""
    net = tiny(0.0)
    optimizer = torch.optim.AdamW(net.parameters())
    checkpoints.save_checkpoint(tmp_path, net, optimizer, {"step": 1})
    write = checkpoints._write_tensors

    def lossy(place, *arguments):
        write(place, *arguments)
        path = place / "model.safetensors"
        content = bytearray(path.read_bytes())
        if damage == "absent":
            path.unlink()
            return
        content[-1] ^= 1
        path.write_bytes(content[:-9] if damage == "cut" else content)

    monkeypatch.setattr(checkpoints, "_write_tensors", lossy)
    with pytest.raises(TrainingError, match=r"step-000002: what was read back is not what was written"):
        checkpoints.save_checkpoint(tmp_path, net, optimizer, {"step": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.json", "step-000001"]
    assert checkpoints.load_checkpoint(tmp_path, net, optimizer)["step"] == 1


def test_saving_the_same_update_again_never_leaves_the_folder_without_a_checkpoint(tmp_path, monkeypatch):
    net = tiny(0.0)
    optimizer = torch.optim.AdamW(net.parameters())
    checkpoints.save_checkpoint(tmp_path, net, optimizer, {"step": 4, "note": 1})

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_with", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save_checkpoint(tmp_path, net, optimizer, {"step": 4, "note": 2})
    assert checkpoints.load_checkpoint(tmp_path, net, optimizer)["note"] == 1
    for note in (2, 3):
        checkpoints.save_checkpoint(tmp_path, net, optimizer, {"step": 4, "note": note})
        assert checkpoints.load_checkpoint(tmp_path, net, optimizer)["note"] == note
        assert len(list(tmp_path.glob("step-*"))) == 1


def test_nan_logits_predict_nothing_and_no_nan_is_best():
    rows, net = invented(12), tiny(0.0)
    with torch.no_grad():
        net.classifier.bias[1] = math.nan
    labels = [1] * 12  # what argmax of such logits says
    with pytest.raises(TrainingError, match="NaN"):
        guards.share_of_hits(training.predict(net, rows, 0), labels, "dev")
    assert guards.share_of_hits(torch.tensor([[-math.inf, 0.0], [1.0, 0.0]]), [1, 1], "dev") == 0.5
    for score in (math.nan, math.inf):
        with pytest.raises(TrainingError, match=r"the dev score is (nan|inf) after update 2"):
            training.train(
                tiny(0.0), rows, **KNOBS | {"save_every": 0}, evaluate=lambda model, s=score: s, eval_every=2
            )
    history = training.train(tiny(0.0), rows, **KNOBS, evaluate=lambda model: -math.inf, eval_every=2)
    assert history.best_step == 0


# --- labels -----------------------------------------------------------------------------------------------------------


def test_labels_that_are_no_classes_are_refused():
    def words(texts, **_):
        return {"input_ids": [[1, 2] for _ in texts]}

    for label in (0.7, "1", None, math.nan, math.inf, [1]):
        with pytest.raises(TrainingError, match=r"row 1 of encode\(\): the label is"):
            training.encode([{"text": "a", "label": 1}, {"text": "b", "label": label}], words, 8)
    kept = [2, 1.0, True, torch.tensor(1), torch.tensor([3]).numpy()[0]]
    encoded = training.encode([{"text": "a", "label": y} for y in kept], words, 8)
    assert [e["labels"] for e in encoded] == [2, 1, 1, 1, 3]
    assert all(type(e["labels"]) is int for e in encoded)

    rows, settings = invented(6), KNOBS | {"save_every": 0}
    for split, label in (("examples", -1), ("dev", -1), ("dev", -100), ("examples", 0.7), ("dev", [1, 0])):
        wrong = [*rows[:3], rows[3] | {"labels": label}]
        given = {"examples": rows, "dev": rows} | {split: wrong}
        with pytest.raises(TrainingError, match=rf"{split}, row 3: the label is"):
            training.train(tiny(), given["examples"], dev=given["dev"], eval_every=1, **settings)
    with pytest.raises(TrainingError, match="one label from 0 to 2"):
        training.train(tiny(), rows, dev=[*rows[:3], rows[3] | {"labels": 3}], eval_every=1, **settings)
    with pytest.raises(TrainingError, match="empty dev split"):
        training.train(tiny(), rows, dev=[], eval_every=1, **settings)


# --- identity ---------------------------------------------------------------------------------------------------------

SAME = dict(dev=invented(6, 1), eval_every=2, weight_decay=0.01, patience=9, seed=0)
OTHERS = {
    "learning_rate": dict(learning_rate=2e-3),
    "batch_size": dict(batch_size=4),
    "accumulation": dict(recipe=training.Recipe(accumulation=2)),
    "warmup": dict(recipe=training.Recipe(warmup=0.5)),
    "max_norm": dict(recipe=training.Recipe(max_norm=0.5)),
    "weight_decay": dict(weight_decay=0.1),
    "schedule": dict(schedule=training.cosine_schedule),
    "objective": dict(objective=lambda model, batch: 2 * training.target_losses(model, batch)),
    "seed": dict(seed=1),
    "steps": dict(steps=7),
    "pad_id": dict(pad_id=1),
    "dev": dict(dev=invented(6, 2)),
    "looks": dict(eval_every=3),
    "after_step": dict(after_step=lambda step: None),
    "evaluate": dict(evaluate=lambda model: 1.0),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that was killed at update 4, and one that is finished."""
    place = tmp_path_factory.mktemp("runs")
    for name, until in (("killed", 4), ("finished", None)):
        settings = KNOBS | SAME | {"save_every": 2}
        training.train(tiny(), invented(16), folder=place / name, until=until, **settings)
    return place


@pytest.mark.parametrize("field", [*OTHERS, "examples", "order", "trainable", "dropout", "precision"])
@pytest.mark.parametrize("state", ["killed", "finished"])
def test_another_run_in_the_same_folder_is_refused_by_name(runs, field, state):
    """No two runs are mixed, no old one passes for a new one, and nothing is changed."""
    settings, folder = KNOBS | SAME | {"save_every": 2}, runs / state
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    net, rows = tiny(), invented(16)
    if field == "examples":
        rows[3] = rows[3] | {"labels": (rows[3]["labels"] + 1) % 3}
    elif field == "order":
        rows = rows[::-1]
    elif field == "trainable":
        net.bert.embeddings.requires_grad_(False)
    elif field == "dropout":
        net = tiny(0.3)
    elif field == "precision":
        net = tiny().double()
    name = {"order": "examples", "dropout": "model"}.get(field, field)
    with pytest.raises(TrainingError, match=rf"holds a run with .*\b{name} .*, not .*\b{name} ") as caught:
        training.train(net, rows, folder=folder, **(settings | OTHERS.get(field, {})))
    assert "\n" not in str(caught.value) and "choose another folder or delete" in str(caught.value)
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_run_resumes_with_functions_made_anew(tmp_path):
    """What is a function's name or code is compared, not where it lies in memory; what it encloses counts."""

    def call(scale: float, until: int | None = None) -> list[float]:
        weights = torch.tensor([1.0, 2.0, scale])

        def objective(model, batch):
            return training.target_losses(model, batch) * weights[batch["labels"]]

        shaped = functools.partial(lambda step, total, warmup, floor: floor, floor=0.5)
        return training.train(
            tiny(), invented(16), folder=tmp_path, until=until, objective=objective, schedule=shaped, **KNOBS
        ).losses

    assert call(3.0, until=4) == call(3.0)[:4]
    with pytest.raises(TrainingError, match=r"objective .*call.<locals>.objective"):
        call(4.0)


def test_functions_are_described_alike_in_another_process():
    code = (
        "import torch\nfrom instructlab_utils import identity\n"
        "def f(x, names=frozenset({'b', 'a', 'c', 'd'})):\n"
        "    return x in {'p', 'q', 'r', 's'}, names, [y for y in x], torch.nn.Linear\n"
        "print(identity.described(f))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": str(n)}, capture_output=True, text=True,
            check=True,
        ).stdout
        for n in (1, 2)
    }  # fmt: skip
    assert len(seen) == 1
    assert identity.described(lambda x: x + 1) != identity.described(lambda x: x + 2)
    assert identity.described(functools.partial(max, 1)) != identity.described(functools.partial(max, 2))

    class Weighted:
        def __init__(self, factor):
            self.factor = factor

        def __call__(self, model, batch):
            return self.factor

    assert (
        identity.described(Weighted(1)) == identity.described(Weighted(1)) != identity.described(Weighted(2))
    )
    assert identity.described(Weighted(1).__call__) != identity.described(Weighted(2).__call__)


def test_what_a_function_counts_for_itself_is_no_part_of_the_run():
    """Resumed in the same process, by the same notebook."""
    seen, count = [], 0

    def evaluate(model):
        nonlocal count
        count += 1
        seen.append(count)
        return 0.5

    class Counts:
        def __init__(self):
            self.calls, self.factor = 0, 2

        def __call__(self, model, batch):
            self.calls += 1
            return training.target_losses(model, batch) * self.factor

    objective, before = Counts(), identity.described(evaluate)
    fresh = identity.described(objective)
    evaluate(None)
    objective(tiny(), training.collate(invented(2), 0))
    assert identity.described(evaluate) == before and identity.described(objective) == fresh
    objective.factor = 3
    assert identity.described(objective) != fresh


def test_processes_belong_to_the_run_only_where_dropout_draws():
    rows = invented(4)
    for dropout, same in ((0.0, True), (0.1, False)):
        one, two = (identity.run_identity(tiny(dropout), rows, None, n) for n in (1, 2))
        assert (one == two) is same


def test_a_folder_that_does_not_say_whose_it_is_is_left_alone(tmp_path):
    older, strange, failed = (tmp_path / name for name in ("older", "strange", "failed"))
    training.train(tiny(), invented(16), folder=older, **KNOBS)
    latest = json.loads((older / "latest.json").read_text())
    del latest["run"]
    (older / "latest.json").write_text(json.dumps(latest | {"seed": 0, "steps": 6}))  # as it was before
    (strange / "step-1000").mkdir(parents=True)  # another program's
    (strange / "step-1000" / "weights").write_text("precious")
    for folder, says in ((older, "older version"), (strange, "holds step-1000 but no latest.json")):
        before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        with pytest.raises(TrainingError, match=says):
            training.train(tiny(), invented(16), folder=folder, **KNOBS)
        assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    broken = tiny()
    broken.classifier.weight.data.fill_(math.nan)
    with pytest.raises(TrainingError, match="loss is nan"):
        training.train(broken, invented(16), folder=failed, **KNOBS)
    training.train(
        tiny(), invented(16), folder=failed, **KNOBS | {"learning_rate": 1e-4}
    )  # nothing was made yet
    with pytest.raises(TrainingError, match="learning_rate 0.0001, not learning_rate 0.001"):
        training.train(tiny(), invented(16), folder=failed, **KNOBS)


def test_a_log_without_a_checkpoint_belongs_to_its_run_too(tmp_path):
    settings = KNOBS | {"save_every": 0}
    training.train(tiny(), invented(16), folder=tmp_path, **settings)
    log = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(TrainingError, match="learning_rate"):
        training.train(tiny(), invented(16), folder=tmp_path, **settings | {"learning_rate": 1.0})
    assert (tmp_path / "log.jsonl").read_bytes() == log


def test_the_best_weights_are_those_of_the_checkpoint(tmp_path):
    """Killed after a better look, before the next checkpoint: what comes back is what ``best_step`` names."""
    scores = {3: 0.5, 6: 0.9}
    settings = KNOBS | {"save_every": 4, "steps": 7, "folder": tmp_path, "eval_every": 3}
    net, seen = tiny(), []

    def evaluate(model):
        seen.append(len(seen))
        return scores[3 * len(seen)]

    training.train(net, invented(16), until=6, evaluate=evaluate, **settings)
    wrong = load_file(tmp_path / "best.safetensors")  # of update 6, while the checkpoint is that of update 4
    history = training.train(tiny(), invented(16), until=5, evaluate=evaluate, **settings)
    assert history.best_step == 3 and history.best_score == 0.5
    back = load_file(tmp_path / "best.safetensors")
    assert not torch.equal(back["classifier.weight"], wrong["classifier.weight"])


@pytest.mark.parametrize(
    "method", [tuners.AdaLora(total_step=8, tinit=1, tfinal=2), tuners.Lora(r=2, dropout=0.2)]
)
def test_a_tuned_model_resumes_to_the_same_bits(tmp_path, method):
    """What a method keeps beside its weights (AdaLoRA's sensitivities) and adds to the loop is part of the checkpoint."""

    def run(folder, until=None):
        net = tuners.inject(tiny(), method, seed=0)
        settings = KNOBS | {"steps": 8, "learning_rate": 1e-2, "save_every": 3}
        training.train(
            net, invented(40), folder=tmp_path / folder, until=until, **settings, **tuners.extras(net)
        )
        return net.state_dict()

    calm = run("calm")
    run("cut", until=5)
    resumed = run("cut")
    assert calm.keys() == resumed.keys() and all(torch.equal(calm[name], resumed[name]) for name in calm)


def test_damaged_best_weights_get_a_sentence(tmp_path):
    settings = KNOBS | SAME | {"save_every": 2, "folder": tmp_path}
    training.train(tiny(), invented(16), **settings)
    best = tmp_path / "step-000006" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:50])
    with pytest.raises(TrainingError, match="cannot be resumed .* delete the folder"):
        training.train(tiny(), invented(16), **settings)


def test_a_cached_line_belongs_to_its_profile(tmp_path):
    smoke, laptop = (
        Run("x", profile, 0, "cpu", tmp_path, tmp_path, SimpleNamespace()) for profile in ("smoke", "laptop")
    )
    smoke.line({"method": "a", "sizes": (1, 2)}, accuracy=0.5)
    assert smoke.have({"method": "a", "sizes": (1, 2)})["accuracy"] == 0.5
    assert laptop.have({"method": "a", "sizes": (1, 2)}) is None


# --- what must survive a power cut ------------------------------------------------------------------------------------


def test_all_that_a_checkpoint_needs_is_flushed_to_the_disk(tmp_path, monkeypatch):
    """Every file and folder that is left was fsynced after its last change; each was seen by its inode."""
    flushed: dict[int, int] = {}

    def fsync(handle):
        found = os.fstat(handle)
        flushed[found.st_ino] = found.st_mtime_ns

    monkeypatch.setattr(os, "fsync", fsync)
    folder = tmp_path / "new" / "run"
    training.train(tiny(), invented(16), folder=folder, **KNOBS | SAME)
    left = [folder.parent, folder, *folder.rglob("*")]
    names = {path.relative_to(folder.parent).as_posix() for path in left}
    assert {"run/step-000006/model.safetensors", "run/step-000006/optimizer.safetensors"} <= names
    for path in left:
        found = path.stat()
        if path == folder:  # the old checkpoint's removal need not last
            assert found.st_ino in flushed
        else:
            assert flushed.get(found.st_ino) == found.st_mtime_ns, path
    assert (
        flushed[tmp_path.stat().st_ino] == tmp_path.stat().st_mtime_ns
    )  # which holds the name of a new folder


def test_new_files_get_their_names_flushed(tmp_path, monkeypatch):
    folders = []
    monkeypatch.setattr(os, "fsync", lambda handle: folders.append(os.fstat(handle).st_ino))
    files.append_line(tmp_path / "a" / "b" / "lines.jsonl", {"n": 1})
    files.write_with(tmp_path / "c" / "x.bin", lambda place: place.write_bytes(b"1"))
    for place in (".", "a", "a/b", "a/b/lines.jsonl", "c", "c/x.bin"):
        assert (tmp_path / place).stat().st_ino in folders, place
    folders.clear()
    (tmp_path / "rows.jsonl").write_bytes(b'{"n": 1}\nno json\n')
    files.salvage(tmp_path / "rows.jsonl")
    assert (tmp_path / "rows.damaged.txt").stat().st_ino in folders and tmp_path.stat().st_ino in folders


def test_a_writer_that_fails_leaves_the_old_file_alone(tmp_path):
    path = files.write_text(tmp_path / "x.bin", "old")

    def half(place):
        place.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.write_with(path, half)
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"] and path.read_text() == "old"


# --- random states ----------------------------------------------------------------------------------------------------


def test_the_generators_of_cuda_are_stored_and_restored(tmp_path, monkeypatch):
    """A pretend CUDA with two devices: its states go into the checkpoint, and come back."""
    states = [torch.arange(16, dtype=torch.uint8) + 100 * n for n in range(2)]
    restored: dict[int, torch.Tensor] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [state.clone() for state in states])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(states))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, i: restored.update({i: state}))
    net = tiny(0.0)
    optimizer = torch.optim.AdamW(net.parameters())
    training.training_step(net, optimizer, [training.collate(invented(4), 0)], 1e-3, 1.0)
    checkpoints.save_checkpoint(tmp_path, net, optimizer, {"step": 1})
    stored = load_file(tmp_path / "step-000001" / "optimizer.safetensors")
    assert torch.equal(stored["cuda_random_state.1"], states[1])
    fresh = torch.optim.AdamW(net.parameters())
    assert checkpoints.load_checkpoint(tmp_path, net, fresh)["step"] == 1
    assert sorted(restored) == [0, 1] and all(torch.equal(restored[i], states[i]) for i in restored)
    assert fresh.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()
    states.pop()  # a machine with one device goes on
    restored.clear()
    assert checkpoints.load_checkpoint(tmp_path, net, fresh)["step"] == 1 and list(restored) == [0]
    monkeypatch.setattr(
        torch.cuda, "is_available", lambda: False
    )  # a CPU run that a machine with a GPU began
    assert checkpoints.load_checkpoint(tmp_path, net, fresh)["step"] == 1


# --- dtypes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*TYPES, torch.float16])
@pytest.mark.parametrize("max_norm", [0.01, 1e6])
def test_clipping_equals_torch_in_float32_of_the_same_gradients(dtype, max_norm):
    generator = torch.Generator().manual_seed(3)
    gradients = [torch.randn(n, 3, generator=generator).to(dtype) for n in (1, 4, 7, 300)]
    ours, theirs = ([torch.nn.Parameter(torch.zeros_like(g)) for g in gradients] for _ in "ab")
    wide = torch.promote_types(dtype, torch.float32)
    for p, q, g in zip(ours, theirs, gradients, strict=True):
        p.grad, q.data = g.clone(), q.data.to(wide)
        q.grad = g.to(wide)
    norm = training.clip_gradients(ours, max_norm)
    assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(theirs, max_norm).item(), rel=1e-6)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.grad.to(wide), q.grad, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_a_norm_that_float16_does_not_hold_is_clipped_and_not_infinite():
    """Sum of squares far above 65,504: in float16 the norm is infinite, and the finite gradient would become 0 or NaN."""
    p = torch.nn.Parameter(torch.zeros(1000, dtype=torch.float16))
    p.grad = torch.full_like(p, 3000.0)
    assert training.clip_gradients([p], 1.0) == pytest.approx(3000 * 1000**0.5, rel=1e-3)
    assert p.grad.float().norm().item() == pytest.approx(1.0, rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_in_16_bits_are_summed_in_float32(dtype):
    """20,000 losses of about 7 nats: their sum overflows float16, and bfloat16 keeps three digits of it."""
    net = torch.nn.Linear(1, 1, bias=False)
    batches = [{"labels": torch.zeros(10_000, dtype=torch.int64)}] * 2
    losses = torch.full((10_000,), 7.03125).to(dtype)

    def objective(model, batch):
        return losses + (0 * model.weight.sum()).to(dtype)

    mean, _ = training.training_step(net, torch.optim.SGD(net.parameters()), batches, 0.0, 1.0, objective)
    assert mean == pytest.approx(7.03125, rel=1e-6)


def head(dtype: torch.dtype) -> torch.nn.Module:
    torch.manual_seed(0)
    table, out = torch.nn.Embedding(100, 6), torch.nn.Linear(6, 3)
    net = torch.nn.Module()
    net.table, net.out, net.scale = table, out, torch.nn.Parameter(torch.tensor(1.5))
    net.forward = lambda input_ids, attention_mask: SimpleNamespace(
        logits=net.out(net.table(input_ids)[:, 0]) * net.scale
    )
    return net.to(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("theirs", [get_linear_schedule_with_warmup, get_cosine_schedule_with_warmup])
def test_updates_equal_torch_with_the_librarys_schedule(dtype, theirs):
    """Six updates of AdamW from the same gradients: decay groups, clipping, schedule; a scalar is trained as well."""
    ours, library = head(dtype), head(dtype)
    schedule = training.linear_schedule if "linear" in theirs.__name__ else training.cosine_schedule
    batch, steps = training.collate(invented(12, longest=5), 0), 6
    mine = torch.optim.AdamW(training.parameter_groups(ours, 0.1))
    flat = [library.out.bias, library.scale]
    groups = [
        {"params": [library.table.weight, library.out.weight], "weight_decay": 0.1},
        {"params": flat, "weight_decay": 0.0},
    ]
    other = torch.optim.AdamW(groups, lr=1e-2)
    planned = theirs(other, 2, steps)
    for step in range(steps):
        training.training_step(ours, mine, [batch], 1e-2 * schedule(step, steps, 2), 0.05)
        logits = losses.upcast(library(batch["input_ids"], None).logits)
        torch.nn.functional.cross_entropy(logits, batch["labels"]).backward()
        torch.nn.utils.clip_grad_norm_(library.parameters(), 0.05)
        other.step()
        planned.step()
        other.zero_grad()
    assert ours.scale.item() != 1.5
    for p, q in zip(ours.parameters(), library.parameters(), strict=True):
        assert p.dtype == dtype
        torch.testing.assert_close(p, q, rtol=4 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", TYPES)
def test_accumulation_equals_the_full_batch_in_every_dtype(dtype):
    """The mean over all targets and its gradient; three micro-batches with 20, 2 and 1 targets."""
    rows, found = invented(23, longest=5), []
    for cuts in ([23], [20, 2, 1]):
        net, begin, micro = head(dtype), 0, []
        for size in cuts:
            micro.append(training.collate(rows[begin : begin + size], 0))
            begin += size
        kept: dict[str, torch.Tensor] = {}
        optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
        optimizer.register_step_pre_hook(
            lambda *_, net=net, kept=kept: kept.update({n: p.grad.clone() for n, p in net.named_parameters()})
        )
        loss, norm = training.training_step(net, optimizer, micro, 0.0, 1e9)
        found.append((loss, norm, kept))
    (loss, norm, gradients), (split_loss, split_norm, split) = found
    near = 8 * torch.finfo(dtype).eps
    assert split_loss == pytest.approx(loss, rel=near) and split_norm == pytest.approx(norm, rel=near)
    for name, gradient in gradients.items():
        torch.testing.assert_close(split[name], gradient, rtol=2 * near, atol=near * norm)


def test_training_in_float16_is_refused_and_its_reason_is_true():
    with pytest.raises(TrainingError, match=r"is float16.*model\.float\(\)"):
        training.train(tiny(dtype=torch.float16), invented(8), **KNOBS)
    moved = {}
    for dtype in (torch.float16, torch.float32):  # the same small gradient in each of 200 updates
        p = torch.nn.Parameter(torch.zeros(4, dtype=dtype))
        optimizer = torch.optim.AdamW([p], lr=1e-3, weight_decay=0.0, fused=True)
        for _ in range(200):
            p.grad = torch.full_like(p, 1e-5)
            optimizer.step()
        moved[dtype] = -p[0].item()
    assert moved[torch.float32] == pytest.approx(0.2, rel=1e-2) and moved[torch.float16] > 0.4
