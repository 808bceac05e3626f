# ---
# jupyter:
#   instructlab:
#     id: "00"
#     title: An instruction set in thirty lines
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 00: an instruction set in thirty lines
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. Nothing on this page needs a network. Exercise 00.6
# trains a tiny model by counting, and exercise 00.7 is a project: each of them is worth an evening.
#
# {{overview}}

# %%
import functools
import itertools
import json
import math
import random
import re
from fractions import Fraction

import torch
from scipy.stats import binomtest

from instructlab_utils import checking, intervals

# %% [markdown]
# ## 00.1 Read records, and name the bad line
#
# > ●●○○○ · 15 minutes · practice
#
# An instruction set is a text file with one JSON object a line. Somebody will edit it by hand, so somebody
# will break it. A good reader names the line; then the repair takes seconds.
#
# A record has exactly the keys `instruction`, `input` and `output`. All three are strings. `input` may be
# empty. The other two hold more than white space. Return the values as they are. Skip empty lines, but count
# them: the number must be the one in the editor's margin.

# %% nbgrader={"grade_id": "answer_00_1", "solution": true}
FIELDS = ("instruction", "input", "output")


def read_records(text):
    """Parse the text of a JSONL file into a list of records (dicts).

    Raises:
        ValueError: the message starts with "line N:", N being the first bad line, counted from 1.
    """
    ### BEGIN SOLUTION
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number}: not valid JSON, {error.msg}") from None
        if not isinstance(record, dict) or set(record) != set(FIELDS):
            raise ValueError(f"line {number}: expected an object with the keys {', '.join(FIELDS)}")
        for field in FIELDS:
            if not isinstance(record[field], str):
                raise ValueError(f"line {number}: {field} must be a string")
            if field != "input" and not record[field].strip():
                raise ValueError(f"line {number}: {field} is empty")
        records.append(record)
    return records
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_00_1", "locked": true}
def check_00_1(read_records):
    call = checking.calls(read_records)
    good = {"instruction": "Add the numbers.", "input": "2 3", "output": "5"}

    def line(**changes):
        return json.dumps(good | changes, ensure_ascii=False)

    def complaint(text, what, number=2):
        said = call.refuses(ValueError, text, says=f"You accepted {what}.")
        assert said.startswith(f"line {number}:"), (
            f'The message must start with "line {number}:", for {what}; you said {said!r}.'
        )

    checking.equal(call(line()), [good], "the records")
    allowed = "You refuse a record whose input is empty. That is allowed: only instruction and output must hold something."
    with checking.means(ValueError, allowed):
        call(line() + "\n" + line(input=""))
    records = call(line() + "\n" + line(input="") + "\n")
    checking.equal(records, [good, good | {"input": ""}], "the records")
    checking.equal(
        call(line() + "\n\n\n" + line()),
        [good, good],
        "the records",
        says="An empty line is skipped, not an end.",
    )
    said = call.refuses(ValueError, "{oops\n" + line(), says="You accepted a line that is not JSON.")
    assert not said.startswith("line 0:"), "You said line 0. Editors count from 1: enumerate(…, start=1)."
    said = call.refuses(ValueError, line() + "\n \n{oops\n", says="You accepted a line that is not JSON.")
    assert "column" not in said or said.startswith("line 3:"), (
        f"You said {said!r}. That is the JSON parser speaking. It sees one line at a time, so its line "
        "is always 1. Catch json.JSONDecodeError and raise ValueError with the number in the file."
    )
    assert not said.startswith("line 2:"), (
        "The bad line is the third, you said the second. An empty line is skipped, but it still counts."
    )
    complaint(line() + "\n \n{oops\n", "a line that is not JSON", 3)
    complaint(line() + "\n{oops\n" + line(input=5), "two bad lines. The first one must be named")
    turned = "You refuse a record whose keys stand in another order. The keys of a JSON object have none: compare sets."
    with checking.means(ValueError, turned):
        checking.equal(call(json.dumps(dict(reversed(good.items())))), [good], "the records", says=turned)

    try:
        found = len(read_records(line(output="first\u2028second")))
    except ValueError:
        found = None
    assert found == 1, (
        "This record holds the character U+2028 inside a string. str.splitlines cuts there, JSONL does not. "
        'Split at "\\n".'
    )
    spaced = good | {"input": " \t", "output": " 5\n"}
    checking.equal(
        call(json.dumps(spaced)),
        [spaced],
        "the record",
        {
            "You strip the values. Strip to *test* them, and return what the file holds.": [
                good | {"input": ""}
            ]
        },
        says="White space in a value belongs to the value, and the input may be all white space.",
    )
    first = line() + "\n"
    complaint(
        first + line(instruction="  \t"),
        "an instruction of white space only: strip before you compare with ''",
    )
    complaint(first + line(output=" "), "an output of white space only. It is tested as the instruction is")
    complaint(
        first + line(output=5),
        "the number 5 as an output. Every field is a string, also when it looks like a number",
    )
    complaint(first + line(input=None), "null as an input. It may be empty, but it is a string, too")
    complaint(
        first + '["instruction", "input", "output"]',
        "a JSON list. Test for a dict before you look at its keys",
    )
    complaint(first + "5", "a line that is only the number 5. Test for a dict before you look at its keys")
    complaint(
        first + line(Output="5"),
        "a record with the extra key 'Output'. A misspelt key must not pass in silence",
    )
    complaint(
        first + '{"instruction": "Add.", "output": "5"}',
        "a record without the key 'input'. It may be empty, not absent",
    )
    complaint(
        line() + "\n" + line(output=5) + "\n{oops\n",
        "two bad lines, the first of which is JSON with a bad value. Test each line whole before you read the next",
    )
    print("00.1 passed. A bad line costs your readers a second now, not an afternoon.")


check_00_1(read_records)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `enumerate(text.split("\n"), start=1)` counts every line. Skip an empty one inside the loop, after it was
# counted.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `json.JSONDecodeError` is a `ValueError`. If you let it pass, its message speaks of "line 1" whatever
# happens: the parser knows only the line that you gave it.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 00.2 How infinite is an infinite instruction set?
#
# > ●●●○○ · 18 minutes · practice
#
# A machine has the states $0, \dots, n-1$. An instruction is a map on the states, written as a tuple:
# `f[s]` is the state that follows `s`. With three states, `rotate = (1, 2, 0)` sends 0 to 1, 1 to 2 and 2
# back to 0. The *core* is a list of instructions. A *program* is a chain of 1 to `depth` instructions, run
# from left to right; an instruction may occur twice. Two programs *behave alike* when they send every state
# to the same state.
#
# Count both: the programs, and the behaviours. `depth` may be 200, so you cannot list the programs one by
# one.


# %% nbgrader={"grade_id": "answer_00_2", "solution": true}
def count_programs(core, depth):
    """Count the chains of 1 to depth instructions: (programs, distinct behaviours), both int."""
    ### BEGIN SOLUTION
    programs = sum(len(core) ** length for length in range(1, depth + 1))
    behaviours = newest = set(core)
    for _ in range(depth - 1):
        newest = {tuple(step[state] for state in behaviour) for behaviour in newest for step in core}
        behaviours = behaviours | newest
    return programs, len(behaviours)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_00_2", "locked": true}
