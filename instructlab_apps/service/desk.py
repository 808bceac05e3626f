"""Where the work is done between the door and the models: one object holds queues, keys, versions, alarm and stored answers.

Taught in lesson 25.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from instructlab_apps.service import telemetry, wire
from instructlab_apps.service.batcher import Batcher, Late, at_once
from instructlab_apps.service.drift import learned
from instructlab_apps.service.engines import DecoderEngine, EncoderEngine, LinearHead, Prompt
from instructlab_apps.service.keys import Caller, KeyRing
from instructlab_apps.service.limits import RateLimits, Refusal
from instructlab_apps.service.store import AnswerStore, Kept, fingerprint
from instructlab_apps.service.versions import Rollout
from instructlab_utils.errors import CourseError, ParameterError
from instructlab_utils.markers import marks


@dataclass(frozen=True)
class ServiceSettings:
    """``folder`` holds the SQLite file; ``adapters``: pairs of name and folder.

    Sizes in bytes, times in seconds, rooms in items. ``threads`` compute, each
    a batch of its own on one core; ``int8``: the encoder's layers.
    ``drift_run``: requests to a false drift alarm. ``log_texts`` writes a masked beginning of each text into the log;
    ``names`` are masked too.
    """

    folder: Path
    model: str = ""
    adapters: tuple[tuple[str, str], ...] = ()
    body: int = 262_144
    patience: float = 30.0
    chat_patience: float = 120.0
    body_patience: float = 10.0
    pause: float = 0.0
    batch: int = 16
    threads: int = 2
    int8: bool = False
    chat_batch: int = 8
    room: int = 256
    chat_room: int = 32
    drift_run: float = 2000.0
    log_texts: bool = False
    names: tuple[str, ...] = ()
    log_to: IO[str] | None = None

    @property
    def file(self) -> Path:
        return self.folder / "service.sqlite"


class Desk:
    """Made inside a running event loop. ``close`` finishes what waits."""

    def __init__(
        self,
        settings: ServiceSettings,
        encoder: EncoderEngine,
        decoder: DecoderEngine,
        metrics: telemetry.Telemetry,
    ) -> None:
        self.settings, self.encoder, self.decoder, self.metrics = settings, encoder, decoder, metrics
        self.log = logging.getLogger(telemetry.LOGGER)
        self.keys, self.rates = KeyRing(settings.file), RateLimits()
        self.versions = Rollout(settings.file)
        for name, versions in encoder.heads.items():
            self.versions.add(name, sorted(versions)[0])
        self.store, self.writer = AnswerStore(settings.file), AnswerStore(settings.file)
        self.writer.forget()
        self.alarm = learned(encoder.reference, run=settings.drift_run)
        self.marks = tuple(marks(encoder.tokenizer).values())
        self.model_thread, self.disk_thread = (
            ThreadPoolExecutor(settings.threads, "model", torch.set_num_threads, (1,)),
            ThreadPoolExecutor(1, "disk"),
        )
        self.vectors = Batcher(
            at_once(encoder.vectors), self.model_thread, lanes=settings.threads, most=settings.batch,
            pause=settings.pause, room=settings.room, seen=self._seen("encoder"),
        )  # fmt: skip
        self.answers = Batcher(
            decoder.steps, self.model_thread, most=settings.chat_batch, room=settings.chat_room,
            seen=self._seen("decoder"),
        )  # fmt: skip
        self.written = Batcher(
            at_once(lambda key, rows: self.writer.add_all(rows)), self.disk_thread, most=256, room=8192
        )
        self.flying: dict[tuple[str, str], tuple[str, asyncio.Future[Kept]]] = {}
        self.stopping = False

    def _seen(self, engine: str) -> Callable[[int, float], None]:
        return lambda size, seconds: self.metrics.batches.labels(engine).observe(size)

    @property
    def ready(self) -> bool:
        return not self.stopping and len(self.vectors.waiting) < self.settings.room

    async def close(self) -> None:
        self.stopping = True
        await asyncio.gather(self.vectors.close(), self.answers.close())
        await self.written.close()  # last: the answers above go through it
        for thread in (self.model_thread, self.disk_thread):
            thread.shutdown()
        for each in (self.keys, self.versions, self.store, self.writer):
            each.close()

    def admitted(self, header: str, scope: str = "use") -> Caller:
        """Who sends the header ``Authorization``. Refusal: 401 without a good key, 403 without the scope, 429 too often."""
        kind, _, key = header.partition(" ")
        caller = self.keys.check(key.strip()) if kind.lower() == "bearer" else None
        if caller is None:
            raise Refusal(401, "no good key: send the header 'Authorization: Bearer sk-…'")
        if scope == "admin" and caller.scope != "admin":
            raise Refusal(403, "this key may not do that: use one with the scope admin")
        self.rates.admit(caller.id, caller.per_minute)
        return caller

    async def once(
        self,
        caller: Caller,
        key: str,
        path: str,
        value: dict[str, Any],
        work: Callable[[], Awaitable[dict[str, Any]]],
    ) -> tuple[bytes, bool]:
        """The answer as JSON, and whether it is a repeated one. With an idempotency ``key`` the work is done once, also for
        requests that come while it is under way, and stored before anybody hears of it.

        Refusal (409) where the key was used for another request.
        """
        if not key:
            return json.dumps(await work()).encode(), False
        if len(key) > 200 or not key.isascii() or not key.isprintable():
            raise Refusal(400, "Idempotency-Key: send up to 200 printable ASCII characters")
        mark, place = fingerprint(path, value), (caller.id, key)
        kept = self.store.find(*place)
        if kept is None and place in self.flying:
            kept = await asyncio.shield(self.flying[place][1])
        if kept is not None:
            if kept.request != mark:
                raise Refusal(409, "this Idempotency-Key was used for another request: take a new one")
            self.metrics.replayed.inc()
            return kept.body, True
        flying: asyncio.Future[Kept] = asyncio.get_running_loop().create_future()
        self.flying[place] = (mark, flying)
        try:
            body = json.dumps(await work()).encode()
            (kept,) = await self.written.submit([Kept(*place, mark, 200, body)])
            flying.set_result(kept)
            return kept.body, False
        except BaseException as error:
            told = (
                error if isinstance(error, Exception) else Late("the first request with this key was cut off")
            )
            flying.set_exception(told)
            flying.exception()  # nobody may be waiting, and that is no fault
            raise
        finally:
            del self.flying[place]

    def _told(self, texts: list[str], number: str) -> None:
        if self.settings.log_texts:
            for text in texts:
                self.log.info("text", extra={"request": number, "excerpt": telemetry.excerpt(text)})

    async def _vectors(self, texts: list[str], number: str) -> torch.Tensor:
        for i, text in enumerate(texts):
            if any(mark in text for mark in self.marks):
                raise Refusal(400, f"text {i} holds a special token of the model: take it out")
        self._told(texts, number)
        self.metrics.waiting.labels("encoder").set(len(self.vectors.waiting))
        sizes = [len(text) for text in texts]
        return torch.stack(await self.vectors.submit(texts, sizes=sizes, patience=self.settings.patience))

    async def classify(self, asked: wire.ClassifyRequest, number: str) -> dict[str, Any]:
        """Labels and probabilities, each by the version that its text is routed to."""
        if asked.model not in self.encoder.heads:
            raise Refusal(404, f"no classifier {asked.model!r}: GET /v1/models lists them", "model")
        vectors = await self._vectors(asked.texts, number)
        results = []
        for text, vector in zip(asked.texts, vectors, strict=True):
            if self.alarm.feed(vector):
                self.metrics.alarms.inc()
                self.log.warning("drift: what people send has changed since the reference")
            head, version, p = self._routed(asked.model, text, vector)
            scores = {label: wire.rounded(float(value)) for label, value in zip(head.labels, p, strict=True)}
            best = head.labels[int(p.argmax())]
            results.append({"label": best, "version": version, "probabilities": scores})
            self.metrics.versions.labels(asked.model, version).inc()
        self.metrics.drift.set(self.alarm.value / self.alarm.threshold)
        return {"id": f"classify-{number}", "model": asked.model, "results": results}

    def _routed(self, name: str, text: str, vector: torch.Tensor) -> tuple[LinearHead, str, torch.Tensor]:
        """Head, version and probabilities. A candidate is compared with the stable version, which steps in where the
        candidate's answer is no answer."""
        heads, stable = self.encoder.heads[name], self.versions.route(name).stable
        version = self.versions.version(name, text)
        p = heads[stable](vector[None])[0]
        if version == stable:
            return heads[stable], stable, p
        q = heads[version](vector[None])[0]
        sound = bool(q.isfinite().all()) and heads[version].labels == heads[stable].labels
        if self.versions.judged(name, not sound or int(q.argmax()) != int(p.argmax())):
            self.metrics.rollbacks.labels(name).inc()
            self.log.warning("rolled back: the candidate disagrees too often")
        return (heads[version], version, q) if sound else (heads[stable], stable, p)

    async def rank(self, asked: wire.RankRequest, number: str) -> dict[str, Any]:
        """Documents by cosine to the query, the best first."""
        texts = [asked.query, *asked.documents]
        unit = torch.nn.functional.normalize(await self._vectors(texts, number), dim=-1)
        scores = (unit[1:] @ unit[0]).tolist()
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        found = [{"index": i, "score": wire.rounded(scores[i])} for i in order]
        return {"id": f"rank-{number}", "results": found}

    def _prompt(self, asked: wire.ChatRequest, number: str) -> Prompt:
        if asked.model not in self.decoder.variants:
            raise Refusal(404, f"no chat model {asked.model!r}: GET /v1/models lists them", "model")
        turns = [turn.model_dump() for turn in asked.messages]
        self._told([turn["content"] for turn in turns], number)
        seed = secrets.randbelow(2**63) if asked.seed is None else asked.seed
        return Prompt(self.decoder.prompt_ids(turns, asked.most), asked.most, asked.temperature, seed)

    async def chat(self, asked: wire.ChatRequest, number: str) -> dict[str, Any]:
        """The whole answer at once."""
        prompt = self._prompt(asked, number)
        try:
            ((ids, reason),) = await self._generated(asked.model, prompt)
        finally:
            prompt.gone = True
        text, size = self.decoder.text(ids), len(prompt.ids)
        return wire.completion(
            f"chatcmpl-{number}", asked.model, int(time.time()), text, reason, size, len(ids)
        )

    def _generated(self, model: str, prompt: Prompt) -> Awaitable[list[Any]]:
        self.metrics.waiting.labels("decoder").set(len(self.answers.waiting))
        return self.answers.submit([prompt], model, [len(prompt.ids)], patience=self.settings.chat_patience)

    async def stream(self, asked: wire.ChatRequest, number: str, caller: Caller) -> AsyncIterator[bytes]:
        """Server-sent events, a piece of the answer each. What can be refused is refused before the first byte. A key that
        is revoked meanwhile ends the stream."""
        prompt, loop = self._prompt(asked, number), asyncio.get_running_loop()
        pieces: asyncio.Queue[list[int] | None] = asyncio.Queue()

        def emit(ids: list[int]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                loop.call_soon_threadsafe(pieces.put_nowait, ids)

        prompt.emit = emit
        task = asyncio.ensure_future(self._generated(asked.model, prompt))
        task.add_done_callback(lambda _: pieces.put_nowait(None))
        await asyncio.sleep(0)  # the queue has now taken it, or has said no
        if task.done():
            await task
        return self._events(asked, number, caller, prompt, task, pieces)

    async def _events(
        self, asked: wire.ChatRequest, number: str, caller: Caller, prompt: Prompt,
        task: asyncio.Future[list[Any]], pieces: asyncio.Queue[list[int] | None],
    ) -> AsyncIterator[bytes]:  # fmt: skip
        head, sent = (f"chatcmpl-{number}", asked.model, int(time.time())), ""

        def event(value: Any) -> bytes:
            return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"

        try:
            yield event(wire.chunk(*head, {"role": "assistant", "content": ""}))
            while (ids := await pieces.get()) is not None:
                if not self.keys.alive(caller.id):
                    raise Refusal(401, "this key has been revoked")
                text = self.decoder.text(ids)
                if len(text) > len(sent) and not text.endswith("\ufffd"):  # else a letter is half there
                    yield event(wire.chunk(*head, {"content": text[len(sent) :]}))
                    sent = text
            ((ids, reason),) = await task
            if rest := self.decoder.text(ids)[len(sent) :]:
                yield event(wire.chunk(*head, {"content": rest}))
            yield event(wire.chunk(*head, {}, reason))
            yield event(b"[DONE]")
        except CourseError as error:
            status = error.status if isinstance(error, Refusal) else 500
            yield event(wire.error_body(status, str(error)))
        finally:
            prompt.gone = True
            task.cancel()

    def rollout(self, asked: wire.RolloutRequest) -> dict[str, Any]:
        """Start, promote or roll back a version."""
        if asked.model not in self.encoder.heads:
            raise Refusal(404, f"no classifier {asked.model!r}: GET /v1/models lists them", "model")
        if asked.action == "start":
            if asked.version not in self.encoder.heads[asked.model]:
                known = ", ".join(sorted(self.encoder.heads[asked.model]))
                raise ParameterError(f"{asked.model} has no such version; known: {known}")
            self.versions.start(asked.model, asked.version, asked.share)
        else:
            getattr(self.versions, asked.action)(asked.model)
        return self.versions.route(asked.model)._asdict()

    def listing(self) -> dict[str, Any]:
        """The models in the form of OpenAI's API."""
        names = [*self.decoder.variants, *self.encoder.heads]
        told = {"object": "model", "created": 0, "owned_by": "instructlab"}
        return {"object": "list", "data": [{"id": name, **told} for name in names]}
