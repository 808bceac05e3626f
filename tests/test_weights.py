"""Weights with a second owner, layers that no checkpoint has trained, and peft's settings, on tiny random models."""

from __future__ import annotations

import copy
import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DebertaConfig,
    DebertaForSequenceClassification,
    DebertaModel,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertModel,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
)

from instructlab_utils import models, tuners
from instructlab_utils.errors import TrainingError
from instructlab_utils.tuners import base, ownership

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
SMALL = dict(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32)


def shaken(model, names=None):
    """The model with its parameters (those in ``names``) away from their values."""
    with torch.no_grad():
        for number, (name, p) in enumerate(model.named_parameters()):
            if names is None or name in names:
                generator = torch.Generator().manual_seed(number)
                p += (0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64)).to(p.dtype)
    return model


def moved(model):
    return shaken(model, tuners.trainable(model))


def logits(model, **more):
    model.eval()
    if getattr(model.config, "is_encoder_decoder", False):
        more["decoder_input_ids"] = IDS + 20
    with torch.no_grad():
        return model(input_ids=IDS, **more).logits


# --- a weight with a second owner ------------------------------------------------------------------------------------


def tied(kind):
    torch.manual_seed(0)
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2, tie_word_embeddings=True))
    elif kind == "masked":
        model = BertForMaskedLM(BertConfig(**SMALL))
    elif kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2))
    else:
        model = T5ForConditionalGeneration(
            T5Config(
                vocab_size=50,
                d_model=16,
                d_kv=8,
                d_ff=32,
                num_layers=2,
                num_heads=2,
                decoder_start_token_id=0,
            )
        )
    return shaken(model.double().eval())


OUTPUT = {"llama": "lm_head", "masked": "decoder", "gpt2": "lm_head", "t5": "lm_head"}
INPUT = {"llama": "model.embed_tokens", "masked": "bert.embeddings.word_embeddings", "gpt2": "transformer.wte",
         "t5": "shared"}  # fmt: skip
WRITERS = {
    "lora": lambda t: tuners.Lora(r=2, targets=t),
    "dora": lambda t: tuners.Lora(r=2, dora=True, targets=t),
    "vera": lambda t: tuners.Vera(r=3, targets=t),
    "adalora": lambda t: tuners.AdaLora(10, init_r=3, target_r=1, targets=t),
    "ia3": lambda t: tuners.IA3(targets=t),
    "ia3 on inputs": lambda t: tuners.IA3(targets=t, feedforward=t),
}


@pytest.mark.parametrize("kind", OUTPUT)
@pytest.mark.parametrize("writer", WRITERS)
def test_merge_never_writes_to_a_weight_with_a_second_owner(writer, kind, tmp_path):
    model = moved(tuners.inject(tied(kind), WRITERS[writer]((OUTPUT[kind],))))
    before, weights = logits(model), {n: p.clone() for n, p in model.named_parameters()}
    with pytest.raises(
        TrainingError, match=rf"{OUTPUT[kind]}\S*weight is tied to {INPUT[kind]}.*tuners.untie"
    ):
        tuners.merge(model)
    assert all(torch.equal(p, weights[n]) for n, p in model.named_parameters())
    assert torch.equal(logits(tuners.untie(model)), before)
    tuners.merge(model)
    assert (logits(model) - before).abs().max() < 1e-12 * before.abs().max()
    tuners.unmerge(model)
    assert (logits(model) - before).abs().max() < 1e-12 * before.abs().max()
    plain = tuners.merge(model, unload=True)
    plain.save_pretrained(tmp_path)  # and what is saved is loaded untied
    again = type(plain).from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert (logits(again) - before).abs().max() < 1e-12 * before.abs().max()
    plain.tie_weights()  # called by transformers now and then
    if kind != "t5":
        assert (logits(plain) - before).abs().max() < 1e-12 * before.abs().max()


@pytest.mark.parametrize("kind", OUTPUT)
def test_pissa_is_refused_before_it_writes(kind):
    model = tied(kind)
    state = {n: (p.clone(), p.requires_grad) for n, p in model.named_parameters()}
    method = tuners.Lora(r=2, init="pissa", targets=(OUTPUT[kind],))
    with pytest.raises(TrainingError, match=r"is tied to .*inject\(\) would change both"):
        tuners.inject(model, method)
    for name, p in model.named_parameters():
        assert torch.equal(p, state[name][0]) and p.requires_grad == state[name][1]
    before = logits(model)
    ours = tuners.inject(tuners.untie(model), method)
    assert (logits(ours) - before).abs().max() < 1e-12 * before.abs().max()


def test_other_layers_of_a_tied_model_merge_and_an_untied_one_needs_nothing():
    for model in (tied("llama"), tuners.untie(tied("llama"))):
        targets = ("q_proj",) if model.config.tie_word_embeddings else ("q_proj", "lm_head")
        ours = moved(tuners.inject(model, tuners.Lora(r=2, targets=targets)))
        before = logits(ours)
        assert (logits(tuners.merge(ours)) - before).abs().max() < 1e-12 * before.abs().max()


