"""One command that serves: it makes a first key, shows it once, and stops gracefully. Taught in lesson 25."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from instructlab_apps.service.desk import ServiceSettings
from instructlab_apps.service.engines import DecoderEngine, EncoderEngine
from instructlab_apps.service.http import create
from instructlab_apps.service.keys import KeyRing
from instructlab_utils import cache
from instructlab_utils.errors import ParameterError

DRAIN = 30  # seconds that requests under way have when the service stops


class GracefulServer(uvicorn.Server):
    """uvicorn's server, which tells the app of SIGTERM or SIGINT at once: /readyz says no while the last answers go out."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        desk: Any = getattr(self.config.app.state, "desk", None)  # type: ignore[union-attr]
        if desk is not None:
            desk.stopping = True
        self.force_exit = self.should_exit and sig == signal.SIGINT  # asked twice
        self.should_exit = (
            True  # uvicorn's own method would raise the signal again at the end, and exit with it
        )


def folder_of(given: str) -> Path:
    """Where keys and stored answers lie: ``given``, else ``cache.home()/service``."""
    return Path(given).expanduser() if given else cache.home() / "service"


def adapters_of(given: list[str]) -> tuple[tuple[str, str], ...]:
    """NAME=FOLDER, as typed. ParameterError for anything else."""
    pairs = tuple(tuple(each.split("=", 1)) for each in given)
    if bad := [each for each, pair in zip(given, pairs, strict=True) if len(pair) != 2 or not all(pair)]:
        raise ParameterError(f"--adapter {bad[0]!r}: write NAME=FOLDER")
    return pairs  # type: ignore[return-value]


def new_key(folder: Path, name: str, scope: str = "use", per_minute: float = 600.0) -> str:
    """A key in the file of ``folder``; the file and its folder are made, for their owner only."""
    folder.mkdir(parents=True, exist_ok=True)
    ring = KeyRing(folder / "service.sqlite")
    if os.name == "posix":
        (folder / "service.sqlite").chmod(0o600)
    key = ring.create(name, scope, per_minute)
    ring.close()
    return key


def revoke(folder: Path, id: str) -> None:
    """ParameterError where no good key has this id."""
    ring = KeyRing(folder / "service.sqlite")
    known = ring.revoke(id)
    ring.close()
    if not known:
        raise ParameterError(f"no good key {id!r}: the id is what stands between sk- and the next -")


def has_keys(folder: Path) -> bool:
    ring = KeyRing(folder / "service.sqlite")
    found = ring.count() > 0
    ring.close()
    return found


def serve(
    settings: ServiceSettings,
    host: str,
    port: int,
    engines: tuple[EncoderEngine, DecoderEngine] | None = None,
) -> None:
    """Until SIGTERM or SIGINT. Requests under way get their answers, for DRAIN seconds at most."""
    app = create(settings, engines)
    config = uvicorn.Config(
        app, host=host, port=port, log_config=None, access_log=False, server_header=False, date_header=False,
        timeout_keep_alive=15, timeout_graceful_shutdown=DRAIN, backlog=512, limit_concurrency=1024,
    )  # fmt: skip
    GracefulServer(config).run()
