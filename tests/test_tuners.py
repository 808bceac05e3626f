"""The interface of `instructlab_utils.tuners`: what trains, what is saved, and what a mistake says."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from instructlab_utils import tuners
from instructlab_utils.errors import TrainingError
from instructlab_utils.tuners import base


def bert(seed=0, labels=3):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        num_labels=labels,
    )  # fmt: skip
    return BertForSequenceClassification(config).double().eval()


def llama(seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    return LlamaForCausalLM(config).double().eval()


IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def moved(model):
    """The model with all trained parameters away from their first values."""
    with torch.no_grad():
        for p in tuners.trainable(model).values():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=p.dtype)
    return model


def test_inject_trains_the_method_and_the_head_and_nothing_else():
    model = tuners.inject(bert(), tuners.Lora(r=2))
    names = set(tuners.trainable(model))
    assert {n for n in names if "query" not in n and "value" not in n} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert len(names) == 2 + 2 * 2 * 2
    assert not any(n.endswith((".A", ".B")) for n in dict(bert().named_parameters()))


def test_a_decoder_has_no_head_to_train():
    model = tuners.inject(llama(), tuners.Lora(r=2))
    assert all(n.endswith((".A", ".B")) for n in tuners.trainable(model))


def test_first_values_depend_on_the_seed_alone():
    model, again, other = bert(), bert(), bert()
    torch.manual_seed(11)
    tuners.inject(model, tuners.Lora(r=2), seed=3)
    drawn = torch.rand(1)  # the caller's own random stream goes on as if nothing had happened
    torch.manual_seed(11)
    assert torch.equal(drawn, torch.rand(1))
    tuners.inject(again, tuners.Lora(r=2), seed=3)
    tuners.inject(other, tuners.Lora(r=2), seed=4)
    name = "bert.encoder.layer.0.attention.self.query.A"
    assert torch.equal(model.get_parameter(name), again.get_parameter(name))
    assert not torch.equal(model.get_parameter(name), other.get_parameter(name))


def test_saved_and_loaded_gives_the_same_outputs_and_the_head(tmp_path):
    model = moved(tuners.inject(bert(), tuners.Lora(r=2, alpha=4)))
    tuners.save(model, tmp_path)
    again = tuners.load(bert(), tmp_path)
    assert torch.equal(again(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert again.tuner.alpha == 4 and not again.training
    assert set(load_file(tmp_path / base.TENSORS)) >= {
        "base_model.model.classifier.weight",
        "base_model.model.classifier.bias",
    }


@pytest.mark.parametrize("make", [bert, llama])
def test_merge_unmerge_and_unload(make):
    model = moved(tuners.inject(make(), tuners.Lora(r=2)))
    before = model(input_ids=IDS).logits
    plain = model(input_ids=IDS).logits
    tuners.merge(model)
    torch.testing.assert_close(model(input_ids=IDS).logits, before, rtol=1e-12, atol=1e-12)
    tuners.unmerge(model)
    torch.testing.assert_close(model(input_ids=IDS).logits, before, rtol=1e-12, atol=1e-12)
    tuners.merge(model, unload=True)
    assert not any(isinstance(m, base.Tuned) for m in model.modules())
    torch.testing.assert_close(model(input_ids=IDS).logits, plain, rtol=1e-12, atol=1e-12)
    tuners.inject(model, tuners.Lora(r=1))  # a plain model again


@pytest.mark.parametrize(("make", "task"), [(bert, "SEQ_CLS"), (llama, "CAUSAL_LM")])
@pytest.mark.parametrize("method", [tuners.Lora(r=2), tuners.PromptTuning(3)], ids=["lora", "prompt"])
def test_the_file_says_what_the_model_is_for(make, task, method, tmp_path):
    """Without it peft would treat the head, or the generation, as if there were none."""
    tuners.save(tuners.inject(make(), method), tmp_path)
    assert json.loads((tmp_path / base.CONFIG).read_text())["task_type"] == task


def test_only_what_can_be_injected_counts_as_a_method():
    assert "Lora" in base.METHODS and not {"Method", "SoftMethod"} & set(base.METHODS)
    with pytest.raises(TypeError, match="abstract"):
        base.Method()
    with pytest.raises(TypeError, match="abstract"):
        base.Mergeable(torch.nn.Linear(2, 2))


def broken(folder, change):
    tensors = load_file(folder / base.TENSORS)
    change(tensors)
    save_file(tensors, folder / base.TENSORS)


HEAD = "base_model.model.classifier.weight"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop(HEAD), "saved without its head, which would stay random"),
        (lambda t: t.pop(sorted(t)[0]), "belongs to another model"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra has no place in this model"),
        (
            lambda t: t.update({HEAD: torch.zeros(4, 16)}),
            r"has shape \(4, 16\), and the model needs \(3, 16\)",
        ),
    ],
)
def test_a_foreign_file_is_refused_in_one_sentence(tmp_path, change, says):
    tuners.save(tuners.inject(bert(), tuners.Lora(r=2)), tmp_path)
    broken(tmp_path, change)
    with pytest.raises(TrainingError, match=says):
        tuners.load(bert(), tmp_path)


def test_unreadable_folders_and_unknown_methods(tmp_path):
    with pytest.raises(TrainingError, match="no adapter can be read here"):
        tuners.load(bert(), tmp_path)
    tuners.save(tuners.inject(bert(), tuners.Lora(r=2)), tmp_path)
    config = json.loads((tmp_path / base.CONFIG).read_text())
    (tmp_path / base.CONFIG).write_text(json.dumps(config | {"peft_type": "XLORA"}))
    with pytest.raises(TrainingError, match="'XLORA' is not among our methods"):
        tuners.load(bert(), tmp_path)
    (tmp_path / base.TENSORS).write_bytes(b"torn")
    with pytest.raises(TrainingError, match="no adapter can be read here"):
        tuners.load(bert(), tmp_path)


def test_a_wrong_target_names_those_that_exist():
    with pytest.raises(TrainingError, match="no Linear named 'q' in BertForSequenceClassification: .*query"):
        tuners.inject(bert(), tuners.Lora(targets=("q",)))
    with pytest.raises(TrainingError, match="no Linear named 'query' in LlamaForCausalLM: .*q_proj"):
        tuners.inject(llama(), tuners.Lora(targets=("query",)))
    with pytest.raises(TrainingError, match="no Linear named 'classifier'"):
        tuners.inject(bert(), tuners.Lora(targets=("classifier",)))


def test_misuse_is_one_sentence(tmp_path):
    model = tuners.inject(bert(), tuners.Lora(r=2))
    with pytest.raises(TrainingError, match="carries Lora.* already|already carries Lora"):
        tuners.inject(model, tuners.Lora(r=2))
    tuners.merge(model)
    with pytest.raises(TrainingError, match=r"is merged: call unmerge\(\)"):
        tuners.save(model, tmp_path)
    with pytest.raises(TrainingError, match="carries no tuning method"):
        tuners.save(bert(), tmp_path)
    with pytest.raises(TrainingError, match="no default targets for a model of type 'Linear'"):
        tuners.inject(torch.nn.Linear(2, 2), tuners.Lora())
