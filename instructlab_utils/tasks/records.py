"""Tasks whose answer is not one label: questions, tagged tokens, texts to write, options to choose from. All come from
files of BIG-bench.

A reader turns its file into rows, dicts with the columns of its kind and ``group``: rows of one group share a split.
It stops with a DataError, naming file and example, at the first row that is not in the expected form.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from instructlab_utils.errors import DataError
from instructlab_utils.tasks.sources import clean

Record = dict[str, Any]
NONE = {"unknown", ""}  # what disfl_qa writes where the text does not answer


class Records(NamedTuple):
    """A task of records: kind, metric, files in the asset, reader, what a group is, whether all of it is a test set.

    ``about`` and ``problems`` are what the data card says, where `cards.py` has no longer text.
    """

    kind: str
    metric: str
    files: tuple[str, ...]
    read: Callable[[list[Path], Counter[str]], Iterator[Record]]
    group: str
    test_only: bool = False
    about: str = ""
    problems: tuple[str, ...] = ()
    asset: str = "bigbench"


def load_json(path: Path, key: str) -> list[Any]:
    """The list under ``key`` of a JSON file; DataError where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[key]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no JSON with the list {key!r} ({error}); delete its folder and fetch the asset again"
        ) from error
    if not isinstance(found, list) or not found:
        raise DataError(f"{path}: {key!r} is empty or no list; delete its folder and fetch the asset again")
    return found


def examples(path: Path, counts: Counter[str]) -> Iterator[tuple[str, str, list[str]]]:
    """(place, input, targets) of every example of a BIG-bench ``task.json``. DataError where a field is missing."""
    for number, example in enumerate(load_json(path, "examples"), start=1):
        place = f"{path}, example {number}"
        source, target = (example.get(name) for name in ("input", "target"))
        targets = [target] if isinstance(target, str) else target
        if not isinstance(source, str):
            raise DataError(f"{place}, field input: {source!r}: write a text, or delete the example")
        if not isinstance(targets, list) or not targets or not all(isinstance(t, str) for t in targets):
            raise DataError(f"{place}, field target: {target!r}: write a text or a list of texts")
        if source.strip():
            yield place, source, targets
        else:
            counts["examples left out: the input is empty"] += 1


# --- questions about a text -------------------------------------------------------------------------------------------


def placed(context: str, text: str, offset: int, counts: Counter[str]) -> tuple[str, int] | None:
    """The answer without outer white space, and where it stands: at its offset, else the nearest place; None if nowhere."""
    offset += len(text) - len(text.lstrip())
    text = text.strip()
    if context[offset : offset + len(text)] == text:
        return text, offset
    found = [match.start() for match in re.finditer(re.escape(text), context)]
    if not text or not found:
        counts["answers left out: they do not stand in the text"] += 1
        return None
    counts["answers whose offset was wrong: the nearest place is taken"] += 1
    return text, min(found, key=lambda start: abs(start - offset))


