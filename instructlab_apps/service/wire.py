"""What goes over the wire: requests with hard bounds, answers and errors in the form of OpenAI's API. Taught in lesson 25."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from instructlab_apps.service.limits import Refusal

MOST_CHARACTERS, MOST_TEXTS, MOST_TURNS, MOST_TOKENS = 8_000, 32, 32, 256


def _readable(text: str) -> str:
    """JSON can spell half a character (a lone surrogate), which no tokenizer can read."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("holds a lone surrogate, which is no character")
    return text


Words = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS), AfterValidator(_readable)]
Name = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[\w.:/-]+$")]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Turn(_Asked):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Words


class ChatRequest(_Asked):
    """``POST /v1/chat/completions``. ``model``: the base's name, or that of an adapter over it. ``temperature`` 0 takes
    the most probable token."""

    model: Name
    messages: Annotated[list[Turn], Field(min_length=1, max_length=MOST_TURNS)]
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stream: bool = False
    n: Literal[1] = 1
    user: Annotated[str, Field(max_length=80)] | None = None

    @property
    def most(self) -> int:
        return self.max_completion_tokens or self.max_tokens or 64


class ClassifyRequest(_Asked):
    """``POST /classify``: each text by the head that ``model`` names."""

    model: Name
    texts: Annotated[list[Words], Field(min_length=1, max_length=MOST_TEXTS)]


class RankRequest(_Asked):
    """``POST /rank``: the documents by their likeness to the query."""

    query: Words
    documents: Annotated[list[Words], Field(min_length=1, max_length=MOST_TEXTS - 1)]


class RolloutRequest(_Asked):
    """``POST /admin/rollout``: what to do with the versions of a head."""

    model: Name
    action: Literal["start", "promote", "rollback"]
    version: Name | None = None
    share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.1


def parsed(kind: type[BaseModel], value: dict[str, Any]) -> Any:
    """``value`` as a request of this kind. Refusal (400) with the first mistake as one sentence, which never quotes what
    was sent: it could be private."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"][:4])
        if first["type"] == "extra_forbidden":
            raise Refusal(400, "the request has a key that this service does not know: remove it") from None
        told = first["msg"].removeprefix("Value error, ")
        raise Refusal(400, f"{where or 'the request'}: {told[:1].lower()}{told[1:]}", where or None) from None


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """An error in the form that clients of OpenAI's API read."""
    kinds = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
    }
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}


def completion(
    id: str, model: str, made: int, text: str, reason: str, before: int, new: int
) -> dict[str, Any]:
    """A whole answer of the assistant; ``before`` and ``new``: tokens of the prompt and of the answer."""
    return {
        "id": id, "object": "chat.completion", "created": made, "model": model,
        "choices": [{
            "index": 0, "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None, "finish_reason": reason,
        }],
        "usage": {"prompt_tokens": before, "completion_tokens": new, "total_tokens": before + new},
    }  # fmt: skip


def chunk(id: str, model: str, made: int, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    """A piece of a streamed answer."""
    return {
        "id": id, "object": "chat.completion.chunk", "created": made, "model": model,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
    }  # fmt: skip


def rounded(value: float, digits: int = 6) -> float:
    """For JSON, which has no NaN: ValueError instead."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number for an answer: look at the model's weights")
    return round(value, digits)
