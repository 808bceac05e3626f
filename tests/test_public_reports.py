"""Reports that others filed about the tools of this field, replayed on this project; each test names its source.

The first group failed here before; what follows held already, and is kept so that it goes on to hold.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import jupytext
import nbformat
import pytest
import torch
import transformers
from torch import nn

from instructlab_utils import files, generation, metrics, models, training, tuners
from instructlab_utils.errors import TrainingError
from instructlab_utils.tasks import readers

WINDOW = 12


def bert(kind: type) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return kind(transformers.BertConfig(vocab_size=60, max_position_embeddings=WINDOW, num_labels=3, **sizes))


def llama(tied: bool = False) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.LlamaConfig(vocab_size=60, tie_word_embeddings=tied, **sizes)
    return transformers.LlamaForCausalLM(config).eval()


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2, **ids)
    return transformers.GPT2LMHeadModel(config).eval()


# --- failed here before -----------------------------------------------------------------------------------------------


def test_a_text_longer_than_the_model_is_named_before_training_and_before_predicting() -> None:
    """huggingface/transformers#1726 and #11036: "index out of range in self", or words without a prediction."""
    long, says = (
        list(range(1, WINDOW + 2)),
        f"row 1 has {WINDOW + 1} tokens, the model reads at most {WINDOW}",
    )
    texts = [{"input_ids": [1, 2], "labels": 0}, {"input_ids": long, "labels": 1}]
    words = [{"input_ids": ids, "labels": [0] * len(ids)} for ids in ([1, 2], long)]
    classifier = bert(transformers.BertForSequenceClassification)
    before = [p.clone() for p in classifier.parameters()]
    with pytest.raises(TrainingError, match=says):
        training.train(classifier, texts, steps=2, learning_rate=0.1, pad_id=0, batch_size=1)
    assert all(torch.equal(p, q) for p, q in zip(classifier.parameters(), before, strict=True))
    with pytest.raises(TrainingError, match=says):
        training.predict(classifier, texts, 0)
    with pytest.raises(TrainingError, match=says):
        training.token_logits(bert(transformers.BertForTokenClassification), words, 0)
    prompted = tuners.inject(
        bert(transformers.BertForSequenceClassification), tuners.PromptTuning(length=3), seed=0
    )
    fits = [{"input_ids": [1] * (WINDOW - 3), "labels": 0}]
    assert training.predict(prompted, fits, 0).shape == (1, 3)
    with pytest.raises(
        TrainingError, match=f"row 0 has {WINDOW - 2} tokens, the model reads at most {WINDOW - 3}"
    ):
        training.predict(prompted, [{"input_ids": [1] * (WINDOW - 2), "labels": 0}], 0)


# --- held already -----------------------------------------------------------------------------------------------------


def test_merging_again_adds_nothing() -> None:
    """huggingface/peft#1355: each further merge added the update once more."""
    net = tuners.inject(llama(), tuners.Lora(r=2, targets=("q_proj",)), seed=0)
    with torch.no_grad():
        for parameter in tuners.trainable(net).values():
            parameter.normal_()
    ids = torch.arange(10)[None]
    want, merged = net(ids).logits, tuners.merge(net)
    assert torch.allclose(merged(ids).logits, want, atol=1e-6)
    assert torch.equal(tuners.merge(merged)(ids).logits, merged(ids).logits)


@pytest.mark.parametrize("text", ["N/A", "null", "None", "nan", "NA", "true"])
def test_words_that_readers_take_for_nothing_stay_words(tmp_path: Path, text: str) -> None:
    """pandas-dev/pandas#24681: a table's "N/A" and "null" came back as missing values."""
    path = tmp_path / "rated.txt"
    path.write_text(f"1\t2.0\t{text}\n", encoding="utf-8")
    assert [row.text for row in readers.rated([path], Counter())] == [text]


def test_a_record_may_hold_every_character_that_ends_a_line_elsewhere(tmp_path: Path) -> None:
    """bytedance/deer-flow#5423: str.splitlines() cut JSON records at U+0085, U+2028 and U+2029."""
    path, record = tmp_path / "a.jsonl", {"t": "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"}
    files.append_line(path, record)
    path.write_bytes(path.read_bytes() + json.dumps(record, ensure_ascii=False).encode() + b"\n")
    assert files.read_lines(path) == [record, record]


