"""The models behind the service: one encoder with several heads, one decoder with several adapters over it.

Only safetensors are loaded. Taught in lesson 25; the parts are of lessons 06 (decoding), 09 (LoRA) and 20 (heads on vectors).
"""

from __future__ import annotations

import copy
import json
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instructlab_utils import cache, chat, features, models, tasks
from instructlab_utils.errors import ConfigError, InstructionError, ParameterError, TrainingError
from instructlab_utils.guards import positions
from instructlab_utils.tuners import adapter_files

WINDOW = 64  # tokens that the encoder reads of a text
HEADS = {
    "tweet-sentiment": (400, 800),
    "bbc-topics": (200, 400),
}  # rows that versions v1 and v2 are fitted on
_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}{{ 'assistant: ' }}"
)


@dataclass(frozen=True)
class LinearHead:
    """One version of a classifier on kept vectors: ``weight`` (K, d), ``bias`` (K,), float32; K names of classes."""

    labels: tuple[str, ...]
    weight: Tensor
    bias: Tensor

    def __call__(self, vectors: Tensor) -> Tensor:
        """Probabilities (n, K) of vectors (n, d)."""
        return (vectors @ self.weight.T + self.bias).softmax(-1)


def write_head(head: LinearHead, file: Path) -> None:
    """As safetensors, with the labels in the file's own text fields."""
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"weight": head.weight.contiguous(), "bias": head.bias.contiguous()}
    save_file(tensors, file, metadata={"labels": json.dumps(head.labels)})


def read_head(file: Path) -> LinearHead:
    """ConfigError, with the file, where it is none of :func:`write_head`'s."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as held:
            labels = tuple(map(str, json.loads((held.metadata() or {})["labels"])))
            head = LinearHead(labels, held.get_tensor("weight"), held.get_tensor("bias"))
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ConfigError(
            f"{file}: no head can be read here ({type(error).__name__}); fit it again"
        ) from error
    if head.weight.ndim != 2 or head.weight.shape[0] != len(labels) or not head.weight.isfinite().all():
        raise ConfigError(
            f"{file}: a weight of shape {tuple(head.weight.shape)} for {len(labels)} labels; fit it again"
        )
    return head


def fitted_head(vectors: Tensor, labels: Sequence[int], names: Sequence[str]) -> LinearHead:
    """Logistic regression on vectors (n, d), float32."""
    from sklearn.linear_model import LogisticRegression

    found = LogisticRegression(max_iter=500).fit(vectors.numpy(), list(labels))
    weight, bias = torch.tensor(found.coef_).float(), torch.tensor(found.intercept_).float()
    if len(weight) == 1:  # of two classes scikit-learn keeps one row
        weight, bias = torch.cat([-weight / 2, weight / 2]), torch.cat([-bias / 2, bias / 2])
    return LinearHead(tuple(names), weight, bias)


class EncoderEngine:
    """Texts to vectors (d,), a batch at a time; ``heads[name][version]`` turn a vector into probabilities.

    Heads cost a product each: requests for different heads share one batch through the encoder.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        heads: Mapping[str, Mapping[str, LinearHead]],
        reference: Tensor,
    ) -> None:
        self.model, self.tokenizer, self.reference = model.eval(), tokenizer, reference
        self.heads = {name: dict(versions) for name, versions in heads.items()}
        self.reading = threading.Lock()  # a fast tokenizer keeps its settings inside: one thread at a time

    def vectors(self, key: str, texts: list[str]) -> list[Tensor]:
        """Mean states of the first WINDOW tokens, float32 (d,) each. TrainingError where one is not finite."""
        how = {"padding": True, "truncation": True, "max_length": WINDOW, "return_tensors": "pt"}
        with self.reading:
            batch = self.tokenizer(texts, **how)
        with torch.inference_mode():
            ids, mask = batch["input_ids"], batch["attention_mask"]
            states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            found = features.pooled(states, mask)
        if not found.isfinite().all():
            raise TrainingError("a vector is not finite: look at the encoder's weights")
        return list(found)


