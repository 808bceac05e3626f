"""The whole command line: the engine's commands, and those of this room (`serve`, `demo`, `compare`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instructlab_repro.engine.cli import app, main

__all__ = ["app", "main"]


@app.command()
def compare(
    data: Annotated[
        Path, typer.Option(help="a CSV, TSV, JSON Lines, JSON or Parquet file of labelled texts")
    ],
    text: Annotated[str, typer.Option(help="its column of texts")] = "",
    label: Annotated[str, typer.Option(help="its column of labels")] = "",
    model: Annotated[Path | None, typer.Option(help="a folder with an encoder in safetensors")] = None,
    minutes: Annotated[float, typer.Option(help="time for everything")] = 5.0,
    out: Annotated[Path | None, typer.Option(help="folder for report and runs")] = None,
    threads: Annotated[int, typer.Option(min=1, help="more than one changes the last digits")] = 1,
) -> None:
    """Try every method on your own labelled texts, within your minutes; a report says which to take."""
    from instructlab_apps.compare import launch

    raise typer.Exit(launch.compare(data, text, label, model, minutes, out, threads, launch.process_start()))
