"""Adapters, IA3, BitFit, LayerNorms, top layers: equal to peft where it has them, to forward hooks where it has not."""

from __future__ import annotations

import copy
import json
from contextlib import ExitStack

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from instructlab_utils import models, training, tuners
from instructlab_utils.errors import TrainingError
from instructlab_utils.tuners import adapters, base

D, F, L = 16, 32, 2  # width, inner width of the feed-forward network, layers
IDS = torch.tensor([[5, 6, 7, 8, 3], [9, 10, 11, 12, 4]])
TARGETS = torch.tensor([2, 0])
METHODS = {
    "houlsby": tuners.Houlsby(size=3),
    "pfeiffer": tuners.Pfeiffer(size=3),
    "parallel": tuners.Parallel(size=3, scale=2.0),
    "ia3": tuners.IA3(),
    "bitfit": tuners.BitFit(),
    "layer_norms": tuners.LayerNorms(),
    "top": tuners.TopLayers(1),
    "head": tuners.HeadOnly(),
}
ON_A_DECODER = [name for name in METHODS if name not in ("bitfit", "head")]


def bert(seed=0):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50, hidden_size=D, num_hidden_layers=L, num_attention_heads=2, intermediate_size=F,
        num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return shaken(BertForSequenceClassification(config).double().eval())


def llama(seed=0, kind=LlamaForCausalLM):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=50, hidden_size=D, num_hidden_layers=L, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=F, num_labels=3, pad_token_id=0,
    )  # fmt: skip
    return shaken(kind(config).double().eval())


