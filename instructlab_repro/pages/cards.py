"""The data cards: a Markdown page per task; every number is computed from the data, the prose is data/tasks.toml's.

python -m instructlab_repro.pages.cards            writes data/cards/*.md
python -m instructlab_repro.pages.cards --check    compares, and exits with 1 if a card is out of date
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain, pairwise
from statistics import median, quantiles
from typing import Any

from tokenizers import Tokenizer

from instructlab_repro import assets
from instructlab_repro.pages import markdown
from instructlab_utils import cache, files, tasks
from instructlab_utils.errors import CourseError
from instructlab_utils.project import find_root
from instructlab_utils.tasks import Row, Task

SHOWN = 80  # characters of an example: enough to judge a label, too few to replace the source
COMMAND = "python -m instructlab_repro.pages.cards"
FIVE = ["minimum", "lower quartile", "median", "upper quartile", "maximum"]
TEXT = dict(classification="text", qa="question", tokens="tokens", generation="source", choice="input")


def numbers(*rows: list[str]) -> str:
    """A Markdown table, the head first; the first column is text, the others are numbers."""
    return markdown.grid(list(rows), [True, *[False] * (len(rows[0]) - 1)])


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
    ratings = [row.rating for row in rows]
    bins = [(-tasks.CUT, tasks.CUT, sum(abs(rating) <= tasks.CUT for rating in ratings))]
    for near, far in pairwise((tasks.CUT, 1.0, 2.0, 3.0, 4.0)):  # an edge belongs to the bin nearer to zero
        bins.insert(0, (-far, -near, sum(near < -rating <= far for rating in ratings)))
        bins.append((near, far, sum(near < rating <= far for rating in ratings)))
    return bins


def rated_twice() -> list[tuple[str, float]]:
    """(task, difference between two mean ratings of the same text), over all rated tasks: a retest, by accident."""
    ratings: dict[tuple[str, str], list[float]] = defaultdict(list)
    for name in (name for name, told in tasks.tables().items() if told.rated):
        for row in tasks.read(name):
            ratings[name, row.text].append(row.rating)
    return [(name, abs(a - b)) for (name, _), same in ratings.items() for a, b in pairwise(same)]


def ratings(task: Task) -> dict[str, Any]:
    """What the thresholds cost and what they buy, for the card's sentences, and the histogram as a table."""
    rows = list(tasks.read(task.name))
    bins = histogram(rows)
    density, middle = [number / (high - low) for low, high, number in bins], len(bins) // 2
    higher = sum(max(side) > density[middle] for side in (density[:middle], density[middle + 1 :]))
    peak = "the peak of the ratings"
    places = (f"at {peak}", f"beside {peak}", "in the valley between two peaks")
    names, retest = zip(*rated_twice(), strict=True)
    body = [[f"{low:g} to {high:g}", f"{n:,}", f"{n / (high - low):,.0f}"] for low, high, n in bins]
    return {
        "place": places[higher],
        "unlabelled": bins[middle][2],
        "all": len(rows),
        "twice": len(retest),
        "mostly": Counter(names).most_common(1)[0][0],
        "median": median(retest),
        "beyond": sum(difference > tasks.CUT for difference in retest),
        "table": numbers(["mean rating", "texts", "texts per unit of rating"], *body),
    }


def splits(task: Task) -> str:
    """The sizes of the splits; of a classification also the labels'."""
    classes = task.kind == "classification"
    heads = ["texts", "groups", *task.labels, "largest class"] if classes else ["rows", "groups"]
    rows = [["split", *heads]]
    for split, part in task.splits.items():
        rows.append([split, f"{len(part):,}", f"{len(set(part['group'])):,}"])
        if classes:
            found = Counter(part["label"])
            rows[-1] += [f"{found[i]:,}" for i in range(len(task.labels))]
            rows[-1].append(f"{max(found.values()) / len(part):.1%}")
    return numbers(*rows)


