"""From a waveform to letters: the log-mel spectrogram, connectionist temporal classification (CTC), two ways to decode.

Time runs along the last axis of a waveform and along the first of a spectrogram. Built in lesson 23; the experiment `speech`
uses it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from instructlab_utils import training
from instructlab_utils.errors import ParameterError, TrainingError
from instructlab_utils.losses import log_softmax, upcast

RATE = 8000  # samples a second
WINDOW, HOP, BANDS = 256, 128, 32  # samples, samples, mel bands
BLANK = 0  # the class that writes nothing


# --- a picture of sound ----------------------------------------------------------------------------------------------


def spectrogram(x: Tensor, window: int = WINDOW, hop: int = HOP) -> Tensor:
    """Power |X|² of windowed pieces of a waveform: (N,) → (frames, window / 2 + 1), floating.

    Frame t holds the samples from t · hop on; what is left behind the last whole frame is dropped. The window is Hann's.
    Raises ParameterError for a waveform shorter than one window, or one with a second axis. Source: lesson 23, section 9.
    """
    if x.ndim != 1 or len(x) < window:
        raise ParameterError(
            f"a waveform of shape {tuple(x.shape)}: need one axis and {window} samples at least"
        )
    n = torch.arange(window, dtype=x.dtype)
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * n / window)
    return torch.fft.rfft(x.unfold(0, window, hop) * hann).abs().square()


def mel(hertz: Tensor) -> Tensor:
    """Mels: 2595 log10(1 + f / 700), near to linear below 700 Hz and logarithmic above. Source: lesson 23, section 9."""
    return 2595 * torch.log10(1 + hertz / 700)


def mel_filters(bands: int = BANDS, window: int = WINDOW, rate: int = RATE) -> Tensor:
    """Triangles that overlap by half, equally wide in mels: float64 of shape (window / 2 + 1, bands).

    Column b rises from 0 at corner b to 1 at corner b + 1 and falls to 0 at corner b + 2; the corners run from 0 Hz to half
    of ``rate``. Raises ParameterError where a triangle holds no frequency of the window: it would be 0 for every sound.
    Source: lesson 23, section 9. Equal to ``transformers.audio_utils.mel_filter_bank(..., mel_scale="htk")``.
    """
    top = mel(torch.tensor(rate / 2, dtype=torch.float64))
    corners = 700 * (10 ** (torch.linspace(0, 1, bands + 2, dtype=torch.float64) * top / 2595) - 1)
    f = torch.arange(window // 2 + 1, dtype=torch.float64)[:, None] * rate / window
    up = (f - corners[:-2]) / (corners[1:-1] - corners[:-2])
    down = (corners[2:] - f) / (corners[2:] - corners[1:-1])
    filters = torch.minimum(up, down).clamp(min=0)
    if (filters.amax(0) == 0).any():
        raise ParameterError(
            f"{bands} bands are too many for a window of {window}: a band holds no frequency"
        )
    return filters


def log_mel(x: Tensor, floor: float = 1e-6) -> Tensor:
    """The logarithm of the energy in each mel band: (N,) → (frames, bands), in the dtype of ``x``.

    ``floor`` is added before the logarithm, so that silence is finite. Source: lesson 23, section 9.
    """
    return (spectrogram(x) @ mel_filters().to(x.dtype) + floor).log()


def with_noise(x: Tensor, decibels: float, generator: torch.Generator) -> Tensor:
    """The waveform with white noise, so that 10 log10(power of x / power of the noise) is ``decibels``.

    Raises ParameterError for silence: no noise has that ratio to it. Source: lesson 23, section 9.
    """
    power = x.square().mean()
    if not power > 0:
        raise ParameterError("the waveform is silent: a signal-to-noise ratio needs a signal")
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x + noise * (power / noise.square().mean() * 10 ** (-decibels / 10)).sqrt()


# --- CTC: the sum over all paths -------------------------------------------------------------------------------------


def collapse(path: Sequence[int], blank: int = BLANK) -> list[int]:
    """What a path writes: runs of one symbol become one, then the blanks go. Source: lesson 23, section 10."""
    return [s for i, s in enumerate(path) if s != blank and (i == 0 or s != path[i - 1])]


def ctc_losses(
    log_p: Tensor, targets: Sequence[Sequence[int]], lengths: Sequence[int], blank: int = BLANK
) -> Tensor:
    """-log of the probability of all paths that collapse to the target, one value a row, (B,).

    Args:
        log_p: log-probabilities, (B, T, K), in float32 or float64.
        targets: for each row its symbols, none of them ``blank``; may be empty.
        lengths: how many frames of each row count, 1 to T.

    Returns:
        Values in nats; inf where no path is long enough (a row needs a frame for each symbol, and one for each repetition).
        Differentiable; rows that are inf have no finite gradient.

    Raises:
        TrainingError: another number of rows, a target that is the blank or no class, a length outside 1…T.

    Source: Graves et al. (2006); lesson 23, section 10. Equal to ``torch.nn.functional.ctc_loss(..., reduction="none")``.
    """
    B, T, K = log_p.shape
    if len(targets) != B or len(lengths) != B or not all(1 <= n <= T for n in lengths):
        raise TrainingError(f"{B} rows of {T} frames: need as many targets, and lengths from 1 to {T}")
    if any(not 0 <= s < K or s == blank for row in targets for s in row):
        raise TrainingError(f"a target is the blank ({blank}) or no class of {K}")
    log_p = upcast(log_p)
    width = 2 * max(map(len, targets), default=0) + 1
    z = torch.full((B, width), blank)  # blank, first symbol, blank, second symbol, …, blank
    for row, target in zip(z, targets, strict=True):
        row[1 : 2 * len(target) : 2] = torch.tensor(target, dtype=z.dtype)
    skip = torch.zeros(B, width, dtype=torch.bool)  # may a path come from two places before?
    skip[:, 2:] = (z[:, 2:] != blank) & (z[:, 2:] != z[:, :-2])
    emitted = log_p.gather(2, z[:, None].expand(B, T, width))
    least = torch.finfo(log_p.dtype).min / 4  # stands for -inf, whose differences are nan
    alpha = torch.full_like(emitted[:, 0], least)
    alpha[:, :2] = emitted[:, 0, :2]
    ends = torch.tensor(lengths)
    last = alpha
    for t in range(1, T):
        one, two = (nn.functional.pad(alpha, (n, 0), value=least)[:, :width] for n in (1, 2))
        two = torch.where(skip, two, least)
        alpha = torch.logsumexp(torch.stack([alpha, one, two]), 0) + emitted[:, t]
        alpha = alpha.clamp(min=least)
        last = torch.where((t < ends)[:, None], alpha, last)
    final = torch.tensor([[2 * len(s), max(2 * len(s) - 1, 0)] for s in targets])
    both = last.gather(1, final)
    both = torch.where(
        (final == final[:, :1]) & (torch.arange(2) == 1), least, both
    )  # an empty target ends once
    found = -torch.logsumexp(both, 1)
    return torch.where(found > -least / 2, torch.inf, found)


# --- decoding --------------------------------------------------------------------------------------------------------


def best_path(log_p: Tensor, blank: int = BLANK) -> list[int]:
    """Greedy decoding of (T, K): the most probable symbol of each frame, collapsed. Source: lesson 23, section 11."""
    return collapse(log_p.argmax(-1).tolist(), blank)


# --- a recogniser ----------------------------------------------------------------------------------------------------


class Recogniser(nn.Module):
    """Three convolutions over time: log-mel (B, T, bands) → log-probabilities (B, T, K), for each frame.

    A frame sees 17 frames around it. Each clip's bands are centred on their mean over the clip, which takes the loudness out.
    Source: lesson 23, section 12.
    """

    def __init__(self, classes: int, width: int = 96, bands: int = BANDS) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Conv1d(a, width, 5, padding=2) for a in (bands, width)]
            + [nn.Conv1d(width, width, 9, padding=4)]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in self.layers])
        self.head = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        x = features
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = nn.functional.gelu(norm(layer(x.transpose(1, 2)).transpose(1, 2)))
        return log_softmax(self.head(x))


def padded(features: Sequence[Tensor]) -> Tensor:
    """Spectrograms of different lengths as one tensor (N, T, bands), each centred on its mean, 0 behind its end.

    Source: lesson 23, section 12.
    """
    return nn.utils.rnn.pad_sequence([f - f.mean() for f in features], batch_first=True)


def clip_examples(features: Sequence[Tensor], texts: Sequence[str], alphabet: str) -> list[training.Example]:
    """An example for each clip: as many ``input_ids`` as frames, the letters as labels (1: the first), its place.

    Raises TrainingError for a letter that the alphabet lacks, or a clip with fewer frames than letters.
    Source: lesson 23, section 12.
    """
    found = []
    for i, (f, text) in enumerate(zip(features, texts, strict=True)):
        if not set(text) <= set(alphabet) or len(text) > len(f):
            raise TrainingError(
                f"{text!r}: {len(f)} frames, letters of {alphabet!r} only: it cannot be written"
            )
        found.append(
            {"input_ids": [0] * len(f), "labels": [alphabet.index(c) + 1 for c in text], "clip": [i]}
        )
    return found


def clip_losses(features: Tensor, net: Any, batch: training.Batch) -> Tensor:
    """The objective of a recogniser: the CTC loss of each clip, (B,); the loop divides by the number of letters.

    torch's own function, which gives what :func:`ctc_losses` gives in half of the time.
    Source: lesson 23, section 12.
    """
    lengths = batch["attention_mask"].sum(1)
    log_p = net(features[batch["clip"][:, 0], : int(lengths.max())])
    counts = batch["labels"] != training.IGNORED
    targets, sizes = batch["labels"][counts], counts.sum(1)
    return nn.functional.ctc_loss(log_p.transpose(0, 1), targets, lengths, sizes, BLANK, reduction="none")
