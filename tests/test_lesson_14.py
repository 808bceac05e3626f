"""Lesson 14: template, mask, loss, loop and ranks equal those of transformers, trl and the package; the registry is sound."""

from __future__ import annotations

import copy
import itertools
import math
import random
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import jupytext
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from instructlab_repro import experiments
from instructlab_utils import chat, generation, instructions, models, scoring, small, tasks, training, tuners
from instructlab_utils.errors import InstructionError
from instructlab_utils.losses import cross_entropy

ROOT = Path(__file__).resolve().parents[1]
LESSON = ROOT / "notebooks" / "source" / "14_instruction_tuning.py"
REGISTRY = tomllib.loads((ROOT / "data" / "instructions" / "clusters.toml").read_text(encoding="utf-8"))
WANTED = (
    "chat_by_hand",
    "mask_by_prefix",
    "mixture",
    "sft_losses",
    "sft",
    "rank_by_hand",
    "made_up",
    "invented_items",
)


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer("decoder")


@pytest.fixture(scope="module")
def lesson(tokenizer) -> SimpleNamespace:
    """The definitions of the lesson's cells, without running anything else of it."""
    space = {
        "math": math, "torch": torch, "nn": nn, "tokenizer": tokenizer, "training": training, "tuners": tuners,
        "scoring": scoring, "cross_entropy": cross_entropy, "InstructionError": InstructionError, "kept": [], "seed": 0,
        "run": SimpleNamespace(device="cpu"), "models": models,
    }  # fmt: skip
    for cell in jupytext.read(LESSON, fmt="py:percent").cells:
        if cell.cell_type == "code" and re.search(rf"^def ({'|'.join(WANTED)})\b", cell.source, re.MULTILINE):
            code = cell.source.split("\n\n\n")  # definitions, and below them what uses them
            kept = [part for part in code if re.match(r"@|def ", part.lstrip("\n"))]
            exec("\n\n\n".join(kept), space)
    return SimpleNamespace(**{name: space[name] for name in WANTED}, kept=space["kept"])


def llama(vocabulary: int, dtype=torch.float64, layers: int = 3) -> LlamaForCausalLM:
    torch.manual_seed(0)
    net = LlamaForCausalLM(LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=2, eos_token_id=2, bos_token_id=1, tie_word_embeddings=True,
    ))  # fmt: skip
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim == 2:
                p.mul_(6)  # weights of a size at which attention is far from uniform
    return net.to(dtype).eval()


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm().clamp(min=1e-30)).item()


# --- template and mask --------------------------------------------------------------------------------------------

WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="<|>"), max_size=30
)
TURNS = st.lists(WORDS, min_size=1, max_size=4)


@given(TURNS, st.booleans(), WORDS)
@settings(max_examples=60, deadline=None)
def test_the_template_by_hand_is_the_tokenizers(lesson, tokenizer, contents, with_system, system):
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    if with_system:
        turns = [{"role": "system", "content": system}, *turns]
    before = copy.deepcopy(turns)
    for prompt in (False, True):
        theirs = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)
        assert lesson.chat_by_hand(turns, prompt) == theirs
    assert turns == before


@pytest.mark.parametrize("answer", ["Lima", "two words", "0.5 (or 1/2)", "利马", "a\nb"])
def test_the_mask_by_prefix_is_the_packages(lesson, tokenizer, answer):
    turns = [{"role": "user", "content": "Name it."}, {"role": "assistant", "content": answer}]
    ids, labels = lesson.mask_by_prefix(turns)
    package = chat.encode_chat(turns, tokenizer)
    assert package["input_ids"][:-1] == ids and package["labels"][:-1] == labels
    assert tokenizer.decode([y for y in labels if y != -100]) == answer + tokenizer.eos_token


def test_a_mask_by_padding_id_would_erase_every_end(tokenizer):
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]
    labels = torch.tensor(chat.encode_chat(turns, tokenizer)["labels"])
    assert (labels == tokenizer.eos_token_id).sum() == 2
    assert not (labels.masked_fill(labels == tokenizer.pad_token_id, -100) == tokenizer.eos_token_id).any()


# --- the loss of trl, with the decoder's tokenizer -----------------------------------------------------------------


