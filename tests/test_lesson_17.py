"""Lesson 17: the losses of preferences and policy gradients equal trl's, gradients and hostile inputs included.

``python tests/test_lesson_17.py`` prints the largest differences.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
import torch
from torch.nn.functional import logsigmoid

from instructlab_utils import preferences, small, training, wishes
from instructlab_utils.errors import ParameterError, TrainingError

NAMES = [str(n) for n in range(12)]
PAIRS = [
    ("1 2 3 4", " 5 6", " 7 8 9 10 11"),
    ("5", " 6 7 8 9 1 2 3", " 0"),
    ("3 3 3 3 3 3 3 3", "", " 1 1"),  # the chosen answer is empty: its end token alone
]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-6}


def tokenizer():
    return small.word_tokenizer(NAMES)


def decoder(seed: int, dtype: torch.dtype = torch.float32):
    """A small decoder whose weights are large enough for a margin that is not 0."""
    net = small.small_decoder(15, width=16, window=64, seed=seed)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(3)
    return net.to(dtype)


def ids(text: str) -> list[int]:
    return tokenizer()(text)["input_ids"] if text else []


def batch_of(side: int) -> training.Batch:
    """The chosen (1) or rejected (2) answers, by our functions."""
    prompts, answers = [ids(pair[0]) for pair in PAIRS], [ids(pair[side]) for pair in PAIRS]
    return training.collate_tokens(preferences.answer_examples(prompts, answers, 1, 20), 0)


def ratios(net, reference) -> list[torch.Tensor]:
    """Log-ratios of the chosen and of the rejected answers. ``reference`` is a model, or a context with the adapters off."""
    found = []
    for side in (1, 2):
        batch = batch_of(side)
        with torch.no_grad():
            if isinstance(reference, torch.nn.Module):
                before = preferences.answer_log_probs(reference, batch)
            else:
                with reference():
                    before = preferences.answer_log_probs(net, batch)
        found.append(preferences.answer_log_probs(net, batch) - before)
    return found


def dpo_trainer(folder: Path, net, reference, **how):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = Dataset.from_list(
        [dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)) for pair in PAIRS]
    )
    arguments = DPOConfig(
        str(folder), bf16=False, gradient_checkpointing=False, use_cpu=True, report_to="none",
        per_device_train_batch_size=3, **{k: v for k, v in how.items() if k != "peft_config"},
    )  # fmt: skip
    return DPOTrainer(
        net, reference, arguments, train_dataset=rows, processing_class=tokenizer(),
        peft_config=how.get("peft_config"),
    )  # fmt: skip


def gradients(loss: torch.Tensor, net) -> torch.Tensor:
    weights = [p for p in net.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value where that is above 1."""
    return ((a - b).abs().max() / max(b.abs().max().item(), 1.0)).item()


def ours_of(kind: str, net, reference, beta: float) -> torch.Tensor:
    chosen, rejected = ratios(net, reference)
    if kind == "sigmoid":
        return preferences.dpo_loss(chosen, rejected, beta).mean()
    tokens = [(batch_of(side)["labels"] != -100).sum(1) for side in (1, 2)]
    return preferences.ipo_loss(chosen / tokens[0], rejected / tokens[1], beta).mean()


def dpo_difference(folder: Path, kind: str, beta: float, dtype: torch.dtype) -> dict[str, float]:
    net, reference = decoder(1, dtype), decoder(2, dtype)
    trainer = dpo_trainer(folder, net, reference, beta=beta, loss_type=kind)
    theirs = trainer.data_collator([trainer.train_dataset[i] for i in range(len(PAIRS))])
    other = trainer._compute_loss(trainer.model, dict(theirs), False)
    mine = ours_of(kind, net, reference, beta)
    logged = trainer._metrics["train" if trainer.model.training else "eval"]
    rewards = [beta * r.mean().item() for r in ratios(net, reference)]
    told = [logged["rewards/chosen"][-1], logged["rewards/rejected"][-1]]
    return {
        "loss": apart(mine, other),
        "gradient": apart(gradients(mine, net), gradients(other, net)),
        "rewards": max(abs(a - b) / max(abs(b), 1) for a, b in zip(rewards, told, strict=True)),
    }


# --- DPO and its variants against trl ---------------------------------------------------------------------------------


