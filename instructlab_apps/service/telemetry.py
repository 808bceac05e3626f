"""What the service tells about itself: metrics that Prometheus reads, and log lines in which personal data are masked.

Taught in lesson 25.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import IO, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from instructlab_utils.masking import MaskingFilter, mask

ROUTES = (
    "/v1/chat/completions",
    "/v1/models",
    "/classify",
    "/rank",
    "/admin/rollout",
    "/metrics",
    "/healthz",
    "/readyz",
)
LOGGER = "instructlab.service"
_TOLD = ("request", "route", "status", "ms", "caller", "excerpt")


def route_of(path: str) -> str:
    """The path if it is one of ours, else "other": a label that strangers choose would fill the memory."""
    return path if path in ROUTES else "other"


class Telemetry:
    """The metrics of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("service_requests", "Answers sent", ("route", "status"), **made)
        steps = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
        self.seconds = Histogram("service_seconds", "Seconds to an answer", ("route",), buckets=steps, **made)
        sizes = (1, 2, 4, 8, 16, 32, 64)
        self.batches = Histogram(
            "service_batch_size", "Items computed together", ("engine",), buckets=sizes, **made
        )
        self.waiting = Gauge("service_waiting", "Items in the queue", ("engine",), **made)
        self.replayed = Counter("service_replayed", "Answers repeated from the store", **made)
        self.versions = Counter("service_versions", "Answers by version", ("model", "version"), **made)
        self.rollbacks = Counter("service_rollbacks", "Candidates that fell", ("model",), **made)
        self.drift = Gauge("service_drift", "The drift chart's value over its threshold", **made)
        self.alarms = Counter("service_drift_alarms", "Alarms of the drift chart", **made)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


class JsonLines(logging.Formatter):
    """One JSON object a line: a line break in a text cannot begin a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        told = {"at": self.formatTime(record), "level": record.levelname, "message": record.getMessage()}
        told |= {name: value for name in _TOLD if (value := getattr(record, name, None)) is not None}
        if record.exc_text:
            told["exception"] = record.exc_text
        return json.dumps(told, ensure_ascii=False)


def logger_to(stream: IO[str] | None = None, names: tuple[str, ...] = ()) -> logging.Logger:
    """The service's logger with one masking handler; uvicorn's own lines go the same way. ``names``: masked too."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(MaskingFilter(names))
    handler.setFormatter(JsonLines())
    for name in (LOGGER, "uvicorn", "uvicorn.error"):
        each = logging.getLogger(name)
        each.handlers, each.propagate = [handler], False
        each.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").handlers = []  # it hands its lines to "uvicorn"
    logging.getLogger("uvicorn.error").propagate = True
    logging.getLogger("uvicorn.access").disabled = True  # it would write paths, unmasked
    return logging.getLogger(LOGGER)


def excerpt(text: str, most: int = 80) -> str:
    """The beginning of a text for a log: masked first and cut afterwards, since half a card number has no checksum."""
    return mask(text)[:most]
