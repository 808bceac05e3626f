"""Lesson 09: LoRA, rsLoRA, DoRA, PiSSA, VeRA and AdaLoRA equal peft's, in outputs, updates and files."""

from __future__ import annotations

import ast
import copy
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from test_training import invented
from test_tuners import IDS, bert, llama, moved

from instructlab_utils import models, training, tuners, updates
from instructlab_utils.errors import TrainingError
from instructlab_utils.tuners import base
from instructlab_utils.tuners.adalora import AdaLoraLinear
from instructlab_utils.tuners.lora import ALL_LINEAR, DoraLinear, LoraLinear
from instructlab_utils.tuners.vera import VeraLinear

TOTAL = 10
METHODS = {
    "lora": tuners.Lora(r=2, alpha=6),
    "rslora": tuners.Lora(r=4, alpha=6, rslora=True),
    "dora": tuners.Lora(r=2, alpha=6, dora=True),
    "pissa": tuners.Lora(r=2, alpha=6, init="pissa"),
    "vera": tuners.Vera(r=5),
    "adalora": tuners.AdaLora(TOTAL, init_r=3, target_r=1, alpha=6, tinit=1, tfinal=3, deltaT=2),
}
MAKE = {"bert": bert, "llama": llama}
BATCH = {"labels": torch.tensor([1, 2])}


def twin(ours, make, dtype=torch.float64):
    """peft's model with the configuration and the tensors of ours, ready to train."""
    plain, method = make(), ours.tuner
    config = {k: v for k, v in method.to_peft(ours).items() if k != "rank_pattern"}
    task = base.task_type(plain)
    kind = {"LORA": peft.LoraConfig, "VERA": peft.VeraConfig, "ADALORA": peft.AdaLoraConfig}[method.peft_type]
    if getattr(method, "init", "") == "pissa":
        plain = plain.float()  # peft's PiSSA refuses float64
    theirs = peft.get_peft_model(plain, kind(task_type=task, **config)).to(dtype)
    if getattr(method, "init", "") == "pissa":  # its residual is a float32 one: take ours
        mine = {n: m for n, m in ours.named_modules() if isinstance(m, LoraLinear)}
        for name, module in mine.items():
            theirs.base_model.model.get_submodule(name).base_layer.weight.data.copy_(module.base.weight)
    set_peft_model_state_dict(theirs, {n: t.detach().clone() for n, t in method.tensors(ours).items()})
    if method.peft_type == "VERA":  # peft keeps its matrices in float32
        for name in ("vera_A", "vera_B"):
            getattr(theirs.base_model, name)["default"].data = ours_projection(ours, name).clone()
    for name, p in theirs.named_parameters():
        if "ranknum" in name:  # a constant, which copying the tensors has made trainable
            p.requires_grad_(False)
    return theirs.eval()


def ours_projection(model, name):
    layer = next(m for m in model.modules() if isinstance(m, VeraLinear))
    return getattr(layer.shared, name[-1])


def logits(model):
    return model(input_ids=IDS).logits


def loss_of(model, kind):
    labels = BATCH["labels"] if kind == "bert" else IDS
    return model(input_ids=IDS, labels=labels).loss


def agree(ours, theirs, tolerance):
    """Every saved tensor equals peft's of the same name."""
    mine, other = ours.tuner.tensors(ours), get_peft_model_state_dict(theirs)
    assert set(mine) == set(other)
    for name, tensor in mine.items():
        assert (tensor - other[name]).abs().max() <= tolerance, name


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("name", METHODS)
def test_outputs_equal_pefts(name, kind):
    ours = moved(tuners.inject(MAKE[kind](), METHODS[name]))
    theirs = twin(ours, MAKE[kind])
    assert (logits(ours) - logits(theirs)).abs().max() < 1e-10
    assert (logits(ours) - logits(MAKE[kind]())).abs().max() > 1e-3  # the method does something


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("name", METHODS)
def test_two_updates_equal_pefts(name, kind):
    ours = moved(tuners.inject(MAKE[kind](), METHODS[name]))
    theirs = twin(ours, MAKE[kind])
    mine = torch.optim.AdamW(tuners.trainable(ours).values(), lr=1e-2, weight_decay=0.0)
    other = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    for _ in range(2):
        loss = loss_of(ours, kind)
        if name == "adalora":
            loss = loss + ours.tuner.penalty(ours)
        loss.backward()
        loss_of(theirs, kind).backward()
        for optimizer in (mine, other):
            optimizer.step()
            optimizer.zero_grad()
    agree(ours, theirs, 1e-8)  # AdamW divides by the root of tiny squares


