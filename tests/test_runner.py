"""The strict runner: parameters, failures, limits, signals, manifests. Each test that starts a kernel takes a second."""

from __future__ import annotations

import ast
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from instructlab_repro import notebooks, provenance
from instructlab_repro.notebooks import client, runner
from instructlab_utils.errors import NotebookError, ParameterError, RecordError

ROOT = Path(__file__).resolve().parents[1]
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
PARAMETERS = """profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # 0 = the usual one
lr: float = 0.0
flag: bool = False
limit: int | None = None
names: list[str] = []"""

posix = pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")


def write(path: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    notebook = new_notebook(metadata={"kernelspec": KERNEL})
    notebook.cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    notebook.cells += [new_code_cell(cell) for cell in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def run(
    project: Path, *cells: str, parameters: dict | None = None, **options
) -> tuple[runner.Manifest, Path]:
    out = project / "build" / "out"
    path = write(project / "notebooks" / "a.ipynb", *cells)
    manifest = runner.run_notebook(path, out, parameters or {}, **{"timeout": 60, **options})
    return manifest, out


def printed(out: Path) -> str:
    cells = nbformat.read(out / "executed.ipynb", 4).cells
    return "".join(o.get("text", "") for c in cells if c.cell_type == "code" for o in c.outputs)


# --- parameters ----------------------------------------------------------------------------------


@pytest.fixture
def declared(tmp_path):
    return runner.inspect_notebook(write(tmp_path / "a.ipynb"))


def test_parameters_are_read_with_type_default_and_comment(declared):
    assert list(declared) == ["profile", "seed", "lr", "flag", "limit", "names"]
    assert declared["seed"] == notebooks.Parameter("seed", "int", 0, "0 = the usual one")
    assert declared["limit"].type == "int | None" and declared["limit"].default is None


def test_a_type_without_annotation_is_that_of_the_default(tmp_path):
    found = runner.inspect_notebook(write(tmp_path / "a.ipynb", parameters="steps = 3"))
    assert found["steps"].type == "int"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lr", "2e-5", 2e-5),
        ("lr", "1", 1.0),
        ("seed", "7", 7),
        ("flag", "false", False),
        ("flag", "True", True),
        ("profile", "1e3", "1e3"),
        ("limit", "None", None),
        ("limit", "5", 5),
        ("names", "['a', 'b']", ["a", "b"]),
    ],
)
def test_text_from_a_command_line_gets_the_declared_type(declared, name, text, value):
    got = runner.check_parameters(declared, {name: text}, parse=True)[name]
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("seed", "three", "int"),
        ("seed", "2e-5", "int"),
        ("seed", "true", "int"),
        ("lr", "fast", "float"),
        ("flag", "maybe", "bool"),
        ("limit", "1.5", r"int \| None"),
        ("names", "{'a'}", r"list\[str\]"),
    ],
)
def test_text_of_another_type_is_refused(declared, name, text, kind):
    with pytest.raises(ParameterError, match=f"parameter '{name}' must be of type {kind}, not"):
        runner.check_parameters(declared, {name: text}, parse=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", True), ("seed", "3"), ("seed", 1.0), ("lr", True), ("lr", "2e-5"), ("flag", 1)],
)
def test_values_of_another_type_are_refused(declared, name, value):
    with pytest.raises(ParameterError, match=rf"'{name}' must be of type .*\({type(value).__name__}\)"):
        runner.check_parameters(declared, {name: value})


def test_a_choice_is_checked_and_an_unknown_type_is_left_to_the_notebook(tmp_path):
    cell = 'kind: Literal["a", "b"] = "a"\nwhere: Path = "x"'
    declared = runner.inspect_notebook(write(tmp_path / "a.ipynb", parameters=cell))
    assert runner.check_parameters(declared, {"kind": "b", "where": 3}) == {"kind": "b", "where": 3}
    with pytest.raises(ParameterError, match=r"'kind' must be of type Literal\['a', 'b'\], not 'c'"):
        runner.check_parameters(declared, {"kind": "c"}, parse=True)


def test_an_int_is_welcome_where_a_float_is_asked(declared):
    got = runner.check_parameters(declared, {"lr": 1})["lr"]
    assert got == 1.0 and isinstance(got, float)


def test_an_unknown_parameter_names_the_known_ones(declared):
    with pytest.raises(
        ParameterError, match=r"unknown parameter 'sed', did you mean 'seed'\?; known: .*lr \(float\)"
    ):
        runner.check_parameters(declared, {"sed": 1})


@pytest.mark.parametrize(
    ("source", "message"),
    [("seed: int = 0 +", "not valid Python"), ("seed: int = len('a')", "'seed' must be a constant")],
)
def test_a_wrong_parameters_cell_is_one_sentence(tmp_path, source, message):
    with pytest.raises(NotebookError, match=message):
        runner.inspect_notebook(write(tmp_path / "a.ipynb", parameters=source))


