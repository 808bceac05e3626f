"""Lesson 18: metrics, Fishers, penalties and routers equal autograd, torch and what a pencil gives; hostile inputs too.

``python tests/test_lesson_18.py`` prints the largest differences.
"""

from __future__ import annotations

import copy
import random
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from instructlab_utils import continual, models, programs, remedies, small, tuners
from instructlab_utils.errors import ParameterError, TrainingError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def trunk(seed=0, dtype=torch.float64):
    """A small trunk whose second matrix is not 0, six states of size 8, and labels of five classes."""
    g = generator(seed)
    net = continual.Trunk(torch.randn(5, 8, generator=g), hidden=6, seed=seed).to(dtype)
    nn.init.normal_(net.W2.weight, generator=g)
    nn.init.normal_(net.W1.bias, generator=g)
    return net, torch.randn(6, 8, generator=g, dtype=dtype), torch.randint(5, (6,), generator=g)


# --- the accuracy matrix ----------------------------------------------------------------------------------------------

R3 = [[0.9, 0.5, 0.4], [0.7, 0.8, 0.6], [0.5, 0.7, 1.0]]


def test_the_three_numbers_are_what_a_pencil_gives():
    assert continual.final_accuracy(R3) == pytest.approx((0.5 + 0.7 + 1.0) / 3, abs=1e-15)
    assert continual.backward_transfer(R3) == pytest.approx(((0.5 - 0.9) + (0.7 - 0.8)) / 2, abs=1e-15)
    before = [0.1, 0.25, 0.2]
    assert continual.forward_transfer(R3, before) == pytest.approx(
        ((0.5 - 0.25) + (0.6 - 0.2)) / 2, abs=1e-15
    )


@pytest.mark.parametrize("T", [2, 5, 9])
def test_the_three_numbers_follow_their_definitions(T):
    R = torch.rand(T, T, generator=generator(T), dtype=torch.float64)
    b = torch.rand(T, generator=generator(T + 1), dtype=torch.float64).tolist()
    acc = sum(R[T - 1, j] for j in range(T)) / T
    bwt = sum(R[T - 1, j] - R[j, j] for j in range(T - 1)) / (T - 1)
    fwt = sum(R[j - 1, j] - b[j] for j in range(1, T)) / (T - 1)
    table = R.tolist()
    assert continual.final_accuracy(table) == pytest.approx(acc.item(), abs=1e-14)
    assert continual.backward_transfer(table) == pytest.approx(bwt.item(), abs=1e-14)
    assert continual.forward_transfer(table, b) == pytest.approx(fwt.item(), abs=1e-14)


def test_a_matrix_that_is_none_is_refused():
    assert continual.final_accuracy([[0.5]]) == 0.5
    for R in ([], [[]], [[0.5, 0.5]], [[0.5, 0.5], [0.5]], [[0.5], [0.5]]):
        with pytest.raises(ParameterError, match="a row and a column for each task"):
            continual.final_accuracy(R)
    with pytest.raises(ParameterError, match="no backward transfer"):
        continual.backward_transfer([[0.5]])
    for R, before in (([[0.5]], [0.5]), (R3, [0.5, 0.5])):
        with pytest.raises(ParameterError, match="need two tasks or more"):
            continual.forward_transfer(R, before)


# --- Fishers ----------------------------------------------------------------------------------------------------------


def by_torch_func(net, x, y):
    """The true and the empirical Fisher from the gradients of each row and label."""
    weights = {name: p.detach() for name, p in net.named_parameters()}

    def log_p(weights, one):
        return torch.log_softmax(torch.func.functional_call(net, weights, (one[None],))[0], 0)

    J = torch.func.vmap(torch.func.jacrev(log_p), (None, 0))(weights, x)
    p = torch.softmax(net(x), 1).detach()
    true = {n: torch.einsum("nk,nk...->n...", p, g.square()).mean(0) for n, g in J.items()}
    return true, {n: g[torch.arange(len(x)), y].square().mean(0) for n, g in J.items()}


def deep():
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Linear(8, 7, bias=False), nn.Tanh(), nn.LayerNorm(7), nn.Linear(7, 4), nn.GELU(), nn.Linear(4, 5)
    )
    return net.double()