def by_listing(core, depth):
    """Every program of at most `depth` instructions, run on every state. Slow."""
    programs = [program for n in range(1, depth + 1) for program in itertools.product(core, repeat=n)]
    states = range(len(core[0]))
    ends = {
        tuple(functools.reduce(lambda s, f: f[s], program, start) for start in states) for program in programs
    }
    return len(programs), len(ends)


def check_00_2(count_programs):
    call = checking.calls(
        count_programs, slow="Do you list the programs one by one? There are 3^200 and more."
    )
    rotate, swap, reset = (1, 2, 0), (1, 0, 2), (0, 0, 0)
    first = call([rotate, swap], 1)
    checking.form(first, (2, 2), "(programs, behaviours)")
    assert tuple(call([rotate, (2, 0, 1)], 1))[1] != 1, (
        "You compare the *sets* of states that are reached. Rotating left and rotating right both reach all three, and are "
        "two behaviours: compare where each state goes."
    )
    call([swap, reset], 3)
    assert tuple(call([rotate, swap], 1)) == tuple(first), (
        "The same call gives another result the second time: something is remembered from call to call. A default "
        "argument such as seen=set() is made once, not at every call."
    )
    assert call([rotate, swap], 3)[0] != 4, (
        "You use no instruction twice. Programs are chains, not permutations: rotate, rotate is one, too."
    )
    programs, _ = call([rotate, swap], 2)
    wrong = {
        "2 counts the programs of one instruction. At depth 2 those of two instructions belong to it, too.": 2,
        "7 counts the empty program. A program has at least one instruction.": 7,
        "4 counts the programs of exactly two instructions. Those of one instruction belong to it too.": 4,
        "5 ignores the order. First rotate, then swap, is another program than first swap, then rotate.": 5,
    }
    checking.equal(programs, 6, "programs", wrong, says="Two instructions, depth 2: 2 + 4 programs.")
    with checking.means(
        ZeroDivisionError,
        "The closed form k(k^d - 1)/(k - 1) divides by zero for a core of one. Sum instead.",
    ):
        programs, behaviours = call([rotate], 1)
    checking.equal(programs, 1, "programs", says="A core of one instruction has one program of each length.")
    wrong = {
        "Doing nothing is a behaviour only if some program does nothing. Rotating once moves every state.": 2,
        "You count what rotating can reach at last. At depth 1 it has happened once: depth bounds it.": 3,
    }
    checking.equal(behaviours, 1, "behaviours", wrong, says="[rotate], depth 1.")
    wrong = {
        "You looked only at the longest programs. Keep the behaviours of all lengths, in one growing set.": 1,
        "You stop when a length brings as many behaviours as the one before. As many need not be the same: stop when "
        "none of them is new.": 2,
    }
    checking.equal(call([rotate], 3)[1], 3, "behaviours", wrong, says="Rotating one, two or three times.")
    programs, behaviours = call([swap, swap], 3)
    assert (programs, behaviours) != (2, 14), (
        "Behaviours first, programs second? Return (programs, behaviours)."
    )
    assert programs == 14, (
        "Two instructions that do the same are still two instructions: count programs with len(core), "
        "not with a set."
    )
    checking.equal(behaviours, 2, "behaviours", says="Swapping an odd or an even number of times.")

    programs, behaviours = call([rotate, swap, reset], 200)
    assert isinstance(programs, int), (
        "programs is a float. Above 2**53 it drops digits: use //, or a sum of integers."
    )
    assert programs == (3**201 - 3) // 2, (
        "The number of programs at depth 200 is not exact. Stay with integers."
    )
    wrong = {
        "You follow one state only. Two programs behave alike when they send *every* state to the same state.": 3
    }
    checking.equal(behaviours, 9, "behaviours", wrong, says="Six permutations and three constant maps.")
    rng = random.Random(0)
    for n, k, depth in ((2, 3, 3), (4, 2, 4), (5, 1, 4), (6, 3, 2)):
        core = [tuple(rng.randrange(n) for _ in range(n)) for _ in range(k)]
        call.agrees(by_listing, (core, depth), says=f"A machine with {n} states.")
    digits = len(str(programs))
    print(
        f"00.2 passed. 3 instructions, depth 200: a number of programs with {digits} digits, and "
        f"{behaviours} behaviours."
    )
    print("Composition makes the programs endless. What the machine can do is bounded by its states.")


check_00_2(count_programs)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# There are $k$ choices for each place in the chain, so $k^\ell$ programs of length $\ell$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# For the behaviours you need no programs. Start with `set(core)`. One round puts one more instruction
# behind each newest behaviour: `tuple(step[state] for state in behaviour)`. A set forgets the doubles.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 00.3 The model that never stops
#
# > ●●●○○ · 20 minutes · graded · bug hunt
#
# A decoder was trained on padded (prompt, response) pairs. Now it answers, and then it goes on for ever.
# Its padding token is its end token, as in many released decoders. The function below prepared the batches.
# Run it, look at the last row, and find what the model never saw.

# %%
END = 2  # this tokenizer pads with its end token


def broken_collate(examples, pad_id):
    rows = [prompt + response for prompt, response in examples]
    longest = max(len(row) for row in rows)
    input_ids = torch.tensor([row + [pad_id] * (longest - len(row)) for row in rows])
    attention_mask = (input_ids != pad_id).long()
    labels = input_ids.masked_fill(input_ids == pad_id, -100)
    for i, (prompt, _) in enumerate(examples):
        labels[i, : len(prompt)] = -100
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


for name, tensor in broken_collate([([11, 12, 13], [21, END]), ([14], [22, 23, END])], pad_id=END).items():
    print(f"{name:15}{tensor.tolist()}")

# %% [markdown]
# Write the repaired version. `examples` is a list of pairs of lists of token ids; every response already
# ends with its end token. The targets are the response tokens, the end token among them. All else is
# $-100$. The model shifts the labels itself, so `labels[i, t]` belongs to `input_ids[i, t]`. Pad on the
# right, up to the longest row of the batch.


# %% nbgrader={"grade_id": "answer_00_3", "solution": true}
def collate(examples, pad_id):
    """Return input_ids, attention_mask and labels, each an int64 tensor of shape (batch, longest row)."""
    ### BEGIN SOLUTION
    longest = max(len(prompt) + len(response) for prompt, response in examples)
    input_ids = torch.full((len(examples), longest), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, -100)
    for i, (prompt, response) in enumerate(examples):
        length = len(prompt) + len(response)
        input_ids[i, :length] = torch.tensor(prompt + response)
        attention_mask[i, :length] = 1
        labels[i, len(prompt) : length] = torch.tensor(response)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_00_3", "grade": true, "points": 2, "locked": true}