def notebooks_of_this_repository() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb")) + sorted(
        (ROOT / "notebooks/experiments").glob("*.ipynb")
    )


@pytest.mark.parametrize("path", notebooks_of_this_repository(), ids=lambda path: path.stem)
def test_papermill_alone_lists_every_parameter_of_a_notebook_without_a_warning(path, caplog):
    from papermill.translators import PythonTranslator

    source = ROOT / path.relative_to(ROOT).parent / "source" / f"{path.stem}.py"
    (cell,) = [c for c in notebooks.from_source(source).cells if "parameters" in c.metadata.get("tags", [])]
    listed = {found.name: found for found in PythonTranslator.inspect(cell)}
    declared = runner.inspect_notebook(path)
    assert list(listed) == list(declared) and not caplog.records
    for name, parameter in declared.items():
        assert ast.literal_eval(listed[name].default) == parameter.default
        assert listed[name].help


def test_nothing_is_written_when_parameters_are_wrong(project):
    with pytest.raises(ParameterError):
        run(project, "1", parameters={"sed": 1})
    assert not (project / "build").exists()


# --- a good run ----------------------------------------------------------------------------------

LOOK = """import json, os
out = os.environ["INSTRUCTLAB_RUN_DIR"]
print("status", json.load(open(out + "/manifest.json"))["status"])
print("folder", os.path.basename(os.getcwd()))
print("threads", os.environ["OMP_NUM_THREADS"])
print("lr", lr, seed)
json.dump({"accuracy": 0.5}, open(out + "/metrics.json", "w"))
memory = bytearray(150 * 2**20)
import time; time.sleep(0.5)"""


def test_a_good_run(project):
    out = project / "build" / "out"
    out.mkdir(parents=True)
    (out / "metrics.json").write_text('{"of": "an older run"}')
    manifest, _ = run(project, LOOK, parameters={"lr": 1, "seed": 4})
    assert (manifest.status, manifest.exit_code, manifest.error) == ("ok", 0, None)
    assert printed(out).splitlines() == ["status running", "folder notebooks", "threads 1", "lr 1.0 4"]
    stored = json.loads((out / "manifest.json").read_text())
    assert stored["status"] == "ok" and stored["parameters"] == {"lr": 1.0, "seed": 4} and stored["seed"] == 4
    assert stored["profile"] == "laptop" and stored["notebook"] == "notebooks/a.ipynb"
    assert stored["started"] <= stored["ended"] and stored["seconds"] > 0.5
    assert 150 < stored["peak_memory_mb"] < 1000
    assert stored["versions"]["packages"]["papermill"]
    assert json.loads((out / "metrics.json").read_text()) == {"accuracy": 0.5}
    assert runner.read_manifest(out) == manifest


def test_the_profile_comes_from_the_parameter_or_the_environment(project):
    manifest, out = run(
        project, "import os; print(os.environ['INSTRUCTLAB_PROFILE'])", env={"INSTRUCTLAB_PROFILE": "smoke"}
    )
    assert manifest.profile == "smoke" and printed(out) == "smoke\n"
    with pytest.raises(ParameterError, match="unknown profile 'huge'"):
        run(project, "1", parameters={"profile": "huge"})


def test_bars_are_one_output_and_odd_folders_are_no_obstacle(project, monkeypatch):
    deep = project / ("a" * 60) / ("b {x} é" * 8)
    deep.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))  # too long for a socket's name
    path = write(deep / "n.ipynb", "from tqdm import tqdm\nfor _ in tqdm(range(5), mininterval=0): pass")
    manifest = runner.run_notebook(path, deep / "out", {}, timeout=60)
    assert manifest.status == "ok", manifest.error
    assert len(nbformat.read(deep / "out" / "executed.ipynb", 4).cells[-1].outputs) == 1


KINDS = """pair: tuple = ()
table: dict = {}
names: list = []
rate: float = 0.0
anything: "object" = None"""
GIVEN = {
    "pair": (1, (2.5, "a"), None),
    "table": {1: "one", 2: [True, (3,), {"it's": {}}]},
    "names": ["(1, 2)", "", 'a "b" \\n {x} é'],
    "rate": float("-inf"),
    "anything": 10**30,
}