def squad(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """SQuAD's own format; the group is the article. A question none of whose answers stands in the text is left out."""
    for path in files:
        for article in load_json(path, "data"):
            for paragraph in article["paragraphs"]:
                context = paragraph["context"]
                for qa in paragraph["qas"]:
                    answers = (placed(context, a["text"], a["answer_start"], counts) for a in qa["answers"])
                    found = list(dict.fromkeys(answer for answer in answers if answer))
                    if not found:
                        counts["questions left out: no answer stands in the text"] += 1
                        continue
                    yield {
                        "id": "",
                        "question": clean(qa["question"]),
                        "context": context,
                        "answers": [text for text, _ in found],
                        "starts": [start for _, start in found],
                        "group": article["title"],
                    }


def disfluent(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Questions with corrections on the way, ``question \\ncontext: text``; without an answer where it is `unknown`."""
    for path in files:
        for place, source, targets in examples(path, counts):
            question, mark, context = source.partition("\ncontext:")
            if not mark:
                raise DataError(
                    f"{place}, field input: no line 'context:': write question, line break, context:"
                )
            context, answer = context.strip(), targets[0].strip()
            start = context.find(answer) if answer not in NONE else -1
            if answer not in NONE and start < 0:
                counts["questions left out: the answer does not stand in the text"] += 1
                continue
            answers, starts = ([answer], [start]) if start >= 0 else ([], [])
            yield {
                "id": "",
                "question": clean(question),
                "context": context,
                "answers": answers,
                "starts": starts,
                "group": context,
            }


# --- tagged tokens ----------------------------------------------------------------------------------------------------


def attributes(text: str) -> dict[str, str]:
    """``name: Blue Spice, area: city centre`` → {"name": "Blue Spice", "area": "city centre"}."""
    keys = [(m.group(1), m.start(), m.end()) for m in re.finditer(r"(?:^|, )([A-Za-z ]+): ", text)]
    ends = [start for _, start, _ in keys[1:]] + [len(text)]
    return {key: text[end:stop] for (key, _, end), stop in zip(keys, ends, strict=True)}


def slots(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Restaurant descriptions; the words of an attribute's value, where it stands in the text verbatim, are tagged."""
    for path in files:
        for _, source, targets in examples(path, counts):
            text = clean(targets[0])
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
            yield {"id": "", "tokens": [word for word, _, _ in words], "tags": tags, "group": source}


def polish(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Polish sentences with a type per word; of these we keep the named entities, and write them as BIO."""
    for path in files:
        for place, source, targets in examples(path, counts):
            tokens, types = source.split(), targets[0].split()
            if len(tokens) != len(types):
                raise DataError(f"{place}: {len(tokens)} words, {len(types)} tags: write a tag for each word")
            kinds = [t.removeprefix("nam_") if re.fullmatch(r"nam_[a-z]+", t) else "" for t in types]
            tags, last = [], ""
            for kind in kinds:
                tags.append(f"{'I' if kind == last else 'B'}-{kind}" if kind else "O")
                last = kind
            yield {"id": "", "tokens": tokens, "tags": tags, "group": source}


# --- texts to write ---------------------------------------------------------------------------------------------------


def pairs(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Input and the texts that answer it; equal inputs become one row with all their texts."""
    answers: dict[str, list[str]] = defaultdict(list)
    for path in files:
        for _, source, targets in examples(path, counts):
            answers[source.strip()] += [text for text in map(str.strip, targets) if text]
    for source, found in answers.items():
        if not found:
            counts["inputs left out: no text answers them"] += 1
            continue
        yield {"id": "", "source": source, "targets": list(dict.fromkeys(found)), "group": source}


def triples(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """As :func:`pairs`, with the input ``(subject | relation | object), …`` also taken apart."""
    for row in pairs(files, counts):
        parts = re.findall(r"\(([^|]+) \| ([^|]+) \| (.+?)\)(?=, \(|$)", row["source"])
        if row["source"] != ", ".join(f"({' | '.join(part)})" for part in parts):
            raise DataError(
                f"{files[0]}, input {row['source'][:60]!r}: write (subject | relation | object), …"
            )
        yield row | {"triples": [[part.replace("_", " ") for part in one] for one in parts]}


def databases(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Questions to a database, whose columns stand behind the question; the group is the database."""
    for row in pairs(files, counts):
        yield row | {"group": row["source"].partition("|")[2].strip()}


def parallel(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Two files of the same sentences, row by row, in two languages. Rows whose labels differ are not the same sentence."""
    columns = [
        load_json(path, "examples") for path in sorted(files, key=lambda p: "_en" not in p.parent.name)
    ]
    if len(columns) != 2 or len(columns[0]) != len(columns[1]):
        raise DataError(f"{files[0].parent}: need two files with equally many rows; fetch the asset again")
    seen: set[str] = set()
    for one, two in zip(*columns, strict=True):
        label = max(one["target_scores"], key=one["target_scores"].get)
        source, target = clean(one["input"]), clean(two["input"])
        if one["target_scores"] != two["target_scores"]:
            counts["rows left out: the two labels differ"] += 1
        elif not source or not target or source in seen:
            counts["rows left out: empty or found twice"] += 1
        else:
            seen.add(source)
            yield {"id": "", "source": source, "targets": [target], "group": source, "label": label}


# --- options to choose from -------------------------------------------------------------------------------------------

LONGEST = 6000  # rows read of a file: two of them have tens of thousands


def shuffled(source: str, options: list[str]) -> list[str]:
    """The options in an order that depends on the texts alone: several files put the right answer first."""
    return sorted(options, key=lambda option: hashlib.sha256(f"{source}\n{option}".encode()).hexdigest())


def choices(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Questions with options and a score for each. The best-scored one is the answer; ties are left out."""
    for path in files:
        rows = load_json(path, "examples")
        counts[f"examples left out: after the first {LONGEST:,}"] += max(0, len(rows) - LONGEST)
        for number, example in enumerate(rows[:LONGEST], start=1):
            place = f"{path}, example {number}"
            source, scores = example.get("input"), example.get("target_scores")
            if not isinstance(source, str):
                raise DataError(f"{place}, field input: {source!r}: write a text, or delete the example")
            if (
                not isinstance(scores, dict)
                or len(scores) < 2
                or not all(isinstance(score, (int, float)) for score in scores.values())
            ):
                raise DataError(
                    f"{place}, field target_scores: write two or more options, each with a number"
                )
            texts = {option.strip(): float(score) for option, score in scores.items()}
            best = [option for option, score in texts.items() if score == max(texts.values())]
            if len(best) != 1 or len(texts) < len(scores) or "" in texts or not source.strip():
                counts["examples left out: empty, or no single best option"] += 1
                continue
            source = "\n".join(clean(line) for line in source.splitlines() if line.strip())
            options = shuffled(source, list(texts))
            yield {
                "id": "",
                "input": source,
                "options": options,
                "answer": options.index(best[0]),
                "group": source,
            }


def closed(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Questions answered with one of few words, as an example's first target has them; the words are the options."""
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
            yield {
                "id": "",
                "input": source,
                "options": options,
                "answer": options.index(answer),
                "group": source,
            }


RECORDS = {
    "squad": Records("qa", "f1", ("squad_shifts/squaddev_v1.1.json",), squad, "a Wikipedia article"),
    "squad-newwiki": Records("qa", "f1", ("squad_shifts/new_wiki_v1.0.json",), squad, "an article", True),
    "squad-nyt": Records("qa", "f1", ("squad_shifts/nyt_v1.0.json",), squad, "an article", True),
    "squad-reddit": Records("qa", "f1", ("squad_shifts/reddit_v1.0.json",), squad, "the whole set", True),
    "squad-amazon": Records("qa", "f1", ("squad_shifts/amazon_reviews_v1.0.json",), squad, "a review", True),
    "disfl-qa": Records("qa", "f1", ("disfl_qa/task.json",), disfluent, "a paragraph"),
    "e2e-slots": Records("tokens", "span F1", ("gem/e2e_nlg/task.json",), slots, "a set of attributes"),
    "polish-ner": Records("tokens", "span F1", ("polish_sequence_labeling/task.json",), polish, "a sentence"),
    "e2e": Records("generation", "chrF", ("gem/e2e_nlg/task.json",), pairs, "a set of attributes"),
    "webnlg": Records("generation", "chrF", ("gem/webnlg_en/task.json",), triples, "a set of triples"),
    "xsum": Records("generation", "ROUGE-L", ("gem/xsum/task.json",), pairs, "an article"),
    "wikilingua": Records("generation", "ROUGE-L", ("gem/wikilingua_en/task.json",), pairs, "a text"),
    "schema-dialog": Records("generation", "chrF", ("gem/schema_guided_dialog/task.json",), pairs, "a turn"),
    "spider": Records(
        "generation", "exact match", ("semantic_parsing_spider/task.json",), databases, "a database"
    ),
    "products-en-de": Records(
        "generation",
        "chrF",
        ("multiemo/products_sentence_en/task.json", "multiemo/products_sentence_de/task.json"),
        parallel,
        "a sentence",
    ),
    "analytic-entailment": Records(
        "choice",
        "accuracy",
        ("analytic_entailment/task.json",),
        choices,
        "a question",
        about="pairs of sentences; does the first entail the second?",
    ),
    "entailed-polarity": Records(
        "choice",
        "accuracy",
        ("entailed_polarity/task.json",),
        choices,
        "a question",
        about="facts and questions; does the fact imply yes or no?",
        problems=(
            "Nearly all answers are what the verb's polarity says, so a rule on a few verbs would solve it.",
        ),
    ),
    "vitaminc": Records(
        "choice",
        "accuracy",
        ("vitaminc_fact_verification/task.json",),
        choices,
        "a question",
        about="claims and a sentence of Wikipedia; is the claim true, false, or neither? (Schuster et al. 2021)",
        problems=("Rows that share a sentence or a claim may stand in two splits.",),
    ),
    "fever": Records(
        "choice",
        "accuracy",
        ("fact_checker/fever/task.json",),
        choices,
        "a question",
        about="claims about people and things, true or false, after FEVER (Thorne et al. 2018)",
        problems=("No evidence is given: a model answers from what it remembers.",),
    ),
    "misconceptions": Records(
        "choice",
        "accuracy",
        ("misconceptions/task.json",),
        choices,
        "a question",
        about="common misconceptions and true statements of the same kind",
        problems=("The options are the letters T and F.",),
    ),
    "strategyqa": Records(
        "choice",
        "accuracy",
        ("strategyqa/task.json",),
        choices,
        "a question",
        about="yes-or-no questions that need several unstated steps (Geva et al. 2021)",
    ),
    "metaphor-boolean": Records(
        "choice",
        "accuracy",
        ("metaphor_boolean/task.json",),
        choices,
        "a question",
        about="a metaphoric sentence and a second one; is it a right paraphrase?",
    ),
    "metaphor-literal": Records(
        "choice",
        "accuracy",
        ("metaphor_understanding/met2lit/task.json",),
        choices,
        "a question",
        about="metaphoric sentences and literal versions that differ in a few words",
    ),
    "irony": Records(
        "choice",
        "accuracy",
        ("irony_identification/task.json",),
        choices,
        "a question",
        about="sentences; ironic or not?",
    ),
    "implicatures": Records(
        "choice",
        "accuracy",
        ("implicatures/task.json",),
        choices,
        "a question",
        about="what a speaker answers; does it mean yes or no? (George and Mamidi 2020)",
    ),
    "intent": Records(
        "choice",
        "accuracy",
        ("intent_recognition/task.json",),
        choices,
        "a question",
        about="things said to an assistant, with seven intents, after SNIPS (Coucke et al. 2018)",
        problems=("The options are names with underscores.",),
    ),
    "social-support": Records(
        "choice",
        "accuracy",
        ("social_support/task.json",),
        choices,
        "a question",
        about="replies; supportive, neutral or unsupportive?",
        problems=("Most replies are neutral: compare with the largest class.",),
    ),
    "social-iqa": Records(
        "choice",
        "accuracy",
        ("social_iqa/task.json",),
        choices,
        "a question",
        about="everyday situations and what follows from them (Sap et al. 2019)",
    ),
    "goal-inference": Records(
        "choice",
        "accuracy",
        ("goal_step_wikihow/goal_inference/task.json",),
        choices,
        "a question",
        about="steps of how-to guides; which goal do they serve? (Zhang et al. 2020)",
    ),
    "step-inference": Records(
        "choice",
        "accuracy",
        ("goal_step_wikihow/step_inference/task.json",),
        choices,
        "a question",
        about="goals of how-to guides; which step belongs to them? (Zhang et al. 2020)",
    ),
    "phrase-relatedness": Records(
        "choice",
        "accuracy",
        ("phrase_relatedness/task.json",),
        choices,
        "a question",
        about="a phrase; which of four others is most related?",
    ),
    "odd-one-out": Records(
        "choice",
        "accuracy",
        ("odd_one_out/task.json",),
        choices,
        "a question",
        about="lists of words; which does not belong?",
        problems=("Few examples.",),
    ),
    "general-knowledge": Records(
        "choice",
        "accuracy",
        ("general_knowledge/task.json",),
        choices,
        "a question",
        about="questions that a child can answer",
        problems=("Few examples.",),
    ),
    "similarities": Records(
        "choice",
        "accuracy",
        ("similarities_abstraction/task.json",),
        choices,
        "a question",
        about="two things; how are they alike?",
        problems=("Few examples.",),
    ),
    "logical-deduction": Records(
        "choice",
        "accuracy",
        ("logical_deduction/three_objects/task.json",),
        choices,
        "a question",
        about="three things in an order, and statements about it",
        problems=("The texts follow a few patterns.",),
    ),
    "navigate": Records(
        "choice",
        "accuracy",
        ("navigate/task.json",),
        choices,
        "a question",
        about="steps and turns; do they lead back to the start?",
        problems=("The texts follow a few patterns.",),
    ),
    "unit-identification": Records(
        "choice",
        "accuracy",
        ("unit_conversion/unit_identification/task.json",),
        choices,
        "a question",
        about="a quantity in another unit; which unit fits?",
        problems=("The texts follow a few patterns.",),
    ),
    "two-digit-addition": Records(
        "choice",
        "accuracy",
        ("arithmetic/2_digit_addition/task.json",),
        choices,
        "a question",
        about="sums of two numbers, the wrong options drawn at random",
        problems=("Several wrong options, such as `banana`, are no numbers.",),
    ),
    "dates": Records(
        "choice",
        "accuracy",
        ("date_understanding/task.json",),
        choices,
        "a question",
        about="short texts from which a date follows",
        problems=(
            "One situation is asked about several times; the questions may stand in different splits.",
        ),
    ),
    "sports": Records(
        "choice",
        "accuracy",
        ("sports_understanding/task.json",),
        choices,
        "a question",
        about="statements about athletes; plausible or not?",
        problems=("It is a memory test for names.",),
    ),
    "anachronisms": Records(
        "choice",
        "accuracy",
        ("anachronisms/task.json",),
        choices,
        "a question",
        about="sentences; do they hold an anachronism?",
        problems=("Sentences come in pairs of which one holds it; a pair may stand in two splits.",),
    ),
    "physical-intuition": Records(
        "choice",
        "accuracy",
        ("physical_intuition/task.json",),
        choices,
        "a question",
        about="questions of school physics and chemistry",
        problems=("Few examples.",),
    ),
    "code-lines": Records(
        "choice",
        "accuracy",
        ("code_line_description/task.json",),
        choices,
        "a question",
        about="a few lines of Python, and descriptions of what they do",
        problems=("Few examples.",),
    ),
    "ni-question-type": Records(
        "choice",
        "accuracy",
        ("natural_instructions/subtask046_miscellaenous_question_typing/task.json",),
        closed,
        "a question",
        about="question and answer; of which type is the answer? Natural Instructions (Mishra et al. 2022)",
        problems=(
            "Some questions have several right types; the first one counts.",
            "Types with less than one in a hundred questions are left out.",
        ),
    ),
    "ni-qasc": Records(
        "generation",
        "exact match",
        ("natural_instructions/subtask041_qasc_answer_generation/task.json",),
        pairs,
        "a question",
        about="a fact and a question that it answers. Natural Instructions (Mishra et al. 2022)",
        problems=("Some answers repeat the question or carry a letter in brackets.",),
    ),
    "ni-winogrande": Records(
        "generation",
        "exact match",
        ("natural_instructions/subtask033_winogrande_answer_generation/task.json",),
        pairs,
        "a question",
        about="sentences with a blank, to be filled with one of two things named. Natural Instructions (Mishra et al. 2022)",
        problems=("Twin sentences may stand in two splits.",),
    ),
    "ni-overlap": Records(
        "generation",
        "exact match",
        ("natural_instructions/subtask039_qasc_find_overlapping_words/task.json",),
        pairs,
        "a question",
        about="two sentences; which word do they share? Natural Instructions (Mishra et al. 2022)",
        problems=("Several words may be right; the file knows one or a few.",),
    ),
}