def test_a_module_in_two_places_has_two_owners():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = nn.Linear(4, 4).double()

        def forward(self, x):
            return self.second(self.first(x))

    x = torch.randn(3, 4, dtype=torch.float64)
    model = moved(tuners.inject(Twice(), tuners.Lora(r=2, targets=("first",))))
    before = model(x)
    with pytest.raises(TrainingError, match=r"first.weight is tied to second.weight"):
        tuners.merge(model)
    assert torch.equal(model(x), before)
    assert torch.equal(tuners.untie(model)(x), before)
    torch.testing.assert_close(tuners.merge(model)(x), before)


def test_modules_to_save_with_a_second_owner_is_refused():
    model = tied("llama")
    with pytest.raises(TrainingError, match="lm_head.weight is tied to .*modules_to_save would change both"):
        tuners.inject(model, tuners.Lora(r=2), modules_to_save=("lm_head",))
    assert all(p.requires_grad for p in model.parameters()) and not hasattr(model, "tuner")
    ours = tuners.inject(tuners.untie(model), tuners.Lora(r=2), modules_to_save=("lm_head",))
    assert {n for n in tuners.trainable(ours) if "proj" not in n} == {"lm_head.weight"}


# --- layers that no checkpoint has trained ---------------------------------------------------------------------------


def checkpoint(kind, folder):
    """A trunk on disk, and the function that loads a classifier on it whose new layers come from a seed."""
    torch.manual_seed(1)
    heads, small = {"num_labels": 3, "pad_token_id": 0}, dict(SMALL)
    if kind == "distilbert":
        trunk = DistilBertModel(DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=32))
        auto = DistilBertForSequenceClassification
    elif kind == "deberta":
        trunk, auto = DebertaModel(DebertaConfig(**small)), DebertaForSequenceClassification
    elif kind == "deberta-v2":
        trunk, auto = DebertaV2Model(DebertaV2Config(**small)), DebertaV2ForSequenceClassification
    elif kind == "roberta":
        trunk, auto = (
            RobertaModel(RobertaConfig(**small), add_pooling_layer=False),
            RobertaForSequenceClassification,
        )
    else:
        trunk = BertModel(BertConfig(**small), add_pooling_layer=kind == "bert")
        auto = BertForSequenceClassification
    shaken(trunk).save_pretrained(folder)

    def fresh(seed):
        torch.manual_seed(seed)
        model = auto.from_pretrained(folder, **heads, dtype=torch.float64).eval()
        with torch.no_grad():  # larger, so that a lost layer shows
            for _, p in model.named_parameters():
                if not getattr(p, "_is_hf_initialized", False):
                    p.mul_(20)
        return model

    return fresh


NEW = {
    "distilbert": ["pre_classifier", "classifier"],
    "deberta": ["pooler", "classifier"],
    "deberta-v2": ["pooler", "classifier"],
    "roberta": ["classifier"],
    "bert": ["classifier"],
    "bert without pooler": ["bert.pooler", "classifier"],
}
TARGETS = {"distilbert": "q_lin", "deberta": "in_proj", "deberta-v2": "query_proj"}


def every(kind):
    at = (TARGETS.get(kind, "query"),)
    yield tuners.Lora(r=2, targets=at)
    yield tuners.IA3(targets=at)
    yield tuners.BitFit()
    yield tuners.Houlsby(2, targets=at)
    yield tuners.HeadOnly()
    if "bert without" in kind or kind in ("bert", "roberta", "distilbert"):
        yield tuners.PromptTuning(2)


@pytest.mark.parametrize("kind", NEW)
def test_every_new_layer_trains_and_comes_back(kind, tmp_path):
    fresh = checkpoint(kind, tmp_path / "trunk")
    assert tuners.base.new_layers(fresh(0)) == NEW[kind]
    for number, method in enumerate(every(kind)):
        ours = moved(tuners.inject(fresh(2), method))
        folder = tuners.save(ours, tmp_path / str(number))
        again = tuners.load(fresh(3), folder)
        assert torch.equal(logits(again), logits(ours)), method
        assert (logits(fresh(2)) - logits(fresh(3))).abs().max() > 0.05  # the seeds differ
        tensors = load_file(folder / base.TENSORS)
        new = [
            n
            for n in tensors
            if ownership.within(n.removeprefix("base_model.").removeprefix("model."), NEW[kind])
        ]
        assert len(new) == sum(len(list(fresh(0).get_submodule(n).parameters())) for n in NEW[kind])
        for name in new:
            save_file({n: t for n, t in tensors.items() if n != name}, folder / base.TENSORS)
            with pytest.raises(TrainingError, match=f"{name} is missing: .*would stay random"):
                tuners.load(fresh(3), folder)


