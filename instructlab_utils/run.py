"""What the set-up cell of a lesson calls: one seed, one device, one place for results.

Taught in lesson 00, section 1.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from instructlab_utils import files
from instructlab_utils.errors import ParameterError
from instructlab_utils.project import budget, find_root, resolve_profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCALAR = (bool, int, float, str)


@dataclass
class Cost:
    """What a measured piece of work took: wall time, processor time of all threads, and the largest memory meanwhile.

    Seconds, seconds, MB (2**20 bytes; on a GPU its own memory).
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_mb: float = 0.0


@dataclass
class Run:
    """One execution of a lesson or of an experiment's block.

    ``out`` is the folder for its artefacts, ``metrics`` what :meth:`record` has stored, ``budget`` the profile's knobs.
    """

    name: str
    profile: str
    seed: int
    device: str
    root: Path
    out: Path
    budget: SimpleNamespace
    metrics: dict[str, Any] = field(default_factory=dict)

    def record(self, **metrics: float | str) -> None:
        """Store flat numbers or strings in ``out/metrics.json``, atomically.

        Raises TypeError for a value that is neither, and ValueError for NaN.
        """
        for name, value in metrics.items():
            value = value.item() if hasattr(value, "item") else value
            if not isinstance(value, SCALAR):
                raise TypeError(f"record({name}=…) takes a number or a string, not {type(value).__name__}")
            if value != value:
                raise ValueError(f"record({name}=…): the value is NaN")
            self.metrics[name] = value
        files.write_json(self.out / "metrics.json", self.metrics)

    def figure(self, figure: Figure, name: str) -> Path:
        """Save as PNG: in figures/, or in ``out`` for a smoke run, whose pictures are not results."""
        folder = self.out if self.profile == "smoke" else self.root / "figures"
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        return files.write_bytes(folder / f"{name}.png", picture.getvalue())

    @contextlib.contextmanager
    def measure(self) -> Iterator[Cost]:
        """``with run.measure() as cost:`` fills ``cost`` when the block ends."""
        cuda: Any = None
        if self.device.startswith("cuda"):
            import torch

            cuda = torch.cuda
            cuda.synchronize()
            cuda.reset_peak_memory_stats()
        cost = Cost()
        reset_peak_memory()
        wall, processor = time.perf_counter(), time.process_time()
        yield cost
        if cuda is not None:
            cuda.synchronize()
        cost.seconds = round(time.perf_counter() - wall, 3)
        cost.cpu_seconds = round(time.process_time() - processor, 3)
        peak = peak_memory_mb() if cuda is None else cuda.max_memory_allocated() / 2**20
        cost.peak_memory_mb = round(peak, 1)

    def have(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """The line that an earlier, interrupted execution of this block stored under ``key`` in this profile, or None."""
        wanted = json.loads(files.dumps({**key, "profile": self.profile}))  # as written: tuples are lists
        lines = files.read_lines(self.out / "lines.jsonl")
        return next((line for line in lines if all(line.get(k) == v for k, v in wanted.items())), None)

    def line(self, key: Mapping[str, Any], /, **fields: Any) -> None:
        """Append one run's result to ``out/lines.jsonl``; it survives a kill right after."""
        files.append_line(self.out / "lines.jsonl", {**key, **fields, "profile": self.profile})


def start(lesson: str, *, profile: str = "auto", seed: int = 0) -> Run:
    """Seed everything, choose the device, say what runs, and open the record.

    ``lesson`` is a lesson's id ("03") or an experiment's name; ``profile`` is smoke, laptop, gpu or auto.
    Raises ParameterError for a bad profile or seed, ConfigError where no project root is found.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ParameterError(f"seed must be a whole number, 0 or more, not {seed!r}")
    profile, root = resolve_profile(profile), find_root()

    from importlib.metadata import version

    import numpy
    import torch

    from instructlab_utils.models import pick_device

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    device = pick_device(profile)
    folder = os.environ.get("INSTRUCTLAB_RUN_DIR")
    out = Path(folder) if folder else root / "build" / "interactive" / lesson
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only checkout: keep going, results go to a temporary folder
        out = Path(tempfile.mkdtemp(prefix=f"instructlab-{lesson}-"))
    run = Run(lesson, profile, seed, device, root, out, budget(lesson, profile))
    threads = torch.get_num_threads()
    print(f"{lesson} · profile {profile} · seed {seed} · {device}, {threads} thread{'s' * (threads > 1)}")
    versions = f"torch {torch.__version__}, transformers {version('transformers')}"
    print(f"python {sys.version.split()[0]}, {versions}")
    if profile == "smoke":
        print("smoke run, not a result")
    return run


@contextlib.contextmanager
def expect_error(*kinds: type[BaseException], match: str = "") -> Iterator[None]:
    """Run code that must fail, print how, and go on.

    AssertionError if nothing is raised or the message lacks ``match`` (a regular expression); another kind of
    exception passes through. Papermill ignores Jupyter's own tag for this, so the lesson says it in code.
    """
    kinds = kinds or (Exception,)
    try:
        yield
    except kinds as error:
        text = str(error).strip().splitlines()[0] if str(error).strip() else ""
        if match and not re.search(match, str(error)):
            raise AssertionError(f"expected a message like {match!r}, got: {text}") from error
        text = re.sub(r" \([^()]*[/\\][^()]*\)$", "", text)  # ImportError ends with a path of this machine
        print(f"{type(error).__name__}: {text}")
    else:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise AssertionError(f"expected {wanted}, but nothing was raised")


def reset_peak_memory() -> None:
    """Let :func:`peak_memory_mb` start again from what is resident now; only Linux can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far (since the last reset), in MB (2**20 bytes)."""
    with contextlib.suppress(OSError):  # VmHWM starts at exec; getrusage would report the parent's peak too
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return round(int(line.split()[1]) / 1024, 1)
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return round(psutil.Process().memory_info().peak_wset / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 1024), 1)
