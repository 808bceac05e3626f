"""Lesson 10: soft prompts equal peft's for the same weights, and the lesson's hand-written pieces equal the package's."""

from __future__ import annotations

import json
import warnings

import peft
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
)

from instructlab_utils import generation, models, training, tuners
from instructlab_utils.errors import TrainingError
from instructlab_utils.tuners import base, virtual_tokens

N = 3


def bert(kind=BertForSequenceClassification, seed=0, labels=3):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=labels,
    )  # fmt: skip
    return enlarged(kind(config).double().eval())


def llama(seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=32, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return enlarged(LlamaForCausalLM(config).double().eval())


def enlarged(model):
    """Weights of a size at which attention is far from uniform."""
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(8)
    return model


def tagger():
    return bert(BertForTokenClassification)


MODELS = {"bert": bert, "tagger": tagger, "llama": llama}
METHODS = {
    "prompt": (tuners.PromptTuning(N), peft.PromptTuningConfig),
    "p-tuning": (tuners.PTuning(N, hidden=7), peft.PromptEncoderConfig),
    "prefix": (tuners.PrefixTuning(N, hidden=7), peft.PrefixTuningConfig),
    "deep": (tuners.DeepPrompts(N), peft.PrefixTuningConfig),
}
TASK = {"bert": "SEQ_CLS", "tagger": "TOKEN_CLS", "llama": "CAUSAL_LM"}
IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 10, 11, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def config_of(method, which):
    extra = {
        "p-tuning": {"encoder_hidden_size": 7},
        "prefix": {"encoder_hidden_size": 7, "prefix_projection": True},
    }
    return METHODS[method][1](task_type=TASK[which], num_virtual_tokens=N, **extra.get(method, {}))


def moved(model):
    """The model with all trained parameters away from their first values, as small models need it to show."""
    with torch.no_grad():
        for p in tuners.trainable(model).values():
            p += 0.5 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=p.dtype)
    return model


def theirs_like(ours, method, which, make, head=True):
    """peft's model with the weights of ours."""
    theirs = peft.get_peft_model(make(), config_of(method, which)).to(next(ours.parameters()).dtype).eval()
    encoder = theirs.prompt_encoder["default"]
    pairs = {
        "P": "embedding.weight",
        "E": "embedding.weight",
        "mlp": "transform" if method == "prefix" else "mlp_head",
    }
    with torch.no_grad():
        for name, p in ours.encoder.named_parameters():
            letter, _, rest = name.partition(".")
            encoder.get_parameter(pairs[letter] + (f".{rest}" if rest else "")).copy_(p)
        for name, p in ours.model.named_parameters():
            if p.requires_grad and head:
                theirs.base_model.get_parameter(
                    name.replace("classifier.", "classifier.modules_to_save.default.")
                ).copy_(p)
    return theirs