def test_each_kind_of_parameter_arrives_as_it_was_given_and_every_file_is_strict_json(project):
    out = project / "out"
    cells = ["print(repr([pair, table, names, rate, anything]))", "import math; math.nan"]
    path = write(project / "notebooks" / "a.ipynb", *cells, parameters=KINDS)
    manifest = runner.run_notebook(path, out, GIVEN, timeout=60)
    assert manifest.status == "ok", manifest.error
    assert printed(out) == repr(list(GIVEN.values())) + "\n"
    for name in ("manifest.json", "executed.ipynb"):
        stored = json.loads((out / name).read_text(), parse_constant=pytest.fail)
    assert stored["metadata"]["papermill"]["parameters"]["rate"] == "-Infinity"
    assert runner.read_manifest(out).parameters["rate"] == "-Infinity"
    with pytest.raises(RecordError, match="set is not a number, a string"):
        runner.run_notebook(path, out, {"anything": {1, 2}}, timeout=60)


# --- runs that go wrong --------------------------------------------------------------------------


def test_a_failing_cell_is_named_and_the_partial_notebook_stays(project):
    manifest, out = run(project, "print('before')", "\n# why\nassert seed == 1, 'no'\n", "print('after')")
    assert (manifest.status, manifest.exit_code) == ("failed", 1)
    assert manifest.error == {"cell": 3, "source": "# why", "name": "AssertionError", "message": "no"}
    assert printed(out) == "before\n"
    told = runner.describe(manifest, out)
    assert "cell [3] `# why`: AssertionError: no" in told and "build/out/executed.ipynb" in told


def test_leaving_early_is_a_failure(project):
    manifest, _ = run(project, "import sys; sys.exit(0)", "print('after')")
    assert (manifest.status, manifest.error["name"]) == ("failed", "SystemExit")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"timeout": 6}, "the notebook's limit of 6 s"), ({"cell_timeout": 2}, "the cell's limit of 2 s")],
)
def test_a_time_limit_aborts(project, options, said):
    begin = time.monotonic()
    manifest, out = run(project, "print('before')", "import time; time.sleep(60)", **options)
    assert time.monotonic() - begin < 40
    assert (manifest.status, manifest.exit_code) == ("aborted", 3)
    assert manifest.error["name"] == "Timeout" and said in manifest.error["message"]
    assert manifest.error["source"] == "import time; time.sleep(60)"
    assert json.loads((out / "manifest.json").read_text())["status"] == "aborted"
    assert printed(out) == "before\n"


def test_a_dead_kernel_is_noticed(project):
    begin = time.monotonic()
    manifest, _ = run(
        project, "import os, signal", "os.kill(os.getpid(), signal.SIGTERM if os.name == 'nt' else 9)"
    )
    assert time.monotonic() - begin < 40
    assert (manifest.status, manifest.exit_code, manifest.error["name"]) == ("aborted", 3, "DeadKernel")


