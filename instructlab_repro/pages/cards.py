"""The data cards: one Markdown page per task, every number computed from the data, the prose from data/tasks.toml.

python -m instructlab_repro.pages.cards            writes data/cards/*.md
python -m instructlab_repro.pages.cards --check    compares, and exits with 1 if a card is out of date
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain, pairwise
from statistics import median, quantiles

from instructlab_repro import assets
from instructlab_repro.pages.markdown import grid
from instructlab_utils import cache, files, tasks
from instructlab_utils.errors import CourseError
from instructlab_utils.project import find_root
from instructlab_utils.tasks import Row, Task, TaskTable

SHOWN = 80  # characters of an example: enough to judge a label, too few to replace the source
COMMAND = "python -m instructlab_repro.pages.cards"
FIVE = ["minimum", "lower quartile", "median", "upper quartile", "maximum"]
TEXT = dict(classification="text", qa="question", tokens="tokens", generation="source", choice="input")


def numbers(*rows: list[str]) -> str:
    """A Markdown table, the head first; the first column is text, the others are numbers."""
    return grid(list(rows), [True, *[False] * (len(rows[0]) - 1)])


def quartiles(values: Sequence[int]) -> list[str]:
    """Minimum, lower quartile, median, upper quartile and maximum as cells of a table."""
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return [f"{value:,.0f}" for value in (min(values), low, middle, high, max(values))]


def shorten(text: str) -> str:
    """At most ``SHOWN`` characters in one line, cut at a word, safe in a Markdown list."""
    line = " ".join(text.split())
    if len(line) > SHOWN:
        line = line[: SHOWN - 1].rsplit(" ", 1)[0] + "…"
    return line.replace("`", "'")


def histogram(rows: Sequence[Row]) -> list[tuple[float, float, int]]:
    """(low, high, number of mean ratings) for each bin; the middle one holds what gets no label, ends included."""
    edges = (-4.0, -3.0, -2.0, -1.0, -tasks.CUT, tasks.CUT, 1.0, 2.0, 3.0, 4.0)
    bins = []
    for low, high in pairwise(edges):  # an edge belongs to the bin nearer to zero
        above = [row for row in rows if (low < row.rating if low > 0 else low <= row.rating)]
        inside = [row for row in above if (row.rating < high if high < 0 else row.rating <= high)]
        bins.append((low, high, len(inside)))
    return bins


def rated_twice() -> list[tuple[str, float]]:
    """(task, difference between two mean ratings of the same text), over all rated tasks: a retest, by accident."""
    differences = []
    for name in (name for name, told in tasks.tables().items() if told.rated):
        ratings: dict[str, list[float]] = defaultdict(list)
        for row in tasks.read(name):
            ratings[row.text].append(row.rating)
        differences += [(name, abs(a - b)) for same in ratings.values() for a, b in pairwise(same)]
    return differences


def why_thresholds(rows: Sequence[Row], bins: Sequence[tuple[float, float, int]]) -> str:
    """What the thresholds cost and what they buy, in sentences made from the numbers."""
    density = [number / (high - low) for low, high, number in bins]
    middle = len(bins) // 2
    higher = [max(side) > density[middle] for side in (density[:middle], density[middle + 1 :])]
    place = ("at the peak", "beside the peak", "in the valley between two peaks")[sum(higher)]
    place += "" if sum(higher) == 2 else " of the ratings"
    names, retest = zip(*rated_twice(), strict=True)
    beyond = sum(difference > tasks.CUT for difference in retest)
    return (
        f"The middle is {place}: {bins[middle][2]:,} of {len(rows):,} ratings "
        f"({bins[middle][2] / len(rows):.0%}) get no label. Why {tasks.CUT:g}? {len(retest)} times a sentence stands in "
        f"its file again, rated anew (mostly in {Counter(names).most_common(1)[0][0]}). The two means "
        f"differ by {median(retest):.2f} in the median and by more than {tasks.CUT:g} in {beyond} cases "
        f"({beyond / len(retest):.0%}): beyond the threshold, the sign of a mean seldom depends on who was asked. "
        "The rating itself is kept in the column `rating`."
    )


def labels(task: Task, told: TaskTable) -> list[str]:
    """Where the labels come from and, for ratings, what the thresholds leave out."""
    parts = [f"## Labels\n\n{tasks.note(told.asset, 'labels')}"]
    if told.rated:
        rows = list(tasks.read(task.name))
        bins = histogram(rows)
        rules = [f"{'above' if at > 0 else 'below'} {at:g}: {word}" for word, at in task.thresholds.items()]
        body = [[f"{low:g} to {high:g}", f"{n:,}", f"{n / (high - low):,.0f}"] for low, high, n in bins]
        parts.append(f"Thresholds: {', '.join(rules)}. {why_thresholds(rows, bins)}")
        parts.append(numbers(["mean rating", "texts", "texts per unit of rating"], *body))
    return parts


def splits(task: Task, told: TaskTable) -> list[str]:
    """How the splits are made, and their sizes; of a classification also the labels'."""
    classes = task.kind == "classification"
    apart = f"; texts with a Jaccard similarity of at least {tasks.JACCARD:g} (runs of five words) never stand in "
    text = (
        f"A split is decided by the SHA-256 of the group's name with a fixed salt. A group is {told.group}"
        f"{apart + 'two splits' if classes else ''}."
    )
    rows = [["split", "texts" if classes else "rows", "groups"]]
    rows[0] += [*task.labels, "largest class"] if classes else []
    for split, part in task.splits.items():
        rows.append([split, f"{len(part):,}", f"{len(set(part['group'])):,}"])
        if classes:
            found = Counter(part["label"])
            rows[-1] += [f"{found[i]:,}" for i in range(len(task.labels))]
            rows[-1].append(f"{max(found.values()) / len(part):.1%}")
    return ["## Splits", "All of it is the test split." if told.test_only else text, numbers(*rows)]


