"""The data cards: one Markdown page per task, every number computed from the data.

python -m instructlab_repro.pages.cards            writes data/cards/*.md
python -m instructlab_repro.pages.cards --check    compares, and exits with 1 if a card is out of date
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from instructlab_repro import assets
from instructlab_utils import cache, tasks
from instructlab_utils.errors import CourseError
from instructlab_utils.project import find_root
from instructlab_utils.tasks.records import RECORDS
from instructlab_utils.tasks.sources import SOURCES, Row, read

SHOWN = 80  # characters of an example: enough to judge a label, too few to replace the source
CONTENT = {
    "movie-sentiment": "sentences from reviews of films",
    "tweet-sentiment": "short messages in the style of tweets, user names and addresses replaced by the authors",
    "product-sentiment": "sentences from customer reviews of a few products, in lower case",
    "editorial-sentiment": "sentences from opinion pieces and letters of The New York Times",
    "bbc-topics": "articles of the BBC news website from 2004 and 2005",
    "squad": "questions about paragraphs of Wikipedia, each answered by a span of the paragraph: the development set of "
    "SQuAD 1.1 (Rajpurkar et al. 2016)",
    "squad-newwiki": "new questions about other Wikipedia articles, collected as SQuAD was (Miller et al. 2020)",
    "squad-nyt": "questions about articles of The New York Times, collected as SQuAD was (Miller et al. 2020)",
    "squad-reddit": "questions about posts of Reddit, collected as SQuAD was (Miller et al. 2020)",
    "squad-amazon": "questions about product reviews of Amazon, collected as SQuAD was (Miller et al. 2020)",
    "disfl-qa": "questions in which the speaker corrects himself, about paragraphs of Wikipedia; many cannot be "
    "answered from the paragraph (Gupta et al. 2021)",
    "e2e-slots": "descriptions of restaurants whose attribute values are tagged: the E2E data (Novikova et al. 2017), "
    "tagged by us where a value stands in the text",
    "polish-ner": "Polish sentences with named entities, from the corpus KPWr",
    "e2e": "attributes of a restaurant, and the sentences that people wrote from them (Novikova et al. 2017)",
    "webnlg": "facts about a thing as triples, and the texts that people wrote from them (Gardent et al. 2017)",
    "xsum": "articles of the BBC, each with its one-sentence summary (Narayan et al. 2018)",
    "wikilingua": "texts of how-to guides with their summaries (Ladhak et al. 2020)",
    "schema-dialog": "turns of an assistant: what it should say, and the talk so far (Rastogi et al. 2020)",
    "spider": "questions to a database and its columns, with a query in the style of SQL (Yu et al. 2018)",
    "products-en-de": "sentences of product reviews in English and German (MultiEmo, Kocoń et al. 2021)",
}
RATED = (
    "At least twenty people, trained and checked by the authors, rated each sentence from -4 (extremely negative) "
    "to 4 (extremely positive); the file holds the mean. The label is the sign of the mean, given only where the "
    "mean passes a threshold."
)
FILED = (
    "The label is one of five topical areas of the BBC news website: the folder in which the collectors filed the "
    "article. No annotator is named."
)
LICENCE = {
    "vader": "The licence is that of the collection (the package's LICENSE.txt, C.J. Hutto). The sentences were "
    "written by others, whose rights it does not touch. This repository holds no more of them than the shortened "
    "examples below.",
    "bbc": "The data set's authors make it available for non-commercial and research purposes only, and state that "
    "all rights, including copyright, in the content of the original articles are owned by the BBC "
    "(http://mlg.ucd.ie/datasets/bbc.html). The package that carries the files declares the MIT licence (John "
    "Jung), which can only cover the packager's own work. The articles are fetched at set-up and never committed; "
    "this repository holds no more of them than the shortened examples below.",
    "bigbench": "The collection is under Apache-2.0; the data set below was made by others, whose terms it does not touch. "
    "This repository holds no more of it than the shortened examples below.",
}
SHIFTED = (
    "All of it is a test set: it exists to measure what a model loses outside Wikipedia.",
    "The answers were marked by crowd workers, several for a question, and differ in their ends.",
)
PROBLEMS = {
    "squad": (
        "Only the development set is here, so training and test questions are about few articles.",
        "The articles are split, not the questions: no test question is about an article that was trained on.",
    ),
    "squad-newwiki": SHIFTED,
    "squad-nyt": SHIFTED,
    "squad-reddit": SHIFTED,
    "squad-amazon": (
        *SHIFTED,
        "Many offsets are wrong because the beginning of the review was cut. The nearest place of the answer is taken.",
    ),
    "disfl-qa": (
        "Texts are tokenised: a space stands before every full stop. Answers that the tokenising has changed are left out.",
        "What cannot be answered was made by asking one paragraph's question of another.",
    ),
    "e2e-slots": (
        "The tags are ours. A value that people paraphrased has no tag, so a model that tags it counts as wrong.",
        "The test set knows few restaurants and areas; a list of names would solve much of it.",
    ),
    "polish-ner": (
        "The source has one type per word, without beginnings. Two neighbouring entities of a type are therefore one.",
        "Times, events and other marks of the source are dropped.",
        "The encoder's word pieces were made for English: a Polish word falls into many.",
    ),
    "e2e": ("Attributes are few and repeat, so test inputs resemble training inputs.",),
    "webnlg": (
        "Names carry their Wikipedia form, with underscores; the column `triples` has spaces instead.",
        "Relations such as `birthPlace` and `placeOfBirth` mean the same.",
    ),
    "xsum": (
        "The summary was written as the article's first sentence, and often says what the rest does not.",
    ),
    "wikilingua": ("Summaries are the headings of steps: instructions, not prose.",),
    "schema-dialog": (
        "The talk so far is the user's and the assistant's turns in one string; a turn may hold quotation marks.",
    ),
    "spider": (
        "The queries are normalised: lower case, no joins, values replaced by `value`. They cannot be executed.",
        "Four databases are in the test split.",
    ),
    "products-en-de": (
        "Both languages were translated from Polish by a machine, so neither is how people write.",
        "The label is that of the Polish sentence.",
    ),
    "movie-sentiment": (
        "The file does not say which sentences are about the same film, so a film may occur in several splits.",
        "The archive's README derives the sentences from the reviews of Pang and Lee (2004). The first ones are those "
        "of the sentence-polarity set of Pang and Lee (2005), from which the Stanford Sentiment Treebank was made. A "
        "model tuned on either has probably seen test sentences of this task.",
        "Sentences are cut out of their review; some are ironic or need the context.",
    ),
    "tweet-sentiment": (
        "Many texts were contrived by the authors to differ in a word, in capitals or in exclamation marks. Clusters "
        "of them stay within a split; variants below the similarity threshold may still cross one.",
        "The classes are not balanced: compare with the share of the largest class, not with one half.",
        "The messages were collected before 2014; slang and topics are of that time.",
    ),
    "product-sentiment": (
        "A split holds whole reviews, so it is worth fewer independent observations than it has sentences. Resample "
        "groups for an interval.",
        "The file does not name the product, so the same products may occur in all splits.",
        "Review titles and fragments left by the sentence splitter count as sentences.",
    ),
    "editorial-sentiment": (
        "Most editorial sentences are near neutral: the thresholds leave out a large part, and the rest is not a "
        "random sample of what newspapers write.",
        "Some articles hold the same sentence twice, rated twice, sometimes on different sides of a threshold.",
        "Sentences of one article are dependent. Resample groups for an interval.",
    ),
    "bbc-topics": (
        "The website filed some articles twice, with small changes. Exact copies were removed; near duplicates stay "
        "together in one split.",
        "One label per article: a story about a technology firm could stand under business as well.",
        "Most articles are longer than a short input: an experiment must say where it cuts them.",
    ),
}


def quartiles(values: Sequence[int]) -> str:
    """Minimum, lower quartile, median, upper quartile and maximum as cells of a table."""
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return " | ".join(f"{value:,.0f}" for value in (min(values), low, middle, high, max(values)))


def shorten(text: str) -> str:
    """At most ``SHOWN`` characters in one line, cut at a word, safe in a Markdown list."""
    line = " ".join(text.split())
    if len(line) > SHOWN:
        line = line[: SHOWN - 1].rsplit(" ", 1)[0] + "…"
    return line.replace("`", "'")


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def histogram(rows: Sequence[Row]) -> list[tuple[float, float, int]]:
    """(low, high, number of mean ratings) for each bin; the middle one holds what gets no label, ends included."""
    edges = (-4.0, -3.0, -2.0, -1.0, -tasks.CUT, tasks.CUT, 1.0, 2.0, 3.0, 4.0)
    bins = []
    for low, high in pairwise(edges):
        if low == -tasks.CUT:
            inside = [row for row in rows if low <= row.rating <= high]
        else:  # an edge belongs to the bin that is farther from zero on the negative side, nearer on the positive
            inside = [
                row for row in rows if (low < row.rating <= high if low > 0 else low <= row.rating < high)
            ]
        bins.append((low, high, len(inside)))
    return bins


def rated_twice() -> list[tuple[str, float]]:
    """(task, difference between two mean ratings of the same text), over all rated tasks: a retest, by accident."""
    differences = []
    for name in (name for name, origin in SOURCES.items() if origin.rated):
        ratings: dict[str, list[float]] = defaultdict(list)
        for row in read(name):
            ratings[row.text].append(row.rating)
        differences += [(name, abs(a - b)) for same in ratings.values() for a, b in pairwise(same)]
    return differences


def why_thresholds(rows: Sequence[Row], bins: Sequence[tuple[float, float, int]]) -> str:
    """What the thresholds cost and what they buy, in sentences made from the numbers."""
    density = [number / (high - low) for low, high, number in bins]
    middle = len(bins) // 2
    higher = [max(side) > density[middle] for side in (density[:middle], density[middle + 1 :])]
    place = (
        "at the peak of the ratings",
        "beside the peak of the ratings",
        "in the valley between two peaks",
    )
    names, retest = zip(*rated_twice(), strict=True)
    beyond = sum(difference > tasks.CUT for difference in retest)
    return (
        f"The middle is {place[sum(higher)]}: {bins[middle][2]:,} of {len(rows):,} ratings "
        f"({bins[middle][2] / len(rows):.0%}) get no label. Why {tasks.CUT:g}? {len(retest)} times a sentence stands in "
        f"its file again, rated anew (mostly in {Counter(names).most_common(1)[0][0]}). The two means "
        f"differ by {median(retest):.2f} in the median and by more than {tasks.CUT:g} in {beyond} cases "
        f"({beyond / len(retest):.0%}): beyond the threshold, the sign of a mean seldom depends on who was asked. "
        "The rating itself is kept in the column `rating`."
    )


def render(name: str) -> str:
    """The card of a task as Markdown."""
    from tokenizers import Tokenizer

    if name in RECORDS:
        return render_records(name)
    task, origin = tasks.load(name), SOURCES[name]
    tokenizer = Tokenizer.from_file(str(cache.folder("minilm") / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rows, splits = read(name), task.splits
    everything = sorted(chain.from_iterable(splits.values()), key=lambda row: row["id"])
    by_label = {split: Counter(rows["label"]) for split, rows in splits.items()}
    pin = assets.catalogue()[origin.asset]

    sizes = []
    for split, part in splits.items():
        largest = max(by_label[split].values()) / len(part)
        shares = [f"{by_label[split][i]:,}" for i in range(len(task.labels))]
        sizes.append((split, f"{len(part):,}", f"{len(set(part['group'])):,}", *shares, f"{largest:.1%}"))
    lengths = []
    for split, part in splits.items():
        tokens = [len(coded.ids) for coded in tokenizer.encode_batch(list(part["text"]))]
        lengths.append((f"{split}, words", quartiles([len(text.split()) for text in part["text"]])))
        lengths.append((f"{split}, MiniLM tokens", quartiles(tokens)))
    found = [(what, f"{number:,}") for what, number in task.counts.items()]

    parts = [
        f"# {name}",
        "Generated by `python -m instructlab_repro.pages.cards`; edits here are lost.",
        f"**What it is:** {CONTENT[name]}. {task.kind.capitalize()} into {len(task.labels)} labels: "
        f"{', '.join(task.labels)}. Metric: {task.metric}.",
        f"**Source:** {'; '.join(f'package {s.package} {s.version}' for s in pin.sources)}, `{origin.files}`. "
        f"Please cite: {task.source}.",
        f"**Licence:** {task.licence}. {LICENCE[origin.asset]}",
        f"## Labels\n\n{RATED if origin.rated else FILED}",
    ]
    if origin.rated:
        bins = histogram(rows)
        rules = [
            f"{'above' if cut > 0 else 'below'} {cut:g}: {label}" for label, cut in task.thresholds.items()
        ]
        body = [(f"{low:g} to {high:g}", f"{n:,}", f"{n / (high - low):,.0f}") for low, high, n in bins]
        parts.append(f"Thresholds: {', '.join(rules)}. {why_thresholds(rows, bins)}")
        parts.append(table(("mean rating", "texts", "texts per unit of rating"), body))
    parts += [
        "## Splits",
        "A split is decided by the SHA-256 of the group's name with a fixed salt. A group is "
        + ("an article with all its sentences" if origin.has_articles else "a cluster of near duplicates")
        + f"; texts with a Jaccard similarity of at least {tasks.JACCARD:g} (runs of five words) never stand in "
        "two splits.",
        table(("split", "texts", "groups", *task.labels, "largest class"), sizes),
        "## Lengths",
        "Words are separated by white space; tokens include [CLS] and [SEP].",
        table(("", "minimum", "lower quartile", "median", "upper quartile", "maximum"), lengths),
        "## What was found on the way",
        table(("", "number"), found),
        "## Examples",
    ]
    for index, label in enumerate(task.labels):
        chosen = [row for row in everything if row["label"] == index][:3]
        lines = [
            f"- {shorten(row['text'])}" + (f" ({row['rating']:.1f})" if origin.rated else "")
            for row in chosen
        ]
        parts.append(f"{label}:\n\n" + "\n".join(lines))
    parts.append("## Known problems\n\n" + "\n".join(f"- {problem}" for problem in PROBLEMS[name]))
    return "\n\n".join(parts) + "\n"


def render_records(name: str) -> str:
    """The card of a task of questions, tagged tokens, or texts to write."""
    task, origin = tasks.load(name), RECORDS[name]
    pin = assets.catalogue()[origin.asset]
    text = {"qa": "question", "tokens": "tokens", "generation": "source", "choice": "input"}[task.kind]
    words = {
        split: [len(t) if isinstance(t, list) else len(t.split()) for t in part[text]]
        for split, part in task.splits.items()
    }
    sizes = [(split, f"{len(p):,}", f"{len(set(p['group'])):,}") for split, p in task.splits.items()]
    parts = [
        f"# {name}",
        "Generated by `python -m instructlab_repro.pages.cards`; edits here are lost.",
        f"**What it is:** {CONTENT.get(name, origin.about)}. Kind: {task.kind}. Metric: {task.metric}.",
        f"**Source:** {'; '.join(f'package {s.package} {s.version}' for s in pin.sources)}, "
        f"{', '.join(f'`{file}`' for file in origin.files)}. Please cite the authors named above and: {task.source}.",
        f"**Licence:** {task.licence}. {LICENCE[origin.asset]}",
        "## Splits",
        (
            "All of it is the test split."
            if origin.test_only
            else f"A split is decided by the SHA-256 of the group's name with a fixed salt. A group is {origin.group}."
        ),
        table(("split", "rows", "groups"), sizes),
        "## Lengths",
        table(
            (f"words of `{text}`", "minimum", "lower quartile", "median", "upper quartile", "maximum"),
            [(split, quartiles(lengths)) for split, lengths in words.items()],
        ),
    ]
    if task.labels:
        tags = Counter(tag for p in task.splits.values() for row in p["tags"] for tag in row)
        parts += ["## Tags", table(("tag", "tokens"), [(tag, f"{tags[tag]:,}") for tag in task.labels])]
    if task.kind == "choice":
        parts += ["## Options", options_told([row for p in task.splits.values() for row in p])]
    rows = sorted(chain.from_iterable(task.splits.values()), key=lambda row: row["id"])[:3]
    shown = [" ".join(row[text]) if isinstance(row[text], list) else row[text] for row in rows]
    parts += [
        "## What was found on the way",
        table(("", "number"), [(what, f"{number:,}") for what, number in task.counts.items()]),
        "## Examples",
        "\n".join(f"- {shorten(line)}" for line in shown),
        "## Known problems\n\n"
        + "\n".join(f"- {problem}" for problem in PROBLEMS.get(name, origin.problems)),
    ]
    return "\n\n".join(parts) + "\n"


def options_told(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many options a question has and, where they are few and the same for all, how often each is the answer."""
    sizes = Counter(len(row["options"]) for row in rows)
    told = (
        f"Number of options: {', '.join(f'{n} ({times:,} questions)' for n, times in sorted(sizes.items()))}."
    )
    answers = Counter(row["options"][row["answer"]] for row in rows)
    if len({frozenset(row["options"]) for row in rows}) == 1:
        told += f" Answers: {', '.join(f'{word} {times:,}' for word, times in answers.most_common())}."
    return told + " Their order is ours: by a hash of the texts, since several files put the right one first."


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check all cards. Returns 0, or 1 if ``--check`` found an old card."""
    parser = argparse.ArgumentParser(description="Generate data/cards/*.md from the data.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing, exit with 1 if a card is out of date"
    )
    check = parser.parse_args(arguments).check
    folder: Path = find_root() / "data" / "cards"
    old = []
    for name in tasks.names():
        path, text = folder / f"{name}.md", render(name)
        if check:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                old.append(name)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        print(
            f"{name}: "
            + ", ".join(f"{split} {len(rows):,}" for split, rows in tasks.load(name).splits.items())
        )
    if old:
        print(f"out of date: {', '.join(old)}; run `python -m instructlab_repro.pages.cards`")
    return bool(old)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