@pytest.mark.parametrize("kind", NEW)
def test_new_layers_go_to_peft_and_back(kind, tmp_path):
    fresh = checkpoint(kind, tmp_path / "trunk")
    ours = moved(tuners.inject(fresh(2), tuners.Lora(r=2, targets=(TARGETS.get(kind, "query"),))))
    theirs = peft.PeftModel.from_pretrained(fresh(3), tuners.save(ours, tmp_path / "ours"))
    assert (logits(theirs) - logits(ours)).abs().max() < 1e-6 * logits(ours).abs().max()
    theirs.save_pretrained(tmp_path / "theirs")
    again = tuners.load(fresh(4), tmp_path / "theirs")
    assert (logits(again) - logits(ours)).abs().max() < 1e-6 * logits(ours).abs().max()


def test_peft_alone_leaves_a_new_pooler_random_and_load_says_so(tmp_path):
    fresh = checkpoint("bert without pooler", tmp_path / "trunk")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])
    peft.get_peft_model(fresh(0), config).save_pretrained(tmp_path / "theirs")
    with pytest.raises(TrainingError, match=r"bert.pooler.dense.bias is missing.*would stay random"):
        tuners.load(fresh(1), tmp_path / "theirs")


def test_a_head_from_the_checkpoint_may_stay_as_it_is(tmp_path):
    fresh = checkpoint("bert", tmp_path / "trunk")
    fresh(0).save_pretrained(tmp_path / "tuned")

    def whole():
        return BertForSequenceClassification.from_pretrained(tmp_path / "tuned", dtype=torch.float64).eval()

    assert base.new_layers(whole()) == ["classifier"]  # which trains on with our methods
    ours = moved(tuners.inject(whole(), tuners.Lora(r=2)))
    assert torch.equal(logits(tuners.load(whole(), tuners.save(ours, tmp_path / "ours"))), logits(ours))
    theirs = peft.get_peft_model(
        whole(), peft.LoraConfig(r=2, target_modules=["query"])
    ).eval()  # no task_type
    shaken(theirs, {n for n, p in theirs.named_parameters() if p.requires_grad})
    theirs.save_pretrained(tmp_path / "theirs")
    again = tuners.load(whole(), tmp_path / "theirs")
    assert (logits(again) - logits(theirs)).abs().max() < 1e-10
    assert not again.classifier.weight.requires_grad and base.new_layers(again) == []
    tensors = load_file(tmp_path / "ours" / base.TENSORS)
    kept = {n: t for n, t in tensors.items() if "classifier" not in n}
    save_file(kept, tmp_path / "ours" / base.TENSORS)
    with pytest.raises(TrainingError, match="saved without its head"):  # its configuration lists it
        tuners.load(whole(), tmp_path / "ours")
    with pytest.raises(TrainingError, match="saved without its head"):
        tuners.load(fresh(1), tmp_path / "theirs")


def test_a_copy_of_the_courses_classifier_still_knows_its_new_layers(tmp_path):
    checkpoint("bert without pooler", tmp_path / "trunk")
    net = copy.deepcopy(models.load_classifier(3, model=str(tmp_path / "trunk")))
    assert base.new_layers(net) == ["bert.pooler", "classifier"]
    checkpoint("roberta", tmp_path / "roberta")  # its head has two layers
    assert base.new_layers(models.load_classifier(3, model=str(tmp_path / "roberta"))) == ["classifier"]
    checkpoint("bert", tmp_path / "pooled")
    assert base.new_layers(models.load_classifier(3, model=str(tmp_path / "pooled"))) == ["classifier"]


def test_language_models_have_no_new_layer_unless_the_checkpoint_lacks_one(tmp_path):
    for kind in OUTPUT:
        assert base.new_layers(tied(kind)) == []
        tied(kind).save_pretrained(tmp_path / kind)
        assert base.new_layers(type(tied(kind)).from_pretrained(tmp_path / kind)) == []
        assert base.new_layers(tuners.untie(type(tied(kind)).from_pretrained(tmp_path / kind))) == []
    checkpoint("bert", tmp_path / "trunk")
    masked = BertForMaskedLM.from_pretrained(tmp_path / "trunk", dtype=torch.float64)
    assert base.new_layers(masked) == ["cls.predictions.bias", "cls.predictions.transform"]
    ours = moved(tuners.inject(masked, tuners.Lora(r=2)))  # a single parameter: peft has no place for it
    folder = tuners.save(ours, tmp_path / "masked")
    assert "peft_type" not in json.loads((folder / base.CONFIG).read_text())
    other = BertForMaskedLM.from_pretrained(tmp_path / "trunk", dtype=torch.float64)
    assert torch.equal(logits(tuners.load(other, folder)), logits(ours))


# --- what peft's configurations ask for ------------------------------------------------------------------------------


def bert():
    torch.manual_seed(0)
    return shaken(BertForSequenceClassification(BertConfig(**SMALL, num_labels=3)).double().eval())