def lengths(task: Task) -> list[str]:
    """Quartiles of the lengths: in words and, of a classification, in the encoder's tokens."""
    column, rows = TEXT[task.kind], []
    words = {
        split: [len(t) if isinstance(t, list) else len(t.split()) for t in part[column]]
        for split, part in task.splits.items()
    }
    if task.kind != "classification":
        rows = [[split, *quartiles(found)] for split, found in words.items()]
        return ["## Lengths", numbers([f"words of `{column}`", *FIVE], *rows)]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(cache.folder("minilm") / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for split, part in task.splits.items():
        tokens = [len(coded.ids) for coded in tokenizer.encode_batch(list(part["text"]))]
        rows.append([f"{split}, words", *quartiles(words[split])])
        rows.append([f"{split}, MiniLM tokens", *quartiles(tokens)])
    explained = "Words are separated by white space; tokens include [CLS] and [SEP]."
    return ["## Lengths", explained, numbers(["", *FIVE], *rows)]


def answers(task: Task) -> list[str]:
    """Tags: how often each stands. Options: how many and, where they are the same for all, how often each is right."""
    rows = list(chain.from_iterable(task.splits.values()))
    if task.kind == "tokens":
        tags = Counter(tag for row in rows for tag in row["tags"])
        return ["## Tags", numbers(["tag", "tokens"], *([tag, f"{tags[tag]:,}"] for tag in task.labels))]
    if task.kind != "choice":
        return []
    sizes = Counter(len(row["options"]) for row in rows)
    told = f"Number of options: {', '.join(f'{n} ({k:,} questions)' for n, k in sorted(sizes.items()))}."
    right = Counter(row["options"][row["answer"]] for row in rows)
    if len({frozenset(row["options"]) for row in rows}) == 1:
        told += f" Answers: {', '.join(f'{word} {times:,}' for word, times in right.most_common())}."
    told += " Their order is ours: by a hash of the texts, since several files put the right one first."
    return ["## Options", told]


def examples(task: Task) -> list[str]:
    """Three shortened examples: those with the smallest ids, of each label where a classification has them."""
    rows = sorted(chain.from_iterable(task.splits.values()), key=lambda row: row["id"])
    parts = ["## Examples"]
    for index in range(len(task.labels)) if task.kind == "classification" else [None]:
        lines = []
        for row in [row for row in rows if index is None or row["label"] == index][:3]:
            text = row[TEXT[task.kind]]
            rating = f" ({row['rating']:.1f})" if task.thresholds else ""
            lines.append(f"- {shorten(text if isinstance(text, str) else ' '.join(text))}{rating}")
        parts.append(("" if index is None else f"{task.labels[index]}:\n\n") + "\n".join(lines))
    return parts


def render(name: str) -> str:
    """The card of a task as Markdown."""
    task, told = tasks.load(name), tasks.table(name)
    classes = task.kind == "classification"
    what = f"{task.kind.capitalize()} into {len(task.labels)} labels: {', '.join(task.labels)}"
    packages = [f"package {s.package} {s.version}" for s in assets.catalogue()[told.asset].sources]
    raw = ", ".join(f"`{file}`" for file in told.files)
    cite = "cite:" if classes else "cite the authors named above and:"
    parts = [
        f"# {name}",
        f"Generated by `{COMMAND}`; edits here are lost.",
        f"**What it is:** {told.about}. {what if classes else f'Kind: {task.kind}'}. Metric: {task.metric}.",
        f"**Source:** {'; '.join(packages)}, {raw}. Please {cite} {task.source}.",
        f"**Licence:** {task.licence}. {tasks.note(told.asset, 'licence')}",
        *(labels(task, told) if classes else []),
        *splits(task, told),
        *lengths(task),
        *answers(task),
        "## What was found on the way",
        numbers(["", "number"], *([found, f"{times:,}"] for found, times in task.counts.items())),
        *examples(task),
        "## Known problems\n\n" + "\n".join(f"- {problem}" for problem in told.problems),
    ]
    return "\n\n".join(parts) + "\n"


def update(check: bool = False) -> list[str]:
    """Write all cards, or with ``check`` only compare; the names of those that are (or were) out of date."""
    folder, old = find_root() / "data" / "cards", []
    for name in tasks.names():
        path, text = folder / f"{name}.md", render(name)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            old.append(name)
            if not check:
                files.write_text(path, text)
    return old


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check all cards. Returns 0, or 1 if ``--check`` found an old card."""
    parser = argparse.ArgumentParser(description="Generate data/cards/*.md from the data.")
    parser.add_argument("--check", action="store_true", help="only compare; 1 if a card is out of date")
    check = parser.parse_args(arguments).check
    names = ", ".join(update(check)) or "none"
    stale = check and names != "none"
    print(f"out of date: {names}; run `{COMMAND}`" if stale else f"cards that had to change: {names}")
    return int(stale)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
