"""Around the app: a number for each request, a bounded body, one form for all errors, one masked line in the log.

Taught in lesson 25.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from instructlab_apps.service.batcher import Closed, Full, Late
from instructlab_apps.service.limits import Refusal
from instructlab_apps.service.telemetry import Telemetry, route_of
from instructlab_apps.service.wire import error_body
from instructlab_utils.errors import CourseError, InstructionError, ParameterError

Message = MutableMapping[str, Any]
INTERNAL = "something went wrong inside the service; the log has it under this request's number"


def refused(status: int, message: str, param: str | None = None, after: float = 0.0) -> Response:
    """An error as OpenAI's clients read it; ``after`` seconds go into Retry-After."""
    headers = {"Retry-After": str(math.ceil(after))} if after > 0 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = json.dumps(error_body(status, message, param)).encode()
    return Response(body, status, headers, media_type="application/json")


def answer_to(error: Exception) -> Response:
    """What the caller hears of an error of ours; what is nobody's business becomes one sentence with status 500."""
    if isinstance(error, Refusal):
        return refused(error.status, str(error), error.param, error.after)
    if isinstance(error, Full):
        return refused(429, str(error), after=error.after)
    if isinstance(error, Closed):
        return refused(503, str(error), after=1.0)
    if isinstance(error, Late):
        return refused(504, str(error))
    if isinstance(error, InstructionError | ParameterError):
        return refused(400, str(error))
    if isinstance(error, HTTPException):
        said = {
            404: "nothing is here; see /v1/models and the service's page",
            405: "this address takes another method",
        }
        return refused(error.status_code, said.get(error.status_code, "this request is not understood"))
    return refused(500, INTERNAL)


async def read_body(request: Request, most: int, patience: float) -> bytes:
    """The body. Refusal for one above ``most`` bytes (413), told or counted, and for one that takes longer than
    ``patience`` seconds (408)."""
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told[:20]) > most:
        raise Refusal(413, f"the body is larger than {most} bytes: send less")
    parts, size = [], 0
    try:
        async with asyncio.timeout(patience):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise Refusal(413, f"the body is larger than {most} bytes: send less")
                parts.append(part)
    except TimeoutError:
        raise Refusal(408, f"the body did not arrive within {patience:g} seconds") from None
    except ClientDisconnect:
        raise Refusal(400, "the connection ended before the body did") from None
    return b"".join(parts)


class Gate:
    """ASGI middleware: counts and logs each request, and lets no exception out."""

    def __init__(self, app: Any, metrics: Telemetry, log: logging.Logger) -> None:
        self.app, self.metrics, self.log = app, metrics, log

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        number, began, status = secrets.token_hex(8), time.perf_counter(), 0
        scope.setdefault("state", {})["request"] = number

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", number.encode())]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception as error:
            answer = answer_to(error)
            if answer.status_code == 500:
                self.log.exception("failed", extra={"request": number})
            if not status:
                await answer(scope, receive, sending)
        finally:
            route, spent = route_of(scope["path"]), time.perf_counter() - began
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(spent)
            told = {"request": number, "route": route, "status": status, "ms": round(1000 * spent, 1)}
            self.log.info("answered", extra={**told, "caller": scope["state"].get("caller")})


def install(app: FastAPI, metrics: Telemetry, log: logging.Logger) -> None:
    """The gate around ``app``, and our form for the errors that FastAPI raises itself."""

    async def handled(request: Request, error: Exception) -> Response:
        return answer_to(error)

    for kind in (CourseError, HTTPException):
        app.add_exception_handler(kind, handled)
    app.add_middleware(Gate, metrics=metrics, log=log)
