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
    0: "config layouts errors version images",
    1: "model losses augment synthetic optim devices metrics run plots",
    2: "dataset audit train evaluate limits",
    3: "recipe resume fit banner judge console",
    5: "cli __init__ __main__",
}
LAYER = {name: layer for layer, names in LAYERS.items() for name in names.split()}
# Within layer 3 the order is fixed too: each may use those before it.
ORDER_OF_3 = ["recipe", "resume", "fit", "banner", "judge", "console"]
FREE_OF_TORCH = ["config", "layouts", "errors", "version", "images", "run", "cli", "console"]


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
        if LAYER[name] == LAYER[imported] == 3:
            lower = ORDER_OF_3.index(imported) < ORDER_OF_3.index(name)
        same_start = LAYER[name] == 0 and imported == "errors"
        assert lower or same_start or LAYER[name] == 5, f"{name} imports {imported}"
        if LAYER[name] == 1:
            assert imported in ("errors", "images"), f"{name} is a leaf but imports {imported}"


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
    assert lines <= 6000


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
