"""The service of lesson 25 against a plain `transformers.pipeline` behind FastAPI: the same requests, the same run.

    python benchmarks/service.py            # print the load curves; some minutes
    python benchmarks/service.py --record   # also keep them, and the service times, in instructlab_apps/service/measured.toml
    python benchmarks/service.py --threads 2   # of ours, each with a batch of its own; the plain one has a pool of forty
    python benchmarks/service.py --times    # record the service times alone, in processor seconds
    python benchmarks/service.py --quick    # two rates for two seconds each: does the script work?

Open loop: requests come at random with a rate, whether earlier ones are answered or not, and a latency counts from the
moment a request was due. The servers take turns at each rate: ours, ours with an int8 encoder, the plain one. A rate is
sustained where nobody is refused and the 95th percentile is at most LIMIT. All may use every core, and the client needs
some of them too. ``cpu`` is what a server spends on a request, in processor seconds: it hardly depends on others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # read when torch is imported
os.environ["TOKENIZERS_PARALLELISM"] = "false"

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import psutil  # noqa: E402
import tomli_w  # noqa: E402
import torch  # noqa: E402
from pydantic import BaseModel  # noqa: E402

from instructlab_apps.service import autoscaling, desk, engines, serving  # noqa: E402
from instructlab_utils import files, models, tasks  # noqa: E402

TASK, LIMIT, SECONDS = "tweet-sentiment", 0.25, 8.0
RATES = (5, 10, 15, 20, 30, 40, 50, 60, 75, 90, 110, 130, 160)
SIZES = (1, 2, 4, 8, 16)
TURNS = [{"role": "user", "content": "Name three things that float, in one sentence."}]


class Asked(BaseModel):
    """What the plain server is asked. At the top, where FastAPI finds its name."""

    texts: list[str]


def texts() -> list[str]:
    return list(tasks.load(TASK).splits["test"]["text"])[:300]


def serve_plain(port: int) -> None:
    """What everybody writes first: a pipeline, called in the handler. FastAPI runs it in its pool of threads."""
    import uvicorn
    from fastapi import FastAPI
    from transformers import pipeline

    app = FastAPI()
    pipe = pipeline(
        "text-classification", models.load_classifier(2), tokenizer=models.load_tokenizer("encoder")
    )

    @app.post("/classify")
    def classify(asked: Asked) -> list[dict[str, Any]]:
        return list(pipe(asked.texts, truncation=True, max_length=engines.WINDOW))

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def serve_ours(port: int, folder: Path, threads: int, int8: bool) -> None:
    settings = desk.ServiceSettings(folder, threads=threads, log_to=open(os.devnull, "w"))
    encoder = engines.encoder_engine([TASK], int8)
    serving.serve(settings, "127.0.0.1", port, (encoder, engines.smoke_engines()[1]))


# --- the client ---------------------------------------------------------------------------------------------------------


class Connections:
    """HTTP/1.1 over connections that are used again."""

    def __init__(self, port: int, key: str) -> None:
        self.port, self.key, self.idle = port, key, list[Any]()

    async def post(self, body: bytes) -> int:
        """The status of the answer. An idle connection that the server has closed meanwhile is replaced."""
        while self.idle:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                return await self._on(self.idle.pop(), body)
        return await self._on(await asyncio.open_connection("127.0.0.1", self.port), body)

    async def _on(self, pair: Any, body: bytes) -> int:
        reader, writer = pair
        head = f"POST /classify HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {self.key}\r\n"
        writer.write(
            f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        told = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(told.split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        self.idle.append(pair)
        return int(told[9:12])


async def loaded(
    port: int, key: str, said: list[str], rate: float, seconds: float, seed: int
) -> dict[str, float]:
    """Poisson arrivals for so long; latencies in seconds from the moment a request was due."""
    rng, link = random.Random(seed), Connections(port, key)
    due, at = list[float](), 0.0
    while (at := at + rng.expovariate(rate)) < seconds:
        due.append(at)
    bodies = [
        json.dumps({"texts": [rng.choice(said)]} | ({"model": TASK} if key else {})).encode() for _ in due
    ]
    begin = time.perf_counter()

    async def one(moment: float, body: bytes) -> tuple[int, float]:
        await asyncio.sleep(max(0.0, begin + moment - time.perf_counter()))
        return await link.post(body), time.perf_counter() - begin - moment

    found = await asyncio.gather(*(one(moment, body) for moment, body in zip(due, bodies, strict=True)))
    spent = time.perf_counter() - begin
    times = np.array([latency for status, latency in found if status == 200])
    for _, writer in link.idle:
        writer.close()
    p50, p95, p99 = (float(np.quantile(times, q)) for q in (0.5, 0.95, 0.99))
    refused = sum(status != 200 for status, _ in found)
    told = {"rate": rate, "n": len(due), "refused": refused, "per_second": len(times) / spent}
    return {**told, "mean": float(times.mean()), "p50": p50, "p95": p95, "p99": p99}


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started(*how: str) -> tuple[subprocess.Popen[bytes], int]:
    port = free_port()
    process = subprocess.Popen([sys.executable, __file__, *how, "--port", str(port)], cwd=ROOT)
    for _ in range(1200):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, port
        if process.poll() is not None:
            break
        time.sleep(0.1)
    process.kill()
    raise SystemExit(f"the server {how} did not start")


def seconds_of(pid: int) -> float:
    """Processor seconds that a process has used."""
    return float(sum(psutil.Process(pid).cpu_times()[:2]))


def curves(seconds: float, rates: tuple[float, ...], threads: int) -> list[dict[str, Any]]:
    """All servers at each rate, in turn; a server is left out after two rates above four times the limit."""
    said, rows = texts(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as name:
        key = serving.new_key(Path(name), "bench", per_minute=1e8)
        how = ("--ours", name, "--threads", str(threads))
        servers = {"ours": started(*how), "int8": started(*how, "--int8"), "plain": started("--plain")}
        over = dict.fromkeys(servers, 0)
        try:
            for server, (_, port) in servers.items():
                asyncio.run(loaded(port, "" if server == "plain" else key, said, 10, 2.0, 0))  # warm
            for number, rate in enumerate(rates):
                for server, (process, port) in servers.items():
                    if over[server] < 2:
                        used = seconds_of(process.pid)
                        told = loaded(port, "" if server == "plain" else key, said, rate, seconds, number)
                        row = {"server": server, **asyncio.run(told)}
                        row["cpu"] = (seconds_of(process.pid) - used) / max(1, row["n"])
                        rows.append(row)
                        over[server] += row["p95"] > 4 * LIMIT or row["refused"] > 0
                        shown = {
                            name: v if isinstance(v, str | int) else round(v, 3) for name, v in row.items()
                        }
                        print(shown, flush=True)
        finally:
            for process, _ in servers.values():
                process.terminate()
                process.wait(timeout=60)
    return rows


def sustained(rows: list[dict[str, Any]], server: str) -> float:
    """The most requests a second that a server answered within the limit, nobody refused."""
    kept = (row for row in rows if row["server"] == server and not row["refused"] and row["p95"] <= LIMIT)
    return max((row["per_second"] for row in kept), default=0.0)


def clocked(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return round(time.process_time() - begin, 5)


def times() -> dict[str, Any]:
    """Processor seconds of single requests, and of batches of texts of mixed length: the time that each would take if it
    had a core for itself."""
    engine, said = engines.encoder_engine([TASK]), texts()
    engine.vectors("", said[:8])
    alone = [clocked(lambda text=text: engine.vectors("", [text])) for text in said[:120]]  # type: ignore[misc]
    batch = []
    for size in SIZES:
        rows = [sorted(said[i : i + size], key=len) for i in range(0, 64, size)]
        batch.append(float(np.median([clocked(lambda row=row: engine.vectors("", row)) for row in rows])))  # type: ignore[misc]
    tokenizer = models.load_tokenizer("decoder")
    decoder = engines.DecoderEngine({"smollm2": models.load_decoder()}, tokenizer)
    ids, rng = decoder.prompt_ids(TURNS, 64), random.Random(0)
    chat = []
    for seed in range(24):
        prompt = engines.Prompt(ids, rng.choice((4, 8, 12, 16)), 1.0, seed)
        chat.append(clocked(lambda prompt=prompt: list(decoder.steps("smollm2", [prompt]))))  # type: ignore[misc]
    return {
        "seconds": {"classify": alone, "chat": chat},
        "batch": {"sizes": list(SIZES), "seconds": [round(value, 5) for value in batch]},
    }


def agreement() -> dict[str, float]:
    """What eight bits cost in answers: the accuracy of both on the test texts, and how often they say the same."""
    rows = tasks.load(TASK).splits["test"]
    said, true = list(rows["text"]), torch.tensor(rows["label"])
    found = []
    for int8 in (False, True):
        engine = engines.encoder_engine([TASK], int8)
        batches = (engine.vectors("", said[i : i + 16]) for i in range(0, len(said), 16))
        vectors = torch.stack([vector for batch in batches for vector in batch])
        found.append(list(engine.heads[TASK].values())[-1](vectors).argmax(-1))
    shares = {"accuracy": found[0] == true, "accuracy_int8": found[1] == true, "same": found[0] == found[1]}
    return {"n": len(said), **{name: round(float(hit.float().mean()), 4) for name, hit in shares.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rates", default=",".join(map(str, RATES)), help="requests a second, with commas")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each rate and server")
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--int8", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.plain:
        return serve_plain(given.port)
    if given.ours:
        return serve_ours(given.port, given.ours, given.threads, given.int8)
    if given.times:
        return kept({**autoscaling.measured(), **times()})
    rates = tuple(float(rate) for rate in given.rates.split(","))
    rows = curves(2.0, (4, 8), given.threads) if given.quick else curves(given.seconds, rates, given.threads)
    best = {server: sustained(rows, server) for server in ("ours", "int8", "plain")}
    told = ", ".join(f"{server} {rate:.1f}" for server, rate in best.items())
    print(f"sustained with p95 at most {LIMIT} s, requests a second: {told}")
    print("int8:", lost := agreement())
    if given.record:
        machine = {"cores": os.cpu_count() or 0, "torch": torch.__version__, "threads": given.threads}
        machine |= {"date": datetime.now(UTC).date().isoformat(), "limit": LIMIT, "load": os.getloadavg()[0]}
        machine |= {"sustained": best, "int8": lost}
        kept({**autoscaling.measured(), "machine": machine, **times(), "curve": rows})
    return None


def kept(told: dict[str, Any]) -> None:
    head = "# Written by: python benchmarks/service.py --record\n"
    files.write_text(autoscaling.RECORDED, head + tomli_w.dumps(told))


if __name__ == "__main__":
    main()
