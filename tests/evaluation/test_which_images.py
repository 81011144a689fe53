"""A run knows the images that trained it, however they lie, and reads its data as it did then."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from camoxpert_nb.data.identity import Split
from camoxpert_nb.data.reading import MaskReading, Reading
from camoxpert_nb.data.selection import build_data, find_data
from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation.judge import data_of
from camoxpert_nb.evaluation.scoring import evaluate
from camoxpert_nb.evaluation.which_images import choose_pairs, reading_for
from camoxpert_nb.notebook.choice import chosen
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config


def run_of(config: Config, folder: Path) -> Run:
    """A run's folder as training would leave it, without training."""
    folder.mkdir()
    run = Run(folder)
    data = build_data(config)
    run.save_config(config)
    run.save_json("split", data.split.after(Split({}, {})))
    run.save_json("summary", {"data": {"root": str(data.root)}})
    return run


@pytest.fixture
def run(tiny: Config, tmp_path: Path) -> Run:
    return run_of(tiny, tmp_path / "run")


def flat(root: Path, source: Path, change, mask_change, suffix: str, number: int = 6) -> Path:
    for folder in ("Imgs", "GT"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for path in sorted((source / "Train" / "Image").glob("*-CAM-*"))[:number]:
        mask = source / "Train" / "GT_Object" / f"{path.stem}.png"
        with Image.open(path) as image:
            change(image).save(root / "Imgs" / f"{path.stem}{suffix}")
        with Image.open(mask) as image:
            mask_change(image).save(root / "GT" / mask.name)
    return root


WAYS = {
    "anew": (lambda image: image, ".jpg"),
    "png": (lambda image: image, ".png"),
    "mirrored": (ImageOps.mirror, ".jpg"),
    "turned": (lambda image: image.rotate(90, expand=True), ".webp"),
}


@pytest.mark.parametrize("way", WAYS)
def test_images_saved_anew_are_known(run: Run, camouflage: Path, tmp_path: Path, way: str) -> None:
    change, suffix = WAYS[way]
    root = flat(tmp_path / "again", camouflage, change, change, suffix)
    split = run.load_json("split")
    trained = {Path(path).stem for path in split["train"].values()}
    (one,) = choose_pairs(run, root, "all")
    expected = sum(pair.name in trained for pair in one.pairs)
    assert one.trained == expected > 0
    assert f"WARNING: {expected} of these 6 trained the network" in one.note
    assert f"{expected} of them saved anew, mirrored, turned" in one.note
    if held := [pair.name for pair in one.pairs if pair.name not in trained]:
        (validation,) = choose_pairs(run, root, "validation")
        assert [pair.name for pair in validation.pairs] == held and not validation.trained


def test_other_photos_of_the_same_names_are_new(run: Run, camouflage: Path, tmp_path: Path) -> None:
    for number in range(2):
        noise = np.random.default_rng(number)
        root = flat(
            tmp_path / "a",
            camouflage,
            lambda image, noise=noise: Image.fromarray(
                noise.integers(0, 256, np.asarray(image).shape, np.uint8)
            ),
            lambda image: image,
            ".png",
        )
    (one,) = choose_pairs(run, root)
    assert (one.split, one.trained) == ("all", 0) and "WARNING" not in one.note


def own_set(root: Path, camouflage: Path) -> Path:
    """Inverted masks in folders whose names say nothing."""
    flat(root, camouflage, lambda i: i, lambda i: ImageOps.invert(i.convert("L")), ".jpg", 12)
    (root / "Imgs").rename(root / "one")
    (root / "GT").rename(root / "two")
    return root


def test_a_run_reads_its_own_data_as_it_was_trained(
    tiny: Config, camouflage: Path, tmp_path: Path
) -> None:
    root = own_set(tmp_path / "odd", camouflage)
    flags = {"image_folder": "one", "mask_folder": "two", "mask_invert": True}
    run = run_of(tiny.replace(dataset_path=str(root), **flags), tmp_path / "run")
    wanted = Reading("one", "two", how=MaskReading(invert=True))
    assert reading_for(run, root)[0] == wanted
    (one,) = choose_pairs(run, root, "all")
    assert all(pair.how.invert for pair in one.pairs)
    assert "read with --image-folder one --mask-folder two --mask-invert" in one.note
    moved = shutil.copytree(root, tmp_path / "moved" / "elsewhere")
    assert reading_for(run, moved)[0] == wanted  # its images are there
    other, said = reading_for(run, camouflage)
    assert other == Reading() and "is not used here" in said
    (test,) = choose_pairs(run, camouflage)
    assert not any(pair.how.invert for pair in test.pairs)
    (asked,) = choose_pairs(run, camouflage, reading=Reading(how=MaskReading(invert=True)))
    assert all(pair.how.invert for pair in asked.pairs)


def test_masks_that_look_wrong_are_said_beside_the_scores(
    run: Run, camouflage: Path, tmp_path: Path
) -> None:
    root = flat(
        tmp_path / "a", camouflage, lambda i: i, lambda i: ImageOps.invert(i.convert("L")), ".png"
    )
    (one,) = choose_pairs(run, root, "all")
    assert "look inverted" in one.note and "--mask-invert" in one.note


def test_a_mask_of_another_shape_is_refused_as_in_training(
    run: Run, camouflage: Path, tmp_path: Path
) -> None:
    root = flat(tmp_path / "a", camouflage, lambda i: i, lambda i: i.resize((90, 30)), ".png")
    (one,) = choose_pairs(run, root, "all")
    with pytest.raises(InputError, match="6 of 6 masks cannot be scored"):
        evaluate(None, one.pairs)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the mask is 90x30 pixels"):
        evaluate(None, one.pairs)  # type: ignore[arg-type]


def test_images_of_one_name_keep_theirs_apart(run: Run, camouflage: Path, tmp_path: Path) -> None:
    from camoxpert_nb.data.pairs import unique_names

    for name in ("CVC-300", "Kvasir"):
        flat(tmp_path / "TestDataset" / name, camouflage, lambda i: i, lambda i: i, ".png", 2)
    (one,) = choose_pairs(run, tmp_path, "all")
    names = unique_names(one.pairs)
    assert len(set(names)) == len(names) == 4
    assert all(name.startswith(("CVC-300/Imgs/", "Kvasir/Imgs/")) for name in names)


def test_a_run_finds_its_data_as_it_was_told_where_they_lie(tmp_path: Path) -> None:
    """Folders of other names than any known: the run's flags say which, in notebooks too."""
    root = tmp_path / "data"
    for folder, name in (("shots", "a.jpg"), ("truth", "a.png")):
        (root / folder).mkdir(parents=True)
        Image.new("L", (32, 32), 200).save(root / folder / name)
    flags = {"dataset_path": str(root), "image_folder": "shots", "mask_folder": "truth"}
    config = make_config("tiny", **flags)
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.save_config(config)
    run.save_json("summary", {"data": {"root": str(root)}})
    config.save(tmp_path / "next.json")
    assert data_of(run, str(root)) == str(root)
    assert chosen(tmp_path / "next.json", str(root)).dataset_path == str(root)
    with pytest.raises(InputError, match="--image-folder"):
        find_data(str(root))


def test_images_held_out_are_called_validation_whatever_their_folder_is(
    run: Run, camouflage: Path, tmp_path: Path
) -> None:
    for folder in (camouflage / "Train", camouflage):
        (one,) = choose_pairs(run, folder, "validation")
        assert (one.name, one.split) == (f"{camouflage.name} validation", "validation")
    (one,) = choose_pairs(run, camouflage / "Train", "all")
    assert one.name == camouflage.name and one.trained > 0


def test_each_test_set_tells_what_was_left_out_of_itself(tmp_path, camouflage, tiny):
    both = tmp_path / "both"
    sets = {"COD10K": "*", "CAMO": "*-CAM-*", "Nothing": "*-NonCAM-*"}
    for name, pattern in sets.items():
        for kind in ("Image", "GT_Object"):
            (both / name / "Test" / kind).mkdir(parents=True)
            for path in (camouflage / "Test" / kind).glob(pattern):
                shutil.copy(path, both / name / "Test" / kind)
    run = run_of(tiny, tmp_path / "run")
    notes = {one.name: one.note for one in choose_pairs(run, both)}
    assert set(notes) == {"COD10K", "CAMO"}
    first, second = (notes[name] for name in ("CAMO", "COD10K"))
    assert "left out" not in first and "left out: 1 NonCAM test image" in second
    told = "not scored: Nothing, which holds NonCAM images alone (1)"
    assert sum(told in note for note in notes.values()) == 1
