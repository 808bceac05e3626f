"""The workflows parse, follow GitHub's schema, and call only commands that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(
    r"uses: (?P<action>[\w.-]+/[\w./-]+)@(?P<sha>[0-9a-f]{40}) # (?P<version>v\d+\.\d+\.\d+)$"
)


def _load(path: Path) -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as true; the base loader keeps it a string.
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def _scripts() -> list[tuple[str, str]]:
    """(place, shell text) of every run step, and of .ci/run."""
    found = [(".ci/run", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))]
    for path in WORKFLOWS:
        for name, job in _load(path)["jobs"].items():
            for number, step in enumerate(job.get("steps", [])):
                if "run" in step:
                    found.append((f"{path.name}:{name}:{number}", step["run"]))
    return found


def _schema(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    return subprocess.run([*command, *map(str, paths)], cwd=ROOT, capture_output=True, text=True, timeout=120)


def _zizmor(folder: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("zizmor", path=str(Path(sys.executable).parent)) or shutil.which("zizmor")
    assert program is not None, "zizmor is missing: it is in requirements.lock and in the extra [dev]"
    return subprocess.run(
        [program, "--offline", "--no-progress", "--format", "plain", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_workflows_are_there() -> None:
    assert [path.name for path in WORKFLOWS] == [
        "ci.yml", "conda.yml", "gpu.yml", "nightly.yml", "pages.yml", "start.yml",
    ]  # fmt: skip


def test_schema() -> None:
    done = _schema(*WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_schema_check_refuses_a_broken_workflow(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text("on: push\njobs:\n  a:\n    runs_on: ubuntu-latest\n    steps: []\n", encoding="utf-8")
    done = _schema(broken)
    assert done.returncode != 0
    assert "runs_on" in done.stdout + done.stderr


def test_security_audit() -> None:
    done = _zizmor(ROOT / ".github")
    assert done.returncode == 0, done.stdout


def test_security_audit_finds_a_script_injection(tmp_path: Path) -> None:
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / "bad.yml").write_text(
        "on: pull_request_target\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n"
        "      - run: echo ${{ github.event.pull_request.title }}\n",
        encoding="utf-8",
    )
    done = _zizmor(tmp_path / ".github")
    assert done.returncode != 0
    assert "template-injection" in done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_least_permissions_time_limits_and_concurrency(path: Path) -> None:
    workflow = _load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "concurrency" in workflow
    for name, job in workflow["jobs"].items():
        assert "uses" in job or 0 < int(job["timeout-minutes"]) < 360, (
            f"{path.name}: {name} has no time limit"
        )


def test_githubs_own_actions_are_pinned_and_the_same_everywhere() -> None:
    seen: dict[str, set[tuple[str, str]]] = {}
    for path in WORKFLOWS:
        for line in path.read_text(encoding="utf-8").splitlines():
            if "uses: actions/" in line:
                match = PINNED.search(line)
                assert match, (
                    f"{path.name}: {line.strip()} is not pinned to a commit with its version beside it"
                )
                seen.setdefault(match["action"], set()).add((match["sha"], match["version"]))
    assert set(seen) >= {
        "actions/checkout",
        "actions/setup-python",
        "actions/upload-artifact",
        "actions/cache",
    }
    assert all(len(pins) == 1 for pins in seen.values()), seen


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    called = {
        (place, target)
        for place, script in _scripts()
        for target in re.findall(r"^\s*make ([a-z]+)", script, flags=re.MULTILINE)
    }
    assert {target for _, target in called} >= {"course", "test", "reproduce", "drill", "setup"}
    assert not [(place, target) for place, target in called if target not in targets]


def test_every_command_exists() -> None:
    import typer

    from instructlab_apps.commands import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    called = {
        (place, command)
        for place, script in _scripts()
        for command in re.findall(r"-m instructlab_utils ([a-z-]+)", script)
    }
    assert {command for _, command in called} >= {"course", "fetch", "run", "claims", "doctor"}
    unknown = [(place, command) for place, command in called if command not in commands]
    assert not unknown


def test_every_option_of_a_command_exists() -> None:
    import typer

    from instructlab_apps.commands import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    checked = 0
    for place, script in _scripts():
        for command, rest in re.findall(r"-m instructlab_utils ([a-z-]+)([^\n|&;]*)", script):
            known = {name for parameter in commands[command].params for name in parameter.opts}
            for option in re.findall(r"(?<=\s)--[a-z-]+", rest):
                checked += 1
                assert option in known, f"{place}: {command} has no option {option}"
    assert checked > 5


def test_named_files_exist() -> None:
    names = {
        "requirements.lock",
        "environment.yml",
        "pyproject.toml",
        "data/assets.toml",
        "scripts/lock.py",
        ".ci/run",
    }
    text = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    assert not [name for name in names if name not in text]
    assert not [name for name in names if not (ROOT / name).exists()]


def test_ci_runs_the_two_commands_the_rehearsal_and_nothing_else() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    lines = [line.strip() for line in script.splitlines() if line.strip() and not line.startswith("#")]
    work = [line for line in lines if not line.startswith(("set ", "cd ", "SECONDS=", "echo "))]
    assert work == ["make course", "make test", "make rehearsal"]
    steps = _load(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]["linux"]["steps"]
    assert ".ci/run" in [step.get("run") for step in steps]


def test_ci_covers_three_systems() -> None:
    jobs = _load(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    systems = {entry["os"].split("-")[0] for entry in jobs["systems"]["strategy"]["matrix"]["include"]}
    assert systems | {jobs["linux"]["runs-on"].split("-")[0]} == {"ubuntu", "macos", "windows"}
