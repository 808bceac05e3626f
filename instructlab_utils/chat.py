"""From an instruction to a model's tokens: rendering, the chat format, and labels on the answer alone.

Taught in lesson 14, sections 1 and 2. torch is not needed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from instructlab_utils.errors import InstructionError
from instructlab_utils.instructions import INPUT, Instruction, show


def render(instruction: Instruction, input: str = "", wording: int = 0) -> str:
    """The instruction's ``wording`` (0: the text, 1 and up: the paraphrases) with ``input`` in its place, character by
    character: braces in the input, ``{input}`` among them, stay what they are.

    Raises InstructionError for an unknown wording, or for an input where the instruction takes none.
    """
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


def chat_text(tokenizer: Any, messages: Sequence[Mapping[str, str]], generation_prompt: bool = False) -> str:
    """The conversation in the format of the tokenizer's chat template, with the start of an answer where wanted.

    Without a system message SmolLM2's template writes a default one, and says nothing about it.
    Raises InstructionError for no message, no template, an unknown role, or a content with a special token: that ends a turn.
    """
    if not messages or not getattr(tokenizer, "chat_template", None):
        raise InstructionError("there is no message, or no chat template: take the tokenizer of a chat model")
    for i, turn in enumerate(messages):
        text = turn.get("content")
        if turn.get("role") not in ("system", "user", "assistant") or not isinstance(text, str):
            raise InstructionError(
                f"message {i} needs a role (system, user, assistant) and a text as content"
            )
        if any(token in text for token in tokenizer.all_special_tokens):
            raise InstructionError(f"message {i} holds a special token: take it out of {show(text)}")
    turns = [dict(turn) for turn in messages]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation_prompt)


def encode_chat(messages: Sequence[Mapping[str, str]], tokenizer: Any) -> dict[str, list[int]]:
    """The tokens of a conversation, with labels on what the assistant says and on the end token of each of its turns.

    Returns ``{"input_ids": T ints, "labels": T ints}``. A label is the token itself or -100; the newline that the template
    writes behind an end token has none. Nothing is cut. The mask comes from prefixes: the text up to a turn and the text
    up to its end token, tokenised alone, must be how the whole begins. Pad ids cannot tell: SmolLM2's is the end token.

    Raises InstructionError where no turn is the assistant's, and where a prefix is not how the whole begins, in text (the
    template changes a content) or in tokens (one spans the border, as before an answer that begins with an empty line).

    Source: lesson 14. For one prompt and answer equal to `generation.encode_completion`, but for the last newline.
    """

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    whole = chat_text(tokenizer, messages)
    input_ids, labels = ids(whole), [-100] * len(ids(whole))
    answers = [i for i, turn in enumerate(messages) if turn["role"] == "assistant"]
    if not answers or not answers[0]:
        raise InstructionError(
            "a conversation to learn from begins with the user and holds an answer: add it"
        )
    for i in answers:
        before = chat_text(tokenizer, messages[:i], generation_prompt=True)
        through = before + messages[i]["content"] + tokenizer.eos_token
        start, end = ids(before), ids(through)
        if not whole.startswith(through) or input_ids[: len(end)] != end or end[: len(start)] != start:
            fix = "take the white space from both ends of the answer, or use another chat template"
            raise InstructionError(f"message {i} has no border between tokens where it begins or ends: {fix}")
        labels[len(start) : len(end)] = end[len(start) :]
    return {"input_ids": input_ids, "labels": labels}
