"""Lesson 23: pictures and their instructions, a decoder that reads image tokens, log-mel, CTC, decoding, voices.

Against torch, transformers and, where it can be found, torchaudio; what only the lesson has is read from its source.
"""

from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lessons import defined
from torch import nn
from torch.nn import functional as F

from instructlab_utils import pictures, small, speech, training, vision, voices
from instructlab_utils.errors import AssetError, ParameterError, TrainingError

ROOT = Path(__file__).resolve().parents[1]


lesson = defined(
    "23", "convolve", "patches", "passes", "posterior", "logits_of_text", "prefix_beam",
    torch=torch, F=F, itertools=itertools, math=math, np=np, BLANK=speech.BLANK,
)  # fmt: skip
prefix_beam = lesson.prefix_beam


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_plan_holds_out_one_shape_a_colour_and_keeps_every_value(seed):
    held = pictures.held_out_pairs(seed)
    shown = pictures.PAIRS - held
    assert sorted(colour for colour, _ in held) == sorted(pictures.COLOURS)
    for shape in pictures.SHAPES:
        assert sum(pair[1] == shape for pair in shown) >= 2


def test_plans_differ_from_seed_to_seed():
    assert len({frozenset(pictures.held_out_pairs(seed)) for seed in range(10)}) > 5


def test_scenes_have_the_pairs_that_were_asked_for_and_equal_shares():
    held = pictures.held_out_pairs(0)
    found = pictures.scenes(3000, random.Random(0), held)
    assert {(scene.colour, scene.shape) for scene in found} == held
    for name, values in pictures.VALUES.items():
        for value in values:
            if name in ("count", "place"):
                share = sum(getattr(scene, name) == value for scene in found) / 3000
                assert share == pytest.approx(1 / len(values), abs=0.04)
    for bad in ([], [("red", "hexagons")]):
        with pytest.raises(ParameterError, match="not pairs of a colour and a shape"):
            pictures.scenes(1, random.Random(0), bad)


def test_a_picture_shows_what_its_scene_says():
    found = pictures.scenes(80, random.Random(1))
    images = pictures.draw(found, 1)
    assert images.shape == (80, 3, 32, 32) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    for scene, image in zip(found, images, strict=True):
        colour = torch.tensor(pictures.COLOURS[scene.colour])[:, None, None]
        mask = (image - colour).abs().amax(0) < 0.22
        y, x = (axis.double().mean().item() for axis in mask.nonzero().T)
        side = {"left": x < 12, "right": x > 20, "top": y < 12, "bottom": y > 20}
        assert side[scene.place], scene
        along = mask.any(1 if scene.place in ("left", "right") else 0).tolist()
        middles = [
            16 + 8 * (i - (pictures.COUNTS[scene.count] - 1) / 2) for i in range(pictures.COUNTS[scene.count])
        ]
        assert all(along[int(middle)] for middle in middles), scene


def test_one_seed_one_picture_and_another_seed_another():
    found = pictures.scenes(3, random.Random(2))
    assert torch.equal(pictures.draw(found, 5), pictures.draw(found, 5))
    assert not torch.equal(pictures.draw(found, 5), pictures.draw(found, 6))


def test_labels_stand_on_the_answer_alone_and_a_caption_only_where_there_is_no_picture():
    tokenizer, scene = small.word_tokenizer(pictures.words()), pictures.Scene("two", "red", "crosses", "left")
    for kind, question in pictures.QUESTIONS.items():
        for place in (-1, 7):
            row = pictures.instruction(scene, kind, tokenizer, place)
            text = tokenizer.decode(row["input_ids"][:-1])
            given = "" if place == 7 else "two red crosses left . "
            assert text == f"{given}{question} = {scene.answer(kind)}" and row["picture"] == [place]
            kept = [i for i in row["labels"] if i != -100]
            assert tokenizer.decode(kept[:-1]) == scene.answer(kind) and kept[-1] == tokenizer.eos_token_id


def test_the_prior_is_the_most_frequent_training_answer():
    rng = random.Random(3)
    train = [s for s in pictures.scenes(400, rng) if s.colour == "red" or rng.random() < 0.3]
    test = pictures.scenes(200, rng)
    right = pictures.by_prior(train, test, ["colour", "describe"])
    assert [row[0] for row in right] == [scene.colour == "red" for scene in test]


