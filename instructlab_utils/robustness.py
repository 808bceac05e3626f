"""Small changes that should not matter: the worst ones inside a ball around the embeddings, other words, other characters.

Lesson 19 builds each function (notebooks/source/19_robustness.py). Everything that moves embeddings takes ``x``, the
embedded texts, float of shape (B, T, d), and ``mask``, (B, T), 1 at real tokens: padding has no norm and never moves. A
*radius* is a share of each text's own norm, so that one number suits short and long texts. A model is called as
``net(inputs_embeds=…, attention_mask=…).logits``; word embeddings stay frozen, as ``training.train`` gets them.

A *sentence* is a list of words in lower case (``augmentation.words_of``); a *scorer* maps a list of sentences to
probabilities, (N, K), and each sentence that it reads is one query. From lesson 19 on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from instructlab_utils import models
from instructlab_utils.arguments import fraction, listed
from instructlab_utils.errors import ParameterError
from instructlab_utils.losses import cross_entropy

Words = Sequence[str]
Scorer = Callable[[list[list[str]]], Tensor]
Losses = Callable[[Tensor], Tensor]  # of embeddings (B, T, d), one for each text: (B,)

LOOKALIKES = dict(zip("aceiopxys", "асеіорхуѕ", strict=True))  # Cyrillic letters that look like Latin ones


class ShortEncoder(nn.Module):
    """The first ``layers`` layers of the encoder, the mean over the real tokens, a linear head that starts at 0.

    Embeddings are frozen, and so are as many layers from below as ``frozen`` says.
    ``net(input_ids or inputs_embeds, attention_mask).logits`` is (B, labels). ParameterError where no layer is left.
    """

    def __init__(self, labels: int = 2, layers: int = 1, frozen: int = 0) -> None:
        super().__init__()
        self.encoder = models.load_encoder()
        if not 0 <= frozen <= layers <= len(self.encoder.encoder.layer) or not layers:
            raise ParameterError(f"layers is {layers}, frozen {frozen}: the encoder cannot be cut so")
        self.encoder.encoder.layer = self.encoder.encoder.layer[:layers]
        self.encoder.pooler, self.config = None, self.encoder.config
        self.head = nn.Linear(self.config.hidden_size, labels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.encoder.embeddings.requires_grad_(False)
        self.encoder.encoder.layer[:frozen].requires_grad_(False)

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.get_input_embeddings()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Any:
        h = self.encoder(input_ids, attention_mask, inputs_embeds=inputs_embeds).last_hidden_state
        mask = torch.ones(h.shape[:2]) if attention_mask is None else attention_mask
        m = mask[..., None].to(h.dtype)
        return SimpleNamespace(logits=self.head((h * m).sum(1) / m.sum(1)))


# --- a ball around the embeddings -----------------------------------------------------------------------------------


def text_norms(x: Tensor, mask: Tensor) -> Tensor:
    """Euclidean norm of each text's embeddings, over its real tokens: (B, 1, 1). Source: lesson 19, section 2."""
    return (x * mask[..., None]).flatten(1).norm(dim=1)[:, None, None]


def scaled(direction: Tensor, mask: Tensor, size: Tensor) -> Tensor:
    """``direction`` (B, T, d) with padding at 0 and each text's norm set to ``size``, (B, 1, 1); zero stays zero.

    Source: Miyato et al. (2017), equation 5; lesson 19, section 2.
    """
    norms = text_norms(direction, mask)
    return direction * mask[..., None] * (size / norms.clamp(min=1e-12))


def projected(delta: Tensor, mask: Tensor, size: Tensor) -> Tensor:
    """The nearest point to ``delta`` in each text's ball of radius ``size``; padding at 0.

    Source: Madry et al. (2018), with the ball of the Euclidean norm; lesson 19, section 3.
    """
    norms = text_norms(delta, mask)
    return delta * mask[..., None] * (size / norms.clamp(min=1e-12)).clamp(max=1)


def pgd(losses: Losses, x: Tensor, mask: Tensor, radius: float, steps: int, step: float = 0.5) -> Tensor:
    """``steps`` times: go ``step`` radii along each text's gradient, return into the ball. Gives δ, (B, T, d), no gradient.

    ``steps`` = 1 with ``step`` = 1 is the fast gradient method, FGM. Source: Madry et al. (2018); lesson 19, section 3.
    """
    size = radius * text_norms(x, mask)
    delta = torch.zeros_like(x)
    for _ in range(steps):
        delta.requires_grad_()
        (g,) = torch.autograd.grad(losses(x + delta).sum(), delta)
        delta = projected(delta.detach() + scaled(g, mask, step * size), mask, size)
    return delta


def embedded_losses(net: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Losses, Tensor, Tensor]:
    """The losses as a function of the embeddings, the embeddings of the batch, and its mask. Lesson 19, section 2.

    Every call draws the same dropout masks: random numbers start again from one seed, which the first call draws.
    """
    mask, labels = batch["attention_mask"], batch["labels"]
    x = net.get_input_embeddings()(batch["input_ids"]).detach()
    seed = int(torch.randint(2**31, (1,)))

    def losses(moved: Tensor) -> Tensor:
        torch.manual_seed(seed)
        return cross_entropy(net(inputs_embeds=moved, attention_mask=mask).logits, labels)

    return losses, x, mask


# The four objectives for `training.train`: one loss for each text.