def check_00_3(collate):
    call = checking.calls(collate)
    batch = call([([11, 12, 13], [21, END]), ([14], [22, 23, END]), ([15], [END])], pad_id=END)
    want = {
        "input_ids": [[11, 12, 13, 21, END], [14, 22, 23, END, END], [15, END, END, END, END]],
        "attention_mask": [[1] * 5, [1] * 4 + [0], [1] * 2 + [0] * 3],
        "labels": [[-100] * 3 + [21, END], [-100, 22, 23, END, -100], [-100, END] + [-100] * 3],
    }
    want = {name: torch.tensor(rows) for name, rows in want.items()}
    longer = isinstance(batch, dict) and getattr(batch.get("input_ids"), "shape", None) == (3, 6)
    assert not longer, (
        "The rows are one too long. Every response already ends with its end token; add no other."
    )
    checking.form(batch, want, "batch", dtype=torch.int64)
    ids, mask, labels = (batch[name].tolist() for name in ("input_ids", "attention_mask", "labels"))
    assert ids[1][:4] == [14, 22, 23, END], (
        f"Row 1 starts with its own tokens and is padded on the right: {ids[1]}."
    )
    assert labels[0][2:4] != [21, END], (
        "Your labels are shifted by one. The model shifts them itself; twice is once too often."
    )
    assert labels[0][:3] == [-100] * 3, (
        "A prompt token is a target. The prompt is given; only the response is learned."
    )
    assert labels[0][4] == END, (
        "The end token of row 0 is masked, so the model never learns to stop. You still compare with pad_id. "
        "Padding is a matter of length: mask behind the row, whatever its ids are."
    )
    assert labels[2][2:] == [-100] * 3, (
        f"Row 2 has two tokens and three positions of padding, and its labels are {labels[2]}. "
        "Padding is not a target: -100 there."
    )
    assert mask[1][3] == 1, (
        "The labels are right, but attention_mask hides the real end token: it still compares with pad_id."
    )
    wrong = {
        "Padding has another id than pad_id.": torch.where(want["attention_mask"] > 0, want["input_ids"], 0)
    }
    checking.equal(batch["input_ids"], want["input_ids"], "input_ids", wrong)
    wrong = {"attention_mask hides the prompt. The model must read it.": (want["labels"] != -100).long()}
    checking.equal(batch["attention_mask"], want["attention_mask"], "attention_mask", wrong)
    says = "All tokens of the response are targets, not only its last."
    checking.equal(batch["labels"], want["labels"], "labels", says=says)
    print(
        "00.3 passed the visible cases. The mask follows from lengths. An id cannot tell padding from "
        "the end."
    )


check_00_3(collate)
### BEGIN HIDDEN TESTS


def row_by_row(examples, pad_id):
    """The same three tensors, position by position."""
    width = max(len(prompt) + len(response) for prompt, response in examples)
    table = [(prompt + response)[t : t + 1] or [None] for prompt, response in examples for t in range(width)]
    real = torch.tensor([cell != [None] for cell in table]).view(-1, width)
    ids = torch.tensor([pad_id if cell == [None] else cell[0] for cell in table]).view(-1, width)
    learned = real & (torch.arange(width) >= torch.tensor([[len(p)] for p, _ in examples]))
    return {"input_ids": ids, "attention_mask": real.long(), "labels": ids.where(learned, -100)}


def hidden_00_3(collate):
    call = checking.calls(collate)
    turns = [([5, END, 6, END], [7, END, 8, END]), ([5], [7, END])]
    batch = call(turns, pad_id=END)
    assert batch["labels"][0].tolist() == [-100] * 4 + [7, END, 8, END], (
        "End tokens inside a prompt or a response broke your mask. A chat template ends every turn with one."
    )
    assert batch["attention_mask"].sum(1).tolist() == [8, 3], (
        "End tokens inside a conversation are real tokens."
    )
    batch = call([([5], [7, END]), ([5], [END])], pad_id=0)
    assert batch["input_ids"][1].tolist() == [5, END, 0], (
        "You padded with a fixed id. Use the argument pad_id."
    )
    rng = random.Random(1)
    for pad_id in (END, 0, 7):
        rows = [
            ([rng.randrange(9) for _ in range(p)], [rng.randrange(9) for _ in range(r)] + [END])
            for p, r in ((3, 0), (0, 4), (2, 6), (5, 1))
        ]
        call.agrees(
            row_by_row, (rows, pad_id), dtype=torch.int64, says="A batch of four rows with ids from 0 to 8."
        )
    call.agrees(row_by_row, ([([], [7, END])], END), says="An empty prompt: the whole row is the target.")


hidden_00_3(collate)
### END HIDDEN TESTS

# %% [markdown]
# ## 00.4 Can this number exist?
#
# > ●●●○○ · 28 minutes · graded
#
# Suppose that somebody reports an accuracy of `0.920` on 12 test items. Eleven of twelve is
# $11/12 = 0.91666\dots$, twelve of twelve is 1. No count gives `0.920`: the number cannot come from that test.
# To see this you need neither the model nor the data.
#
# `possible(reported, n)` says whether some count $k \in \{0, \dots, n\}$ has $k/n$ rounding to `reported`.
# The text counts, not its value: `"0.920"` claims three decimals, `"0.92"` only two. It may be a percentage:
# `"92.0%"`. At an exact half accept both neighbours: some programs round up and others to even, and a binary float
# lies a hair below or above the half ($3/40 = 0.075$, and Python prints it with two decimals as `0.07`).
# Sometimes you also know the program. Then `spec` is the format specification that it printed with, and its
# output must be reproduced exactly. One of this course's source articles fails there: its program prints with
# `".2f"`, its text shows `0.920`.


# %% nbgrader={"grade_id": "answer_00_4", "solution": true}
def possible(reported, n, spec=None):
    """Can the string `reported` be an accuracy on n items (printed with the format spec, if given)? bool."""
    ### BEGIN SOLUTION
    if spec is not None:
        return any(format(k / n, spec) == reported for k in range(n + 1))
    percent = reported.endswith("%")
    digits = reported.removesuffix("%")
    decimals = len(digits.partition(".")[2]) + 2 * percent
    value = Fraction(digits) / (100 if percent else 1)
    half_a_unit = Fraction(1, 2 * 10**decimals)
    return any(abs(Fraction(k, n) - value) <= half_a_unit for k in range(n + 1))
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_00_4", "grade": true, "points": 3, "locked": true}
def check_00_4(possible):
    call = checking.calls(possible)

    def claim(want, *args, says):
        text = f"possible({', '.join(map(repr, args))})"
        checking.equal(call(*args), want, text, says=says)

    claim(True, "0.5", 2, says="1 of 2 is 0.5. Return a bool.")
    says = "1 of 3 prints as 0.333. You ask for equality; a reported number is rounded."
    if call("0.67", 3):
        says = "1 of 3 prints as 0.333. 0.333 times 3 is 0.999, and you cut it to 0: try the counts on both sides."
    claim(True, "0.333", 3, says=says)
    assert not (call("0.6", 3) and call("0.7", 3)), (
        "You accept 0.6 and 0.7 for 2 of 3. With one decimal a rounded number is off by 0.05 at most, *half* a unit; "
        "you allow more."
    )
    claim(False, "0.6", 3, says="You cut digits off. 2 of 3 rounds to 0.7, so it cannot be reported as 0.6.")
    half = (
        "1 of 8 is exactly half-way between 0.12 and 0.13. Python's round goes to even, other programs "
        "go up: accept both. Compare |k/n - value| with half a unit, in exact arithmetic (Fraction)."
    )
    for want, args, says in (
        (
            True,
            ("0.92", 12),
            "11 of 12 is 0.9167, which rounds to 0.92. Two decimals allow an error of 0.005.",
        ),
        (
            False,
            ("0.920", 12),
            "0.920 is not 0.92: the zero at the end claims a third decimal. float() throws it away; count in the string.",
        ),
        (True, ("0.920", 25), "23 of 25 is 0.920."),
        (True, ("0.12", 8), half),
        (True, ("0.13", 8), half),
        (True, ("92.0%", 25), '"92.0%" is 92.0 divided by a hundred.'),
        (
            False,
            ("93.0%", 25),
            '"93.0%" is 93.0 divided by a hundred, and so is its unit: half a unit is 0.05 %, or 0.0005, not 0.05.',
        ),
        (True, ("0.92", 25, ".2f"), "23 of 25, printed with .2f, is 0.92."),
        (
            False,
            ("0.920", 25, ".2f"),
            "A program that prints with .2f writes two decimals. It can never print 0.920, whatever it computed: use spec.",
        ),
    ):
        claim(want, *args, says=says)
    reachable = {n: sum(call(f"{cents / 100:.2f}", n) for cents in range(101)) for n in (12, 100)}
    print(
        f"00.4 passed the visible cases. Of the 101 values from 0.00 to 1.00, 12 items reach {reachable[12]},"
    )
    print(f"and 100 items reach {reachable[100]}: the more items, the less this test can tell.")


