"""Measure the training loop of lesson 03 against two others, the matrix unit, the course's runner, and the import.

    python benchmarks/bench.py                  # training and import; at most ten minutes on one idle core
    python benchmarks/bench.py --parts course   # the smoke course, two workers: warm, cold, and plain papermill
    python benchmarks/bench.py --parts course --baseline FOLDER   # ours and an older checkout's course
    python benchmarks/bench.py --parts causal,generation   # lesson 06's step against trl's, and the KV cache
    python benchmarks/bench.py --parts tuners   # an update of each tuning method, by hand and by peft
    python benchmarks/bench.py --parts ranking --rounds 1   # options ranked by us and by lm-eval
    python benchmarks/bench.py --quick          # 64 sentences, once: does the script work? (build/bench, no result)

One thread. The contenders run in turn, several rounds, and the median of each counts. A full run replaces its parts
in benchmarks/results.json, writes benchmarks/RESULTS.md, and puts one sentence of it into README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

THREADS = 1
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = str(THREADS)  # read when torch is imported, below
os.environ["TOKENIZERS_PARALLELISM"] = "false"

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "benchmarks" / "RESULTS.md"
PARTS = ("training", "import", "course", "engine", "causal", "generation", "tuners", "ranking")
TASK, BATCH, RATE, MAX_LENGTH = "movie-sentiment", 16, 2e-5, 128
GEMM_SIZES = (512, 1024, 2048)
TARGETS = {
    "padded": 4.5,
    "trainer": 1.4,
    "gemm": 0.62,
    "import": 0.3,
    "engine": 1.7,
    "course": 1.8,
    "tuners": 0.97,
    "ranking": 2.0,
}
AGREEMENT = {"choice": 0.995, "log_prob": 1e-3}  # shares of equal choices, nats
RANKED = (
    "social-iqa",
    "goal-inference",
    "implicatures",
    "unit-identification",
    "sports",
    "odd-one-out",
    "phrase-relatedness",
)
LABELS = {
    "ours": "our loop: length buckets, fused AdamW",
    "padded": "the articles' recipe: every sentence padded to 128, plain AdamW",
    "trainer": "`transformers.Trainer`, dynamic padding",
    "grouped": "`transformers.Trainer`, dynamic padding, grouped by length",
}
GROUPS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "AdamW": ("aten::_fused_adamw_",),
    "filling with zeros (gradients of the embeddings)": ("aten::fill_", "aten::zero_"),
    "drawing dropout masks": ("aten::bernoulli_",),
    "gradient norms": ("aten::linalg_vector_norm",),
    "softmax, GELU, LayerNorm": (
        "aten::_softmax",
        "aten::_softmax_backward_data",
        "aten::gelu",
        "aten::gelu_backward",
        "aten::native_layer_norm",
        "aten::native_layer_norm_backward",
    ),
}


def say(text: str) -> None:
    """One line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """What a reader needs to judge the numbers: processor, cores, versions, date."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    packages = ("torch", "transformers", "accelerate", "peft", "numpy", "papermill")
    return {
        "date": datetime.date.today().isoformat(),
        "processor": model,
        "cores": os.cpu_count(),
        "threads": THREADS,
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }


# --- training --------------------------------------------------------------------------------


def gemm_peak() -> dict[int, float]:
    """GFLOP/s of the fp32 matrix product n x n by n x n for every n in GEMM_SIZES, the best of several products."""
    import torch

    best = {}
    for n in GEMM_SIZES:
        a, b, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
        seconds = []
        for _ in range(max(3, 60 * 512**3 // n**3)):
            start = time.perf_counter()
            torch.mm(a, b, out=out)
            seconds.append(time.perf_counter() - start)
        best[n] = 2 * n**3 / min(seconds) / 1e9
    return best


def count_flops(config: Any) -> Callable[[int, int], int]:
    """A function (B, T) -> floating-point operations of forward and backward, by torch.utils.flop_counter.

    Counted on meta tensors, so that it costs nothing; with eager attention, whose matrix products the counter sees.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForSequenceClassification

    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").train()

    @cache
    def flops(rows: int, tokens: int) -> int:
        with FlopCounterMode(display=False) as counter:
            ids = torch.zeros(rows, tokens, dtype=torch.int64, device="meta")
            model(input_ids=ids).logits.sum().backward()
        return counter.get_total_flops()

    return flops


