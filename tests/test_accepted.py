"""What the checks must let through: each use here has a good reason, and was refused, or crashed, while they were built."""

from __future__ import annotations

import math
import types
from fractions import Fraction

import numpy as np
import pandas
import pytest
import torch
import transformers
from test_training import invented, tiny
from torch import nn

from instructlab_utils import chat, guards, metrics, models, tagging, training

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 60,
}


class Configured(nn.Module):
    def __init__(self, config: object) -> None:
        super().__init__()
        self.config = config


def test_positions_that_no_table_limits_have_no_limit() -> None:
    free: list[object] = [
        None,
        {"hidden_size": 3},
        transformers.T5Config(),
        transformers.XLNetConfig(),  # says -1
        transformers.BloomConfig(),
        transformers.FalconConfig(alibi=True),
        transformers.DebertaV2Config(relative_attention=True, position_biased_input=False),
        transformers.PretrainedConfig(max_position_embeddings=None),
    ]
    assert [guards.positions(Configured(config)) for config in free] == [math.inf] * len(free)
    assert guards.positions(nn.Linear(1, 1)) == math.inf
    bound = [
        transformers.GPT2Config(n_positions=32),
        transformers.DebertaV2Config(max_position_embeddings=32),
    ]
    assert [guards.positions(Configured(config)) for config in bound] == [32, 32]


def test_robertas_first_positions_belong_to_padding() -> None:
    config = transformers.RobertaConfig(**SMALL, max_position_embeddings=14, pad_token_id=1)
    net = transformers.RobertaForSequenceClassification(config).eval()
    assert training.predict(net, [{"input_ids": [5] * 12, "labels": 0}], 1).shape == (1, 2)
    with pytest.raises(training.TrainingError, match="row 0 has 13 tokens, the model reads at most 12"):
        training.predict(net, [{"input_ids": [5] * 13, "labels": 0}], 1)


def test_examples_and_dev_may_be_generators_and_labels_of_numpy_and_torch() -> None:
    settings = dict(steps=3, learning_rate=1e-3, pad_id=0, batch_size=2, eval_every=1)
    rows = invented(6)
    want = training.train(tiny(), rows, dev=rows, **settings)
    assert training.train(tiny(), iter(rows), dev=(row for row in rows), **settings) == want
    for kind in (np.int64, torch.tensor):
        other = [row | {"labels": kind(row["labels"])} for row in rows]
        assert training.train(tiny(), other, dev=other, **settings) == want


def test_keys_that_hold_nothing_are_no_keys_and_no_weight_is_weight_1() -> None:
    """Arrow gives each message of a table every key."""
    tokenizer = models.load_tokenizer("decoder")
    plain = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    table = [turn | {"weight": None, "name": None, "tool_calls": []} for turn in plain]
    assert chat.encode_chat(table, tokenizer) == chat.encode_chat(plain, tokenizer)


def test_fractions_nullable_columns_and_bools_are_numbers() -> None:
    half = Fraction(1, 2)
    assert metrics.expected_calibration_error([[half, half]] * 2, [0, 1]) == 0
    nullable = pandas.Series([0, 1, 1], dtype="Int64").to_numpy(dtype=object)
    assert metrics.accuracy(nullable, np.array([False, True, False])) == pytest.approx(2 / 3)
    with pytest.raises(TypeError, match="must hold numbers"):
        metrics.accuracy(["0"], np.array(["0"], dtype=object))


def test_rows_of_numpy_arrays_are_tagged_as_lists_are() -> None:
    tokenizer = models.load_tokenizer("encoder")
    rows = [{"tokens": ["Ann", "left"], "tags": ["B-PER", "O"]}]
    arrays = [{name: np.array(column) for name, column in row.items()} for row in rows]
    labels = ["O", "B-PER"]
    assert tagging.encode(arrays, tokenizer, labels) == tagging.encode(rows, tokenizer, labels)


def test_a_run_goes_on_after_the_folder_has_moved_and_the_package_has_changed(tmp_path) -> None:
    rows, settings = invented(6), dict(steps=4, learning_rate=1e-3, pad_id=0, batch_size=2, save_every=2)
    training.train(tiny(), rows, folder=tmp_path / "a", until=2, **settings)
    (tmp_path / "a").rename(tmp_path / "b")
    code = training.target_losses.__code__
    changed = types.FunctionType(code.replace(co_consts=(*code.co_consts, "new")), vars(training))
    settings["objective"] = changed
    assert len(training.train(tiny(), rows, folder=tmp_path / "b", **settings).losses) == 4
    other = {"objective": lambda *given: 2 * changed(*given)}
    with pytest.raises(training.TrainingError, match="a function's hash tells its code"):
        training.train(tiny(), rows, folder=tmp_path / "b", **settings | other)