def llama(**settings):
    torch.manual_seed(0)
    config = LlamaConfig(
        **SMALL,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        attention_bias=True,
        **settings,
    )
    return shaken(LlamaForCausalLM(config).double().eval())


MAKE = {"bert": bert, "llama": llama}
ASKED = {
    "bias all": (dict(bias="all"), {}),
    "bias lora_only": (dict(bias="lora_only"), {}),
    "bias and dora": (dict(bias="all", dora=True), {}),
    "ranks": (dict(rank_pattern={"0.*value|0.*v_proj": 3, "query": 1, "q_proj": 1}, alpha_pattern={}), {}),
    "ranks and alphas": (
        dict(
            rank_pattern={"value|v_proj": 20},
            alpha_pattern={"1.*(query|q_proj)": 5, "value|v_proj": 1},
            dora=True,
        ),
        {},
    ),
    "ranks, rslora": (
        dict(rank_pattern={"value|v_proj": 4}, alpha_pattern={"value|v_proj": 3}, rslora=True),
        {},
    ),
    "modules": (
        {},
        {"bert": ["pooler", "word_embeddings"], "llama": ["embed_tokens", "lm_head", "model.norm"]},
    ),
    "bias and modules": (dict(bias="all"), {"bert": ["pooler"], "llama": ["norm"]}),
}


def fitting(kind, settings):
    """The settings with the patterns that this model's names match."""
    names = ("query", "value") if kind == "bert" else ("q_proj", "v_proj")
    found = dict(settings)
    for pattern in {"rank_pattern", "alpha_pattern"} & found.keys():
        found[pattern] = {k: v for k, v in found[pattern].items() if any(name in k for name in names)}
    return found


def peft_like(ours, make):
    """peft's model by peft's own configuration, with our tensors."""
    settings = ours.tuner.to_peft(ours)
    config = peft.LoraConfig(
        task_type=base.task_type(ours), modules_to_save=base.new_layers(ours) or None, **settings
    )
    theirs = peft.get_peft_model(make(), config).double().eval()
    peft.set_peft_model_state_dict(
        theirs, {n: t.detach().clone() for n, t in ours.tuner.tensors(ours).items()}
    )
    with torch.no_grad():  # peft's loader leaves a bias of bias="all" to load_state_dict's names
        for name, p in theirs.named_parameters():
            clean = name.removeprefix("base_model.model.").replace("base_layer.", "base.")
            if p.requires_grad and clean in dict(ours.named_parameters()):
                p.copy_(ours.get_parameter(clean))
    return theirs


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("name", ASKED)
def test_bias_patterns_and_modules_equal_pefts(name, kind, tmp_path):
    settings, modules = fitting(kind, ASKED[name][0]), ASKED[name][1].get(kind, [])
    ours = moved(tuners.inject(MAKE[kind](), tuners.Lora(r=2, alpha=6, **settings), modules_to_save=modules))
    want = logits(ours)
    theirs = peft.PeftModel.from_pretrained(MAKE[kind](), tuners.save(ours, tmp_path / "ours")).double()
    assert (logits(theirs) - want).abs().max() < 1e-6 * want.abs().max()  # peft reads float32
    again = tuners.load(MAKE[kind](), tmp_path / "ours")
    assert torch.equal(logits(again), want)
    theirs = peft_like(ours, MAKE[kind])
    assert (logits(theirs) - want).abs().max() < 1e-10 * want.abs().max()
    trained = {
        n.removeprefix("base_model.model.").replace("modules_to_save.default.", "").replace(".default", "")
        for n, p in theirs.named_parameters()
        if p.requires_grad and ".original_module." not in n
    }
    swap = [
        ("lora_A.weight", "A"),
        ("lora_B.weight", "B"),
        ("lora_magnitude_vector.weight", "m"),
        ("base_layer", "base"),
    ]
    for long, short in swap:
        trained = {n.replace(long, short) for n in trained}
    assert trained == set(tuners.trainable(ours))
    for model in (ours, theirs):
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        model(input_ids=IDS).logits.square().mean().backward()
        optimizer.step()
    assert (logits(theirs) - logits(ours)).abs().max() < 1e-9 * want.abs().max()
    theirs.save_pretrained(tmp_path / "theirs")
    again = tuners.load(MAKE[kind](), tmp_path / "theirs")
    assert (logits(again) - logits(ours)).abs().max() < 1e-9 * want.abs().max()
    merged = tuners.merge(again, unload=True)
    assert (logits(merged) - logits(ours)).abs().max() < 1e-9 * want.abs().max()


