"""A small simple-package index on 127.0.0.1 for the tests of `fetch`, and a small asset to serve from it."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BLOCK = 1 << 14


def sha256(data: bytes) -> str:
    """SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


@dataclass
class LocalIndex:
    """The files it serves by name, how badly it behaves, and what it was asked.

    ``rate``: bytes per second (0: no limit). ``ranges``: honour Range. ``cut``: close the connection after so many
    bytes of an answer, ``cuts`` times. ``end``: never get beyond this byte of a file. ``serve``: bytes to send
    instead of a file's own. ``declare_hash``: name the SHA-256 of the files on the project's page. ``asked``: one
    line per request.
    """

    files: dict[str, bytes]
    rate: float = 0.0
    ranges: bool = True
    cut: int = 0
    cuts: int = 10**9
    end: int = 10**9
    serve: dict[str, bytes] = field(default_factory=dict)
    declare_hash: bool = True
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def page(self, project: str) -> bytes:
        """The project's page: one link for each file (every project offers every file, which is enough here)."""
        links = []
        for name, data in self.files.items():
            fragment = f"#sha256={sha256(data)}" if self.declare_hash else ""
            links.append(f'<a href="/files/{name}{fragment}">{name}</a>')
        return f"<!DOCTYPE html><html><body>{'<br>'.join(links)}</body></html>".encode()


def _handler(index: LocalIndex) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """A test's output has no room for the server's log."""

        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            index.asked.append(f"{self.path} {wanted}".strip())
            kind, _, name = self.path.strip("/").partition("/")
            if kind == "simple" and name:
                self.answer(200, index.page(name), "text/html")
            elif kind == "files" and name in index.files:
                self.file(index.serve.get(name, index.files[name]), wanted)
            else:
                self.answer(404, b"no such page", "text/plain")

        def answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def file(self, data: bytes, wanted: str) -> None:
            begin = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted and index.ranges else 0
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - begin))
            self.end_headers()
            end = min(len(data), index.end)
            if index.cut and index.cuts > 0:
                index.cuts -= 1
                end = min(end, begin + index.cut)
            try:
                for start in range(begin, end, BLOCK):
                    block = data[start : min(start + BLOCK, end)]
                    self.wfile.write(block)
                    if index.rate:
                        time.sleep(len(block) / index.rate)
            except OSError:  # the client was killed
                end = -1
            if end != len(data):
                self.close_connection = True

    return Handler


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[LocalIndex]:
    """Run the index in a thread; yields it, with the address for INSTRUCTLAB_INDEX in ``url``."""
    index = LocalIndex(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(index))
    server.daemon_threads = True
    index.url = f"http://127.0.0.1:{server.server_port}/simple/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()


def pack_zip(members: dict[str, bytes]) -> bytes:
    """A zip archive with fixed times, so that the same members give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as box:
        for name, data in members.items():
            box.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()


def pack_tar(members: dict[str, bytes], extra: list[tarfile.TarInfo] | None = None) -> bytes:
    """A gzipped tar archive; ``extra`` adds members without content, such as links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as ball:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            ball.addfile(info, io.BytesIO(data))
        for info in extra or []:
            ball.addfile(info)
    return buffer.getvalue()


def entry(
    name: str,
    file: str,
    archive: bytes,
    files: dict[str, bytes],
    *,
    prefix: str = "",
    inner: str = "",
    package: str = "tiny-package",
) -> str:
    """One [[asset]] of an assets.toml that pins ``files`` (names after ``prefix``) in ``archive``."""
    lines = [
        "[[asset]]",
        f'name = "{name}"',
        'kind = "data"',
        'title = "made by a test"',
        'licence = "none"',
        'citation = "none"',
        "download_mb = 0.1",
        "disk_mb = 0.1",
        "[[asset.sources]]",
        f'package = "{package}"',
        'version = "1.0"',
        f'file = "{file}"',
        f'sha256 = "{sha256(archive)}"',
        f"bytes = {len(archive)}",
        f'prefix = "{prefix}"',
        f'inner = "{inner}"',
    ]
    for path, data in files.items():
        lines += [
            "[[asset.files]]",
            f'name = "{path}"',
            f"bytes = {len(data)}",
            f'sha256 = "{sha256(data)}"',
        ]
    return "\n".join(lines) + "\n"


def project(folder: Path, toml: str) -> Path:
    """A project root with this assets.toml, for INSTRUCTLAB_ROOT."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text("", encoding="utf-8")
    (folder / "data" / "assets.toml").write_text(toml, encoding="utf-8")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``: relative name → content."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
