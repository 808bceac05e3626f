"""The whole command line: the engine's commands, and those of this room (`serve`, `demo`, `compare`)."""

from __future__ import annotations

from pathlib import Path
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


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8025,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in")] = "127.0.0.1",
    model: Annotated[str, typer.Option(help="folder of a decoder, or smoke: tiny random models")] = "",
    adapter: Annotated[list[str] | None, typer.Option(metavar="NAME=FOLDER", help="repeatable")] = None,
    threads: Annotated[
        int, typer.Option(min=1, max=64, help="that compute, each on a core; the front needs little")
    ] = 2,
    int8: Annotated[
        bool, typer.Option("--int8", help="the encoder in eight bits: faster, nearly the same")
    ] = False,
    folder: Annotated[str, typer.Option(help="of keys and stored answers; else in the cache")] = "",
    add_key: Annotated[str, typer.Option(metavar="NAME", help="make a key, show it once, end")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="with --add-key: it may change versions")] = False,
    per_minute: Annotated[float, typer.Option(min=1, help="with --add-key: requests a minute")] = 600,
    revoke_key: Annotated[str, typer.Option(metavar="ID", help="a key stops working at once; end")] = "",
) -> None:
    """Serve chat, classifiers and ranking over HTTP (lesson 25)."""
    from instructlab_apps.service import serving

    place = serving.folder_of(folder)
    if add_key:
        print(serving.new_key(place, add_key, "admin" if admin else "use", per_minute))
        return
    if revoke_key:
        serving.revoke(place, revoke_key)
        print(f"key {revoke_key} has stopped working")
        return
    place.mkdir(parents=True, exist_ok=True)
    if not serving.has_keys(place):
        print(f"first key, shown once: {serving.new_key(place, 'first', 'admin')}", flush=True)
    from instructlab_apps.service.desk import ServiceSettings

    settings = ServiceSettings(place, model, serving.adapters_of(adapter or []), threads=threads, int8=int8)
    print(f"serving on http://{host}:{port}; stop with Ctrl-C", flush=True)
    serving.serve(settings, host, port)


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