# --- tokens and a decoder ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "stride", "padding"), [(3, 2, 1), (3, 1, 0), (5, 3, 2), (8, 8, 0)])
@pytest.mark.parametrize(
    ("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-4), (torch.bfloat16, 0.2)]
)
def test_convolution_by_hand(k, stride, padding, dtype, near):
    torch.manual_seed(0)
    x, W, b = torch.randn(2, 3, 17, 17).to(dtype), torch.randn(4, 3, k, k).to(dtype), torch.randn(4).to(dtype)
    want = F.conv2d(x.double(), W.double(), b.double(), stride, padding)
    found = lesson.convolve(x, W, b, stride, padding)
    assert found.shape == want.shape and found.dtype == dtype
    assert (found.double() - want).abs().max() < near * max(1.0, want.abs().max().item())


def test_patches_and_a_matrix_are_a_convolution_of_that_stride():
    torch.manual_seed(1)
    x, conv = torch.randn(2, 3, 32, 32).double(), nn.Conv2d(3, 10, 8, stride=8).double()
    found = lesson.patches(x, 8) @ conv.weight.flatten(1).T + conv.bias
    assert (found - conv(x).flatten(2).transpose(1, 2)).abs().max() < 1e-12


def test_a_token_of_the_encoder_sees_fifteen_pixels():
    encoder = vision.ConvEncoder()
    encoder.norm = nn.Identity()
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    tokens = encoder(x)
    assert tokens.shape == (1, 16, 64)
    (g,) = torch.autograd.grad(tokens[0, 5].sum(), x)
    rows = g.abs().sum((0, 1, 3)).nonzero().flatten()
    assert rows.max() - rows.min() + 1 == 15


def seeing(seed=0):
    torch.manual_seed(seed)
    return vision.Seeing(small.small_decoder(30, layers=2, window=64, std=0.2, seed=seed), width=8).double()


def test_seeing_is_the_decoder_on_two_lists_of_vectors():
    net, seen, ids = seeing(), torch.randn(3, 16, 8).double(), torch.randint(3, 30, (3, 6))
    found = net(ids, torch.ones_like(ids), seen, torch.ones(3))
    assert found.shape == (3, 7, 30)
    assert (found[:, :-1] - lesson.logits_of_text(net.decoder, net.projector(seen), ids)).abs().max() < 1e-12


def test_a_row_without_a_picture_and_padding_change_nothing():
    net, ids = seeing(), torch.randint(3, 30, (1, 5))
    one, two = torch.randn(2, 1, 16, 8).double()
    blind = [net(ids, torch.ones_like(ids), seen, torch.zeros(1))[:, 1:] for seen in (one, two)]
    assert (blind[0] - blind[1]).abs().max() < 1e-12
    alone = net.decoder(ids).logits
    assert (blind[0] - alone).abs().max() < 1e-5  # rotary positions are relative, and made in float32
    wide, mask = torch.cat([ids, torch.zeros(1, 3, dtype=ids.dtype)], 1), torch.tensor([[1] * 5 + [0] * 3])
    assert (
        net(wide, mask, one, torch.ones(1))[:, :6] - net(ids, mask[:, :5], one, torch.ones(1))
    ).abs().max() < 1e-12


def test_the_loss_counts_the_answer_alone_and_answers_are_words():
    tokenizer = small.word_tokenizer(pictures.words())
    scenes, net = (
        pictures.scenes(9, random.Random(4)),
        vision.Seeing(small.small_decoder(len(tokenizer), window=64)),
    )
    seen, kinds = torch.randn(9, 16, 64), list(pictures.QUESTIONS)
    rows = pictures.instructions(scenes, kinds, tokenizer)
    batch = training.collate_tokens(rows, 0)
    losses = vision.seeing_losses(seen, net, batch)
    assert len(losses) == sum(len(scene.answer(kind).split()) + 1 for scene in scenes for kind in kinds)
    right, log_p = vision.answered(net, rows, seen, size=7)
    assert right.shape == log_p.shape == (45,)
    assert log_p.sum().item() == pytest.approx(-losses.sum().item(), rel=1e-4)
    taught = training.train(net, rows[:5], steps=60, learning_rate=1e-2, pad_id=0, batch_size=5,
                            objective=lambda model, some: vision.seeing_losses(seen, model, some))  # fmt: skip
    assert taught.losses[-1] < 0.1 and vision.answered(net, rows[:5], seen)[0].all()


def test_a_picture_that_is_not_there_is_one_sentence():
    tokenizer, net = small.word_tokenizer(pictures.words()), vision.Seeing(small.small_decoder(40, window=64))
    row = pictures.instruction(pictures.scenes(1, random.Random(0))[0], "colour", tokenizer, 3)
    with pytest.raises(TrainingError, match="asks for picture 3; there are 2"):
        vision.seeing_losses(torch.randn(2, 16, 64), net, training.collate_tokens([row], 0))


def test_frozen_parts_stay_and_heads_count_all_four():
    net = vision.Heads(vision.ConvEncoder(), pictures.VALUES)
    scenes = pictures.scenes(8, random.Random(5))
    images, rows = pictures.draw(scenes, 5), pictures.attribute_examples(scenes)
    before = [p.clone() for p in net.encoder.parameters()]
    vision.freeze(net.encoder)
    losses = training.train(net, rows, steps=80, learning_rate=1e-2, pad_id=0, batch_size=8,
                            objective=lambda model, some: vision.head_losses(images, model, some)).losses  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(before, net.encoder.parameters(), strict=True))
    assert losses[0] == pytest.approx(sum(math.log(len(v)) for v in pictures.VALUES.values()) / 4, abs=0.4)
    right = vision.heads_right(net, images, pictures.attributes(scenes))
    assert right.shape == (8, 5) and torch.equal(right[:, 4], right[:, :4].all(1)) and losses[-1] < losses[0]
    vision.freeze(net.encoder, frozen=False)
    assert all(p.requires_grad for p in net.parameters())