@pytest.mark.parametrize("kind", MAKE)
def test_adalora_allocates_as_peft_does(kind):
    """Ten updates with the whole schedule: the same weights, the same triplets kept, after each of them."""
    ours = tuners.inject(MAKE[kind](), METHODS["adalora"])
    theirs = twin(ours, MAKE[kind])
    mine = torch.optim.AdamW(tuners.trainable(ours).values(), lr=3e-2)
    other = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=3e-2)
    sizes = []
    for step in range(TOTAL):
        (loss_of(ours, kind) + ours.tuner.penalty(ours)).backward()
        loss_of(theirs, kind).backward()
        mine.step()
        other.step()
        ours.tuner.update(ours, step)
        theirs.base_model.update_and_allocate(step)
        mine.zero_grad()
        other.zero_grad()
        layers = ours.tuner.layers(ours)
        pattern = theirs.peft_config["default"].rank_pattern
        if pattern:
            for layer, kept in pattern.items():
                assert layers[layer.split(".lora_E")[0]].kept.tolist() == kept, (step, layer)
        for layer, module in layers.items():
            peer = theirs.base_model.model.get_submodule(layer)
            for leaf in "AEB":
                difference = getattr(module, leaf) - getattr(peer, f"lora_{leaf}")["default"]
                assert difference.abs().max() < 1e-7
        sizes.append(sum(int(layer.kept.sum()) for layer in layers.values()))
    assert sizes[0] == 3 * len(layers) and sizes[-1] == len(layers)  # from init_r to target_r on average
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) > 2
    assert (logits(ours) - logits(theirs)).abs().max() < 1e-10


@given(st.integers(1, 40), st.integers(1, 30), st.data())
@settings(max_examples=200, deadline=None)
def test_the_budget_equals_pefts(layers, init_r, data):
    from peft.tuners.adalora.layer import RankAllocator

    target_r = data.draw(st.integers(1, init_r))
    total = data.draw(st.integers(2, 60))
    tfinal = data.draw(st.integers(0, total - 1))
    tinit = data.draw(st.integers(0, total - tfinal - 1))
    method = tuners.AdaLora(total, init_r=init_r, target_r=target_r, tinit=tinit, tfinal=tfinal)
    allocator = RankAllocator.__new__(RankAllocator)
    allocator.peft_config = peft.AdaLoraConfig(
        total_step=total, init_r=init_r, target_r=target_r, tinit=tinit, tfinal=tfinal
    )
    allocator.init_bgt, allocator.target_bgt = init_r * layers, target_r * layers
    for step in range(total):
        assert method.budget(step, layers) == allocator.budget_schedule(step)[0]


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("name", METHODS)
def test_peft_reads_ours_and_we_read_peft(name, kind, tmp_path):
    def fresh():
        return MAKE[kind]().float() if name == "pissa" else MAKE[kind]()  # peft's PiSSA refuses float64

    ours = moved(tuners.inject(fresh(), METHODS[name]))
    if name == "adalora":  # some layers lose triplets, one loses all
        with torch.no_grad():
            for i, layer in enumerate(ours.tuner.layers(ours).values()):
                layer.kept[: (3 - i) % 4] = False
                layer.mask()
    tolerance = 1e-5 if name == "pissa" else 1e-10
    theirs = peft.PeftModel.from_pretrained(fresh(), tuners.save(ours, tmp_path / "ours"))
    if name != "pissa":
        theirs = theirs.double()
    # VeRA: peft holds the matrices in float32, from which ours came
    assert (logits(theirs) - logits(ours)).abs().max() < (1e-6 if name == "vera" else tolerance)
    theirs.save_pretrained(tmp_path / "theirs")
    again = tuners.load(fresh(), tmp_path / "theirs")
    assert (logits(again) - logits(ours)).abs().max() < tolerance
    assert torch.equal(logits(tuners.load(fresh(), tmp_path / "ours")), logits(ours)) or name in (
        "adalora",
        "pissa",
    )


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("name", METHODS)
def test_merge_and_unmerge(name, kind):
    ours = moved(tuners.inject(MAKE[kind](), METHODS[name]))
    before = logits(ours)
    tuners.merge(ours)
    assert (logits(ours) - before).abs().max() < 1e-12
    tuners.unmerge(ours)
    assert (logits(ours) - before).abs().max() < 1e-12
    merged = twin(ours, MAKE[kind]).merge_and_unload()
    tuners.merge(ours, unload=True)
    assert not any(isinstance(m, base.Tuned) for m in ours.modules())
    assert (logits(ours) - logits(merged)).abs().max() < 1e-10


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("name", METHODS)
def test_the_first_output_is_that_of_the_plain_model(name, kind):
    plain, ours = MAKE[kind](), tuners.inject(MAKE[kind](), METHODS[name])
    if name == "pissa":  # the weight was taken apart and put together again
        assert (logits(ours) - logits(plain)).abs().max() < 1e-12
    else:
        assert torch.equal(logits(ours), logits(plain))


