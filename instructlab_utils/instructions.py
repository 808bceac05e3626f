"""Instructions as data: a validated record, files without silent losses, sets without copies or leaks.

A set is a file of JSON Lines, one `Instruction` a line; ours is data/instructions/course.jsonl, its card
data/cards/instructions.md. `read` turns every line into a record or into a `Problem`, one sentence that names file, line,
field, fault and fix. `load` also looks at the set as a whole: copies, and the same text on both sides of a split.

Taught in lesson 14. torch is not needed here.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import regex
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from instructlab_utils.characters import LETTER, UNSPACED, canonical, occurs
from instructlab_utils.errors import InstructionError
from instructlab_utils.project import closest
from instructlab_utils.tasks import JACCARD, shingles

INPUT = "{input}"  # where the input goes in a text
LINE = "whole line"  # the field of a problem that no single field has
SHINGLE = 3  # words; instructions are shorter than the texts for which `data.shingles` takes 5

CJK = "\u3400-\u9fff"
HIDDEN = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
_MARKS = r"[.,;:!?'\"¿¡،؛؟।॥。、《》「」『』]"
MARK = regex.compile(rf"(?!(?<![{LETTER}.])\.\d|!=)(?:(?<!\d){_MARKS}|{_MARKS}(?!\d))")  # not of .5 and !=
SPACE = regex.compile(rf"(?<![{LETTER}]) | (?![{LETTER}])|(?<=[{UNSPACED}]) | (?=[{UNSPACED}])")


class Refused(ValueError):
    """Its three arguments: the field, what is wrong with it, the fix."""


def _must(condition: bool, field: str, reason: str, fix: str) -> None:
    if not condition:
        raise Refused(field, reason, fix)


def show(value: Any) -> str:
    """A value in a message: on one line, short, and nothing in it that a terminal would obey."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "…")
    known = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return known.get(type(value), "a number")


def _without(pattern: str, reason: str, fix: str) -> AfterValidator:
    """Refuses a text in which the pattern is found."""

    def check(text: str) -> str:
        _must(not re.search(pattern, text), "", f"{show(text)} {reason}", fix)
        return text

    return AfterValidator(check)


_visible = _without(HIDDEN, "holds a character that cannot be seen or stored", "delete it")
_trimmed = _without(r"\A\s|\s\Z|\A\Z", "is blank or has white space at an end", "write a text without it")
_slug = _without(r"\A(?![a-z0-9]+(-[a-z0-9]+)*\Z)", "is no slug", "use a-z, digits and single hyphens")
Slug = Annotated[str, _slug]
Text = Annotated[str, _visible, _trimmed]