def shaken(model, size=0.1, only=None):
    """The model with its parameters (those called ``only``) away from their values: a fresh bias is 0 and hides mistakes."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if only is None or name in only:
                p += size * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
    return model


def moved(model, size=0.3):
    return shaken(model, size, tuners.trainable(model))


def loss_of(model, ids=IDS):
    logits = model(input_ids=ids).logits
    if logits.ndim == 3:
        return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    return torch.nn.functional.cross_entropy(logits, TARGETS)


def close(a, b, tolerance):
    """Relative to the largest magnitude."""
    assert a.shape == b.shape
    assert (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1.0)


# --- what trains, and how many numbers that is -----------------------------------------------------------------------

HEAD = 3 * D + 3
ONE = 2 * D * 3 + D + 3  # a bottleneck of size 3
BERT_COUNTS = {
    "houlsby": 2 * L * ONE + 2 * D * (2 * L + 1),
    "pfeiffer": L * ONE,
    "parallel": L * ONE,
    "ia3": L * (3 * D + F),
    "bitfit": L * (7 * D + F) + 2 * D,
    "layer_norms": 2 * D * (2 * L + 1),
    "top": 4 * (D * D + D) + 2 * D * F + F + D + 4 * D + D * D + D,
    "head": 0,
}
KV = D // 2  # two of four heads
LLAMA_COUNTS = {
    "houlsby": 2 * L * ONE + D * (2 * L + 1),
    "pfeiffer": L * ONE,
    "parallel": L * ONE,
    "ia3": L * (2 * KV + F),
    "layer_norms": D * (2 * L + 1),
    "top": 2 * D * D + 2 * D * KV + 3 * D * F + 2 * D + D,
}


@pytest.mark.parametrize("name", METHODS)
def test_counts_equal_the_formula_and_gradients_are_exactly_there(name):
    model = tuners.inject(bert(), METHODS[name])
    chosen = tuners.trainable(model)
    assert sum(p.numel() for p in chosen.values()) == BERT_COUNTS[name] + HEAD
    loss_of(moved(model)).backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(chosen)
    # a bias of the keys shifts all scores of a query alike, and softmax does not see it
    silent = {n for n, p in chosen.items() if p.grad.abs().max() < 1e-14}
    assert all(n.endswith("key.bias") for n in silent)


@pytest.mark.parametrize("name", ON_A_DECODER)
def test_counts_and_gradients_on_a_decoder(name):
    model = tuners.inject(llama(), METHODS[name])
    chosen = tuners.trainable(model)
    assert sum(p.numel() for p in chosen.values()) == LLAMA_COUNTS[name]
    loss_of(moved(model)).backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(chosen)
    assert all(p.grad.abs().max() > 0 for p in chosen.values())


@pytest.mark.parametrize("make", [bert, llama])
@pytest.mark.parametrize("name", ON_A_DECODER)
def test_a_fresh_method_leaves_the_model_as_it_was(name, make):
    before = make()(input_ids=IDS).logits
    after = tuners.inject(make(), METHODS[name], seed=5)(input_ids=IDS).logits
    if name in ("houlsby", "pfeiffer"):  # near the identity, not equal to it
        assert not torch.equal(before, after)
        close(after, before, 1e-4)
    else:
        assert torch.equal(before, after)


def test_first_values_depend_on_the_seed_alone():
    name = "bert.encoder.layer.1.output.dense.W_up"
    first, again, other = (tuners.inject(bert(), METHODS["houlsby"], seed=s) for s in (3, 3, 4))
    assert torch.equal(first.get_parameter(name), again.get_parameter(name))
    assert not torch.equal(first.get_parameter(name), other.get_parameter(name))
    assert first.get_parameter(name).abs().max() <= 2e-3


# --- peft has no bottlenecks: forward hooks on an untouched model are the second implementation ----------------------


def gelu(z):
    return 0.5 * z * (1 + torch.erf(z / 2**0.5))


def hooked(plain, model):
    """``plain`` with hooks that add what the bottlenecks of ``model`` would add, written without its code."""
    weights = dict(model.named_parameters())
    for path, module in list(plain.named_modules()):
        if f"{path}.W_down" not in weights:
            continue
        found = {n: weights[f"{path}.{n}"].detach() for n in ("W_down", "b_down", "W_up", "b_up")}

        def change(h, w=found):
            inner = gelu(torch.einsum("...d,md->...m", h, w["W_down"]) + w["b_down"])
            return torch.einsum("...m,dm->...d", inner, w["W_up"]) + w["b_up"]

        if not isinstance(model.get_submodule(path), adapters.ParallelBottleneck):
            module.register_forward_hook(lambda m, x, h, f=change: h + f(h))
        elif hasattr(module, "dense"):  # BERT: the change must come before the LayerNorm of this module
            scale, seen = model.get_submodule(path).scale, []
            module.register_forward_pre_hook(lambda m, x, seen=seen: seen.append(x[-1]))
            module.dropout.register_forward_hook(
                lambda m, x, h, f=change, s=scale, seen=seen: h + s * f(seen.pop())
            )
        else:
            scale = model.get_submodule(path).scale
            module.register_forward_hook(lambda m, x, h, f=change, s=scale: h + s * f(x[0]))
    for name, p in plain.named_parameters():  # LayerNorms and head, where they train
        own = weights.get(name)
        if own is not None:
            p.data.copy_(own.detach())
    return plain


@pytest.mark.parametrize("make", [bert, llama])
@pytest.mark.parametrize("name", ["houlsby", "pfeiffer", "parallel"])
def test_bottlenecks_equal_forward_hooks(name, make):
    model = moved(tuners.inject(make(), METHODS[name]))
    other = hooked(make(), model)
    close(model(input_ids=IDS).logits, other(input_ids=IDS).logits, 1e-10)
    assert not torch.allclose(model(input_ids=IDS).logits, make()(input_ids=IDS).logits, atol=1e-2)


@pytest.mark.parametrize("name", ["houlsby", "pfeiffer", "parallel"])
def test_bottlenecks_stand_where_they_should(name):
    model = tuners.inject(bert(), METHODS[name])
    places = [n for n, m in model.named_modules() if isinstance(m, adapters.Bottleneck)]
    inner = {
        "houlsby": ["attention.output.dense", "output.dense"],
        "pfeiffer": ["output.dense"],
        "parallel": ["output"],
    }
    assert places == [f"bert.encoder.layer.{i}.{place}" for i in range(L) for place in inner[name]]


@pytest.mark.parametrize("make", [bert, llama])
@pytest.mark.parametrize("name", ["houlsby", "parallel"])
def test_adapters_are_removed_for_a_while(name, make):
    model = moved(tuners.inject(make(), METHODS[name]))
    whole = model(input_ids=IDS).logits
    with tuners.without_adapters(model, (0,)):
        part = model(input_ids=IDS).logits
    with tuners.without_adapters(model, (0, 1)):
        none = model(input_ids=IDS).logits
    assert torch.equal(model(input_ids=IDS).logits, whole)
    assert not torch.allclose(part, whole, atol=1e-3) and not torch.allclose(part, none, atol=1e-3)
    bare = make()
    for path, p in bare.named_parameters():
        if (own := dict(model.named_parameters()).get(path)) is not None:
            p.data.copy_(own.detach())
    close(none, bare(input_ids=IDS).logits, 1e-12)
    with pytest.raises(TrainingError, match=r"layer 2 has no adapters: choose among 0 … 1"):
        ExitStack().enter_context(tuners.without_adapters(model, (2,)))


@pytest.mark.parametrize("name", ["houlsby", "pfeiffer", "parallel"])
def test_a_bottleneck_cannot_be_merged(name):
    with pytest.raises(TrainingError, match="cannot be merged: a non-linear function stands between"):
        tuners.merge(tuners.inject(bert(), METHODS[name]))


# --- peft ------------------------------------------------------------------------------------------------------------


def configured(name, model):
    kind = "CAUSAL_LM" if isinstance(model, LlamaForCausalLM) else "SEQ_CLS"
    if name == "ia3":
        return peft.IA3Config(task_type=kind)
    targets = ["LayerNorm"] if isinstance(model, BertForSequenceClassification) else None
    return peft.LNTuningConfig(task_type=kind, target_modules=targets)


def llama_classifier():
    return llama(kind=LlamaForSequenceClassification)


def both(name, make):
    """Ours and peft's, with the same weights away from their first values; peft gets ours through its own file names."""
    ours = moved(tuners.inject(make(), METHODS[name]))
    model = make()
    theirs = peft.get_peft_model(model, configured(name, model)).eval()
    state = {n: t.detach().clone() for n, t in ours.tuner.tensors(ours).items()}
    found = peft.set_peft_model_state_dict(theirs, state)
    assert not found.unexpected_keys
    assert sorted(peft.get_peft_model_state_dict(theirs)) == sorted(state)
    return ours, theirs