class Contest:
    """The contenders, on the same sentences, each from the same weights. Every method trains one epoch, all weights."""

    def __init__(self, n: int) -> None:
        from instructlab_utils.models import load_classifier, load_tokenizer
        from instructlab_utils.tasks import load, subsample

        self.rows = list(subsample(load(TASK).splits["train"], n, seed=0))
        self.tokenizer = load_tokenizer("encoder")
        self.model = load_classifier(2, seed=0)
        self.weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.pad_id = self.tokenizer.pad_token_id
        self.steps = -(-n // BATCH)

    def reset(self) -> None:
        """Back to the pre-trained weights, without gradients, with dropout."""
        import torch

        torch.manual_seed(0)
        self.model.load_state_dict(self.weights)
        self.model.zero_grad()
        self.model.train()

    def ours(self) -> None:
        """Lesson 03's loop, from text to the last update."""
        from instructlab_utils.training import encode, train

        examples = encode(self.rows, self.tokenizer, MAX_LENGTH)
        train(
            self.model,
            examples,
            steps=self.steps,
            learning_rate=RATE,
            pad_id=self.pad_id,
            batch_size=BATCH,
        )

    def padded(self) -> None:
        """The loop of the source articles, repaired only so far that it runs: every sentence padded to 128."""
        import torch
        from torch.utils.data import DataLoader, Dataset

        rows, tokenizer = self.rows, self.tokenizer

        class Sentences(Dataset):
            def __len__(self) -> int:
                return len(rows)

            def __getitem__(self, i: int) -> dict[str, Any]:
                encoded = tokenizer(
                    rows[i]["text"],
                    padding="max_length",
                    truncation=True,
                    max_length=MAX_LENGTH,
                    return_tensors="pt",
                )
                item = {name: encoded[name][0] for name in ("input_ids", "attention_mask")}
                return {**item, "labels": torch.tensor(rows[i]["label"])}

        optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE)
        for batch in DataLoader(Sentences(), batch_size=BATCH, shuffle=True):
            optimizer.zero_grad()
            loss = self.model(**batch).loss
            loss.backward()
            optimizer.step()

    def trainer(self, strategy: str = "random") -> None:
        """transformers.Trainer with DataCollatorWithPadding, its own defaults otherwise."""
        import tempfile

        from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

        from instructlab_utils.training import encode

        examples = encode(self.rows, self.tokenizer, MAX_LENGTH)
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=BATCH,
                learning_rate=RATE,
                train_sampling_strategy=strategy,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                seed=0,
            )
            collator = DataCollatorWithPadding(self.tokenizer)
            trainer = Trainer(self.model, arguments, train_dataset=examples, data_collator=collator)
            assert trainer.train().global_step == self.steps

    def grouped(self) -> None:
        """The same, with batches of similar length."""
        self.trainer("group_by_length")

    def timed(self, name: str) -> tuple[float, float]:
        """Wall and processor seconds of one epoch of the contender ``name``."""
        self.reset()
        wall, cpu = time.perf_counter(), time.process_time()
        with contextlib.redirect_stdout(sys.stderr):
            getattr(self, name)()
        return time.perf_counter() - wall, time.process_time() - cpu

    def batches(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Lengths of all sentences, and the shapes (B, T) of the batches of our epoch."""
        from itertools import islice

        from instructlab_utils.training import batches_of, encode

        examples = encode(self.rows, self.tokenizer, MAX_LENGTH)
        stream = islice(batches_of(examples, BATCH, self.pad_id, seed=0), self.steps)
        shapes = [(batch["input_ids"].shape[0], batch["input_ids"].shape[1]) for batch in stream]
        return [len(example["input_ids"]) for example in examples], shapes

    def profile(self) -> dict[str, float]:
        """Share of the processor time of our epoch by group of operators, by torch.profiler."""
        from torch.profiler import ProfilerActivity, profile

        self.reset()
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            self.ours()
        times = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
        total = sum(times.values())
        shares = {
            group: sum(times.get(name, 0.0) for name in names) / total for group, names in GROUPS.items()
        }
        return {**shares, "everything else": 1 - sum(shares.values())}


def training(n: int, rounds: int) -> dict[str, Any]:
    """One epoch over ``n`` sentences by each contender, ``rounds`` times in turn, and the FLOP/s of ours."""
    import torch

    torch.set_num_threads(THREADS)
    say(f"training: {n} sentences, {rounds} round(s) of {len(LABELS)} contenders")
    contest = Contest(n)
    full, contest.rows, contest.steps = contest.rows, contest.rows[: 2 * BATCH], 2
    for name in LABELS:  # two updates each, so that no contender pays for the first call of a kernel
        contest.timed(name)
    contest.rows, contest.steps = full, -(-n // BATCH)
    wall: dict[str, list[float]] = {name: [] for name in LABELS}
    cpu: dict[str, list[float]] = {name: [] for name in LABELS}
    peak = gemm_peak()
    for turn in range(rounds):
        order = list(LABELS)[turn % len(LABELS) :] + list(LABELS)[: turn % len(LABELS)]
        for name in order:
            seconds, busy = contest.timed(name)
            wall[name].append(seconds)
            cpu[name].append(busy)
            say(f"  round {turn + 1}: {name} {seconds:.1f} s (processor {busy:.1f} s)")
            peak = {size: max(peak[size], speed) for size, speed in gemm_peak().items()}
    lengths, shapes = contest.batches()
    flops = count_flops(contest.model.config)
    executed = sum(flops(rows, tokens) for rows, tokens in shapes)
    real = sum(flops(1, tokens) for tokens in lengths)
    assert real <= executed
    ours = statistics.median(wall["ours"])
    best = max(peak.values())
    shares = contest.profile()
    return {
        "task": TASK,
        "sentences": n,
        "batch_size": BATCH,
        "rounds": rounds,
        "mean_tokens": sum(lengths) / len(lengths),
        "longest": max(lengths),
        "padding": sum(rows * tokens for rows, tokens in shapes) / sum(lengths) - 1,
        "seconds": wall,
        "processor_seconds": cpu,
        "median": {name: statistics.median(values) for name, values in wall.items()},
        "ratio": {name: statistics.median(wall[name]) / ours for name in LABELS if name != "ours"},
        "gflop": {"real": real / 1e9, "padding": (executed - real) / 1e9},
        "gflops": {"executed": executed / ours / 1e9, "real": real / ours / 1e9},
        "gemm_gflops": {str(size): speed for size, speed in peak.items()},
        "of_gemm": {"executed": executed / ours / 1e9 / best, "real": real / ours / 1e9 / best},
        "matrix_gflops": executed / (ours * shares["matrix products"]) / 1e9,
        "shares": shares,
    }


# --- import, course --------------------------------------------------------------------------


def import_time(repeats: int = 10) -> dict[str, Any]:
    """Seconds of ``import instructlab_utils`` in fresh interpreters."""
    say(f"import: {repeats} interpreters")
    code = "import time; t = time.perf_counter(); import instructlab_utils; print(time.perf_counter() - t)"
    seconds = [
        float(
            subprocess.run(
                [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(repeats)
    ]
    return {"seconds": seconds, "median": statistics.median(seconds)}


def by_course(folder: Path, warm: bool) -> None:
    """`make course` of a checkout in the smoke profile, two workers, every notebook of it."""
    from instructlab_utils import cache
    from instructlab_utils.project import find_root

    project = find_root() if folder == ROOT else folder
    for left in (project / "build" / "smoke", *(project / "build" / "runs").glob("*/smoke")):
        shutil.rmtree(left, ignore_errors=True)
    environment = {**os.environ, "PYTHONPATH": str(folder), "INSTRUCTLAB_ROOT": str(project)}
    environment |= {"INSTRUCTLAB_HOME": str(cache.home()), "INSTRUCTLAB_WARM": "1" if warm else "0"}
    command = [sys.executable, "-m", "instructlab_utils", "course", "--workers", "2"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: make course in {folder} ended with code {done.returncode}:\n{done.stdout}")


def by_papermill(jobs: list[Any]) -> None:
    """The same notebooks one after the other by papermill's command."""
    from instructlab_repro import experiments

    work = ROOT / "build" / "bench" / "course"
    shutil.rmtree(work, ignore_errors=True)
    for job in jobs:
        out = work / job.name
        out.mkdir(parents=True)
        given: dict[str, Any] = {"profile": "smoke"}
        if "/" in job.name:
            name, block_id = job.name.split("/")
            blocks = experiments.load(name).at("smoke").blocks()
            given = next(block.parameters for block in blocks if block.id == block_id)
        command = [sys.executable, "-m", "papermill", str(job.notebook), str(out / "executed.ipynb")]
        for key, value in given.items():
            command += ["-p", key, str(value)]
        environment = {**os.environ, "INSTRUCTLAB_PROFILE": "smoke", "INSTRUCTLAB_RUN_DIR": str(out)}
        done = subprocess.run(
            [*command, "--no-progress-bar"], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"error: papermill {job.name}: {done.stderr.strip().splitlines()[-1]}")


def course(rounds: int, baseline: Path | None = None) -> dict[str, Any]:
    """`make course` in the smoke profile with two workers.

    Beside it, in the same run: that of an older checkout, ``baseline``; without one, ours without warm processes, and
    plain papermill.
    """
    from instructlab_repro.engine import jobs
    from instructlab_repro.engine.course import course_targets, needed_assets, prepare

    prepare(needed_assets())
    found = jobs.all_jobs(course_targets("smoke"), "smoke")
    say(f"course: {len(found)} notebooks, {rounds} round(s)")
    ways: dict[str, Callable[[], None]] = {"two_workers": lambda: by_course(ROOT, True)}
    if baseline is None:
        ways["cold"] = lambda: by_course(ROOT, False)
        ways["papermill"] = lambda: by_papermill(found)
    else:
        ways["baseline"] = lambda: by_course(baseline, False)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
            start = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - start)
            say(f"  round {turn + 1}: {name} {seconds[name][-1]:.1f} s")
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "notebooks": [job.name for job in found],
        "rounds": rounds,
        "seconds": seconds,
        "median": median,
        "ratio": {name: median[name] / median["two_workers"] for name in ways if name != "two_workers"},
    }