# --- sound ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
def test_the_spectrogram_is_torchs(dtype, near):
    x = torch.randn(1500, generator=torch.Generator().manual_seed(0)).to(dtype)
    window = torch.hann_window(256, periodic=True, dtype=dtype)
    want = torch.stft(x, 256, 128, window=window, center=False, return_complex=True).abs().square().T
    found = speech.spectrogram(x)
    assert found.dtype == dtype and (found - want).abs().max() < near * want.max()


def test_log_mel_is_transformers():
    from transformers import audio_utils as library

    x = torch.randn(4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    bank = library.mel_filter_bank(129, 32, 0.0, 4000.0, 8000, norm=None, mel_scale="htk")
    assert (torch.from_numpy(bank) - speech.mel_filters()).abs().max() < 1e-12
    window = library.window_function(256, "hann", periodic=True)
    theirs = library.spectrogram(
        x.numpy(), window, 256, 128, power=2.0, center=False, mel_filters=bank, mel_floor=0.0
    )
    want = (torch.from_numpy(theirs).double().T + 1e-6).log()
    assert (speech.log_mel(x) - want).abs().max() < 1e-5


def test_log_mel_is_torchaudios():
    # its wheels are built for one build of torch: no dependency
    MelSpectrogram = pytest.importorskip("torchaudio.transforms").MelSpectrogram

    like_ours = {"hop_length": 128, "n_mels": 32, "center": False, "norm": None, "mel_scale": "htk"}
    x = torch.randn(4000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    theirs = MelSpectrogram(8000, 256, **like_ours).double()(x).T
    assert ((theirs + 1e-6).log() - speech.log_mel(x)).abs().max() < 2e-5  # its filters are made in float32


@pytest.mark.parametrize("bad", [torch.zeros(255), torch.zeros(2, 300), torch.zeros(0)])
def test_a_sound_that_is_too_short_is_one_sentence(bad):
    with pytest.raises(ParameterError, match="256 samples at least"):
        speech.spectrogram(bad)


def test_too_many_bands_are_refused_and_silence_is_finite():
    with pytest.raises(ParameterError, match="a band holds no frequency"):
        speech.mel_filters(bands=100)
    assert torch.allclose(speech.log_mel(torch.zeros(300)), torch.tensor(math.log(1e-6)))


@pytest.mark.parametrize("decibels", [-5.0, 0.0, 10.0, 30.0])
def test_noise_has_the_ratio_that_was_asked_for(decibels):
    x = torch.sin(torch.arange(3000.0))
    noise = speech.with_noise(x, decibels, torch.Generator().manual_seed(0)) - x
    assert 10 * math.log10(x.square().mean() / noise.square().mean()) == pytest.approx(decibels, abs=1e-3)
    with pytest.raises(ParameterError, match="silent"):
        speech.with_noise(torch.zeros(10), decibels, torch.Generator())


# --- CTC --------------------------------------------------------------------------------------------------------------


def library(log_p, targets, lengths):
    flat = torch.tensor([s for target in targets for s in target], dtype=torch.int64)
    sizes = torch.tensor([len(target) for target in targets])
    return F.ctc_loss(log_p.transpose(0, 1), flat, torch.tensor(lengths), sizes, reduction="none")


CASES = [
    ([[1, 2, 3], [4], [2, 2]], [9, 9, 9]),
    ([[], [1, 1, 1], [3, 4, 3, 4]], [9, 5, 4]),
    ([[1], [], [2]], [1, 1, 9]),
    ([[], [], []], [3, 9, 1]),
]


@pytest.mark.parametrize(("targets", "lengths"), CASES)
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_ctc_and_its_gradient_are_torchs(targets, lengths, dtype, near):
    torch.manual_seed(0)
    u = torch.randn(3, 9, 5, dtype=dtype, requires_grad=True)
    ours, theirs = (
        speech.ctc_losses(u.log_softmax(2), targets, lengths),
        library(u.log_softmax(2), targets, lengths),
    )
    assert ours.dtype == dtype and (ours - theirs).abs().max() < near
    (a,), (b,) = (torch.autograd.grad(loss.sum(), u) for loss in (ours, theirs))
    assert (a - b).abs().max() < near


def test_ctc_of_bfloat16_is_computed_in_float32():
    u = torch.randn(2, 6, 4).log_softmax(2).bfloat16()
    ours = speech.ctc_losses(u, [[1], [2, 3]], [6, 6])
    assert (
        ours.dtype == torch.float32 and (ours - library(u.float(), [[1], [2, 3]], [6, 6])).abs().max() < 1e-4
    )


def test_ctc_is_the_sum_over_all_paths():
    log_p = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).log_softmax(1)
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(3), repeat=4):
        key = tuple(speech.collapse(path))
        found[key] = found.get(key, 0.0) + log_p[range(4), list(path)].sum().exp().item()
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    for target, p in found.items():
        assert speech.ctc_losses(log_p[None], [target], [4]).item() == pytest.approx(-math.log(p), abs=1e-10)
        if target:
            assert lesson.posterior(log_p, list(target))[1].item() == pytest.approx(math.log(p), abs=1e-10)