class Example(BaseModel):
    """One input and a correct output. The input is empty exactly where the instruction takes none."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    input: Annotated[str, _visible]
    output: Text


class Instruction(BaseModel):
    """One instruction, in one language, with other wordings, examples and a check for answers.

    ``text`` and ``paraphrases`` hold ``{input}`` exactly once each, or none of them does. ``options``: the closed answers,
    empty for free text; with them every output is one. ``translation_of``: the id of the record that this one says in
    another language. Every example's output passes the instruction's own ``check`` (see `passes`).

    Raises pydantic's ValidationError, a ValueError, where a field is missing, unknown, of a wrong type or inconsistent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: Slug
    kind: Slug
    cluster: Slug
    language: Literal["en", "zh"]
    text: Text
    paraphrases: Annotated[tuple[Text, ...], Field(min_length=2)]
    options: tuple[Text, ...] = ()
    check: Literal["exact", "contains", "one_of"]
    examples: Annotated[tuple[Example, ...], Field(min_length=2)]
    split: Literal["train", "dev", "test"]
    translation_of: Slug | None = None
    source: Text

    @property
    def wordings(self) -> dict[str, str]:
        """Field → wording: the text, then its paraphrases; `render` takes the index."""
        return {"text": self.text} | {f"paraphrases[{i}]": text for i, text in enumerate(self.paraphrases)}

    @model_validator(mode="after")
    def _consistent(self) -> Instruction:
        takes, seen = INPUT in self.text, set()
        for place, text in self.wordings.items():
            found = re.findall(r"\{\{\s*input\s*\}\}|\{\s*input\s*\}", text, re.IGNORECASE)
            fix = "write it once, in every wording or in none"
            _must(found == [INPUT] * takes, place, f"{INPUT} is missing, misspelt or not alone", fix)
            _must(normalised(text) not in seen, place, "another wording says the same", "write another one")
            seen.add(normalised(text))
            right, fix = (
                bool(re.search(f"[{CJK}]", text)) == (self.language == "zh"),
                "mend the text or the language",
            )
            _must(right, place, f"its script is not that of {self.language}", fix)
        options = [canonical(option, case=True) for option in self.options]
        distinct = len(set(options)) == len(options) != 1
        _must(distinct, "options", "there is only one, or one stands twice", "list two or more, or none")
        closed = bool(self.options) or self.check != "one_of"
        _must(closed, "options", "the check one_of needs closed answers", "list them, or use another check")
        inputs = Counter(canonical(example.input, case=True) for example in self.examples)
        for i, (given, output) in enumerate((example.input, example.output) for example in self.examples):
            place, reason = (
                f"examples[{i}].input",
                f"{show(given)} does not fit the use of {INPUT} in the text",
            )
            _must(bool(given.strip()) == takes, place, reason, "mend one of the two")
            alone = inputs[canonical(given, case=True)] == 1
            _must(not takes or alone, place, "another example has it too", "delete one of them")
            place, reason = f"examples[{i}].output", f"{show(output)} is not among the options"
            known = not options or canonical(output, case=True) in options
            _must(known, place, reason, "add it, or mend the example")
            reason = f"{show(output)} does not pass the check {self.check}"
            _must(passes(self, output, output), place, reason, "use options that do not contain each other")
        return self


def passes(instruction: Instruction, answer: str, output: str) -> bool:
    """Whether ``answer`` is right where ``output`` is, by the instruction's check.

    ``exact``: equal, but for white space at the ends. ``contains``: the output's words and symbols stand in the answer, in a
    row, whatever their case, and whole: C is not in C++, nor 50 in 50 %, nor toxic in non-toxic. A Chinese character is a
    word. Punctuation and the marks of Markdown, HTML and TeX do not count. ``one_of``: of all options, the output alone does
    so. Texts are compared in the form that `characters.canonical` gives. Source: lesson 00, section 1.
    """
    if instruction.check == "exact":
        return canonical(answer, case=True).strip() == canonical(output, case=True).strip()
    options, same = instruction.options if instruction.check == "one_of" else (), canonical(output, case=True)
    others = [option for option in options if canonical(option, case=True) != same]
    return occurs(output, answer) and not any(occurs(option, answer) for option in others)


def normalised(text: str) -> str:
    """The text in the form for comparison, without the marks of sentences and needless spaces; marks in numbers stay."""
    plain = canonical(text)
    return SPACE.sub("", " ".join(MARK.sub(" ", plain).split())) or plain


# --- files -------------------------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """What is wrong at one place of a set. ``str(problem)`` is one sentence."""

    file: str
    line: int
    field: str
    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}, field {self.field}: {self.reason}; {self.fix}."


def _name(place: Sequence[int | str]) -> str:
    """("examples", 0, "input") → examples[0].input"""
    keys = [p if isinstance(p, int) or re.fullmatch("[a-z_]+", p) else show(p) for p in place]
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for key, n in Counter(key for key, _ in pairs).items():
        if n > 1:
            raise Refused(_name([key]), "it stands twice in one object", "delete one of the two")
        if re.search(HIDDEN, key):  # pydantic cannot name a key with half a surrogate pair
            raise Refused(_name([key]), "there is no such field", "rename or delete it")
    return dict(pairs)


def _constant(name: str) -> None:
    raise Refused(LINE, f"{name} is no JSON", "delete it")


