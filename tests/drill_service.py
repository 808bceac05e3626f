"""Kill the service twenty times under load, and feed it ten thousand broken requests: ``python tests/drill_service.py``.

First: a client sends requests and repeats each under its idempotency key until it has an answer, while the server is killed
with SIGKILL, which no program can catch, and started again. In the end each request has one answer, the stored one, however
often it was asked for. Then: requests that are broken in many ways, while memory, log and status codes are watched.
``--kills``, ``--requests`` and ``--broken`` make it shorter. POSIX only (the server is forked, so that it starts at once).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from instructlab_apps.service import desk, engines, serving  # noqa: E402
from instructlab_utils import masking  # noqa: E402

WORKERS = 24
PRIVATE = [
    (text, text[span.start : span.end])
    for text, spans in masking.records(400, seed=5)
    for span in spans
    if span.kind != "NAME"
]


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """The service in a forked child; ``kill`` ends it without a word, ``start`` brings it back."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.log = folder, free_port(), folder / "log"
        self.engines, self.pid = engines.smoke_engines(), 0

    def start(self) -> None:
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
            settings = desk.ServiceSettings(self.folder, "smoke", drift_run=100, log_texts=True)
            serving.serve(settings, "127.0.0.1", self.port, self.engines)
            code = 0
        finally:
            os._exit(code)

    def stop(self, how: int = signal.SIGKILL) -> int:
        os.kill(self.pid, how)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


