"""The rules of the house: layers, sizes, names. A rule that is not tested is a wish."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "camoxpert_nb"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))

# Imports point down only. Layer 0 needs no torch; layer 1 knows only layer 0's errors and images.
LAYERS = {
    0: "errors presets config layouts version images schedule palette bootstrap kaggle_rules",
    1: "model losses augment synthetic optim devices ranks metrics run plots curves strip "
    "scores performance machine gauge",
    2: "dataset audit state validate rehearsal train evaluate limits process watch pictures "
    "ranking export published compare checkup",
    3: "plan clock session outlook fields recipe tryout doctor resume summary fit banner judge "
    "report inside explore console",
    4: "dashboard picker launch gallery bundle",
    5: "cli_judge cli_train cli_machine cli __init__ __main__",
}
LAYER = {name: layer for layer, names in LAYERS.items() for name in names.split()}
# From layer 2 on the order within a layer is fixed too: each may use those before it.
ORDERED = [name for layer in (2, 3, 4) for name in LAYERS[layer].split()]
FREE_OF_TORCH = [
    *LAYERS[0].split(),
    *LAYERS[4].split(),
    "plan",
    "clock",
    "session",
    "run",
    "cli",
    "console",
]
FREE_OF_TORCH += ["curves", "strip", "process", "watch"]


def tree(name: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))


def own_imports(name: str) -> set[str]:
    nodes = (node for node in ast.walk(tree(name)) if isinstance(node, ast.ImportFrom))
    return {node.module or alias.name for node in nodes if node.level for alias in node.names}


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down_only(name: str) -> None:
    assert name in LAYER, f"say in LAYERS where {name} belongs"
    for imported in own_imports(name):
        lower = LAYER[imported] < LAYER[name]
        if LAYER[name] == LAYER[imported] in (2, 3, 4):
            lower = ORDERED.index(imported) < ORDERED.index(name)
        same_start = LAYER[name] == 0 and imported in ("errors", "presets")
        assert lower or same_start or LAYER[name] == 5, f"{name} imports {imported}"
        if LAYER[name] == 1:
            leaf = imported in ("errors", "images", "schedule", "palette")
            assert leaf, f"{name} is a leaf but imports {imported}"


def test_the_package_imports_without_torch() -> None:
    code = "import sys, camoxpert_nb"
    code += "".join(f", camoxpert_nb.{name}" for name in FREE_OF_TORCH)
    code += "; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def functions(name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_stay_short(name: str) -> None:
    assert len((PACKAGE / f"{name}.py").read_text().splitlines()) <= 350
    for function in functions(name):
        length = (function.end_lineno or 0) - function.lineno + 1
        doc = len((ast.get_docstring(function, clean=False) or "").splitlines())
        assert length - doc <= 45, f"{name}.{function.name} has {length - doc} lines"


def test_the_package_stays_thin() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in PACKAGE.glob("*.py"))
    assert lines <= 13_250  # notebooks, Kaggle, several machines: no more without taking away


def test_no_drawer_for_everything() -> None:
    assert not {"utils", "util", "helpers", "misc", "common"} & set(MODULES)
    assert not [name for name in MODULES if name[-3:-1] == "_v"]


@pytest.mark.parametrize("name", ["model", "losses"])
def test_nothing_in_a_forward_pass_waits_for_the_device(name: str) -> None:
    calls = {
        node.func.attr
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert not calls & {"item", "cpu", "numpy", "tolist", "nonzero"}