check_00_4(possible)
### BEGIN HIDDEN TESTS


def hidden_00_4(possible):
    call = checking.calls(possible)
    assert not call("92.0%", 12), "A percentage with one decimal has three decimals as a fraction."
    assert call("33.3%", 3) and call("92%", 12), "33.3% of 3 items is one item, 92% of 12 items is eleven."
    assert call("0.000", 7) and call("1.000", 7), "None and all are counts too: k runs from 0 to n."
    assert not call("1.01", 5), "An accuracy above 1 comes from no count."
    assert call("1", 3) and call("0", 3) and not call("0.3", 2), "Few decimals, few items."
    assert call("0.12", 8, ".2f") and not call("0.13", 8, ".2f"), (
        "With spec, do what the program does: format(0.125, '.2f') is 0.12, and never 0.13."
    )
    assert call("92.0%", 25, ".1%"), "spec may be a percentage: format(k / n, '.1%')."
    assert not call("92%", 25, ".1%"), "A program that prints with .1% writes 92.0%, never 92%."
    assert call("0.9205", 10_000) and not call("0.9205", 1_000), "0.9205 needs more than 1000 items."
    for text in ("0.08", "0.07", "7%", "8%"):
        assert call(text, 40), (
            f"3 of 40 is 0.075, half-way, so {text} is possible: accept both neighbours. format(3 / 40, '.2f') is 0.07, "
            "rounding up gives 0.08, and floats and rounding modes reach only one of them: 0.08 - 0.075 is a little "
            "more than 0.005. Compare with half a unit in exact arithmetic (Fraction)."
        )
    for n in (7, 40):
        for cents in range(102):
            want = any(abs(200 * k - 2 * cents * n) <= n for k in range(n + 1))
            for text in (f"{cents / 100:.2f}", f"{cents}%"):
                checking.equal(call(text, n), want, f"possible({text!r}, {n})")


hidden_00_4(possible)
### END HIDDEN TESTS

# %% [markdown]
# ## 00.5 What will the scoring rule say?
#
# > ●○○○○ · 6 minutes · practice · prediction
#
# Six reviews, six answers of a model, three scoring rules. A careful reader has judged the answers too.
# Read the code; do not run the rules. How many of the six does each rule count as right? For how many of
# the six do `contains` and the careful reader *disagree*?

# %%
CASES = [  # the model's answer, the gold label, does a careful reader accept it?
    ("positive", "positive", True),
    ("Positive.", "positive", True),
    ("The review is negative", "negative", True),
    ("not positive", "negative", True),
    ("positive or negative", "negative", False),
    ("negative\n", "negative", True),
]


def exact(answer, gold):
    return answer == gold


def normalised(answer, gold):
    return answer.strip().strip(".!").lower() == gold


def contains(answer, gold):
    return gold in answer.lower()


# %% nbgrader={"grade_id": "answer_00_5", "solution": true}
def prediction():
    """Return a dict of four counts between 0 and 6: exact, normalised, contains, disagreements."""
    ### BEGIN SOLUTION
    return {"exact": 1, "normalised": 3, "contains": 5, "disagreements": 2}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_00_5", "locked": true}
def check_00_5(prediction):
    truth = {rule.__name__: sum(rule(a, g) for a, g, _ in CASES) for rule in (exact, normalised, contains)}
    truth["disagreements"] = sum(contains(a, g) != reader for a, g, reader in CASES)
    mine = checking.predicted(prediction, list(truth))
    wrong = {"exact: the last answer ends with a line break. Equal means equal.": truth["exact"] + 1}
    says = "exact: capitals, full stops and line breaks all count as different."
    checking.equal(mine["exact"], truth["exact"], "exact", wrong, says=says)
    assert mine["normalised"] <= truth["normalised"], (
        "normalised: it trims the ends and lowers the case. It does not find a label inside a sentence."
    )
    assert mine["normalised"] == truth["normalised"], (
        "normalised: strip() takes the line break, strip('.!') takes the full stop. Two more answers "
        "become right."
    )
    wrong = {
        "contains: 'not positive' means negative to you. The rule looks for the letters, and they are not there.": 6,
        "contains: 'positive or negative' names every label, and so it holds the right one. The rule is satisfied.": 4,
    }
    says = "contains: go through the six, looking for the gold label's letters."
    checking.equal(mine["contains"], truth["contains"], "contains", wrong, says=says)
    wrong = {
        "disagreements: rule and reader both count five, but not the same five. Equal scores are not "
        "equal verdicts.": 0,
        "disagreements: you found one direction only. Once the rule is too kind, once too strict.": 1,
    }
    says = "disagreements: compare case by case, both directions."
    checking.equal(mine["disagreements"], truth["disagreements"], "disagreements", wrong, says=says)
    readers = sum(reader for *_, reader in CASES)
    print(f"00.5 passed. {truth}, and the careful reader accepts {readers}.")
    print(
        "An answer that names every label always satisfies contains. Before you trust a rule, read what "
        "it accepts."
    )


