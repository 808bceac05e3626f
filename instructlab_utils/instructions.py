"""Instructions as data: a validated record, files without silent losses, rendering, chat format and response masks.

A set is a file of JSON Lines, one `Instruction` a line; ours is data/instructions/course.jsonl, its card
data/cards/instructions.md. `read` turns every line into a record or into a `Problem`, one sentence that names file, line,
field, fault and fix. `load` also looks at the set as a whole: copies, and the same text on both sides of a split.

Taught in lesson 14. torch is not needed here.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from instructlab_utils.data import JACCARD, shingles
from instructlab_utils.errors import InstructionError
from instructlab_utils.session import closest

INPUT = "{input}"  # where the input goes in a text
LINE = "whole line"  # the field of a problem that no single field has
SHINGLE = 3  # words; instructions are shorter than the texts for which `data.shingles` takes 5
Messages = Sequence[Mapping[str, str]]

_CJK = "\u3400-\u9fff"
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")
_WORD = re.compile(rf"(?<!\w)-?\d+(?:[.,:/]\d+)*|[{_CJK}]|[^\W{_CJK}]+")
_MARK = re.compile(r"(?<!\d)[.,;:!?'\"‘’“”。，；：！？、《》]|[.,;:!?'\"‘’“”。，；：！？、《》](?!\d)")


# --- the record --------------------------------------------------------------------------------------------------


def _fault(field: str, reason: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("fault", "{reason}; {fix}", {"field": field, "reason": reason, "fix": fix})


def _visible(text: str) -> str:
    hidden = _HIDDEN.search(text)
    if hidden:
        raise _fault("", f"the character U+{ord(hidden[0]):04X} cannot be seen or stored", "delete it")
    return text


def _text(text: str) -> str:
    if not text or text != text.strip():
        reason = f"{_show(text)} is blank or has white space at an end"
        raise _fault("", reason, "write a text without white space around it")
    return text


def _slug(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text):  # the pattern of an id in a URL or a file name
        raise _fault("", f"{_show(text)} is no slug", "use small letters, digits and single hyphens")
    return text


Slug = Annotated[str, AfterValidator(_slug)]
Text = Annotated[str, AfterValidator(_visible), AfterValidator(_text)]
Split = Literal["train", "dev", "test"]


class Example(BaseModel):
    """One input and a correct output. The input is empty exactly where the instruction takes none."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    input: Annotated[str, AfterValidator(_visible)]
    output: Text


