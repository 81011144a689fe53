"""Which images train, validate and test, and which are left out; counted as they will be used."""

from __future__ import annotations

import hashlib
import random
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from camoxpert_nb.data.counting import count_images
from camoxpert_nb.data.layouts import Pair, find_datasets, is_noncam, look_through
from camoxpert_nb.data.selection import (
    build_data,
    find_data,
    select,
    split_validation,
)
from camoxpert_nb.data.synthetic import make_synthetic
from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import Config, make_config


def fill(root: Path, images: str, masks: str, *stems: str) -> Path:
    """Make pairs without content: finding and choosing must not open any."""
    for folder, suffix in ((root / images, "jpg"), (root / masks, "png")):
        folder.mkdir(parents=True, exist_ok=True)
        for stem in stems:
            (folder / f"{stem}.{suffix}").touch()
    return root


def cod10k(root: Path) -> Path:
    train = [f"COD10K-CAM-1-{i}" for i in range(2)] + [f"COD10K-NonCAM-5-{i}" for i in range(3)]
    fill(root, "Train/Image", "Train/GT_Object", *train)
    return fill(root, "Test/Image", "Test/GT_Object", "COD10K-CAM-2-Ter-4", "COD10K-NonCAM-9")


def names(pairs: tuple[Pair, ...]) -> list[str]:
    return [pair.name for pair in pairs]


@pytest.fixture
def own(camouflage: Path, tmp_path: Path) -> Path:
    return shutil.copytree(camouflage, tmp_path / "own")


def test_noncam_is_left_out_and_counted(tmp_path):
    sets = find_datasets(cod10k(tmp_path / "COD10K-v3"))
    chosen = select(sets)
    assert not any(map(is_noncam, chosen.train + chosen.test["COD10K-v3"]))
    assert (len(chosen.train), len(chosen.test["COD10K-v3"])) == (2, 1)
    assert {why: len(pairs) for why, pairs in chosen.left_out.items()} == {
        "NonCAM training images": 3,
        "NonCAM test images": 1,
    }
    everything = select(sets, noncam=True)
    assert (len(everything.train), len(everything.test["COD10K-v3"])) == (5, 2)
    assert not everything.left_out


def test_pairs_of_one_name_from_two_sets_both_stay(tmp_path):
    for folder in ("one", "two"):
        fill(tmp_path / folder, "Imgs", "GT", "a", "b")
        fill(tmp_path / folder / "TestDataset", "CAMO/Imgs", "CAMO/GT", "t")
    chosen = select(find_datasets(tmp_path))
    assert names(chosen.train) == ["a", "b", "a", "b"]
    assert {pair.dataset for pair in chosen.train} == {"one", "two"}
    assert len(chosen.test) == 2
    assert all(name.startswith("CAMO") for name in chosen.test)


def make_pairs(count: int, dataset: str = "d") -> list[Pair]:
    root = Path(dataset)
    return [Pair(f"n{i}", root / f"n{i}.jpg", root / f"n{i}.png", dataset) for i in range(count)]


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("count", [2, 3, 10, 1000])
def test_the_split_is_a_partition_of_about_the_share(count, share):
    pairs = make_pairs(count)
    train, validation = split_validation(pairs, share)
    assert train and validation
    assert sorted(train + validation) == sorted(pairs)
    if count == 1000:
        assert abs(len(validation) / count - share) < 0.04


def test_the_split_follows_from_the_name_alone():
    pairs = make_pairs(500)
    _, validation = split_validation(pairs)
    _, fewer = split_validation(pairs[::-2])
    assert set(fewer) == set(validation) & set(pairs[::-2])
    _, moved = split_validation(make_pairs(500, "elsewhere"))
    assert names(moved) == names(validation)
    digest = {name: hashlib.sha256(name.encode()).hexdigest() for name in names(tuple(pairs))}
    edge = f"{int(0.1 * 16**12):012x}"
    assert set(names(validation)) == {name for name in digest if digest[name] <= edge}


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pairs_to_split(count):
    with pytest.raises(InputError, match=rf"{count} training pairs found, expected at least 2"):
        split_validation(make_pairs(count))


