"""Rooms, directions, names and sizes: what keeps the house readable.

Every module is parsed, not imported, so imports inside functions count as those at the top do. Each rule is a function
of a folder and returns sentences; a test holds it against this repository, another against a tree that breaks it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COURSE, ENGINE, APPS = (
    "instructlab_utils",
    "instructlab_repro",
    "instructlab_apps",
)  # each imports those before it
ROOMS = (
    ("provenance", "strict"),
    ("assets",),
    ("notebooks",),
    ("experiments",),
    ("block",),
    ("claims",),
    ("pages",),
    ("lesson",),
    ("engine",),
)  # a module imports from its own place and from those before it
RANK = {name: rank for rank, names in enumerate(ROOMS) for name in names}
MODULE_LINES, ENGINE_LINES = 400, 6540  # those of the engine without blank ones, which cost nobody anything
PAGES = {"README.md": (12_288, 220), "CONTRIBUTING.md": (6_144, None)}  # bytes, lines
FROM_THE_ENGINE = {
    "notebooks/source": {f"{ENGINE}.lesson"},
    "notebooks/experiments/source": {f"{ENGINE}.block"},
    "notebooks/exercises": set(),
}

Modules = dict[str, ast.Module]  # dotted name → parsed text; a package stands for its __init__.py


# --- reading ---------------------------------------------------------------------------------------


def files(root: Path) -> dict[str, Path]:
    """Every module of the three packages by its dotted name."""
    found = {}
    for package in (COURSE, ENGINE, APPS):
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def modules(root: Path) -> Modules:
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in files(root).items()}


def imported(tree: ast.AST, known: Modules | set[str]) -> Iterator[str]:
    """The names of modules that a module imports anywhere in its text, as they are written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def edges(known: Modules) -> dict[str, set[str]]:
    """Module → the modules of ours that it needs. ``a.b.c`` needs ``a.b`` too, but for one that stands in ``a.b``."""
    found: dict[str, set[str]] = {name: set() for name in known}
    for name, tree in known.items():
        for target in imported(tree, known):
            parts = target.split(".")
            loaded = {".".join(parts[: i + 1]) for i in range(len(parts))} & set(known)
            found[name] |= {one for one in loaded if one == target or not f"{name}.".startswith(f"{one}.")}
        found[name].discard(name)
    return found


def rank(name: str) -> int | None:
    """The place of a module of the engine in the order; None for the package itself."""
    parts = name.split(".")
    return RANK.get(parts[1]) if parts[0] == ENGINE and len(parts) > 1 else None


# --- the rules -------------------------------------------------------------------------------------