# --- the decoder: a step of ours and of trl, and the cache -----------------------------------


def restaurant_pairs(n: int) -> list[tuple[str, str]]:
    """(prompt, completion) of ``n`` restaurants, as lesson 06 writes them."""
    from instructlab_utils.tasks import load

    prompt = "Describe the restaurant in one sentence.\n{}\nDescription:"
    return [
        (prompt.format(r["source"]), f" {r['targets'][0]}")
        for r in load("e2e").splits["train"].select(range(n))
    ]


def causal(steps: int, rounds: int) -> dict[str, Any]:
    """``steps`` updates of SmolLM2 on the same batches of four pairs: by lesson 06's loop and by trl, in turn."""
    import tempfile

    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from instructlab_utils import generation as gen
    from instructlab_utils import models
    from instructlab_utils import training as loop

    torch.set_num_threads(THREADS)
    say(f"causal: {steps} updates of 4 pairs, {rounds} round(s) of 2 contenders")
    tokenizer, net = models.load_tokenizer("decoder"), models.load_decoder()
    net.get_input_embeddings().weight.requires_grad_(False)
    pairs = restaurant_pairs(4 * steps)
    examples = [gen.encode_completion(*pair, tokenizer) for pair in pairs]
    batches = [
        loop.collate_tokens(examples[i : i + 4], tokenizer.pad_token_id) for i in range(0, len(pairs), 4)
    ]

    def ours() -> float:
        net.train()
        optimizer = torch.optim.AdamW(loop.parameter_groups(net, 0.01), lr=RATE, fused=True)
        start = time.perf_counter()
        for batch in batches:
            loop.training_step(net, optimizer, [batch], RATE, 1.0, gen.causal_losses)
        return time.perf_counter() - start

    def theirs() -> float:
        with tempfile.TemporaryDirectory() as folder:
            arguments = SFTConfig(
                folder,
                max_steps=steps,
                per_device_train_batch_size=4,
                learning_rate=RATE,
                weight_decay=0.01,
                bf16=False,
                gradient_checkpointing=False,
                use_cpu=True,
                train_sampling_strategy="sequential",
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            )
            rows = Dataset.from_list([{"prompt": p, "completion": c} for p, c in pairs])
            trainer = SFTTrainer(net, arguments, train_dataset=rows, processing_class=tokenizer)
            start = time.perf_counter()
            trainer.train()
            return time.perf_counter() - start

    seconds: dict[str, list[float]] = {"ours": [], "trl": []}
    contenders = {"ours": ours, "trl": theirs}
    ours()  # neither pays for the first call of a kernel
    for turn in range(rounds):
        for name in list(contenders)[:: 1 if turn % 2 == 0 else -1]:
            seconds[name].append(contenders[name]() / steps)
            say(f"  round {turn + 1}: {name} {seconds[name][-1]:.2f} s per update")
    median = {name: statistics.median(values) for name, values in seconds.items()}
    tokens = sum(len(example["input_ids"]) for example in examples) / steps
    return {
        "steps": steps,
        "rounds": rounds,
        "tokens": tokens,
        "seconds": seconds,
        "median": median,
        "ratio": median["trl"] / median["ours"],
    }


