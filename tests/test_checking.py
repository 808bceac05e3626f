"""The checkers' common harness: what each forgot before is said once here, with the place and the input."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest
import torch

from instructlab_utils import checking


def said(function, *args, **kwargs) -> str:
    with pytest.raises(AssertionError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


# --- calls -------------------------------------------------------------------------------------------


def test_arguments_are_copies_and_a_change_in_place_is_said_by_name():
    def clear(rows, x):
        rows[0].append(1)
        return x

    rows = [[0]]
    call = checking.calls(clear)
    assert "changed its argument 'rows' in place" in said(call, rows, 1)
    assert rows == [[0]]
    assert checking.calls(clear, changes=("rows",))(rows, 2) == 2 and rows == [[0, 1]]


@pytest.mark.parametrize(
    "value", [torch.ones(2, 3), np.ones((2, 3)), {"a": torch.ones(2)}, [1.0, [2.0]], {1, 2}]
)
def test_every_kind_of_data_is_compared_after_the_call(value):
    def change(data):
        if isinstance(data, dict):
            data["a"] *= 2
        elif isinstance(data, set):
            data.add(3)
        else:
            data[0] = data[0] * 2
        return 1

    assert "'data' in place" in said(checking.calls(change), value)
    assert checking.calls(lambda data: 1)(value) == 1


def test_a_nan_in_an_argument_is_no_change():
    assert checking.calls(lambda x, y: 1)(torch.tensor([torch.nan, torch.inf]), [float("nan")]) == 1


def test_the_weights_of_a_module_are_compared():
    def zero(model):
        torch.nn.init.zeros_(model.weight)
        return 1

    assert "'model' in place" in said(checking.calls(zero), torch.nn.Linear(2, 3))


def test_a_forgotten_return_and_a_change_instead_of_it():
    assert "returned None. Did you forget return?" in said(checking.calls(lambda x: None), 1)
    assert "changed 'self' in place instead" in said(checking.calls(list.sort), [2, 1])
    assert checking.calls(lambda x: None, none=True)(1) is None


def test_an_exception_names_its_input_and_a_stub_stays_a_stub():
    assert said(checking.calls(lambda x: 1 / x), 0).endswith("division by zero. The input: x = 0.")
    assert "takes 1 positional argument" in said(checking.calls(lambda x: x), 1, 2)

    def stub(x):
        raise NotImplementedError("write your answer here")

    with pytest.raises(NotImplementedError):
        checking.calls(stub)(1)


def test_a_call_without_end_is_stopped_even_if_it_catches_everything():
    def stubborn(n):
        while True:
            try:
                time.sleep(0.05)
            except:  # noqa: E722
                n += 1
                if n > 1:
                    raise

    began = time.perf_counter()
    message = said(checking.calls(stubborn, limit=0.2, slow="All 19^60 sequences?"), 0)
    assert message == "stubborn was stopped after 0.2 s. All 19^60 sequences? The input: n = 0."
    assert time.perf_counter() - began < 5
    time.sleep(0.01)  # nothing is raised afterwards


def test_a_call_that_only_computes_is_stopped_by_processor_time():
    def endless(n):
        while True:
            n += 1

    assert said(checking.calls(endless, limit=0.3), 0).startswith(
        "endless was stopped after 0.3 s. Does it try"
    )


def test_a_call_keeps_the_mode_of_its_caller():
    with torch.no_grad():
        assert not checking.calls(lambda: torch.is_grad_enabled(), none=True)()


def test_gradients_that_are_switched_off_for_good_are_named_and_restored():
    assert "switched off for all that follows" in said(
        checking.calls(lambda: torch.set_grad_enabled(False) or 1)
    )
    assert torch.is_grad_enabled()


def test_refusals():
    def root(x):
        if x < 0:
            raise ValueError("negative")
        return x**0.5

    call = checking.calls(root)
    assert call.refuses(ValueError, -1, says="No root.") == "negative"
    assert said(call.refuses, ValueError, 4, says="No root.") == "No root. Raise ValueError; you return 2.0."
    assert "you raise TypeError" in said(call.refuses, ValueError, "4", says="No root.")
    assert "you raise nothing" in said(checking.calls(lambda x: None).refuses, ValueError, 4, says="No root.")


def test_an_exception_gets_its_own_meaning():
    with (
        pytest.raises(AssertionError, match="a core of one"),
        checking.means(ZeroDivisionError, "a core of one"),
    ):
        checking.calls(lambda x: 1 / x)(0)
    with pytest.raises(AssertionError, match="TypeError"), checking.means(ZeroDivisionError, "a core of one"):
        checking.calls(lambda x: 1 / x)("")


def test_agreement_over_cases_with_wrong_functions():
    call = checking.calls(lambda x: x.sum())
    cases = [(torch.ones(1),), (torch.ones(3),)]
    call.agrees(torch.sum, *cases)
    assert said(call.agrees, torch.mean, *cases, wrong={"A sum.": torch.sum}) == "A sum."
    message = said(call.agrees, torch.mean, *cases, says="The mean.")
    assert (
        message
        == "The mean. the result is 3, and should be 1. The input: x = [1.0, 1.0, 1.0] (torch.float32)."
    )


def in_place_in_the_graph(P, x):
    powers = P.exp()
    return (powers.add_(1) * x).sum()


@pytest.mark.parametrize(
    ("cut", "fault"),
    [
        (lambda P, x: torch.tensor((P * x).sum().item()), "cuts the graph"),
        (lambda P, x: (P.detach() * x).sum(), "cuts the graph"),
        (lambda P, x: (torch.nn.Parameter(P) * x).sum(), "cuts the graph"),
        (lambda P, x: (P * x).sum().item(), "cuts the graph"),
        (in_place_in_the_graph, "The gradient cannot be computed"),
        (lambda P, x: (P * x).sum() + P.detach().sum() - P.sum(), "the gradient with respect to P[0] is"),
    ],
)
def test_a_cut_graph_is_found(cut, fault):
    x = torch.tensor([2.0, 3.0])
    checking.calls(lambda P, x: (x * P).sum()).gradients(lambda P, x: (P * x).sum(), x, x, of=[0])
    message = said(checking.calls(cut).gradients, lambda P, x: (P * x).sum(), x, x, of=[0])
    assert fault in message


# --- comparisons ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (4**0.5, 2),
        (np.int64(3), 3),
        (Fraction(1, 2), 0.5),
        (torch.tensor(0.1), 0.1),
        (np.float32(0.1), 0.1),
        (True, 1),
        (np.bool_(True), True),
        ([1, 2], (1, 2)),
        (torch.ones(2), torch.ones(2, dtype=torch.float64)),
        (torch.full((2,), 1 / 3), torch.full((2,), 1 / 3, dtype=torch.float64)),
        (torch.tensor([torch.inf]), torch.tensor([torch.inf])),
        ({"a": np.float64(1.0)}, {"a": 1}),
        (np.array([1, 2]), np.array([1.0, 2.0])),
        (2**60, 2**60),
        ("a", "a"),
        (None, None),
    ],
)
def test_equal_results_of_any_kind_pass(got, want):
    checking.equal(got, want)


@pytest.mark.parametrize(
    ("got", "want", "message"),
    [
        (2.84052, 2.84051, "the result is 2.84052, and should be 2.84051."),
        (float(2**60), 2**60 + 1, "the result is 1.152921504606847e+18, and should be 1152921504606846977."),
        (1, True, "the result is 1, and should be True."),
        ("1", 1, "the result is '1', and should be 1."),
        (torch.nan, 1.0, "the result is nan, and should be 1."),
        ([1, 2], [1, 3], "the result[1] is 2, and should be 3."),
        ([1, 2], [1], "the result: 1 entries expected, not 2: [1, 2] instead of [1]."),
        ({"a": 1}, {"b": 1}, "the result: keys expected: b. You have a."),
        ((1,), {"b": 1}, "the result: a dict expected, not (1,)."),
        (
            torch.ones(2, 3),
            torch.ones(3, 2),
            "the result: shape (3, 2) expected, not (2, 3). Is it turned round?",
        ),
        (1.0, torch.tensor(1.0), "the result: Tensor expected, not float: 1.0."),
        (
            torch.tensor([[1.0, 2.0], [3.0, 5.0]]),
            torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
            "the result[1, 1] is 5, and should be 4; 1 of 4 entries differ.",
        ),
        (
            torch.tensor([1.00001], dtype=torch.float64),
            torch.tensor([1.0], dtype=torch.float64),
            "the result[0] is 1.00001, and should be 1.",
        ),
    ],
)
def test_a_difference_says_where_with_enough_digits(got, want, message):
    assert said(checking.equal, got, want) == message


def test_a_promised_dtype_is_demanded_and_said():
    got, want = torch.tensor([1, 0]), torch.tensor([1, 0])
    checking.equal({"mask": got}, {"mask": want}, "batch", dtype=torch.int64)
    message = said(checking.equal, {"mask": got.bool()}, {"mask": want}, "batch", dtype=torch.int64)
    assert message == "batch['mask']: dtype torch.int64 expected, not torch.bool."


def test_wrong_results_have_names_and_never_hide_a_right_one():
    wrong = {"A sum.": 6.0, "The same here.": 2.0}
    checking.equal(2.0, 2.0, wrong=wrong)
    assert said(checking.equal, 6.0, 2.0, wrong=wrong) == "A sum."
    assert said(checking.equal, 5.0, 2.0, wrong=wrong, says="The mean.") == (
        "The mean. the result is 5, and should be 2."
    )


def test_predictions_of_any_number_kind():
    got = checking.predicted(
        lambda: {"a": Fraction(1, 2), "b": torch.tensor(2.0), "w": "up"}, ("a", "b"), w=("up",)
    )
    assert got == {"a": 0.5, "b": 2.0, "w": "up"}
    assert "Keys expected: a" in said(checking.predicted, lambda: {}, ("a",))
    assert "a: a number expected, not 'x'" in said(checking.predicted, lambda: {"a": "x"}, ("a",))
    assert "w: one of 'up', not 'down'" in said(checking.predicted, lambda: {"w": "down"}, w=("up",))
    assert "Return a dict" in said(checking.predicted, lambda: [1], ("a",))


def test_the_clock_stops_who_waits_and_not_who_computes_on_a_busy_machine(monkeypatch):
    monkeypatch.setattr(checking, "PATIENCE", 0.1)  # 0.3 s on the clock for 3 s of processor time

    def computes():
        end = time.process_time() + 0.7
        while time.process_time() < end:
            pass
        return 1

    def waits():
        end = time.monotonic() + 5
        while time.monotonic() < end:
            time.sleep(0.05)
        return 1

    assert checking.calls(computes, limit=3)() == 1
    assert "was stopped after 3 s" in said(checking.calls(waits, limit=3))


# --- what the open projects share ----------------------------------------------------------------------


def test_a_number_may_lie_so_far_away_and_a_known_wrong_one_has_its_name():
    wrong = {"One standard error.": 0.30, "The same here.": 0.5001}
    for got in (0.5, 0.509, np.float64(0.491), torch.tensor(0.5)):
        checking.near(got, 0.5, "low", wrong, room=0.01)
    assert said(checking.near, 0.305, 0.5, "low", wrong, room=0.01) == "One standard error."
    assert said(checking.near, 0.52, 0.5, "low", wrong, room=0.01) == "low is 0.5200, and should be 0.5000."
    assert said(checking.near, 0.52, 0.5, "low", room=0.01) == "low is 0.5200, and should be 0.5000."
    assert said(checking.near, float("nan"), 0.5, "low", wrong, room=0.01).startswith("low is nan")
    assert said(checking.near, "0.5", 0.5, "low", room=0.01).startswith("low")


def test_a_project_hands_in_a_dict_with_just_these_keys():
    assert checking.handed_in(lambda: {"a": 1, "b": 2}, ("a", "b")) == {"a": 1, "b": 2}
    assert said(checking.handed_in, lambda: {"a": 1, "c": 2, 3: 4}, ("a", "b")) == (
        "Keys that are missing: b; too many: c, 3."
    )
    assert said(checking.handed_in, lambda: {"a": 1}, ("a", "b")) == (
        "Keys that are missing: b; too many: none."
    )
    assert said(checking.handed_in, lambda: [1], ("a",)) == "Return a dict, not [1]."
    assert "Did you forget return?" in said(checking.handed_in, lambda: None, ("a",))

    def endless():
        while True:
            pass

    assert "was stopped after 0.2 s" in said(checking.handed_in, endless, ("a",), limit=0.2)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.03, 0.05, "supported"),
        (-0.01, 0.01, "refuted"),
        (0.0, 0.05, "undecided"),
        (0.02, 0.03, "undecided"),
        (0.01, 0.02, "undecided"),
    ],
)
def test_the_verdict_of_a_project_is_the_one_of_its_interval(low, high, word):
    assert checking.verdict({"threshold": 0.02, "verdict": word}, low, high) == word
    for other in {"supported", "refuted", "undecided"} - {word}:
        assert said(checking.verdict, {"threshold": 0.02, "verdict": other}, low, high) == (
            f"verdict: the interval [{low:.3f}, {high:.3f}] against 0.02 says {word}."
        )