@pytest.mark.parametrize("make", [lambda: trunk()[0], deep], ids=["trunk", "deep"])
@pytest.mark.parametrize("rows", [1, 6])
def test_both_fishers_equal_the_gradients_of_each_row(make, rows):
    net, (_, x, y) = make(), trunk()
    x, y = x[:rows], y[:rows]
    true, empirical = by_torch_func(net, x, y)
    linear = [
        f"{n}.{k}"
        for n, m in net.named_modules()
        if isinstance(m, nn.Linear)
        for k, _ in m.named_parameters()
    ]
    for found, want in ((continual.fisher(net, x), true), (continual.fisher(net, x, y), empirical)):
        assert set(found) == set(linear)
        for name, F in found.items():
            assert F.shape == want[name].shape and F.dtype == torch.float64 and (F >= 0).all()
            assert (F - want[name]).abs().max() < 1e-10


def test_the_true_fisher_is_the_hessian_of_a_linear_softmax_and_the_empirical_one_is_not():
    _, x, y = trunk()
    net = nn.Sequential(nn.Linear(8, 5, bias=False)).double()
    W = net[0].weight.detach()

    def loss(W):
        return nn.functional.cross_entropy(x @ W.T, y)

    H = torch.autograd.functional.hessian(loss, W).view(40, 40).diagonal().view(5, 8)
    assert (continual.fisher(net, x)["0.weight"] - H).abs().max() < 1e-14
    assert (continual.fisher(net, x, y)["0.weight"] - H).abs().max() > 1e-2


def test_the_true_fisher_is_the_expected_hessian_of_a_deep_softmax_over_labels_of_the_model():
    """E[-∇² log p] = E[(∇ log p)²] where the labels come from the model; here for the bias of the last layer."""
    net, x, _ = trunk()
    p = torch.softmax(net(x), 1).detach()
    H = torch.zeros(8, dtype=torch.float64)
    for n in range(len(x)):
        for k in range(5):

            def minus(b, n=n, k=k):
                z = torch.func.functional_call(net, {"W2.bias": b}, (x[n : n + 1],))
                return -torch.log_softmax(z[0], 0)[k]

            H += p[n, k] * torch.autograd.functional.hessian(minus, net.W2.bias.detach()).diagonal() / len(x)
    assert (continual.fisher(net, x)["W2.bias"] - H).abs().max() < 1e-12


def test_fisher_leaves_the_net_as_it_was():
    net, x, y = trunk()
    net(x).sum().backward()
    grads = [p.grad.clone() for p in net.parameters()]
    continual.fisher(net, x, y)
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), grads, strict=True))
    assert not any(module._forward_hooks for module in net.modules())
    with pytest.raises(RuntimeError):
        continual.fisher(net, torch.zeros(3, 4, dtype=torch.float64))
    assert not any(module._forward_hooks for module in net.modules())
    with pytest.raises(TrainingError, match="calls no linear layer"):
        continual.fisher(nn.Sequential(nn.Tanh()), x)


def test_sure_rows_have_no_true_fisher():
    net = nn.Sequential(nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[50.0, 0.0], [0.0, 50.0]]))
    x = torch.eye(2, dtype=torch.float64)
    assert continual.fisher(net, x)["0.weight"].max() < 1e-20
    assert continual.fisher(net, x, torch.tensor([1, 0]))["0.weight"].max() > 0.4  # sure and wrong


# --- the penalty of EWC -----------------------------------------------------------------------------------------------


def test_the_penalty_has_the_value_and_the_gradient_of_springs():
    net, x, _ = trunk()
    old = {name: p.detach().clone() for name, p in net.named_parameters()}
    F = continual.fisher(net, x)
    assert continual.quadratic_penalty(net, old, F).item() == 0
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=generator(7), dtype=p.dtype))
    value = continual.quadratic_penalty(net, old, F)
    by_hand = sum((F[n] * (p.detach() - old[n]) ** 2).sum() for n, p in net.named_parameters()) / 2
    assert value.item() == pytest.approx(by_hand.item(), rel=1e-12)
    slopes = torch.autograd.grad(value, list(net.parameters()))
    for slope, (name, p) in zip(slopes, net.named_parameters(), strict=True):
        assert (slope - F[name] * (p.detach() - old[name])).abs().max() < 1e-12
    ones = {name: torch.ones_like(v) for name, v in old.items()}
    flat = torch.cat([(p.detach() - old[n]).flatten() for n, p in net.named_parameters()])
    assert continual.quadratic_penalty(net, old, ones).item() == pytest.approx(
        flat.square().sum().item() / 2, rel=1e-12
    )


def test_springs_for_other_weights_are_refused():
    net, _, _ = trunk()
    old = {name: p.detach().clone() for name, p in net.named_parameters()}
    assert continual.quadratic_penalty(net, old, {}).item() == 0
    with pytest.raises(TrainingError, match=r"W9\.weight"):
        continual.quadratic_penalty(net, old, {"W9.weight": torch.ones(1)})
    with pytest.raises(TrainingError, match=r"W1\.weight"):
        continual.quadratic_penalty(net, {}, {"W1.weight": torch.ones(6, 8)})


