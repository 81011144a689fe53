from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation.predict import Predictor
from camoxpert_nb.figures import found_files as module
from camoxpert_nb.figures.found_files import distinct_names, predict_pictures


class Brightness(nn.Module):
    """Finds what is bright: logits are the first colour, stretched to -8...8."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": 16 * images[:, :1] - 8}


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "open_predictor", lambda *_: Predictor(Brightness(), 32, "cpu", 3))


def picture(path: Path, bright: float, size: tuple[int, int] = (40, 20)) -> Path:
    """Write a picture whose left part, a share of it, is white."""
    array = np.zeros((size[1], size[0], 3), np.uint8)
    array[:, : round(bright * size[0])] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def test_map_overlay_and_row_of_each_picture(tmp_path: Path) -> None:
    paths = [picture(tmp_path / "in" / f"{n}.png", n / 4, (40, 20 + n)) for n in range(5)]
    found = predict_pictures("run", paths, tmp_path / "maps")
    assert found.table["name"].tolist() == [*"01234"]
    assert found.table["found"].tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.03)
    assert found.table["height"].tolist() == [20, 21, 22, 23, 24]
    assert found.table["highest"][0] < 0.01 and found.table["highest"][1] > 0.99
    assert "in 1 of them nothing is above probability 0.5" in str(found)
    for path, row in zip(paths, found.table.itertuples(), strict=True):
        map_ = np.asarray(Image.open(tmp_path / "maps" / f"{row.name}.png"))
        tinted = np.asarray(Image.open(tmp_path / "maps" / "overlays" / f"{row.name}.png"))
        original = np.asarray(Image.open(path))
        assert map_.shape == original.shape[:2] and map_.dtype == np.uint8
        changed = (tinted != original).any(2)
        assert changed[map_ > 140].all() and not changed[map_ < 20].any()
        assert (map_ > 127).mean() == pytest.approx(row.found, abs=0.03)


def test_a_higher_threshold_finds_less(tmp_path: Path) -> None:
    grey = Image.new("RGB", (16, 16), (140, 140, 140))  # probability 0.69
    grey.save(tmp_path / "a.png")
    for threshold, share in ((0.5, 1.0), (0.9, 0.0)):
        found = predict_pictures("r", [tmp_path / "a.png"], tmp_path / "m", threshold=threshold)
        assert found.table["found"][0] == share


def test_files_to_keep(tmp_path: Path) -> None:
    found = predict_pictures("run", [picture(tmp_path / "a.jpg", 0.5)], tmp_path / "maps")
    table = pd.read_csv(found.write_csv())
    assert table["picture"][0] == str(tmp_path / "a.jpg")
    with zipfile.ZipFile(found.write_zip()) as files:
        assert files.testzip() is None
        assert sorted(files.namelist()) == ["maps/a.png", "maps/found.csv", "maps/overlays/a.png"]
    assert found.write_zip() == tmp_path / "maps.zip"


def test_names_that_are_no_text_are_written_with_their_bytes_spelled(tmp_path: Path) -> None:
    """Linux takes any bytes as a name; a path may come as text, as from a list or a table."""
    try:
        path = picture(tmp_path / "\udcff a.png", 0.5)
    except OSError:
        pytest.skip("this file system takes no such name")
    found = predict_pictures("run", [str(path), path], tmp_path / "maps")
    assert found.table["name"].tolist() == ["\udcff a"]
    assert pd.read_csv(found.write_csv())["name"].tolist() == ["\\udcff a"]
    with zipfile.ZipFile(found.write_zip()) as files:
        spelled = ["maps/\\udcff a.png", "maps/found.csv", "maps/overlays/\\udcff a.png"]
        assert sorted(files.namelist()) == sorted(spelled)


def test_what_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    good, bad = picture(tmp_path / "a.png", 0.5), tmp_path / "b.jpg"
    bad.write_text("no picture")
    found = predict_pictures("run", [bad, good], tmp_path / "maps")
    assert found.table["name"].tolist() == ["a"] and "b.jpg" in str(found)
    with pytest.raises(InputError, match=r"none of 1 pictures can be read: .*b\.jpg"):
        predict_pictures("run", [bad], tmp_path / "maps")


@pytest.mark.parametrize("threshold", [0, 1, -1, 50, True, float("nan")])
def test_a_threshold_that_is_none_is_refused(tmp_path: Path, threshold: float) -> None:
    with pytest.raises(InputError, match="expected a number between 0 and 1"):
        predict_pictures("run", [], tmp_path, threshold=threshold)


def test_a_picture_is_never_replaced_by_its_map(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 0.5)
    before = path.read_bytes()
    with pytest.raises(InputError, match="1 files that this kit did not write"):
        predict_pictures("run", [path], tmp_path)
    assert path.read_bytes() == before
    for _ in range(2):  # its own maps it does replace
        predict_pictures("run", [path], tmp_path / "maps")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/a.jpg", "x/b.jpg"], ["a", "b"]),
        (["x/a.jpg", "y/a.jpg", "y/b.jpg"], ["x_a", "y_a", "b"]),
        (["x/i/a.jpg", "y/i/a.jpg"], ["x_i_a", "y_i_a"]),
        (["x/A.jpg", "y/a.jpg"], ["x_A", "y_a"]),  # one file where case does not count
        (["x/a.jpg", "x/a.png"], ["x_a_jpg", "x_a_png"]),
        (["/a.jpg", "/b/a.jpg"], ["a", "b_a"]),
    ],
)
def test_names_tell_pictures_apart(paths: Sequence[str], names: Sequence[str]) -> None:
    found = distinct_names([Path(path) for path in paths])
    assert len({name.casefold() for name in found}) == len(found)
    assert found == names


def headings(figure: Figure) -> list[str]:
    return [text for ax in figure.axes if (text := ax.get_title(loc="left"))]


def test_the_gallery_shows_some_evenly_and_its_order(tmp_path: Path) -> None:
    paths = [picture(tmp_path / "in" / f"{n}.png", n / 9) for n in range(10)]
    found = predict_pictures("run", paths, tmp_path / "maps")
    titles = headings(found.show(4))
    assert titles[::2] == ["0", "3", "6", "9"]
    titles = headings(found.show(1, by="found"))
    assert titles[0] == "0"
    with pytest.raises(InputError, match="no column 'iou'"):
        found.show(by="iou")