@pytest.mark.parametrize("name", METHODS)
def test_gradients_exist_where_they_should(name):
    ours = moved(tuners.inject(bert(), METHODS[name]))
    loss_of(ours, "bert").backward()
    with_gradient = {n for n, p in ours.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    leaves = {"dora": "ABm", "vera": "bd", "adalora": "AEB"}.get(name, "AB")
    wanted = {
        f"bert.encoder.layer.{i}.attention.self.{side}.{leaf}"
        for i in range(2)
        for side in ("query", "value")
        for leaf in leaves
    }
    assert with_gradient == wanted | {"classifier.weight", "classifier.bias"} == set(tuners.trainable(ours))


@pytest.mark.parametrize("r", [1, 3])
@pytest.mark.parametrize("kind", MAKE)
def test_parameter_counts_equal_the_formulas(kind, r):
    plain = MAKE[kind]()
    targets = ALL_LINEAR[kind]
    shapes = [m.weight.shape for m in base.find(plain, targets).values()]
    blocks = plain.bert.encoder.layer if kind == "bert" else plain.model.layers
    assert len(shapes) == sum(isinstance(m, torch.nn.Linear) for m in blocks.modules())  # all, and no pooler
    head = sum(p.numel() for name in base.heads(plain) for p in getattr(plain, name).parameters())
    low = sum(r * (tall + wide) for tall, wide in shapes)
    for method, count in (
        (tuners.Lora(r=r, targets=targets), low),
        (tuners.Lora(r=r, targets=targets, rslora=True), low),
        (tuners.Lora(r=r, targets=targets, init="pissa"), low),
        (tuners.Lora(r=r, targets=targets, dora=True), low + sum(tall for tall, _ in shapes)),
        (tuners.Vera(r=r, targets=targets), sum(r + tall for tall, _ in shapes)),
        (tuners.AdaLora(5, init_r=r, target_r=1, targets=targets), low + r * len(shapes)),
    ):
        model = tuners.inject(MAKE[kind](), method)
        assert sum(p.numel() for p in tuners.trainable(model).values()) == count + head


REAL = {"encoder": lambda: models.load_classifier(2), "decoder": models.load_decoder}


@pytest.mark.parametrize("role", REAL)
def test_on_the_real_models(role, tmp_path):
    """Float32: outputs and files of every method against peft's, on the encoder and the decoder."""
    tokenizer = models.load_tokenizer(role)
    batch = tokenizer(["a joy to watch", "dull"], return_tensors="pt", padding=True)
    plain = REAL[role]()
    for name in METHODS:
        method = METHODS[name]
        if (
            role == "decoder" and name == "pissa"
        ):  # sixty decompositions more; the encoder's twelve show the same
            continue
        ours = moved(tuners.inject(copy.deepcopy(plain), method))
        folder = tuners.save(ours, tmp_path / name)
        theirs = peft.PeftModel.from_pretrained(copy.deepcopy(plain), folder)
        with torch.no_grad():
            mine, other = ours(**batch).logits, theirs(**batch).logits
        real = batch["attention_mask"].bool() if role == "decoder" else slice(None)
        assert (mine - other)[real].abs().max() <= 1e-5 * other[real].abs().max(), name
        assert isinstance(theirs.peft_config["default"].peft_type, peft.PeftType)
        del ours, theirs


# --- what peft cannot check -----------------------------------------------------------------------------------------


def test_dropout_hits_only_the_tuned_part():
    """An independent second implementation: the change as a forward hook, with the same mask drawn by hand."""
    for method in (tuners.Lora(r=2, dropout=0.5), tuners.Lora(r=2, dropout=0.5, dora=True)):
        ours = moved(
            tuners.inject(
                torch.nn.ModuleDict({"query": torch.nn.Linear(6, 5).double()}),
                tuners.Lora(r=2, dropout=0.5, targets=("query",), dora=method.dora),
            )
        ).train()
        layer = ours["query"]
        x = torch.randn(4, 6, dtype=torch.float64)
        torch.manual_seed(3)
        got = layer(x)
        torch.manual_seed(3)
        masked = torch.nn.functional.dropout(x, 0.5)
        W = layer.base.weight
        change = layer.scale * layer.B @ layer.A
        if method.dora:
            assert isinstance(layer, DoraLinear)
            change = (layer.m / (W + change).norm(dim=1))[:, None] * (W + change) - W
        assert (got - layer.base(x) - masked @ change.T).abs().max() < 1e-12


def test_dora_sets_the_rows_norms():
    ours = moved(tuners.inject(bert(), METHODS["dora"]))
    tuners.merge(ours)
    layers = [m for m in ours.modules() if isinstance(m, DoraLinear)]
    assert len(layers) == 4
    for layer in layers:
        torch.testing.assert_close(layer.base.weight.norm(dim=1), layer.m.data.abs())


def test_pissa_takes_the_largest_part_out_of_the_weight():
    plain, ours = bert(), tuners.inject(bert(), METHODS["pissa"])
    for name, layer in ours.named_modules():
        if isinstance(layer, LoraLinear):
            W = plain.get_submodule(name).weight
            singular = torch.linalg.svdvals(W)
            torch.testing.assert_close(torch.linalg.svdvals(layer.base.weight)[:14], singular[2:])
            torch.testing.assert_close(torch.linalg.svdvals(layer.delta().detach())[:2], singular[:2])


def test_vera_shares_its_matrices_and_saves_them_once(tmp_path):
    ours = tuners.inject(bert(), tuners.Vera(r=5, targets=ALL_LINEAR["bert"]))
    shared = {id(m.shared) for m in ours.modules() if isinstance(m, VeraLinear)}
    assert len(shared) == 1 and not any("shared" in name for name in ours.state_dict())
    assert not any("shared" in name for name in tuners.trainable(ours))
    names = ours.tuner.tensors(ours)
    assert names["base_model.vera_A"].shape == (5, 32) and names["base_model.vera_B"].shape == (32, 5)
    ours.to(torch.float32)
    assert len({m.shared.A.data_ptr() for m in ours.modules() if isinstance(m, VeraLinear)}) == 1
    other = tuners.inject(bert(), tuners.Vera(r=5, projection_seed=1))
    assert not torch.equal(ours_projection(other, "vera_A")[:, :16], names["base_model.vera_A"][:, :16])


def test_vera_reads_a_file_without_matrices(tmp_path):
    config = peft.VeraConfig(task_type="SEQ_CLS", r=5, target_modules=["query"], save_projection=False)
    theirs = peft.get_peft_model(bert().float(), config).eval()
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if "vera_lambda_b" in name:
                p += 0.5
    theirs.save_pretrained(tmp_path)
    ours = tuners.load(bert().float(), tmp_path)
    assert (logits(ours) - logits(theirs)).abs().max() < 1e-6


def test_adalora_in_the_training_loop_and_after_a_kill(tmp_path):
    """`extras` adds penalty and allocation; killed and resumed, the run ends with the same bits and the same ranks."""
    method = tuners.AdaLora(TOTAL, init_r=3, target_r=1, tinit=1, tfinal=3, deltaT=2)

    def run(folder=None, until=None):
        net = tuners.inject(bert(), method)
        examples = [{**e, "input_ids": [i % 50 for i in e["input_ids"]]} for e in invented(24)]
        history = training.train(
            net, examples, steps=TOTAL, learning_rate=1e-2, pad_id=0, batch_size=4, folder=folder, save_every=2,
            until=until, **tuners.extras(net),
        )  # fmt: skip
        return net, history

    straight, history = run()
    ranks = {name: int(layer.kept.sum()) for name, layer in straight.tuner.layers(straight).items()}
    assert sum(ranks.values()) == len(ranks) and len(history.losses) == TOTAL
    assert all((layer.E[~layer.kept] == 0).all() for layer in straight.tuner.layers(straight).values())
    plain = tuners.inject(bert(), method)
    with torch.no_grad():
        assert plain.tuner.penalty(plain) > 0.5  # the printed loss holds it
    run(tmp_path, until=7)
    resumed, again = run(tmp_path)
    assert again.losses == history.losses
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_extras_of_a_plain_method_are_its_objective():
    model = tuners.inject(bert(), tuners.Lora(r=2))
    assert tuners.extras(model) == {"objective": training.target_losses}
    with pytest.raises(TrainingError, match="carries no tuning method"):
        tuners.extras(bert())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: tuners.Lora(r=0), "rank must be 1 or more"),
        (lambda: tuners.Lora(init="svd"), "choose kaiming or pissa"),
        (lambda: tuners.Lora(dora=True, init="pissa"), "choose one of the two"),
        (lambda: tuners.AdaLora(), "say how many updates"),
        (lambda: tuners.AdaLora(10, tinit=5, tfinal=5), "leave no update"),
        (lambda: tuners.AdaLora(10, init_r=2, target_r=3), "from 1 to init_r"),
        (lambda: tuners.inject(bert(), tuners.Vera(targets=("q",))), "no Linear named 'q'.*query"),
        (lambda: tuners.inject(llama(), tuners.AdaLora(10, targets=("query",))), "named 'query'.*q_proj"),
    ],
)
def test_mistakes_are_one_sentence(make, says):
    with pytest.raises(TrainingError, match=says):
        make()