MAKERS = [bert, llama, llama_classifier]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("name", ["ia3", "layer_norms"])
def test_outputs_and_a_step_equal_peft(name, make):
    ours, theirs = both(name, make)
    count = sum(p.numel() for p in tuners.trainable(ours).values())
    assert count == sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    close(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits, 1e-10)
    for model in (ours, theirs):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        loss_of(model).backward()
        optimizer.step()
    a, b = ours.tuner.tensors(ours), peft.get_peft_model_state_dict(theirs)
    assert max((a[n] - b[n]).abs().max() for n in a) <= 1e-6
    close(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits, 1e-6)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("name", ["ia3", "layer_norms"])
def test_files_go_both_ways(name, make, tmp_path):
    ours, theirs = both(name, make)
    want = ours(input_ids=IDS).logits
    tuners.save(ours, tmp_path / "ours")
    read = peft.PeftModel.from_pretrained(make(), tmp_path / "ours").eval()
    close(read(input_ids=IDS).logits, want, 1e-10)
    theirs.save_pretrained(tmp_path / "theirs")
    again = tuners.load(make(), tmp_path / "theirs")
    close(again(input_ids=IDS).logits, want, 1e-10)
    assert set(load_file(tmp_path / "ours" / base.TENSORS)) == set(
        load_file(tmp_path / "theirs" / base.TENSORS)
    )