async def exchanged(port: int, raw: bytes, patience: float = 20.0) -> tuple[int, bytes, bytes]:
    """Send ``raw`` on a connection of its own; status, head and body of what comes back. OSError where nothing does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(patience):
            writer.write(raw)
            if writer.can_write_eof():
                writer.write_eof()
            data = await reader.read(-1)
    except TimeoutError:
        raise ConnectionError("no answer in time") from None
    finally:
        writer.close()
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), -1
    )
    if not head.startswith(b"HTTP/1.1 ") or 0 <= length != len(body):
        raise ConnectionError("half an answer")
    return int(head[9:12]), head, body


def posted(path: str, key: str, body: bytes, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: here", f"Authorization: Bearer {key}", "Connection: close"]
    return "\r\n".join([*lines, *more, f"Content-Length: {len(body)}", "", ""]).encode() + body


def request(number: int) -> tuple[str, dict[str, Any]]:
    text = PRIVATE[number % len(PRIVATE)][0]
    if number % 4 == 0:
        turns = [{"role": "user", "content": text}]
        return "/v1/chat/completions", {
            "model": "smoke",
            "messages": turns,
            "max_tokens": 4,
            "temperature": 1.5,
        }
    if number % 4 == 1:
        return "/rank", {"query": text, "documents": [f"one {number}", "two"]}
    return "/classify", {"model": "smoke-a", "texts": [f"{text} {number}"] * (1 + number % 3)}


async def storm(server: Server, key: str, requests: int, kills: int) -> dict[str, int]:
    """Every request until it has its answer, one in four twice; the server is killed ``kills`` times meanwhile."""
    rng, todo, got, seen = random.Random(1), iter(range(requests)), dict[int, bytes](), Counter[str]()

    async def answer(number: int) -> bytes:
        path, value = request(number)
        raw = posted(path, key, json.dumps(value).encode(), f"Idempotency-Key: drill-{number}")
        while True:
            try:
                status, _, body = await exchanged(server.port, raw)
            except OSError:
                seen["broken connections"] += 1
                await asyncio.sleep(rng.uniform(0.01, 0.1))
                continue
            if status == 200:
                return body
            seen[f"status {status}"] += 1
            assert status in (429, 503), (status, body)
            await asyncio.sleep(rng.uniform(0.05, 0.2))

    async def worker() -> None:
        for number in todo:
            got[number] = await answer(number)
            if number % 4 == 0:
                again = rng.choice(list(got))
                seen["doubled"] += await answer(again) != got[again]

    async def killer() -> None:
        for n in range(kills):
            while len(got) < requests * (n + 0.5) / kills:
                await asyncio.sleep(0.01)
            server.stop()
            seen["killed"] += 1
            server.start()

    await asyncio.gather(killer(), *(worker() for _ in range(WORKERS)))
    with closing(sqlite3.connect(server.folder / "service.sqlite")) as db:
        kept = {row[0]: row[1] for row in db.execute("SELECT key, body FROM answers")}
    lost = sum(kept.get(f"drill-{number}") != got.get(number) for number in range(requests))
    return {"answered": len(got), "stored": len(kept), "lost": lost, "doubled": 0, **seen}


def broken(number: int, key: str, rng: random.Random) -> bytes:
    """A request that is wrong in one of many ways."""
    path, value = request(4 * number + rng.choice((0, 1, 2)))
    good = json.dumps(value).encode()
    kind = number % 12
    if kind == 0:
        return posted(path, key, good[: rng.randrange(len(good))])
    if kind == 1:
        return posted(path, key, bytes(rng.randrange(256) for _ in range(rng.randrange(300))))
    if kind == 2:
        place = rng.randrange(len(good))
        return posted(path, key, good[:place] + bytes([rng.randrange(256)]) * 3 + good[place + 1 :])
    if kind == 3:
        deep = rng.choice((9, 100, 100_000))
        return posted(path, key, rng.choice((b"[", b'{"a":')) * deep)
    if kind == 4:
        wrong = rng.choice(
            (None, True, -1, 1e308, 10**400, "", [], {}, "\ud800", "x" * 9000, ["a"] * 99, [[["a"]]])
        )
        return posted(path, key, json.dumps({**value, rng.choice([*value, "more"]): wrong}).encode())
    if kind == 5:
        return posted(path, key, b"{" + b'"a":1,' * rng.randrange(60_000) + b'"b":2}')
    if kind == 6:
        return posted(path, rng.choice(("", "x", key[:-1], key + "é", "sk-" + "0" * 60_000)), good)
    if kind == 7:
        return posted(
            path,
            key,
            good,
            rng.choice(("Idempotency-Key: " + "k" * 300, "Transfer-Encoding: chunked", "Expect: 9")),
        )
    if kind == 8:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(1, 200))) + b"\r\n\r\n"
    if kind == 9:
        return posted(path, key, good).replace(
            b"HTTP/1.1", rng.choice((b"HTTP/9.9", b"HTTP/1.1 x", b"", b"HTTP/1.0\0"))
        )
    if kind == 10:
        odd = rng.choice(
            (
                "/../../etc",
                "/classify/",
                "/%00",
                "/v1/chat/completions?a=%ff",
                "//",
                "/metrics",
                "/" + "a" * 4000,
            )
        )
        return posted(odd, key, good)
    method = rng.choice((b"GET", b"PUT", b"DELETE", b"PATCH", b"TRACE", b"\x00", b"CONNECT"))
    return posted(path, key, good).replace(b"POST", method, 1)


async def nonsense(server: Server, key: str, count: int) -> dict[str, Any]:
    rng, todo, seen, sizes = random.Random(2), iter(range(count)), Counter[str](), list[float]()
    process = psutil.Process(server.pid)

    async def worker() -> None:
        for number in todo:
            try:
                status, _, body = await exchanged(server.port, broken(number, key, rng))
            except OSError:
                seen["no answer"] += 1  # the connection was closed on it
                continue
            seen[f"{status // 100}xx"] += 1
            seen["traceback outside"] += b"Traceback" in body
            if number % (count // 20) == 0:
                sizes.append(process.memory_info().rss / 2**20)

    await asyncio.gather(*(worker() for _ in range(WORKERS)))
    settled = sizes[len(sizes) // 4 :]
    return {
        **seen,
        "MB in the first half": max(settled[: len(settled) // 2]),
        "MB in the end": max(settled[-4:]),
    }


@contextmanager
def running(folder: Path) -> Iterator[tuple[Server, str]]:
    server, key = Server(folder), serving.new_key(folder, "drill", per_minute=1e8)
    server.start()
    try:
        yield server, key
    finally:
        if psutil.pid_exists(server.pid):
            code = server.stop(signal.SIGTERM)
            assert code == 0, f"after SIGTERM it ended with {code}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("--kills", 20), ("--requests", 10_000), ("--broken", 10_000)):
        parser.add_argument(name, type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.monotonic()
        with running(folder) as (server, key):
            found = asyncio.run(storm(server, key, given.requests, given.kills))
            print(
                f"{given.requests} requests, {time.monotonic() - began:.0f} s:", json.dumps(found), flush=True
            )
            assert found["answered"] == found["stored"] == given.requests and found["killed"] == given.kills
            assert found["lost"] == found["doubled"] == 0
            told = asyncio.run(nonsense(server, key, given.broken))
            print(f"{given.broken} broken requests:", json.dumps(told), flush=True)
            assert not told.get("5xx") and not told["traceback outside"], told
            assert told["MB in the end"] < told["MB in the first half"] + 8, "memory grows"
        log = server.log.read_text(encoding="utf-8")
        assert "Traceback" not in log and "failed" not in log, log[log.find("Traceback") :][:3000]
        assert log.count('"text"') > given.requests / 2
        # With one more digit, as a broken byte may add, it is another number: no form and no checksum tells it any more.
        alone = (rf"(?<!\d){re.escape(value)}(?!\d)" for _, value in PRIVATE)
        leaked = [pattern for pattern in alone if re.search(pattern, log)]
        assert not leaked and key not in log, (len(leaked), leaked[:9])
        print(f"log: {log.count(chr(10))} lines, no traceback, none of {len(PRIVATE)} private texts, no key")


if __name__ == "__main__":
    main()
