"""Learning from judgements: Bradley-Terry, DPO and its variants, and policy gradients with a reward that a program gives.

Each function returns one loss per pair, answer or token, so that the caller chooses the denominator. Log-probabilities of
any floating dtype are widened to float32 first (see ``losses.upcast``). Built and checked in lesson 17.

A *log-ratio* is log π(y|x) − log π_ref(y|x) of a whole answer: how much more probable the policy finds it than the
reference does. β times it is the answer's *implicit reward*.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from instructlab_utils.errors import ParameterError, TrainingError
from instructlab_utils.losses import cross_entropy, sequence_log_probs, upcast
from instructlab_utils.training import Batch, Example, clip_gradients

# --- answers and their probabilities --------------------------------------------------------------------------------


def answer_examples(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], end: int, longest: int
) -> list[Example]:
    """Prompt, answer and the ``end`` token as ids, with labels on answer and end only; an answer may be empty.

    An answer of ``longest`` tokens was cut there, so it gets no end token. Raises ParameterError for a longer one, an empty
    prompt, or lists of unequal length. Source: lesson 17, section 2.
    """
    if len(prompts) != len(answers):
        raise ParameterError(f"{len(prompts)} prompts and {len(answers)} answers: one answer for each prompt")
    if min(map(len, prompts), default=0) == 0 or max(map(len, answers)) > longest:
        raise ParameterError(f"an empty prompt, or an answer of more than {longest} tokens")
    ended = [[*answer, end][:longest] for answer in answers]
    return [
        {"input_ids": [*p, *y], "labels": [-100] * len(p) + y} for p, y in zip(prompts, ended, strict=True)
    ]


def answer_log_probs(model: nn.Module, batch: Batch) -> Tensor:
    """log π(y|x) of each row, (B,), in nats: the sum over the labels that are not -100.

    ``batch``: as ``training.collate_tokens`` makes it. Source: lesson 17, section 2.
    """
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return sequence_log_probs(logits, batch["labels"])


def token_log_probs(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """log π of each token of the answers, and the mask that says where one is; both (B, T - 1).

    ``logits`` (B, T, V) as the model returns them, ``labels`` (B, T) with -100 off the answers. Where the mask is 0 the
    value is 0. float32 (float64 of float64). Source: lesson 17, section 6.
    """
    mask = labels[:, 1:] != -100
    log_p = -cross_entropy(logits[:, :-1][mask], labels[:, 1:][mask])
    return log_p.new_zeros(mask.shape).masked_scatter(mask, log_p), mask


def update(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> float:
    """One step down the gradient of ``loss``, clipped at norm 1, with the learning rate ``rate``; the loss as a number.

    Raises TrainingError where the loss or the gradient is not finite. Source: lesson 17, section 3.
    """
    if not loss.isfinite():
        raise TrainingError(f"the loss is {loss.item()}: lower the learning rate")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()
    clip_gradients(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


# --- preferences ----------------------------------------------------------------------------------------------------


def bradley_terry(better: Tensor, worse: Tensor) -> Tensor:
    """−log σ(r_w − r_l): the cross-entropy of "the first one wins", one value per pair.

    ``better``, ``worse``: rewards of the preferred and of the other answer, the same shape; one may be infinite. The
    gradient with respect to ``better`` is −σ(r_l − r_w). Raises TrainingError where the difference is not a number.

    Source: Bradley and Terry (1952); lesson 17, section 1.
    """
    margin = margins(better, worse)
    return torch.maximum(-margin, torch.zeros_like(margin)) + torch.log1p(torch.exp(-margin.abs()))


def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1, smoothing: float = 0.0) -> Tensor:
    """−log σ(β (chosen − rejected)), one value per pair: Bradley-Terry with implicit rewards.

    Args:
        chosen, rejected: (B,), log-ratios of the preferred and of the other answer. Log-probabilities in their place
            give the reference-free loss.
        beta: β > 0, the price of leaving the reference.
        smoothing: ε in [0, 1/2): the share of the preferences that are taken for wrong (conservative DPO).

    Returns:
        (B,), in nats; log 2 where the two log-ratios are equal. The gradient with respect to ``chosen`` is
        −β σ(β (rejected − chosen)) for ε = 0.

    Raises:
        ParameterError: β or ε lies outside its range. TrainingError: the shapes differ, or a log-ratio is not a number.

    Source: Rafailov et al. (2023), equation 7; ε: Mitchell (2023). Lesson 17, section 3. Equal to trl's "sigmoid", which has
    no ε.
    """
    check_beta(beta, smoothing)
    rewards = beta * upcast(chosen), beta * upcast(rejected)
    loss = bradley_terry(*rewards)
    return loss if smoothing == 0 else (1 - smoothing) * loss + smoothing * bradley_terry(*rewards[::-1])


def ipo_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    """(chosen − rejected − 1 / (2 β))², one value per pair: the margin is to reach a size, not to grow for ever.

    Args, Raises: as :func:`dpo_loss`; β is the paper's τ. trl divides each log-ratio by its number of tokens first: then
    so must the caller. Source: Azar et al. (2024), equation 17; lesson 17, section 4.
    """
    check_beta(beta)
    return (margins(chosen, rejected) - 1 / (2 * beta)) ** 2


def kto_loss(log_ratios: Tensor, desirable: Tensor, kl: Tensor | float, beta: float = 0.1) -> Tensor:
    """1 − σ(±β (log-ratio − z)), one value per answer; no pairs are needed, only good (+) and bad (−) answers.

    Args:
        log_ratios: (B,). ``desirable``: (B,), bool.
        kl: z, the estimate of KL(π ‖ π_ref) at which an answer counts as neither; a constant, no gradient flows into it.

    Source: Ethayarajh et al. (2024), section 4, with both weights 1; lesson 17, section 4. trl's z is the
    mean log-ratio of answers that belong to other prompts, 0 where it is negative.
    """
    check_beta(beta)
    z = kl.detach() if isinstance(kl, Tensor) else kl
    sign = torch.where(desirable, 1.0, -1.0).to(log_ratios.device)
    return 1 - torch.sigmoid(sign * beta * (upcast(log_ratios) - z))


def check_beta(beta: float, smoothing: float = 0.0) -> None:
    """ParameterError for a β that is not positive and finite, or an ε outside [0, 1/2). Source: lesson 17, section 3."""
    if not 0 < beta < float("inf") or not 0 <= smoothing < 0.5:
        raise ParameterError(f"beta {beta}, smoothing {smoothing}: need 0 < beta and 0 <= smoothing < 0.5")


def margins(chosen: Tensor, rejected: Tensor) -> Tensor:
    """chosen − rejected, float32 or wider; TrainingError where one is not a number, or the shapes differ.

    Source: lesson 17, section 1.
    """
    if chosen.shape != rejected.shape:
        raise TrainingError(f"chosen {tuple(chosen.shape)}, rejected {tuple(rejected.shape)}: shapes differ")
    margin = upcast(chosen) - upcast(rejected)
    if margin.isnan().any():
        raise TrainingError(
            "a log-ratio is not a number: one of the two models gives an answer probability 0"
        )
    return margin


# --- policy gradients -----------------------------------------------------------------------------------------------


def reinforce_loss(log_probs: Tensor, rewards: Tensor, baseline: Tensor | float = 0.0) -> Tensor:
    """−(r − b) log π(y|x), one value per answer: its mean gradient is that of minus the expected reward.

    ``log_probs`` (B,) of answers that were drawn from the policy itself, ``rewards`` (B,). The baseline b must not depend on
    the answer; it changes no mean gradient, only its variance. Source: Williams (1992); lesson 17, section 6.
    """
    return -(upcast(rewards) - baseline).detach() * upcast(log_probs)


def group_advantages(rewards: Tensor, scale: bool = True) -> Tensor:
    """(r − mean) / (standard deviation + 1e-4) within each row; rows are the G answers to one prompt.

    ``rewards``: (N, G), G ≥ 2. Equal rewards give advantages 0: nothing is learned from that prompt. Without ``scale`` only
    the mean is taken off. Raises ParameterError for a group of one.

    Source: Shao et al. (2024), section 4.1; the deviation is that of a sample (G − 1), as trl computes it. Lesson 17,
    section 7.
    """
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ParameterError(
            f"rewards {tuple(rewards.shape)}: need (prompts, answers) with two answers or more"
        )
    rewards = upcast(rewards)
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + 1e-4) if scale else centred


def kl_k3(log_p: Tensor, reference: Tensor) -> Tensor:
    """ρ − log ρ − 1 with ρ = π_ref / π: an estimate of KL(π ‖ π_ref) from single draws of π, never negative.

    Source: Schulman (2020), "k3"; lesson 17, section 7.
    """
    log_rho = upcast(reference) - upcast(log_p)
    return torch.exp(log_rho) - log_rho - 1


def grpo_loss(
    log_p: Tensor, old: Tensor, advantages: Tensor, *, clip: float = 0.2,
    reference: Tensor | None = None, beta: float = 0.0,
) -> Tensor:  # fmt: skip
    """−min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) + β k3, one value per token; ρ = π / π_old.

    Args:
        log_p: (B, T), log-probabilities of the answers' tokens under the policy; gradients flow into it.
        old: (B, T), the same when the answers were drawn; ``reference``: (B, T), under π_ref, for ``beta`` > 0.
        advantages: (B,), one for all tokens of an answer, as :func:`group_advantages` gives them, flattened.

    Returns:
        (B, T), float32 or wider, also at the padding: average with :func:`answer_mean`.

    Raises:
        ParameterError: ``beta`` without a ``reference``, or a clip outside (0, 1).

    Source: Shao et al. (2024), equation 3; lesson 17, section 7. Equal to trl's per-token loss.
    """
    if not 0 < clip < 1 or (beta and reference is None):
        raise ParameterError(f"clip {clip}, beta {beta}: need 0 < clip < 1, and a reference for the KL term")
    ratio, gain = torch.exp(upcast(log_p) - upcast(old)), upcast(advantages).unsqueeze(1)
    surrogate = torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)
    return -surrogate if reference is None or not beta else beta * kl_k3(log_p, reference) - surrogate


def answer_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over each answer's tokens, (B,): every answer counts the same, however long. trl's "grpo".

    ``values``, ``mask``: (B, T). An answer without a token gives 0. Source: lesson 17, section 7.
    """
    return (values * mask).sum(1) / mask.sum(1).clamp(min=1)
