"""From an instruction to a model's tokens: rendering, the chat format, and labels on the answer alone.

Taught in lesson 14, sections 1 and 2. torch is not needed here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from instructlab_utils.errors import InstructionError, ParameterError
from instructlab_utils.instructions import INPUT, Instruction, show
from instructlab_utils.markers import text_ids

ROLES, KEYS = ("system", "user", "assistant"), ("role", "content", "weight")


def render(instruction: Instruction, input: str = "", wording: int = 0) -> str:
    """The instruction's ``wording`` (0: the text, 1 and up: the paraphrases) with ``input`` in its place, character by
    character: braces in the input, ``{input}`` among them, stay what they are.

    Raises InstructionError for an unknown wording, an input that is no text, or one where the instruction takes none.
    """
    if not isinstance(input, str):
        raise InstructionError(f"the input of {instruction.id} is {show(input)}: give a text")
    wordings = list(instruction.wordings.values())
    if wording not in range(len(wordings)):
        raise InstructionError(
            f"{instruction.id} has no wording {wording}: choose one of 0 to {len(wordings) - 1}"
        )
    before, place, after = wordings[wording].partition(INPUT)
    if input and not place:
        raise InstructionError(f"{instruction.id} takes no input: leave out {show(input)}")
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


def chat_text(tokenizer: Any, messages: Sequence[Mapping[str, Any]], generation_prompt: bool = False) -> str:
    """The conversation in the format of the tokenizer's chat template, with the start of an answer where wanted.

    A message has a ``role`` (system, user, assistant), a text as ``content`` and, where it is the assistant's, a ``weight``
    if it likes: 1, or 0 for an answer that is read but not learned. Any other key, such as tool_calls, would be lost, unless
    it holds nothing, as in a table, where each message has every key.
    Without a system message SmolLM2's template writes a default one, and says nothing about it.

    Raises InstructionError for no message, no template, an unknown role or key, and for a content with a special token or
    another mark of the tokenizer (`markers.marks`): that would end a turn.
    """
    if not messages or not getattr(tokenizer, "chat_template", None):
        raise InstructionError("there is no message, or no chat template: take the tokenizer of a chat model")
    if isinstance(messages, str | Mapping):
        raise InstructionError(f"{show(messages)} is no conversation: give a list of messages")
    for i, turn in enumerate(messages):
        _check(turn, i, tokenizer)
    return _templated(tokenizer, messages, generation_prompt)


def _templated(tokenizer: Any, messages: Sequence[Mapping[str, Any]], generation_prompt: bool = False) -> str:
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in messages]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation_prompt)


def _check(turn: Mapping[str, Any], i: int, tokenizer: Any) -> None:
    """Raises InstructionError, naming message and key, for what `chat_text` would drop or the template misread."""
    if not isinstance(turn, Mapping):
        raise InstructionError(f"message {i} is {show(turn)}: write an object with role and content")
    for key in [key for key in turn if key not in KEYS and turn[key] not in (None, "", [], {})]:
        raise InstructionError(f"message {i} has the key {show(key)}, which would be lost: leave it out")
    if turn.get("role") not in ROLES or not isinstance(turn.get("content"), str):
        raise InstructionError(f"message {i} needs a role ({', '.join(ROLES)}) and a text as content")
    weight = turn.get("weight")
    if weight is not None and (turn["role"] != "assistant" or weight not in (0, 1)):
        raise InstructionError(f"message {i} has a weight: it must be 0 or 1, on the assistant's turns")
    try:
        text_ids(turn["content"], tokenizer)
    except ParameterError:
        raise InstructionError(
            f"message {i} holds a special token: take it out of {show(turn['content'])}"
        ) from None


def encode_chat(messages: Sequence[Mapping[str, Any]], tokenizer: Any) -> dict[str, list[int]]:
    """The tokens of a conversation, with labels on what the assistant says and on the end token of each of its turns.

    Turns with ``"weight": 0`` have no labels.

    Returns ``{"input_ids": T ints, "labels": T ints}``. A label is the token itself or -100; the newline that the template
    writes behind an end token has none. Nothing is cut. The mask comes from prefixes: the text up to a turn and the text
    up to its end token, tokenised alone, must be how the whole begins. Pad ids cannot tell: SmolLM2's is the end token.

    Raises InstructionError where no turn with weight is the assistant's, where the model cannot read as many tokens, and
    where a prefix is not how the whole begins, in text (the template changes a content) or in tokens (one spans the border,
    as before an answer that begins with an empty line). And as `chat_text`.

    Source: lesson 14. For one prompt and answer equal to `generation.encode_completion`, but for the last newline.
    """

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    whole = chat_text(tokenizer, messages)
    input_ids = ids(whole)
    labels = [-100] * len(input_ids)
    if len(input_ids) > (most := getattr(tokenizer, "model_max_length", math.inf)):
        raise InstructionError(
            f"a conversation of {len(input_ids)} tokens, the model reads {most}: shorten it"
        )
    answers = [i for i, turn in enumerate(messages) if turn["role"] == "assistant"]
    learned = [i for i in answers if messages[i].get("weight") in (None, 1)]
    if not learned or not answers[0]:
        raise InstructionError(
            "a conversation to learn from begins with the user and holds an answer: add it"
        )
    for i in learned:
        before = _templated(tokenizer, messages[:i], generation_prompt=True)
        through = before + messages[i]["content"] + tokenizer.eos_token
        start, end = ids(before), ids(through)
        if not whole.startswith(through) or input_ids[: len(end)] != end or end[: len(start)] != start:
            fix = "take the white space from both ends of the answer, or use another chat template"
            raise InstructionError(f"message {i} has no border between tokens where it begins or ends: {fix}")
        labels[len(start) : len(end)] = end[len(start) :]
    return {"input_ids": input_ids, "labels": labels}