def test_variants_that_we_lack_are_refused(tmp_path):
    """More of them in tests/test_weights.py."""
    for change in (
        {"use_qalora": True},
        {"bias": "vera_only"},
        {"target_modules": ".*query"},
        {"init_lora_weights": "olora"},
    ):
        tuners.save(tuners.inject(bert(), tuners.Lora(r=2)), tmp_path)
        config = json.loads((tmp_path / base.CONFIG).read_text())
        (tmp_path / base.CONFIG).write_text(json.dumps(config | change))
        with pytest.raises(TrainingError, match=next(iter(change))):
            tuners.load(bert(), tmp_path)


def test_the_classes_of_the_tuned_layers():
    kinds = {"lora": LoraLinear, "dora": DoraLinear, "vera": VeraLinear, "adalora": AdaLoraLinear}
    for name, kind in kinds.items():
        ours = tuners.inject(llama(), METHODS[name])
        assert sum(type(m) is kind for m in ours.modules()) == 4


def test_merged_equals_unmerged_on_the_real_encoder():
    """LR6: float32, a trained-looking adapter; after `unload` nothing of LoRA is left in the model."""
    plain = models.load_classifier(2)
    modules = [name for name, _ in plain.named_modules()]
    ours = moved(tuners.inject(plain, tuners.Lora(r=8)))
    ids = torch.arange(1000, 1060).view(4, 15)
    before = ours(input_ids=ids).logits
    tuners.merge(ours, unload=True)
    after = ours(input_ids=ids).logits
    assert (after - before).abs().max() <= 1e-5 * before.abs().max()
    assert [name for name, _ in ours.named_modules()] == modules