class Instruction(BaseModel):
    """One instruction, in one language, with other wordings, examples and a check for answers.

    ``text`` and ``paraphrases`` hold ``{input}`` exactly once each, or none of them does. ``options``: the closed answers,
    empty for free text; with them every output is one. ``translation_of``: the id of the record that this one says in
    another language, or empty. Every example's output passes the instruction's own ``check`` (see `passes`).

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
    split: Split
    translation_of: Annotated[str, AfterValidator(lambda name: name and _slug(name))] = ""
    source: Text

    @property
    def wordings(self) -> tuple[str, ...]:
        """The text and its paraphrases; `render` takes the index."""
        return (self.text, *self.paraphrases)

    @model_validator(mode="after")
    def _consistent(self) -> Instruction:
        places, takes_input = (
            ["text", *(f"paraphrases[{i}]" for i in range(len(self.paraphrases)))],
            INPUT in self.text,
        )
        seen: dict[str, str] = {}
        for place, wording in zip(places, self.wordings, strict=True):
            if len(re.findall(r"\{\s*input\s*\}", wording, re.IGNORECASE)) != takes_input or (
                wording.count(INPUT) != takes_input
            ):
                fix = f"write {INPUT} exactly once" if takes_input else "use it in every wording or in none"
                raise _fault(place, f"{INPUT} is missing, misspelt or there more than once", fix)
            first = seen.setdefault(normalised(wording), place)
            if first != place:
                raise _fault(place, f"it says the same as {first}", "write another wording")
            if bool(re.search(f"[{_CJK}]", wording.replace(INPUT, ""))) != (self.language == "zh"):
                raise _fault(
                    place, f"its script is not that of the language {self.language}", "mend one of the two"
                )
        if self.check == "one_of" and not self.options:
            raise _fault(
                "options", "the check one_of needs closed answers", "list them, or use another check"
            )
        if len(set(self.options)) != len(self.options) or len(self.options) == 1:
            raise _fault(
                "options", "there is only one, or one stands twice", "list at least two different answers"
            )
        inputs = Counter(example.input for example in self.examples)
        for i, example in enumerate(self.examples):
            place = f"examples[{i}]"
            if bool(example.input.strip()) != takes_input:
                reason = (
                    "is blank" if takes_input else f"is {_show(example.input)}, but the text has no {INPUT}"
                )
                raise _fault(f"{place}.input", f"it {reason}", f"mend it, or the use of {INPUT}")
            if takes_input and inputs[example.input] > 1:
                raise _fault(f"{place}.input", "another example has the same input", "delete one of the two")
            if self.options and example.output not in self.options:
                reason = f"{_show(example.output)} is not among the options"
                raise _fault(f"{place}.output", reason, "add it to options, or mend the example")
            if not passes(self, example.output, example.output):
                reason = f"the check {self.check} refuses it as an answer to its own example"
                raise _fault(f"{place}.output", reason, "choose options that do not contain each other")
        return self


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def passes(instruction: Instruction, answer: str, output: str) -> bool:
    """Whether ``answer`` is right where ``output`` is, by the instruction's check.

    ``exact``: equal, but for white space at the ends. ``contains``: the output's words stand in the answer, in a row,
    whatever their case; a Chinese character is a word. ``one_of``: of all options, the output alone does so.
    Source: lesson 00, section 1.
    """
    said = _words(answer)

    def occurs(text: str) -> bool:
        wanted = _words(text)
        ends = range(len(wanted), len(said) + 1)
        return any(said[n - len(wanted) : n] == wanted for n in ends) if wanted else text in answer

    if instruction.check == "exact":
        return answer.strip() == output.strip()
    others = set(instruction.options) - {output} if instruction.check == "one_of" else ()
    return occurs(output) and not any(occurs(option) for option in others)


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


class _Refused(ValueError):
    """Field, reason and fix of a line that is no instruction."""


def _show(value: Any) -> str:
    """A value in a message: on one line, short, and nothing in it that a terminal would obey."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "…")
    known = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return known.get(type(value), "a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        raise _Refused(_name((twice,)), "it stands twice in one object", "delete one of the two")
    return record


def _constant(name: str) -> None:
    raise _Refused(LINE, f"{name} is no JSON", "delete it")


def _name(place: Sequence[int | str]) -> str:
    """("examples", 0, "input") → examples[0].input"""
    parts = (
        f"[{p}]" if isinstance(p, int) else f".{p if re.fullmatch('[a-z_]+', p) else _show(p)}" for p in place
    )
    return "".join(parts).removeprefix(".")


def _explain(error: ErrorDetails) -> tuple[str, str, str]:
    """Field, reason and fix of one of pydantic's errors."""
    kind, place, value = error["type"], error["loc"], error["input"]
    if kind == "fault":
        told = error["ctx"]
        return ".".join(filter(None, (_name(place), told["field"]))), told["reason"], told["fix"]
    if kind == "extra_forbidden":
        known = list(Instruction.model_fields if len(place) == 1 else Example.model_fields)
        return _name(place), f"there is no such field{closest(str(place[-1]), known)}", "rename or delete it"
    if kind == "literal_error":
        return _name(place), f"{_show(value)} is not {error['ctx']['expected']}", "write one of these"
    told = {
        "missing": ("it is missing", "add it"),
        "string_type": (f"it is {_show(value)}", "write a text in double quotes"),
        "tuple_type": (f"it is {_show(value)}", "write a list"),
        "too_short": (f"there are fewer than {error.get('ctx', {}).get('min_length')}", "add some"),
        "model_type": (f"it is {_show(value)}", "write an object with input and output"),
    }
    return _name(place), *told.get(kind, (re.sub(r"\s+", " ", error["msg"]), "mend it"))


def _parse(line: bytes) -> Instruction:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Refused(LINE, f"byte {error.start + 1} is not UTF-8", "save the file as UTF-8") from None
    if text.startswith("\ufeff"):
        raise _Refused(LINE, "it begins with a byte order mark", "save the file as UTF-8 without one")
    try:
        record = json.loads(text, object_pairs_hook=_unique, parse_constant=_constant)
    except json.JSONDecodeError as error:
        reason = f"it is not JSON ({error.msg.lower()}, column {error.colno})"
        raise _Refused(LINE, reason, "write one JSON object a line") from None
    except RecursionError:
        raise _Refused(LINE, "objects or lists are nested too deeply", "write plain fields") from None
    except _Refused:
        raise
    except ValueError:
        raise _Refused(LINE, "a number has too many digits", "delete it") from None
    if not isinstance(record, dict):
        raise _Refused(LINE, f"it is {_show(record)}", "write one JSON object a line")
    try:
        return Instruction.model_validate(record)
    except ValidationError as errors:
        found = errors.errors(include_url=False)
        first = next(
            (e for e in found if e["type"] == "extra_forbidden"), found[0]
        )  # a misspelt name explains a missing one
        raise _Refused(*_explain(first)) from None


def _read(path: str | Path) -> tuple[list[tuple[int, Instruction]], list[Problem]]:
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise InstructionError(f"cannot read {path} ({error.strerror}): check the path") from error
    accepted, problems = [], []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                accepted.append((number, _parse(line)))
            except _Refused as refused:
                problems.append(Problem(str(path), number, *refused.args))
    return accepted, problems


def read(path: str | Path) -> tuple[list[Instruction], list[Problem]]:
    """The instructions of a file of JSON Lines, in order, and one problem for every line that is none.

    Lines end with a line feed. Lines of nothing but white space are skipped, but counted in the line numbers; every other
    line is in exactly one of the two lists. Raises InstructionError only for a file that cannot be opened.
    """
    accepted, problems = _read(path)
    return [instruction for _, instruction in accepted], problems


def load(path: str | Path) -> list[Instruction]:
    """The instructions of a file in which every line, and the set as a whole (`check_set`), is right.

    Raises InstructionError with the first problem, by line, and the number of the others.
    """
    accepted, problems = _read(path)
    instructions = [instruction for _, instruction in accepted]
    problems += check_set(instructions, str(path), [number for number, _ in accepted])
    if problems:
        problems.sort(key=lambda problem: problem.line)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InstructionError(f"{problems[0]}{more}")
    return instructions


def save(path: str | Path, instructions: Sequence[Instruction]) -> Path:
    """Write a set atomically: one line each, fields in the order of `Instruction`, empty optional ones left out.

    What `load` has read and `save` has written is, byte for byte, what `save` writes again.
    """
    from instructlab_utils.repro.record import write_text

    rows = (instruction.model_dump(exclude_defaults=True) for instruction in instructions)
    return write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


# --- the set as a whole ------------------------------------------------------------------------------------------


def normalised(text: str) -> str:
    """The text without case, width, white space and the marks of sentences; marks inside numbers stay."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(_MARK.sub(" ", plain).split()) or plain


def _wordings(instructions: Sequence[Instruction]) -> Iterator[tuple[int, str, str]]:
    """(index, field, wording) of every text and paraphrase."""
    for i, one in enumerate(instructions):
        yield i, "text", one.text
        yield from ((i, f"paraphrases[{j}]", wording) for j, wording in enumerate(one.paraphrases))


def check_set(
    instructions: Sequence[Instruction], file: str = "set", lines: Sequence[int] = ()
) -> list[Problem]:
    r"""What is wrong with a set although each of its records is right; empty where nothing is.

    - two records with one id, or a kind in two clusters;
    - a translation of an unknown record, or one that differs from it in kind, cluster, split, or not in language;
    - wordings of two records that are equal (`normalised`) or near duplicates: sets of shingles, runs of three words or
      Chinese characters, with the Jaccard similarity :math:`|A \cap B| / |A \cup B| \ge 0.8`;
    - leaks: an example's input that stands in two splits (a wording never does, by the rule before).

    ``lines``: the line of each record, else its place, from 1. Source: `data.near_duplicates`; A. Broder (1997).
    """
    at, problems = list(lines) or list(range(1, len(instructions) + 1)), []
    ids: dict[str, int] = {}
    homes: dict[str, int] = {}
    texts: dict[str, int] = {}
    inputs: dict[tuple[str, str], int] = {}

    def tell(i: int, field: str, reason: str, fix: str) -> None:
        problems.append(Problem(file, at[i], field, reason, fix))

    for i, one in enumerate(instructions):
        if ids.setdefault(one.id, i) != i:
            tell(i, "id", f"{one.id} is also the id of line {at[ids[one.id]]}", "choose another")
        home = instructions[homes.setdefault(one.kind, i)]
        if home.cluster != one.cluster:
            tell(
                i,
                "cluster",
                f"the kind {one.kind} is in {home.cluster} on line {at[homes[one.kind]]}",
                "choose one",
            )
    for i, one in enumerate(instructions):
        if one.translation_of:
            j = ids.get(one.translation_of)
            other = None if j is None else instructions[j]
            if other is None or other.language == one.language:
                tell(
                    i,
                    "translation_of",
                    f"{one.translation_of} is no id of another language",
                    "mend or delete it",
                )
            for field in ("kind", "cluster", "split") if other else ():
                if getattr(one, field) != getattr(other, field):
                    tell(
                        i,
                        field,
                        f"it is not that of {one.translation_of}, whose translation this is",
                        "mend one",
                    )
    wordings = list(_wordings(instructions))
    holders: dict[str, list[int]] = defaultdict(list)
    sets = [shingles(" ".join(_words(wording)), SHINGLE) for _, _, wording in wordings]
    for k, (i, field, wording) in enumerate(wordings):
        j = texts.setdefault(normalised(wording), i)
        if i != j:
            leak = (
                ""
                if instructions[i].split == instructions[j].split
                else f", which is in {instructions[j].split}"
            )
            tell(i, field, f"it says the same as line {at[j]}{leak}", "delete one of the two")
        for shingle in sets[k]:
            holders[shingle].append(k)
    shared = Counter(pair for same in holders.values() for pair in combinations(same, 2))
    for (a, b), n in sorted(shared.items()):
        (i, _, wording), (j, field, copy) = wordings[a], wordings[b]
        if i != j and n >= JACCARD * len(sets[a] | sets[b]) and normalised(wording) != normalised(copy):
            tell(j, field, f"it is nearly the same as a wording of line {at[i]}", "write another wording")
    for i, one in enumerate(instructions):
        for k, example in enumerate(one.examples):
            if example.input:
                inputs.setdefault((normalised(example.input), one.split), i)
                for split in get_args(Split):
                    j = inputs.get((normalised(example.input), split))
                    if j is not None and split != one.split:
                        reason = (
                            f"{_show(example.input)} is also an input of line {at[j]}, which is in {split}"
                        )
                        tell(i, f"examples[{k}].input", reason, "choose another input")
    return problems


# --- from a record to a model's tokens ---------------------------------------------------------------------------


def render(instruction: Instruction, input: str = "", wording: int = 0) -> str:
    """The instruction's ``wording`` (0: the text, 1 and up: the paraphrases) with ``input`` in its place, character by
    character: braces in the input, ``{input}`` among them, stay what they are.

    Raises InstructionError for an unknown wording, or for an input where the instruction takes none.
    """
    if wording not in range(len(instruction.wordings)):
        known = len(instruction.wordings) - 1
        raise InstructionError(f"instruction {instruction.id} has no wording {wording}: choose 0 to {known}")
    before, place, after = instruction.wordings[wording].partition(INPUT)
    if input and not place:
        raise InstructionError(f"instruction {instruction.id} takes no input: leave out {_show(input)}")
    return before + input + after


def messages(
    instruction: Instruction,
    input: str = "",
    output: str | None = None,
    wording: int = 0,
    system: str | None = None,
) -> list[dict[str, str]]:
    """A conversation: the rendered instruction of the user, before it ``system`` and behind it ``output``, where given."""
    turns = (("system", system), ("user", render(instruction, input, wording)), ("assistant", output))
    return [{"role": role, "content": content} for role, content in turns if content is not None]


def chat_text(tokenizer: Any, messages: Messages, generation_prompt: bool = False) -> str:
    """The conversation in the format of the tokenizer's chat template, with the start of an answer where wanted.

    Without a system message SmolLM2's template writes a default one, and says nothing about it.
    Raises InstructionError for an unknown role, no template, or a content that holds a special token: it would end a turn.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InstructionError("the tokenizer has no chat template: take that of a chat model")
    for i, message in enumerate(messages):
        if message.get("role") not in ("system", "user", "assistant") or not isinstance(
            message.get("content"), str
        ):
            raise InstructionError(
                f"message {i} needs a role (system, user or assistant) and a content, a text"
            )
        for token in tokenizer.all_special_tokens:
            if token in message["content"]:
                raise InstructionError(
                    f"message {i} holds the special token {token}: take it out of the text"
                )
    turns = [dict(message) for message in messages]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation_prompt)


