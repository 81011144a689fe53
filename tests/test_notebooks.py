"""The form of the notebooks; that they run is nbval's part (`make notebooks`)."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import nbformat
import pytest
from screenshots import TELLING

FOLDER = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [
    "00_start_here",
    "01_gpu_check",
    "02_configure",
    "03_train",
    "04_evaluate",
    "05_visualize",
    "06_python_api",
]
LOGIC = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Lambda,
    ast.For,
    ast.While,
    ast.If,
    ast.Try,
    ast.With,
)
# In 06 a user's own code is what is shown: a loss and a callback, nothing else may be defined.
OWN_CODE = {"06_python_api": {"dice_and_entropy", "watch"}}
OWN_IMPORTS = {"06_python_api": {"torch"}}
KNOWN = {"camoxpert_nb", "pandas", "IPython", "pathlib"}


def cells(path: Path, kind: str) -> list[Any]:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


def logic(tree: ast.Module) -> list[str]:
    """Return what decides or defines in a cell: a function's name, or the kind of the rest.

    What is inside a function is the function's.
    """
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    found = [node for node in ast.walk(tree) if isinstance(node, LOGIC) and id(node) not in inside]
    return [*(each.name for each in functions), *(type(node).__name__ for node in found)]


def is_parameters(cell: Any) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


def test_the_story_is_complete_and_in_order() -> None:
    assert [path.stem for path in PATHS] == NAMES


def test_the_cells_that_are_pictured_are_there() -> None:
    assert [*TELLING] == NAMES
    for path in PATHS:
        sources = [cell.source for cell in cells(path, "code")]
        for piece in TELLING[path.stem]:
            assert any(piece in source for source in sources), piece


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
class TestForm:
    def test_it_is_committed_without_output_and_widgets(self, path: Path) -> None:
        notebook = nbformat.read(path, 4)
        nbformat.validate(notebook)
        assert set(notebook.metadata) == {"kernelspec", "language_info"}
        assert notebook.metadata.kernelspec.name == "python3"
        assert notebook.metadata.language_info.file_extension == ".py"  # `nbconvert --to script`
        for cell in cells(path, "code"):
            assert cell.outputs == [] and cell.execution_count is None
            assert set(cell.metadata) <= {"tags"}
        ids = [cell.id for cell in notebook.cells]
        assert len(set(ids)) == len(ids)

    def test_it_is_a_short_story_with_a_next_step(self, path: Path) -> None:
        told, done = cells(path, "markdown"), cells(path, "code")
        assert 15 <= len(told) + len(done) <= 27
        assert told[0].source.startswith(f"# {path.stem[:2]} ")
        number = NAMES.index(path.stem)
        following = NAMES[number + 1] if number + 1 < len(NAMES) else "02_configure"
        ending = nbformat.read(path, 4).cells[-1]
        assert ending.cell_type == "markdown" and "## Next" in ending.source
        assert f"`{following}`" in ending.source

    def test_one_cell_of_literals_takes_the_parameters(self, path: Path) -> None:
        (cell,) = (cell for cell in cells(path, "code") if is_parameters(cell))
        lines = ast.parse(cell.source).body
        assert all(isinstance(line, ast.Assign) for line in lines)
        assert all(isinstance(line.value, ast.Constant) for line in lines)  # type: ignore[attr-defined]
        assert all("#" in line for line in cell.source.splitlines())

    def test_every_code_cell_is_short_plain_and_shows_something(self, path: Path) -> None:
        for cell in cells(path, "code"):
            tree = ast.parse(cell.source)
            assert len(cell.source.splitlines()) <= 14
            assert max(map(len, cell.source.splitlines())) <= 100
            assert not set(logic(tree)) - OWN_CODE.get(path.stem, set()), cell.source
            imports = all(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body)
            shows = isinstance(tree.body[-1], ast.Expr)
            assert is_parameters(cell) or imports or shows, cell.source

    def test_it_imports_the_kit_and_little_else(self, path: Path) -> None:
        for cell in cells(path, "code"):
            for node in ast.walk(ast.parse(cell.source)):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                known = KNOWN | OWN_IMPORTS.get(path.stem, set())
                assert {name.partition(".")[0] for name in names} <= known
                assert not any("._" in name for name in names)

    def test_its_text_is_short_paragraphs(self, path: Path) -> None:
        for cell in cells(path, "markdown"):
            assert len(cell.source.splitlines()) <= 16
            assert max(map(len, cell.source.splitlines())) <= 120