def _parse(line: bytes) -> Instruction:
    """Raises Refused, and nothing else, for whatever is no instruction."""
    try:
        text = line.decode("utf-8")
        _must(not text.startswith("\ufeff"), LINE, "a byte order mark is in front of it", "delete the mark")
        record = json.loads(text, object_pairs_hook=_unique, parse_constant=_constant)
        _must(isinstance(record, dict), LINE, f"it is {show(record)}", "write one JSON object a line")
        return Instruction.model_validate(record)
    except (Refused, ValidationError) as error:
        raise error if isinstance(error, Refused) else _explain(error) from None
    except UnicodeDecodeError as error:
        raise Refused(LINE, f"byte {error.start + 1} is not UTF-8", "save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        reason = f"it is not JSON ({error.msg.lower()}, column {error.colno})"
        raise Refused(LINE, reason, "write one JSON object a line") from None
    except (ValueError, RecursionError) as error:
        much = "levels of nesting" if isinstance(error, RecursionError) else "digits in a number"
        raise Refused(LINE, f"it has too many {much}", "write texts and lists of texts") from None


def _explain(errors: ValidationError) -> Refused:
    """The most telling of pydantic's errors: an unknown field explains why another one is missing."""
    error = max(errors.errors(include_url=False), key=lambda one: one["type"] == "extra_forbidden")
    place, value, more = error["loc"], f"it is {show(error['input'])}", error.get("ctx", {})
    if isinstance(more.get("error"), Refused):
        field, reason, fix = more["error"].args
        return Refused(".".join(filter(None, (_name(place), field))), reason, fix)
    known = list(Instruction.model_fields if len(place) == 1 else Example.model_fields)
    told = {
        "extra_forbidden": (f"there is no such field{closest(str(place[-1]), known)}", "rename or delete it"),
        "literal_error": (f"{value}, not {more.get('expected')}", "write one of these"),
        "missing": ("it is missing", "add it"),
        "string_type": (value, "write a text in double quotes"),
        "tuple_type": (value, "write a list"),
        "too_short": (f"it has fewer than {more.get('min_length')} entries", "add some"),
        "model_type": (value, "write an object with input and output"),
    }
    return Refused(_name(place), *told.get(error["type"], (value, "mend it")))


def _read(path: str | Path) -> tuple[dict[int, Instruction], list[Problem]]:
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise InstructionError(f"cannot read {path} ({error.strerror}): check the path") from error
    accepted, problems = {}, []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                accepted[number] = _parse(line)
        except Refused as refused:
            problems.append(Problem(str(path), number, *refused.args))
    return accepted, problems


def read(path: str | Path) -> tuple[list[Instruction], list[Problem]]:
    """The instructions of a file of JSON Lines, in order, and one problem for every line that is none.

    Lines end with a line feed. Lines of nothing but white space are skipped, but counted in the line numbers; every other
    line is in exactly one of the two lists. Raises InstructionError only for a file that cannot be opened.
    """
    accepted, problems = _read(path)
    return list(accepted.values()), problems


def load(path: str | Path) -> list[Instruction]:
    """The instructions of a file in which every line, and the set as a whole (`check_set`), is right.

    Raises InstructionError with the first problem, by line, and the number of the others.
    """
    accepted, problems = _read(path)
    problems += check_set(list(accepted.values()), str(path), list(accepted))
    if problems:
        first = min(problems, key=lambda problem: problem.line)
        raise InstructionError(f"{first}{f' ({len(problems) - 1} more)' * (len(problems) > 1)}")
    return list(accepted.values())


def save(path: str | Path, instructions: Sequence[Instruction]) -> Path:
    """Write a set atomically: one line each, fields in the order of `Instruction`, empty optional ones left out.

    What `save` has written, `load` and `save` write again, byte for byte.
    """
    from instructlab_utils.files import write_text

    rows = (instruction.model_dump(exclude_defaults=True) for instruction in instructions)
    return write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def check_set(
    instructions: Sequence[Instruction], file: str = "set", lines: Sequence[int] = ()
) -> list[Problem]:
    r"""What is wrong with a set although each of its records is right; empty where nothing is.

    - two records with one id, or a kind in two clusters;
    - a translation of an unknown record, or one that differs from it in kind, cluster, split, or not in language;
    - wordings of two records that are equal (`normalised`) or near duplicates: sets of shingles, runs of three words or
      Chinese characters, with the Jaccard similarity :math:`|A \cap B| / |A \cup B| \ge 0.8`;
    - leaks: an example's input that stands in two splits (a wording cannot, by the rule before).

    ``lines``: the line of each record, else its place, from 1. Source: `data.near_duplicates`; A. Broder (1997).
    """
    at = list(lines) or list(range(1, len(instructions) + 1))
    problems: list[Problem] = []
    first: dict[tuple[str, ...], int] = {}  # what must not come again → the record where it was first
    ids = {one.id: one for one in reversed(instructions)}

    def expect(condition: bool, i: int, field: str, reason: str, fix: str) -> None:
        if not condition:
            problems.append(Problem(file, at[i], field, reason, fix))

    for i, one in enumerate(instructions):
        j = first.setdefault(("id", one.id), i)
        expect(i == j, i, "id", f"{one.id} is also the id of line {at[j]}", "choose another")
        j = first.setdefault(("kind", one.kind), i)
        same, reason = (
            one.cluster == instructions[j].cluster,
            f"the kind {one.kind} has another one on line {at[j]}",
        )
        expect(same, i, "cluster", reason, "choose one of them")
        other = ids.get(one.translation_of or "")
        fits = not one.translation_of or (other is not None and other.language != one.language)
        expect(fits, i, "translation_of", f"no record of another language is {one.translation_of}", "mend it")
        for field in ("kind", "cluster", "split") if other else ():
            same = getattr(one, field) == getattr(other, field)
            reason = f"it is not that of {one.translation_of}, which this translates"
            expect(same, i, field, reason, "mend one")
        for k, example in enumerate(one.examples):
            text = normalised(example.input)
            for split in {"train", "dev", "test"} - {one.split} if text else ():
                j = first.get(("input", split, text), i)
                reason = f"{show(example.input)} is also an input of line {at[j]}, which is in {split}"
                expect(i == j, i, f"examples[{k}].input", reason, "choose another input")
            first.setdefault(("input", one.split, text), i)
    every = [(i, field, text) for i, one in enumerate(instructions) for field, text in one.wordings.items()]
    sets = [shingles(text, SHINGLE) for _, _, text in every]
    holders: dict[str, list[int]] = defaultdict(list)
    for k, (i, field, text) in enumerate(every):
        j = first.setdefault(("wording", normalised(text)), i)
        reason = f"it says the same as line {at[j]}, which is in {instructions[j].split}"
        expect(i == j, i, field, reason, "delete one of the two")
        for shingle in sets[k]:
            holders[shingle].append(k)
    for (a, b), n in Counter(pair for same in holders.values() for pair in combinations(same, 2)).items():
        (i, _, text), (j, field, copy) = every[a], every[b]
        apart = i == j or n < JACCARD * len(sets[a] | sets[b]) or normalised(text) == normalised(copy)
        reason = f"it is nearly the same as a wording of line {at[i]}"
        expect(apart, j, field, reason, "write another wording")
    return problems


# --- sets of tasks -----------------------------------------------------------------------------------------------


def clusters(instructions: Sequence[Instruction]) -> dict[str, list[Instruction]]:
    """The instructions of each cluster, clusters in alphabetical order, instructions in the order given."""
    names = sorted({one.cluster for one in instructions})
    return {name: [one for one in instructions if one.cluster == name] for name in names}


def mixture(sizes: Mapping[str, int], cap: int | None, temperature: float = 1.0) -> dict[str, float]:
    r"""The share of each task in the training mixture; they sum to 1.

    :math:`r_m = \min(e_m, K) / \sum_n \min(e_n, K)` for ``sizes`` e and ``cap`` K (None: no cap), then each to the power 1/T
    and normalised again. T = 1 is proportional to the examples, a large T near equal shares.

    Raises InstructionError for no task, a size or cap below 1, or a temperature that is not a positive number.
    Source: Raffel et al. (2020), section 3.5.2; lesson 14, section 4.
    """
    whole = [*sizes.values(), *([] if cap is None else [cap])]
    if not sizes or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in whole):
        raise InstructionError(
            "a mixture needs tasks, and sizes and a cap that are whole numbers from 1: mend them"
        )
    if not (math.isfinite(temperature) and temperature > 0):
        raise InstructionError(f"the temperature is {temperature}: choose a number above 0")
    capped = {name: min(n, cap or n) for name, n in sizes.items()}
    largest = max(capped.values())  # shares relative to it neither overflow nor all vanish
    weights = {name: (n / largest) ** (1 / temperature) for name, n in capped.items()}
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}
