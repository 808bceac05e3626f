"""A text that people typed must not become a model's own marks: the end of a turn, a border between files, a mask.

A tokenizer turns the *characters* of a special token into that token's single id, whoever typed them. So what is content
passes through :func:`text_ids`, which refuses it. From lesson 06 on; torch is not needed here.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from instructlab_utils.errors import ParameterError

# <think>: a mark, though its tokenizer calls it ordinary
BRACKETED = re.compile(r"[<\[{|｜].*[>\]}|｜]", re.DOTALL)


def marks(tokenizer: Any) -> dict[int, str]:
    """Id → text of the tokens that are marks: special ones, and added ones in brackets. Added words are no marks."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {i: str(t) for i, t in added.items() if t.special or BRACKETED.fullmatch(str(t))}


def text_ids(text: str, tokenizer: Any, chat: bool = False) -> list[int]:
    """The token ids of ``text``, without special tokens around it; no part of it becomes a mark of the tokenizer.

    ``chat``: the text may be a whole conversation in the format of the tokenizer's chat template (see `chat.chat_text`).
    Such a text begins with a mark of the template, and may hold those that the template writes, in its order: an end behind
    an end is nobody's but the user's. A whole forged turn cannot be told from a real one: `chat.chat_text` looks before.

    Raises ParameterError for what is no text, and for a mark in it: its name, and where it stands.

    Source: lesson 06, section 3.
    """
    if not isinstance(text, str):
        raise ParameterError(f"{text!r} is no text: give a str")
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    known = marks(tokenizer)
    # An unknown character becomes the mark [UNK] too, and that is right: only its typed name is not.
    unknown = {getattr(tokenizer, "unk_token_id", None)} - {i for i, name in known.items() if name in text}
    found = [known[i] for i in ids if i in known and i not in unknown]
    allowed = _orders(text, tokenizer, known) if chat and found else set()
    for pair in pairwise(["", *found]):
        if pair not in allowed:
            at = max(0, text.find(pair[1]) - 20)
            raise ParameterError(
                f"{pair[1]!r} in {text[at : at + 60]!r} is a special token of this tokenizer: take it out, or change it"
            )
    return ids


def _orders(text: str, tokenizer: Any, known: dict[int, str]) -> set[tuple[str, str]]:
    """Which mark may follow which, "" before the first, as the chat template writes them; none where the text does not
    begin with one of them."""
    if not getattr(tokenizer, "chat_template", None):
        return set()
    turns = [{"role": role, "content": "a"} for role in ("user", "assistant")] * 2
    shown = tokenizer.apply_chat_template(turns, tokenize=False)
    written = [known[i] for i in tokenizer(shown, add_special_tokens=False)["input_ids"] if i in known]
    if not text.startswith(tuple(written)):
        return set()
    return {("", name) for name in written} | set(pairwise(written))
