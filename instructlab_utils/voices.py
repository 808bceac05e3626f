"""Words spoken by eSpeak NG, a small synthesiser, called through ``ctypes``.

The package espeakng-loader brings its shared library and data. eSpeak NG is free software under the GPL, version 3;
nothing of it is part of this project, and no recording is kept but a few clips in a lesson. From lesson 23 on.
"""

from __future__ import annotations

import ctypes
import functools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instructlab_utils.errors import AssetError, ParameterError
from instructlab_utils.speech import RATE

SYNCHRONOUS, CHARACTERS_UTF8, SPEED, PITCH = 2, 1, 1, 3  # eSpeak's own numbers, from speak_lib.h
SPEEDS, PITCHES = range(80, 451), range(100)  # words a minute; a scale of its own
# No variant with a breath, such as f2, f3, f5: no two processes hear the same of them. Why, we do not know.
VARIANTS = tuple(
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f4 adam anika aunty belinda linda michael steph norbert boris ian".split()
)
ACCENTS = ("en-us", "en", "en-gb-x-rp")  # American, British, a more formal British English
WORDS = tuple("yes no up down left right on off stop go red green blue one two three".split())
_heard: list[np.ndarray] = []  # filled by eSpeak while it speaks


@functools.cache
def _engine() -> tuple[Any, int, Any]:
    """The library, its sampling rate, and the callback, which must live as long as the library."""
    try:
        import espeakng_loader

        library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path()
    except (ImportError, OSError) as error:
        raise AssetError(
            f"eSpeak NG cannot be loaded ({error}); run `pip install espeakng-loader`"
        ) from error
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, str(data).encode(), 0)
    if rate <= 0:
        raise AssetError(f"eSpeak NG finds no data in {data}; install espeakng-loader again")

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def hear(samples: Any, n: int, _: Any) -> int:
        if samples and n > 0:
            _heard.append(np.ctypeslib.as_array(samples, (n,)).copy())
        return 0

    library.espeak_SetSynthCallback(hear)
    return library, rate, hear


def speak(text: str, voice: str = "en-us", *, speed: int = 160, pitch: int = 50) -> Tensor:
    """A waveform of ``text``, float32 in -1…1, one axis, at 8,000 samples a second; the silence around it is cut.

    ``voice``: a language of eSpeak NG, and after "+" a variant, such as "en-us+f4". ``speed``: 80 to 450 words a minute.
    ``pitch``: 0 to 99. Two calls differ a little, as two people's words do. The same calls in the same order in a new process
    give the same samples, for the voices of :func:`cast`.

    Raises ParameterError for an unknown language, a text without a sound, another speed or pitch; AssetError without eSpeak.
    """
    if speed not in SPEEDS or pitch not in PITCHES:
        raise ParameterError(f"speed {speed}, pitch {pitch}: eSpeak takes 80 to 450, and 0 to 99")
    library, rate, _ = _engine()
    if "\0" in text or library.espeak_SetVoiceByName(voice.encode()):
        raise ParameterError(
            f"eSpeak cannot say {text!r} as {voice!r}: choose a language such as en-us or en-gb"
        )
    library.espeak_SetParameter(SPEED, speed, 0)
    library.espeak_SetParameter(PITCH, pitch, 0)
    _heard.clear()
    spoken = text.encode() + b"\0"
    library.espeak_Synth(spoken, len(spoken), 0, 1, 0, CHARACTERS_UTF8, None, None)
    library.espeak_Synchronize()
    from scipy.signal import resample_poly

    x = np.concatenate(_heard or [np.zeros(0, dtype=np.int16)]).astype(np.float64) / 2**15
    loud = np.flatnonzero(np.abs(x) > 0.01)
    if not len(loud):
        raise ParameterError(f"{text!r} makes no sound")
    cut = x[loud[0] : loud[-1] + 1]
    return torch.from_numpy(resample_poly(cut, RATE, rate)).float().clamp(-1, 1)


def cast(seed: int) -> list[str]:
    """All variants, each with an accent, in an order drawn from ``seed``: twenty voices for :func:`speak`."""
    rng = random.Random(f"voices {seed}")
    return [f"{rng.choice(ACCENTS)}+{variant}" for variant in rng.sample(VARIANTS, len(VARIANTS))]


def clips(
    words: Sequence[str], voices: Sequence[str], speeds: Sequence[int], pitches: Sequence[int]
) -> list[tuple[str, Tensor]]:
    """Each word by each voice, speed and pitch, in this order: pairs of the word and its waveform."""
    return [
        (word, speak(word, voice, speed=speed, pitch=pitch))
        for voice in voices for speed in speeds for pitch in pitches for word in words
    ]  # fmt: skip