KINDS = [("sigmoid", 0.03), ("sigmoid", 0.1), ("sigmoid", 1.0), ("ipo", 0.1), ("ipo", 0.5)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_loss_rewards_and_gradients_are_those_of_trl(tmp_path, kind, beta, dtype):
    found = dpo_difference(tmp_path, kind, beta, dtype)
    assert max(found.values()) < TOLERANCE[dtype], found


def test_the_reference_is_the_model_with_its_adapters_off(tmp_path):
    assert max(lora_difference(tmp_path).values()) < 1e-6


def lora_difference(folder: Path) -> dict[str, float]:
    from peft import LoraConfig

    how = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = dpo_trainer(folder, decoder(1), None, beta=0.3, peft_config=how)
    net = trainer.model
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # B begins with zeros, and then policy and reference are equal
        for name, p in net.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=generator))
    net.eval()
    theirs = trainer.data_collator([trainer.train_dataset[i] for i in range(len(PAIRS))])
    other, mine = (
        trainer._compute_loss(net, dict(theirs), False),
        ours_of("sigmoid", net, net.disable_adapter, 0.3),
    )
    chosen, rejected = ratios(net, net.disable_adapter)
    assert (chosen - rejected).abs().min() > 1e-3  # the adapters do something
    return {
        "LoRA, loss": apart(mine, other),
        "LoRA, gradient": apart(gradients(mine, net), gradients(other, net)),
    }


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_kto_is_that_of_trl(tmp_path, beta):
    assert max(kto_difference(tmp_path, beta).values()) < 1e-6


def kto_difference(folder: Path, beta: float) -> dict[str, float]:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    net, reference = decoder(1), decoder(2)
    rows = [
        {"prompt": pair[0], "completion": pair[side], "label": side == 1} for pair in PAIRS for side in (1, 2)
    ]
    arguments = KTOConfig(
        str(folder), bf16=False, gradient_checkpointing=False, use_cpu=True, report_to="none", beta=beta,
        per_device_train_batch_size=6,
    )  # fmt: skip
    trainer = KTOTrainer(
        net, reference, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer()
    )
    theirs = trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))])
    other = trainer._compute_loss(net, dict(theirs), False)

    def log_ratios(kind: str) -> torch.Tensor:
        batch = {name: theirs[f"{kind}{name}"] for name in ("input_ids", "attention_mask")}
        batch["labels"] = batch["input_ids"].masked_fill(theirs[f"{kind}completion_mask"] == 0, -100)
        with torch.no_grad():
            before = preferences.answer_log_probs(reference, batch)
        return preferences.answer_log_probs(net, batch) - before

    z = log_ratios("KL_").mean().clamp(min=0)
    mine = preferences.kto_loss(log_ratios(""), torch.as_tensor(theirs["label"]).bool(), z, beta).mean()
    return {
        "KTO, loss": apart(mine, other),
        "KTO, gradient": apart(gradients(mine, net), gradients(other, net)),
    }


@pytest.mark.parametrize("beta", [0.1, 2.0])
@pytest.mark.parametrize(("chosen", "rejected"), [(0.3, -0.2), (-4.0, 5.0), (0.0, 0.0)])
def test_the_gradient_of_dpo_three_ways(beta, chosen, rejected):
    w, l = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (chosen, rejected))
    found = torch.autograd.grad(preferences.dpo_loss(w, l, beta).sum(), (w, l))
    closed = -beta * torch.sigmoid(beta * (l - w)).detach()
    step = 1e-6
    ends = [preferences.dpo_loss(w + h, l, beta).detach() for h in (step, -step)]
    assert torch.allclose(found[0], closed, atol=1e-12) and torch.allclose(found[1], -closed, atol=1e-12)
    assert torch.allclose((ends[0] - ends[1]) / (2 * step), closed, atol=1e-8)


def test_the_gradient_through_the_model_is_the_weighted_difference_of_two():
    net, reference = decoder(1, torch.float64), decoder(2, torch.float64)
    beta, found = 0.5, 0.0
    chosen, rejected = ratios(net, reference)
    weights = beta * torch.sigmoid(beta * (rejected - chosen)).detach()
    for i in range(len(PAIRS)):
        found = found - weights[i] * (
            gradients(ratios(net, reference)[0][i], net) - gradients(ratios(net, reference)[1][i], net)
        )
    whole = gradients(preferences.dpo_loss(chosen, rejected, beta).sum(), net)
    assert apart(found, whole) < 1e-6  # the norms inside the model are computed in float32


