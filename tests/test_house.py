"""The rules of the house: rooms, directions, sizes, names. A rule that is not tested is a wish."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "camoxpert_nb"
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))

# Each room, the top floor first, and the rooms it may import. `errors` and `__version__` serve all.
ROOMS = {
    "cli": "figures doctor kaggle forecast training evaluation network data runs machine settings "
    "outside",
    "notebook": "figures kaggle training data runs settings outside",
    "figures": "evaluation network data runs settings outside",
    "doctor": "training network machine settings outside",
    "kaggle": "training data runs settings outside",
    "forecast": "training network data machine settings outside",
    "training": "evaluation network data runs machine settings outside",
    "evaluation": "network data runs machine settings outside",
    "network": "runs settings outside",
    "data": "settings outside",
    "runs": "settings outside",
    "machine": "",
    "settings": "outside",
    "outside": "",
}
# Of these rooms only the one file named.
PARTLY = {
    ("training", "evaluation"): "metrics",
    ("notebook", "training"): "schedule",
    ("kaggle", "training"): "budget",
}
FREE_OF_TORCH = {"notebook", "kaggle", "data.selection", "runs", "settings", "outside", "cli"}
SIZES = TESTS / "sizes.txt"  # at most so many lines in each room, and why where it was raised


def module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


MODULES = [module(path) for path in FILES]


def tree(path: Path) -> ast.Module:
    return ast.parse((PACKAGE / path).read_text(encoding="utf-8"))


def own_imports(path: Path) -> set[str]:
    """Return the modules of ours that a file imports, wherever in it, also for its types."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = path.parent.parts[: len(path.parent.parts) - node.level + 1]
            base = [*above, *(node.module.split(".") if node.module else [])]
            names = [".".join([*base, alias.name]) for alias in node.names]
            found |= {name if name in MODULES else ".".join(base) for name in names}
    return found - {""}


def is_allowed(importer: str, imported: str) -> bool:
    here, _, _ = importer.partition(".")
    room, _, file = imported.partition(".")
    if imported == "errors" or here == room or here not in ROOMS:
        return True
    return room in ROOMS[here].split() and file.startswith(PARTLY.get((here, room), ""))


@pytest.mark.parametrize("path", FILES, ids=module)
def test_rooms_import_only_what_stands_below_them(path: Path) -> None:
    wrong = [name for name in own_imports(path) if not is_allowed(module(path), name)]
    assert not wrong, f"{path} imports {wrong}"


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = {module(path): own_imports(path) for path in FILES if path.name != "__init__.py"}
    assert list(TopologicalSorter(graph).static_order())  # CycleError names the circle


def test_every_room_says_in_one_sentence_what_it_is_for() -> None:
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == {*ROOMS}
    for room in ROOMS:
        body = tree(Path(room) / "__init__.py").body
        assert len(body) == 1 and ast.get_docstring(ast.Module(body, [])), room


def test_tests_have_the_same_rooms() -> None:
    files = [path for path in TESTS.glob("*/test_*.py") if path.parent.name != "faults"]
    assert {path.parent.name for path in files} == {*ROOMS}
    for path in files:
        room, name = path.parent.name, path.stem.removeprefix("test_")
        homes = [home for home in MODULES if f"{room}.{name}_".startswith(f"{home}_")]
        assert homes, f"{path}: nothing of that name to test"


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__main__"])
def test_every_module_can_be_imported_first(name: str) -> None:
    importlib.import_module(f"camoxpert_nb.{name}".removesuffix(".__init__"))


def test_notebooks_and_help_start_without_torch() -> None:
    names = [
        name
        for name in MODULES
        if {name, name.partition(".")[0]} & FREE_OF_TORCH and not name.startswith("__")
    ]
    code = "import sys, camoxpert_nb" + "".join(f", camoxpert_nb.{name}" for name in names)
    code += "; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def count_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("path", FILES, ids=module)
def test_files_and_functions_stay_short(path: Path) -> None:
    assert count_lines(PACKAGE / path) <= 350
    for function in functions(path):
        length = (function.end_lineno or 0) - function.lineno + 1
        doc = len((ast.get_docstring(function, clean=False) or "").splitlines())
        assert length - doc <= 45, f"{path}: {function.name} has {length - doc} lines"


def test_no_room_grows_unnoticed() -> None:
    rows = [line.partition("#")[0].split() for line in SIZES.read_text().splitlines()]
    most = {row[0]: int(row[1]) for row in rows if row}
    assert [*most] == [*ROOMS]
    for room, limit in most.items():
        lines = sum(map(count_lines, (PACKAGE / room).glob("*.py")))
        assert lines <= limit, f"{room} has {lines} lines: take something away, or say what for"
        assert lines > limit - 100, f"{room} has {lines} lines: lower its number in {SIZES.name}"


def test_no_drawer_for_everything() -> None:
    stems = {path.stem for path in FILES}
    assert not {"utils", "util", "helpers", "misc", "common"} & stems
    assert not [name for name in stems if name[-3:-1] == "_v"]


@pytest.mark.parametrize("name", ["model", "losses"])
def test_nothing_in_a_forward_pass_waits_for_the_device(name: str) -> None:
    calls = {
        node.func.attr
        for node in ast.walk(tree(Path("network") / f"{name}.py"))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert not calls & {"item", "cpu", "numpy", "tolist", "nonzero"}