def test_accumulation_weighs_tokens_not_batches() -> None:
    """huggingface/transformers#34191: with unequal lengths, accumulated batches were not the large batch."""
    rows = [list(range(1, n)) for n in (3, 12, 5, 9)]
    examples = [{"input_ids": ids, "labels": [-100, *ids[1:]]} for ids in rows]
    norms = []
    for size in (4, 1):
        net = llama()
        parts = [training.collate_tokens(examples[i : i + size], 0) for i in range(0, 4, size)]
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
        norms.append(training.training_step(net, optimizer, parts, 1e-3, 1e9, generation.causal_losses))
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_a_confidence_of_exactly_one_or_nothing_has_a_bin() -> None:
    """Lightning-AI/torchmetrics#3510 and #1646: confidences of 1.0 had a bin of their own, those of 0 none."""
    both_wrong = metrics.expected_calibration_error([[0.05, 0.95], [1.0, 0.0]], [0, 1])
    assert both_wrong == pytest.approx(0.975)  # one bin, (0.9, 1]: confidence 0.975, accuracy 0
    half = metrics.expected_calibration_error([[0.05, 0.95], [1.0, 0.0]], [1, 1])
    assert half == pytest.approx(0.475)  # apart, the two would give (0.05 + 1.0) / 2 = 0.525


def test_tied_weights_are_saved_once_and_tied_again(tmp_path: Path) -> None:
    """safetensors/safetensors#202: "Some tensors share memory" ended the saving of every tied model."""
    ids = [1, 2, 3, 4]
    how = {
        "steps": 4,
        "learning_rate": 1e-3,
        "pad_id": 0,
        "batch_size": 2,
        "objective": generation.causal_losses,
    }
    rows = [{"input_ids": ids, "labels": [-100, *ids[1:]]}] * 8
    training.train(llama(tied=True), rows, **how, folder=tmp_path / "run", save_every=2, until=3)
    resumed, whole = llama(tied=True), llama(tied=True)
    training.train(resumed, rows, **how, folder=tmp_path / "run", save_every=2)
    training.train(whole, rows, **how)
    assert resumed.lm_head.weight is resumed.model.embed_tokens.weight
    assert all(torch.equal(p, q) for p, q in zip(resumed.parameters(), whole.parameters(), strict=True))


def test_short_prompts_of_a_batch_are_read_at_their_own_positions() -> None:
    """ndif-team/nnsight#673: left padding shifted the learned positions of every prompt but the longest."""
    net, prompts = gpt2(), [[5, 6, 7, 8, 9], [3], [4, 4]]
    alone = [generation.greedy(net, [prompt], 8, 49)[0] for prompt in prompts]
    assert generation.greedy(net, prompts, 8, 49) == alone


@pytest.mark.parametrize("text", ["x != y and a.b == c", " do not , he said .", "1 . 5 ( '' ) n't"])
def test_decoding_keeps_the_spaces_that_were_there(text: str) -> None:
    """huggingface/transformers#44914: " !=" came back as "!=", since decoding tidied up as for BERT."""
    tokenizer = models.load_tokenizer("decoder")
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_cells_with_percent_signs_survive_the_way_through_the_source() -> None:
    """jupytext/jupytext#1533: "%%" at the start of a line of Markdown began a new cell."""
    cells = ["```mermaid\nstateDiagram-v2\n%% == States ==\nA --> B\n```", "a\n\n# %% [markdown]\nb"]
    code = ['s = """\n# %% a cell?\n"""', "%%bash\necho 1", "!ls\n%time x = 1"]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell(text) for text in cells]
        + [nbformat.v4.new_code_cell(text) for text in code]
    )
    back = jupytext.reads(jupytext.writes(notebook, fmt="py:percent"), fmt="py:percent")
    assert [cell.source for cell in back.cells] == cells + code


def test_a_learning_rate_may_be_written_without_a_point() -> None:
    """huggingface/trl#1450: YAML 1.1 reads 1e-4 as a text, and the run failed or trained with something else."""
    from instructlab_repro.notebooks.parameters import Parameter, check_parameters

    known = {"rate": Parameter("rate", "float", 1.0)}
    assert check_parameters(known, {"rate": "1e-4"}, parse=True) == {"rate": 1e-4}
    assert isinstance(check_parameters(known, {"rate": "5"}, parse=True)["rate"], int | float)
