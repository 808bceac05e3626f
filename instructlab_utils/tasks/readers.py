"""Readers of raw files, one for each format; data/tasks.toml says which task has which (lessons 03 to 14 use the tasks).

A reader gives every row of its files, cleaned, and stops with a DataError, naming file and place, at the first row
that is not in the expected form: a silent guess here would become a silent error in every result. What it leaves out
or repairs it counts. Rows of a classification are `Row`s; the others are dicts with the columns of their kind and
``group``: rows of one group share a split.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from instructlab_utils.errors import DataError
from instructlab_utils.tasks.fields import FEWEST, checked, examples, load_json, scored_options, text_lines
from instructlab_utils.tasks.newspaper import annotated

Record = dict[str, Any]
NONE = {"unknown", ""}  # what disfl_qa writes where the text does not answer
LONGEST = 6000  # rows read of a file with options: two of them have tens of thousands


class Row(NamedTuple):
    """One raw text (lesson 03) with people's mean ``rating`` (else NaN) or the source's ``label`` (else None).

    ``article`` is the number of the text that a sentence was cut from, "" where the source does not tell.
    """

    text: str
    rating: float = float("nan")
    label: str | None = None
    article: str = ""


def clean(text: str) -> str:
    """Resolve HTML entities (some are escaped twice) and turn every run of white space into one space (lesson 03)."""
    return " ".join(html.unescape(html.unescape(text)).split())


# --- texts with a label or a rating ----------------------------------------------------------------------------------


def rated(files: list[Path], counts: Counter[str], has_articles: bool = False) -> Iterator[Row]:
    """Lines of the form ``id TAB mean rating TAB text``; with ``has_articles`` the id is article_sentence (lesson 03)."""
    for path in files:
        if not (lines := path.read_bytes().splitlines()):
            raise DataError(f"{path} is empty: delete its folder and fetch the asset again")
        for number, raw in enumerate(lines, start=1):
            yield _rated(raw, f"{path}, line {number}", has_articles, counts)


def _rated(raw: bytes, place: str, has_articles: bool, counts: Counter[str]) -> Row:
    try:
        fields = raw.decode("utf-8").split("\t")
    except UnicodeDecodeError as error:
        bad = f"{place}, field {raw[: error.start].count(9) + 1}: byte 0x{raw[error.start]:02x}"
        raise DataError(f"{bad} is not UTF-8: save the file as UTF-8") from None
    if len(fields) != 3:
        raise DataError(
            f"{place}: {len(fields)} field(s), not 3: put one tab after the id and after the rating"
        )
    if has_articles and not re.fullmatch(r"\d+_\d+", fields[0]):
        raise DataError(f"{place}, field 1 (id): {fields[0]!r}: write article_sentence, such as 12_3")
    try:
        rating = float(fields[1])
    except ValueError:
        rating = float("nan")
    if not -4 <= rating <= 4:
        raise DataError(f"{place}, field 2 (rating): {fields[1]!r}: write a number from -4 to 4")
    if not clean(fields[2]):
        raise DataError(f"{place}, field 3 (text) is empty: write the sentence, or delete the line")
    counts["texts with HTML entities"] += html.unescape(fields[2]) != fields[2]
    article = fields[0].split("_")[0] if has_articles else ""
    return Row(clean(fields[2]), rating=rating, article=article)


def filed(files: list[Path], counts: Counter[str]) -> Iterator[Row]:
    """Files ``label/NNN.txt``, title in the first line; the text is title, line break, body (lesson 08).

    A file that is not UTF-8 is read as Windows-1252 and counted. DataError where both fail.
    """
    for path in files:
        yield _filed(path, counts)


def _filed(path: Path, counts: Counter[str]) -> Row:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        counts["files not in UTF-8"] += 1
        try:
            text = raw.decode("cp1252")
        except UnicodeDecodeError as error:
            bad = f"{path}, line {raw[: error.start].count(10) + 1}: byte 0x{raw[error.start]:02x}"
            raise DataError(f"{bad} is neither UTF-8 nor Windows-1252: save the file as UTF-8") from None
    title, _, body = text.strip().partition("\n")
    if not clean(title) or not clean(body):
        raise DataError(f"{path}, line 1: title or body is missing: write both, or delete the file")
    counts["texts with HTML entities"] += html.unescape(text) != text
    return Row(f"{clean(title)}\n{clean(body)}", label=path.parent.name)


def lines(files: list[Path], counts: Counter[str]) -> Iterator[Row]:
    """Files ``label.txt``, a text in each line (lesson 27). Lines with fewer than `FEWEST` letters are left out."""
    for path in files:
        for _, text in text_lines(path):
            if sum(map(str.isalpha, text)) < FEWEST:
                counts["lines left out: hardly a letter"] += 1
            else:
                yield Row(clean(text), label=path.stem)


# --- questions about a text -------------------------------------------------------------------------------------------


def placed(context: str, text: str, offset: int, counts: Counter[str]) -> tuple[str, int] | None:
    """The answer, stripped, and where it stands: at its offset, else the nearest place; None if nowhere (lesson 05).

    The nearest place as a whole word, if there is one: "art" is not looked for in "party".
    """
    offset += len(text) - len(text.lstrip())
    text = text.strip()
    if context[offset : offset + len(text)] == text:
        return text, offset
    words = re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", context)
    found = [m.start() for m in words] or [m.start() for m in re.finditer(re.escape(text), context)]
    if not text or not found:
        counts["answers left out: they do not stand in the text"] += 1
        return None
    counts["answers whose offset was wrong: the nearest place is taken"] += 1
    return text, min(found, key=lambda start: abs(start - offset))


def squad(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """SQuAD's own format, 1.1 or 2.0; the group is the article (lesson 05).

    A question whose answers do not stand in the text is left out. One that says ``is_impossible`` has none.
    Of the other fields ``id``, ``split`` and ``plausible_answers`` are known and not read.
    """
    for group, place, context, qa in _questions(files):
        answers = [
            checked(answer, f"{place}, answer {k}", {"text": str, "answer_start": int}, frozenset())
            for k, answer in enumerate(qa["answers"], start=1)
        ]
        impossible = qa.get("is_impossible", False)
        if not isinstance(impossible, bool) or (impossible and answers):
            raise DataError(
                f"{place}, field is_impossible: {impossible!r} beside {len(answers)} answers: mend one"
            )
        places = (placed(context, a["text"], a["answer_start"], counts) for a in answers)
        found = list(dict.fromkeys(answer for answer in places if answer))
        if not found and not impossible:
            counts["questions left out: no answer stands in the text"] += 1
            continue
        yield {
            "question": clean(qa["question"]),
            "context": context,
            "answers": [text for text, _ in found],
            "starts": [start for _, start in found],
            "group": group,
        }


def _questions(files: list[Path]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Title, place, context and question of SQuAD's three levels. DataError for what is not in its form."""
    more = frozenset({"id", "is_impossible", "plausible_answers"})
    for path in files:
        for i, article in enumerate(load_json(path, "data"), start=1):
            place = f"{path}, article {i}"
            checked(article, place, {"title": str, "paragraphs": list}, frozenset({"split"}))
            for j, paragraph in enumerate(article["paragraphs"], start=1):
                there = f"{place}, paragraph {j}"
                checked(paragraph, there, {"context": str, "qas": list}, frozenset())
                for k, qa in enumerate(paragraph["qas"], start=1):
                    where = f"{there}, question {k}"
                    checked(qa, where, {"question": str, "answers": list}, more)
                    yield article["title"], where, paragraph["context"], qa


