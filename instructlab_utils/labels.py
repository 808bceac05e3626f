"""Few labels on kept features: self-training, consistency, which sentence to label next, and weights for noisy labels.

The learner is a linear head. x is (N, d), y holds class numbers (N,), p is (N, K). Built in lesson 20.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from instructlab_utils.errors import ParameterError, TrainingError

Predict = Callable[[Tensor], Tensor]
ACQUISITIONS = ("random", "entropy", "margin", "diversity", "cal")


def fit_logistic(x: Tensor, y: Tensor, C: float, balanced: bool = False) -> Predict:
    """Logistic regression with L2 penalty 1 / C; returns a function from (N, d) to probabilities (N, K), float64.

    With ``balanced`` each class counts the same, whatever its number of rows. Classes are 0 … K - 1, and each must occur:
    ValueError otherwise. Source: lesson 20, section 1.
    """
    from sklearn.linear_model import LogisticRegression

    if sorted(set(y.tolist())) != list(range(int(y.max()) + 1)) or y.max() < 1:
        raise ValueError(
            f"classes {sorted(set(y.tolist()))}: need 0 … K - 1, two at least, each once or more"
        )
    net = LogisticRegression(C=C, max_iter=1000, class_weight="balanced" if balanced else None)
    net.fit(x.double().numpy(), y.numpy())
    return lambda new: torch.from_numpy(net.predict_proba(new.double().numpy()))


def self_train(
    fit: Callable[[Tensor, Tensor], Predict],
    x: Tensor,
    y: Tensor,
    pool: Tensor,
    threshold: float,
    rounds: int = 5,
) -> tuple[Predict, Tensor, Tensor]:
    """Train, label the pool where the largest probability is at least ``threshold``, train on both; ``rounds`` times.

    Each round labels the whole pool anew. Returns the predictor, and the rows of the pool with the labels that it learned
    from last. Source: Scudder (1965); lesson 20, section 7.
    """
    predict, sure, guess = fit(x, y), torch.zeros(0, dtype=torch.long), y[:0]
    for _ in range(rounds):
        confidence, named = predict(pool).max(1)
        sure = (confidence >= threshold).nonzero()[:, 0]
        guess = named[sure]
        predict = fit(torch.cat([x, pool[sure]]), torch.cat([y, guess]))
    return predict, sure, guess


def consistency(z: Tensor, noisy: Tensor) -> Tensor:
    """Mean KL(sharp guess from logits z ‖ prediction of the noisy view), a scalar; both (N, K).

    A guess is sharpened by the temperature 0.4, counts where it is surer than 0.8, and passes no gradient.
    Source: Xie et al. (2020), UDA; lesson 20, section 8.
    """
    z = z.detach()
    sharp, sure = torch.softmax(z / 0.4, 1), torch.softmax(z, 1).amax(1) > 0.8
    gap = torch.nn.functional.kl_div(noisy.log_softmax(1), sharp, reduction="none").sum(1)
    return (sure * gap).mean()


def fit_consistent(
    x: Tensor, y: Tensor, pool: Tensor, noisy: Tensor, weight: float, decay: float, steps: int = 200
) -> Predict:
    """A linear head: cross-entropy of x, y plus ``weight`` × :func:`consistency` of the pool and its noisy view, row by row.

    200 updates of Adam, weights start at 0. Source: Xie et al. (2020), UDA; lesson 20, section 8.
    """
    head = torch.nn.Linear(x.shape[1], int(y.max()) + 1)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(head(x), y) + weight * consistency(head(pool), head(noisy))
        loss = loss + decay / 2 * head.weight.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return lambda new: torch.softmax(head(new), 1).detach()


def kl_from_neighbours(p: Tensor, x: Tensor, known: Sequence[int], k: int = 10) -> Tensor:
    """CAL's score: mean over a row's ``k`` nearest labelled rows of KL(their prediction ‖ its own), shape (N,).

    Source: Margatina et al. (2021); lesson 20, section 9.
    """
    near = torch.cdist(x, x[list(known)]).topk(min(k, len(known)), largest=False).indices
    q = p[list(known)][near]  # (N, k, K)
    return (torch.special.xlogy(q, q) - q * p.clamp(min=1e-12).log()[:, None]).sum(2).mean(1)


def farthest_first(x: Tensor, known: Sequence[int], n: int) -> list[int]:
    """``n`` rows, each the one that is farthest from its nearest known or chosen row; of equals the first.

    Source: Sener and Savarese (2018), the greedy core set; lesson 20, section 9.
    """
    near = torch.cdist(x, x[list(known)]).amin(1)
    chosen: list[int] = []
    for _ in range(n):
        near[[*known, *chosen]] = -1
        chosen.append(int(near.argmax()))
        near = torch.minimum(near, torch.cdist(x, x[chosen[-1:]])[:, 0])
    return chosen


def acquire(
    kind: str, p: Tensor, x: Tensor, known: Sequence[int], n: int, generator: torch.Generator
) -> list[int]:
    """``n`` rows to label next, none of ``known``; of equals the first. p (N, K) are the predictions now, x (N, d) features.

    random; entropy (largest); margin (smallest gap of the two largest); diversity (:func:`farthest_first`); cal (largest
    :func:`kl_from_neighbours`). ParameterError for another kind or too few rows.
    Source: Settles (2009); Sener and Savarese (2018); Margatina et al. (2021); lesson 20, section 9.
    """
    if kind not in ACQUISITIONS or len(known) + n > len(x):
        raise ParameterError(f"{kind!r}, {n} of {len(x)} rows: choose from {ACQUISITIONS}")
    if kind == "diversity":
        return farthest_first(x, known, n)
    if kind == "random":
        score = torch.rand(len(x), generator=generator)
    elif kind == "entropy":
        score = -torch.special.xlogy(p, p).sum(1)
    elif kind == "margin":
        score = -p.topk(2, 1).values.diff(dim=1).abs()[:, 0]
    else:
        score = kl_from_neighbours(p, x, known)
    score[list(known)] = -torch.inf
    return score.sort(descending=True, stable=True).indices[:n].tolist()


def first_of_each(y: Tensor, sizes: Sequence[int]) -> Tensor:
    """The first ``sizes[k]`` rows of each class k, or all of them where there are fewer. Source: lesson 20, section 9."""
    return torch.cat([(y == k).nonzero()[:size, 0] for k, size in enumerate(sizes)])


def learning_curve(
    kind: str, fit: Callable[[Tensor, Tensor], Predict], x: Tensor, y: Tensor, start: Sequence[int], n: int, looks: int,
    test_x: Tensor, test_y: Tensor, generator: torch.Generator,
) -> tuple[Tensor, list[int]]:  # fmt: skip
    """Which test rows are right after the rows ``start``, and after each of ``looks`` further batches of ``n`` rows.

    Trains anew each time. Returns 1.0 and 0.0, float64 of shape (looks + 1, test rows), and all labelled rows in their
    order. Source: lesson 20, section 9.
    """
    known, hits = list(start), []
    for look in range(looks + 1):
        predict = fit(x[known], y[known])
        hits.append((predict(test_x).argmax(1) == test_y).double())
        if look < looks:
            known += acquire(kind, predict(x), x, known, n, generator)
    return torch.stack(hits), known


def judged(predict: Predict, x: Tensor, y: Tensor) -> dict[str, float]:
    """``loss`` (nats), ``accuracy`` and ``one_class`` (all predictions are equal) on x, y. Source: lesson 20, section 7."""
    p = predict(x).double().clamp(min=1e-12)
    p = p / p.sum(1, keepdim=True)
    hits = (p.argmax(1) == y).double().mean().item()
    loss = -p[range(len(p)), y].log().mean().item()
    return {"loss": loss, "accuracy": hits, "one_class": len(p.argmax(1).unique()) == 1}


def residuals(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """p - onehot(y), (N, K), of the linear head ``theta`` (K, d): its gradient is the outer product with x. Lesson 20."""
    return torch.softmax(x @ theta.T, 1) - torch.nn.functional.one_hot(y, len(theta)).to(x.dtype)


def meta_weights(theta: Tensor, x: Tensor, y: Tensor, clean_x: Tensor, clean_y: Tensor) -> Tensor:
    """Weights of the examples (N,), not negative, sum 1 (or all 0): how much a step on each would lower the clean loss.

    u_i is the inner product of the gradients of example i and of the mean loss of the clean examples, at the linear head
    ``theta`` (K, d). Negative ones become 0. Source: Ren et al. (2018); derived in lesson 20, section 10.
    TrainingError without clean examples, or where a gradient is not finite.
    """
    if len(clean_x) == 0:
        raise TrainingError("no clean example: nothing says which labels to trust")
    G = residuals(theta, clean_x, clean_y).T @ clean_x / len(clean_x)
    u = ((x @ G.T) * residuals(theta, x, y)).sum(1)
    if not u.isfinite().all():
        raise TrainingError("a gradient is not finite: lower the rate")
    w = u.clamp(min=0)
    return w / w.sum() if w.sum() > 0 else w


def fit_weighted(
    x: Tensor, y: Tensor, classes: int, rate: float, decay: float, steps: int = 300,
    clean: tuple[Tensor, Tensor] | None = None,
) -> tuple[Predict, Tensor, list[float]]:  # fmt: skip
    """A linear head (weights start at 0) by gradient descent on all examples; with ``clean`` by :func:`meta_weights`.

    Without ``clean`` all weigh 1 / N. Returns the predictor, the last weights (N,) and the training loss of each step,
    weighted as in the step. Source: Ren et al. (2018); lesson 20, section 10.
    """
    theta, losses = torch.zeros(classes, x.shape[1], dtype=x.dtype), []
    w = torch.full((len(x),), 1 / len(x), dtype=x.dtype)
    for _ in range(steps):
        if clean is not None:
            w = meta_weights(theta, x, y, *clean)
        losses.append((w @ torch.nn.functional.cross_entropy(x @ theta.T, y, reduction="none")).item())
        theta = theta - rate * ((w[:, None] * residuals(theta, x, y)).T @ x + decay * theta)
    return lambda new: torch.softmax(new @ theta.T, 1), w, losses
