"""A GGUF file becomes a plain safetensors folder, with the pinned tensors or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import sys
from pathlib import Path

from instructlab_repro.assets.pinned import Convert
from instructlab_utils.errors import AssetError

FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def convert(name: str, recipe: Convert, folder: Path, progress: bool = True) -> dict[str, str]:
    """Turn the GGUF file in ``folder`` into plain safetensors, configuration and tokenizer; delete the GGUF.

    The weights are de-quantised in float32 and rounded once to the recipe's dtype. Returns the versions of the
    libraries that did it. Raises AssetError if it fails or the weights are not the pinned ones, OSError on a full disk.
    """
    if progress:
        print(f"{name}: converting {recipe.gguf} to safetensors (once) …", file=sys.stderr)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            versions = _write_model(recipe, folder)
    except Exception as error:
        # safetensors has its own exception for a full disk, with the system's number in the text
        told = re.search(r"os error (\d+)", str(error))
        number = int(told[1]) if told else getattr(error, "errno", None)
        if number in FULL:
            raise OSError(number, os.strerror(number)) from error
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        why = f"{recipe.gguf} cannot be converted ({why}); install requirements.lock"
        raise AssetError(f"asset {name!r}: {why}") from error
    (folder / recipe.gguf).unlink()
    digest = tensors_sha256(folder / "model.safetensors")
    if digest != recipe.tensors_sha256:
        why = f"{digest} instead of {recipe.tensors_sha256}; install the versions of requirements.lock"
        raise AssetError(f"asset {name!r}: the converted weights have tensors_sha256 {why}")
    return versions


def _write_model(recipe: Convert, folder: Path) -> dict[str, str]:
    import torch
    import transformers
    from tokenizers import pre_tokenizers

    where = {"gguf_file": recipe.gguf, "local_files_only": True}
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **where)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **where)
    model = model.to(getattr(torch, recipe.dtype))
    model.hf_quantizer = None  # it is not quantised any more; with the mark, saving is refused
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    if recipe.split_digits:
        fast = tokenizer.backend_tokenizer
        rules = [pre_tokenizers.Digits(individual_digits=True), fast.pre_tokenizer]
        fast.pre_tokenizer = pre_tokenizers.Sequence(rules)
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"torch": torch.__version__.partition("+")[0], "transformers": transformers.__version__}


def tensors_sha256(file: Path) -> str:
    """SHA-256 over the tensors of a safetensors file: sorted by name, a line ``name dtype shape``, the bytes.

    Unlike the file's own hash it does not depend on what a library version writes into the header.
    """
    from safetensors import deserialize

    digest = hashlib.sha256()
    for name, facts in sorted(deserialize(file.read_bytes())):
        digest.update(f"{name} {facts['dtype']} {facts['shape']}\n".encode() + facts["data"])
    return digest.hexdigest()