@pytest.mark.parametrize("modules", [["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"]])
def test_pefts_copy_of_a_tied_layer_loads_on_an_untied_model(modules, tmp_path):
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], modules_to_save=modules)
    theirs = peft.get_peft_model(tied("llama"), config)
    shaken(theirs, {n for n, p in theirs.named_parameters() if p.requires_grad})
    theirs.save_pretrained(tmp_path)
    with pytest.raises(TrainingError, match="modules_to_save would change both: .*untie"):
        tuners.load(tied("llama"), tmp_path)
    ours = tuners.load(tuners.untie(tied("llama")), tmp_path)
    assert (logits(ours) - logits(theirs)).abs().max() < 1e-10 * logits(theirs).abs().max()


def test_a_vocabulary_that_grew_comes_with_pefts_file(tmp_path):
    def longer(seed):
        torch.manual_seed(seed)
        model = llama()
        model.resize_token_embeddings(60, mean_resizing=False)
        return model.double()

    theirs = peft.get_peft_model(longer(1), peft.LoraConfig(task_type="CAUSAL_LM", r=2))
    shaken(
        theirs, {n for n, p in theirs.named_parameters() if p.requires_grad or "embed" in n or "lm_head" in n}
    )
    theirs.save_pretrained(tmp_path, save_embedding_layers=True)
    assert "base_model.model.lm_head.weight" in load_file(tmp_path / base.TENSORS)
    ours = tuners.load(longer(2), tmp_path)
    ids = torch.tensor([[5, 58, 59]])
    torch.testing.assert_close(
        ours(input_ids=ids).logits, theirs.eval()(input_ids=ids).logits, rtol=0, atol=1e-10
    )


def test_modules_to_save_with_methods_that_peft_lacks(tmp_path):
    for method in (tuners.Houlsby(2), tuners.TopLayers(1), tuners.HeadOnly(), tuners.BitFit()):
        ours = moved(tuners.inject(bert(), method, modules_to_save=["pooler", "word_embeddings"]))
        again = tuners.load(bert(), tuners.save(ours, tmp_path / type(method).__name__))
        assert torch.equal(logits(again), logits(ours))
        assert again.get_parameter("bert.embeddings.word_embeddings.weight").requires_grad
    soft = moved(tuners.inject(bert(), tuners.PromptTuning(2), modules_to_save="pooler"))
    again = tuners.load(bert(), tuners.save(soft, tmp_path / "soft"))
    assert torch.equal(logits(again), logits(soft))
    with pytest.raises(TrainingError, match="modules_to_save: 'head' ends the name of no module"):
        tuners.inject(bert(), tuners.Lora(r=2), modules_to_save=["head"])


@pytest.mark.parametrize(
    ("method", "change"),
    [
        (tuners.Lora(r=2), {"exclude_modules": ["0.query"]}),
        (tuners.Lora(r=2), {"layers_to_transform": [1]}),
        (tuners.Lora(r=2), {"lora_bias": True}),
        (tuners.Lora(r=2), {"use_qalora": True}),
        (tuners.Lora(r=2), {"trainable_token_indices": [3]}),
        (tuners.Lora(r=2), {"target_parameters": ["x"]}),
        (tuners.Lora(r=2), {"layer_replication": [[0, 1]]}),
        (tuners.Lora(r=2), {"a_setting_of_tomorrow": 3}),
        (tuners.Lora(r=2), {"bias": "vera_only"}),
        (tuners.Lora(r=2), {"target_modules": ".*query"}),
        (tuners.Lora(r=2), {"init_lora_weights": "olora"}),
        (tuners.Vera(r=3), {"bias": "all"}),
        (tuners.Vera(r=3), {"layers_to_transform": [1]}),
        (tuners.AdaLora(10, 3, 1), {"bias": "all"}),
        (tuners.AdaLora(10, 3, 1), {"alpha_pattern": {"query": 3}}),
        (tuners.AdaLora(10, 3, 1), {"lora_alpha": -1}),
        (tuners.IA3(), {"exclude_modules": ["query"]}),
        (tuners.IA3(), {"feedforward_modules": ".*dense"}),
        (tuners.LayerNorms(), {"target_modules": ".*Norm"}),
        (tuners.PromptTuning(2), {"num_transformer_submodules": 2}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else type(value).__name__,
)
def test_a_setting_that_we_lack_is_named(method, change, tmp_path):
    folder = tuners.save(tuners.inject(bert(), method), tmp_path)
    config = json.loads((folder / base.CONFIG).read_text())
    (folder / base.CONFIG).write_text(json.dumps(config | change))
    with pytest.raises(TrainingError) as error:
        tuners.load(bert(), folder)
    key, sentence = next(iter(change)), str(error.value)
    assert sentence.startswith(f"{folder / base.CONFIG}: ") or "bias" in sentence
    assert key in sentence and "not among our methods" not in sentence


def test_a_missing_key_is_named(tmp_path):
    folder = tuners.save(tuners.inject(bert(), tuners.Lora(r=2)), tmp_path)
    config = json.loads((folder / base.CONFIG).read_text())
    del config["lora_alpha"]
    (folder / base.CONFIG).write_text(json.dumps(config))
    with pytest.raises(TrainingError, match=r"the key 'lora_alpha' is missing"):
        tuners.load(bert(), folder)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: tuners.Lora(bias="some"), r"Lora\(bias='some'\): choose none, all or lora_only"),
        (lambda: tuners.Lora(rank_pattern={"query": 0}), r"Lora\(r=0\) for 'query': the rank must be"),
        (
            lambda: tuners.inject(bert(), tuners.Lora(alpha_pattern={"q_proj": 3})),
            "pattern 'q_proj' matches none",
        ),
        (lambda: tuners.inject(bert(), tuners.Lora(r=17, init="pissa")), "has 16 singular triplets; lower r"),
        (
            lambda: tuners.inject(bert(), tuners.Lora(targets=("word_embeddings",))),
            r"\(it is a Embedding\): choose",
        ),
        (
            lambda: tuners.inject(tied("gpt2"), tuners.Lora(targets=("c_attn",))),
            r"\(it is a Conv1D\): choose.*lm_head",
        ),
        (
            lambda: tuners.inject(bert(), tuners.IA3(targets=("nothing",))),
            "no Linear named 'nothing' .*query",
        ),
    ],
)
def test_a_mistake_leaves_the_model_as_it_was(make, says, monkeypatch):
    seen = []
    plain = tuners.inject
    monkeypatch.setattr(tuners, "inject", lambda model, *a: (seen.append(model), plain(model, *a)))
    with pytest.raises(TrainingError, match=says):
        make()
    for model in seen:
        assert all(p.requires_grad for p in model.parameters())
        assert not any(isinstance(m, base.Tuned) for m in model.modules())


