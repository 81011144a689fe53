"""What a form shows of a data set: counts as training will have them, and doubtful masks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from camoxpert_nb.data import counting
from camoxpert_nb.data.counting import Images, count_images, forget_images
from camoxpert_nb.data.pairs import Pair, is_noncam
from camoxpert_nb.data.selection import build_data
from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import Config, make_config


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


def test_what_is_counted_is_told_in_rows() -> None:
    """30 train and 6 validate, 4 of these without an object."""
    found = Images("x (y)", 30, 6, 4, {"T": 8}, {"copies": 2}, doubts=["d"], notes=["n"])
    assert found.rows() == [
        ("from", "x (y)"),
        ("train on", "30 images"),
        ("validate on", "6 held out of training"),
        ("of these", "32 CAM (an object is there), 4 NonCAM (none is)"),
        ("test sets", "T 8"),
        ("left out", "2 copies"),
        (
            "look at",
            "6 images validate: which epoch is the best is mostly chance. Hold out more "
            "(--val-share 0.2), or add images",
        ),
        ("look at", "d"),
        ("look at", "n"),
    ]
    assert replace(found, validation=8).rows()[6] == ("look at", "d")
    assert replace(found, exact=False).rows()[1] == ("train on", "about 30 images")


def test_images_without_an_object_are_counted_on_both_sides(own: Config) -> None:
    config = own.replace(noncam=True, val_share=0.5)
    counted, data = count_images(config), build_data(config)
    sides = [sum(map(is_noncam, side)) for side in (data.train, data.validation)]
    assert all(sides) and counted.noncam == sum(sides)
    without = count_images(own)
    assert without.noncam == 0 and without.left_out["NonCAM training images"] == sum(sides)


@pytest.mark.parametrize("noncam", [False, True])
def test_what_is_still_to_be_generated_is_counted_as_it_will_be(
    monkeypatch: pytest.MonkeyPatch, noncam: bool
) -> None:
    """Of 40 and 20 a fifth shows nothing; a quarter of those that are used validates."""
    monkeypatch.setattr(counting, "IMAGES", {"train": 40, "test": 20})
    monkeypatch.setattr(counting, "NONCAM", 0.2)
    found = count_images(make_config("tiny", noncam=noncam, val_share=0.25))
    assert (found.train, found.validation) == ((30, 10) if noncam else (24, 8))
    assert (found.noncam, found.test) == (
        (8, {"generated": 20}) if noncam else (0, {"generated": 16})
    )
    gone = {"NonCAM training images": 8, "NonCAM test images": 4}
    assert found.left_out == ({} if noncam else gone) and not found.exact


def test_masks_from_all_over_a_set_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One in two of 48; those of NonCAM images are empty as they should be."""
    looked: list[str] = []

    def problems(pair: Pair) -> list[str]:
        looked.append(pair.name)
        return ["empty"]

    monkeypatch.setattr(counting, "_problems", problems)
    every = tuple(
        Pair(f"{'NonCAM' if n % 4 else 'x'}-{n}", tmp_path / f"{n}", tmp_path, "")
        for n in range(48)
    )
    forget_images()
    settled: list[object] = []
    monkeypatch.setattr(counting, "settle", lambda *found: settled.append(found) or {})
    counting.doubts_about(every)
    assert sorted(looked) == sorted(pair.name for pair in every[::2])
    assert settled == [({"empty": [f"x-{n}" for n in range(0, 48, 4)]}, 24, 12)]
    forget_images()
