"""A run knows the images that trained it, however they lie, and reads its data as it did then."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from camoxpert_nb.data.identity import Split
from camoxpert_nb.data.pairs import Pair
from camoxpert_nb.data.reading import MaskReading, Reading
from camoxpert_nb.data.selection import build_data, find_data
from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation import which_images
from camoxpert_nb.evaluation.judge import data_of
from camoxpert_nb.evaluation.scoring import evaluate
from camoxpert_nb.evaluation.which_images import (
    Chosen,
    _gone,
    _Known,
    _name_of,
    _reading_for_all,
    _together,
    _with_warnings,
    choose_pairs,
    holders,
    reading_for,
)
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


# ---- notes, by hand ------------------------------------------------------------------------------


def pair(name: str) -> Pair:
    return Pair(name, Path(f"{name}.jpg"), Path(f"{name}.png"), "x")


A, B, C, D = map(pair, "abcd")


def told(
    monkeypatch: pytest.MonkeyPatch, doubts: list[str], pairs: list[Pair], known: _Known
) -> Chosen:
    monkeypatch.setattr(which_images, "doubts_about", lambda of: doubts if of == (*pairs,) else 0)
    return _with_warnings("pond", pairs, "test split", "test", known)


def test_a_set_is_told_with_what_trained_and_what_is_doubtful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing = _Known(set(), {A}, {B})
    assert told(monkeypatch, [], [A, B], nothing) == ("pond", [A, B], "test split", "test", 0)
    some = told(monkeypatch, ["one is odd", "two too"], [A, B, C], _Known({B, C, D}, set(), {C, D}))
    assert some.trained == 2
    assert some.note == (
        "test split; WARNING: 2 of these 3 trained the network (b, c), 1 of them saved anew, "
        "mirrored, turned, or a frame of the same film; NOTE: of the masks looked at, one is odd; "
        "NOTE: of the masks looked at, two too"
    )
    same = told(monkeypatch, [], [A], _Known({A}, set(), set()))
    assert same.note == "test split; WARNING: 1 of these 1 trained the network (a)"


def test_of_several_runs_what_any_trained_on_counts_as_trained() -> None:
    one, two = _Known({A}, {B, C}, {A}), _Known({B}, {A, D}, {D})
    assert _together([one, two]) == ({A, B}, {C, D}, {A, D})
    assert _together([one]) == one


@pytest.mark.parametrize(
    ("side", "name", "said"),
    [
        ("training", "", "; left out: 2 NonCAM training images"),
        ("", "", "; left out: 2 NonCAM training images; left out: 1 odd test image"),
        (
            "test",
            "CAMO",
            "; left out: 1 NonCAM test image; not scored: Sea, which holds NonCAM images alone (5)",
        ),
        ("test", "COD10K", "; left out: 3 NonCAM test images"),
        ("test", "NC4K", ""),
    ],
)
def test_what_was_left_out_is_told_of_its_own_set(side: str, name: str, said: str) -> None:
    left_out = {"NonCAM training images": ["a", "b"], "odd test image": ["c"]}
    tests = {"CAMO": (A,), "COD10K": (B,), "NC4K": (C,)}
    chosen = SimpleNamespace(
        left_out=left_out, test=tests, empty_tests={"CAMO": 1, "COD10K": 3, "Sea": 5}
    )
    assert _gone(chosen, side, name) == said  # type: ignore[arg-type]


def test_a_folder_is_called_after_what_it_is_in_where_its_name_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pond" / "Train").mkdir(parents=True)
    assert _name_of(tmp_path / "pond" / "Train") == _name_of(tmp_path / "pond") == "pond"
    monkeypatch.chdir(tmp_path / "pond" / "Train")
    assert _name_of(Path()) == "pond"
    assert _name_of(Path("/Train")) == "Train"


def test_each_kind_of_set_says_why_it_is_scored(run: Run, camouflage: Path) -> None:
    (test,) = choose_pairs(run, camouflage)
    assert (test.split, test.trained, len(test.pairs)) == ("test", 0, 7)
    assert test.note.startswith("test split; left out: 1 NonCAM test image")
    (held,) = choose_pairs(run, camouflage, "validation")
    assert held.note.startswith(
        "the images this run held out for validation (its best weights were chosen on them, which "
        "flatters those a little); left out: "
    )
    (everything,) = choose_pairs(run, camouflage, "all")
    assert everything.note.startswith("all images of the folder; left out: ")
    assert (everything.name, everything.split) == (camouflage.name, "all")
    assert len(choose_pairs(run, camouflage, noncam=True)[0].pairs) == 8
    (auto,) = choose_pairs(run, camouflage / "Train")
    assert auto.split == "validation"
    assert [each.image for each in auto.pairs] == [each.image for each in held.pairs]
    (several,) = choose_pairs([run, run], camouflage, "validation")
    assert several.note.startswith(
        "the images these runs held out for validation (their best weights were chosen on them, "
        "which flatters those a little)"
    )


def test_where_nothing_is_to_be_scored_it_is_said_what_is_there(
    run: Run, camouflage: Path, tmp_path: Path
) -> None:
    (root := tmp_path / "some").mkdir()
    shutil.copytree(camouflage / "Test", root / "Test")
    with pytest.raises(InputError) as caught:
        choose_pairs(run, root, "validation")
    assert str(caught.value) == (
        f"{root}: nothing to score as 'validation' (0 training, 0 validation and 7 test images "
        "found, as its folders and lists say). Use another --split."
    )
    flat(tmp_path / "plain", camouflage, lambda i: i, lambda i: i, ".png", 3)
    with pytest.raises(InputError, match=r"as 'test' \(3 training, 0 validation and 0 test images"):
        choose_pairs(run, tmp_path / "plain", "test")


def test_folds_of_which_each_trained_on_the_others_are_scored_by_their_holders(
    run: Run, camouflage: Path, tmp_path: Path
) -> None:
    """Two halves: what the one trained on, the other held out."""
    known, two = run.load_json("split"), Run(tmp_path / "two")
    run.copy_to(two.folder)
    half = dict(list(known["train"].items())[::2])
    rest = {key: path for key, path in known["train"].items() if key not in half}
    run.save_json("split", known | {"train": half, "validation": rest, "looks": {}})
    two.save_json("split", known | {"train": rest, "validation": half, "looks": {}})
    for split in ("auto", "validation"):
        (found,) = choose_pairs([run, two], camouflage / "Train", split)
        assert found.name == f"{camouflage.name} out-of-fold" and found.split == "out-of-fold"
        assert len(found.pairs) == len({*half, *rest}) and found.trained == 0
        assert found.note.startswith(
            "each image is scored by the members that held it out, as all others trained on it"
        )
        places = holders([run, two], found.pairs)
        assert sorted({*places}) == [(0,), (1,)] and places.count((0,)) == len(rest)
    (alone,) = choose_pairs([run], camouflage / "Train", "validation")
    assert alone.split == "validation" and len(alone.pairs) == len(rest)


def test_runs_that_read_their_data_in_different_ways_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, ways = [Run(tmp_path / name) for name in "ab"], {"a": Reading(), "b": Reading("one")}
    monkeypatch.setattr(
        which_images, "reading_for", lambda run, folder: (ways[run.folder.name], folder)
    )
    with pytest.raises(InputError) as caught:
        choose_pairs(runs, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'a'} and {tmp_path / 'b'} were trained on data that were read in different "
        "ways: say how these are to be read (--image-folder, --mask-object, ...)."
    )
    assert _reading_for_all(runs[1:] * 2, tmp_path) == (Reading("one"), tmp_path)


def test_how_other_data_are_read_is_said_in_a_clause(
    tiny: Config, camouflage: Path, tmp_path: Path
) -> None:
    config = tiny.replace(image_folder="one", mask_folder="two")
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.save_config(config)
    run.save_json("summary", {"data": {"root": str(tmp_path / "data")}})
    run.save_json("split", {"format": 2, "train": {"0": "0.jpg"}, "validation": {}})
    how = "--image-folder one --mask-folder two"
    own = (Reading("one", "two"), f"; read with {how}, as the run was trained")
    (tmp_path / "data" / "below").mkdir(parents=True)
    for folder in (tmp_path / "data", tmp_path / "data" / "below", tmp_path):
        assert reading_for(run, folder) == own
    assert reading_for(run, camouflage) == (
        Reading(),
        f"; other data than the run's: its {how} is not used here, give such flags to read these "
        "otherwise",
    )
    run.save_config(tiny)
    assert reading_for(run, camouflage) == (Reading(), "")