# --- AdaLoRA between two allocations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKE)
def test_adalora_saves_what_it_computes_with_after_every_update(kind, tmp_path):
    method = tuners.AdaLora(12, init_r=4, target_r=1, tinit=1, tfinal=3, deltaT=3)
    ours = tuners.inject(MAKE[kind](), method)
    optimizer = torch.optim.AdamW(tuners.trainable(ours).values(), lr=3e-2)
    sizes = []
    for step in range(12):
        (ours(input_ids=IDS).logits.square().mean() + method.penalty(ours)).backward()
        optimizer.step()
        method.update(ours, step)
        optimizer.zero_grad()
        folder = tuners.save(ours, tmp_path / str(step))
        again = tuners.load(MAKE[kind](), folder)
        want = logits(ours)
        assert (logits(again) - want).abs().max() < 1e-12 * want.abs().max(), step
        theirs = peft.PeftModel.from_pretrained(MAKE[kind](), folder)
        assert (logits(theirs) - want).abs().max() < 1e-6 * want.abs().max(), step
        sizes.append(sum(int(layer.used.sum()) for layer in method.layers(ours).values()))
    assert sizes[-1] == 4 and len(set(sizes)) > 2


# --- decoding behind virtual tokens ----------------------------------------------------------------------------------

SOFT = {
    "prompt": (tuners.PromptTuning(3), peft.PromptTuningConfig),
    "deep": (tuners.DeepPrompts(3), peft.PrefixTuningConfig),
}
DECODING = {
    "max_length": dict(max_length=9),
    "max_length over max_new_tokens": dict(max_new_tokens=7),
    "min_length": dict(max_length=12, min_length=11),
    "beams": dict(max_new_tokens=5, num_beams=3),
    "several beams": dict(max_length=9, num_beams=4, num_return_sequences=2),
    "samples": dict(max_new_tokens=5, do_sample=True, num_return_sequences=3, top_k=10),
    "no repeats": dict(max_new_tokens=8, no_repeat_ngram_size=2, repetition_penalty=1.3),
    "nothing": {},
}


def soft(name):
    """Ours and peft's with the same vectors."""
    method, config = SOFT[name]
    ours = moved(tuners.inject(llama(), method)).eval()
    theirs = peft.get_peft_model(llama(), config(task_type="CAUSAL_LM", num_virtual_tokens=3)).double().eval()
    with torch.no_grad():
        theirs.prompt_encoder["default"].embedding.weight.copy_(ours.encoder.P)
    return ours, theirs


@pytest.mark.parametrize("as_config", [True, False], ids=["config", "keywords"])
@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("case", DECODING)
def test_decoding_settings_mean_what_they_mean_to_peft(case, name, as_config):
    ours, theirs = soft(name)
    settings = DECODING[case] | {"pad_token_id": 0, "eos_token_id": 2}
    if as_config:
        settings = {"generation_config": GenerationConfig(**settings)}
    found = []
    for model in (ours, theirs):
        torch.manual_seed(3)
        found.append(
            model.generate(input_ids=IDS, attention_mask=torch.ones_like(IDS), **copy.deepcopy(settings))
        )
    assert found[0].tolist() == found[1].tolist()
    assert "prepare_inputs_for_generation" not in vars(ours.model)


