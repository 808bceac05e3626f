"""The frame of the demos: pages with forms, for one person on this machine.

A demo is data: pages, each a template and a function that gives its values, and actions, each a function of a form. The
frame escapes every value, sends a strict Content-Security-Policy, and refuses what another website's page sends.

Taught in lesson 26.
"""

from __future__ import annotations

import importlib
import os
import socket
import threading
import webbrowser
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jinja2
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from instructlab_utils.errors import CourseError, ParameterError
from instructlab_utils.project import closest

HERE = Path(__file__).parent
DEMOS = {  # name → module of this folder; its build() gives the Demo
    "bot": "support_bot",
    "monitor": "opinion_monitor",
    "recommender": "recommender",
}
HOSTS = ("127.0.0.1", "localhost", "[::1]")
LONGEST = 16_384  # bytes of a form
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with "no-referrer" a browser hides the Origin that we compare
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
Values = Mapping[str, str]


@dataclass(frozen=True)
class View:
    """A page: its place ("/" or "/word"), its name in the navigation, its template, and what gives the values.

    ``values`` is called with the query, each key once, and returns what the template shows.
    """

    path: str
    title: str
    template: str
    values: Callable[[Values], Mapping[str, Any]]


@dataclass(frozen=True)
class Demo:
    """An application: views, the first at "/", and actions by name.

    An action gets the form's fields, each key once, and returns the path, with its query, of the page to show next. What it
    raises as a CourseError is shown to the person in one sentence.
    """

    name: str
    title: str
    about: str
    views: tuple[View, ...]
    actions: Mapping[str, Callable[[Values], str]] = field(default_factory=dict)


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(HERE / "templates")
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def fields_of(body: bytes) -> dict[str, str]:
    """A form's fields as the browser sends them (``a=1&b=two+words``); the last of a repeated key. ParameterError for more
    than 50 of them."""
    try:
        pairs = parse_qsl(body.decode("ascii", "replace"), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise ParameterError("the form has more than 50 fields; send those of the page only") from None
    return {key: value.replace("\0", "").strip() for key, value in pairs}


def _static(path: Path, kind: str, request: Request) -> FileResponse:
    return FileResponse(path, media_type=kind)


def foreign(request: Request) -> str:
    """Why a request does not come from this machine's own page, or an empty string.

    The Host must be a name of this machine (else another website's name may point here), and a form's Origin must be it.
    """
    host = request.headers.get("host", "")
    if host.rpartition(":")[0] not in HOSTS and host not in HOSTS:
        return "this page answers on this machine only: open it as http://127.0.0.1"
    origin = request.headers.get("origin")
    if request.method == "POST" and origin is not None and urlsplit(origin).netloc != host:
        return "the form was sent by another page: open this one and send it from here"
    return ""


def application(demo: Demo) -> FastAPI:
    """The demo as an ASGI application. ParameterError where no view is at "/", or two are at one path."""
    views = {view.path: view for view in demo.views}
    if "/" not in views or len(views) < len(demo.views):
        raise ParameterError(f"demo {demo.name!r}: give each view a path of its own, one of them '/'")
    app = FastAPI(title=demo.title, docs_url=None, redoc_url=None, openapi_url=None)
    templates = _environment()

    def render(template: str, status: int = 200, **values: Any) -> HTMLResponse:
        text = templates.get_template(template).render(demo=demo, **values)
        return HTMLResponse(text, status)

    def refused(status: int, said: str) -> HTMLResponse:
        return render("refused.html.j2", status, view=None, said=said)

    def shown(view: View, request: Request) -> HTMLResponse:
        try:
            return render(view.template, view=view, **view.values(dict(request.query_params)))
        except CourseError as error:
            return refused(422, str(error))

    def act(name: str, body: bytes) -> Response:
        if name not in demo.actions:
            return refused(404, f"There is no action named {name}.")
        try:
            target = demo.actions[name](fields_of(body))
        except CourseError as error:
            return refused(422, str(error))
        if urlsplit(target).netloc or not target.startswith("/"):
            raise ValueError(f"action {name!r} leads to {target!r}: return a path of this application")
        return RedirectResponse(target, 303)  # so that a reload does not send the form again

    @app.middleware("http")
    async def guard(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        why = foreign(request)
        response = refused(403, why) if why else await proceed(request)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(404)
    async def unknown(request: Request, error: Exception) -> Response:
        return refused(404, "There is no such page.")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "demo": demo.name}

    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript")):
        app.add_route(f"/{name}", partial(_static, HERE / "static" / name, kind))
    for view in demo.views:
        app.add_route(view.path, partial(shown, view))

    @app.post("/do/{name}")
    async def do(name: str, request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LONGEST:
                return refused(413, "The form is too long; shorten the text.")
        return await run_in_threadpool(act, name, body)

    return app


# --- the command ----------------------------------------------------------------------------------------------------


def load(name: str) -> Demo:
    """The demo of that name, its models loaded. ParameterError for an unknown one; AssetError where a file is missing."""
    if name not in DEMOS:
        raise ParameterError(
            f"no demo named {name!r}{closest(name, list(DEMOS)) or ';'} known: {', '.join(DEMOS)}"
        )
    return importlib.import_module(f"instructlab_apps.demos.{DEMOS[name]}").build()


def listening(port: int) -> socket.socket:
    """A socket on 127.0.0.1; port 0 takes a free one. ParameterError where the port is taken or not allowed."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":  # on Windows the option would let two programs share a port
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(("127.0.0.1", port))
        found.listen()
    except (OSError, OverflowError) as error:
        found.close()
        why = getattr(error, "strerror", None) or error
        said = f"port {port} cannot be used ({why}); choose another with --port, 0 for a free one"
        raise ParameterError(said) from None
    return found


def serve(name: str, port: int, open_page: bool) -> None:
    """Load a demo and serve it on this machine until Ctrl+C. ParameterError for a wrong name or a port in use."""
    if name not in DEMOS:
        load(name)  # says what is wrong before the port is looked at
    with listening(port) as place:
        url = f"http://127.0.0.1:{place.getsockname()[1]}/"
        print(f"{name}: loading (the first time it computes what it keeps) …", flush=True)
        server = uvicorn.Server(uvicorn.Config(application(load(name)), log_level="warning"))
        print(f"{name}: {url} (Ctrl+C ends it)", flush=True)
        if open_page:
            threading.Timer(1.0, webbrowser.open, [url]).start()
        try:
            server.run(sockets=[place])
        except KeyboardInterrupt:
            print(f"{name}: ended", flush=True)