def generation(new_tokens: int, rounds: int) -> dict[str, Any]:
    """Greedy texts of SmolLM2 for eight prompts at once, with lesson 06's cache and without, in turn; the ids must agree."""
    import torch

    from instructlab_utils import generation as gen
    from instructlab_utils import models

    torch.set_num_threads(THREADS)
    say(f"generation: 8 prompts, {new_tokens} new tokens, {rounds} round(s) of 2 contenders")
    tokenizer, net = models.load_tokenizer("decoder"), models.load_decoder()
    prompts = [tokenizer(prompt)["input_ids"] for prompt, _ in restaurant_pairs(8)]
    never = len(tokenizer)  # no token ends a text, so that both do the same work

    def cached() -> list[list[int]]:
        return gen.greedy(net, [[0, *p] for p in prompts], new_tokens, never)

    @torch.no_grad()
    def without() -> list[list[int]]:
        rows = [[0, *p] for p in prompts]
        for _ in range(new_tokens):
            longest = max(map(len, rows))
            ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
            last = torch.tensor([len(row) - 1 for row in rows])
            hidden = net.model(input_ids=ids).last_hidden_state[torch.arange(len(rows)), last]
            rows = [[*row, int(i)] for row, i in zip(rows, net.lm_head(hidden).argmax(-1), strict=True)]
        return [row[-new_tokens:] for row in rows]

    seconds: dict[str, list[float]] = {"cached": [], "without": []}
    for turn in range(rounds):
        texts = {}
        for name, work in (("cached", cached), ("without", without))[:: 1 if turn % 2 == 0 else -1]:
            start = time.perf_counter()
            texts[name] = work()
            seconds[name].append(time.perf_counter() - start)
            say(f"  round {turn + 1}: {name} {seconds[name][-1]:.1f} s")
        if texts["cached"] != texts["without"]:
            raise SystemExit(
                "error: the texts with and without the cache differ; run tests/test_lesson_06.py"
            )
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "prompts": len(prompts),
        "new_tokens": new_tokens,
        "rounds": rounds,
        "seconds": seconds,
        "median": median,
        "ratio": median["without"] / median["cached"],
        "tokens_per_second": len(prompts) * new_tokens / median["cached"],
    }


# --- the tuning methods against peft --------------------------------------------------------


def tuning_pairs() -> dict[str, tuple[Any, Any]]:
    """Name → our method and peft's configuration of the same, for BERT."""
    import peft

    from instructlab_utils import tuners

    kind, attention = {"task_type": "SEQ_CLS"}, {"target_modules": ["query", "value"]}
    lora = {**kind, **attention, "r": 8, "lora_alpha": 8}
    feed_forward = ["output.dense"]
    return {
        "LoRA": (tuners.Lora(8, 8), peft.LoraConfig(**lora)),
        "rsLoRA": (tuners.Lora(8, 8, rslora=True), peft.LoraConfig(**lora, use_rslora=True)),
        "DoRA": (tuners.Lora(8, 8, dora=True), peft.LoraConfig(**lora, use_dora=True)),
        "PiSSA": (tuners.Lora(8, 8, init="pissa"), peft.LoraConfig(**lora, init_lora_weights="pissa")),
        "VeRA": (tuners.Vera(256), peft.VeraConfig(**kind, **attention, r=256)),
        "AdaLoRA": (
            tuners.AdaLora(init_r=12, target_r=8, total_step=1000),
            peft.AdaLoraConfig(**kind, **attention, init_r=12, target_r=8, total_step=1000),
        ),
        "IA3": (
            tuners.IA3(),
            peft.IA3Config(
                **kind, target_modules=["key", "value", *feed_forward], feedforward_modules=feed_forward
            ),
        ),
        "LayerNorm": (tuners.LayerNorms(), peft.LNTuningConfig(**kind, target_modules=["LayerNorm"])),
        "prompt tuning": (
            tuners.PromptTuning(20),
            peft.PromptTuningConfig(**kind, num_virtual_tokens=20),
        ),
        "P-tuning": (
            tuners.PTuning(20),
            peft.PromptEncoderConfig(**kind, num_virtual_tokens=20),
        ),
        "prefix-tuning, MLP": (
            tuners.PrefixTuning(20),
            peft.PrefixTuningConfig(**kind, num_virtual_tokens=20, prefix_projection=True),
        ),
        "P-Tuning v2": (
            tuners.DeepPrompts(20),
            peft.PrefixTuningConfig(**kind, num_virtual_tokens=20),
        ),
    }