def test_smoothing_mixes_the_two_orders():
    w, l = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    found = preferences.dpo_loss(w, l, 0.7, smoothing=0.2)
    wanted = -0.8 * logsigmoid(0.7 * (w - l)) - 0.2 * logsigmoid(0.7 * (l - w))
    assert torch.allclose(found, wanted)


# --- hostile inputs ---------------------------------------------------------------------------------------------------


def test_identical_answers_teach_nothing():
    net, reference = decoder(1), decoder(2)
    chosen, _ = ratios(net, reference)
    loss = preferences.dpo_loss(chosen, chosen, 0.1)
    assert torch.allclose(loss, torch.full_like(loss, 0.6931472)) and not gradients(loss.sum(), net).any()


def test_an_answer_without_probability():
    inf, zero = torch.tensor([float("inf")]), torch.zeros(1)
    for margin, wanted in ((inf, 0.0), (-inf, float("inf"))):
        assert preferences.dpo_loss(margin, zero).item() == wanted == -logsigmoid(0.1 * margin).item()
    w = torch.tensor([float("inf"), 1.0], requires_grad=True)
    preferences.dpo_loss(w, torch.zeros(2)).sum().backward()
    assert w.grad.isfinite().all()
    for loss in (preferences.dpo_loss, preferences.ipo_loss, preferences.bradley_terry):
        with pytest.raises(TrainingError, match="not a number"):
            loss(-inf, -inf)


@pytest.mark.parametrize("size", [5e3, 1e6])
def test_long_answers_have_finite_losses_and_gradients(size):
    for sign in (1, -1):
        w = torch.tensor([sign * size], requires_grad=True)
        loss = preferences.dpo_loss(w, torch.zeros(1), 0.1)
        loss.sum().backward()
        assert (
            loss.isfinite().all()
            and w.grad.isfinite().all()
            and loss.item() == pytest.approx(max(-sign * size * 0.1, 0))
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_before_anything_is_added_up(dtype):
    w, l = torch.tensor([300.0, -2.0], dtype=dtype), torch.tensor([299.0, 3.0], dtype=dtype)
    for loss in (preferences.dpo_loss, preferences.ipo_loss, preferences.bradley_terry):
        assert torch.equal(loss(w, l), loss(w.float(), l.float())) and loss(w, l).dtype == torch.float32
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0]], dtype=dtype)
    assert torch.equal(preferences.group_advantages(rewards), preferences.group_advantages(rewards.float()))
    assert (
        preferences.kl_k3(w, l).dtype == preferences.reinforce_loss(w, rewards[0, :2]).dtype == torch.float32
    )


OUTSIDE = [{"beta": 0.0}, {"beta": -1.0}, {"beta": float("nan")}, {"smoothing": 0.5}, {"smoothing": -0.1}]


@pytest.mark.parametrize("how", OUTSIDE)
def test_a_beta_or_smoothing_outside_its_range(how):
    with pytest.raises(ParameterError, match="beta"):
        preferences.dpo_loss(torch.zeros(1), torch.zeros(1), **how)


def test_shapes_must_fit():
    with pytest.raises(TrainingError, match="shapes"):
        preferences.dpo_loss(torch.zeros(2), torch.zeros(3))
    for rewards in (torch.zeros(4), torch.zeros(4, 1)):
        with pytest.raises(ParameterError, match="two answers"):
            preferences.group_advantages(rewards)
    with pytest.raises(ParameterError, match="reference"):
        preferences.grpo_loss(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1), beta=0.1)
    for prompts, answers in (([[3]], [[3], [4]]), ([[]], [[3]]), ([[3]], [[3] * 9])):
        with pytest.raises(ParameterError, match="answer"):
            preferences.answer_examples(prompts, answers, 1, 8)


