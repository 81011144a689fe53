"""Settings to parts: which images train, which are left out, and that it is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from camoxpert_nb.data.cache import cache_folder
from camoxpert_nb.data.layouts import is_noncam
from camoxpert_nb.data.selection import build_data
from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.banner import banner
from camoxpert_nb.training.prepare import Loaders, prepare


@pytest.fixture
def own(camouflage: Path, tmp_path: Path) -> Path:
    return shutil.copytree(camouflage, tmp_path / "own")


def test_noncam_images_are_left_out_and_counted(tiny: Config) -> None:
    data = build_data(tiny)
    assert not any(is_noncam(pair) for pair in (*data.train, *data.validation))
    assert len(data.left_out["NonCAM training images"]) == 8
    everything = build_data(tiny.replace(noncam=True))
    assert len(everything.train) + len(everything.validation) == 40
    assert "NonCAM training images" not in everything.left_out


def test_the_three_splits_share_no_image(tiny: Config) -> None:
    data = build_data(tiny)
    test = [pair for pairs in data.test.values() for pair in pairs]
    contents = [
        {pair.image.read_bytes() for pair in pairs} for pairs in (data.train, data.validation, test)
    ]
    assert sum(map(len, contents)) == len(set.union(*contents))
    assert all(contents)


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


def test_a_copy_of_a_training_image_does_not_validate(tiny: Config, own: Path) -> None:
    config = tiny.replace(dataset_path=str(own))
    data = build_data(config)
    shutil.copyfile(data.train[0].image, data.validation[0].image)
    found = build_data(config)
    name = data.validation[0].name
    assert found.left_out["validation images that are copies of training images"] == [name]
    assert name not in {pair.name for pair in found.validation}


def test_a_training_image_among_the_test_images_is_warned_of(tiny: Config, own: Path) -> None:
    config = tiny.replace(dataset_path=str(own))
    data = build_data(config)
    test = next(iter(data.test.values()))
    shutil.copyfile(test[0].image, data.train[0].image)
    training = prepare(config)
    assert training.data.leaks == [data.train[0].name]
    assert "training images are test images too" in banner(training)


def test_a_folder_of_test_images_cannot_train(tiny: Config, own: Path) -> None:
    shutil.rmtree(own / "Train")
    with pytest.raises(InputError, match="holds test images only"):
        build_data(tiny.replace(dataset_path=str(own)))


def test_damaged_files_are_named_before_training(tiny: Config, own: Path) -> None:
    config = tiny.replace(dataset_path=str(own))
    training = prepare(config)
    bad = training.data.train[3].image
    bad.write_bytes(bad.read_bytes()[:400])
    with pytest.raises(InputError, match=f"{bad.name}.*cannot be read"):
        Loaders(training)


def test_the_cache_goes_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAMOXPERT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    config = make_config("tiny")
    assert cache_folder(config) == tmp_path / "xdg" / "camoxpert_nb"
    monkeypatch.setenv("CAMOXPERT_CACHE", str(tmp_path / "env"))
    assert cache_folder(config) == tmp_path / "env"
    assert cache_folder(config.replace(cache_dir=str(tmp_path))) == tmp_path


def test_without_a_data_set_generated_images_take_its_place(tmp_path: Path) -> None:
    data = build_data(make_config("tiny", img_size=32, cache_dir=str(tmp_path)))
    assert data.root == tmp_path / "generated-32px"
    assert len(data.train) > 100
    assert sum(map(len, data.test.values())) == 80