@dataclass(eq=False)
class Prompt:
    """A request for an answer: the prompt's ids, the ``most`` new tokens, and ``emit(ids so far)``, called from the worker
    thread after each token. ``gone`` is set where nobody waits any more."""

    ids: list[int]
    most: int
    temperature: float
    seed: int
    emit: Callable[[list[int]], None] | None = None
    gone: bool = False


class DecoderEngine:
    """One decoder, and variants of it by name that share its weights. ``steps`` decodes a batch token by token."""

    def __init__(self, variants: Mapping[str, nn.Module], tokenizer: Any, longest: int = 1024) -> None:
        self.variants, self.tokenizer = dict(variants), tokenizer
        self.window = int(min(longest, *(positions(net) for net in self.variants.values())))

    def prompt_ids(self, turns: Sequence[Mapping[str, str]], most: int) -> list[int]:
        """The conversation as ids. InstructionError for special tokens in a text, or too long a conversation."""
        text = chat.chat_text(self.tokenizer, turns, generation_prompt=True)
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if len(ids) + most > self.window:
            raise InstructionError(
                f"{len(ids)} tokens and {most} new ones, the model reads {self.window}: shorten the conversation"
            )
        return ids

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def steps(self, name: str, prompts: list[Prompt]) -> Iterator[list[tuple[int, tuple[list[int], str]]]]:
        """After each token: the places whose answers are ready, with the new ids and "stop" or "length"."""
        model, end = self.variants[name], self.tokenizer.eos_token_id
        draws = [torch.Generator().manual_seed(prompt.seed) for prompt in prompts]
        rows, new = list(range(len(prompts))), [[] for _ in prompts]  # type: tuple[list[int], list[list[int]]]
        width = max(len(prompt.ids) for prompt in prompts)
        ids = torch.tensor([[0] * (width - len(p.ids)) + p.ids for p in prompts])
        mask = torch.tensor([[0] * (width - len(p.ids)) + [1] * len(p.ids) for p in prompts])
        kept: Any = None
        while rows:
            with torch.inference_mode():
                places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
                seen = {"attention_mask": mask, "position_ids": places, "past_key_values": kept}
                out = model(ids, **seen, use_cache=True, logits_to_keep=1)
                kept, logits = out.past_key_values, out.logits[:, -1].float()
            if not logits.isfinite().all():
                raise TrainingError("a logit is not finite: look at the model's weights")
            tokens = [_drawn(row, prompts[i], draws[i]) for row, i in zip(logits, rows, strict=True)]
            ready, stay = [], []
            for place, (i, token) in enumerate(zip(rows, tokens, strict=True)):
                prompt = prompts[i]
                if token != end:
                    new[i].append(token)
                    if prompt.emit is not None:
                        prompt.emit(list(new[i]))
                if token == end or prompt.gone or len(new[i]) >= prompt.most:
                    ready.append((i, (new[i], "stop" if token == end else "length")))
                else:
                    stay.append(place)
            ids = torch.tensor(tokens)[:, None]
            mask = torch.cat([mask, torch.ones_like(ids)], 1)
            if len(stay) < len(rows):  # those that are ready make room
                chosen = torch.tensor(stay, dtype=torch.long)
                rows, ids, mask = [rows[place] for place in stay], ids[chosen], mask[chosen]
                if rows:
                    kept.batch_select_indices(chosen)
            yield ready


def _drawn(logits: Tensor, prompt: Prompt, generator: torch.Generator) -> int:
    """A token of logits (V,): the most probable at temperature 0, else drawn by the request's own generator."""
    if prompt.temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits / prompt.temperature).softmax(-1), 1, generator=generator))


def with_adapter(base: nn.Module, folder: Path | str) -> nn.Module:
    """A second model over the same weights, with the adapter of lessons 08 and 09 in ``folder``: the parameters of ``base``
    are shared, and only the adapter's own are new. TrainingError for a damaged folder."""
    shared: dict[int, Any] = {id(value): value for value in (*base.parameters(), *base.buffers())}
    twin = copy.deepcopy(base, shared)
    flags = [(parameter, parameter.requires_grad) for parameter in base.parameters()]
    tuned = adapter_files.load(twin, folder)
    for parameter, flag in flags:  # a method freezes what it does not train, and here that is the base's
        parameter.requires_grad_(flag)
    return tuned.eval()