def test_rs1_gradient_norms_against_the_rank():
    """RS1: slopes in logarithms of the norm of all gradients of B at the first step, ranks 2 to 128."""
    ids, labels = torch.arange(1000, 1060).view(4, 15), torch.tensor([0, 1, 0, 1])
    plain, ranks = models.load_classifier(2), [2, 8, 32, 128]
    slopes = {}
    for rslora in (False, True):
        norms = []
        for r in ranks:
            net = tuners.inject(copy.deepcopy(plain), tuners.Lora(r=r, alpha=8, rslora=rslora))
            net(input_ids=ids, labels=labels).loss.backward()
            gradients = [p.grad.norm() for name, p in tuners.trainable(net).items() if name.endswith(".B")]
            norms.append(torch.stack(gradients).norm().log2())
        slopes[rslora] = ((norms[-1] - norms[0]) / 6).item()
    assert abs(slopes[False] + 0.5) < 0.1 and abs(slopes[True]) < 0.1


# --- what stands in an update: examples worked out by hand -------------------------------------------------------------


def outer(*parts):
    """The sum of size u v^T, in six dimensions."""
    return sum(size * torch.outer(u, v) for size, u, v in parts)


e = torch.eye(6, dtype=torch.float64)


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.2])
def test_overlap_of_subspaces_with_a_known_angle(angle):
    c = np.cos(angle)
    turned = c * e[0] + np.sin(angle) * e[2]
    D, E = outer((3, e[4], e[0]), (2, e[5], e[1])), outer((5, e[0], turned), (1, e[3], -e[1]))
    phi = updates.overlap(D, E, 2, 2)
    assert np.allclose(phi, [[c**2, c**2], [c**2, (c**2 + 1) / 2]])
    assert np.allclose(updates.overlap(E, D, 2, 2), phi.T)
    assert np.allclose(updates.overlap(7 * D, -E, 2, 2), phi)  # neither size nor sign counts