def start_run(project: Path, *cells: str) -> tuple[subprocess.Popen, Path]:
    """`run_notebook` in a process of its own; returns when the first cell has written its process id."""
    path = write(
        project / "notebooks" / "a.ipynb", "import os\nopen('pid', 'w').write(str(os.getpid()))", *cells
    )
    out = project / "build" / "out"
    code = (
        "import sys; from pathlib import Path; from instructlab_repro.notebooks import runner\n"
        f"sys.exit(runner.run_notebook({str(path)!r}, Path({str(out)!r}), {{}}, timeout=60).exit_code)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=project)
    pid = project / "notebooks" / "pid"
    deadline = time.monotonic() + 100  # a cold server on a busy machine
    while not (pid.is_file() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return process, out


def gone(pid: int, seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


@posix
def test_sigterm_is_written_down_and_ends_the_kernel(project):
    process, out = start_run(project, "import time; time.sleep(60)")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 3
    manifest = runner.read_manifest(out)
    assert manifest.status == "aborted" and manifest.error["message"] == "stopped by SIGTERM"
    assert gone(int((project / "notebooks" / "pid").read_text()))


@posix
def test_after_kill_9_the_manifest_says_running_and_no_kernel_is_left(project):
    process, out = start_run(project, "import time; time.sleep(60)")
    process.kill()
    process.wait(timeout=10)
    manifest = runner.read_manifest(out)
    assert (manifest.status, manifest.exit_code, manifest.ended) == ("running", 3, None)
    assert gone(int((project / "notebooks" / "pid").read_text()))


# --- what is printed -------------------------------------------------------------------------------

PRINTS = """from IPython.display import HTML, clear_output, display
for _ in range(10): display(HTML("y" * 1_000_000))
print("after")"""
REPLACED = """for i in range(100): clear_output(wait=True); display(HTML("z" * 100_000))
shown = display(HTML(""), display_id=True)
for i in range(300): shown.update(HTML("b" * 50_000 + str(i)))"""


def test_a_long_line_and_huge_outputs_are_cut_with_a_sentence_and_what_is_replaced_does_not_count(project):
    begin = time.monotonic()
    manifest, out = run(
        project, 'print("x" * 400_000)', PRINTS, REPLACED, 'raise ValueError("e" * 5_000_000)'
    )
    assert time.monotonic() - begin < 45
    assert (manifest.status, manifest.error["name"]) == ("failed", "ValueError")
    assert len(manifest.error["message"]) <= 10_000
    cells = nbformat.read(out / "executed.ipynb", 4).cells
    _, line, rich, replaced, wrong = [cell for cell in cells if cell.cell_type == "code"]
    assert line.outputs[0].text == "x" * 200_000
    assert line.outputs[1].text.startswith(
        "[200,001 characters of output were left out: a cell may show 200,000 "
    )
    assert [o.output_type for o in rich.outputs] == ["display_data"] * 3 + ["stream"] * 2
    assert rich.outputs[3].text == "after\n" and re.match(r"\[7,00\d,\d{3} characters", rich.outputs[4].text)
    assert [len(o.data["text/html"]) for o in replaced.outputs] == [100_000, 50_003]
    assert "characters of output were left out" in wrong.outputs[-1].text
    assert (out / "executed.ipynb").stat().st_size < 5_000_000


@posix
@pytest.mark.parametrize("cell", ["print('x' * 1000)", "print('x', flush=True)", "display('y' * 1000)"])
def test_whoever_prints_for_ever_ends_at_sigterm_and_at_the_limit(project, cell):
    process, out = start_run(project, f"while True: {cell}")
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 3
    assert runner.read_manifest(out).error["message"] == "stopped by SIGTERM"
    assert (out / "executed.ipynb").stat().st_size < 6_000_000
    assert gone(int((project / "notebooks" / "pid").read_text()))
    manifest, _ = run(project, f"while True: {cell}", cell_timeout=3)
    assert (manifest.status, manifest.error["name"]) == ("aborted", "Timeout") and manifest.seconds < 40


def test_text_is_joined_as_nbclient_does_without_its_time():
    from nbclient.client import _RGX_CARRIAGERETURN

    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(rng.choices("ab\r\n", k=rng.randrange(12)))
        outputs = [new_output("stream", name="stdout", text=text)]
        client._tidy(outputs, 0)
        assert outputs[0].text == _RGX_CARRIAGERETURN.sub("", text), text
    streams = [new_output("stream", name=name, text="") for name in ("stderr", "stdout")]
    client._tidy(streams, 0)
    assert [output.name for output in streams] == ["stdout", "stderr"]
    begin = time.monotonic()
    client._tidy([new_output("stream", text="x" * 5_000_000)], 0)
    assert time.monotonic() - begin < 2


# --- several at once -----------------------------------------------------------------------------


def test_four_at_once_and_no_kernel_hears_another(project):
    code = (
        "import sys; from pathlib import Path; from instructlab_repro.notebooks import runner\n"
        "n = int(sys.argv[1])\n"
        "m = runner.run_notebook('notebooks/a.ipynb', Path(f'build/{n}'), {'seed': n}, timeout=100)\n"
        "sys.exit(m.exit_code)"
    )
    write(project / "notebooks" / "a.ipynb", "import time\nfor i in range(5): print(seed); time.sleep(0.05)")
    processes = [subprocess.Popen([sys.executable, "-c", code, str(n)], cwd=project) for n in range(4)]
    assert [process.wait(timeout=100) for process in processes] == [0, 0, 0, 0]
    for n in range(4):
        assert printed(project / "build" / str(n)) == f"{n}\n" * 5


# --- manifests -----------------------------------------------------------------------------------


def test_a_manifest_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    manifest = runner.Manifest(notebook="a", parameters={}, code_sha="", profile="smoke", seed=0)
    manifest.write(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    monkeypatch.setattr(provenance.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
    manifest.status = "ok"
    with pytest.raises(OSError, match="disk full"):
        manifest.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("text", ["{", '{"schema": 99}', '{"schema": 1, "colour": "red"}', "[]"])
def test_a_damaged_manifest_is_one_sentence(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RecordError, match=r"manifest\.json.*delete it and run again"):
        runner.read_manifest(tmp_path)


def test_a_declared_type_is_read_and_never_run(tmp_path):
    """Only names, subscripts and | are evaluated; anything else is left to the notebook."""
    touched = tmp_path / "touched"
    text = f"[open({str(touched)!r}, 'w'), str][1]"
    declared = {"x": notebooks.Parameter("x", text, "a"), "y": notebooks.Parameter("y", "int | None", 1)}
    assert notebooks.check_parameters(declared, {"x": 3, "y": None}) == {"x": 3, "y": None}
    assert not touched.exists()
    with pytest.raises(ParameterError, match="'y' must be of type int"):
        notebooks.check_parameters(declared, {"y": "one"})
