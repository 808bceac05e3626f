"""The whole command line: the engine's commands, and those of this room (`serve`, `demo`, `compare`)."""

from __future__ import annotations

from typing import Annotated

import typer

from instructlab_repro.engine.cli import app, main

__all__ = ["app", "main"]
NAMES = ["bot", "monitor", "recommender"]


@app.command()
def demo(
    name: Annotated[str, typer.Argument(help=", ".join(NAMES))],
    port: Annotated[int, typer.Option(help="of this machine; 0 takes a free one")] = 8026,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="open the page in the browser")] = True,
) -> None:
    """Start an application of lesson 26 on this machine, and open its page."""
    from instructlab_apps.demos import page

    page.serve(name, port, open_page)
