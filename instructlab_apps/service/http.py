"""The app: ``create(settings)``. A request passes key, rate, size, form, store and queue, in this order: what is cheap to
refuse is refused first. Taught in lesson 25.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from instructlab_apps.service import gateway, telemetry, wire
from instructlab_apps.service.desk import Desk, ServiceSettings
from instructlab_apps.service.engines import DecoderEngine, EncoderEngine, default_engines
from instructlab_apps.service.keys import Caller
from instructlab_apps.service.limits import Refusal, parsed_json

Work = Callable[[Any, str], Awaitable[dict[str, Any]]]


def create(settings: ServiceSettings, engines: tuple[EncoderEngine, DecoderEngine] | None = None) -> FastAPI:
    """The service as an ASGI app; ``app.state.desk`` is there from its start on. ``engines``: else the default ones for
    ``settings.model``. The file of keys lies in ``settings.folder``, which is made where it is not there."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    log, metrics = telemetry.logger_to(settings.log_to, settings.names), telemetry.Telemetry()
    encoder, decoder = engines or default_engines(settings.model, dict(settings.adapters), settings.int8)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.desk = Desk(settings, encoder, decoder, metrics)
        yield
        await app.state.desk.close()

    app = FastAPI(
        title="instructlab service", lifespan=lifespan, redirect_slashes=False,
        docs_url=None, redoc_url=None, openapi_url=None,
    )  # fmt: skip
    gateway.install(app, metrics, log)

    def admitted(request: Request, scope: str = "use") -> Caller:
        caller: Caller = app.state.desk.admitted(request.headers.get("authorization", ""), scope)
        request.state.caller = caller.id
        return caller

    async def asked(request: Request, kind: type[Any]) -> tuple[dict[str, Any], Any]:
        value = parsed_json(await gateway.read_body(request, settings.body, settings.body_patience))
        return value, wire.parsed(kind, value)

    async def answered(
        request: Request, caller: Caller, value: dict[str, Any], wanted: Any, work: Work
    ) -> Response:
        key = request.headers.get("idempotency-key", "")
        number = request.state.request
        body, again = await app.state.desk.once(
            caller, key, request.url.path, value, lambda: work(wanted, number)
        )
        headers = {"Idempotent-Replayed": "true"} if again else {}
        return Response(body, headers=headers, media_type="application/json")

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        caller = admitted(request)
        value, wanted = await asked(request, wire.ChatRequest)
        if not wanted.stream:
            return await answered(request, caller, value, wanted, app.state.desk.chat)
        if "idempotency-key" in request.headers:
            raise Refusal(400, "a stream is not stored: leave out Idempotency-Key, or stream")
        events = await app.state.desk.stream(wanted, request.state.request, caller)
        return StreamingResponse(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    @app.post("/classify")
    async def classify(request: Request) -> Response:
        caller = admitted(request)
        value, wanted = await asked(request, wire.ClassifyRequest)
        return await answered(request, caller, value, wanted, app.state.desk.classify)

    @app.post("/rank")
    async def rank(request: Request) -> Response:
        caller = admitted(request)
        value, wanted = await asked(request, wire.RankRequest)
        return await answered(request, caller, value, wanted, app.state.desk.rank)

    @app.post("/admin/rollout")
    async def rollout(request: Request) -> dict[str, Any]:
        admitted(request, "admin")
        _, wanted = await asked(request, wire.RolloutRequest)
        told: dict[str, Any] = app.state.desk.rollout(wanted)
        return told

    @app.get("/v1/models")
    async def listing(request: Request) -> dict[str, Any]:
        admitted(request)
        told: dict[str, Any] = app.state.desk.listing()
        return told

    @app.get("/metrics")
    async def measured(request: Request) -> Response:
        admitted(request)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/healthz")
    async def healthy() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def ready() -> Response:
        good = app.state.desk.ready
        return Response(b"ready\n" if good else b"not ready\n", 200 if good else 503, media_type="text/plain")

    return app