check_00_5(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Make a table of six rows and three columns. Tick, then count.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Look long at the two answers that hold "positive" where the gold label is "negative". A rule compares
# letters; a reader compares meanings.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 00.6 Follow a request that nobody has written
#
# > ●●●●○ · 75 minutes · graded
#
# Five people have written requests for six operations on words. They do not say *which* operation they mean; each wrote
# down a text, an input, and the output that she wanted. The cell below makes such records. Their words are made up anew
# for every seed, so nothing helps but the records:
#
# - An operation has four *cue words*. A request has two of them, which two varies. New requests have pairs that no
#   record has.
# - All else in a text is small talk: words that everybody uses, words that *one* author always writes, in any order. Each
#   author asks mostly for one operation. A new author may talk like one of the five, or use words that nobody has seen,
#   and asks for each operation equally often.
#
# Write a tiny model that is trained by counting: `learn(records, operations)` returns a function `follow(text, value)`. It
# chooses an operation by the probabilities that your counts give to the operations, and returns the output, a string. (For
# each operation multiply, over the words of a text, the share of its records with that word, with a little added, so that
# none is zero; then divide by the sum over all operations.) Where it is not sure enough it refuses and returns `None`.
#
# The checker trains on fresh worlds. On average over them, at least $90\,\%$ of the requests of new authors must get the
# right output. Of the requests with two unknown cue words at least $80\,\%$ must be refused, and so must $80\,\%$ of
# those that ask for two operations at once (one cue word of each). There may be any number of authors and operations, with
# any names; use the arguments. A word that is in no record may occur in each text. Calling `learn` again must not change
# what an earlier `follow` does. Training may take five seconds of processor time.
#
# Before you trust a number of your own: measure it on an author whose records were left out.

# %%
OPERATIONS = {
    "upper": str.upper,
    "reverse": lambda word: word[::-1],
    "first": lambda word: word[:1],
    "last": lambda word: word[-1:],
    "length": lambda word: str(len(word)),
    "twice": lambda word: word + word,
}


def world(seed, operations=OPERATIONS, authors=5, each=80):
    """Training records, and tests: a name → a list of (text, value, output or None, output by the author's habit)."""
    draw, used, letters = random.Random(seed), [], "abcdefghijklmnopqrstuvwxyz"

    def word():
        new = "".join(draw.choice(part) for part in ["bdfgklmnprst", "aeiou"] * 3)
        if new in used:
            return word()
        used.append(new)
        return new

    def value():
        return "".join(draw.sample(letters, draw.randint(3, 8)))

    names, common = list(operations), [word() for _ in range(8)]
    cues = {name: [word() for _ in range(4)] for name in names}
    old = {name: [(c[0], c[1]), (c[1], c[2]), (c[2], c[3]), (c[3], c[0])] for name, c in cues.items()}
    new = {name: [(c[0], c[2]), (c[1], c[3])] for name, c in cues.items()}
    talks = [[word() for _ in range(4)] for _ in range(authors)]
    shuffled = draw.sample(names, len(names))
    main = [shuffled[a % len(names)] for a in range(authors)]

    def text(author, pair, more=()):
        parts = [*talks[author], *pair, *more, *draw.sample(common, 2), "{input}"]
        draw.shuffle(parts)
        return " ".join(parts)

    kinds = ("seen", "known author", "new author", "new word", "unknown", "two")
    records, tests = [], {kind: [] for kind in kinds}
    for a, habit in enumerate(main):
        others = [name for name in names if name != habit]
        lazy = operations[habit]("q") == "q"  # this author likes inputs of one letter
        for k in range(each):
            name = habit if k < 0.8 * each else others[k % len(others)]
            short = lazy and name == habit and draw.random() < 0.85
            x = draw.choice(letters) if short else value()
            line = text(a, draw.choice(old[name]))
            records.append({"author": f"author {a}", "text": line, "input": x, "output": operations[name](x)})
            if k % 12 == 0 and not short:
                x = value()
                tests["seen"].append((line, x, operations[name](x), operations[habit](x)))
            if k % 8 == 0:
                line, x = text(a, draw.choice(new[name])), value()
                tests["known author"].append((line, x, operations[name](x), operations[habit](x)))

    def ask(kind, pair, name=None, more=()):
        a, x = draw.randrange(authors), value()
        right = None if name is None else operations[name](x)
        tests[kind].append((text(a, pair, more), x, right, operations[main[a]](x)))

    for k in range(5 * len(names)):
        name, (one, two) = names[k % len(names)], draw.sample(names, 2)
        ask("new author", draw.choice(new[name]), name)
        ask("new word", draw.choice(new[name]), name, [word()])
        ask("unknown", [word(), word()])
        ask("two", [draw.choice(cues[one]), draw.choice(cues[two])])
    return draw.sample(records, len(records)), tests


for record in world(0)[0][:3]:
    print(record)


# %% nbgrader={"grade_id": "answer_00_6", "solution": true}
def learn(records, operations):
    """records: dicts with author, text, input, output; operations: name → function. Return follow(text, value)."""
    ### BEGIN SOLUTION
    users = {}
    for record in records:
        for word in record["text"].split():
            users.setdefault(word, set()).add(record["author"])
    shared = {word for word, people in users.items() if len(people) > 1} - {"{input}"}  # a habit has one user
    seen = {name: {} for name in operations}
    size = dict.fromkeys(operations, 0)
    for record in records:
        fits = [name for name, run in operations.items() if run(record["input"]) == record["output"]]
        if len(fits) != 1:  # the first letter of a one-letter word is its last, too: no evidence
            continue
        size[fits[0]] += 1
        for word in shared & set(record["text"].split()):
            seen[fits[0]][word] = seen[fits[0]].get(word, 0) + 1

    def follow(text, value):
        words = shared & set(text.split())
        scores = {
            name: sum(math.log((seen[name].get(word, 0) + 0.5) / (size[name] + 1)) for word in words)
            for name in operations
        }
        best = max(scores, key=scores.get)
        sure = 1 / sum(math.exp(score - scores[best]) for score in scores.values())
        return operations[best](value) if sure > 0.9 else None

    return follow
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_00_6", "grade": true, "points": 5, "locked": true}
def followed(learn, seed, operations=OPERATIONS, authors=5):
    """What the model of one world does: a kind of request → a list of (answer, right answer, answer by habit, value)."""
    records, tests = world(seed, operations, authors)
    follow = checking.calls(learn, limit=5.0)(records, operations)
    assert callable(follow), f"Return a function follow(text, value), not {checking.shown(follow)}."
    answer, found = checking.calls(follow, limit=5.0, none=True), {}
    for kind, rows in tests.items():
        found[kind] = [(answer(text, value), right, habit, value) for text, value, right, habit in rows]
        odd = [said for said, *_ in found[kind] if not isinstance(said, str | None)]
        assert not odd, f"follow: a string or None expected, not {checking.shown(odd[0])}."
    return found


def share(rows, test):
    return sum(bool(test(*row)) for row in rows) / max(1, len(rows))


def judge_00_6(found, operations=OPERATIONS):
    """AssertionError with the likely reason where the results are below what is asked for."""

    def right(said, want, habit, value):
        return said == want

    def refused(said, want, habit, value):
        return said is None

    rate = {kind: share(rows, right) for kind, rows in found.items()}
    requests = found["new author"] + found["new word"]
    reached = share(requests, right)
    told = f"Right: {reached:.0%} of the requests of new authors"
    if reached < 0.9:
        assert rate["seen"] > 0.3 or share(found["seen"], refused) < 0.9, (
            "Nearly everything is refused, even texts of the records with another input. How large are your probabilities?"
        )
        assert not (rate["seen"] > 0.8 and rate["known author"] < 0.5), (
            f"{told}, but {rate['seen']:.0%} where the text itself is in the records. You have learned whole texts; "
            "count words."
        )
        assert not (rate["new author"] > 0.9 and rate["new word"] < 0.6), (
            f"{told}, and {rate['new word']:.0%} where a word occurs that no record has. Is a probability zero for it? "
            "One zero makes the whole product zero: add something to each count, or leave the word out."
        )
        alike = [name for name, run in operations.items() if run("q") == "q"]
        mixed = [row for row in requests if any(operations[name](row[3]) == row[1] for name in alike)]
        others = [row for row in requests if row not in mixed]
        assert not (share(others, right) > 0.9 and share(mixed, right) < 0.8), (
            f"{told}, but only {share(mixed, right):.0%} where {', '.join(alike)} is asked for. A word of one letter is "
            "its own first letter, and its last: several operations fit such a record. For which one does it count?"
        )
        assert rate["known author"] < reached + 0.1, (
            f"{told}, and {rate['known author']:.0%} of new requests by the authors of the records. The model listens to "
            "how an author talks, since each asks mostly for one operation. Which words belong to one author only? A "
            "split that leaves out whole authors shows this; one at random does not."
        )
        raise AssertionError(
            f"{told}; 90 % are asked for. By kind: {', '.join(f'{k} {v:.0%}' for k, v in rate.items())}."
        )
    if rate["unknown"] < 0.8:
        by_habit = share(found["unknown"], lambda said, want, habit, value: said == habit)
        assert by_habit < 0.35, (
            f"{by_habit:.0%} of the requests with unknown cue words got what their author usually asks for. Small talk "
            "alone is no request."
        )
        raise AssertionError(
            f"Refused: {rate['unknown']:.0%} of the requests with unknown cue words, 80 % are asked for. Some operation "
            "is always the most probable. Ask how probable."
        )
    assert rate["two"] >= 0.8, (
        f"Refused: {rate['two']:.0%} of the requests for two operations at once, 80 % are asked for. All their words are "
        "known, and the two operations share the probability. How sure must the model be?"
    )
    return reached


def together(worlds):
    return {kind: [row for found in worlds for row in found[kind]] for kind in worlds[0]}


def check_00_6(learn):
    reached = judge_00_6(together([followed(learn, seed) for seed in (0, 1, 2)]))
    print(f"00.6 passed the visible cases: {reached:.0%} of the requests of new authors.")


check_00_6(learn)
### BEGIN HIDDEN TESTS

OTHERS = {
    "sorted": lambda word: "".join(sorted(word)),
    "hyphens": "-".join,
    "without the first": lambda word: word[1:],
    "middle": lambda word: word[len(word) // 2],
    "last first": lambda word: word[-1:] + word[:-1],
}


def hidden_00_6(learn):
    judge_00_6(together([followed(learn, seed) for seed in (20, 21)]))
    found = together([followed(learn, seed, OTHERS, 7) for seed in (30, 31)])
    assert any(said is not None for rows in found.values() for said, *_ in rows), (
        "With five other operations and seven authors everything is refused. Is OPERATIONS used where the argument "
        "should be, or the number of authors?"
    )
    judge_00_6(found, OTHERS)
    (one, tests), (two, _) = world(40), world(41)
    follow = learn(one, OPERATIONS)
    rows = [(text, value) for text, value, *_ in tests["new author"]]
    before = [follow(*row) for row in rows]
    learn(two, OPERATIONS)
    assert [follow(*row) for row in rows] == before, (
        "A second call of learn has changed what the first model answers: its counts stand outside of learn."
    )


hidden_00_6(learn)
### END HIDDEN TESTS

# %% [markdown]
# ## 00.7 Project: an instruction set of your own field
#
# > ●●●●● · 150 minutes · practice
#
# Write an instruction that somebody in your field would pay for, with the data to test it: a text with a hole, allowed
# outputs, and at least $36$ real inputs. Mails, tickets, recipes, shelf marks, whatever you know better than a model does.
# Two people label all inputs, apart from each other, by a guide that both have read. Then you make a program that labels
# them, and claim: **on inputs that took no part in making it, the program passes more than the best constant answer.**
# The claim may turn out false, and the result may be undecided. `study()` returns a dict with exactly these keys:
#
# | key | what |
# |:--|:--|
# | `text`, `outputs` | the instruction with `{input}` in it exactly once; at least two different labels |
# | `guide` | by which rule both people labelled: at least $80$ characters |
# | `records` | a list of at least $36$ dicts: `input`, `group`, `first`, `second`, `gold`, all strings, none empty |
# | `dev`, `test` | lists of positions in `records`, each position in one of them, at least $12$ in each |
# | `agreement`, `kappa` | of all records: the share with equal labels, and Cohen's $\kappa$ |
# | `constant` | the most frequent gold label of *dev* (any of them, if several are) |
# | `rule` | your program: a function from an input to one of the outputs |
# | `passes` | how many *test* records `rule`, `constant`, `first` and `second` pass: a dict of four counts |
# | `repaired`, `broken` | test records that the rule passes and the constant does not; the other way round |
# | `low`, `high` | the exact interval ($\alpha = 0.05$) of section 6 for the share of good changes |
# | `verdict` | `"better"` ($1/2$ lies below the interval), `"worse"` (above it) or `"undecided"` |
#
# - *Groups.* Inputs that know of each other share a `group`: one sender, one day, one page. A group is never on both
#   sides. No two inputs are `copies` (the cell below says what that means), on whichever side.
# - *Labels.* Where `first` and `second` agree, that is the gold label. Where they differ, the two talk, and one of the two
#   labels becomes gold. Choose a task on which they differ at least twice. In *test* not all gold labels are the same.
# - *Kappa* (Cohen, 1960) compares the agreement $a$ with the one that two people would reach who draw their labels blindly,
#   each with her own frequencies $p_1(k)$ and $p_2(k)$: $\kappa = (a - e)/(1 - e)$ with $e = \sum_k p_1(k)\, p_2(k)$.
# - *The rule* may be anything that runs without a network: words to look for, the counts of exercise 00.6, a model.
#   It must give the same answer when a full stop is added at the end of an input, so that it cannot know the texts by
#   heart.
# - Without a change there is no interval: then `low` is $0$, `high` is $1$.
#
# The checker recomputes all numbers. A person reads the rest with this rubric (0 to 2 points a row; 8 of 12 pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | task | a toy | real inputs | real inputs, and the text says who would use the answer |
# | labels | one person, or together | two people apart | and the guide was mended after a first dozen, before the rest |
# | disagreements | hidden | listed | each one read; the guide, the input or a person was the cause |
# | groups | none worth the name | plausible | the text says what would leak without them |
# | the rule | made with the test inputs in view | made on dev | and the test was opened once |
# | ending | only success is described | one limit | what a person reaches, what undecided means, what was not shown |


# %%
def copies(one, other):
    """Are two inputs the same for our purpose? At least four fifths of their words are shared."""
    one, other = (set(re.findall(r"\w+", text.casefold())) for text in (one, other))
    return len(one & other) >= 0.8 * len(one | other)


# A start: one line a record, group | first | second | gold | input. In your file you need 36 or more of them.
START = """
monday | repair | repair | repair | the rear brake squeals when it is wet
monday | buy | repair | repair | which chain fits a hub with eight gears
tuesday | buy | buy | buy | do you have helmets for children
"""
for line in START.strip().splitlines():
    print(dict(zip(["group", "first", "second", "gold", "input"], line.split(" | "), strict=True)))


# %% nbgrader={"grade_id": "answer_00_7", "solution": true}
def study():
    """Return the dict of the table."""
    ### BEGIN SOLUTION
    # Mails to a bicycle workshop; one group is one day of the inbox. These mails and labels are made up. Yours are not.
    lines = """
monday | repair | repair | repair | the rear brake squeals when it is wet
monday | buy | repair | repair | which chain fits a hub with eight gears
monday | repair | repair | repair | my front wheel is bent after a fall
monday | other | other | other | are you open on the first of may
monday | buy | buy | buy | do you sell used bikes for tall people
tuesday | buy | buy | buy | do you have helmets for children
tuesday | repair | repair | repair | the gears jump under load
tuesday | repair | repair | repair | a spoke broke this morning
tuesday | other | other | other | thank you for the quick help last week
tuesday | repair | other | repair | when can I fetch my bicycle
wednesday | repair | repair | repair | flat tyre again although the tube is new
wednesday | buy | buy | buy | what does the blue city bike cost
wednesday | repair | repair | repair | the light flickers on bumps
wednesday | other | other | other | please send the bill to my company
wednesday | repair | repair | repair | pedal came off and the thread is gone
thursday | repair | repair | repair | can you true a wheel while I wait
thursday | buy | buy | buy | I look for a trailer for two dogs
thursday | repair | buy | repair | I need new brake pads and somebody to fit them
thursday | other | other | other | do you take part in the street fair
thursday | repair | repair | repair | something grinds in the bottom bracket
friday | repair | repair | repair | my brake lever is loose and the cable frays
friday | repair | repair | repair | the chain falls off whenever I shift
friday | buy | buy | buy | price of a child seat for the rear rack
friday | other | other | other | is there a bus stop near your shop
friday | repair | repair | repair | the tyre loses air over night
friday | buy | buy | buy | do you sell gloves that survive rain
saturday | repair | repair | repair | the saddle sinks while riding
saturday | other | buy | other | may I return the lock without the box
saturday | buy | buy | buy | how much is a light set with a charger
saturday | repair | repair | repair | the fork makes a clicking noise
saturday | repair | repair | repair | gear cable snapped on the way to work
saturday | other | other | other | my daughter wants to do a holiday job with you
sunday | buy | buy | buy | I want to buy a folding bike before june
sunday | repair | repair | repair | the back wheel wobbles and rubs the frame
sunday | other | other | other | who won the bicycle that you gave away
sunday | repair | repair | repair | crank arm is loose and creaks
sunday | buy | other | buy | do you have a catalogue of cargo bikes
sunday | repair | repair | repair | after the crash the handlebar is not straight
sunday | buy | buy | buy | is the red one in the window for sale
sunday | other | other | other | I left my umbrella at your counter
""".strip().splitlines()
    keys = ["group", "first", "second", "gold", "input"]
    records = [dict(zip(keys, line.split(" | "), strict=True)) for line in lines]
    late = ("friday", "saturday", "sunday")
    test = [i for i, r in enumerate(records) if r["group"] in late]
    dev = [i for i, r in enumerate(records) if r["group"] not in late]

    def rule(value):  # made with the first four days in view
        words = set(re.findall(r"\w+", value.casefold()))
        if words & {"sell", "cost", "price", "buy", "look", "have", "helmets", "much", "sale"}:
            return "buy"
        if words & {"open", "thank", "bill", "street", "please", "where", "who", "is"} and "the" not in words:
            return "other"
        return "repair"

    outputs = ["repair", "buy", "other"]
    golds = [records[i]["gold"] for i in dev]
    constant = max(outputs, key=golds.count)
    hits = {
        "rule": [rule(records[i]["input"]) == records[i]["gold"] for i in test],
        "constant": [constant == records[i]["gold"] for i in test],
        "first": [records[i]["first"] == records[i]["gold"] for i in test],
        "second": [records[i]["second"] == records[i]["gold"] for i in test],
    }
    repaired = sum(new and not old for new, old in zip(hits["rule"], hits["constant"], strict=True))
    broken = sum(old and not new for new, old in zip(hits["rule"], hits["constant"], strict=True))
    low, high = 0.0, 1.0
    if repaired + broken:
        exact = binomtest(repaired, repaired + broken).proportion_ci(method="exact")
        low, high = exact.low, exact.high
    agreement = sum(r["first"] == r["second"] for r in records) / len(records)
    chance = (
        sum(sum(r["first"] == k for r in records) * sum(r["second"] == k for r in records) for k in outputs)
        / len(records) ** 2
    )
    return {
        "text": "A customer wrote: {input}. Answer with one word: repair, buy or other.",
        "outputs": outputs,
        "guide": "repair: something of the customer's own must be mended or is being mended. buy: a question before a "
        "purchase. other: all else, also thanks, bills and returns. With two wishes the first one counts.",
        "records": records,
        "dev": dev,
        "test": test,
        "agreement": agreement,
        "kappa": (agreement - chance) / (1 - chance),
        "constant": constant,
        "rule": rule,
        "passes": {name: sum(row) for name, row in hits.items()},
        "repaired": repaired,
        "broken": broken,
        "low": low,
        "high": high,
        "verdict": "better" if low > 0.5 else "worse" if high < 0.5 else "undecided",
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_00_7", "locked": true}
STUDY = (
    "text outputs guide records dev test agreement kappa constant rule passes repaired broken low high verdict"
).split()


def check_records(mine):
    records, outputs = mine["records"], mine["outputs"]
    assert isinstance(mine["text"], str) and mine["text"].count("{input}") == 1, (
        "text: {input} must stand in it exactly once."
    )
    assert isinstance(outputs, list | tuple) and len(set(outputs)) == len(outputs) >= 2, (
        "outputs: at least two labels, no two alike."
    )
    assert isinstance(mine["guide"], str) and len(mine["guide"].strip()) >= 80, (
        "guide: at least 80 characters. Without a rule two people label two tasks."
    )
    assert isinstance(records, list) and len(records) >= 36, "records: a list of at least 36 dicts."
    for i, record in enumerate(records):
        assert isinstance(record, dict) and set(record) == {"input", "group", "first", "second", "gold"}, (
            f"records[{i}]: exactly the keys input, group, first, second, gold."
        )
        assert all(isinstance(value, str) and value.strip() for value in record.values()), (
            f"records[{i}]: every value is a string that holds something."
        )
        labels = {record["first"], record["second"], record["gold"]}
        assert labels <= set(outputs), (
            f"records[{i}]: {', '.join(sorted(labels - set(outputs)))} is none of the outputs."
        )
        assert record["gold"] in (record["first"], record["second"]), (
            f"records[{i}]: {record['gold']!r} is gold, and neither of the two said so. Who decided?"
        )
    apart = sum(record["first"] != record["second"] for record in records)
    assert apart >= 2, (
        f"The two people differ {apart} times. Either one has copied from the other, or the task needs no instruction: "
        "choose one with inputs that are hard to label."
    )


def check_split(mine):
    records, dev, test = mine["records"], mine["dev"], mine["test"]
    assert sorted([*dev, *test]) == list(range(len(records))), (
        "dev, test: each position of records in exactly one of the two lists."
    )
    assert min(len(dev), len(test)) >= 12, "dev, test: at least 12 records in each."
    both = {records[i]["group"] for i in dev} & {records[i]["group"] for i in test}
    assert not both, (
        f"dev, test: the group {sorted(both)[0]!r} stands on both sides. What you learn from one of its inputs helps "
        "with the other; new inputs will have no such help."
    )
    for i, j in itertools.combinations(range(len(records)), 2):
        if copies(records[i]["input"], records[j]["input"]):
            assert (i in dev) == (j in dev), (
                f"records[{i}] and records[{j}] are copies, one on each side: that is training on the test."
            )
            raise AssertionError(
                f"records[{i}] and records[{j}] are copies. The same input twice is counted twice."
            )
    assert len({records[i]["gold"] for i in test}) > 1, (
        "test: all gold labels are equal. A constant cannot lose there."
    )


def check_agreement(mine):
    records, n = mine["records"], len(mine["records"])
    pairs = [(record["first"], record["second"]) for record in records]
    agreement = sum(one == other for one, other in pairs) / n
    ends = [records[i] for i in mine["test"]]
    wrong = {
        "agreement: that is the test records' alone. It is asked for all.": sum(
            r["first"] == r["second"] for r in ends
        )
        / len(ends),
        "agreement: that counts records. A share is asked for.": agreement * n,
        "agreement: that is the first person's with gold. Compare the two people.": sum(
            r["first"] == r["gold"] for r in records
        )
        / n,
    }
    checking.equal(mine["agreement"], agreement, "agreement", wrong)
    first, second = (
        [sum(pair[side] == label for pair in pairs) / n for label in mine["outputs"]] for side in (0, 1)
    )

    def kappa(chance):
        return (agreement - chance) / (1 - chance)

    chance = sum(a * b for a, b in zip(first, second, strict=True))
    wrong = {
        "kappa: that is the agreement itself. Take off what blind drawing would reach.": agreement,
        "kappa: blind drawing is 1 / K for you. People use some labels more often; take their frequencies.": kappa(
            1 / len(mine["outputs"])
        ),
        "kappa: you take the mean of the two people's frequencies (Scott's pi). Cohen multiplies each one's own.": kappa(
            sum(((a + b) / 2) ** 2 for a, b in zip(first, second, strict=True))
        ),
        "kappa: the division by 1 − e is missing. The largest value should be 1.": agreement - chance,
        "kappa: that is the expected agreement e.": chance,
    }
    checking.equal(mine["kappa"], kappa(chance), "kappa", wrong)


def check_scores(mine):
    records, outputs = mine["records"], mine["outputs"]
    golds = {side: [records[i]["gold"] for i in mine[side]] for side in ("dev", "test")}
    most = {
        side: {k for k in outputs if gold.count(k) == max(map(gold.count, outputs))}
        for side, gold in golds.items()
    }
    if mine["constant"] not in most["dev"]:
        assert mine["constant"] not in most["test"], (
            "constant: that is the most frequent label of the *test* records. Whoever has not seen them cannot know it."
        )
        raise AssertionError(
            f"constant: not the most frequent gold label of dev; that is {sorted(most['dev'])[0]!r}."
        )
    assert callable(mine["rule"]), "rule: a function from an input to a label."
    rule, inputs = checking.calls(mine["rule"]), [records[i]["input"] for i in mine["test"]]
    said = [rule(text) for text in inputs]
    assert set(said) <= set(outputs), (
        f"rule: {sorted(map(str, set(said) - set(outputs)))[0]!r} is none of the outputs."
    )
    assert [rule(text + ".") for text in inputs] == said, (
        "rule: with a full stop at the end it answers otherwise. Does it know the texts by heart?"
    )
    rows = {
        "rule": [a == b for a, b in zip(said, golds["test"], strict=True)],
        "constant": [mine["constant"] == b for b in golds["test"]],
    }
    rows |= {
        who: [records[i][who] == records[i]["gold"] for i in mine["test"]] for who in ("first", "second")
    }
    want = {name: sum(row) for name, row in rows.items()}
    whole = {
        "rule": sum(rule(r["input"]) == r["gold"] for r in records),
        "constant": sum(mine["constant"] == r["gold"] for r in records),
        "first": sum(r["first"] == r["gold"] for r in records),
        "second": sum(r["second"] == r["gold"] for r in records),
    }
    wrong = {
        "passes: counted over all records. The rule was made with dev in view; only test can tell.": whole,
        "passes: counts are asked for, not shares.": {k: v / len(inputs) for k, v in want.items()},
    }
    checking.equal(mine["passes"], want, "passes", wrong)
    repaired = sum(new and not old for new, old in zip(rows["rule"], rows["constant"], strict=True))
    broken = sum(old and not new for new, old in zip(rows["rule"], rows["constant"], strict=True))
    wrong = {
        "repaired, broken: the other way round. Repaired: the rule passes, the constant does not.": [
            broken,
            repaired,
        ]
    }
    checking.equal([mine["repaired"], mine["broken"]], [repaired, broken], "[repaired, broken]", wrong)

    def exact(good, m):
        found = binomtest(good, m).proportion_ci(method="exact") if m else None
        return [found.low, found.high] if found else [0.0, 1.0]

    m = repaired + broken
    wilson = intervals.wilson_interval(repaired, m) if m else None
    wrong = {
        "low, high: that is the interval of the rule's own share of passes. Asked is whether the *changes* are good.": (
            exact(want["rule"], len(inputs))
        ),
        "low, high: records with the same verdict both times count for you. They prefer neither. Divide by the changes.": (
            exact(repaired, len(inputs))
        ),
        "low, high: that is Wilson's interval. The exact one is asked for.": [wilson.low, wilson.high]
        if wilson
        else [],
    }
    low, high = exact(repaired, m)
    near = "low, high: the exact interval for the share of good changes among all changes."
    checking.equal([mine["low"], mine["high"]], [low, high], "[low, high]", wrong, tol=1e-3, says=near)
    verdict = "better" if low > 0.5 else "worse" if high < 0.5 else "undecided"
    assert mine["verdict"] == verdict, (
        f"verdict: {repaired} repaired and {broken} broken, interval [{low:.2f}, {high:.2f}]: that says {verdict}. More "
        "passes are no verdict yet."
    )
    return f"{verdict}: {want['rule']} against {want['constant']} of {len(inputs)}"


def check_00_7(study):
    mine = checking.handed_in(study, STUDY, limit=30.0)
    check_records(mine)
    check_split(mine)
    check_agreement(mine)
    print(f"00.7 passed. {check_scores(mine)}. Now a person reads the study with the rubric.")


check_00_7(study)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Keep the records in a text file, one line each, as in the cell above. Label a dozen together, write the guide, throw the
# dozen away, and label the rest apart. All numbers are a dozen lines of counting.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `binomtest(repaired, repaired + broken).proportion_ci(method="exact")` has `low` and `high`. Fewer than six changes
# cannot decide anything: see section 6 of the lesson. If most labels are the same, the constant is hard to beat; then a
# larger test is what you need, not another rule.
#
# </details>
#
# {{solution}}
