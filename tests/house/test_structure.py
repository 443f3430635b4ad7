"""The laws of the house that a program can check: where imports may go, no links, few files at the top."""

from __future__ import annotations

import ast
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from support.paths import ROOT

PACKAGE = ROOT / "ebp_cuda"
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="needs the repository")

FLOORS = (
    ("errors", "extras", "files", "aliases"),
    ("vocabulary",),
    ("graph",),
    ("interop",),
    ("ops",),
    ("linear",),
    ("rules",),
    ("targets",),
    ("questions",),
    ("engine",),
    ("importers",),
    ("net", "functional", "jit"),
    ("images",),
    ("models",),
    ("places", "attribution"),
    ("api",),
    ("export",),
    ("compat",),
    ("catalogue",),
    ("batch",),
    ("explanation",),
    ("eval",),
    ("report", "serve"),
    ("cli",),
    ("__main__",),
)
"""The rooms, from the ground up: a module imports from its own floor and from those above it in this list."""


@cache
def floor_of(room: str) -> int:
    for number, rooms in enumerate(FLOORS):
        if room in rooms:
            return number
    raise AssertionError(f"the room {room} stands on no floor: add it to FLOORS and to CONTRIBUTING.md")


def modules() -> dict[str, Path]:
    """Every module below ebp_cuda by its dotted name without the package's."""
    paths = sorted(PACKAGE.rglob("*.py"))
    names = (path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".") for path in paths)
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def imports_of(name: str, path: Path, *, at_load: bool = False) -> list[str]:
    """The dotted names that a module imports of this package; at_load: only those that run when it is loaded."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_load else ast.walk(tree)
    imported: list[str] = []
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            start = ".".join([*base, *([node.module] if node.module else [])])
            imported += [f"{start}.{alias.name}".strip(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ebp_cuda":
            start = (node.module or "").partition(".")[2]
            imported += [f"{start}.{alias.name}".strip(".") for alias in node.names]
        elif isinstance(node, ast.Import):
            imported += [alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("ebp_cuda.")]
    return imported


def test_imports_go_down_only() -> None:
    upward = []
    for name, path in modules().items():
        room = name.split(".")[0]
        if room == "__init__":
            continue
        for imported in imports_of(name, path):
            target = imported.split(".")[0]
            if target in {one for rooms in FLOORS for one in rooms} and floor_of(target) > floor_of(room):
                upward.append(f"{name} imports {imported}")
    assert upward == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = modules()

    def module_of(imported: str) -> str | None:
        return imported if imported in known else imported.rpartition(".")[0] or None

    arrows = {
        name: {target for one in imports_of(name, path, at_load=True) if (target := module_of(one)) in known} - {name}
        for name, path in known.items()
        if name != "__init__"
    }
    state: dict[str, int] = {}

    def visit(name: str, way: list[str]) -> None:
        if state.get(name) == 2:
            return
        assert state.get(name) != 1, " -> ".join([*way[way.index(name) :], name])
        state[name] = 1
        for target in sorted(arrows.get(name, ())):
            if not name.startswith(f"{target}."):  # a package's __init__ may gather its modules
                visit(target, [*way, name])
        state[name] = 2

    for name in arrows:
        visit(name, [])


def test_few_modules_lie_at_the_root() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 15


def test_no_link_is_tracked() -> None:
    listing = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True).stdout
    assert not [line for line in listing.splitlines() if line.startswith("120000")]


def test_files_stay_readable_in_one_sitting() -> None:
    sources = [*PACKAGE.rglob("*.py"), *(ROOT / "tools").glob("*.py"), *(ROOT / "csrc").rglob("*.*")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources}
    assert {name: lines for name, lines in lengths.items() if lines > 350} == {}


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports them by it: of two, it reads one."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