def cycles(root: Path) -> list[str]:
    """One sentence for each circle of imports that a walk from module to module closes."""
    needs, done, said = edges(modules(root)), set(), []

    def walk(name: str, path: list[str]) -> None:
        if name in path:
            said.append(" → ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in sorted(needs[name]):
                walk(target, [*path, name])
            done.add(name)

    for name in needs:
        walk(name, [])
    return said


def later_rooms(root: Path) -> list[str]:
    """Imports of the engine that go from a room to one behind it, and modules that stand in no room."""
    said = []
    for name, targets in edges(modules(root)).items():
        if name.startswith(f"{ENGINE}.") and rank(name) is None:
            said.append(f"{name} stands in no room; the rooms are {', '.join(RANK)}")
            continue
        for target in sorted(targets):
            here, there = rank(name), rank(target)
            if here is not None and there is not None and there > here:
                said.append(f"{name} imports {target}, a later room")
    return said


def engine_below(root: Path) -> list[str]:
    """Modules of the lessons' package that import the engine or the applications, and of the engine that import the
    applications; only ``__main__`` hands over."""
    later = {COURSE: (ENGINE, APPS), ENGINE: (APPS,), APPS: ()}
    return [
        f"{name} imports {target}"
        for name, targets in edges(modules(root)).items()
        if name != f"{COURSE}.__main__"
        for target in sorted(targets)
        if target.startswith(later[name.split(".")[0]])
    ]


def notebook_imports(root: Path) -> list[str]:
    """What notebooks import of the engine beyond the one module that is theirs, or of another notebook."""
    known = set(files(root))
    others = {path.stem for folder in FROM_THE_ENGINE for path in (root / folder).glob("*.py")}
    said = []
    for folder, allowed in FROM_THE_ENGINE.items():
        for path in sorted((root / folder).glob("*.py")):
            code = "\n".join(
                line
                for line in path.read_text(encoding="utf-8").splitlines()
                if not line.lstrip().startswith(("%", "!"))
            )
            for target in imported(ast.parse(code), known):
                engine = target.split(".")[0] == ENGINE and target not in allowed
                if engine or target.split(".")[0] in others:
                    said.append(f"{folder}/{path.name} imports {target}")
    return said


def long_modules(root: Path) -> list[str]:
    read = {name: path.read_text(encoding="utf-8").splitlines() for name, path in files(root).items()}
    counted = {name: len(lines) for name, lines in read.items()}
    said = [
        f"{name}: {lines} lines, the limit is {MODULE_LINES}"
        for name, lines in counted.items()
        if lines > MODULE_LINES
    ]
    total = sum(bool(line.strip()) for name in read if name.startswith(ENGINE) for line in read[name])
    return said + [f"{ENGINE}: {total} lines, the limit is {ENGINE_LINES}"] * (total > ENGINE_LINES)


def long_pages(root: Path) -> list[str]:
    said = []
    for name, (size, lines) in PAGES.items():
        data = (root / name).read_bytes()
        if len(data) > size:
            said.append(f"{name}: {len(data)} bytes, the limit is {size}")
        if lines and data.count(b"\n") > lines:
            said.append(f"{name}: {data.count(chr(10).encode())} lines, the limit is {lines}")
    return said


def shared_names(root: Path) -> list[str]:
    """Two modules, or two classes of a module's top level, with one name."""
    seen: dict[tuple[str, str], str] = {}
    said = []
    for name, path in files(root).items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = [("class", node.name) for node in tree.body if isinstance(node, ast.ClassDef)]
        own = [(kind, word) for kind, word in own if not word.startswith("_")]
        stem = name.rpartition(".")[2]
        if stem not in (COURSE, ENGINE, APPS, "__main__"):
            own.append(("module", stem))
        for key in own:
            if key in seen:
                said.append(f"{key[0]} {key[1]}: in {seen[key]} and in {name}")
            seen[key] = name
    return said


def doors_from_inside(root: Path) -> list[str]:
    """Modules of a room that import their own room's ``__init__``; inside, siblings import each other."""
    known = modules(root)
    return [
        f"{name} imports its own door {name.rpartition('.')[0]}"
        for name, tree in known.items()
        if name.count(".") > 1 and name.rpartition(".")[0] in set(imported(tree, known))
    ]


def hidden_modules(root: Path) -> list[str]:
    """Names in a package's ``__init__`` that hide a module beside it: ``package.name`` would be either."""
    known, said = files(root), []
    for name, path in known.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body if path.name == "__init__.py" else ():
            words = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            if isinstance(node, ast.ImportFrom) and node.module != name:
                words = [alias.asname or alias.name for alias in node.names]
            said += [f"{name}: {word} hides {name}.{word}" for word in words if f"{name}.{word}" in known]
    return said


RULES: tuple[Callable[[Path], list[str]], ...] = (
    cycles,
    later_rooms,
    engine_below,
    notebook_imports,
    long_modules,
    long_pages,
    shared_names,
    doors_from_inside,
    hidden_modules,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_this_repository_keeps_the_rule(rule: Callable[[Path], list[str]]) -> None:
    said = rule(ROOT)
    assert not said, "\n".join(said)


# --- each rule can fail ----------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """A repository that keeps every rule; ``tree(path=text)`` adds or replaces files."""

    def build(**texts: str) -> Path:
        good = {
            "instructlab_utils/__init__.py": "",
            "instructlab_utils/__main__.py": "from instructlab_apps.commands import main",
            "instructlab_apps/__init__.py": "",
            "instructlab_apps/commands.py": "from instructlab_repro.engine import cli",
            "instructlab_utils/losses.py": "class Loss: ...",
            "instructlab_utils/metrics.py": "from instructlab_utils.losses import Loss",
            "instructlab_repro/__init__.py": "",
            "instructlab_repro/strict.py": "from instructlab_utils import losses",
            "instructlab_repro/block.py": "from instructlab_repro import experiments",
            "instructlab_repro/lesson.py": "from instructlab_repro import claims",
            "instructlab_repro/experiments/__init__.py": "from instructlab_repro.experiments.spec import Spec",
            "instructlab_repro/experiments/spec.py": "from instructlab_repro import strict\nclass Spec: ...",
            "instructlab_repro/claims/__init__.py": "import instructlab_repro.experiments",
            "instructlab_repro/engine/__init__.py": "",
            "instructlab_repro/engine/cli.py": "def main():\n    from instructlab_repro import claims",
            "notebooks/source/01_a.py": "# %%\n%matplotlib inline\nfrom instructlab_repro import lesson",
            "notebooks/experiments/source/grid.py": "from instructlab_repro.block import start",
            "notebooks/exercises/01_a.py": "import torch",
            "README.md": "short\n",
            "CONTRIBUTING.md": "short\n",
        }
        for name, text in {**good, **texts}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return build


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_tree_keeps_the_rule(rule: Callable[[Path], list[str]], tree: Callable[..., Path]) -> None:
    assert rule(tree()) == []


LONG = "x = 1\n" * 401


@pytest.mark.parametrize(
    ("rule", "name", "text", "said"),
    [
        (
            cycles,
            "instructlab_repro/experiments/__init__.py",
            "def late():\n    from instructlab_repro import block",
            "instructlab_repro.experiments → instructlab_repro.block → instructlab_repro.experiments",
        ),
        (
            cycles,
            "instructlab_utils/losses.py",
            "def late():\n    from instructlab_utils import metrics",
            "instructlab_utils.losses → instructlab_utils.metrics → instructlab_utils.losses",
        ),
        (
            hidden_modules,
            "instructlab_repro/experiments/__init__.py",
            "from instructlab_repro.experiments.spec import Spec as spec",
            "instructlab_repro.experiments: spec hides instructlab_repro.experiments.spec",
        ),
        (
            later_rooms,
            "instructlab_repro/strict.py",
            "def late():\n    from instructlab_repro.experiments import spec",
            "instructlab_repro.strict imports instructlab_repro.experiments, a later room",
        ),
        (
            later_rooms,
            "instructlab_repro/attic.py",
            "",
            "instructlab_repro.attic stands in no room",
        ),
        (
            engine_below,
            "instructlab_utils/losses.py",
            "def late():\n    import instructlab_repro.strict",
            "instructlab_utils.losses imports instructlab_repro",
        ),
        (
            engine_below,
            "instructlab_repro/block.py",
            "def late():\n    import instructlab_apps.commands",
            "instructlab_repro.block imports instructlab_apps.commands",
        ),
        (
            notebook_imports,
            "notebooks/source/02_b.py",
            "from instructlab_repro import claims",
            "notebooks/source/02_b.py imports instructlab_repro.claims",
        ),
        (
            notebook_imports,
            "notebooks/experiments/source/other.py",
            "from instructlab_repro import lesson",
            "notebooks/experiments/source/other.py imports instructlab_repro.lesson",
        ),
        (
            notebook_imports,
            "notebooks/experiments/source/other.py",
            "def late():\n    import grid",
            "notebooks/experiments/source/other.py imports grid",
        ),
        (long_modules, "instructlab_utils/long.py", LONG, "instructlab_utils.long: 401 lines"),
        (long_pages, "README.md", "x\n" * 221, "README.md: 221 lines, the limit is 220"),
        (long_pages, "CONTRIBUTING.md", "x" * 6145, "CONTRIBUTING.md: 6145 bytes"),
        (
            shared_names,
            "instructlab_repro/engine/losses.py",
            "",
            "module losses: in instructlab_utils.losses and in instructlab_repro.engine.losses",
        ),
        (
            shared_names,
            "instructlab_repro/engine/shelf.py",
            "class Spec: ...",
            "class Spec: in instructlab_repro.",
        ),
        (
            doors_from_inside,
            "instructlab_repro/experiments/spec.py",
            "def late():\n    from instructlab_repro.experiments import names\nclass Spec: ...",
            "instructlab_repro.experiments.spec imports its own door instructlab_repro.experiments",
        ),
    ],
)
def test_a_tree_that_breaks_the_rule_is_told(
    rule: Callable[[Path], list[str]], name: str, text: str, said: str, tree: Callable[..., Path]
) -> None:
    assert any(one.startswith(said) for one in rule(tree(**{name: text})))


def test_the_engine_as_a_whole_has_a_limit(tree: Callable[..., Path]) -> None:
    many = {f"instructlab_repro/engine/part_{i}.py": "x = 1\n" * 400 for i in range(ENGINE_LINES // 400 + 1)}
    assert [one.split(":")[0] for one in long_modules(tree(**many))] == ["instructlab_repro"]