@pytest.mark.parametrize("make", MAKERS)
def test_ia3_merges_as_peft_does_and_comes_back_to_the_bit(make):
    ours, theirs = both("ia3", make)
    with torch.no_grad():  # a factor 0 wipes a row out; division would not bring it back
        vector = next(p for n, p in ours.named_parameters() if n.endswith(".l"))
        vector[0] = 0.0
        peft.set_peft_model_state_dict(theirs, ours.tuner.tensors(ours))
    before = ours(input_ids=IDS).logits
    weights = {n: p.clone() for n, p in ours.named_parameters()}
    tuners.merge(ours)
    close(ours(input_ids=IDS).logits, before, 1e-12)
    merged = theirs.merge_and_unload()
    close(ours(input_ids=IDS).logits, merged(input_ids=IDS).logits, 1e-10)
    tuners.unmerge(ours)
    assert all(torch.equal(p, weights[n]) for n, p in ours.named_parameters())
    assert torch.equal(ours(input_ids=IDS).logits, before)
    plain = tuners.merge(ours, unload=True)
    assert not any(isinstance(m, base.Tuned) for m in plain.modules())
    close(plain(input_ids=IDS).logits, before, 1e-12)


def test_bitfit_trains_what_peft_calls_bias_all():
    model = bert()
    config = peft.LoraConfig(task_type="SEQ_CLS", bias="all", target_modules=["query"], r=1)
    theirs = peft.get_peft_model(model, config)
    names = {n for n, p in theirs.named_parameters() if p.requires_grad and "lora_" not in n}
    clean = {n.replace("base_model.model.", "").replace("base_layer.", "") for n in names}
    clean = {n.replace("modules_to_save.default.", "") for n in clean}
    clean.discard("classifier.original_module.bias")  # set free by the name, and used by nobody
    assert clean == set(tuners.trainable(tuners.inject(bert(), tuners.BitFit())))


def test_bitfit_moves_linear_biases_as_peft_moves_its_additions():
    """BEFT adds a second bias to linear layers. Without decay a step of it is a step of the bias itself."""
    targets = ("query", "value", "intermediate.dense")
    ours = tuners.inject(bert(), tuners.BitFit(targets))
    assert {n for n in tuners.trainable(ours) if "classifier" not in n} == {
        f"bert.encoder.layer.{i}.{place}.bias"
        for i in range(L)
        for place in ("attention.self.query", "attention.self.value", "intermediate.dense")
    }
    config = peft.BeftConfig(task_type="SEQ_CLS", target_modules=list(targets))
    theirs = peft.get_peft_model(bert(), config).eval()
    assert torch.equal(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits)
    for model in (ours, theirs):
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0)
        loss_of(model).backward()
        optimizer.step()
    close(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits, 1e-10)


