"""Write requirements.lock: the exact versions of everything that pyproject.toml asks for, as installed here.

In the project's environment, after `pip install --upgrade -e '.[dev,bench,lab,classroom,tensorboard]'`:

    python scripts/lock.py            # rewrite requirements.lock
    python scripts/lock.py --check    # exit 1 and say what differs, write nothing
    python scripts/lock.py --book     # in the environment of the site: book/requirements.lock
    python scripts/lock.py --wheels   # ask the package index for wheels of every system; exit 1 if one is missing

The walk starts at pyproject.toml and follows the metadata of the installed packages, so that a package that
merely happens to be installed is left out. Build labels (torch 2.13.0+cpu) are dropped: CPU and CUDA users share
the file.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import compatible_tags, cpython_tags, mac_platforms
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
APART = {"book": ROOT / "book" / "requirements.lock"}  # extras with an environment of their own
HEADER = """\
# Exact versions of all dependencies, extras included: what every stored result was made with.
# Made by `python scripts/lock.py` on Python {python}; do not edit. Ranges are in pyproject.toml.
# Install: `pip install -r requirements.lock && pip install --no-deps -e .` (`make course` does it).
# torch: docs/torch.md, for a CPU-only or a CUDA build.
"""
APART_HEADER = """\
# Exact versions of what renders site and slides. `make book` installs them into .venv-book, apart from the course's.
# Made there by `python scripts/lock.py --book` on Python {python}; do not edit. Ranges: the extra [book] of pyproject.toml.
"""
# The systems that conda calls linux-64, osx-arm64 and win-64; Debian 12 has glibc 2.36.
SYSTEMS = {
    "Linux": [*(f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)), "manylinux2014_x86_64"],
    "macOS": list(mac_platforms((14, 0), "arm64")),
    "Windows": ["win_amd64"],
}
PYTHONS = ((3, 11), (3, 12), (3, 13))
TOOLS = {"pip", "setuptools", "wheel"}  # every environment brings its own


def normal(name: str) -> str:
    """The package name as package indexes compare it: lower case, one hyphen."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(pyproject: Path, apart: str = "") -> list[Requirement]:
    """The requirements of the project with its extras, or of one extra that has an environment of its own."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    if apart:
        return [Requirement(line) for line in extras[apart]]
    lines = list(project["dependencies"])
    for name, extra in extras.items():
        lines += [] if name in APART else extra
    return [Requirement(line) for line in lines]


def closure(start: list[Requirement]) -> dict[str, str]:
    """``name -> version`` of ``start`` and of all that it needs here, from the installed metadata.

    Raises SystemExit where a needed package is absent or outside the asked range.
    """
    found: dict[str, str] = {}
    todo = [(requirement, "pyproject.toml") for requirement in start]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement, parent = todo.pop()
        key = (normal(requirement.name), frozenset(requirement.extras))
        try:
            package = distribution(requirement.name)
        except PackageNotFoundError:
            raise SystemExit(
                f"error: {parent} needs {requirement}, which is not installed; pip install it"
            ) from None
        version = Version(package.version)
        if not requirement.specifier.contains(version, prereleases=True):
            raise SystemExit(f"error: {parent} needs {requirement}, but {version} is installed")
        if key in seen:
            continue
        seen.add(key)
        found[key[0]] = version.public
        for line in package.requires or []:
            child = Requirement(line)
            extras = ["", *requirement.extras]
            if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append((child, requirement.name))
    return {name: version for name, version in found.items() if name not in TOOLS}


def compiled(name: str) -> bool:
    """Whether the installed package came in a wheel for one system only."""
    return "none-any" not in (distribution(name).read_text("WHEEL") or "none-any")


def unserved(files: Iterable[str]) -> list[str]:
    """The systems and Pythons for which none of these files is a wheel."""
    offered = set()
    for file in files:
        with contextlib.suppress(InvalidWheelFilename):
            offered |= parse_wheel_filename(file)[3]
    return [
        f"{system}, Python {python[0]}.{python[1]}"
        for system, platforms in SYSTEMS.items()
        for python in PYTHONS
        if offered.isdisjoint(cpython_tags(python, platforms=platforms))
        and offered.isdisjoint(compatible_tags(python, f"cp{python[0]}{python[1]}", platforms))
    ]


def without_wheel(versions: dict[str, str]) -> dict[str, list[str]]:
    """Locked packages with compiled code → the systems for which the package index has no wheel of that version."""
    from pypi_simple import PyPISimple

    found = {}
    with PyPISimple() as index:
        index.s.verify = os.environ.get("PIP_CERT") or True
        for name, version in versions.items():
            if compiled(name):
                page = index.get_project_page(name, timeout=60)
                found[name] = unserved(file.filename for file in page.packages if file.version == version)
    print(f"{len(found)} of {len(versions)} locked packages have compiled code")
    return {name: systems for name, systems in found.items() if systems}


def render(versions: dict[str, str], header: str = HEADER) -> str:
    """The text of the lock file, sorted."""
    lines = [f"{name}=={version}\n" for name, version in sorted(versions.items())]
    return header.format(python=f"{sys.version_info.major}.{sys.version_info.minor}") + "".join(lines)


def parse(text: str) -> dict[str, str]:
    """``name -> version`` of a lock file's text; ValueError for a line that is not ``name==version``."""
    versions = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"([a-z0-9][a-z0-9-]*)==([0-9][0-9A-Za-z.]*)", line)
        if match is None:
            raise ValueError(f"requirements.lock:{number}: {line!r} is not name==version")
        versions[match[1]] = match[2]
    return versions


def main() -> int:
    """Write or check the lock file; the exit status."""
    parser = argparse.ArgumentParser(description="Write requirements.lock from the installed environment.")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 where they differ")
    parser.add_argument("--book", action="store_true", help="the lock file of the site's environment")
    parser.add_argument("--wheels", action="store_true", help="ask the index for wheels of every system")
    asked = parser.parse_args()
    if asked.wheels:
        lacking = without_wheel(parse(LOCK.read_text(encoding="utf-8")))
        print(
            "\n".join(f"{name}: no wheel for {'; '.join(where)}" for name, where in lacking.items())
            or "no gap"
        )
        return int(bool(lacking))
    if asked.book:
        found = closure(wanted(ROOT / "pyproject.toml", "book"))
        APART["book"].write_text(render(found, APART_HEADER), encoding="utf-8")
        print(f"book/requirements.lock: {len(found)} packages")
        return 0
    check = asked.check
    text = render(closure(wanted(ROOT / "pyproject.toml")))
    if not check:
        LOCK.write_text(text, encoding="utf-8")
        print(f"{LOCK.name}: {len(parse(text))} packages")
        return 0
    here, locked = parse(text), parse(LOCK.read_text(encoding="utf-8"))
    for name in sorted(here.keys() | locked.keys()):
        if here.get(name) != locked.get(name):
            print(f"{name}: locked {locked.get(name, 'not')}, installed {here.get(name, 'not')}")
    return int(here != locked)


if __name__ == "__main__":
    sys.exit(main())
