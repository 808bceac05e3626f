"""What a large grid and a large model need: measured here, calculated there, and the two kept apart in SCALING.md.

    python benchmarks/scaling.py                          # write SCALING.md's generated blocks from scaling.json
    python benchmarks/scaling.py --measure BLOCKS_FOLDER  # measure again first; a folder of finished blocks

Processor seconds are measured, not wall time: a busy machine hardly changes them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from instructlab_repro import provenance  # noqa: E402
from instructlab_repro.pages import grid, update_blocks  # noqa: E402
from instructlab_utils import files  # noqa: E402

STORED = ROOT / "benchmarks" / "scaling.json"
PAGE = ROOT / "SCALING.md"
BLOCKS = 1000

# --- assumptions: typed, and called so in SCALING.md --------------------------------------------------

MODEL = {"layers": 32, "width": 4096, "inner": 11008, "vocabulary": 32000}  # a Llama of "7B"
TOKENS = 100e6  # D: training tokens, e.g. 100,000 examples of 1,000 tokens
SEQUENCE, BATCH, RANK = 2048, 1, 16  # tokens, sequences in one forward pass, rank of LoRA
PEAK, ACHIEVED = (
    989e12,
    0.4,
)  # dense bf16 FLOP/s of one H100 SXM by its data sheet; the share that training reaches

# --- measuring ----------------------------------------------------------------------------------------


def cost(words: list[str], **options) -> tuple[float, float]:
    """Processor seconds and peak memory (MB of the largest process) of a command, its children included."""
    code = (
        "import json, resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, done.stderr[-500:]]))"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, **options
    )
    returncode, seconds, megabytes, error = json.loads(asked.stdout)
    if returncode:
        raise RuntimeError(f"{' '.join(words)}: code {returncode}: {error}")
    return seconds, megabytes


def measure(finished: Path) -> dict:
    """All that SCALING.md calls measured and that no other file of the repository holds."""
    versions = {
        name: provenance.environment()["packages"].get(name) for name in ("snakemake", "torch", "papermill")
    }
    with tempfile.TemporaryDirectory() as folder:
        found = {**_grid(Path(folder)), **_kernel(Path(folder)), **_encoder()}
    outs = [out for out in finished.iterdir() if (out / "manifest.json").is_file()]
    found["disk_bytes"] = sorted(sum(p.stat().st_size for p in out.iterdir()) for out in outs)
    found["disk_files"] = max(len(list(out.iterdir())) for out in outs)
    cpu = {"processor": provenance.environment()["cpu"], "python": platform.python_version(), **versions}
    return {**found, "machine": {**cpu, "date": datetime.now(UTC).date().isoformat()}}


def _grid(folder: Path) -> dict:
    """A project of 1,000 blocks without models: listing, the dry run, one job, and all jobs with a stand-in."""
    import toy_project as toy

    toy.make(folder)
    path = folder / "data/experiments/toy.toml"
    seeds = list(range(100, 100 + BLOCKS // 4))  # two tasks, two sizes
    path.write_text(path.read_text().replace("seed = [0, 1, 2]", f"seed = {seeds}"), encoding="utf-8")
    (folder / "Snakefile").write_bytes((ROOT / "Snakefile").read_bytes())
    worker = folder / "worker.sh"
    worker.write_text("#!/bin/sh\nmkdir -p build/runs/$4/$7/$5\n", encoding="utf-8")
    worker.chmod(0o755)
    env = {**os.environ, "INSTRUCTLAB_ROOT": str(folder), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    here = {"cwd": folder, "env": env}
    listing = "from instructlab_repro.engine import jobs; assert len(jobs.all_jobs(['toy'], 'laptop')) == %d"
    listed, _ = cost([sys.executable, "-c", listing % (BLOCKS + 2)], **here)
    empty, _ = cost(
        [
            sys.executable,
            "-c",
            "from instructlab_repro.engine import jobs; from instructlab_repro.notebooks import runner",
        ],
        **here,
    )
    words = [sys.executable, "-m", "snakemake", "--profile", str(ROOT / "profiles/local"), "--config"]
    words += ["profile=laptop", f"python={worker}"]
    dry, dry_mb = cost([*words, "--dry-run", "--quiet"], **here)
    node = "--cores 1 --mode remote --nolock --force --".split()  # as on a node
    done = "build/runs/toy/laptop/tune-a/done"
    one, one_mb = cost([*words, *node, done], **here)
    ran, ran_mb = cost([*words, "--quiet"], **here)
    assert len(list(folder.glob("build/runs/toy/laptop/*/done"))) == BLOCKS + 2
    return {
        "list_seconds": listed - empty,
        "dry_run_seconds": dry,
        "one_job_seconds": one,
        "per_job_seconds": (ran - dry) / BLOCKS,
        "snakemake_mb": max(dry_mb, ran_mb),
        "one_job_mb": one_mb,
    }


def _kernel(folder: Path) -> dict:
    """A notebook that does nothing, and one that imports what the cell of `baselines` imports."""
    import nbformat

    source = (ROOT / "notebooks/experiments/source/baselines.py").read_text(encoding="utf-8")
    imports = source.split("# %%\n")[1].split("\nblock = ")[0]
    found = {}
    for name, code in (("kernel", "x = 1"), ("imports", imports)):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        path = folder / f"{name}.ipynb"
        nbformat.write(notebook, path)
        run = (
            "from pathlib import Path; from instructlab_repro.notebooks import runner\n"
            f"assert runner.run_notebook(Path({str(path)!r}), Path({str(folder / name)!r}), {{}}, timeout=600,"
            " env={}).status == 'ok'"
        )
        seconds, megabytes = cost([sys.executable, "-c", run], cwd=ROOT)
        found |= {f"{name}_seconds": seconds, f"{name}_mb": megabytes}
    return found


def _encoder() -> dict:
    """Weights of the encoder that benchmarks/bench.py trains, with and without its embedding tables."""
    from instructlab_utils import models

    model = models.load_classifier(2, seed=0)
    every = sum(p.numel() for p in model.parameters())
    tables = sum(p.numel() for name, p in model.named_parameters() if "_embeddings." in name)
    return {"encoder_parameters": every, "encoder_matrices": every - tables}


# --- calculating --------------------------------------------------------------------------------------


def parameters() -> dict[str, float]:
    """P: weights of the assumed model; P_E: of them embedding and output table; P_A: of LoRA on all seven matrices."""
    n, d, f, v = (MODEL[name] for name in ("layers", "width", "inner", "vocabulary"))
    layer = 4 * d * d + 3 * d * f + 2 * d  # q, k, v, o; gate, up, down; two norms
    adapters = n * RANK * (4 * 2 * d + 3 * (d + f))
    return {"P": n * layer + 2 * v * d + d, "P_E": 2 * v * d, "P_A": adapters}


def memory() -> dict[str, dict[str, float]]:
    """GB (10^9 bytes) by way of training: weights, gradients, AdamW, activations."""
    n, d, f = MODEL["layers"], MODEL["width"], MODEL["inner"]
    p = parameters()
    tokens = SEQUENCE * BATCH
    layer = tokens * (2 * 8 * d + 2 * 3 * f)  # bf16: eight tensors of width d and three of width f
    kept = (
        n * tokens * 2 * d + layer + 4 * tokens * MODEL["vocabulary"]
    )  # inputs of the layers, one layer, logits
    ways = {
        "full, AdamW in fp32": (2 * p["P"], 2 * p["P"], 12 * p["P"]),
        "full, AdamW in bf16": (2 * p["P"], 2 * p["P"], 4 * p["P"]),
        f"LoRA, rank {RANK}": (2 * (p["P"] + p["P_A"]), 2 * p["P_A"], 12 * p["P_A"]),
    }
    return {
        way: dict(
            zip(
                ("weights", "gradients", "AdamW", "activations"),
                (x / 1e9 for x in (*parts, kept)),
                strict=True,
            )
        )
        for way, parts in ways.items()
    }


def hours() -> dict[str, float]:
    """Hours on one device: c·P·D FLOPs over the achieved FLOP/s; c = 6, LoRA 4, recomputing activations 2 more."""
    p = parameters()
    flops = (p["P"] - p["P_E"] / 2) * TOKENS  # the input table is read, not multiplied
    return {f"{c}": c * flops / (PEAK * ACHIEVED) / 3600 for c in (4, 6, 8)}


def trained_blocks() -> dict[int, list[float]]:
    """Processor seconds that the methods of a laptop block trained, by training size, from data/results/baselines.jsonl."""
    seconds: dict[tuple, float] = defaultdict(float)
    for line in files.read_lines(ROOT / "data/results/baselines.jsonl"):
        if line["stage"] == "run":
            seconds[line["n_train"], line["task"], line["seed"]] += line["cpu_seconds"]
    found: dict[int, list[float]] = defaultdict(list)
    for (n, *_), spent in sorted(seconds.items()):
        found[n].append(spent)
    return dict(found)


# --- SCALING.md ---------------------------------------------------------------------------------------


def _table(*rows: tuple[str, ...]) -> str:
    return grid([*map(list, rows)], [column in (rows[0][0], "from") for column in rows[0]])


def blocks() -> dict[str, str]:
    """SCALING.md's generated blocks by name."""
    m, bench = (
        json.loads(STORED.read_text(encoding="utf-8")),
        json.loads((STORED.parent / "results.json").read_text()),
    )
    machine, training = m["machine"], bench["training"]
    trained = trained_blocks()
    middle = {n: median(values) for n, values in trained.items()}
    fixed = 2 * m["one_job_seconds"] + m["imports_seconds"]
    lines = list(files.read_lines(ROOT / "data/results/baselines.jsonl"))
    measured = _table(
        ("measured", "value", "from"),
        ("list 1,000 blocks with their keys", f"{m['list_seconds']:.1f} s", "scaling.json"),
        ("Snakemake, dry run of 1,000 jobs", f"{m['dry_run_seconds']:.1f} s", "scaling.json"),
        *(  # absent where the last measurement left it out
            ("Snakemake, per job, 1,000 jobs with a stand-in", f"{seconds:.3f} s", "scaling.json")
            for seconds in [m.get("per_job_seconds")]
            if seconds is not None
        ),
        ("largest memory of Snakemake there", f"{m['snakemake_mb']:.0f} MB", "scaling.json"),
        ("Snakemake for one job (Slurm starts two per job)", f"{m['one_job_seconds']:.1f} s", "scaling.json"),
        ("a kernel and its runner, nothing else", f"{m['kernel_seconds']:.1f} s", "scaling.json"),
        ("the same with the imports of `baselines`", f"{m['imports_seconds']:.1f} s", "scaling.json"),
        (
            "disk per block of the smoke profile, smallest to largest",
            f"{m['disk_bytes'][0] / 1e3:.0f} to {m['disk_bytes'][-1] / 1e3:.0f} kB, {m['disk_files']} files",
            "scaling.json",
        ),
        *(
            (f"training in a block, n = {n}, median", f"{value:.0f} s", "baselines.jsonl")
            for n, value in middle.items()
        ),
        (
            "largest memory of a kernel",
            f"{max(line['peak_memory_mb'] for line in lines):.0f} MB",
            "baselines.jsonl",
        ),
        ("our loop, one thread, real tokens", f"{training['gflops']['real']:.0f} GFLOP/s", "results.json"),
    )
    minutes = (sum(map(sum, trained.values())) / sum(map(len, trained.values())) + fixed) / 60
    grid = _table(
        ("1,000 blocks of that kind", "1 core", "2 cores", "100 cores"),
        ("hours", *(f"{BLOCKS * minutes / 60 / cores:.1f}" for cores in (1, 2, 100))),
    )
    tokens = training["sentences"] * training["mean_tokens"]
    check = 6 * m["encoder_matrices"] * tokens / 1e9 / training["gflop"]["real"]
    size = parameters()
    memories, spent = memory(), hours()
    parts = ("weights", "gradients", "AdamW", "activations")
    seven = _table(
        ("GB on one device", *parts, "sum"),
        *(
            (way, *(f"{values[part]:.1f}" for part in parts), f"{sum(values.values()):.0f}")
            for way, values in memories.items()
        ),
    )
    when = _table(
        ("hours on one device", "LoRA, c = 4", "full, c = 6", "full, activations recomputed, c = 8"),
        (f"D = {TOKENS / 1e6:.0f} M tokens", *(f"{spent[c]:.1f}" for c in ("4", "6", "8"))),
    )
    return {
        "scaling": f"Processor seconds on one core of {machine['processor']}, Python {machine['python']}, Snakemake "
        f"{machine['snakemake']}, torch {machine['torch']}, {machine['date']}.\n\n{measured}\n\n"
        f"Fixed cost of a block on Slurm: two Snakemakes and a kernel with imports, {fixed:.0f} s; with the mean training "
        f"of a `baselines` block {minutes:.1f} minutes, of which {100 * fixed / 60 / minutes:.0f} % are fixed.\n\n{grid}\n\n"
        f"Disk of 1,000 blocks of the smoke profile: {BLOCKS * median(m['disk_bytes']) / 1e6:.0f} MB.",
        "scaling-7b": f"P = {size['P'] / 1e9:.3f}·10⁹, P_E = {size['P_E'] / 1e9:.3f}·10⁹, P_A = {size['P_A'] / 1e6:.1f}·10⁶; "
        f"FLOP/s = {ACHIEVED} · {PEAK / 1e12:.0f}·10¹² = {ACHIEVED * PEAK / 1e12:.0f}·10¹².\n\n{seven}\n\n{when}\n\n"
        f"Is 6·P·D right? For the encoder that `make bench` trains, P is {m['encoder_matrices'] / 1e6:.2f}·10⁶ without "
        f"embedding tables and D is {tokens:,.0f}; 6·P·D is {check:.2f} times the FLOPs that torch counted "
        f"({training['gflop']['real']:.0f} GFLOP, results.json).",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", type=Path, metavar="BLOCKS_FOLDER", help="measure first")
    options = parser.parse_args()
    if options.measure is not None:
        files.write_json(STORED, measure(options.measure))
    print("renewed:", ", ".join(update_blocks(PAGE, blocks())) or "nothing")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
