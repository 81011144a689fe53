from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from camoxpert_nb.errors import InputError
from camoxpert_nb.kaggle.bootstrap import files_of
from camoxpert_nb.kaggle.carried import PACKAGE, READY, as_text, differences, renew, renewed
from camoxpert_nb.kaggle.rules import LARGEST

FOLDER = PACKAGE.parent / "kaggle"
PATHS = [FOLDER / f"{stem}.ipynb" for stem in READY]
STALE = "is not current: run `make kaggle-notebooks` (camoxpert kaggle renew) and commit it"


def by_id(notebook: Any) -> dict[str, Any]:
    return {cell["id"]: cell for cell in notebook["cells"]}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
class TestReady:
    def test_building_it_again_gives_the_same_bytes(self, path: Path) -> None:
        current = path.read_bytes().decode() == as_text(renewed(path))
        assert current, f"{path.name} {STALE}"

    def test_it_is_whole_bare_and_small_enough_for_kaggle(self, path: Path) -> None:
        notebook = nbformat.read(path, 4)
        nbformat.validate(notebook)
        assert path.stat().st_size < 0.8 * LARGEST
        assert set(notebook.metadata) == {"kernelspec", "language_info"}
        ids = [cell.id for cell in notebook.cells]
        assert len(set(ids)) == len(ids) <= 23
        for cell in notebook.cells:
            if cell.cell_type == "code":
                assert cell.outputs == [] and cell.execution_count is None
                assert not cell.source.startswith("%%kit") or files_of(cell.source)
                if not cell.source.startswith("%%"):
                    compile(cell.source, cell.id, "exec")

    def test_settings_come_first_and_the_code_is_folded(self, path: Path) -> None:
        cells = nbformat.read(path, 4).cells
        code = [cell for cell in cells if cell.cell_type == "code"]
        assert code[0].id == "settings" and code[0].metadata.tags == ["parameters"]
        assert all("  # " in line for line in code[0].source.splitlines())
        for cell in code:
            folded = cell.metadata.get("_kg_hide-input", False)
            assert folded == cell.id.startswith("kit")
            assert folded or len(cell.source.splitlines()) <= 16

    def test_its_code_is_the_package_file_for_file(self, path: Path) -> None:
        assert differences(path) == []

    def test_what_it_shows_as_code_is_what_the_file_holds(self, path: Path) -> None:
        cells = by_id(nbformat.read(path, 4))
        for room, stems in READY[path.stem].items():
            shown = files_of(cells[f"kit-{room}"].source)
            assert [*shown] == [f"camoxpert_nb/{room}/{stem}.py" for stem in stems]
            for name, text in shown.items():
                assert text == (PACKAGE.parent / name).read_text(encoding="utf-8")


def tampered(path: Path, name: str, old: str, new: str) -> Path:
    notebook = json.loads((FOLDER / "camoxpert_train.ipynb").read_text(encoding="utf-8"))
    cell = by_id(notebook)[name]
    source = "".join(cell["source"])
    assert old in source
    cell["source"] = source.replace(old, new, 1)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


def test_another_line_in_a_cell_is_named(tmp_path: Path) -> None:
    path = tampered(tmp_path / "a.ipynb", "kit-network", "import", "import sys; import")
    (said,) = differences(path)
    assert said.endswith(": other than here") and said.startswith("camoxpert_nb/network/")


def test_a_file_more_and_a_file_less_are_named(tmp_path: Path) -> None:
    old = "# ==== camoxpert_nb/network/losses.py"
    path = tampered(tmp_path / "a.ipynb", "kit-network", old, "# ==== camoxpert_nb/network/evil.py")
    assert differences(path) == [
        "camoxpert_nb/network/evil.py: only in the notebook",
        "camoxpert_nb/network/losses.py: not in the notebook",
    ]


def test_a_packed_part_that_is_cut_is_said(tmp_path: Path) -> None:
    path = tampered(
        tmp_path / "a.ipynb", "kit-rest", '    "camoxpert_nb": """\nQlp', '"x": """\nQlp'
    )
    assert any("not in the notebook" in line for line in differences(path))
    path = tampered(tmp_path / "b.ipynb", "kit-rest", '"cli": """\nQlpoOTF', '"cli": """\nQQQQQQQ')
    with pytest.raises(InputError, match="packed part cannot be read"):
        differences(path)


def test_a_notebook_without_code_is_said() -> None:
    with pytest.raises(InputError, match="carries no code"):
        differences(PACKAGE.parent / "notebooks" / "03_train.ipynb")


def test_texts_and_settings_written_by_hand_stay(tmp_path: Path) -> None:
    path = tmp_path / "camoxpert_train.ipynb"
    notebook = json.loads(PATHS[0].read_text(encoding="utf-8"))
    changed = copy.deepcopy(notebook)
    cells = by_id(changed)
    cells["about"]["source"] = ["# Mine\n", "é"]
    cells["look"] |= {"execution_count": 3, "outputs": [{"output_type": "stream"}]}
    del changed["cells"][[*cells].index("kit-rest")]
    changed["metadata"]["widgets"] = {}
    path.write_text(json.dumps(changed), encoding="utf-8")
    assert renew(path) and not renew(path)
    expected = by_id(notebook)
    expected["about"]["source"] = ["# Mine\n", "é"]
    assert by_id(json.loads(path.read_text(encoding="utf-8"))) == expected


def test_a_file_that_is_none_of_them_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected one of camoxpert_train"):
        renewed(tmp_path / "other.ipynb")
    path = tmp_path / "camoxpert_train.ipynb"
    path.write_text('{"cells": [], "metadata": {}}')
    with pytest.raises(InputError, match="one cell with the id 'kit', found 0"):
        renewed(path)


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-"], input=code, capture_output=True, text=True, cwd=folder, check=False
    )
    return done.stdout + done.stderr


def as_script(**edits: str) -> str:
    """Return the cells that carry the package as a script: what a kernel would do with them."""
    code = []
    for name, cell in by_id(nbformat.read(PATHS[0], 4)).items():
        source = (
            cell["source"].replace(*edits[name].split(" -> ")) if name in edits else cell["source"]
        )
        if source.startswith("%%kit"):
            line, _, body = source.removeprefix("%%kit").partition("\n")
            code.append(f"keep_code({line!r}, {body!r})")
        elif name.startswith("kit"):
            code.append(source.partition("from IPython")[0])
    return "\n".join(code)


def test_code_that_was_changed_in_a_cell_is_used_and_said(tmp_path: Path) -> None:
    said = run(as_script(), tmp_path)
    assert "NOTE" not in said and f"in {tmp_path / 'kit'}" in said
    said = run(
        as_script(**{"kit-settings": "from __future__ -> # mine\nfrom __future__"}), tmp_path
    )
    assert "NOTE: code in the cells above was changed" in said
    text = (tmp_path / "kit" / "camoxpert_nb" / "settings" / "config.py").read_text()
    assert "# mine\n" in text


def test_a_cell_that_was_not_run_is_named_and_strangers_go(tmp_path: Path) -> None:
    script = as_script()
    lines = [line for line in script.splitlines() if not line.startswith("keep_code(' network'")]
    said = run("\n".join(lines), tmp_path)
    assert "`%%kit network` above was not run" in said
    stranger = tmp_path / "kit" / "camoxpert_nb" / "old.py"
    stranger.write_text("")
    assert "NOTE" not in run(script, tmp_path)
    assert not stranger.exists()