@functools.cache
def tokenizer() -> Tokenizer:
    """That of the course's encoder, which cuts and fills up nothing."""
    found = Tokenizer.from_file(str(cache.folder("minilm") / "tokenizer.json"))
    found.no_truncation()
    found.no_padding()
    return found


def lengths(task: Task) -> str:
    """Quartiles of the lengths: in words and, of a classification, in the encoder's tokens."""
    column, classes, rows = TEXT[task.kind], task.kind == "classification", []
    for split, part in task.splits.items():
        words = [len(text if isinstance(text, list) else text.split()) for text in part[column]]
        rows.append([f"{split}, words" if classes else split, *quartiles(words)])
        if classes:
            tokens = [len(coded.ids) for coded in tokenizer().encode_batch(list(part[column]))]
            rows.append([f"{split}, MiniLM tokens", *quartiles(tokens)])
    return numbers(["" if classes else f"words of `{column}`", *FIVE], *rows)


def tags(task: Task) -> str:
    """How often each tag stands."""
    found = Counter(tag for part in task.splits.values() for row in part for tag in row["tags"])
    return numbers(["tag", "tokens"], *([tag, f"{found[tag]:,}"] for tag in task.labels))


def options(task: Task) -> str:
    """How many options there are and, where they are the same for all questions, how often each is right."""
    rows = list(chain.from_iterable(task.splits.values()))
    sizes = Counter(len(row["options"]) for row in rows)
    told = f"Number of options: {', '.join(f'{n} ({k:,} questions)' for n, k in sorted(sizes.items()))}."
    right = Counter(row["options"][row["answer"]] for row in rows)
    if len({frozenset(row["options"]) for row in rows}) == 1:
        told += f" Answers: {', '.join(f'{word} {times:,}' for word, times in right.most_common())}."
    return told


def examples(task: Task) -> str:
    """Three shortened examples: those with the smallest ids, of each label where a classification has them."""
    rows, parts = sorted(chain.from_iterable(task.splits.values()), key=lambda row: row["id"]), []
    for index, label in enumerate(task.labels) if task.kind == "classification" else [(None, "")]:
        lines = []
        for row in [row for row in rows if index is None or row["label"] == index][:3]:
            text = row[TEXT[task.kind]]
            rating = f" ({row['rating']:.1f})" if task.thresholds else ""
            lines.append(f"- {shorten(text if isinstance(text, str) else ' '.join(text))}{rating}")
        parts += [f"{label}:"] * bool(label) + ["\n".join(lines)]
    return "\n\n".join(parts)


def render(name: str) -> str:
    """The card of a task as Markdown: templates/card.md.j2 with the tables of this module."""
    task, told = tasks.load(name), tasks.table(name)
    values = dict(task=task, told=told, sources=assets.catalogue()[told.asset].sources, command=COMMAND)
    values |= dict(note=tasks.note, cut=tasks.CUT, jaccard=tasks.JACCARD)
    tools = (ratings, splits, lengths, tags, options, examples)
    return markdown.render("card.md.j2", **values, **{tool.__name__: tool for tool in tools})


def main(arguments: Sequence[str] | None = None) -> int:
    """Write all cards, or with ``--check`` only compare them. Returns 0, or 1 if the check found an old card."""
    parser = argparse.ArgumentParser(description="Generate data/cards/*.md from the data.")
    parser.add_argument("--check", action="store_true", help="only compare; 1 if a card is out of date")
    check, old = parser.parse_args(arguments).check, []
    for name in tasks.names():
        path, text = find_root() / "data" / "cards" / f"{name}.md", render(name)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            old.append(name)
            if not check:
                files.write_text(path, text)
    names, stale = ", ".join(old) or "none", check and bool(old)
    print(f"out of date: {names}; run `{COMMAND}`" if stale else f"cards that had to change: {names}")
    return int(stale)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
