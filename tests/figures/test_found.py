"""`predict` in Python: what it finds, files as the command writes them, what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camoxpert_nb import find_datasets, predict
from camoxpert_nb.cli.main import main
from camoxpert_nb.errors import InputError
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config
from camoxpert_nb.training.fit import fit


@pytest.fixture(scope="module")
def run(camouflage: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("found") / "run"
    places = {"dataset_path": str(camouflage), "cache_dir": str(cache)}
    return fit(make_config("tiny", checkpoint_dir=str(folder), device="cpu", **places))


@pytest.fixture
def photos(camouflage: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for place, pair in enumerate(find_datasets(camouflage)[0].test[:3]):
        Image.open(pair.image).resize((70, 50)).save(folder / f"{place}.png")
    return folder


def test_a_folder_a_file_and_a_list_are_predicted(run: Run, photos: Path) -> None:
    found = predict(run, photos, device="cpu")
    assert [each.name for each in found] == ["0", "1", "2"]
    one = predict(str(run.folder), str(photos / "1.png"), device="cpu")[0]
    assert one.probability.shape == one.mask.shape == (50, 70)
    assert one.probability.dtype == np.float32 and one.probability.min() >= 0
    np.testing.assert_array_equal(one.probability, found[1].probability)
    assert one.share == one.mask.mean() and one.output is None
    several = predict(run, [photos / "2.png", str(photos / "0.png")], device="cpu")
    assert [each.path.name for each in several] == ["2.png", "0.png"]
    assert repr(one) == f"1.png: {100 * one.share:.1f} % of the image found"
    for picture in (one, found, several):
        assert picture._repr_png_().startswith(b"\x89PNG")


def test_maps_are_written_as_the_command_writes_them(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    ours, theirs = tmp_path / "python", tmp_path / "command"
    found = predict(run, photos, ours, device="cpu")
    words = f"predict --run {run.folder} --input {photos} --output {theirs} --device cpu"
    assert main(words.split()) == 0
    for each in found:
        assert each.output is not None
        assert each.output.read_bytes() == (theirs / each.output.name).read_bytes()
        assert "written to" in repr(each)


def test_what_cannot_be_predicted_is_told(run: Run, photos: Path) -> None:
    with pytest.raises(InputError, match=r"ndarray, expected files.*Image\.fromarray"):
        predict(run, np.zeros((8, 8, 3), np.uint8), device="cpu")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="list that holds a int"):
        predict(run, [3], device="cpu")  # type: ignore[list-item]
    with pytest.raises(InputError, match="no such file or folder"):
        predict(run, photos / "none.png", device="cpu")
    with pytest.raises(InputError, match="is an image to predict"):
        predict(run, photos, photos, device="cpu")
    with pytest.raises(InputError, match="one name"):
        again = photos.parent / "again"
        again.mkdir()
        (again / "0.png").write_bytes((photos / "0.png").read_bytes())
        predict(run, [photos / "0.png", again / "0.png"], photos.parent / "out", device="cpu")