def noise_losses(radius: float, net: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean of the clean loss and that after a random step of the norm that FGM would take. Source: lesson 19, section 2."""
    losses, x, mask = embedded_losses(net, batch)
    delta = scaled(torch.randn_like(x), mask, radius * text_norms(x, mask))
    return (losses(x) + losses(x + delta)) / 2


def fgm_losses(radius: float, net: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean of the clean loss and that after one step of the norm ``radius`` along the gradient.

    Source: Miyato et al. (2017); lesson 19, section 2.
    """
    losses, x, mask = embedded_losses(net, batch)
    delta = torch.zeros_like(x, requires_grad=True)
    clean = losses(x + delta)
    (g,) = torch.autograd.grad(clean.sum(), delta, retain_graph=True)
    return (clean + losses(x + scaled(g, mask, radius * text_norms(x, mask)))) / 2


def pgd_losses(radius: float, steps: int, net: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean of the clean loss and that at the end of :func:`pgd`. Source: Madry et al. (2018); lesson 19, section 3."""
    losses, x, mask = embedded_losses(net, batch)
    delta = pgd(losses, x, mask, radius, steps)
    return (losses(x) + losses(x + delta)) / 2


def freelb_losses(radius: float, steps: int, net: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean of the losses at ``steps`` points of an ascent that starts at random in the ball: its gradient is the mean of
    their gradients. Dropout stays the same within the steps. Source: Zhu et al. (2020), algorithm 1; lesson 19, section 3.
    """
    losses, x, mask = embedded_losses(net, batch)
    size = radius * text_norms(x, mask)
    delta = scaled(torch.randn_like(x), mask, size * torch.rand_like(size))
    found = []
    for _ in range(steps):
        delta.requires_grad_()
        found.append(losses(x + delta))
        (g,) = torch.autograd.grad(found[-1].sum(), delta, retain_graph=True)
        delta = projected(delta.detach() + scaled(g, mask, 0.5 * size), mask, size)
    return torch.stack(found).mean(0)


# --- other words ----------------------------------------------------------------------------------------------------


def synonyms(
    near: Mapping[str, Words], kept: Collection[str], polarity: Mapping[str, int]
) -> dict[str, list[str]]:
    """``near`` without what is surely no synonym: words in ``kept`` neither ask nor answer, and a word of one polarity
    (+1 or -1) is never exchanged for one of the other, or of none. Words without neighbours are left out.

    Source: lesson 19, section 5.
    """
    found = {}
    for word, others in near.items():
        sign = polarity.get(word, 0)
        good = [o for o in others if o not in kept and polarity.get(o, 0) == sign]
        if word not in kept and good:
            found[word] = good
    return found


@dataclass(frozen=True)
class Attack:
    """What became of one sentence: its words at the end, the places changed, queries spent, whether the verdict flipped."""

    words: list[str]
    changed: tuple[int, ...]
    queries: int
    flipped: bool


def word_attack(
    words: Words,
    label: int,
    scorer: Scorer,
    near: Mapping[str, Words],
    *,
    share: float = 0.2,
    similar: Callable[[list[str], list[list[str]]], Sequence[float]] | None = None,
    least: float = -1.0,
) -> Attack:
    """Greedy search: the words whose loss hurts most first, each exchanged for the neighbour that hurts most.

    A word hurts by how much the probability of ``label`` falls without it. At most ``share`` of the words are changed, but
    always one may be. A candidate whose sentence has ``similar(original, candidates)`` below ``least`` is not tried, and
    costs no query. Of candidates that flip the verdict the most similar one wins. A sentence on whose label the model is
    wrong already is returned as it is, flipped.

    Source: Jin et al. (2020), algorithm 1; lesson 19, section 5.
    """
    first = listed(words, "words")
    best, queries = list(first), 1
    p = scorer([best])[0]
    if int(p.argmax()) != label:
        return Attack(best, (), queries, True)
    places = [i for i, word in enumerate(best) if near.get(word)]
    if not places:
        return Attack(best, (), queries, False)
    without = scorer([best[:i] + best[i + 1 :] for i in places])[:, label]
    queries += len(places)
    lowest = float(p[label])
    changed: list[int] = []
    for n in without.argsort(stable=True).tolist():
        if len(changed) >= max(1, int(fraction(share, "share") * len(first))):
            break
        i = places[n]
        tried = [[*best[:i], other, *best[i + 1 :]] for other in near[best[i]]]
        alike = [1.0] * len(tried) if similar is None else [float(s) for s in similar(first, tried)]
        tried = [t for t, s in zip(tried, alike, strict=True) if s >= least]
        alike = [s for s in alike if s >= least]
        if not tried:
            continue
        found = scorer(tried)
        queries += len(tried)
        flips = [j for j in range(len(tried)) if int(found[j].argmax()) != label]
        if flips:
            winner = max(flips, key=lambda j: (alike[j], -float(found[j, label])))
            return Attack(tried[winner], (*changed, i), queries, True)
        j = int(found[:, label].argmin())
        if float(found[j, label]) < lowest:
            best, lowest = tried[j], float(found[j, label])
            changed.append(i)
    return Attack(best, tuple(changed), queries, False)


# --- other characters -----------------------------------------------------------------------------------------------


def typo(text: str, rng: random.Random) -> str:
    """Two neighbouring letters inside a word of four letters or more change places; a text without one stays as it is.

    Source: lesson 19, section 7.
    """
    places = [i for i in range(1, len(text) - 2) if text[i - 1 : i + 3].isalpha() and text[i] != text[i + 1]]
    if not places:
        return text
    i = rng.choice(places)
    return text[:i] + text[i + 1] + text[i] + text[i + 2 :]


def lookalike(text: str, rng: random.Random) -> str:
    """Each of the letters in LOOKALIKES of one random word gets its Cyrillic double: the same to the eye, not to a tokenizer.

    Source: lesson 19, section 7.
    """
    words = text.split(" ")
    places = [i for i, word in enumerate(words) if any(c in LOOKALIKES for c in word.lower())]
    if not places:
        return text
    i = rng.choice(places)
    words[i] = "".join(LOOKALIKES.get(c, c) for c in words[i])
    return " ".join(words)
