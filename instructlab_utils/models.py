"""The real models by role: an encoder (MiniLM), a decoder (SmolLM2), both pinned in data/assets.toml.

Device and dtype are chosen here and nowhere else. Taught in lessons 00 (decoder) and 03 (encoder).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from instructlab_utils.errors import ParameterError, TrainingError

if TYPE_CHECKING:
    from transformers import (
        BertForQuestionAnswering,
        BertForSequenceClassification,
        BertForTokenClassification,
        BertModel,
        LlamaForCausalLM,
        PreTrainedTokenizerBase,
    )

ROLES = {"encoder": "minilm", "decoder": "smollm2"}


def pick_device(profile: str = "laptop") -> str:
    """``"cuda"`` in the gpu profile where there is one, else ``"cpu"``.

    Raises ParameterError for the gpu profile on a machine without CUDA: a slow fallback would look like a result.
    """
    if profile != "gpu":
        return "cpu"
    if not torch.cuda.is_available():
        raise ParameterError("profile gpu needs a CUDA device and torch sees none: use profile laptop")
    return "cuda"


def pick_dtype(device: str) -> torch.dtype:
    """bf16 on a CUDA device that supports it, fp32 everywhere else (a CPU without bf16 units is ~50 times slower)."""
    return torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


@contextmanager
def mixed_precision(model: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Forward passes in bf16 on a CUDA device; weights, gradients and updates stay fp32, and a CPU computes as ever.

    Only the forward pass runs under autocast, as torch's documentation asks.
    """
    if device.type != "cuda":
        yield
        return
    model.forward = torch.autocast(device.type, torch.bfloat16)(model.forward)
    try:
        yield
    finally:
        del model.forward


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards each part of the model is back in the mode that it had. From lesson 03 on."""
    was = {part: part.training for part in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for part, mode in was.items():
            part.training = mode


def source_of(role: str, model: str = "") -> str:
    """Folder of the pinned asset for ``role``, or ``model`` itself (a folder or a hub name) where it is given."""
    from instructlab_utils import cache

    if role not in ROLES:
        raise ParameterError(f"unknown role {role!r}: choose encoder or decoder")
    return model or str(cache.folder(ROLES[role]))


def load_tokenizer(role: str, model: str = "") -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to the role's model."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source_of(role, model))


def load_encoder(*, pretrained: bool = True, seed: int = 0, model: str = "") -> BertModel:
    """MiniLM without a head, fp32, in eval mode. ``pretrained=False`` keeps the architecture and draws new weights."""
    from transformers import AutoConfig, AutoModel

    source = source_of("encoder", model)
    torch.manual_seed(seed)
    with _quiet():
        if pretrained:
            return AutoModel.from_pretrained(source, use_safetensors=True, dtype=torch.float32).eval()
        return AutoModel.from_config(AutoConfig.from_pretrained(source), dtype=torch.float32).eval()


def load_tagger(num_labels: int, *, seed: int = 0, model: str = "") -> BertForTokenClassification:
    """The encoder with a linear head of ``num_labels`` logits for every token, drawn from ``seed``; fp32, eval mode."""
    return _with_head("AutoModelForTokenClassification", "classifier", seed, model, num_labels=num_labels)


def load_span_model(*, seed: int = 0, model: str = "") -> BertForQuestionAnswering:
    """The encoder with a span head, two logits for every token, drawn from ``seed``; fp32, in eval mode."""
    return _with_head("AutoModelForQuestionAnswering", "qa_outputs", seed, model)


def load_classifier(
    num_labels: int, *, pretrained: bool = True, seed: int = 0, model: str = ""
) -> BertForSequenceClassification:
    """The encoder with pooler and a linear head of ``num_labels`` logits drawn from ``seed``, fp32, in eval mode."""
    name = "AutoModelForSequenceClassification"
    return _with_head(name, "classifier", seed, model, pretrained, num_labels=num_labels)


def _with_head(auto: str, head: str, seed: int, model: str, pretrained: bool = True, **config: int) -> Any:
    """The encoder as transformers' class ``auto`` builds it. The head is drawn again at the end, so that it depends on the
    seed alone and not on what loading consumed before it."""
    import transformers

    source, kind = source_of("encoder", model), getattr(transformers, auto)
    settings = transformers.AutoConfig.from_pretrained(source, **config)
    torch.manual_seed(seed)
    with _quiet():
        if pretrained:
            how = {"use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
            net, report = kind.from_pretrained(source, config=settings, **how)
            net.newly_initialised = sorted(report["missing_keys"])  # tuners train and save these
        else:
            net = kind.from_config(settings, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in getattr(net, head).modules():  # one linear layer, or a head of several such as RoBERTa's
            if isinstance(layer, torch.nn.Linear):
                layer.weight.normal_(0.0, settings.initializer_range, generator=generator)
                layer.bias.zero_()
    return net.eval()


def load_decoder(model: str = "", device: str = "cpu") -> LlamaForCausalLM:
    """SmolLM2-135M-Instruct, de-quantised from a 4-bit checkpoint; fp32 on the CPU, in eval mode."""
    from transformers import AutoModelForCausalLM

    with _quiet():
        net = AutoModelForCausalLM.from_pretrained(
            source_of("decoder", model), use_safetensors=True, dtype=pick_dtype(device)
        )
    return net.to(device).eval()


def split_decoder(model: LlamaForCausalLM, at: int) -> tuple[Any, Any]:
    """The first ``at`` layers, and the rest with the output layer: two models that share the weights of ``model``.

    ``bottom(input_ids=…, attention_mask=…).last_hidden_state`` is what enters layer ``at``, (B, T, d);
    ``top(inputs_embeds=that, attention_mask=…).logits`` are the logits of ``model``. Where the lower layers are frozen, their
    outputs can be kept, and an update costs only the upper ones. What is changed in ``top`` is changed in ``model``.
    Pad on the right: both number the positions from 0.

    Raises ParameterError where ``at`` leaves one of them without a layer.
    """
    from transformers import LlamaForCausalLM, LlamaModel

    layers = model.model.layers
    if not 0 < at < len(layers):
        raise ParameterError(f"cannot split at layer {at}: choose a number from 1 to {len(layers) - 1}")
    parts = []
    for kind, chosen in ((LlamaModel, layers[:at]), (LlamaForCausalLM, layers[at:])):
        config = copy.deepcopy(model.config)
        config.num_hidden_layers, config.use_cache = len(chosen), False
        with torch.device("meta"):
            part = kind(config)
        trunk = part if kind is LlamaModel else part.model
        trunk.layers, trunk.embed_tokens = chosen, model.model.embed_tokens
        trunk.rotary_emb = model.model.rotary_emb
        parts.append(part.eval())
    bottom, top = parts
    bottom.norm, top.model.norm, top.lm_head = torch.nn.Identity(), model.model.norm, model.lm_head
    return bottom, top


def must_have_loss(output: Any) -> torch.Tensor:
    """``output.loss``, or TrainingError where it is None.

    The heads of transformers 5 ignore arguments that they do not know: a misspelt ``labels=`` gives no loss, no error.
    """
    loss = getattr(output, "loss", None)
    if loss is None:
        raise TrainingError(
            "the head returned no loss: check the names of the label arguments (unknown ones are ignored)"
        )
    return loss


class _quiet:
    """Silence transformers' load report and progress bar for one call; lessons that teach them load by hand."""

    def __enter__(self) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from transformers.utils import logging

        self.level = logging.get_verbosity()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self.level)
