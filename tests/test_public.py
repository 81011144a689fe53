"""The names that notebooks and scripts may use: all are there, and nothing else is needed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import camoxpert_nb

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_the_names_are_sorted_complete_and_there() -> None:
    assert camoxpert_nb.__all__ == sorted(set(camoxpert_nb.__all__))
    assert dir(camoxpert_nb) == camoxpert_nb.__all__
    for name in camoxpert_nb.__all__:
        assert getattr(camoxpert_nb, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = camoxpert_nb.nothing


def test_every_name_says_what_it_is() -> None:
    for name in camoxpert_nb.__all__:
        value = getattr(camoxpert_nb, name)
        assert not callable(value) or value.__doc__, name


def test_no_name_is_hidden_by_a_room_of_the_same_name() -> None:
    rooms = {path.parent.name for path in (ROOT / "camoxpert_nb").glob("*/__init__.py")}
    assert not rooms & set(camoxpert_nb.__all__)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, camoxpert_nb; sys.exit(len({'torch', 'numpy', 'pandas'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def imports(code: str) -> list[ast.ImportFrom | ast.Import]:
    tree = ast.parse(code)
    return [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_us_in_one_line(path: Path) -> None:
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    ours = [
        node
        for cell in cells
        for node in imports(cell)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("camoxpert_nb")
    ]
    assert [node.module for node in ours] == ["camoxpert_nb"]
    assert {alias.name for alias in ours[0].names} <= set(camoxpert_nb.__all__)


def test_documents_import_only_public_names() -> None:
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("kaggle/*.md")):
        for line in re.findall(
            r"from camoxpert_nb\S* import (?!\.\.\.).*", path.read_text(encoding="utf-8")
        ):
            (node,) = imports(line)
            assert isinstance(node, ast.ImportFrom) and node.module == "camoxpert_nb", line
            assert {alias.name for alias in node.names} <= set(camoxpert_nb.__all__), line
