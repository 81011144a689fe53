"""Folds: each image validates once, copies stay together, and nothing but contents decides."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from camoxpert_nb.data.counting import count_images
from camoxpert_nb.data.identity import Split
from camoxpert_nb.data.selection import OTHER_FOLDS, Data, build_data
from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import Config, make_config


@pytest.fixture
def flat(camouflage: Path, tmp_path: Path) -> Path:
    """Twenty pictures and their masks in one flat folder."""
    root = tmp_path / "flat"
    for folder in ("Imgs", "GT"):
        (root / folder).mkdir(parents=True)
    for path in sorted((camouflage / "Train" / "Image").glob("*-CAM-*"))[:20]:
        mask = camouflage / "Train" / "GT_Object" / f"{path.stem}.png"
        shutil.copyfile(path, root / "Imgs" / path.name)
        shutil.copyfile(mask, root / "GT" / mask.name)
    return root


def folds_of(root: Path, cache: Path, folds: int, **changes: object) -> list[Data]:
    config = make_config("tiny", dataset_path=str(root), cache_dir=str(cache), device="cpu")
    made = (config.replace(fold=f"{each + 1}/{folds}", **changes) for each in range(folds))
    return [build_data(each) for each in made]


def held(data: Data) -> set[str]:
    return {pair.name for pair in data.validation}


def original(name: str) -> str:
    return name.removesuffix("-mirrored").removesuffix("-turned")


@pytest.mark.parametrize("folds", [2, 3, 5, 20])
def test_each_image_validates_once_and_trains_in_all_other_folds(
    flat: Path, cache: Path, folds: int
) -> None:
    cuts = folds_of(flat, cache, folds)
    names = {path.stem for path in (flat / "Imgs").iterdir()}
    assert sorted(name for data in cuts for name in held(data)) == sorted(names)
    for data in cuts:
        assert {pair.name for pair in data.train} == names - held(data)
    sizes = [len(data.validation) for data in cuts]
    assert max(sizes) - min(sizes) <= 1


def test_neither_seed_nor_names_nor_order_move_a_fold(flat: Path, cache: Path) -> None:
    before = [held(data) for data in folds_of(flat, cache, 3)]
    assert [held(data) for data in folds_of(flat, cache, 3, seed=7)] == before
    for folder in ("Imgs", "GT"):
        for number, path in enumerate(sorted((flat / folder).iterdir(), reverse=True)):
            path.rename(path.with_name(f"z{number}-{path.name}"))
    renamed = [{n.partition("-")[2] for n in held(data)} for data in folds_of(flat, cache, 3)]
    assert renamed == before


def test_copies_of_a_picture_stay_in_one_fold(flat: Path, cache: Path) -> None:
    ways = {"mirrored": ImageOps.mirror, "turned": lambda image: image.rotate(90, expand=True)}
    for path in sorted((flat / "Imgs").iterdir())[:4]:
        for way, change in ways.items():
            for old in (path, flat / "GT" / f"{path.stem}.png"):
                with Image.open(old) as image:
                    change(image).save(old.with_name(f"{path.stem}-{way}{old.suffix}"))
    cuts = folds_of(flat, cache, 4)
    for data in cuts:
        assert not {original(name) for name in held(data)} & {original(p.name) for p in data.train}
    assert sum(len(data.validation) for data in cuts) == 28


def test_images_of_a_validation_split_score_once_and_never_train(flat: Path, cache: Path) -> None:
    root = flat.with_name("split")
    shutil.copytree(flat, root / "train")
    for folder in ("Imgs", "GT"):
        (root / "val" / folder).mkdir(parents=True)
        for path in sorted((root / "train" / folder).iterdir())[:6]:
            path.rename(root / "val" / folder / path.name)
    given = {path.stem for path in (root / "val" / "Imgs").iterdir()}
    cuts = folds_of(root, cache, 3)
    for data in cuts:
        assert not given & {pair.name for pair in data.train}
        assert set(data.left_out[OTHER_FOLDS]) == given - held(data)
        assert not data.near_leaks
    assert sorted(n for data in cuts for n in held(data) if n in given) == sorted(given)
    assert sum(len(data.validation) for data in cuts) == 20
    config = make_config("tiny", dataset_path=str(root), cache_dir=str(cache), fold="2/3")
    again = build_data(config, known=Split.load(cuts[1].split.after(Split({}, {}))))
    assert held(again) == held(cuts[1]) and not again.changes
    assert set(again.left_out[OTHER_FOLDS]) == given - held(again)


def test_the_form_counts_what_a_fold_trains(flat: Path, cache: Path) -> None:
    (data, *_) = folds_of(flat, cache, 3)
    config = make_config("tiny", dataset_path=str(flat), cache_dir=str(cache), fold="1/3")
    counted = count_images(config)
    assert (counted.train, counted.validation) == (len(data.train), len(data.validation))


def test_more_folds_than_pictures_are_refused(flat: Path, cache: Path) -> None:
    with pytest.raises(
        InputError, match="21 folds are wanted, but the 20 images make 20 different"
    ):
        folds_of(flat, cache, 21)


@pytest.mark.parametrize("text", ["1/1", "0/5", "6/5", "5", "2/", "/5", "-1/5", "two/five"])
def test_a_fold_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"--fold is '{text}'; give"):
        Config(fold=text)


@pytest.mark.parametrize("text", ["", "none", " 2 / 5 "])
def test_folds_as_people_write_them(text: str) -> None:
    assert Config(fold=text).fold == text
