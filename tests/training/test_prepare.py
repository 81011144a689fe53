"""Settings to parts: what is left out, unfit or doubled is named before a training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from camoxpert_nb.data.selection import build_data
from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.banner import banner
from camoxpert_nb.training.prepare import Loaders, prepare


@pytest.fixture
def own(camouflage: Path, tmp_path: Path) -> Path:
    return shutil.copytree(camouflage, tmp_path / "own")


def test_what_is_left_out_is_named_in_the_banner(tiny: Config, own: Path) -> None:
    pairs = build_data(tiny.replace(dataset_path=str(own))).train
    pairs[0].mask.unlink()
    pairs[1].image.unlink()
    said = banner(prepare(tiny.replace(dataset_path=str(own))))
    assert f"left out: 1 ({pairs[0].image.name}) images without a mask" in said
    assert f"left out: 1 ({pairs[1].mask.name}) masks without an image" in said


def test_the_banner_names_the_rate_for_another_batch(tiny: Config) -> None:
    said = banner(prepare(tiny.replace(lr_batch=8)))
    assert "NOTE: --lr 0.002 is meant for a batch of 8, this run has 4" in said
    assert "--scale-lr" in said
    assert "meant for a batch" not in banner(prepare(tiny))


def test_a_training_image_among_the_test_images_is_warned_of(tiny: Config, own: Path) -> None:
    config = tiny.replace(dataset_path=str(own))
    data = build_data(config)
    test = next(iter(data.test.values()))
    shutil.copyfile(test[0].image, data.train[0].image)
    training = prepare(config)
    assert training.data.leaks == [data.train[0].name]
    assert "training images are test images too" in banner(training)


def test_damaged_files_are_named_before_training(tiny: Config, own: Path) -> None:
    config = tiny.replace(dataset_path=str(own))
    training = prepare(config)
    bad = training.data.train[3].image
    bad.write_bytes(bad.read_bytes()[:400])
    with pytest.raises(InputError, match=f"{bad.name}.*cannot be read"):
        Loaders(training)


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_images_that_fill_no_step_are_told_beside_the_steps(tiny: Config, batch: int) -> None:
    training = prepare(tiny.replace(batch_size=batch, stage2_batch_size=batch))
    images = training.plan.images
    left_out = images % batch
    told = f"steps an epoch of {images - left_out} of {images} images, chosen anew each epoch"
    assert (told in banner(training)) == bool(left_out)
    assert ("chosen anew" in banner(training)) == bool(left_out)