# --- distillation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 10.0])
def test_distillation_equals_torchs_divergence_and_its_gradient(temperature):
    g = generator(1)
    z, old = (3 * torch.randn(7, 5, generator=g, dtype=torch.float64) for _ in range(2))
    z.requires_grad_()
    p, log_q = torch.softmax(old / temperature, 1), torch.log_softmax(z / temperature, 1)
    library = temperature**2 * nn.KLDivLoss(reduction="none")(log_q, p).sum(1)
    found = continual.distillation(z, old, temperature)
    assert found.shape == (7,) and (found >= 0).all()
    assert (found - library).abs().max() < 1e-10
    (slope,) = torch.autograd.grad(found.sum(), z)
    assert (slope - temperature * (log_q.exp() - p).detach()).abs().max() < 1e-10


def test_distillation_of_equal_logits_is_zero_and_no_gradient_reaches_the_old_network():
    z = torch.randn(3, 4, generator=generator(), dtype=torch.float64).requires_grad_()
    old = (z.detach() + 5).requires_grad_()  # a shift changes nothing
    loss = continual.distillation(z, old).sum()
    assert loss.item() == pytest.approx(0, abs=1e-14)
    assert torch.autograd.grad(loss, [z, old], allow_unused=True)[1] is None
    assert continual.distillation(z.detach().bfloat16(), old.detach().bfloat16()).dtype == torch.float32


def test_distillation_refuses_what_does_not_fit():
    z = torch.zeros(2, 3)
    for new, old, temperature in (
        (z, z[:1], 2.0),
        (z, z[:, :2], 2.0),
        (z, z, 0.0),
        (z, z, -1.0),
        (z, z, float("nan")),
    ):
        with pytest.raises(TrainingError, match="need equal shapes and a positive number"):
            continual.distillation(new, old, temperature)


# --- subspaces --------------------------------------------------------------------------------------------------------


def test_the_overlap_equals_a_direct_computation():
    g = generator(2)
    A, *before = (torch.randn(r, 9, generator=g, dtype=torch.float64) for r in (3, 2, 4))
    direct = sum((a @ b).item() ** 2 for old in before for a in A for b in old)
    assert continual.subspace_overlap(A, before).item() == pytest.approx(direct, rel=1e-12)
    A.requires_grad_()
    (slope,) = torch.autograd.grad(continual.subspace_overlap(A, before), A)
    want = sum(2 * A.detach() @ old.T @ old for old in before)
    assert (slope - want).abs().max() < 1e-12


def test_orthogonal_rows_do_not_overlap_and_no_gradient_reaches_the_old_ones():
    Q = torch.linalg.qr(torch.randn(6, 6, generator=generator(), dtype=torch.float64)).Q
    assert continual.subspace_overlap(Q[:2], [Q[2:4], Q[4:]]).item() < 1e-28
    assert continual.subspace_overlap(Q[:2], [Q[:2]]).item() == pytest.approx(2, abs=1e-12)
    assert continual.subspace_overlap(Q[:2], []).item() == 0
    old = Q[:2].clone().requires_grad_()
    assert not continual.subspace_overlap(Q[:2], [old]).requires_grad
    with pytest.raises(TrainingError, match="belong to other layers"):
        continual.subspace_overlap(Q[:2], [torch.ones(2, 5, dtype=torch.float64)])


# --- routers ----------------------------------------------------------------------------------------------------------


def test_a_state_goes_to_the_nearest_centre():
    g = generator(4)
    h, centres = torch.randn(20, 3, generator=g), torch.randn(4, 3, generator=g)
    direct = [min(range(4), key=lambda t: (x - centres[t]).square().sum().item()) for x in h]
    assert continual.routed(h, centres).tolist() == direct
    nets = [nn.Linear(3, 2) for _ in range(4)]
    found = remedies.Routed(nets, list(centres))(h)
    assert all(torch.allclose(z, nets[t](x)) for z, x, t in zip(found, h, direct, strict=True))


def test_words_route_an_instruction():
    router = continual.WordRouter([["sort the list", "put them in order"], ["give the last one"]])
    assert router(["put the list in order", "give me never the last"]) == [0, 1]
    assert router([]) == []
    assert router.counts(["list list never"]).sum().item() == 2