def _only(targets: list[str], place: str) -> str:
    if len(targets) != 1:
        raise DataError(f"{place}, field target: {len(targets)} texts, of which one would be read: leave one")
    return targets[0]


def disfluent(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Questions with corrections on the way, ``question \\ncontext: text``; no answer where it is `unknown` (lesson 05)."""
    for path in files:
        for place, source, targets in examples(path, counts):
            answer = _only(targets, place).strip()
            question, mark, context = source.partition("\ncontext:")
            if not mark:
                raise DataError(f"{place}, field input: no line 'context:': write question, line break, it")
            context = context.strip()
            start = context.find(answer) if answer not in NONE else -1
            if answer not in NONE and start < 0:
                counts["questions left out: the answer does not stand in the text"] += 1
                continue
            answers, starts = ([answer], [start]) if start >= 0 else ([], [])
            yield {
                "question": clean(question),
                "context": context,
                "answers": answers,
                "starts": starts,
                "group": context,
            }


# --- tagged tokens ----------------------------------------------------------------------------------------------------


def attributes(text: str) -> dict[str, str]:
    """``name: Blue Spice, area: city centre`` → {"name": "Blue Spice", "area": "city centre"} (lesson 04)."""
    keys = [(m.group(1), m.start(), m.end()) for m in re.finditer(r"(?:^|, )([A-Za-z ]+): ", text)]
    ends = [start for _, start, _ in keys[1:]] + [len(text)]
    return {key: text[end:stop] for (key, _, end), stop in zip(keys, ends, strict=True)}


def slots(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Restaurant descriptions; where an attribute's value stands in the text verbatim, its words are tagged (lesson 04)."""
    for path in files:
        for place, source, targets in examples(path, counts):
            text = clean(_only(targets, place))
            words = [(m.group(), *m.span()) for m in re.finditer(r"\w+|[^\w\s]", text)]
            tags = ["O"] * len(words)
            # Long values first: "restaurant" must not claim a word of a name that holds it.
            for key, value in sorted(attributes(source).items(), key=lambda item: (-len(item[1]), item[0])):
                if key == "familyFriendly":  # yes or no: never a phrase of the text
                    continue
                counts["attribute values"] += 1
                pattern = rf"(?<!\w){re.escape(value)}(?!\w)"
                for match in re.finditer(pattern, text, flags=re.IGNORECASE):
                    inside = [
                        i for i, (_, a, b) in enumerate(words) if match.start() <= a and b <= match.end()
                    ]
                    if inside and all(tags[i] == "O" for i in inside):
                        label = key.replace(" ", "_")
                        tags[inside[0]] = f"B-{label}"
                        tags[inside[0] + 1 : inside[-1] + 1] = [f"I-{label}"] * (len(inside) - 1)
                        counts["attribute values found verbatim"] += 1
                        break
            yield {"tokens": [word for word, _, _ in words], "tags": tags, "group": source}


def polish(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Polish sentences with a type per word; of these we keep the named entities, and write them as BIO (lesson 04)."""
    for path in files:
        for place, source, targets in examples(path, counts):
            tokens, types = source.split(), _only(targets, place).split()
            if len(tokens) != len(types):
                raise DataError(f"{place}: {len(tokens)} words, {len(types)} tags: write a tag for each word")
            kinds = [t.removeprefix("nam_") if re.fullmatch(r"nam_[a-z]+", t) else "" for t in types]
            tags, last = [], ""
            for kind in kinds:
                tags.append(f"{'I' if kind == last else 'B'}-{kind}" if kind else "O")
                last = kind
            yield {"tokens": tokens, "tags": tags, "group": source}


# --- texts to write ---------------------------------------------------------------------------------------------------


def pairs(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Input and the texts that answer it; equal inputs become one row with all their texts (lesson 06)."""
    answers: dict[str, list[str]] = defaultdict(list)
    for path in files:
        for _, source, targets in examples(path, counts):
            answers[source.strip()] += [text for text in map(str.strip, targets) if text]
    for source, found in answers.items():
        if not found:
            counts["inputs left out: no text answers them"] += 1
            continue
        yield {"source": source, "targets": list(dict.fromkeys(found)), "group": source}


def triples(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """As :func:`pairs`, with the input ``(subject | relation | object), …`` also taken apart (lesson 04)."""
    for row in pairs(files, counts):
        parts = re.findall(r"\(([^|]+) \| ([^|]+) \| (.+?)\)(?=, \(|$)", row["source"])
        if row["source"] != ", ".join(f"({' | '.join(part)})" for part in parts):
            raise DataError(
                f"{files[0]}, input {row['source'][:60]!r}: write (subject | relation | object), …"
            )
        yield row | {"triples": [[part.replace("_", " ") for part in one] for one in parts]}


def databases(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Questions to a database, whose columns stand behind the question; the group is the database (lesson 06)."""
    for row in pairs(files, counts):
        yield row | {"group": row["source"].partition("|")[2].strip()}


def parallel(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Two files of the same sentences, row by row, in two languages; rows whose labels differ are left out (lesson 07)."""
    columns = [
        load_json(path, "examples") for path in sorted(files, key=lambda p: "_en" not in p.parent.name)
    ]
    if len(columns) != 2 or len(columns[0]) != len(columns[1]):
        raise DataError(f"{files[0].parent}: need two files with equally many rows; fetch the asset again")
    seen: set[str] = set()
    for number, both in enumerate(zip(*columns, strict=True), start=1):
        one, two = (scored_options(example, f"{files[0].parent}, example {number}") for example in both)
        label = max(one["target_scores"], key=one["target_scores"].get)
        source, target = clean(one["input"]), clean(two["input"])
        if one["target_scores"] != two["target_scores"]:
            counts["rows left out: the two labels differ"] += 1
        elif not source or not target or source in seen:
            counts["rows left out: empty or found twice"] += 1
        else:
            seen.add(source)
            yield {"source": source, "targets": [target], "group": source, "label": label}


# --- options to choose from -------------------------------------------------------------------------------------------


def shuffled(source: str, options: list[str]) -> list[str]:
    """The options in an order that depends on the texts alone: several files put the right answer first (lesson 12)."""
    return sorted(options, key=lambda option: hashlib.sha256(f"{source}\n{option}".encode()).hexdigest())


def _begins(text: str, option: str) -> bool:
    """Whether ``text`` is the option, or begins with it as a whole word: "Yes. A comet is …"."""
    return re.match(rf"\s*{re.escape(option)}(?!\w)", text) is not None


def choices(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Questions with options and a score for each. The best-scored one is the answer; ties are left out (lesson 12)."""
    for path in files:
        rows = load_json(path, "examples")
        if len(rows) > LONGEST:
            counts[f"examples left out: after the first {LONGEST:,}"] += len(rows) - LONGEST
        for number, example in enumerate(rows[:LONGEST], start=1):
            scored_options(example, f"{path}, example {number}")
            source, scores = example["input"], example["target_scores"]
            texts = {option.strip(): float(score) for option, score in scores.items()}
            best = [option for option, score in texts.items() if score == max(texts.values())]
            if len(best) != 1 or len(texts) < len(scores) or "" in texts or not source.strip():
                counts["examples left out: empty, or no single best option"] += 1
                continue
            said = example.get("target", best[0])
            if not any(_begins(text, best[0]) for text in ([said] if isinstance(said, str) else said)):
                counts["examples left out: target and target_scores differ"] += 1
                continue
            source = "\n".join(clean(line) for line in source.splitlines() if line.strip())
            options = shuffled(source, list(texts))
            yield {"input": source, "options": options, "answer": options.index(best[0]), "group": source}


def closed(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Questions answered with one of few words, the first target of each; these words are the options (lesson 14)."""
    for path in files:
        found = [(source, targets[0].strip(" .")) for _, source, targets in examples(path, counts)]
        usual = Counter(answer for _, answer in found)
        words = sorted(word for word, times in usual.items() if word and 100 * times >= len(found))
        for source, answer in found:
            if answer not in words:
                counts["examples left out: a rare answer"] += 1
                continue
            source = "\n".join(clean(line) for line in source.splitlines() if line.strip())
            options = shuffled(source, words)
            yield {"input": source, "options": options, "answer": options.index(answer), "group": source}


READERS: dict[str, tuple[str, Callable[[list[Path], Counter[str]], Iterator[Any]]]] = {  # name → kind, reader
    "rated": ("classification", rated),
    "rated_by_article": ("classification", partial(rated, has_articles=True)),
    "filed": ("classification", filed),
    "lines": ("classification", lines),
    "squad": ("qa", squad),
    "disfluent": ("qa", disfluent),
    "slots": ("tokens", slots),
    "polish": ("tokens", polish),
    "annotated": ("tokens", annotated),
    "pairs": ("generation", pairs),
    "triples": ("generation", triples),
    "databases": ("generation", databases),
    "parallel": ("generation", parallel),
    "choices": ("choice", choices),
    "closed": ("choice", closed),
}
