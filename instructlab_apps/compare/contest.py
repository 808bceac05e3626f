"""All methods on the same texts, line by line into results.jsonl: a killed run goes on where it was.

Each trained method tries the same number of values on dev texts (seed 0), and then runs with the best on the test texts of
each seed. Rounds go seed by seed, so that where the time ends all methods have had the same seeds.
"""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from instructlab_apps.compare import contenders, trunk
from instructlab_apps.compare.audit import Findings, paced
from instructlab_apps.compare.intake import Intake, sampled
from instructlab_apps.compare.pacing import Clock, OutOfTime, Plan, Speeds, hopeless, plan, settled
from instructlab_apps.compare.parts import LEAST_SEEDS, SEEDS, Parts, firsts, spread, working_set
from instructlab_utils import files, training
from instructlab_utils.errors import DataError
from instructlab_utils.guards import positions

FEWEST_READ = 300  # texts: with fewer, the scores of all methods would hang on a handful of tests
PARTS_OF_TRAIN = (0.125, 0.25, 0.5)  # the learning curve's sizes below all


class Contest:
    """The state of one comparison: texts, parts, plan, and the lines that stand in ``results.jsonl`` already."""

    def __init__(
        self, data: Intake, found: Findings, folder: Path, model: str, clock: Clock, started: float
    ) -> None:
        self.text = [data.text[i] for i in found.keep]
        self.y = np.array([data.label[i] for i in found.keep])
        used = sorted(set(self.y.tolist()))  # classes with one text only are set aside
        self.names = [data.names[label] for label in used]
        self.y = np.searchsorted(used, self.y)
        self.group, self.spaced = found.group, found.script in ("latin", "other")
        self.folder, self.model, self.clock, self.started = folder, model, clock, started
        self.file = folder / "results.jsonl"
        self.lines = files.read_lines(self.file)
        part = spread(self.y.tolist(), self.group)
        if len(np.unique(part)) <= SEEDS:
            raise DataError("the texts are nearly all copies of each other; give more different texts")
        self.parts = Parts(part, np.ones(len(self.y), dtype=bool), firsts(self.group))
        self.plan: Plan | None = None
        self._encoder: tuple[Any, Any] | None = None
        self._counts: dict[str, Any] = {}
        self._tokens: list[int] = []

    # --- lines ---------------------------------------------------------------------------------------------------

    def add(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Append one line and keep it; ``elapsed`` are seconds since this call began, with those of killed ones."""
        line = {"kind": kind, **fields, "elapsed": round(time.time() - self.started, 2)}
        line = json.loads(files.dumps(line))
        files.append_line(self.file, line)
        self.lines.append(line)
        return line

    def of(self, kind: str, **wanted: Any) -> list[dict[str, Any]]:
        """The lines of this kind with these values."""
        return [x for x in self.lines if x["kind"] == kind and all(x.get(k) == v for k, v in wanted.items())]

    def note(self, text: str) -> None:
        """A sentence on what was cut, once."""
        if not self.of("note", text=text):
            self.add("note", text=text)

    # --- baselines -----------------------------------------------------------------------------------------------

    def baselines(self) -> None:
        """Majority and both kinds of TF-IDF: trials, then five seeds, or three where the time is short."""
        for seed in range(SEEDS):
            if not self.of("run", method="majority", seed=seed):
                train, rows = self.parts.train(seed), self.parts.test(seed)
                self._keep(
                    "majority",
                    seed,
                    None,
                    rows,
                    contenders.shares(self.y[train], self.classes, len(rows)),
                    0.0,
                    0,
                )
        share = max(10.0, 0.25 * self.clock.left())  # both, with the curve
        for kind in ("words", "characters"):
            self._tfidf(kind, share / 2)

    def _tfidf(self, kind: str, seconds: float) -> None:
        until, most = time.time() + seconds, self._affordable(kind, seconds)

        def fit(train: np.ndarray, value: float, seed: int) -> Any:
            rows = self._thinned(train, most, seed)
            x = self._weights(kind, rows)
            predict = contenders.linear(x[rows], self.y[rows], value, self.classes)
            return lambda places: predict(x[places]), x.shape[1] * (self.classes + 1) * 8

        self._trained(kind, fit, working=False, until=until)

    def complete(self) -> None:
        """Seeds of TF-IDF that had fallen away, if time is left after all; which are missing is told."""
        for kind in ("words", "characters", "frozen"):
            left = self.clock.left() - self.clock.reserve
            if kind != "frozen" and len(self.of("run", method=kind)) < SEEDS and left > 0:
                self._tfidf(kind, left)
            if 0 < (done := len(self.of("run", method=kind))) < SEEDS:
                name = contenders.BY_KEY[kind].name
                self.note(f"{name}: {done} seeds instead of {SEEDS}, for want of time.")

    def _affordable(self, kind: str, seconds: float) -> int:
        """How many training texts all fits of this kind can have, from the time of a small one."""
        if known := self.of("most", method=kind):
            return int(known[0]["rows"])
        train = self.parts.train(0)
        small, begin = self._thinned(train, 1500, 0), time.time()
        self._fit_once(kind, small)
        a_text = (time.time() - begin) / len(small)
        fits = self.clock.trials + SEEDS + 2  # with the curve's smaller ones
        most = int(min(len(train), max(500, seconds / fits / max(a_text, 1e-6))))
        if most < len(train):
            name = contenders.BY_KEY[kind].name
            self.note(f"{name} learned from {most:,} of {len(train):,} texts: the time does not pay for all.")
        self.add("most", method=kind, rows=most)
        return most

    def _fit_once(self, kind: str, rows: np.ndarray) -> None:
        x = self._weights(kind, rows)
        contenders.linear(x[rows], self.y[rows], 10.0, self.classes)

    def _weights(self, kind: str, rows: np.ndarray) -> Any:
        if kind not in self._counts:
            most = int(np.clip(600_000 / self.classes, 5_000, 30_000))  # the time of a fit grows with both
            self._counts[kind] = contenders.counted(self.text, kind, self.spaced, most)
        return contenders.weighted(self._counts[kind], rows)

    def _thinned(self, rows: np.ndarray, most: int, seed: int) -> np.ndarray:
        if len(rows) <= most:
            return rows
        return np.sort(np.random.default_rng(seed).permutation(rows)[:most])

    # --- the encoder ---------------------------------------------------------------------------------------------

    @property
    def classes(self) -> int:
        return len(self.names)

    def hold(self, encoder: tuple[Any, Any]) -> None:
        """Use this encoder and tokenizer, which are loaded already."""
        self._encoder = encoder

    def encoder(self) -> tuple[Any, Any]:
        """Encoder and tokenizer, loaded once."""
        if self._encoder is None:
            self._encoder = trunk.load(self.model)
        return self._encoder

    def examples(self, places: np.ndarray) -> list[dict[str, Any]]:
        """Tokenised texts, cut as planned."""
        assert self.plan is not None
        rows = [{"text": self.text[i], "label": int(self.y[i])} for i in places]
        return training.encode(rows, self.encoder()[1], self.plan.cut)

    def _without_encoder(self) -> None:
        """All texts count again: the sample was for the encoder's sake."""
        self.note("The encoder was cut: reading enough texts would have taken more time than there was.")
        self.plan = Plan(0, len(self.y), [], 0, SEEDS, self.clock.trials)
        if len(self.of("plan")) < 2:
            self.add("plan", **asdict(self.plan))
        self.parts = Parts(self.parts.part, np.ones(len(self.y), dtype=bool), self.parts.first)

    def make_plan(self) -> Plan:
        """The plan of this folder: the last that is written, or a new one from speeds measured now."""
        if known := self.of("plan"):
            fields = {k: v for k, v in known[-1].items() if k in Plan.__dataclass_fields__}
            self.plan = Plan(**fields)
        elif self.clock.left() < 2 * self.clock.reserve:
            self._without_encoder()
        else:
            net = self.encoder()[0]
            window = int(min(positions(net), 512))
            self.plan = Plan(min(128, window), 0, [], 0, 0, 0)
            speeds = self._speeds()
            self.plan = plan(self.clock.left(), self.clock, speeds, self._lengths(), window)
            if self.plan.working < min(len(self.y), FEWEST_READ):
                self._without_encoder()
            else:
                self.add("plan", **asdict(self.plan), **asdict(speeds))
        assert self.plan is not None
        marks = working_set(self.parts.part, self.plan.working)
        self.parts = Parts(self.parts.part, marks, self.parts.first)
        return self.plan

    def settle(self) -> Plan:
        """The plan of the tuned methods, once the encoder has read the texts; written before the first of them runs."""
        assert self.plan is not None
        if not self.plan.cut or len(self.of("plan")) > 1:
            return self.plan
        fields = Speeds.__dataclass_fields__
        speeds = Speeds(**{name: value for name, value in self.of("plan")[0].items() if name in fields})
        now = (self.clock.left(), self.clock)
        if hopeless(self.plan, *now, speeds, self._lengths()):
            self.plan = settled(self.plan, *now, speeds, self._lengths())
            self.add("plan", **asdict(self.plan))
        else:
            speeds = self._speeds()
            self.plan = settled(self.plan, self.clock.left(), self.clock, speeds, self._lengths())
            self.add("plan", **asdict(self.plan), **asdict(speeds))
        return self.plan

    def _speeds(self) -> Speeds:
        sample = np.random.default_rng(0).permutation(len(self.text))[:64]
        net, tokenizer = self.encoder()
        return trunk.measured(net, self.examples(sample), self.classes, tokenizer.pad_token_id)

    def _lengths(self) -> list[int]:
        if not self._tokens:
            texts = [text[:LONG] for text in self.text]
            self._tokens = [len(ids) for ids in self.encoder()[1](texts, verbose=False)["input_ids"]]
        return self._tokens

    def frozen(self) -> None:
        """Mean states of the working texts, read once and kept on disk; logistic regression on them."""
        if self.plan is None or not self.plan.cut:
            return
        kept, places = self.folder / "features.npy", np.flatnonzero(self.parts.working)
        if kept.exists():
            x = np.load(kept, allow_pickle=False)
        else:
            net, tokenizer = self.encoder()
            begin, until = time.time(), time.time() + max(5.0, 0.6 * (self.clock.left() - self.clock.reserve))
            x = np.zeros((len(self.y), net.config.hidden_size), dtype=np.float32)
            try:
                x[places] = trunk.read(net, self.examples(places), tokenizer.pad_token_id, until)
            except OutOfTime:
                self._without_encoder()
                return
            buffer = io.BytesIO()
            np.save(buffer, x)
            files.write_bytes(kept, buffer.getvalue())
            self.add("read", texts=len(places), seconds=round(time.time() - begin, 3))
        x = x - x[places].mean(0)
        x /= (
            np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) / 4
        )  # rows of one length: C means the same everywhere

        def fit(train: np.ndarray, value: float, seed: int) -> Any:
            predict = contenders.linear(x[train], self.y[train], value, self.classes, 300)
            return lambda rows: predict(x[rows]), (x.shape[1] + 1) * self.classes * 8

        self._trained("frozen", fit, working=True, until=self.clock.end - self.clock.reserve)

    def tuned(self) -> None:
        """LoRA and full tuning as planned: all trials, then round by round of seeds; whole rounds only count."""
        assert self.plan is not None
        made = self.plan
        if not made.methods:
            return
        net, tokenizer = self.encoder()

        def run(
            kind: str, value: float, seed: int, places: np.ndarray
        ) -> tuple[np.ndarray, float, int, float]:
            end = self.clock.end - self.clock.reserve
            if time.time() + longest > end:
                raise OutOfTime
            begin, model = time.time(), trunk.prepared(kind, net, self.classes, seed)
            examples = self.examples(self.parts.train(seed, working=True))
            trunk.tune(model, examples, value, made.steps, seed, tokenizer.pad_token_id, end)
            took, begin = time.time() - begin, time.time()
            p = contenders.smoothed(trunk.probabilities(model, self.examples(places), tokenizer.pad_token_id))
            return p, took, trunk.size_of(model), (time.time() - begin) / len(places)

        longest = 0.0
        try:
            for number in range(made.trials):
                for kind in made.methods:
                    value, dev = contenders.BY_KEY[kind].values[number], self.parts.dev(working=True)
                    if not self.of("trial", method=kind, value=value):
                        p, took, _, _ = run(kind, value, 0, dev)
                        longest = max(longest, took)
                        self._tried(kind, value, p, dev, took)
            for seed in range(SEEDS):
                round_ends = time.time() + 1.3 * longest * len(made.methods)
                if seed >= made.seeds and round_ends > self.clock.end - self.clock.reserve:
                    break  # more than planned: only whole rounds
                for kind in made.methods:
                    if not self.of("run", method=kind, seed=seed):
                        rows, value = self.parts.test(seed, working=True), self.best(kind)
                        p, took, size, a_text = run(kind, value, seed, rows)
                        longest = max(longest, took)
                        self._keep(kind, seed, value, rows, p, took, size, a_text)
        except OutOfTime:
            done = min(len(self.of("run", method=kind)) for kind in made.methods)
            if done >= made.seeds:
                return
            left_out = "" if done >= LEAST_SEEDS else "; three are needed, so these methods are not compared"
            self.note(
                f"The time ended early: {done} of {made.seeds} planned seeds of the tuned methods were finished, since the "
                f"machine became slower than it was when the plan was made{left_out}."
            )

    # --- trials and runs -----------------------------------------------------------------------------------------

    def best(self, method: str) -> float:
        """The value with the smallest dev loss; of equals the first tried."""
        return min(self.of("trial", method=method), key=lambda line: line["dev_loss"])["value"]

    def _trained(self, method: str, fit: Callable[..., Any], *, working: bool, until: float) -> None:
        """Trials and five seeds of a method that fits in one call, and its smaller fits for the learning curve."""
        dev = self.parts.dev(working)
        for value in contenders.BY_KEY[method].values[: self.clock.trials]:
            if not self.of("trial", method=method, value=value):
                begin = time.time()
                predict, _ = fit(self.parts.train(0, working), value, 0)
                self._tried(method, value, predict(dev), dev, time.time() - begin)
        value, took = self.best(method), 0.0
        for seed in range(SEEDS):
            if not self.of("run", method=method, seed=seed):
                if seed >= LEAST_SEEDS and time.time() + took > until:
                    return
                begin, rows = time.time(), self.parts.test(seed, working)
                predict, size = fit(self.parts.train(seed, working), value, seed)
                took, begin = time.time() - begin, time.time()
                p = predict(rows)
                self._keep(method, seed, value, rows, p, took, size, (time.time() - begin) / len(rows))
                if seed == 0:
                    self._keep(
                        method, -1, value, dev, predict(dev), 0.0, 0
                    )  # dev texts, for confident errors
        for seed in range(SEEDS):
            train = np.random.default_rng(seed).permutation(self.parts.train(seed, working))
            for share in PARTS_OF_TRAIN:
                some, rows = np.sort(train[: round(share * len(train))]), self.parts.test(seed, working)
                if len(np.unique(self.y[some])) < 2 or self.of(
                    "curve", method=method, seed=seed, share=share
                ):
                    continue
                if time.time() > until:
                    return
                predict, _ = fit(some, value, seed)
                hits = float((predict(rows).argmax(1) == self.y[rows]).mean())
                self.add(
                    "curve",
                    method=method,
                    seed=seed,
                    share=share,
                    n=len(some),
                    accuracy=hits,
                    tests=len(rows),
                )

    def _tried(self, method: str, value: float, p: np.ndarray, dev: np.ndarray, took: float) -> None:
        y = self.y[dev]
        hits = float((p.argmax(1) == y).mean())
        self.add(
            "trial", method=method, value=value, dev_loss=contenders.log_loss(p, y), dev_accuracy=hits,
            seconds=round(took, 3),
        )  # fmt: skip

    def _keep(
        self, method: str, seed: int, value: float | None, rows: np.ndarray, p: np.ndarray, took: float, size: int,
        a_text: float = 0.0,
    ) -> None:  # fmt: skip
        """One line: for each row the guess, its probability, and that of the label. Seed -1 are dev texts."""
        y = self.y[rows]
        self.add(
            "run" if seed >= 0 else "beside", method=method, seed=seed, value=value, rows=rows.tolist(),
            guess=p.argmax(1).tolist(), sure=np.round(p.max(1), 5).tolist(),
            own=np.round(p[np.arange(len(y)), y], 5).tolist(), seconds=round(took, 3), bytes=size, per_text=a_text,
        )  # fmt: skip


LONG = 4000  # characters of a text that are tokenised to measure its length


def paced_once(folder: Path, data: Intake, tokenizer: Any, clock: Clock, started: float) -> Intake:
    """The rows that the time pays for; a run that goes on takes as many as it took before, and so the same ones."""
    file = folder / "results.jsonl"
    known = [line["rows"] for line in files.read_lines(file) if line["kind"] == "rows"]
    chosen = sampled(data, known[0]) if known else paced(data, tokenizer, 0.25 * clock.left())
    if not known:
        elapsed = round(time.time() - started, 2)
        files.append_line(file, {"kind": "rows", "rows": len(chosen.text), "elapsed": elapsed})
    return chosen


def shares_of(names: list[str], y: np.ndarray) -> list[tuple[str, int]]:
    """Labels and how many texts have each, the commonest first."""
    return [(names[label], count) for label, count in Counter(y.tolist()).most_common()]
