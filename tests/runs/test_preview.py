"""preview.npz comes back as it was written, and any other file is refused with the reason."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camoxpert_nb.errors import InputError
from camoxpert_nb.runs import preview
from camoxpert_nb.runs.preview import read_preview, write_preview

MEND = "Remove it: nothing but pictures is lost, and training writes it anew."


def arrays(**changes: Any) -> dict[str, Any]:
    """Two pictures of 4 x 5."""
    found = {
        "image": np.arange(120, dtype=np.uint8).reshape(2, 4, 5, 3),
        "mask": np.ones((2, 4, 5), np.uint8),
        "probability": np.full((2, 4, 5), 200, np.uint8),
        "gates": np.full((2, 2, 7), 0.5, np.float32),
        "names": np.array(["a", "b"]),
    }
    kept = {**found, **changes}
    return {name: value for name, value in kept.items() if value is not None}


def written(tmp_path: Path, values: dict[str, Any]) -> Path:
    path = tmp_path / "preview.npz"
    with path.open("wb") as file:
        write_preview(file, values)
    return path


@pytest.mark.parametrize("values", [arrays(), arrays(gates=None), {}], ids=["all", "few", "none"])
def test_pictures_come_back(tmp_path: Path, values: dict[str, Any]) -> None:
    found = read_preview(written(tmp_path, values))
    assert found.keys() == values.keys()
    assert all(np.array_equal(found[name], values[name]) for name in values)


NOT = "its {} are not as training writes them"
PICTURES = NOT.format("pictures")
THREE = np.ones((3, 4, 5), np.uint8)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"image": None}, NOT.format("image")),
        ({"names": np.array([["a", "b"]])}, NOT.format("image")),  # of one name: none has as many
        ({"image": np.zeros((2, 4, 5), np.uint8)}, NOT.format("image")),
        ({"mask": THREE}, NOT.format("mask")),
        ({"probability": None}, NOT.format("probability")),
        ({"gates": np.zeros((2, 7), np.float32)}, NOT.format("gates")),
        ({"mask": np.ones((2, 4, 5), bool)}, PICTURES),
        ({"probability": np.zeros((2, 4, 5), np.float32)}, PICTURES),
        ({"image": np.zeros((2, 4, 5, 3), np.int16)}, PICTURES),
        ({"image": np.zeros((2, 4, 5, 4), np.uint8)}, PICTURES),
        ({"mask": np.ones((2, 5, 4), np.uint8)}, PICTURES),
        ({"probability": np.zeros((2, 4, 6), np.uint8)}, PICTURES),
        ({"image": np.zeros((2, 3, 5, 3), np.uint8)}, PICTURES),
        ({"names": np.array([1, 2])}, "its names are no texts"),
        ({"names": np.array([b"a", b"b"])}, "its names are no texts"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    path = written(tmp_path, arrays(**change))
    with pytest.raises(InputError) as error:
        read_preview(path)
    assert str(error.value) == f"{path}: cannot be read as the run's pictures ({why}). {MEND}"


def test_pictures_without_a_place_are_refused(tmp_path: Path) -> None:
    flat = {name: np.zeros((2, 0, 5), np.uint8) for name in ("mask", "probability")}
    path = written(tmp_path, arrays(image=np.zeros((2, 0, 5, 3), np.uint8), **flat))
    with pytest.raises(InputError, match=PICTURES):
        read_preview(path)


def test_a_file_that_would_fill_the_memory_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, arrays())
    with zipfile.ZipFile(path) as archive:
        held = sum(each.file_size for each in archive.infolist())
    monkeypatch.setattr(preview, "MOST", held)
    assert read_preview(path)["names"].tolist() == ["a", "b"]
    monkeypatch.setattr(preview, "MOST", held - 1)
    with pytest.raises(InputError, match=r"\(it would swell to 0\.0 GiB\)"):
        read_preview(path)


def test_code_in_it_is_not_run_and_a_missing_file_is_missing(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, names=np.array([{"any": "object"}], object))
    (tmp_path / "preview.npz").write_bytes(file.getvalue())
    with pytest.raises(InputError, match="cannot be read as the run's pictures"):
        read_preview(tmp_path / "preview.npz")
    with pytest.raises(FileNotFoundError):
        read_preview(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match=r"text\.npz: cannot be read .*not a zip file"):
        read_preview(tmp_path / "text.npz")