def tuning(updates: int, rounds: int) -> dict[str, Any]:
    """``updates`` updates of the MiniLM classifier per round and method: ours and peft's in turn, the same AdamW."""
    import peft
    import torch

    from instructlab_utils import models, tasks, tuners
    from instructlab_utils import training as loop

    torch.set_num_threads(THREADS)
    tokenizer = models.load_tokenizer("encoder")
    rows = tasks.subsample(tasks.load(TASK).splits["train"], BATCH * updates, 0)
    examples = loop.encode(rows, tokenizer, MAX_LENGTH)
    batches = [
        loop.collate(examples[i : i + BATCH], tokenizer.pad_token_id) for i in range(0, len(examples), BATCH)
    ]

    def contender(net: Any, loss_of: Callable[[Any], Any]) -> tuple[Callable[[], float], int]:
        net.train()
        trained = [p for p in net.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

        def work() -> float:
            start = time.perf_counter()
            for batch in batches:
                loss_of(batch).backward()
                optimizer.step()
                optimizer.zero_grad()
            return (time.perf_counter() - start) / updates

        kept, loss = loop.kept_bytes(net, lambda _: loss_of(batches[0]))
        loss.backward()
        optimizer.zero_grad()
        work()  # neither pays for the first call of a kernel
        return work, kept

    found: dict[str, Any] = {}
    for name, (method, config) in tuning_pairs().items():
        mine = tuners.inject(models.load_classifier(2), method)
        theirs = peft.get_peft_model(models.load_classifier(2), config)
        objective = tuners.extras(mine)["objective"]
        ours, ours_kept = contender(mine, lambda batch, net=mine, f=objective: f(net, batch).mean())
        peft_, peft_kept = contender(theirs, lambda batch, net=theirs: net(**batch).loss)
        seconds: dict[str, list[float]] = {"ours": [], "peft": []}
        for turn in range(rounds):
            for who, work in (("ours", ours), ("peft", peft_))[:: 1 if turn % 2 == 0 else -1]:
                seconds[who].append(work())
        median = {who: statistics.median(values) for who, values in seconds.items()}
        found[name] = {
            "seconds": seconds,
            "median": median,
            "ratio": median["peft"] / median["ours"],
            "kept_mb": {"ours": ours_kept / 2**20, "peft": peft_kept / 2**20},
        }
        say(
            f"tuners: {name} {found[name]['ratio']:.2f} x, kept {ours_kept / 2**20:.1f}/{peft_kept / 2**20:.1f} MiB"
        )
    return {"updates": updates, "rounds": rounds, "batch_size": BATCH, "task": TASK, "methods": found}


# --- ranking options, against lm-eval -------------------------------------------------------


def questions(per_task: int) -> dict[str, list[tuple[str, list[str], int]]]:
    """Up to ``per_task`` questions of each task in RANKED: context, options, index of the right one."""
    from instructlab_utils.tasks import load

    found = {}
    for name in RANKED:
        splits = load(name).splits
        rows = [row for split in ("test", "dev", "train") for row in splits[split]][:per_task]
        found[name] = [
            (f"Question: {r['input']}\nAnswer:", [f" {o}" for o in r["options"]], r["answer"]) for r in rows
        ]
    return found


Rows = list[tuple[str, list[str], int]]


def ranked_by_us(net: Any, tokenizer: Any, rows: Rows, prefix: str) -> list[list[float]]:
    """log p of every option of every row, by `scoring`."""
    from instructlab_utils import scoring

    contexts, options = [row[0] for row in rows], [row[1] for row in rows]
    found = scoring.option_log_probs(net, tokenizer, contexts, options, prefix=prefix)
    return [scores.log_probs.tolist() for scores in found]


def ranked_by_harness(harness: Any, rows: Rows, prefix: str) -> list[list[float]]:
    """The same by lm-eval: a request for each option."""
    from lm_eval.api.instance import Instance

    pairs = [(prefix + context, option) for context, options, _ in rows for option in options]
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    flat = iter([value for value, _ in harness.loglikelihood(requests, disable_tqdm=True)])
    return [[next(flat) for _ in options] for _, options, _ in rows]


def agreement(ours: list[list[float]], theirs: list[list[float]]) -> tuple[float, float]:
    """The share of rows with the same best option, and the largest difference of two log-probabilities, in nats."""
    pairs = list(zip(ours, theirs, strict=True))
    same = sum(o.index(max(o)) == t.index(max(t)) for o, t in pairs) / len(pairs)
    return same, max(abs(a - b) for o, t in pairs for a, b in zip(o, t, strict=True))


def ranking(per_task: int, demonstrated: int, rounds: int) -> dict[str, Any]:
    """All options of the same prompts ranked by `scoring` and by the HF back end of lm-eval, in turn, in one process.

    Twice: without demonstrations, and ``demonstrated`` questions of each task behind four demonstrations that they share.
    """
    import torch
    from lm_eval.models.huggingface import HFLM

    from instructlab_utils import models

    torch.set_num_threads(THREADS)
    tokenizer, net = models.load_tokenizer("decoder"), models.load_decoder()
    harness = HFLM(pretrained=net, tokenizer=tokenizer, batch_size=8, device="cpu", max_length=2048)
    tasks = questions(per_task + 4)
    found: dict[str, Any] = {}
    for setting, count in (("none", per_task), ("four", demonstrated)):
        seconds: dict[str, list[float]] = {"ours": [0.0] * rounds, "lm-eval": [0.0] * rounds}
        for turn in range(rounds):
            scores: dict[str, list[list[float]]] = {"ours": [], "lm-eval": []}
            for name, everything in tasks.items():
                shown, rows = everything[:4], everything[4 : 4 + count]
                prefix = "\n\n".join(context + options[answer] for context, options, answer in shown)
                if setting == "none":
                    prefix = ""
                else:
                    rows = [(f"\n\n{context}", options, answer) for context, options, answer in rows]
                contenders: dict[str, Callable[[], list[list[float]]]] = {
                    "ours": partial(ranked_by_us, net, tokenizer, rows, prefix),
                    "lm-eval": partial(ranked_by_harness, harness, rows, prefix),
                }
                for who in list(contenders)[:: 1 if turn % 2 == 0 else -1]:
                    start = time.perf_counter()
                    scores[who] += contenders[who]()
                    seconds[who][turn] += time.perf_counter() - start
                say(f"ranking, {setting} shown: {name}, {len(rows)} questions")
        same, difference = agreement(scores["ours"], scores["lm-eval"])
        answers = [r[2] for rows in tasks.values() for r in rows[4 : 4 + count]]
        median = {who: statistics.median(values) for who, values in seconds.items()}
        found[setting] = {
            "questions": len(answers),
            "options": sum(map(len, scores["ours"])),
            "same_choice": same,
            "largest_difference": difference,
            "accuracy": sum(o.index(max(o)) == a for o, a in zip(scores["ours"], answers, strict=True))
            / len(answers),
            "seconds": seconds,
            "median": median,
            "ratio": median["lm-eval"] / median["ours"],
        }
    return {"lm_eval": version("lm_eval"), "tasks": list(RANKED), "rounds": rounds, "settings": found}


# --- the grid with one worker and with two ---------------------------------------------------


def engine(seeds: int) -> dict[str, Any]:
    """Blocks of `baselines` (laptop, 50 movie sentences) through the whole engine, one and two at a time, in one run.

    In a project of its own, whose record holds the tuned values and nothing else, so that every block must run.
    """
    from instructlab_utils import cache, files

    blocks = [f"baselines/movie-sentiment-n50-s{seed}" for seed in range(seeds)]
    say(f"engine: {len(blocks)} blocks, one worker, then two")
    scratch = ROOT / "build" / "bench" / "engine"
    code = "import sys; from instructlab_repro.engine import snakemake; "
    code += "sys.exit(snakemake.run_graph(sys.argv[2:], 'laptop', int(sys.argv[1])).exit_code)"
    seconds: dict[str, float] = {}
    for workers in (1, 2):
        shutil.rmtree(scratch, ignore_errors=True)
        for name in ("pyproject.toml", "Snakefile", "data", "notebooks/experiments"):
            source, target = ROOT / name, scratch / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        results = scratch / "data" / "results" / "baselines.jsonl"
        files.write_lines(results, [x for x in files.read_lines(results) if x["stage"] == "tune"])
        environment = {**os.environ, "INSTRUCTLAB_ROOT": str(scratch), "INSTRUCTLAB_HOME": str(cache.home())}
        environment["PYTHONPATH"] = str(ROOT)
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code, str(workers), *blocks], env=environment, cwd=ROOT)
        seconds[str(workers)] = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(
                f"error: the engine ended with code {done.returncode}; its log is under {scratch}/build"
            )
        say(f"  {workers} worker(s): {seconds[str(workers)]:.1f} s")
    return {"blocks": blocks, "seconds": seconds, "ratio": seconds["1"] / seconds["2"]}