def test_an_empty_answer_is_its_end_and_a_cut_one_has_none():
    found = preferences.answer_examples([[5, 6], [5]], [[], [7, 8, 9]], 1, 3)
    assert found[0] == {"input_ids": [5, 6, 1], "labels": [-100, -100, 1]}
    assert found[1] == {"input_ids": [5, 7, 8, 9], "labels": [-100, 7, 8, 9]}


def test_update_refuses_a_loss_that_is_not_finite():
    net = decoder(1)
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.AdamW(net.parameters())
    with pytest.raises(TrainingError, match="loss"):
        preferences.update(net, optimizer, sum(p.sum() for p in net.parameters()) * float("nan"), 1e-3)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))


# --- policy gradients -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_the_mean_gradient_of_reinforce_is_that_of_the_expected_reward(baseline):
    z = torch.tensor([0.2, -1.0, 0.6], dtype=torch.float64, requires_grad=True)
    rewards = torch.tensor([1.0, 0.0, 0.3], dtype=torch.float64)
    p = z.softmax(-1)
    expected = torch.autograd.grad(-(p * rewards).sum(), z, retain_graph=True)[0]
    losses = preferences.reinforce_loss(z.log_softmax(-1), rewards, baseline)
    found = torch.autograd.grad((p.detach() * losses).sum(), z)[0]
    assert torch.allclose(found, expected, atol=1e-12)


def test_equal_rewards_give_no_advantage_and_groups_do_not_mix():
    found = preferences.group_advantages(torch.tensor([[1.0, 1, 1], [0, 0, 3]]))
    assert not found[0].any() and torch.allclose(found[1], torch.tensor([-1.0, -1, 2]) / (3**0.5 + 1e-4))
    plain = preferences.group_advantages(torch.tensor([[1.0, 1, 1], [0, 0, 3]]), scale=False)
    assert torch.equal(plain[1], torch.tensor([-1.0, -1, 2]))


# trl's own default multiplies k3 by the ratio; the paper's formula, and ours, does not
@pytest.mark.parametrize("beta", [0.0, 0.2])
def test_grpo_is_that_of_trl(tmp_path, beta):
    found = grpo_difference(tmp_path, beta)
    assert max(found.values()) < 1e-6, found


def grpo_difference(folder: Path, beta: float, clip: float = 0.2) -> dict[str, float]:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    arguments = GRPOConfig(
        str(folder), bf16=False, gradient_checkpointing=False, use_cpu=True, report_to="none",
        use_bias_correction_kl=False,
        epsilon=clip, loss_type="grpo", num_generations=2, per_device_train_batch_size=4, max_completion_length=8,
    )  # fmt: skip
    net, old, reference = decoder(1), decoder(1), decoder(2)
    with torch.no_grad():
        for p in old.parameters():
            p.mul_(0.9)
    rows = Dataset.from_list([{"prompt": "1"}] * 4)
    trainer = GRPOTrainer(
        net, lambda completions, **_: [0.0] * len(completions), arguments, rows, processing_class=tokenizer()
    )
    prompts, answers = (
        [ids("1 2 3"), ids("1 2 3"), ids("4"), ids("4")],
        [ids("5 6"), ids("7 8 9 1"), [], ids("2 2 2")],
    )
    batch = training.collate_tokens(preferences.answer_examples(prompts, answers, 1, 8), 0)
    advantages = preferences.group_advantages(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).flatten()

    def tokens(model):
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return preferences.token_log_probs(logits, batch["labels"])

    log_p, mask = tokens(net)
    with torch.no_grad():
        before, fixed = tokens(old)[0], tokens(reference)[0]
    ratio = (log_p - before).exp()[mask]
    gains = advantages.unsqueeze(1).expand_as(mask)[mask]
    assert ((ratio > 1 + clip) & (gains > 0)).any() and (
        (ratio < 1 - clip) & (gains < 0)
    ).any()  # both ends clip
    losses = preferences.grpo_loss(log_p, before, advantages, clip=clip, reference=fixed, beta=beta)
    mine = preferences.answer_mean(losses, mask).mean()

    def rows_of(values, fill):
        kept = [row[m] for row, m in zip(values, mask, strict=True)]
        return torch.nn.utils.rnn.pad_sequence(kept, batch_first=True, padding_value=fill)

    trainer.beta = beta  # given to GRPOConfig, it would load a reference from a folder
    left = max(map(len, prompts))
    inputs = {
        "prompt_ids": torch.tensor([[0] * (left - len(p)) + p for p in prompts]),
        "prompt_mask": torch.tensor([[0] * (left - len(p)) + [1] * len(p) for p in prompts]),
        "completion_ids": rows_of(batch["labels"][:, 1:], 0),
        "completion_mask": rows_of(mask.long(), 0),
        "advantages": advantages,
        "old_per_token_logps": rows_of(before, 0.0),
        "ref_per_token_logps": rows_of(fixed, 0.0),
    }
    trainer.model.eval()  # outside train() it has no number of accumulation steps
    other = trainer._compute_loss(trainer.model, inputs)
    return {
        "GRPO, loss": apart(mine, other),
        "GRPO, gradient": apart(gradients(mine, net), gradients(other, net)),
    }