@pytest.mark.parametrize("make", [bert, llama])
@pytest.mark.parametrize("name", ON_A_DECODER)
def test_saved_and_loaded_gives_the_same_outputs(name, make, tmp_path):
    model = moved(tuners.inject(make(), METHODS[name]))
    tuners.save(model, tmp_path)
    again = tuners.load(make(), tmp_path)
    assert torch.equal(again(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert set(tuners.trainable(again)) == set(tuners.trainable(model))


@pytest.mark.parametrize("name", ["bitfit", "head"])
def test_saved_and_loaded_with_biases_or_the_head_alone(name, tmp_path):
    model = moved(tuners.inject(bert(), METHODS[name]))
    tuners.save(model, tmp_path)
    assert torch.equal(tuners.load(bert(), tmp_path)(input_ids=IDS).logits, model(input_ids=IDS).logits)


# --- the real models -------------------------------------------------------------------------------------------------

SENTENCES = ["A joy to watch from the first scene.", "Dull."]


@pytest.fixture(scope="module")
def encoder():
    tokenizer = models.load_tokenizer("encoder")
    return models.load_classifier(2), tokenizer(SENTENCES, padding=True, return_tensors="pt")


@pytest.fixture(scope="module")
def decoder():
    tokenizer = models.load_tokenizer("decoder")
    return models.load_decoder(), tokenizer(SENTENCES, padding=True, return_tensors="pt")


@pytest.mark.parametrize("which", ["encoder", "decoder"])
@pytest.mark.parametrize("name", ["houlsby", "pfeiffer", "parallel", "ia3", "layer_norms"])
@torch.no_grad()
def test_real_models(name, which, request):
    plain, batch = request.getfixturevalue(which)
    ours = moved(tuners.inject(copy.deepcopy(plain), METHODS[name]), 0.02)
    got = ours(**batch).logits[batch["attention_mask"].bool()] if which == "decoder" else ours(**batch).logits
    other = copy.deepcopy(plain)
    if name in ("ia3", "layer_norms"):
        kind = "CAUSAL_LM" if which == "decoder" else "SEQ_CLS"
        config = json.loads(json.dumps(ours.tuner.to_peft(ours)))
        make = peft.IA3Config if name == "ia3" else peft.LNTuningConfig
        other = peft.get_peft_model(other, make(task_type=kind, **config)).eval()
        found = peft.set_peft_model_state_dict(other, ours.tuner.tensors(ours))
        assert not found.unexpected_keys
    else:
        other = hooked(other, ours)
    want = other(**batch).logits
    want = want[batch["attention_mask"].bool()] if which == "decoder" else want
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()
    before = plain(**batch).logits
    before = before[batch["attention_mask"].bool()] if which == "decoder" else before
    assert (got - before).abs().max() > 1e-3


# --- what a mistake says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "method", "says"),
    [
        (bert, tuners.Houlsby(targets=("dens",)), "no Linear named 'dens' in BertForSequenceClassification: .*output.dense"),
        (bert, tuners.IA3(targets=("k_proj",)), "no Linear named 'k_proj' in BertForSequenceClassification: .*key"),
        (bert, tuners.IA3(targets=("key",), feedforward=("value",)), "'value' is not among the targets"),
        (bert, tuners.LayerNorms(targets=("norm",)), "no LayerNorm named 'norm' .*output.LayerNorm"),
        (bert, tuners.TopLayers(3), r"k is 3: the model has 2 layers, choose 1 … 2"),
        (bert, tuners.TopLayers(0), r"k is 0: the model has 2 layers, choose 1 … 2"),
        (bert, tuners.BitFit(targets=("norm",)), "no Linear named 'norm'"),
        (llama, tuners.BitFit(), "LlamaForCausalLM has no biases here, so BitFit has nothing to tune"),
        (llama, tuners.HeadOnly(), "LlamaForCausalLM has no head of its own"),
        (llama, tuners.LayerNorms(targets=("LayerNorm",)), "no LlamaRMSNorm named 'LayerNorm' .*input_layernorm"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(make, method, says):
    with pytest.raises(TrainingError, match=says):
        tuners.inject(make(), method)


def test_bare_modules_are_refused():
    for method in (tuners.TopLayers(1), tuners.Parallel()):
        with pytest.raises(TrainingError, match="numbered layers|no default targets"):
            tuners.inject(torch.nn.Linear(2, 2), method)
    with pytest.raises(TrainingError, match="Linear has no LayerNorm"):
        tuners.inject(torch.nn.Linear(2, 2), tuners.LayerNorms())


@pytest.mark.parametrize("name", METHODS)
def test_the_course_s_loop_trains_it(name):
    examples = [{"input_ids": [5 + i, 6, 7 + i % 4], "labels": i % 3} for i in range(12)]
    model = tuners.inject(bert(), METHODS[name])
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    history = training.train(model, examples, steps=12, learning_rate=3e-2, pad_id=0, batch_size=6)
    assert history.losses[-1] < history.losses[0]
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)