@pytest.mark.parametrize("name", SOFT)
def test_decoding_returns_what_is_asked_for_and_needs_no_cache(name):
    ours, _ = soft(name)
    plain = ours.generate(IDS, max_new_tokens=6, pad_token_id=0)
    assert ours.generate(IDS, max_new_tokens=6, pad_token_id=0, use_cache=False).tolist() == plain.tolist()
    full = ours.generate(
        IDS, max_new_tokens=6, pad_token_id=0, return_dict_in_generate=True, output_scores=True
    )
    assert full.sequences.tolist() == plain.tolist() and len(full.scores) == plain.shape[1] - IDS.shape[1]


@pytest.mark.parametrize(
    "settings",
    [{"cache_implementation": "static"}, {"prompt_lookup_num_tokens": 2},
     {"generation_config": GenerationConfig(cache_implementation="static")}],
    ids=str,
)  # fmt: skip
def test_a_cache_without_room_for_the_prompt_is_refused(settings):
    ours, _ = soft("prompt")
    with pytest.raises(TrainingError, match="leaves no room for virtual positions"):
        ours.generate(IDS, **settings)


# --- half precision --------------------------------------------------------------------------------------------------

DTYPES = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 4e-2}
PARITY = {
    "lora": tuners.Lora(r=2, alpha=6),
    "rank above the width": tuners.Lora(r=40, alpha=6),
    "dora": tuners.Lora(r=2, alpha=6, dora=True),
    "pissa": tuners.Lora(r=2, alpha=6, init="pissa"),
    "vera": tuners.Vera(r=5),
    "adalora": tuners.AdaLora(10, init_r=20, target_r=1, alpha=6),
    "ia3": tuners.IA3(),
}
CASES = {
    "one row": dict(input_ids=IDS[:1]),
    "one token": dict(input_ids=IDS[:, :1]),
    "no padding": dict(input_ids=IDS, attention_mask=torch.ones_like(IDS)),
    "padding": dict(input_ids=IDS, attention_mask=torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]])),
    "a row of padding": dict(input_ids=IDS, attention_mask=torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])),
}


def half(make, dtype):
    """Weights of the usual size: the outputs of `shaken` models are too steep for bf16."""
    torch.manual_seed(0)
    if make == "bert":
        config = BertConfig(**SMALL, num_labels=3, initializer_range=0.2)
        return BertForSequenceClassification(config).to(dtype).eval()
    return (
        LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2, initializer_range=0.2)).to(dtype).eval()
    )


# peft's PiSSA refuses float64; test_own_pissa_in_float64 has that pair
COMPARABLE = [(n, d) for n in PARITY for d in DTYPES if (n, d) != ("pissa", torch.float64)]


@pytest.mark.parametrize(("name", "dtype"), COMPARABLE, ids=str)
@pytest.mark.parametrize("kind", MAKE)
def test_outputs_and_merges_equal_pefts_in_every_dtype(name, kind, dtype, tmp_path):
    ours = tuners.inject(half(kind, dtype), PARITY[name])
    with torch.no_grad():
        for number, p in enumerate(tuners.trainable(ours).values()):
            p += (0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(number))).to(p.dtype)
    small = {p.dtype for n, p in tuners.trainable(ours).items() if not n.startswith("classifier")}
    assert small == {torch.promote_types(dtype, torch.float32)}  # as in peft: small updates are kept
    theirs = peft.PeftModel.from_pretrained(half(kind, dtype), tuners.save(ours, tmp_path)).eval()
    if dtype == torch.float64:
        theirs.double()
    tolerance = (
        DTYPES[dtype] if name != "vera" else max(DTYPES[dtype], 1e-6)
    )  # peft holds its matrices in float32
    for case, batch in CASES.items():
        with torch.no_grad():
            mine, other = ours(**batch).logits, theirs(**batch).logits
        assert mine.dtype == other.dtype == dtype and mine.isfinite().all()
        assert (mine - other).abs().max() <= tolerance * other.abs().max(), case
    with torch.no_grad():
        before = ours(input_ids=IDS).logits
        merged = tuners.merge(ours)(input_ids=IDS).logits
        assert merged.dtype == dtype
        assert (merged - before).abs().max() <= tolerance * before.abs().max()
        back = tuners.unmerge(ours)(input_ids=IDS).logits
        assert (back - before).abs().max() <= min(tolerance, 2e-5) * before.abs().max()  # bf16: the same bits
        tensors = {n: t.clone() for n, t in PARITY[name].tensors(ours).items()}
        tuners.unmerge(tuners.merge(ours))  # and what it saves is as it was
        assert all(torch.equal(t, tensors[n]) for n, t in PARITY[name].tensors(ours).items())
        tuners.merge(ours, unload=True)
        other = theirs.merge_and_unload()(input_ids=IDS).logits
        assert (ours(input_ids=IDS).logits - other).abs().max() <= tolerance * other.abs().max()