def test_k3_is_never_negative_and_right_on_average():
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(5, generator=generator, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    assert (preferences.kl_k3(p, q) >= 0).all()
    assert torch.allclose((p.exp() * preferences.kl_k3(p, q)).sum(), (p.exp() * (p - q)).sum())


# --- the world --------------------------------------------------------------------------------------------------------


def test_every_wish_can_be_met_and_the_judge_knows_by_what():
    found = wishes.wishes()
    assert len(found) == len(set(found)) == len(set(map(str, found)))
    for wish in found:
        assert len(wishes.answers(wish)) >= 2 and all(wishes.right(wish, a) for a in wishes.answers(wish))
    wish = wishes.Wish("rising", 4, 2, "even")
    missed = {"order": [2, 5, 3, 8], "length": [2, 3, 8], "start": [1, 3, 5, 8], "parity": [2, 3, 5, 7]}
    for name, answer in missed.items():
        assert [k for k, met in wishes.judged(wish, answer).items() if not met] == [name]
    assert not any(wishes.right(wish, answer) for answer in ([], [2], [2, 3, 5, -1], [2, 3, 5, 100]))


def test_a_careful_person_is_always_right_and_a_careless_one_is_not():
    rng = random.Random(0)
    for wish in wishes.wishes():
        assert wishes.right(wish, wishes.demonstration(wish, 0.0, rng))
    slips = [
        wishes.right(wish, wishes.demonstration(wish, 0.3, rng))
        for wish in wishes.wishes()
        for _ in range(20)
    ]
    assert 0.2 < sum(slips) / len(slips) < 0.6


def test_the_hole_pays_for_length():
    for wish in wishes.wishes():
        for answer in wishes.answers(wish):
            assert wishes.points(wish, answer) == 1
    wish = wishes.Wish("rising", 2, 0, "odd")
    assert wishes.points(wish, list(range(8))) == 3 > 1 and not wishes.right(wish, list(range(8)))


def test_wordings_differ_and_the_first_is_the_wish():
    wish = wishes.wishes()[0]
    every = {
        wishes.worded(wish, (a, b, c, d))
        for a in range(3)
        for b in range(3)
        for c in range(3)
        for d in range(3)
    }
    assert len(every) == 81 and wishes.worded(wish) == str(wish)
    known = {*wishes.WORDS, *wishes.MORE_WORDS}
    assert all(set(text.split()) <= known for text in every)


def test_a_draw_has_the_probability_that_scoring_gives_it():
    world = wishes.World(3)
    assert not {*world.test} & {*world.dev} | {*world.test} & {*world.train} | {*world.dev} & {*world.train}
    net = small.small_decoder(
        len(world.tokenizer), width=16, window=16, seed=0
    )  # untrained: many answers are cut
    drawn = world.draw(net, world.test * 8, torch.Generator().manual_seed(0))
    assert {len(a.ids) == wishes.LONGEST for a in drawn} == {True, False}
    with torch.no_grad():
        found = preferences.answer_log_probs(net, world.batch(drawn))
    assert torch.allclose(found, torch.tensor([a.log_prob for a in drawn]), atol=1e-4)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for kind, beta in KINDS:
            for dtype in (torch.float32, torch.float64):
                print(kind, beta, dtype, dpo_difference(place, kind, beta, dtype))
        others = [lora_difference(place), kto_difference(place, 0.1)]
        print(*others, *(grpo_difference(place, beta) for beta in (0.0, 0.2)), sep="\n")