def test_an_instruction_has_the_interpreters_answer():
    rng, options = random.Random(0), [programs.parse("take 2"), programs.parse("max")]
    rows = continual.asked(options, 40, rng, lambda given: sum(given) % 5 == 0)
    for row in rows:
        given = [int(word) for word in row.given.split()]
        assert sum(given) % 5 == 0 and row.prompt == f"{row.text} = {row.given} ="
        assert row.answer in (f"{given[0]} {given[1]}", str(max(given)))
    tokenizer = small.word_tokenizer(continual.asked_words(rows))
    (example,) = continual.asked_examples(rows[:1], tokenizer)
    kept = [i for i in example["labels"] if i != -100]
    assert tokenizer.decode(kept[:-1]) == rows[0].answer and kept[-1] == tokenizer.eos_token_id


# --- states -----------------------------------------------------------------------------------------------------------


def test_states_are_means_of_norm_one_and_are_kept(tmp_path, monkeypatch):
    kept = continual.cache
    monkeypatch.setattr(
        continual, "cache", SimpleNamespace(pin=kept.pin, entry=kept.entry, home=lambda: tmp_path)
    )
    texts = ["a good film", "the minister resigned after a long debate about taxes"]
    found = continual.sentence_states(texts, 16)
    net, tokenizer = models.load_encoder(), models.load_tokenizer("encoder")
    for text, h in zip(texts, found, strict=True):
        with torch.no_grad():
            mean = net(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert (h - mean / mean.norm()).abs().max() < 1e-5
    monkeypatch.setattr(continual.models, "load_encoder", lambda: pytest.fail("computed twice"))
    assert torch.equal(continual.sentence_states(texts, 16), found)
    assert len(list((tmp_path / "states").iterdir())) == 1


def test_sentences_share_one_output_space():
    rows = continual.sentences("questions")
    assert {continual.WORDS[k] for k in rows["test"]["label"]} == set(continual.WORDS[7:])
    assert set(rows["train"].column_names) == {"id", "group", "text", "label"}
    assert {continual.WORDS[k] for k in continual.sentences("tweets")["dev"]["label"]} == {
        "negative",
        "positive",
    }


# --- the loop and the remedies ----------------------------------------------------------------------------------------


def stream(tasks=3, n=40):
    g = generator(9)
    centres = torch.nn.functional.normalize(torch.randn(5, 8, generator=g)) * 2
    found = []
    for t in range(tasks):
        y = torch.randint(2, (n,), generator=g) + t
        found.append((centres[y] + 0.3 * torch.randn(n, 8, generator=g), y))
    return found


def learned(remedy, steps=15, seed=0, tasks=3, rate=1e-2):
    net, parts = continual.Trunk(torch.randn(5, 8, generator=generator()), hidden=6, seed=1), stream(tasks)

    def look(net):
        return [(net(x).argmax(1) == y).double().mean().item() for x, y in parts]

    return remedies.learn_in_turn(
        net, parts, remedy, look, steps=steps, learning_rate=rate, seed=seed, batch_size=16
    )


def test_the_loop_repeats_itself_and_measures_every_task_after_every_task():
    one, two, other = (
        learned(remedies.Remedy()),
        learned(remedies.Remedy()),
        learned(remedies.Remedy(), seed=1),
    )
    assert one.R == two.R and one.ends == two.ends and one.ends != other.ends
    assert len(one.R) == 3 and all(len(row) == 3 for row in one.R)
    assert all(last < first for first, last in one.ends)
    none = learned(remedies.Remedy(), steps=0)
    assert none.R[0] == none.R[2] and none.ends == [(0.0, 0.0)] * 3


@pytest.mark.parametrize("remedy", [remedies.Ewc(0.0), remedies.Lwf(0.0)], ids=["EWC", "LwF"])
def test_without_strength_a_penalty_is_sequential_tuning(remedy):
    assert learned(remedy).R == learned(remedies.Remedy()).R


def test_replay_mixes_old_rows_in_and_keeps_a_share():
    remedy, draws = remedies.Replay(0.25, 0.1), generator()
    X, Y = torch.zeros(16, 8), torch.full((16,), 4)
    assert remedy.mix(X, Y, draws)[0] is X
    net, parts = nn.Linear(8, 5), stream()
    assert remedy.end(net, *parts[0]) is net
    assert remedies.Replay(0.5, 0.001).end(net, *parts[0]) is net  # one row at least
    mixed, labels = remedy.mix(X, Y, draws)
    assert len(mixed) == 16 and (labels == 4).sum() == 12
    old = {tuple(row) for row in parts[0][0][:4].tolist()}
    assert all(tuple(row) in old for row in mixed[12:].tolist())
    found = learned(remedies.Replay(0.5, 1.0), steps=60)
    assert continual.backward_transfer(found.R) > continual.backward_transfer(
        learned(remedies.Remedy(), steps=60).R
    )


def test_ewc_adds_the_fishers_up_and_ties_to_the_last_values():
    remedy = remedies.Ewc(1.0)
    (x, y), (x2, y2) = stream(2)
    net = continual.Trunk(torch.randn(5, 8, generator=generator()), hidden=6)
    nn.init.normal_(net.W2.weight)
    assert remedy.penalty(net, x, net(x)) == 0.0
    remedy.end(net, x, y)
    first = {name: F.clone() for name, F in remedy.weights.items()}
    with torch.no_grad():
        net.W1.weight.add_(0.1)
    remedy.end(net, x2, y2)
    now = continual.fisher(net, x2)
    assert all(torch.allclose(remedy.weights[n], first[n] + now[n]) for n in now)
    assert torch.equal(remedy.old["W1.weight"], net.W1.weight.detach())
    assert remedy.old["W1.weight"].data_ptr() != net.W1.weight.data_ptr()
    uniform = remedies.Ewc(1.0, "uniform")
    uniform.end(net, x, y)
    assert all((w == 1).all() for w in uniform.weights.values())
    empirical = remedies.Ewc(1.0, "empirical")
    empirical.end(net, x, y)
    assert torch.allclose(empirical.weights["W1.bias"], continual.fisher(net, x, y)["W1.bias"])


def test_lwf_distils_on_the_labels_of_earlier_tasks_alone():
    remedy, (x, y) = remedies.Lwf(2.0), stream(1)[0]
    net = continual.Trunk(torch.randn(5, 8, generator=generator()), hidden=6)
    assert remedy.penalty(net, x, net(x)) == 0.0
    remedy.end(net, x, y)
    assert remedy.labels == [0, 1]
    z = net(x) + torch.randn(40, 5, generator=generator(3))
    want = 2 * continual.distillation(z[:, :2], net(x)[:, :2]).mean()
    assert torch.allclose(remedy.penalty(net, x, z), want)
    z[:, 2:] += 7  # what is said about new labels does not matter
    assert torch.allclose(remedy.penalty(net, x, z), want)


def test_new_loras_are_added_to_a_network_that_answers_as_before():
    net, (x, y) = continual.Trunk(torch.randn(5, 8, generator=generator()), hidden=6), stream(1)[0]
    remedy = remedies.NewLoras(1.0, rank=2)
    tuned = remedy.begin(net)
    assert set(tuners.trainable(tuned)) == {"W1.A", "W1.B", "W2.A", "W2.B"}
    assert remedy.overlap(tuned).item() == 0
    with torch.no_grad():
        tuned.W1.B.normal_()
        tuned.W2.B.normal_()
    before = tuned(x).detach()
    merged = remedy.end(tuned, x, y)
    assert torch.allclose(merged(x), before, atol=1e-5) and isinstance(merged.W1, nn.Linear)
    again = remedy.begin(merged)
    assert torch.allclose(again(x), before, atol=1e-5)  # B starts at 0
    assert not torch.equal(again.W1.A, remedy.before["W1"][0])  # another first value
    direct = sum(continual.subspace_overlap(getattr(again, w).A, remedy.before[w]) for w in ("W1", "W2"))
    assert torch.allclose(remedy.penalty(again, x, again(x)), direct)


def test_one_lora_is_injected_once():
    remedy = remedies.OneLora(rank=2)
    found = learned(remedy)
    assert found.net.tuner is not None and remedy.before == {}
    assert set(tuners.trainable(found.net)) == {"W1.A", "W1.B", "W2.A", "W2.B"}


def test_adapters_never_change_what_was_learned():
    remedy = remedies.AdapterPerTask(rank=2)
    found = learned(remedy, steps=40)
    assert isinstance(found.net, remedies.Routed) and len(found.net.nets) == 3
    copies = [copy.deepcopy(net.state_dict()) for net in remedy.nets[:2]]
    base = remedy.base.state_dict()
    for state in copies:
        assert torch.equal(state["W1.base.weight"], base["W1.weight"])
    x, fresh = stream()[0][0], learned(remedies.AdapterPerTask(rank=2), steps=40, tasks=1)
    assert torch.allclose(fresh.net.nets[0](x), remedy.nets[0](x))
    assert found.R[0][0] == pytest.approx(fresh.R[0][0])


if __name__ == "__main__":
    net, x, y = trunk()
    true, empirical = by_torch_func(net, x, y)
    for kind, labels, want in (("true", None, true), ("empirical", y, empirical)):
        found = continual.fisher(net, x, labels)
        print(kind, "Fisher", max((found[n] - want[n]).abs().max().item() for n in found))
