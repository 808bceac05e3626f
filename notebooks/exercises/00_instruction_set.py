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
# that you do not see here, so test more than the checker does. Nothing on this page needs a model, a data
# set or a network.
#
# {{overview}}

# %%
import functools
import itertools
import json
import random
from fractions import Fraction

import torch

from instructlab_utils import checking

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
