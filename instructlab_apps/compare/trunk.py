"""An encoder from a folder, read once for frozen features, and tuned: LoRA by hand, or everything but the word embeddings."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from instructlab_apps.compare.pacing import OutOfTime, Speeds
from instructlab_utils import features, models, training, tuners
from instructlab_utils.errors import DataError, TrainingError

BATCH = 16
QUERIES = ("query", "value", "q_lin", "v_lin", "q_proj", "v_proj", "query_proj", "value_proj")


def load(folder: str) -> tuple[Any, Any]:
    """Encoder (fp32, eval mode) and tokenizer of ``folder``; nothing from a hub, no code of the folder is run."""
    from transformers import AutoModel, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    how: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **how)
        net = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **how)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        why = " ".join(str(error).split())[:160]
        raise DataError(f"--model {folder}: it cannot be loaded ({why}); save it again") from None
    if net.config.is_encoder_decoder or tokenizer.pad_token_id is None:
        raise DataError(f"--model {folder}: it is no encoder with a padding token; give a BERT-like one")
    return net.eval(), tokenizer


class PooledClassifier(nn.Module):
    """An encoder, the mean of its states over the tokens that are there, and a linear layer to K logits.

    The pooler of many checkpoints has never been trained, so it is not used; the head is drawn from ``seed``.
    """

    def __init__(self, encoder: Any, classes: int, seed: int) -> None:
        super().__init__()
        self.encoder, self.config = encoder, encoder.config
        self.classifier = nn.Linear(encoder.config.hidden_size, classes)
        self.newly_initialised = ["classifier.weight", "classifier.bias"]  # tuners train these
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.classifier.weight.normal_(0.0, 0.02, generator=generator)
            self.classifier.bias.zero_()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Namespace with ``logits`` (B, K), for ids and mask (B, T)."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return SimpleNamespace(
            logits=self.classifier(features.pooled(states, attention_mask.to(states.dtype)))
        )


def prepared(kind: str, encoder: Any, classes: int, seed: int) -> nn.Module:
    """A copy of ``encoder`` with a head, of which ``lora`` trains rank 8 in queries and values, ``full`` all but the
    word embeddings. TrainingError where LoRA finds no layer that it knows."""
    net = PooledClassifier(copy.deepcopy(encoder), classes, seed)
    if getattr(net.encoder, "pooler", None) is not None:
        net.encoder.pooler = None  # its gradient would be none
    if kind == "lora":
        names = {name.rpartition(".")[2] for name, part in net.named_modules() if isinstance(part, nn.Linear)}
        targets = tuple(name for name in QUERIES if name in names)
        if not targets:
            raise TrainingError("LoRA finds no query and value layers that it knows in this encoder")
        return tuners.inject(net, tuners.Lora(r=8, alpha=8, targets=targets), seed=seed)
    embedding = net.encoder.get_input_embeddings()
    embedding.weight.requires_grad_(False)  # a third of the time, and next to nothing of the score
    return net


def size_of(net: nn.Module) -> int:
    """Bytes of what must be kept beside the encoder: the numbers that have trained."""
    return sum(p.numel() * p.element_size() for p in net.parameters() if p.requires_grad)


def read(
    encoder: Any, examples: Sequence[dict[str, Any]], pad_id: int, until: float = float("inf")
) -> np.ndarray:
    """Mean states of the examples, float32 (N, d). OutOfTime where the clock passes ``until`` (time.time())."""
    out = np.zeros((len(examples), encoder.config.hidden_size), dtype=np.float32)
    with torch.no_grad(), models.evaluating(encoder):
        for chosen in training.batches_by_length(examples, 32):
            if time.time() > until:
                raise OutOfTime
            batch = training.collate([examples[i] for i in chosen], pad_id)
            mask = batch["attention_mask"]
            states = encoder(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
            out[chosen] = features.pooled(states, mask.to(states.dtype)).numpy()
    return out


def tune(
    net: nn.Module,
    examples: Sequence[dict[str, Any]],
    rate: float,
    steps: int,
    seed: int,
    pad_id: int,
    until: float,
) -> None:
    """Train in place, ``steps`` updates of 16 texts. OutOfTime where the clock passes ``until``."""

    def look(_: int) -> None:
        if time.time() > until:
            raise OutOfTime

    how: dict[str, Any] = tuners.extras(net) if getattr(net, "tuner", None) is not None else {}
    training.train(
        net,
        examples,
        steps=steps,
        learning_rate=rate,
        pad_id=pad_id,
        batch_size=BATCH,
        seed=seed,
        after_step=look,
        **how,
    )


def probabilities(net: nn.Module, examples: Sequence[dict[str, Any]], pad_id: int) -> np.ndarray:
    """Softmax of the logits, float64 (N, K)."""
    return training.predict(net, examples, pad_id, 32).double().softmax(-1).numpy()


def measured(encoder: Any, examples: Sequence[dict[str, Any]], classes: int, pad_id: int) -> Speeds:
    """Seconds a padded token: reading it, and a step of each way to tune; a few seconds of work.

    The first pass warms up and is not counted. LoRA is None where the encoder has no layers for it.
    """
    batch = sorted(examples, key=lambda one: len(one["input_ids"]))[len(examples) // 4 :][:BATCH]
    tokens = len(batch) * max(len(one["input_ids"]) for one in batch)

    def took(work: Callable[[], Any]) -> float:
        """The middle of three: another program may have disturbed one of them. One that takes long stands for all."""
        times: list[float] = []
        while len(times) < 3 and sum(times) < 2:
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
        return sorted(times)[len(times) // 2] / tokens

    read(encoder, batch[:4], pad_id)
    reading, steps = took(lambda: read(encoder, batch, pad_id)), dict[str, float | None]()
    for kind in ("full", "lora"):
        try:
            net = prepared(kind, encoder, classes, 0)
        except TrainingError:
            steps[kind] = None
            continue
        tune(net, batch[:4], 1e-5, 1, 0, pad_id, float("inf"))
        steps[kind] = took(partial(tune, net, batch, 1e-5, 1, 0, pad_id, float("inf")))
    return Speeds(reading, float(steps["full"] or 0.0), steps["lora"])