# --- report ----------------------------------------------------------------------------------


def table(head: str, rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; ``head`` holds the columns' names, the first column is text, the others are numbers."""
    from instructlab_repro.pages import grid

    names = head.split(" | ")
    return grid([names, *rows], [True] + [False] * (len(names) - 1))


def markdown(results: dict[str, Any]) -> str:
    """The tables of RESULTS.md from what results.json holds; a part that is absent is left out."""
    found: list[str] = []
    for name, render in (("training", _training), ("ranking", _ranking), ("tuners", _tuners)):
        found += render(results[name]) if name in results else []
    if rows := [row for name, render in SHORT.items() if name in results for row in render(results[name])]:
        found.append(table("what | median | target", rows))
    return "\n\n".join(found) + "\n"


def _training(part: dict[str, Any]) -> list[str]:
    host, speed, share = part["machine"], part["gflops"], part["of_gemm"]
    loops = []
    for name, label in LABELS.items():
        seconds = part["seconds"][name]
        ratio = "1" if name == "ours" else f"{part['ratio'][name]:.2f}"
        span = f"{part['median'][name]:.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        loops.append([label, span, ratio, f"≥ {TARGETS[name]}" if name in TARGETS else "–"])
    gemm = sorted(part["gemm_gflops"].items(), key=lambda pair: int(pair[0]))
    sizes = ", ".join(f"{size}²: {value:.1f}" for size, value in gemm)
    best = part["matrix_gflops"] / max(part["gemm_gflops"].values())
    whole = part["gflop"]["real"] + part["gflop"]["padding"]
    work = [
        ("real tokens and padding", f"{whole:.0f}", f"{speed['executed']:.1f}", f"{share['executed']:.2f}"),
        ("real tokens alone", f"{part['gflop']['real']:.0f}", f"{speed['real']:.1f}", f"{share['real']:.2f}"),
    ]
    goals = (f"≥ {TARGETS['gemm']}", "–")
    shares = sorted(part["shares"].items(), key=lambda pair: -pair[1])
    return [
        f"One epoch over {part['sentences']} sentences of {part['task']} (mean {part['mean_tokens']:.1f} tokens, "
        f"longest {part['longest']}), batch {part['batch_size']}, all weights of MiniLM trained, one thread of "
        f"{host['processor']}, torch {host['versions']['torch']}, transformers {host['versions']['transformers']}, "
        f"{host['date']}. Median of {part['rounds']} rounds run in turn (smallest to largest).",
        table("loop | seconds | time over ours | target", loops),
        f"Best fp32 matrix product in the same run, GFLOP/s: {sizes}.",
        table(
            "arithmetic, by `torch.utils.flop_counter` | GFLOP | GFLOP/s | of the best product | target",
            [(*row, goal) for row, goal in zip(work, goals, strict=True)],
        ),
        f"Padding adds {100 * part['padding']:.1f} % to the tokens. The matrix products themselves run at "
        f"{part['matrix_gflops']:.1f} GFLOP/s, {best:.2f} of the best one. Where the processor time of our epoch "
        "goes, by `torch.profiler`:",
        table("operators | share", [(group, f"{100 * value:.1f} %") for group, value in shares]),
    ]


def _ranking(part: dict[str, Any]) -> list[str]:
    head = "demonstrations shown | questions | options | same choice | largest difference, nats"
    rows = [
        (
            setting, f"{row['questions']:,}", f"{row['options']:,}", f"{row['same_choice']:.2%}",
            f"{row['largest_difference']:.1e}", f"{row['median']['ours']:.0f}", f"{row['median']['lm-eval']:.0f}",
            f"{row['ratio']:.1f}",
        )
        for setting, row in part["settings"].items()
    ]  # fmt: skip
    return [
        f"Options of multiple-choice questions ranked by `scoring` and by the Hugging Face back end of lm-eval "
        f"{part['lm_eval']}, the same prompts for SmolLM2 in one run, {part['machine']['date']}: "
        f"{', '.join(part['tasks'])}. Targets: the same choice on {AGREEMENT['choice']:.1%} or more, log-probabilities "
        f"within {AGREEMENT['log_prob']:g}, at least {TARGETS['ranking']:g} times as fast.",
        table(f"{head} | ours, s | lm-eval, s | speed", rows),
    ]


def _tuners(part: dict[str, Any]) -> list[str]:
    host, rows = part["machine"], []
    for name, row in sorted(part["methods"].items()):
        ms, kept = ({who: row[key][who] for who in ("ours", "peft")} for key in ("median", "kept_mb"))
        times = [f"{1000 * ms[who]:.0f}" for who in ("ours", "peft")]
        rows.append((name, *times, f"{row['ratio']:.2f}", f"{kept['ours']:.1f}", f"{kept['peft']:.1f}"))
    return [
        f"Tuning methods written by hand against peft {host['versions']['peft']}: one update of MiniLM on "
        f"{part['batch_size']} sentences of {part['task']}, the same AdamW, median of {part['rounds']} rounds run in "
        f"turn, {host['date']}. Speed is peft's time over ours (target ≥ {TARGETS['tuners']}); memory is what the "
        "forward pass keeps for the backward pass.",
        table("method | ours, ms | peft, ms | speed | ours, MiB | peft, MiB", rows),
    ]


Rows = list[tuple[str, str, str]]


def _import_rows(part: dict[str, Any]) -> Rows:
    return [("`import instructlab_utils`", f"{part['median']:.3f} s", f"< {TARGETS['import']} s")]


def _course_rows(part: dict[str, Any]) -> Rows:
    median, count, ours = part["median"], len(part["notebooks"]), part["median"]["two_workers"]
    rows: Rows = [(f"`make course`, {count} notebooks, two workers", f"{ours:.0f} s", "–")]
    others = {
        "cold": ("the same without warm processes", "–"),
        "baseline": (
            "an earlier checkout: ordinary processes, larger smoke samples",
            f"≥ {TARGETS['course']} times",
        ),
        "papermill": ("the same notebooks one after the other by `papermill`", "–"),
    }
    for name, (label, target) in others.items():
        if name in median:
            rows.append((label, f"{median[name]:.0f} s, {median[name] / ours:.2f} times as long", target))
    return rows


def _engine_rows(part: dict[str, Any]) -> Rows:
    count, took = len(part["blocks"]), part["seconds"]
    two = f"{took['2']:.0f} s, {part['ratio']:.2f} times as fast"
    return [
        (f"{count} blocks of `baselines` through the engine, one worker", f"{took['1']:.0f} s", "–"),
        ("the same with two workers", two, f"≥ {TARGETS['engine']} times"),
    ]


def _causal_rows(part: dict[str, Any]) -> Rows:
    median, tokens = part["median"], f"{part['tokens']:.0f} tokens"
    what = f"an update of SmolLM2, {tokens}, embeddings frozen, lesson 06's loop"
    trl = f"{median['trl']:.2f} s, {part['ratio']:.2f} times ours"
    return [(what, f"{median['ours']:.2f} s", "–"), ("the same batches by `trl.SFTTrainer`", trl, "–")]


def _generation_rows(part: dict[str, Any]) -> Rows:
    median = part["median"]
    what = f"{part['new_tokens']} greedy tokens for {part['prompts']} prompts, lesson 06's KV cache"
    return [
        (what, f"{median['cached']:.1f} s, {part['tokens_per_second']:.0f} tokens/s", "–"),
        ("the same texts without the cache", f"{median['without']:.1f} s, {part['ratio']:.1f} times", "–"),
    ]


SHORT = {
    "import": _import_rows,
    "course": _course_rows,
    "engine": _engine_rows,
    "causal": _causal_rows,
    "generation": _generation_rows,
}


def headline(results: dict[str, Any]) -> str:
    """One sentence for README: the course's own loop beside two others, measured in one run."""
    ratio, machine = results["training"]["ratio"], results["training"]["machine"]
    return (
        f"The loop of lesson 03 trains an epoch {ratio['padded']:.1f} times as fast as the articles' recipe and "
        f"{ratio['trainer']:.1f} times as fast as `transformers.Trainer` with dynamic padding (one thread of "
        f"{machine['processor']}, {machine['date']}): [all benchmarks](benchmarks/RESULTS.md).\n"
    )


def _service() -> list[str]:
    """The load curves that ``benchmarks/service.py --record`` has left."""
    from instructlab_apps.service import autoscaling

    found = autoscaling.measured()
    host, lost, rows = found["machine"], found["machine"]["int8"], []
    names = {"plain": "pipeline behind FastAPI", "ours": "the service", "int8": "the service, `--int8`"}
    for server, label in names.items():
        held = [row for row in found["curve"] if row["server"] == server and row["p95"] <= host["limit"]]
        best = max((row for row in held if not row["refused"]), key=lambda row: row["per_second"])
        times = [f"{1000 * best[quantile]:.0f}" for quantile in ("p50", "p95", "p99")]
        ratio = best["per_second"] / host["sustained"]["plain"]
        rows.append((label, f"{best['per_second']:.0f}", *times, f"{1000 * best['cpu']:.0f}", f"{ratio:.1f}"))
    return [
        f"The service of lesson 25 (`python -m instructlab_utils serve`): single tweets classified over HTTP, open loop, "
        f"client and server on {host['cores']} cores, {host['date']}, torch {host['torch']}. The highest rate that was "
        f"tried and held: nobody refused, 95th percentile at most {1000 * host['limit']:.0f} ms. In int8 the accuracy is "
        f"{lost['accuracy_int8']:.3f} instead of {lost['accuracy']:.3f} on {lost['n']} tweets, and {lost['same']:.1%} of "
        "the answers are the same. `python benchmarks/service.py --record` measures it again.",
        table("server | a second | p50, ms | p95, ms | p99, ms | processor, ms | rate over plain", rows),
    ]


def page(results: dict[str, Any]) -> str:
    """The text of RESULTS.md."""
    return (
        "# Benchmarks\n\nMade by `make bench`; every number comes from [results.json](results.json), those of the service "
        "from [measured.toml](../instructlab_apps/service/measured.toml).\n\n"
        f"<!-- generated:benchmarks -->\n{markdown(results)}\n"
        + "\n\n".join(_service())
        + "\n<!-- /generated -->\n"
    )


def write(path: Path, text: str) -> None:
    """Replace ``path`` in one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def main(argv: list[str] | None = None) -> int:
    """Measure the parts asked for and write the results; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny, once, into build/bench: does it work?")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the contenders (default 3)")
    parser.add_argument("--parts", default="training,import", help=f"some of {','.join(PARTS)}, with commas")
    parser.add_argument("--baseline", type=Path, help="an older checkout, whose course is measured as well")
    chosen = parser.parse_args(argv)
    parts = chosen.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}: choose from {', '.join(PARTS)}")
    if chosen.rounds < 1:
        parser.error("--rounds must be 1 or more")
    folder = ROOT / "build" / "bench" if chosen.quick else RESULTS.parent
    stored = folder / RESULTS.name
    results = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
    rounds = 1 if chosen.quick else chosen.rounds
    measure: dict[str, Callable[[], dict[str, Any]]] = {
        "training": lambda: training(64 if chosen.quick else 512, rounds),
        "import": lambda: import_time(3 if chosen.quick else 10),
        "course": lambda: course(1, chosen.baseline),
        "engine": lambda: engine(2 if chosen.quick else 4),
        "causal": lambda: causal(1 if chosen.quick else 8, rounds),
        "generation": lambda: generation(4 if chosen.quick else 32, rounds),
        "tuners": lambda: tuning(1 if chosen.quick else 4, rounds),
        "ranking": lambda: ranking(*((4, 2) if chosen.quick else (170, 12)), rounds),
    }
    for part in parts:
        results[part] = {"machine": machine(), **measure[part]()}
        write(stored, json.dumps(results, indent=1, sort_keys=True) + "\n")
    write(folder / PAGE.name, page(results))
    if not chosen.quick and "training" in results:
        from instructlab_repro.pages import update_blocks

        update_blocks(ROOT / "README.md", {"benchmark": headline(results)})
    print(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