def test_the_gradient_is_the_softmax_minus_the_posterior():
    u = torch.randn(8, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    gamma, _ = lesson.posterior(u.detach().log_softmax(1), [1, 1, 4])
    (slope,) = torch.autograd.grad(speech.ctc_losses(u.log_softmax(1)[None], [[1, 1, 4]], [8]).sum(), u)
    assert (gamma.sum(1) - 1).abs().max() < 1e-12
    assert (u.detach().softmax(1) - gamma - slope).abs().max() < 1e-12
    nudge = 1e-6 * torch.eye(40, dtype=torch.float64)[7].view(8, 5)
    up, down = (
        speech.ctc_losses((u.detach() + s * nudge).log_softmax(1)[None], [[1, 1, 4]], [8]) for s in (1, -1)
    )
    assert (up - down).item() / 2e-6 == pytest.approx(slope.flatten()[7].item(), abs=1e-8)


def test_no_path_is_infinite_and_wrong_targets_are_refused():
    log_p = torch.zeros(1, 2, 3).log_softmax(2)
    assert speech.ctc_losses(log_p, [[1, 1]], [2]).isinf().all()
    assert speech.ctc_losses(log_p, [[1, 2, 1]], [2]).isinf().all()
    assert speech.ctc_losses(log_p, [[1, 2]], [2]).isfinite().all()
    for targets, lengths in (([[0]], [2]), ([[3]], [2]), ([[1]], [3]), ([[1]], [0]), ([[1], [1]], [2])):
        with pytest.raises(TrainingError):
            speech.ctc_losses(log_p, targets, lengths)


def test_certain_frames_give_no_nan():
    log_p = torch.tensor([[[0.0, -math.inf], [-math.inf, 0.0]]], dtype=torch.float64)
    assert speech.ctc_losses(log_p, [[1]], [2]).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("path", "text"),
    [([], []), ([0, 0], []), ([1, 1, 0, 1], [1, 1]), ([0, 2, 2, 1], [2, 1]), ([1, 0, 0, 2], [1, 2])],
)
def test_collapse(path, text):
    assert speech.collapse(path) == text


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_prefix_beam_is_exact_and_a_narrow_one_is_no_better(seed):
    log_p = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).log_softmax(
        1
    )
    every = {tuple(speech.collapse(path)) for path in itertools.product(range(3), repeat=5)}
    scores = {text: -speech.ctc_losses(log_p[None], [text], [5]).item() for text in every}
    text, log_P = prefix_beam(log_p, 1000)
    assert tuple(text) == max(scores, key=scores.get) and log_P == pytest.approx(
        scores[tuple(text)], abs=1e-10
    )
    narrow, less = prefix_beam(log_p, 1)
    assert less <= scores[tuple(narrow)] + 1e-10 <= log_P + 1e-9
    assert log_P >= scores[tuple(speech.best_path(log_p))] - 1e-10