def test_one_batch_has_the_loss_and_gradients_of_trl(lesson, tokenizer, tmp_path):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    net = llama(len(tokenizer), torch.float32, layers=2)
    course = instructions.load(ROOT / "data" / "instructions" / "course.jsonl")
    pairs = []
    for one in course[::90]:
        turns = chat.messages(one, one.examples[0].input)
        pairs.append((lesson.chat_by_hand(turns, True), one.examples[0].output))
    arguments = SFTConfig(
        str(tmp_path), per_device_train_batch_size=len(pairs), bf16=False, gradient_checkpointing=False,
        use_cpu=True, report_to="none",
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": p, "completion": c} for p, c in pairs])
    trainer = SFTTrainer(net, arguments, train_dataset=rows, processing_class=tokenizer)
    theirs = trainer.data_collator([trainer.train_dataset[i] for i in range(len(pairs))])
    ours = training.collate_tokens([generation.encode_completion(*pair, tokenizer) for pair in pairs], 2)
    assert len(pairs) >= 3 and all(torch.equal(ours[name], theirs[name]) for name in ("input_ids", "labels"))

    bottom, top = models.split_decoder(net, 1)
    lesson.kept.clear()
    with torch.no_grad():
        hidden = bottom(input_ids=ours["input_ids"], attention_mask=ours["attention_mask"]).last_hidden_state
    lesson.kept.extend(row[: int(n)] for row, n in zip(hidden, ours["attention_mask"].sum(1), strict=True))
    numbered = ours | {"text": torch.arange(len(pairs))[:, None].expand_as(ours["input_ids"])}
    losses = {
        "whole": generation.causal_losses(net, ours).mean(),
        "kept states": lesson.sft_losses(top, numbered).mean(),
        "trl": trainer.compute_loss(net, dict(theirs)),
    }
    for loss in losses.values():
        assert math.isclose(loss.item(), losses["trl"].item(), rel_tol=1e-5)
    upper = list(net.model.layers[1].parameters())
    wanted = torch.autograd.grad(losses["trl"], upper)
    for name in ("whole", "kept states"):
        for mine, other in zip(torch.autograd.grad(losses[name], upper), wanted, strict=True):
            assert relative(mine, other) < 1e-4, name


# --- the loop ------------------------------------------------------------------------------------------------------


def test_the_loop_by_hand_is_training_train_and_the_kept_states_are_exact(lesson):
    g = torch.Generator().manual_seed(1)
    examples = []
    for n in (5, 9, 7, 6, 8, 5, 9, 4):
        ids = torch.randint(3, 40, (n,), generator=g).tolist()
        examples.append({"input_ids": ids, "labels": [-100] * (n - 2) + ids[-2:]})

    def fresh():
        net = llama(40)
        bottom, top = models.split_decoder(net.requires_grad_(False), 2)
        top = tuners.inject(top, tuners.Lora(r=2), seed=3)
        lesson.kept.clear()
        for example in examples:
            with torch.no_grad():
                lesson.kept.append(
                    bottom(input_ids=torch.tensor([example["input_ids"]])).last_hidden_state[0]
                )
        return net, top

    numbered = [e | {"text": [i] * len(e["input_ids"])} for i, e in enumerate(examples)]
    how = dict(steps=6, learning_rate=2e-2, pad_id=2, batch_size=3, seed=5)
    _, top = fresh()
    first = [p.detach().clone() for p in tuners.trainable(top).values()]
    mine = lesson.sft(top, training.batches_of(numbered, 3, 2, 5), 6, 2e-2)
    weights = [p.detach().clone() for p in tuners.trainable(top).values()]
    _, top = fresh()
    theirs = training.train(top, numbered, objective=lesson.sft_losses, **how).losses
    assert np.allclose(mine, theirs, rtol=1e-6)
    assert all(relative(a, b) > 1e-3 for a, b in zip(first, weights, strict=True))
    for a, b in zip(weights, tuners.trainable(top).values(), strict=True):
        assert relative(a, b) < 1e-8
    # the same run on the whole model, without kept states
    whole = tuners.inject(llama(40), tuners.Lora(r=2), seed=3)
    for name, p in whole.named_parameters():
        if p.requires_grad and ".layers.2." not in name:
            p.requires_grad_(False)
    _, top = fresh()
    last = [p for name, p in whole.named_parameters() if p.requires_grad]
    for p, first in zip(last, tuners.trainable(top).values(), strict=True):
        p.data.copy_(first)
    plain = training.train(whole, examples, objective=generation.causal_losses, **how).losses
    assert np.allclose(mine, plain, rtol=1e-5)


# --- mixtures, ranks, invented rules -------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=6), st.integers(1, 10**4), st.floats(0.2, 9))
@settings(max_examples=100, deadline=None)
def test_a_mixture_follows_the_derivation(lesson, sizes, cap, temperature):
    named = {str(i): e for i, e in enumerate(sizes)}
    shares = lesson.mixture(named, cap, temperature)
    assert math.isclose(sum(shares.values()), 1)
    for a, b in zip(named, list(named)[1:], strict=False):
        if min(shares[a], shares[b]) > 0:
            ratio = math.log(min(named[a], cap) / min(named[b], cap)) / temperature
            assert math.isclose(math.log(shares[a] / shares[b]), ratio, abs_tol=1e-9)
    even = lesson.mixture(named, cap, 1e9)
    assert all(math.isclose(share, 1 / len(sizes), rel_tol=1e-6) for share in even.values())


def test_a_mixture_of_a_wrong_temperature_is_an_error(lesson):
    with pytest.raises(InstructionError, match="above 0"):
        lesson.mixture({"a": 1}, None, 0.0)


def test_ranks_by_hand_are_those_of_scoring(lesson, tokenizer):
    net = llama(len(tokenizer), torch.float32)
    context, options = "Which is it?\n\nsaw, plane\nAnswer:", ["saw", "a long plane", "neither of the two"]
    hand = lesson.rank_by_hand(net, context, options)
    (packed,) = scoring.option_log_probs(net, tokenizer, [context], [[f" {o}" for o in options]])
    assert torch.allclose(hand.double(), packed.log_probs / packed.tokens, atol=1e-4)
    assert int(hand.argmax()) == scoring.choose(packed, "mean")


def test_invented_items_follow_their_own_rules(lesson):
    for context, options, answer in lesson.invented_items(12):
        rule, shown, _ = context.split("\n")[0], context.split("\n\n")[1].split("\n")[0].split(), 0
        if rule.startswith("Which word"):
            marker = rule.removesuffix("?").split()[-1]
            assert shown[shown.index(marker) + 1] == options[answer] and len(set(options)) == 3
        else:
            yes, no = re.findall(r"nswer (\w+)", rule)
            assert options == [yes, no] and options[answer] == (yes if shown[0] == shown[-1] else no)


# --- the registry of clusters and the wordings ---------------------------------------------------------------------


def test_clusters_are_whole_and_wordings_differ():
    tasks, clusters = REGISTRY["tasks"], REGISTRY["clusters"]
    names = [task["name"] for task in tasks]
    assert len(set(names)) == len(names) >= 28
    assert {task["cluster"] for task in tasks} == set(clusters)
    held_out = {name for name, cluster in clusters.items() if cluster["held_out"]}
    assert len(held_out) >= 3 and len(clusters) - len(held_out) >= 8
    for name, cluster in clusters.items():
        mine = [task["name"] for task in tasks if task["cluster"] == name]
        assert len(mine) >= 2
        assert ("measured" in cluster) == cluster["held_out"]
        assert set(cluster.get("measured", [])) <= set(mine)
    for task in tasks:
        wordings = [task[key] for key in ("clear", "vague", "wrong", "label")]
        assert len(set(wordings)) == 4 and all(text == text.strip() != "" for text in wordings), task["name"]


@pytest.mark.parametrize("task", REGISTRY["tasks"], ids=lambda task: task["name"])
def test_every_input_can_be_laid_out(task):
    loaded = tasks.load(task["name"])
    field = "input" if loaded.kind == "choice" else "source"
    pattern, layout = re.compile(task.get("take", "(.*)"), re.DOTALL), task.get("layout", "{}")
    for split in loaded.splits.values():
        for raw in split[field]:
            found = pattern.search(raw)
            assert found and layout.format(*found.groups()).strip(), raw


def test_the_wordings_measure_what_the_registry_holds():
    grid = experiments.load("wordings").at("laptop")
    assert set(grid.axes["task"]) <= {task["name"] for task in REGISTRY["tasks"]}
    assert all(tasks.load(name).kind == "choice" for name in grid.axes["task"])
    folder = ROOT / "data" / "instructions"
    too_complex = tomllib.loads((folder / "complex.toml").read_text(encoding="utf-8"))
    for name in grid.axes["task"]:
        clear = next(task["clear"] for task in REGISTRY["tasks"] if task["name"] == name)
        assert len(too_complex[name].split()) > 3 * len(clear.split())


def test_the_slope_of_C6_is_the_formula_that_its_file_states():
    y = np.random.default_rng(0).random(4)
    assert math.isclose(np.polyfit(range(4), y, 1)[0], (3 * y[3] + y[2] - y[1] - 3 * y[0]) / 10)
    lines = [line for line in experiments.results("clusters") if line["method"].startswith("clusters_")]
    for seed in {line["seed"] for line in lines}:
        y1, y2, y4, y8 = (
            next(x for x in lines if x["seed"] == seed and x["method"] == f"clusters_{n}")
            for n in (1, 2, 4, 8)
        )
        slope = (3 * y8["accuracy"] + y4["accuracy"] - y2["accuracy"] - 3 * y1["accuracy"]) / 10
        assert math.isclose(y8["slope_accuracy"], slope, abs_tol=1e-9)


# --- the grid `clusters` -----------------------------------------------------------------------------------------------

GRID = ROOT / "notebooks" / "experiments" / "source" / "clusters.py"
DESIGN = ROOT / "data" / "experiments" / "clusters.toml"


def cell_of_grid(start: str, space: dict) -> dict:
    """What the grid's cell defines that begins with ``start``."""
    (code,) = [c.source for c in jupytext.read(GRID, fmt="py:percent").cells if c.source.startswith(start)]
    exec(code, space)
    return space


def grid(seed: int) -> SimpleNamespace:
    told = tomllib.loads(DESIGN.read_text(encoding="utf-8"))
    spec, block = SimpleNamespace(axes=told["axes"]), SimpleNamespace(tuning=False)
    space = {"settings": SimpleNamespace(**told["settings"]), "spec": spec, "block": block, "seed": seed}
    space |= {"random": random, "permutations": itertools.permutations, "small": small}
    cell_of_grid("PLACES, RANKS", space)
    return SimpleNamespace(**cell_of_grid("rng = random.Random", space))


def test_the_answers_of_the_grid_are_those_of_execution():
    found = grid(0)
    x = (3, 1, 4, 9, 5)
    wanted = {"largest": 9, "upper": 5, "middle": 4, "lower": 3, "smallest": 1}
    wanted |= dict(zip(("first", "second", "third", "fourth", "last"), x, strict=True))
    assert wanted.keys() == {*found.PLACES, *found.RANKS}
    for s, y in wanted.items():
        even, above = "yes" if y in (4,) else "no", "yes" if y in (5, 9) else "no"
        right = {"itself": str(y), "plus": "0" if y == 9 else str(y + 1), "even": even, "above": above}
        assert {r: found.answer(s, r, x) for r in found.REPORTS} == right
    back = {number: word for word, number in found.ids.items()}
    one = found.item("instruction", "largest", "plus", x, random.Random(0))
    assert [back[i] for i in one["input_ids"]][:6] == ["3", "1", "4", "9", "5", "|"]
    assert back[one["input_ids"][-1]] == "0" and one["labels"][:-1] == [-100] * (len(one["labels"]) - 1)


def test_the_arms_of_the_grid_are_nested_held_out_clusters_never_trained_and_test_lists_own():
    seeds = tomllib.loads(DESIGN.read_text(encoding="utf-8"))["axes"]["seed"]
    assert len(seeds) == 20
    used: set = set()
    for seed in seeds:
        found = grid(seed)
        assert len(found.HELD_OUT) == 2 and not set(found.HELD_OUT) & set(found.ORDER)
        assert {*found.HELD_OUT, *found.ORDER} == {*found.PLACES, *found.RANKS} and len(found.ORDER) == 8
        assert len({*found.HELD_OUT} & {*found.PLACES}) == 1 == len({*found.ORDER[:2]} & {*found.PLACES})
        mine = set(found.own)
        assert len(mine) == found.settings.lists and not mine & (used | {*found.TRAIN, *found.DEV})
        used |= mine
        rows = found.drawn("instruction", found.ORDER[:2], 64, found.TRAIN, "examples")
        assert not {found.ids[s] for s in found.HELD_OUT} & {i for row in rows for i in row["input_ids"]}
        for k in (1, 2, 4, 8):
            rows = found.drawn("instruction", found.ORDER[:k], 64, found.TRAIN, "examples")
            named = [sum(found.ids[s] in row["input_ids"] for row in rows) for s in found.ORDER]
            assert named == [64 // k] * k + [0] * (8 - k)


def test_an_instruction_asks_with_words_that_sentences_hold():
    forms = tomllib.loads(DESIGN.read_text(encoding="utf-8"))["settings"]["forms"]
    said = {word for each in forms["statement"].values() for text in each for word in text.split()}
    frame = {"|", "=", "take", "which", "number", "say", "if", "do", "you", "find"}
    for report, texts in forms["instruction"].items():
        assert len(texts) == 2
        for text in texts:
            assert set(text.split()) - said <= frame, report
