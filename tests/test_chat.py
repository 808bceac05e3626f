"""What people type stays text: marks of the tokenizer inside contents, keys of a conversation, placeholders, patterns."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from instructlab_utils import chat, generation, markers, models, patterns, tagging, training, tuners
from instructlab_utils.errors import InstructionError, ParameterError
from instructlab_utils.instructions import Instruction


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer("decoder")


@pytest.fixture
def extended():
    """The real tokenizer with added tokens: a mark that is not called special, one that is, and a plain word."""
    from transformers import AddedToken

    one = models.load_tokenizer("decoder")
    one.add_tokens([AddedToken("<think>"), AddedToken("covid-19"), AddedToken("§end§", special=True)])
    return one


def talk(user: str, assistant: str, **more: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant} | more]


# --- marks ----------------------------------------------------------------------------------------


def test_every_special_token_of_the_real_tokenizers_is_a_mark() -> None:
    for role in ("decoder", "encoder"):
        one = models.load_tokenizer(role)
        known = markers.marks(one)
        assert set(known.values()) >= set(one.all_special_tokens) and len(known) >= 5
        for name in known.values():
            with pytest.raises(ParameterError, match="is a special token of this tokenizer: take it out"):
                markers.text_ids(f"a {name} b", one)
    assert {"<file_sep>", "<repo_name>"} <= set(markers.marks(models.load_tokenizer("decoder")).values())


def test_added_tokens_in_brackets_are_marks_and_added_words_are_not(extended) -> None:
    for name in ("<think>", "§end§"):
        with pytest.raises(ParameterError, match=name):
            markers.text_ids(f"a {name} b", extended)
    assert len(extended) - 3 <= max(markers.text_ids("covid-19", extended)) < len(extended)
    with pytest.raises(ParameterError, match="None is no text"):
        markers.text_ids(None, extended)


def test_an_unknown_character_is_no_typed_mark() -> None:
    encoder = models.load_tokenizer("encoder")
    assert markers.text_ids("good 🦄", encoder)[-1] == encoder.unk_token_id
    with pytest.raises(ParameterError, match=r"'\[UNK\]'"):
        markers.text_ids("good [UNK]", encoder)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["<|im_end|>", "<|im_", "end|>", "<file_sep>", "file", "<", "sep>", " ", "\n", "ü"])
    )
)
def test_text_ids_has_marks_exactly_where_the_text_names_one(tokenizer, parts) -> None:
    text = "".join(parts)
    typed = any(name in text for name in markers.marks(tokenizer).values())
    try:
        ids = markers.text_ids(text, tokenizer)
    except ParameterError:
        assert typed
    else:
        assert not typed and tokenizer.decode(ids) == text and min(ids, default=17) >= 17


# --- prompts and completions ----------------------------------------------------------------------


def test_a_typed_end_token_does_not_end_a_prompt(tokenizer) -> None:
    for prompt, completion in (
        ("Say <|im_end|> now", " yes"),
        ("Say it", " yes<|im_end|>"),
        ("a<file_sep>b", " c"),
        ("Say <|im_start|>", " c"),
    ):
        with pytest.raises(ParameterError, match="is a special token"):
            generation.encode_completion(prompt, completion, tokenizer)


def test_a_prompt_in_the_format_of_the_template_keeps_its_marks(tokenizer) -> None:
    prompt = chat.chat_text(tokenizer, [{"role": "user", "content": "Say it"}], generation_prompt=True)
    example = generation.encode_completion(prompt, "yes", tokenizer)
    assert example["input_ids"].count(tokenizer.eos_token_id) == prompt.count("<|im_end|>") + 1
    for typed in ("<repo_name>", "<|im_end|>", "<|im_start|>"):
        with pytest.raises(ParameterError, match=f"'{re.escape(typed)}' in "):
            generation.encode_completion(prompt.replace("it", typed), "yes", tokenizer)


# --- conversations --------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1])
def test_no_mark_in_a_content(tokenizer, extended, place: int) -> None:
    for one in (tokenizer, extended):
        for name in markers.marks(one).values():
            turns = talk("a", "b")
            turns[place]["content"] = f"x{name}y"
            for encode in (
                lambda t, one=one: chat.encode_chat(t, one),
                lambda t, one=one: chat.chat_text(one, t),
            ):
                with pytest.raises(InstructionError, match=f"message {place} holds a special token"):
                    encode(turns)


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"tool_calls": [{"name": "f"}]}, "tool_calls"),
        ({"reasoning_content": "since"}, "reasoning_content"),
        ({"name": "Ada"}, "name"),
        ({"loss_weight": 0}, "loss_weight"),
        ({"loss": False}, "loss"),
    ],
)
def test_a_key_that_would_be_lost_is_named(tokenizer, more, key: str) -> None:
    with pytest.raises(InstructionError, match=f"message 1 has the key '{key}', which would be lost"):
        chat.encode_chat(talk("a", "b", **more), tokenizer)


def test_roles_without_a_meaning_here_are_refused(tokenizer) -> None:
    for role in ("tool", "developer", "function", "human", None):
        with pytest.raises(InstructionError, match="message 1 needs a role"):
            chat.encode_chat([*talk("a", "b")[:1], {"role": role, "content": "c"}], tokenizer)
    for wrong in ("hello", {"messages": talk("a", "b")}, ["hello"], [None]):
        with pytest.raises(InstructionError, match="no conversation: give a list|write an object with role"):
            chat.encode_chat(wrong, tokenizer)


def test_an_answer_of_weight_0_is_read_and_not_learned(tokenizer) -> None:
    turns = [*talk("a", "first", weight=0), *talk("b", "second", weight=1)]
    plain = [{"role": t["role"], "content": t["content"]} for t in turns]
    weighted, full = chat.encode_chat(turns, tokenizer), chat.encode_chat(plain, tokenizer)
    assert weighted["input_ids"] == full["input_ids"]

    def learned(example):
        return tokenizer.decode([i for i in example["labels"] if i != -100])

    assert learned(full) == "first<|im_end|>second<|im_end|>" and learned(weighted) == "second<|im_end|>"
    with pytest.raises(InstructionError, match="holds an answer: add it"):
        chat.encode_chat(talk("a", "b", weight=0), tokenizer)
    for wrong in (0.5, "0", 2):
        with pytest.raises(InstructionError, match="message 1 has a weight: it must be 0 or 1"):
            chat.encode_chat(talk("a", "b", weight=wrong), tokenizer)
    with pytest.raises(InstructionError, match="message 0 has a weight"):
        chat.encode_chat([{"role": "user", "content": "a", "weight": 0}, talk("a", "b")[1]], tokenizer)


def test_a_conversation_longer_than_the_model_reads_is_refused(tokenizer) -> None:
    with pytest.raises(InstructionError, match=f"the model reads {tokenizer.model_max_length}: shorten it"):
        chat.encode_chat(talk("a " * 9000, "b"), tokenizer)


# --- placeholders ---------------------------------------------------------------------------------


def instruction(text: str) -> Instruction:
    example = {"input": "hello", "output": "hello"}
    return Instruction.model_validate(
        {
            "id": "x", "kind": "copy", "cluster": "copy", "language": "en", "text": text,
            "paraphrases": ["Copy this: {input}", "Write it again: {input}"], "check": "exact",
            "examples": [example, {"input": "you", "output": "you"}], "split": "train", "source": "ours",
        }
    )  # fmt: skip


@pytest.mark.parametrize("text", ["Say {{input}} again", "Say {{ input }} again", "Say {{Input}}: {input}"])
def test_a_doubled_brace_is_no_placeholder(text: str) -> None:
    with pytest.raises(ValidationError, match="missing, misspelt or not alone"):
        instruction(text)


@pytest.mark.parametrize("given", ["{input}", "{0} {x!r}", "%s $x", "{{input}}", "a {", "\\1"])
def test_braces_of_an_input_stay_what_they_are(given: str) -> None:
    assert chat.render(instruction('Fill {"a": {input}} in'), given) == 'Fill {"a": ' + given + "} in"
    with pytest.raises(InstructionError, match="is a number: give a text"):
        chat.render(instruction("Say {input}"), 3)


# --- patterns -------------------------------------------------------------------------------------


@pytest.fixture
def halves(tokenizer):
    """All that `encode` and `Reader` ask of two halves, without the model."""
    one = object.__new__(patterns.Halves)
    one.tokenizer, one.device, one.seen, one.first_values = tokenizer, "cpu", {}, {}
    one.bottom = lambda input_ids, attention_mask: SimpleNamespace(
        last_hidden_state=torch.zeros(*input_ids.shape, 4)
    )
    table = nn.Embedding(49152, 4)
    one.top = nn.Linear(4, 4).requires_grad_(False)
    one.top.get_output_embeddings = lambda: table
    return one


def test_a_text_stands_in_its_pattern_character_by_character(halves, tokenizer) -> None:
    for text in ("fine", "{} {0} {x}", "a { b", "{{}}"):
        (found,) = halves.encode([{"text": text, "label": 1}], 'In {braces}: "{}" It was')
        assert tokenizer.decode(found["input_ids"]) == f'In {{braces}}: "{text}" It was'


@pytest.mark.parametrize("pattern", ["It was", "{} and {}", "{0} It was", "{text} It was"])
def test_a_pattern_without_one_place_is_refused(halves, pattern: str) -> None:
    with pytest.raises(ParameterError, match="needs {} exactly once"):
        halves.encode([{"text": "fine", "label": 1}], pattern)


def test_a_text_that_would_lose_the_end_of_its_pattern_is_refused(halves) -> None:
    rows = [{"text": " a" * 126, "label": 0}]
    assert len(halves.encode(rows, "{} It was")[0]["input_ids"]) == 128
    with pytest.raises(ParameterError, match="has 129 tokens, 128 fit: take shorter texts"):
        halves.encode([{"text": " a" * 127, "label": 0}], "{} It was")
    with pytest.raises(ParameterError, match="<file_sep>"):
        halves.encode([{"text": "a <file_sep>", "label": 0}], "{} It was")


def test_the_words_of_a_reader_are_two_different_tokens(halves, monkeypatch) -> None:
    monkeypatch.setattr(tuners, "trainable", lambda net: {})
    assert patterns.Reader(halves, [" bad", " good"], 0).rows.shape == (2, 4)
    for words in (
        [" bad", " incomprehensible"],
        [" bad", " bad"],
        [" bad"],
        [" bad", " good", " fine"],
        [" bad", ""],
    ):
        with pytest.raises(ParameterError, match="take two different ones of one each"):
            patterns.Reader(halves, words, 0)


# --- texts of a data set --------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_special_tokens_in_a_data_set_are_characters(role: str) -> None:
    """No border, no mask and no end where the text only speaks of one; what is not typed stays as it was."""
    one = models.load_tokenizer(role)
    known, name = set(markers.marks(one)), one.eos_token or one.sep_token
    plain, typed = (
        training.encode([{"text": text, "label": 0}], one, 64)[0]["input_ids"]
        for text in ("a b", f"a {name} b")
    )
    assert plain == one("a b")["input_ids"]
    assert sum(i in known for i in typed) == sum(i in known for i in plain) and len(typed) > len(plain) + 2
    row = {"tokens": ["a", name, "b"], "tags": ["O", "B-x", "O"]}
    (found,) = tagging.encode([row], models.load_tokenizer("encoder"), ["O", "B-x"])
    assert [y for y in found["labels"] if y != -100] == [0, 1, 0]
    assert found["input_ids"].count(models.load_tokenizer("encoder").sep_token_id) == 1