def encode_chat(messages: Messages, tokenizer: Any) -> dict[str, list[int]]:
    """The tokens of a conversation, with labels on what the assistant says and on the end token of each of its turns.

    Returns ``{"input_ids": T ints, "labels": T ints}``. A label is the token itself or -100; the newline that the template
    writes behind an end token has none. Nothing is cut. The mask comes from prefixes: the text up to a turn and the text
    up to its end token, tokenised alone, must be how the whole begins. Pad ids cannot tell: SmolLM2's is the end token.

    Raises InstructionError where no turn is the assistant's, and where a prefix is not how the whole begins, in text (the
    template changes a content) or in tokens (one spans the border, as before an answer that begins with an empty line).

    Source: lesson 14. For one prompt and answer equal to `generation.encode_completion`, but for the last newline.
    """
    whole = chat_text(tokenizer, messages)
    input_ids = _ids(tokenizer, whole)
    labels = [-100] * len(input_ids)
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            before = chat_text(tokenizer, messages[:i], generation_prompt=True) if i else ""
            through = before + message["content"] + tokenizer.eos_token
            start, end = _ids(tokenizer, before), _ids(tokenizer, through)
            if (
                not i
                or not whole.startswith(through)
                or input_ids[: len(end)] != end
                or end[: len(start)] != start
            ):
                reason = "is not a whole number of tokens between two ends of the conversation"
                raise InstructionError(
                    f"message {i} {reason}: begin with the user, and answers with a visible character"
                )
            labels[len(start) : len(end)] = end[len(start) :]
    if all(label == -100 for label in labels):
        raise InstructionError("no message is the assistant's, so there is nothing to learn: add an answer")
    return {"input_ids": input_ids, "labels": labels}


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


# --- sets of tasks -----------------------------------------------------------------------------------------------


def clusters(instructions: Sequence[Instruction]) -> dict[str, list[Instruction]]:
    """The instructions of each cluster, clusters in alphabetical order, instructions in the order given."""
    found: dict[str, list[Instruction]] = {name: [] for name in sorted({one.cluster for one in instructions})}
    for one in instructions:
        found[one.cluster].append(one)
    return found


def mixture(sizes: Mapping[str, int], cap: int | None, temperature: float = 1.0) -> dict[str, float]:
    r"""The share of each task in the training mixture; they sum to 1.

    :math:`r_m = \min(e_m, K) / \sum_n \min(e_n, K)` for ``sizes`` e and ``cap`` K (None: no cap), then each to the power 1/T
    and normalised again. T = 1 is proportional to the examples, a large T near equal shares.

    Raises InstructionError for no task, a size or cap below 1, or a temperature that is not a positive number.
    Source: Raffel et al. (2020), section 3.5.2.
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