def quiet(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(*args, **kwargs).eval()


def real(logits, method, which):
    """peft's logits without those of the virtual positions, where it has some."""
    return logits[:, N:] if which != "bert" and method in ("prompt", "p-tuning") else logits


GRID = [(m, w) for m in METHODS for w in MODELS]


@pytest.mark.parametrize(("method", "which"), GRID)
def test_outputs_equal_pefts(method, which):
    ours = moved(tuners.inject(MODELS[which](), METHODS[method][0]))
    theirs = theirs_like(ours, method, which, MODELS[which])
    a = ours(input_ids=IDS, attention_mask=MASK).logits
    b = real(theirs(input_ids=IDS, attention_mask=MASK).logits, method, which)
    assert a.shape == b.shape
    if which != "bert":
        a, b = a[MASK == 1], b[MASK == 1]
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
    plain = MODELS[which]()(input_ids=IDS, attention_mask=MASK).logits
    assert (
        plain[MASK == 1] - a if which != "bert" else plain - a
    ).abs().max() > 1e-3  # the prompt does something


@pytest.mark.parametrize(("method", "which"), GRID)
def test_padding_changes_nothing(method, which):
    ours = moved(tuners.inject(MODELS[which](), METHODS[method][0]))
    both = ours(input_ids=IDS, attention_mask=MASK).logits[1]
    alone = ours(input_ids=IDS[1:, :3]).logits[0]
    torch.testing.assert_close(both if which == "bert" else both[:3], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("method", "which"), GRID)
def test_one_step_of_adamw_equals_pefts(method, which):
    ours = tuners.inject(MODELS[which](), METHODS[method][0])
    theirs = theirs_like(ours, method, which, MODELS[which])
    labels = {"bert": torch.tensor([0, 2]), "tagger": torch.where(MASK == 1, IDS % 3, -100)}
    labels["llama"] = torch.where(MASK == 1, IDS, -100)
    y = labels[which]
    padded = y
    if which == "tagger" and method in (
        "prompt",
        "p-tuning",
    ):  # peft's token head also answers at the virtual positions
        padded = torch.cat([torch.full((2, N), -100), y], 1)
    losses, reported = [], []
    for model, target in ((ours, y), (theirs, padded)):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        out = model(input_ids=IDS, attention_mask=MASK, labels=target)
        reported.append(out.loss.item())
        loss = out.loss
        if which == "llama":  # the library's loss of a decoder is float32
            logits = real(out.logits, method, which) if model is theirs else out.logits
            counts = y[:, 1:] != -100
            loss = nn.functional.cross_entropy(logits[:, :-1][counts], y[:, 1:][counts])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert abs(losses[0] - losses[1]) < 1e-10 and abs(reported[0] - reported[1]) < 1e-5
    again = theirs_like(ours, method, which, MODELS[which])
    for p, q in zip(theirs.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("method", "which"), GRID)
def test_gradients_are_exactly_where_they_should_be(method, which):
    ours = tuners.inject(MODELS[which](), METHODS[method][0])
    ours(input_ids=IDS, attention_mask=MASK).logits.square().sum().backward()
    for name, p in ours.named_parameters():
        trains = name.startswith("encoder.") or ".classifier." in f".{name}"
        assert p.requires_grad == trains and (p.grad is not None and p.grad.abs().sum() > 0) == trains, name


@pytest.mark.parametrize("which", MODELS)
def test_parameter_counts(which):
    d, keys, L = 16, 8 if which == "llama" else 16, 2
    head = 0 if which == "llama" else 16 * 3 + 3
    counts = {
        tuners.PromptTuning(N): N * d,
        tuners.PTuning(N, hidden=7): N * d + (d * 7 + 7) + (7 * 7 + 7) + (7 * d + d),
        tuners.PrefixTuning(N, hidden=7): N * keys + (keys * 7 + 7) + (7 * 2 * L * keys + 2 * L * keys),
        tuners.DeepPrompts(N): N * 2 * L * keys,
        tuners.PrefixTuning(N, reparametrise=False): N * 2 * L * keys,
        tuners.DeepPrompts(N, layers=(1,)): N * 2 * keys,
    }
    for method, count in counts.items():
        trained = tuners.trainable(tuners.inject(MODELS[which](), method)).values()
        assert sum(p.numel() for p in trained) == count + head, method


@pytest.mark.parametrize(("method", "which"), GRID)
def test_saved_by_ours_and_read_by_peft_and_by_us(method, which, tmp_path):
    ours = moved(tuners.inject(MODELS[which](), METHODS[method][0]))
    tuners.save(ours, tmp_path)
    expected = ours(input_ids=IDS, attention_mask=MASK).logits
    again = tuners.load(MODELS[which](), tmp_path)
    torch.testing.assert_close(again(input_ids=IDS, attention_mask=MASK).logits, expected, rtol=0, atol=1e-12)
    assert again.tuner == ours.tuner.described()
    theirs = quiet(MODELS[which](), tmp_path).double()
    found = real(theirs(input_ids=IDS, attention_mask=MASK).logits, method, which)
    size = expected[MASK == 1].abs().max() if which != "bert" else expected.abs().max()
    difference = (found - expected)[MASK == 1] if which != "bert" else found - expected
    assert difference.abs().max() / size < 1e-5  # peft reads vectors as float32


@pytest.mark.parametrize(("method", "which"), GRID)
def test_saved_by_peft_and_read_by_us(method, which, tmp_path):
    ours = moved(tuners.inject(MODELS[which](), METHODS[method][0]))
    theirs = theirs_like(ours, method, which, MODELS[which])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.save_pretrained(tmp_path)
    again = tuners.load(MODELS[which](), tmp_path)
    expected = ours(input_ids=IDS, attention_mask=MASK).logits
    torch.testing.assert_close(again(input_ids=IDS, attention_mask=MASK).logits, expected, rtol=0, atol=1e-10)
    with (
        warnings.catch_warnings(),
        pytest.raises(ValueError, match="Cannot set a prompt learning adapter to train"),
    ):
        warnings.simplefilter("ignore")
        peft.PeftModel.from_pretrained(MODELS[which](), tmp_path, is_trainable=True)


@pytest.mark.parametrize(
    "method",
    [tuners.PromptTuning(N, after_cls=True), tuners.DeepPrompts(N, layers=(1,)), tuners.DeepPrompts(N, shift_positions=False),
     tuners.PrefixTuning(N, shift_positions=False)],
)  # fmt: skip
def test_a_variant_that_peft_lacks_is_not_saved_as_pefts(method, tmp_path):
    ours = moved(tuners.inject(bert(), method))
    tuners.save(ours, tmp_path)
    assert "peft_type" not in json.loads((tmp_path / base.CONFIG).read_text())
    again = tuners.load(bert(), tmp_path)
    torch.testing.assert_close(again(input_ids=IDS).logits, ours(input_ids=IDS).logits, rtol=0, atol=1e-12)


# --- variants against a second implementation ----------------------------------------------------------------------------


def test_behind_cls_equals_embeddings_put_together_by_hand():
    ours = moved(tuners.inject(bert(), tuners.PromptTuning(N, after_cls=True)))
    x = ours.model.bert.embeddings.word_embeddings(IDS)
    by_hand = torch.cat([x[:, :1], ours.encoder.P.expand(2, -1, -1), x[:, 1:]], 1)
    mask = torch.cat([torch.ones(2, N, dtype=torch.long), MASK], 1)
    expected = ours.model(inputs_embeds=by_hand, attention_mask=mask).logits
    assert torch.equal(ours(input_ids=IDS, attention_mask=MASK).logits, expected)


@pytest.mark.parametrize("which", ["bert", "llama"])
@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("layers", [(), (1,), (0,)])
def test_prefix_equals_keys_and_values_put_in_by_hooks(which, shift, layers):
    """A second implementation: no cache, but attention replaced by its formula, layer by layer, without the library's."""
    method = tuners.DeepPrompts(N, layers=layers, shift_positions=shift)
    ours = moved(tuners.inject(MODELS[which](), method))
    plain = MODELS[which]()
    plain.load_state_dict(ours.model.state_dict())
    plain.set_attn_implementation("eager")
    heads, width = virtual_tokens.key_shape(plain)[1]
    chosen = layers or (0, 1)
    kv = ours.encoder.P.view(N, 2 * len(chosen), heads, width)
    for number, attention in virtual_tokens.attentions(plain).items():
        attention.kv = None
        if number in chosen:
            i = 2 * chosen.index(number)
            attention.kv = kv[:, i].transpose(0, 1), kv[:, i + 1].transpose(0, 1)
    import transformers

    interface = transformers.AttentionInterface()

    def by_formula(module, q, k, v, mask, scaling=None, **_):
        if module.kv is not None:
            K, V = (t.expand(len(q), -1, -1, -1) for t in module.kv)
            k, v = torch.cat([K, k], 2), torch.cat([V, v], 2)
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        scores = q @ k.transpose(2, 3) * (scaling or q.shape[-1] ** -0.5)
        T, S = scores.shape[-2:]
        seen = torch.ones(T, S, dtype=torch.bool)
        if which == "llama":
            seen = seen.tril(S - T)
        return (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v).transpose(1, 2), None

    interface.register("by_formula", by_formula)
    plain.set_attn_implementation("by_formula")
    positions = (torch.arange(5) + N * shift)[None]
    expected = plain(input_ids=IDS, position_ids=positions, attention_mask=None).logits
    found = ours(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    masked = ours(input_ids=IDS, attention_mask=MASK).logits[0]
    torch.testing.assert_close(masked, expected[0], rtol=0, atol=1e-12)


def test_questions_keep_their_positions():
    ours = moved(tuners.inject(bert(BertForQuestionAnswering, labels=2), tuners.PromptTuning(N)))
    out = ours(input_ids=IDS, start_positions=torch.tensor([1, 2]), end_positions=torch.tensor([3, 2]))
    assert out.start_logits.shape == out.end_logits.shape == IDS.shape
    x = torch.cat([ours.encoder.P.expand(2, -1, -1), ours.model.bert.embeddings.word_embeddings(IDS)], 1)
    by_hand = ours.model(
        inputs_embeds=x, start_positions=torch.tensor([1, 2]) + N, end_positions=torch.tensor([3, 2]) + N
    )
    assert torch.equal(out.loss, by_hand.loss) and torch.equal(out.start_logits, by_hand.start_logits[:, N:])


def test_a_prompt_of_words_is_the_text_itself():
    """Embeddings of tokens in front of a text are that text, and so are the keys and values of a decoder."""
    words = (7, 8, 9)
    text = torch.cat([torch.tensor([words, words]), IDS], 1)
    for make, cut in ((llama, slice(N, None)), (tagger, slice(N, None))):
        expected = make()(input_ids=text).logits[:, cut]
        ours = tuners.inject(make(), tuners.PromptTuning(N, init=words))
        torch.testing.assert_close(ours(input_ids=IDS).logits, expected, rtol=0, atol=1e-12)
    deep = tuners.inject(llama(), tuners.DeepPrompts(N, init=words))
    torch.testing.assert_close(
        deep(input_ids=IDS).logits, llama()(input_ids=text).logits[:, N:], rtol=0, atol=1e-12
    )
    longer = tuners.inject(bert(), tuners.PromptTuning(5, init=words))
    assert torch.equal(longer.encoder.P, bert().get_input_embeddings().weight[[7, 8, 9, 7, 8]])
    drawn = tuners.inject(bert(), tuners.PromptTuning(5, init="vocab")).encoder.P
    table = bert().get_input_embeddings().weight
    assert all((row == table).all(1).any() for row in drawn)


def test_keys_of_zero_are_no_no_op():
    """peft calls its zero initialisation a no-op. It draws attention to n values of zero: the output of attention shrinks."""
    deep = tuners.inject(bert(), tuners.DeepPrompts(N, init="zero", shift_positions=False))
    reparametrised = tuners.inject(bert(), tuners.PrefixTuning(N, init="zero", shift_positions=False))
    plain = bert()(input_ids=IDS).logits
    for model in (deep, reparametrised):
        assert (model(input_ids=IDS).logits - plain).abs().max() > 1e-3
    assert torch.equal(deep(input_ids=IDS).logits, reparametrised(input_ids=IDS).logits)


# --- training, decoding, misuse ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_loop_trains_and_predicts(method):
    examples = [{"input_ids": [5 + i % 7, 9, 11 + i % 3][: 2 + i % 2], "labels": i % 3} for i in range(12)]
    ours = tuners.inject(bert(), METHODS[method][0])
    frozen = {n: p.clone() for n, p in ours.named_parameters() if not p.requires_grad}
    before = {n: p.clone() for n, p in tuners.trainable(ours).items()}
    training.train(ours, examples, steps=3, learning_rate=1e-2, pad_id=0, batch_size=4)
    assert all(torch.equal(p, frozen[n]) for n, p in ours.named_parameters() if n in frozen)
    assert not any(torch.equal(p, before[n]) for n, p in tuners.trainable(ours).items())
    assert training.predict(ours, examples, 0).shape == (12, 3)
    tags = [{"input_ids": e["input_ids"], "labels": [0] * len(e["input_ids"])} for e in examples]
    found = training.token_logits(tuners.inject(tagger(), METHODS[method][0]), tags, 0)
    assert [len(row) for row in found] == [len(e["input_ids"]) for e in examples]
    pairs = [{"input_ids": [5, 6, 7, 8 + i % 3], "labels": [-100, -100, 7, 8 + i % 3]} for i in range(4)]
    history = training.train(
        tuners.inject(llama(), METHODS[method][0]), pairs, steps=2, learning_rate=1e-2, pad_id=0, batch_size=2,
        objective=generation.causal_losses,
    )  # fmt: skip
    assert len(history.losses) == 2


@pytest.mark.parametrize("method", METHODS)
def test_decoding_equals_pefts_and_ours(method):
    ours = moved(tuners.inject(llama(), METHODS[method][0]))
    theirs = theirs_like(ours, method, "llama", llama)
    rows = [[5, 6, 7, 8, 9], [9, 10, 11]]
    left = torch.tensor([[5, 6, 7, 8, 9], [0, 0, 9, 10, 11]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    settings = dict(max_new_tokens=6, do_sample=False, pad_token_id=0)
    found = ours.generate(left, attention_mask=mask, **settings)
    expected = theirs.generate(input_ids=left[:1], **settings)[:, 5:]
    new = expected.shape[1]
    assert found[0, 5 : 5 + new].tolist() == expected[0].tolist()
    by_loop = generation.greedy(ours, rows, 6, 2)
    for row, ids in zip(found[:, 5:].tolist(), by_loop, strict=True):
        assert (row[: row.index(2)] if 2 in row else row) == ids
    step_by_step = rows[1][:]
    for _ in by_loop[1]:  # without any cache of ours
        step_by_step.append(int(ours(input_ids=torch.tensor([step_by_step])).logits[0, -1].argmax()))
    assert step_by_step[3:] == by_loop[1]
    beams = ours.generate(left[:1], num_beams=3, **settings)
    assert beams[:, :5].tolist() == left[:1].tolist()
    assert beams.tolist() == theirs.generate(input_ids=left[:1], num_beams=3, **settings).tolist()


def test_misuse_is_one_sentence():
    with pytest.raises(TrainingError, match="needs at least one position"):
        tuners.inject(bert(), tuners.PromptTuning(0))
    with pytest.raises(TrainingError, match=r"init='zeros'.*choose normal, zero, vocab or a tuple"):
        tuners.inject(bert(), tuners.DeepPrompts(2, init="zeros"))
    with pytest.raises(TrainingError, match="there is no layer 2, only 0 to 1"):
        tuners.inject(bert(), tuners.DeepPrompts(2, layers=(0, 2)))
    with pytest.raises(TrainingError, match=r"a decoder has no \[CLS\]"):
        tuners.inject(llama(), tuners.PromptTuning(2, after_cls=True))
    with pytest.raises(TrainingError, match="cannot be merged: its vectors stand beside the text"):
        tuners.merge(tuners.inject(bert(), tuners.PromptTuning(2)))
    with pytest.raises(TrainingError, match="already carries PromptTuning"):
        tuners.inject(tuners.inject(bert(), tuners.PromptTuning(2)), tuners.Lora())


def test_first_values_depend_on_the_seed_alone():
    for method in (tuners.PromptTuning(2), tuners.PromptTuning(2, "vocab"), tuners.PTuning(2), tuners.PrefixTuning(2),
                   tuners.DeepPrompts(2), tuners.DeepPrompts(2, "vocab")):  # fmt: skip
        drawn = []
        for seed in (0, 0, 1):
            torch.manual_seed(len(drawn))
            drawn.append(
                torch.cat(
                    [p.flatten() for p in tuners.inject(bert(), method, seed=seed).encoder.parameters()]
                )
            )
        assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    small = tuners.inject(bert(), tuners.PromptTuning(400, "small")).encoder.P
    normal = tuners.inject(bert(), tuners.PromptTuning(400)).encoder.P
    assert abs(small.std() - 0.02) < 0.002 and abs(normal.std() - 1) < 0.1


@pytest.mark.parametrize("method", METHODS)
def test_the_real_models_equal_pefts(method):
    sentences = ["a joy to watch from start to end", "dull"]
    for which, role in (("bert", "encoder"), ("llama", "decoder")):
        tokenizer = models.load_tokenizer(role)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        batch = tokenizer(sentences, padding=True, padding_side="right", return_tensors="pt")
        batch.pop("token_type_ids", None)
        net = REAL[which]()
        ours = tuners.inject(net, {"p-tuning": tuners.PTuning(N, 7), "prefix": tuners.PrefixTuning(N, hidden=7)}.get(
            method, METHODS[method][0]
        )).eval()  # fmt: skip
        with torch.no_grad():
            a = ours(**batch).logits
            theirs = theirs_like(ours, method, which, lambda: net, head=False)  # noqa: B023
            b = real(theirs(**batch).logits, method, which)
            if which == "llama":
                a, b = a[batch["attention_mask"] == 1], b[batch["attention_mask"] == 1]
            assert a.shape == b.shape and (a - b).abs().max() / a.abs().max() < 1e-5
            expected = a
            if which == "llama" and method == "deep":
                ids = batch["input_ids"][:1]
                settings = dict(max_new_tokens=4, do_sample=False, pad_token_id=2)
                assert (
                    ours.generate(ids, **settings).tolist()
                    == theirs.generate(input_ids=ids, **settings).tolist()
                )
        assert expected.isfinite().all()


REAL = {"bert": lambda: models.load_classifier(3), "llama": models.load_decoder}


def test_plain_and_encoded_are_modules_with_the_lessons_letters():
    assert list(dict(virtual_tokens.Plain(torch.zeros(2, 3)).named_parameters())) == ["P"]
    names = list(
        dict(virtual_tokens.Encoded(torch.zeros(2, 3), nn.Sequential(nn.Linear(3, 3))).named_parameters())
    )
    assert names == ["E", "mlp.0.weight", "mlp.0.bias"]