@pytest.mark.parametrize("share", [0, 1, -0.1, 10])
def test_a_share_that_is_no_share(share):
    with pytest.raises(InputError, match="expected a number between 0 and 1"):
        split_validation(make_pairs(5), share)


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


def test_a_copy_of_a_training_image_does_not_validate(tiny: Config, own: Path) -> None:
    config = tiny.replace(dataset_path=str(own))
    data = build_data(config)
    shutil.copyfile(data.train[0].image, data.validation[0].image)
    found = build_data(config)
    (gone,) = found.left_out["copies of other training images, with other masks"]
    assert gone in {data.train[0].name, data.validation[0].name}
    assert gone not in {pair.name for pair in (*found.train, *found.validation)}


def test_a_set_beside_its_copy_is_split_as_it_would_be_alone(tiny: Config, own: Path) -> None:
    alone = build_data(tiny.replace(dataset_path=str(own)))
    both = own.parent / "both"
    shutil.copytree(own / "Train", both / "a" / "Train")
    for kind in ("Image", "GT_Object"):
        (both / "b" / "Train" / kind).mkdir(parents=True)
        for path in (own / "Train" / kind).iterdir():
            shutil.copyfile(path, both / "b" / "Train" / kind / f"again-{path.name}")
    found = build_data(tiny.replace(dataset_path=str(both)))
    for side in ("train", "validation"):
        assert {p.name for p in getattr(found, side)} == {p.name for p in getattr(alone, side)}


def test_sets_that_overlap_train_each_image_once(tiny: Config, own: Path, tmp_path: Path) -> None:
    """CAMO beside a COD10K + CAMO bundle: the same photos under other names, in two folders."""
    root = tmp_path / "sets"
    images, masks = (sorted((own / "Train" / kind).iterdir()) for kind in ("Image", "GT_Object"))
    both = [(i, m) for i, m in zip(images, masks, strict=True) if "NonCAM" not in i.name]
    for folder, some, prefix in (("A", both[:12], ""), ("B", both[6:18], "again-")):
        for kind, index in (("Imgs", 0), ("GT", 1)):
            (root / folder / kind).mkdir(parents=True)
            for pair in some:
                shutil.copyfile(pair[index], root / folder / kind / (prefix + pair[index].name))
    data = build_data(tiny.replace(dataset_path=str(root)))
    used = [pair.image.read_bytes() for pair in (*data.train, *data.validation)]
    gone = [name for names in data.left_out.values() for name in names]
    assert len(used) == len(set(used)) == 18
    assert len(gone) == len(set(gone)) == 6
    assert all("cop" in why for why in data.left_out)


def test_a_folder_of_test_images_cannot_train(tiny: Config, own: Path) -> None:
    shutil.rmtree(own / "Train")
    with pytest.raises(InputError, match="holds test images only"):
        build_data(tiny.replace(dataset_path=str(own)))


def test_without_a_data_set_generated_images_take_its_place(tmp_path: Path) -> None:
    data = build_data(make_config("tiny", img_size=32, cache_dir=str(tmp_path)))
    assert data.root == tmp_path / "generated-32px"
    assert len(data.train) > 100
    assert sum(map(len, data.test.values())) == 80


def test_generated_images_are_counted_nearly_as_they_will_be(tmp_path: Path) -> None:
    config = make_config("tiny", img_size=32)
    made = make_synthetic(tmp_path / "made", size=32)
    counted, found = count_images(config), count_images(config.replace(dataset_path=str(made)))
    assert not counted.exact and found.exact
    assert counted.train + counted.validation == found.train + found.validation
    assert abs(counted.train - found.train) < 20
    assert list(counted.test.values()) == list(found.test.values())
    assert counted.left_out == found.left_out


