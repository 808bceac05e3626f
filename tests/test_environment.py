"""pyproject.toml, requirements.lock and environment.yml must describe one environment."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lock", ROOT / "scripts" / "lock.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def locked(lock: ModuleType) -> dict[str, str]:
    versions: dict[str, str] = lock.parse((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    return versions


def test_every_direct_dependency_is_locked_inside_its_range(lock: ModuleType, locked: dict[str, str]) -> None:
    wanted = lock.wanted(ROOT / "pyproject.toml")
    assert len(wanted) > 20
    wrong = [
        f"{requirement} but locked {locked.get(lock.normal(requirement.name))}"
        for requirement in wanted
        if lock.normal(requirement.name) not in locked
        or not requirement.specifier.contains(locked[lock.normal(requirement.name)])
    ]
    assert not wrong


def _imports(folder: str) -> dict[str, set[str]]:
    """Top-level modules that the Python files below ``folder`` import, with the files that do."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                found.setdefault(name.split(".")[0], set()).add(path.name)
    return found


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("instructlab_apps", ()),
        ("instructlab_utils", ("tensorboard",)),
        ("instructlab_repro", ("classroom",)),
        ("classroom", ("classroom",)),
        ("notebooks", ()),
        ("tests", ("dev", "bench", "classroom", "tensorboard")),
        ("book", ("book",)),
        ("scripts", ("dev",)),
        ("benchmarks", ("bench",)),
    ],
)
def test_every_import_is_a_declared_dependency(
    lock: ModuleType, folder: str, extras: tuple[str, ...]
) -> None:
    project = PYPROJECT["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in extras for line in project["optional-dependencies"][extra]),
    ]
    declared = {lock.normal(lock.Requirement(line).name) for line in lines}
    own = {path.stem for name in ("tests", "classroom") for path in (ROOT / name).glob("*.py")}
    own |= {"instructlab_apps", "instructlab_utils", "instructlab_repro", "book"}
    packages = packages_distributions()
    found = _imports(folder)
    assert len(found) > 3
    undeclared = {
        name: files
        for name, files in found.items()
        if name not in own
        and name not in sys.stdlib_module_names
        and not {lock.normal(package) for package in packages.get(name, [name])} & declared
    }
    assert not undeclared


def test_every_direct_dependency_has_an_upper_or_lower_bound_and_no_exact_pin(lock: ModuleType) -> None:
    for requirement in lock.wanted(ROOT / "pyproject.toml"):
        operators = {specifier.operator for specifier in requirement.specifier}
        assert ">=" in operators, f"{requirement}: pyproject.toml holds ranges"
        assert "==" not in operators, f"{requirement}: exact versions belong in requirements.lock"


def test_lock_is_sorted_and_free_of_build_labels(locked: dict[str, str]) -> None:
    assert list(locked) == sorted(locked)
    assert locked["torch"] == "2.13.0"
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "+" not in text, "a build label such as +cpu would lock out CUDA users"
    assert "scripts/lock.py" in text.splitlines()[1]


@pytest.mark.parametrize("line", ["torch", "torch>=2", "torch==2.13.0+cpu", "Torch==2.13.0", "-e ."])
def test_lock_parser_refuses(lock: ModuleType, line: str) -> None:
    with pytest.raises(ValueError, match=r"requirements\.lock:2"):
        lock.parse(f"numpy==2.4.6\n{line}\n")


@pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info[:2] != (3, 11),
    reason="the lock is made on Linux, Python 3.11",
)
def test_lock_equals_what_is_installed_here() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/lock.py", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_lock_check_notices_a_difference(lock: ModuleType, locked: dict[str, str]) -> None:
    here = lock.closure(
        [requirement for requirement in lock.wanted(ROOT / "pyproject.toml") if requirement.name == "tqdm"]
    )
    assert "tqdm" in here and len(here) < 5
    assert here["tqdm"] == version("tqdm")
    with pytest.raises(SystemExit, match="tqdm<1"):
        lock.closure([lock.Requirement("tqdm<1")])
    with pytest.raises(SystemExit, match="not installed"):
        lock.closure([lock.Requirement("surely-not-installed-here")])


def test_a_system_without_a_wheel_is_named(lock: ModuleType) -> None:
    linux, mac = "x-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "x-1.0-cp311-abi3-macosx_11_0_arm64.whl"
    assert lock.unserved(["x-1.0-py3-none-any.whl", "x-1.0.tar.gz"]) == []
    told = lock.unserved([linux, mac, "x-1.0.tar.gz"])
    assert "Linux, Python 3.11" not in told and {"Linux, Python 3.12", "Linux, Python 3.13"} < set(told)
    assert not [one for one in told if one.startswith("macOS")]  # abi3: newer Pythons, too
    assert {f"Windows, Python 3.{minor}" for minor in (11, 12, 13)} < set(told)
    assert lock.compiled("numpy") and not lock.compiled("tqdm")


def test_the_pythons_that_are_asked_for_are_those_of_the_project(lock: ModuleType) -> None:
    supported = SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert {minor for minor in range(30) if supported.contains(f"3.{minor}.1")} == {
        p[1] for p in lock.PYTHONS
    }


def test_conda_environment_installs_the_lock() -> None:
    rattler = pytest.importorskip("rattler")
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    names = {rattler.MatchSpec(entry).name.normalized: entry for entry in conda}
    assert set(names) == {"python", "pip"}, "everything else comes from requirements.lock, by pip"
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-r requirements.lock", "-e ."], "a version written here could differ from the lock"
    assert (ROOT / "requirements.lock").is_file() and (ROOT / "pyproject.toml").is_file()


def test_python_version_is_the_same_everywhere() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pin,) = [
        entry.split("=")[1] for entry in environment["dependencies"] if str(entry).startswith("python=")
    ]
    supported = SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert supported.contains(f"{pin}.0")
    header = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert f"on Python {pin};" in header
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + pin.replace(".", "")
    assert PYPROJECT["tool"]["mypy"]["python_version"] == pin
    for classifier in PYPROJECT["project"]["classifiers"]:
        if found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", classifier):
            assert supported.contains(f"{found[1]}.0"), classifier


def test_package_data_and_console_script_exist() -> None:
    assert (ROOT / "instructlab_utils" / "profiles.toml").is_file()
    data = PYPROJECT["tool"]["setuptools"]["package-data"]
    assert "*.toml" in data["instructlab_utils"]
    templates = [path for path in (ROOT / "instructlab_repro").rglob("templates/*") if path.suffix != ".pyc"]
    packed = {
        path for pattern in data["instructlab_repro"] for path in (ROOT / "instructlab_repro").glob(pattern)
    }
    assert templates and set(templates) <= packed
    script = PYPROJECT["project"]["scripts"]["instructlab"]
    assert PYPROJECT["project"]["entry-points"]["pipx.run"] == {PYPROJECT["project"]["name"]: script}
    module, function = script.split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_licence_is_complete() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PYPROJECT["project"]["license"] == "Apache-2.0"


def test_citation_file_is_valid_and_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PYPROJECT["project"]["version"]
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert citation["authors"] and citation["message"] and citation["title"]