@pytest.mark.parametrize("kind", MAKE)
def test_own_pissa_in_float64(kind: str) -> None:
    """What peft cannot compare: the start changes no output, and trained values merge exactly."""
    plain, ours = half(kind, torch.float64), tuners.inject(half(kind, torch.float64), PARITY["pissa"])
    for batch in CASES.values():
        assert torch.allclose(ours(**batch).logits, plain(**batch).logits, atol=1e-10)
    with torch.no_grad():
        for p in tuners.trainable(ours).values():
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0), dtype=p.dtype)
        wanted = [ours(**batch).logits for batch in CASES.values()]
        assert not torch.allclose(wanted[0], plain(**next(iter(CASES.values()))).logits, atol=1e-3)
        merged = tuners.merge(ours)
        assert all(
            torch.allclose(merged(**batch).logits, want, atol=1e-10)
            for batch, want in zip(CASES.values(), wanted, strict=True)
        )


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_method_trains_in_half_precision(dtype, kind, tmp_path):
    for method in (*PARITY.values(), tuners.Houlsby(3), tuners.Parallel(3), tuners.PromptTuning(2), tuners.PTuning(2),
                   tuners.DeepPrompts(2), tuners.DeepPrompts(2, init="vocab"), tuners.PrefixTuning(2)):  # fmt: skip
        model = half(kind, dtype)
        ours = tuners.inject(model, method).train()
        out = ours(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
        assert out.dtype == dtype
        out.float().square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in tuners.trainable(ours).values()), (
            method
        )
        small = {
            p.dtype for n, p in tuners.trainable(ours).items() if "classifier" not in n and "orm" not in n
        }
        assert small == {torch.float32}, method
        again = tuners.load(
            half(kind, dtype), tuners.save(ours.eval(), tmp_path / f"{method}"[:40].replace("/", ""))
        )
        assert torch.equal(logits(again), logits(ours)) or method in (PARITY["pissa"], PARITY["adalora"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("name", [n for n in PARITY if n != "pissa"])
def test_gradients_equal_pefts_in_every_dtype(name, kind, dtype, tmp_path):
    ours = tuners.inject(half(kind, dtype), PARITY[name])
    with torch.no_grad():
        for number, p in enumerate(tuners.trainable(ours).values()):
            p += (0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(number))).to(p.dtype)
    theirs = peft.PeftModel.from_pretrained(half(kind, dtype), tuners.save(ours, tmp_path), is_trainable=True)
    if dtype == torch.float64:
        theirs.double()
    gradients = []
    for model in (ours.eval(), theirs.eval()):
        model(input_ids=IDS).logits.double().square().mean().backward()
        found = [
            p.grad.double() for n, p in model.named_parameters() if p.requires_grad and "ranknum" not in n
        ]
        gradients.append(sorted((g.norm().item(), *g.shape) for g in found))
    largest = gradients[1][-1][0]
    for (mine, *_), (other, *_) in zip(*gradients, strict=True):
        assert abs(mine - other) <= max(DTYPES[dtype], 1e-6 if name == "vera" else 0) * largest


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize(
    ("method", "config"),
    [(tuners.PromptTuning(3), peft.PromptTuningConfig), (tuners.DeepPrompts(3), peft.PrefixTuningConfig)],
    ids=["prompt", "deep"],
)
def test_soft_prompts_equal_pefts_in_every_dtype(method, config, kind, dtype):
    ours = tuners.inject(half(kind, dtype), method, seed=4)
    theirs = peft.get_peft_model(
        half(kind, dtype), config(task_type=base.task_type(ours.model), num_virtual_tokens=3)
    )
    theirs.eval().prompt_encoder["default"].embedding.to(ours.encoder.P.dtype).weight.data.copy_(
        ours.encoder.P
    )
    for case, batch in CASES.items():
        rows = {"attention_mask": torch.ones_like(batch["input_ids"])} | batch
        with torch.no_grad():
            mine, other = ours(**rows).logits, theirs(**rows).logits
        other = (
            other[:, 3:] if kind == "llama" and "prompt_tuning" in str(theirs.peft_config).lower() else other
        )
        if kind == "llama":
            mine, other = mine[rows["attention_mask"] == 1], other[rows["attention_mask"] == 1]
        assert mine.dtype == dtype and mine.isfinite().all()
        assert (mine - other).abs().max() <= DTYPES[dtype] * other.abs().max(), case


def test_an_update_below_bf16s_resolution_is_not_lost():
    ours = tuners.inject(half("llama", torch.bfloat16), tuners.Lora(r=2))
    A = next(p for n, p in tuners.trainable(ours).items() if n.endswith(".A"))
    before = A.detach().clone()
    optimizer = torch.optim.SGD([A], lr=1.0)
    A.grad = torch.full_like(A, 1e-5)
    optimizer.step()
    assert (A != before).all()