def test_kaggles_mount_is_found_by_itself(
    camouflage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = tmp_path / "input" / "datasets" / "someone" / "cod"
    mount.parent.mkdir(parents=True)
    mount.symlink_to(camouflage)
    monkeypatch.setenv("CAMOXPERT_INPUT", str(tmp_path / "input"))
    assert find_data() == str(tmp_path / "input")
    assert find_data(str(camouflage)) == str(camouflage)
    monkeypatch.setenv("CAMOXPERT_INPUT", str(tmp_path / "nothing"))
    assert find_data() == ""
    with pytest.raises(InputError, match="no such folder"):
        find_data(str(tmp_path / "wrong"))


def photos(root: Path, count: int) -> list[Path]:
    """Flat Imgs + GT with that many generated pictures."""
    made = make_synthetic(root.parent / "made", train=count, test=0, size=64, noncam=0)
    images = sorted((made / "Train" / "Image").iterdir())
    for path in images:
        for folder, source in (("Imgs", path), ("GT", path.parents[1] / "GT_Object" / path.name)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            source = source.with_suffix(".png") if folder == "GT" else source
            shutil.copyfile(source, root / folder / source.name)
    return sorted((root / "Imgs").iterdir())


def add_copy(path: Path, name: str, way: str) -> None:
    """Store a picture and its mask again in another way."""
    change = {
        "anew": lambda image: image,
        "mirrored": ImageOps.mirror,
        "turned": lambda image: image.rotate(90, expand=True),
    }[way]
    for folder in ("Imgs", "GT"):
        file = path.parents[1] / folder / (path.name if folder == "Imgs" else f"{path.stem}.png")
        with Image.open(file) as image:
            change(image).save(path.parents[1] / folder / f"{name}.png")


def sides_of(config: Config) -> tuple[set[str], set[str]]:
    data = build_data(config)
    return {p.name for p in data.train}, {p.name for p in data.validation}


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_copies_stay_on_one_side_and_none_is_dropped(tiny: Config, tmp_path: Path, share: float):
    images = photos(tmp_path / "set", 20)
    names = []
    for number, path in enumerate(images):
        ways = ("anew", "mirrored", "turned")[: number % 4]
        names.append([path.stem, *(f"{chr(97 + 5 * i)}{number}" for i in range(len(ways)))])
        for name, way in zip(names[-1][1:], ways, strict=True):
            add_copy(path, name, way)
    config = tiny.replace(dataset_path=str(tmp_path / "set"), val_share=share)
    train, validation = sides_of(config)
    assert len(train) + len(validation) == sum(map(len, names)) and train and validation
    for group in names:
        assert set(group) <= train or set(group) <= validation


def test_every_photo_three_times_still_validates(tiny: Config, tmp_path: Path):
    """Byte for byte the others are left out; saved anew they go together."""
    for way in ("bytes", "anew"):
        root = tmp_path / way / "set"
        for path in photos(root, 12):
            for number in (1, 2):
                if way == "anew":
                    add_copy(path, f"c{number}-{path.stem}", "anew" if number == 1 else "mirrored")
                else:
                    mask = root / "GT" / f"{path.stem}.png"
                    shutil.copyfile(path, path.with_name(f"c{number}-{path.name}"))
                    shutil.copyfile(mask, mask.with_name(f"c{number}-{mask.name}"))
        data = build_data(tiny.replace(dataset_path=str(root)))
        counted = count_images(tiny.replace(dataset_path=str(root)))
        assert len(data.train) + len(data.validation) == (12 if way == "bytes" else 36)
        assert data.validation and data.train
        assert (counted.train, counted.validation) == (len(data.train), len(data.validation))


def test_a_film_of_one_scene_is_split_all_the_same(tiny: Config, tmp_path: Path):
    first = photos(tmp_path / "set", 1)[0]
    for number in range(6):
        add_copy(first, f"frame{number}", "anew")
    data = build_data(tiny.replace(dataset_path=str(tmp_path / "set")))
    assert data.train and data.validation


def test_near_copies_across_a_given_test_set_are_named(tiny: Config, own: Path):
    train, test = (sorted((own / split / "Image").glob("*-CAM-*")) for split in ("Train", "Test"))
    for number, way in enumerate((ImageOps.mirror, lambda image: image.rotate(180))):
        with Image.open(train[number]) as image:
            way(image).save(test[number], quality=80)
    data = build_data(tiny.replace(dataset_path=str(own)))
    assert not data.leaks and len(data.near_leaks) == 2
    assert f"{train[0].name} ~ {test[0].name}" in data.near_leaks[0]


def test_folders_and_lists_that_hold_out_validation_are_obeyed(tiny: Config, tmp_path: Path):
    for number, path in enumerate(photos(tmp_path / "set", 12)):
        split = "valid" if number < 4 else "train"
        for folder, name in (("Imgs", path.name), ("GT", f"{path.stem}.png")):
            (tmp_path / "set" / split / folder).mkdir(parents=True, exist_ok=True)
            shutil.move(tmp_path / "set" / folder / name, tmp_path / "set" / split / folder / name)
    data = build_data(tiny.replace(dataset_path=str(tmp_path / "set")))
    assert (len(data.train), len(data.validation)) == (8, 4)
    assert {path.image.parts[-3] for path in data.validation} == {"valid"}


def test_a_validation_image_that_trains_too_is_not_trained_on(tiny: Config, tmp_path: Path):
    root = tmp_path / "set"
    for number, path in enumerate(photos(root, 8)):
        for split in ("val",) if number == 0 else ("train",) if number > 1 else ("train", "val"):
            for folder, name in (("images", path), ("masks", root / "GT" / f"{path.stem}.png")):
                (root / split / folder).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(name, root / split / folder / name.name)
    for folder in ("Imgs", "GT"):
        shutil.rmtree(root / folder)
    data = build_data(tiny.replace(dataset_path=str(root)))
    assert (len(data.train), len(data.validation)) == (6, 2)
    assert len(data.left_out["copies of images held out for validation"]) == 1


def test_groups_of_any_size_leave_both_sides_something():
    """The property behind it: each group whole, both sides filled, whatever the groups."""
    rng = random.Random(0)
    for _ in range(200):
        pairs = make_pairs(rng.randrange(2, 40))
        left = pairs[:]
        rng.shuffle(left)
        together = []
        while left and rng.random() < 0.8:
            size = rng.randrange(1, 12)
            together.append(left[:size])
            left = left[size:]
        whole = [group for group in together if len(group) > 1]
        train, validation = split_validation(pairs, rng.uniform(0.01, 0.5), whole)
        assert train and validation and sorted(train + validation) == sorted(pairs)
        if len(whole) + len(pairs) - sum(map(len, whole)) > 1:
            for group in whole:
                assert len({pair in validation for pair in group}) == 1


def test_what_is_not_used_is_said(tiny: Config, own: Path):
    (own / "more" / "photos").mkdir(parents=True)
    for name in ("x.jpg", "y.jpg"):
        shutil.copyfile(next((own / "Train" / "Image").iterdir()), own / "more" / "photos" / name)
    (own / "more" / "z.heic").touch()
    said = " ".join(build_data(tiny.replace(dataset_path=str(own))).notes)
    assert "more/photos: 2 images whose masks were not found (x.jpg, y.jpg)" in said
    found = look_through(own)
    assert any("HEIC" in str(each) and "JPEG or PNG" in str(each) for each in found.unused)


def test_a_copy_of_a_held_out_image_does_not_train_later(tiny: Config, tmp_path: Path):
    images = photos(tmp_path / "set", 16)
    config = tiny.replace(dataset_path=str(tmp_path / "set"), val_share=0.3)
    known = build_data(config).split
    held = sorted(known.validation.values())
    for number, way in enumerate(("anew", "mirrored", "turned")):
        add_copy(tmp_path / "set" / held[0], f"new{number}", way)
    add_copy(next(path for path in images if f"Imgs/{path.name}" not in held), "other", "turned")
    data = build_data(config, known=known)
    assert {pair.name for pair in data.validation} == {Path(path).stem for path in held}
    assert sorted(data.left_out["copies of images held out for validation"]) == [
        "new0",
        "new1",
        "new2",
    ]
    assert "other" in {pair.name for pair in data.train}
