"""What the set-up cell of a lesson calls: one seed, one device, one place for results.

Taught in lesson 00, section 1.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import random
import re
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from instructlab_utils.errors import ConfigError, ParameterError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROFILES = ("smoke", "laptop", "gpu")
SCALAR = (bool, int, float, str)


def find_root(start_at: Path | None = None) -> Path:
    """The project's root: INSTRUCTLAB_ROOT, else the nearest folder upwards that holds data/assets.toml.

    Notebooks run from the root, from notebooks/, or from anywhere inside the project.
    """
    if root := os.environ.get("INSTRUCTLAB_ROOT"):
        return Path(root).resolve()
    here = (start_at or Path.cwd()).resolve()
    for folder in (here, *here.parents, *Path(__file__).resolve().parents):
        if (folder / "data" / "assets.toml").is_file() and (folder / "pyproject.toml").is_file():
            return folder
    raise ConfigError(
        f"no project root found above {here}: run inside the project, or set INSTRUCTLAB_ROOT to its folder"
    )


def resolve_profile(profile: str) -> str:
    """``"auto"`` means INSTRUCTLAB_PROFILE, else ``"laptop"``. ParameterError for an unknown name."""
    name = os.environ.get("INSTRUCTLAB_PROFILE", "laptop") if profile == "auto" else profile
    if name not in PROFILES:
        raise ParameterError(f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}, or auto")
    return name


def budget(lesson: str, profile: str) -> SimpleNamespace:
    """The knobs of ``lesson`` in ``profile``, from instructlab_utils/profiles.toml."""
    path = Path(__file__).with_name("profiles.toml")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get(lesson, {})
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name}: not valid TOML ({error}); mend that line") from error
    missing = [knob for knob, row in table.items() if profile not in row]
    if missing:
        raise ConfigError(f"{path.name}: [{lesson}] {missing[0]} has no column {profile!r}; add it")
    return SimpleNamespace(**{knob: row[profile] for knob, row in table.items()})


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
        from instructlab_utils.repro.record import write_json

        for name, value in metrics.items():
            value = value.item() if hasattr(value, "item") else value
            if not isinstance(value, SCALAR):
                raise TypeError(f"record({name}=…) takes a number or a string, not {type(value).__name__}")
            if value != value:
                raise ValueError(f"record({name}=…): the value is NaN")
            self.metrics[name] = value
        write_json(self.out / "metrics.json", self.metrics)

    def figure(self, figure: Figure, name: str) -> Path:
        """Save as PNG: in figures/, or in ``out`` for a smoke run, whose pictures are not results."""
        folder = self.out if self.profile == "smoke" else self.root / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        figure.savefig(path)
        return path

    @contextlib.contextmanager
    def measure(self) -> Iterator[Cost]:
        """``with run.measure() as cost:`` fills ``cost`` when the block ends."""
        from instructlab_utils.repro.record import peak_memory_mb, reset_peak_memory

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
        """The line that an earlier, interrupted execution of this block stored under ``key``, or None."""
        from instructlab_utils.repro.record import read_lines

        path = self.out / "lines.jsonl"
        lines = read_lines(path) if path.exists() else []
        return next((line for line in lines if all(line.get(k) == v for k, v in key.items())), None)

    def line(self, key: Mapping[str, Any], /, **fields: Any) -> None:
        """Append one run's result to ``out/lines.jsonl``; it survives a kill right after."""
        from instructlab_utils.repro.record import append_line

        append_line(self.out / "lines.jsonl", {**key, **fields, "profile": self.profile})


def start(lesson: str, *, profile: str = "auto", seed: int = 0) -> Run:
    """Seed everything, choose the device, say what runs, and open the record.

    ``lesson`` is a lesson's id ("03") or an experiment's name; ``profile`` is smoke, laptop, gpu or auto.
    Raises ParameterError for a bad profile or seed, ConfigError where no project root is found.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ParameterError(f"seed must be a whole number, 0 or more, not {seed!r}")
    profile, root = resolve_profile(profile), find_root()

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
    print(
        f"python {sys.version.split()[0]}, torch {torch.__version__}, transformers {_version('transformers')}"
    )
    if profile == "smoke":
        print("smoke run, not a result")
    return run


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


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
        raise AssertionError(
            f"expected {' or '.join(kind.__name__ for kind in kinds)}, but nothing was raised"
        )


def closest(name: str, known: list[str]) -> str:
    """``", did you mean X?"`` for a name close to a known one, else an empty string."""
    near = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {near[0]!r}?" if near else ""