def test_overlap_of_random_directions_is_that_of_chance():
    torch.manual_seed(0)
    found = [updates.overlap(torch.randn(40, 40), torch.randn(40, 40), 1, 8)[0] for _ in range(60)]
    assert np.allclose(np.mean(found, axis=0)[[0, 7]], [1 / 40, 8 / 40], atol=0.03)


def test_projection_is_what_the_weight_does_in_the_updates_directions():
    W = torch.diag(torch.tensor([6.0, 5, 4, 3, 2, 1], dtype=torch.float64))
    assert updates.projection(outer((9, e[1], e[1])), W, 1) == pytest.approx(5)
    assert updates.projection(outer((9, e[1], e[2])), W, 1) == pytest.approx(
        0, abs=1e-12
    )  # W never leads there
    assert updates.projection(outer((9, e[1], e[1]), (1, e[3], e[3])), W, 2) == pytest.approx((25 + 9) ** 0.5)
    assert updates.projection(W, W, 2) == pytest.approx((36 + 25) ** 0.5)


def test_lengths_and_directions_by_hand():
    W0, W = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[6.0, 8.0], [2.0, 0.0]])
    assert updates.lengths_and_directions(W, W0) == pytest.approx(
        (2.5, 0.5)
    )  # longer by 5; turned by 90 degrees
    assert updates.lengths_and_directions(-W0, W0) == pytest.approx((0, 2))


def test_dora_turns_what_lora_cannot_hold_apart():
    """Of a DoRA layer only m changes the lengths, and the merged weight is the one that multiplies."""
    layer = moved(tuners.inject(bert(), METHODS["dora"])).get_submodule(
        "bert.encoder.layer.0.attention.self.query"
    )
    with torch.no_grad():
        W0, norm = layer.base.weight, layer.base.weight.norm(dim=1)
        layer.m.copy_(norm)
        longer, turned = updates.lengths_and_directions(layer.folded(W0), W0)
        assert longer < 1e-12 < turned
        layer.m.copy_(norm + 0.25)
        assert updates.lengths_and_directions(layer.folded(W0), W0) == pytest.approx((0.25, turned))


def of_the_experiment(**known):
    """The functions of the notebook of `lora_weights` that need no model."""
    path = Path(__file__).parents[1] / "notebooks" / "experiments" / "source" / "lora_weights.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in ("z", "places")]
    from scipy import stats

    found = {"np": np, "stats": stats, **known}
    exec(compile(tree, str(path), "exec"), found)
    return SimpleNamespace(**found)


def test_statistics_of_the_experiment_by_hand():
    theirs = of_the_experiment(seed=0, settings=SimpleNamespace(shuffles=200))
    kept = np.array([[1, 1, 1, 1, 3, 3]] * 3 + [[2, 2, 2, 2, 4, 4]] * 3).ravel().tolist()
    found = theirs.places(kept, kept)
    assert found["ffn"] == pytest.approx(2) and found["upper"] == pytest.approx(1)
    assert found["agreement"] == pytest.approx(1) and found["chance"] <= 0.01
    assert theirs.places(kept, [5 - each for each in kept])["agreement"] == pytest.approx(-1)
    # 36 matrices, nine of each number: 1 of 6 pairs of numbers stands in the wrong order, 5 in the right one
    assert theirs.places([1, 2, 3, 4] * 9, [1, 2, 4, 3] * 9)["agreement"] == pytest.approx(4 / 6)
    points = np.array(
        [[[0.0, 1.0], [1.0, 3.0]], [[2.0, 2.0], [3.0, 4.0]]]
    )  # lengths 0 1 2 3, directions 1 3 2 4
    assert theirs.z(points) == pytest.approx(np.arctanh(0.8))
