"""What a form shows of a data set: counts as training will have them, and doubtful masks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from camoxpert_nb.data import counting
from camoxpert_nb.data.counting import count_images, forget_images
from camoxpert_nb.data.selection import build_data
from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import Config


@pytest.fixture
def own(tiny: Config, camouflage: Path, tmp_path: Path) -> Config:
    forget_images()
    root = shutil.copytree(camouflage, tmp_path / "own")
    return tiny.replace(dataset_path=str(root), cache_dir=str(tmp_path / "cache"))


def masks(config: Config) -> list[Path]:
    return sorted((Path(config.dataset_path) / "Train" / "GT_Object").glob("*-CAM-*"))


def test_the_count_is_that_of_the_training(own: Config) -> None:
    images = sorted((Path(own.dataset_path) / "Train" / "Image").glob("*-CAM-*"))
    for number, path in enumerate(images[:5]):
        for source in (path, masks(own)[number]):
            shutil.copyfile(source, source.with_name(f"again-{source.name}"))
    counted, data = count_images(own), build_data(own)
    assert (counted.train, counted.validation) == (len(data.train), len(data.validation))
    assert counted.left_out["copies of other training images"] == 5


def test_many_images_are_counted_roughly_until_they_were_looked_at(
    own: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "AT_ONCE", 0)
    assert not count_images(own).exact
    build_data(own)
    assert count_images(own).exact


def test_doubtful_masks_are_said_with_their_flag(own: Config) -> None:
    assert count_images(own).doubts == ()
    for path in masks(own):
        with Image.open(path) as image:
            ImageOps.invert(image.convert("L")).save(path)
    forget_images()
    assert "--mask-invert" in str(count_images(own))
    assert count_images(own.replace(mask_invert=True)).doubts == ()


def test_masks_that_teach_nothing_are_refused(own: Config) -> None:
    for path in masks(own):
        with Image.open(path) as image:
            Image.fromarray((np.asarray(image.convert("L")) > 128).astype(np.uint8) * 3).save(path)
    with pytest.raises(InputError, match=r"Nothing can be learned.*--mask-object nonzero"):
        count_images(own)
    assert count_images(own.replace(mask_object="nonzero")).train


def test_what_is_not_used_is_said(own: Config) -> None:
    (Path(own.dataset_path) / "other").mkdir()
    shutil.copyfile(masks(own)[0], Path(own.dataset_path) / "other" / "x.png")
    assert "other: 1 images whose masks were not found" in str(count_images(own))