def default_engines(
    model: str = "", adapters: Mapping[str, str] | None = None, int8: bool = False
) -> tuple[EncoderEngine, DecoderEngine]:
    """MiniLM with the heads of HEADS, in ``int8`` or not, and SmolLM2 (or the decoder in the folder ``model``) with
    ``adapters``: name → folder. ``model`` "smoke" takes tiny random ones."""
    if model == "smoke":
        return smoke_engines()
    if model and not Path(model).is_dir():
        raise ParameterError(f"no folder {model!r}: give one with a model's safetensors, or smoke")
    base, tokenizer = models.load_decoder(model), models.load_tokenizer("decoder", model)
    name = Path(model).name if model else "smollm2"
    variants = {name: base}
    for adapter, folder in (adapters or {}).items():
        variants[f"{name}:{adapter}"] = with_adapter(base, folder)
    return encoder_engine(int8=int8), DecoderEngine(variants, tokenizer)


def encoder_engine(names: Sequence[str] = tuple(HEADS), int8: bool = False) -> EncoderEngine:
    """MiniLM with the heads of the tasks ``names``: versions v1, v2 … are fitted on more and more rows at the first start
    and kept in ``cache.home()/service``. With ``int8`` its linear layers are quantised (lesson 25, section 7), and the heads
    are fitted on what they then say: the old ones would lose a point. ParameterError where torch has no int8."""
    net, tokenizer = models.load_encoder(), models.load_tokenizer("encoder")
    if int8:
        if torch.backends.quantized.engine == "none":
            raise ParameterError("this build of torch has no int8 layers: serve without --int8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.ao announces its successor
            net = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    engine = EncoderEngine(net, tokenizer, {}, torch.zeros(0))
    reference = []
    for task in names:
        loaded, sizes = tasks.load(task), HEADS[task]
        rows = tasks.subsample(loaded.splits["train"], max(sizes), 0)
        texts = list(rows["text"])
        cut = [texts[i : i + 16] for i in range(0, len(texts), 16)]
        vectors = (
            torch.stack([vector for few in cut for vector in engine.vectors("", few)])
            if int8
            else features.mean_states(texts, WINDOW)
        )
        engine.heads[task] = {}
        for number, size in enumerate(sizes, start=1):
            file = cache.home() / "service" / ("int8" if int8 else "") / task / f"v{number}.safetensors"
            if not file.exists():
                write_head(fitted_head(vectors[:size], rows["label"][:size], loaded.labels), file)
            engine.heads[task][f"v{number}"] = read_head(file)
        reference.append(vectors)
    engine.reference = torch.cat(reference)
    return engine


def smoke_engines(seed: int = 0) -> tuple[EncoderEngine, DecoderEngine]:
    """Tiny models with random weights, ready in a second; they read any text, byte by byte, and answer nonsense."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from instructlab_utils.small import small_decoder

    letters = ["<pad>", "<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(BPE({letter: i for i, letter in enumerate(letters)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<end>", chat_template=_TEMPLATE
    )
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(seed)
    encoder = BertModel(BertConfig(vocab_size=len(letters), **sizes), add_pooling_layer=False).float().eval()
    heads = {
        name: {
            f"v{n}": LinearHead(("no", "yes"), torch.randn(2, 32) + torch.zeros(2, 32), torch.zeros(2))
            for n in (1, 2)
        }
        for name in ("smoke-a", "smoke-b")
    }
    engine = EncoderEngine(encoder, tokenizer, heads, torch.zeros(0, 32))
    texts = [f"text {n} of {'many ' * (n % 7)}words, {chr(97 + n % 26) * (1 + n % 11)}" for n in range(400)]
    engine.reference = torch.stack(engine.vectors("", texts))
    net = small_decoder(len(letters), width=32, layers=1, heads=2, window=512, seed=seed)
    return engine, DecoderEngine({"smoke": net}, copy.deepcopy(tokenizer))