def test_the_best_path_is_not_the_best_text():
    log_p = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
    assert speech.best_path(log_p) == [] and prefix_beam(log_p, 2)[0] == [1]


def test_a_recogniser_learns_its_clips_and_its_objective_is_ours():
    torch.manual_seed(0)
    features = [torch.randn(n, 32) for n in (12, 20, 15)]
    texts, alphabet = ["abba", "ba", "aab"], "ab"
    rows, net = speech.clip_examples(features, texts, alphabet), speech.Recogniser(3, width=16)
    seen = speech.padded(features)
    assert seen.shape == (3, 20, 32) and seen[0, 12:].abs().max() == 0
    batch = training.collate_tokens(rows, 0)
    losses = speech.clip_losses(seen, net, batch)
    ours = speech.ctc_losses(net(seen), [[1, 2, 2, 1], [2, 1], [1, 1, 2]], [12, 20, 15])
    assert (losses - ours).abs().max() < 1e-4
    training.train(net, rows, steps=80, learning_rate=1e-2, pad_id=0, batch_size=3,
                   objective=lambda model, some: speech.clip_losses(seen, model, some))  # fmt: skip
    for i, text in enumerate(texts):
        written = speech.best_path(net(seen[i : i + 1, : len(features[i])])[0])
        assert "".join(alphabet[s - 1] for s in written) == text
    for text in ("abc", "ab" * 20):
        with pytest.raises(TrainingError, match="cannot be written"):
            speech.clip_examples(features[:1], [text], alphabet)


# --- voices -----------------------------------------------------------------------------------------------------------


def test_voices_speak_and_refuse():
    x = voices.speak("three", "en-us+f4")
    assert x.dtype == torch.float32 and x.ndim == 1 and 1000 < len(x) < 8000 and x.abs().max() <= 1
    slow, fast = (len(voices.speak("three", "en-us", speed=speed)) for speed in (100, 200))
    assert slow > 1.2 * fast
    for wrong in (
        {"text": "", "voice": "en-us"},
        {"text": "yes", "voice": "zz"},
        {"text": "a\0b", "voice": "en-us"},
    ):
        with pytest.raises(ParameterError):
            voices.speak(**wrong)
    for wrong in ({"speed": 79}, {"speed": 451}, {"pitch": 100}):
        with pytest.raises(ParameterError, match="eSpeak takes"):
            voices.speak("yes", **wrong)


def test_a_cast_is_drawn_from_the_seed_and_no_voice_comes_twice():
    assert voices.cast(3) == voices.cast(3) != voices.cast(4)
    assert len({voice.split("+")[1] for voice in voices.cast(0)}) == len(voices.VARIANTS) == 20


def test_another_process_hears_the_same():
    code = """
import hashlib
from instructlab_utils import voices
said = voices.clips(("three",), [f"en-us+{name}" for name in voices.VARIANTS], (160,), (50,))
print(*(hashlib.sha256(x.numpy().tobytes()).hexdigest() for _, x in said))
"""
    run = [sys.executable, "-c", code]
    first, second = (subprocess.run(run, capture_output=True, text=True, check=True).stdout for _ in range(2))
    sums = [each.split() for each in (first, second)]
    differ = [name for name, a, b in zip(voices.VARIANTS, *sums, strict=True) if a != b]
    assert not differ, f"eSpeak says the same words otherwise in a new process: {differ}"
    assert len(set(sums[0])) == len(voices.VARIANTS)


def test_clips_come_in_the_order_that_is_promised():
    found = voices.clips(["yes", "no"], ["en-us", "en"], [120, 180], [50])
    assert [word for word, _ in found] == ["yes", "no"] * 4


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(AssetError, match="pip install espeakng-loader"):
        voices._engine.__wrapped__()
