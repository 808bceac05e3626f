"""The whole command line: the engine's commands, and those of this room (`serve`, `demo`, `compare`)."""

from __future__ import annotations

from instructlab_repro.engine.cli import app, main

__all__ = ["app", "main"]
