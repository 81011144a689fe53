"""Which images judge a run, what augmentation brings, and where a threshold may come from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation import judge as judging
from camoxpert_nb.evaluation.judge import data_of, judge, validation_threshold
from camoxpert_nb.evaluation.metrics import MEASURES
from camoxpert_nb.evaluation.predict import Views
from camoxpert_nb.evaluation.which_images import choose_pairs
from camoxpert_nb.figures.results import draw_test, show_published
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.fit import fit

BOTH = Views(flip=True, scales=(1.0, 1.5))


@pytest.fixture(scope="module")
def run(camouflage: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    places = {"dataset_path": str(camouflage), "cache_dir": str(cache), "device": "cpu"}
    folder = tmp_path_factory.mktemp("judge") / "run"
    return fit(make_config("tiny", checkpoint_dir=str(folder), **places))


@pytest.fixture
def copy(camouflage: Path, tmp_path: Path) -> Path:
    """Another data set, whose images have names that this run never saw."""
    shutil.copytree(camouflage / "Test", tmp_path / "pond" / "Test")
    for path in sorted((tmp_path / "pond").rglob("*.*")):
        path.rename(path.with_name("pond-" + path.name))
    return tmp_path / "pond"


def test_the_test_split_is_scored_and_named(
    run: Run, camouflage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = judge(run, camouflage, device="cpu")
    assert (one.split, one.trained, one.scores.n) == ("test", 0, 7)  # one of 8 is NonCAM
    assert one.plain is None and one.threshold is None and one.gain == ""
    values = json.loads(json.dumps(one.to_json(), allow_nan=False))
    assert set(values["mean"]) == set(MEASURES)
    said = " ".join(text.get_text() for text in show_published(one).axes[0].texts)
    assert "no test set with published numbers" in said.replace("\n", " ")
    shown: list[dict[str, str]] = []
    with monkeypatch.context() as patch:
        patch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
        assert DisplayFormatter().format(show_published(one)) == ({}, {})  # no picture
    assert shown[0].keys() == {"text/plain", "text/html"}
    assert "no test set with published numbers" in shown[0]["text/plain"].replace("\n", " ")
    assert sum(row["n"] for row in values["by_size"]) == values["n"] == len(values["per_image"])
    assert values["seconds_per_image"] > 0
    assert one.summary().startswith(f"{one.name}: test split")
    assert one.offer == (
        "  seen mirrored too (--flip, MIRRORED in 04): in trainings of ours IoU rose by .006 to "
        ".011, for twice the network's time"
    )
    assert one.offer.strip() in " ".join(one.summary().split())


def test_a_run_that_is_not_there_is_answered_with_the_name_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    with pytest.raises(InputError, match=rf"is not there.*Did you mean {tmp_path / 'latest'}\?"):
        data_of(Run(tmp_path / "lastest"))
    with pytest.raises(InputError, match=r"say where the images are\.$"):
        data_of(Run(tmp_path / "another"))


def test_validation_and_whole_folders_say_what_they_are(run: Run, camouflage: Path) -> None:
    (held,) = judge(run, camouflage, split="validation", device="cpu")
    known = run.load_json("split")
    assert (held.split, held.trained) == ("validation", 0)
    held_out = {Path(path).stem for path in known["validation"].values()}
    assert {pair.name for pair in held.pairs} == held_out
    (everything,) = judge(run, camouflage, split="all", device="cpu")
    assert (everything.split, everything.trained) == ("all", len(known["train"]))
    assert f"WARNING: {everything.trained} of these 39 trained the network" in everything.note
    (chosen,) = choose_pairs(run, camouflage, "all")
    assert chosen[:3] == ("camouflage", everything.pairs, everything.note)


def test_an_image_is_known_by_its_contents_not_by_its_name(
    run: Run, camouflage: Path, tmp_path: Path
) -> None:
    """Others of the same names are new; the same under other names trained the network."""
    strangers, renamed = tmp_path / "strangers", tmp_path / "renamed"
    for folder in (strangers, renamed):
        shutil.copytree(camouflage / "Train", folder)
    for number, path in enumerate(sorted((strangers / "Image").iterdir())):
        image = np.asarray(Image.open(path))
        Image.fromarray(255 - image).save(path)
        for kind in ("Image", "GT_Object"):
            suffix = {"Image": ".jpg", "GT_Object": ".png"}[kind]
            old = renamed / kind / f"{path.stem}{suffix}"
            old.rename(old.with_name(f"{number:04}{suffix}"))
    (found,) = judge(run, strangers, device="cpu")
    assert (found.split, found.trained) == ("all", 0)
    (found,) = judge(run, renamed, device="cpu")
    assert (found.split, found.trained) == ("validation", 0)
    (found,) = judge(run, renamed, split="all", device="cpu")
    assert found.trained == len(run.load_json("split")["train"])


def test_a_run_of_an_older_kit_knows_its_images_by_name(
    run: Run, camouflage: Path, tmp_path: Path
) -> None:
    old = Run(tmp_path / "old")
    run.copy_to(old.folder)
    split = run.load_json("split")
    sides = ("train", "validation")
    old.save_json("split", {s: [Path(p).stem for p in split[s].values()] for s in sides})
    for side in ("validation", "all"):
        (one,), (other,) = (judge(r, camouflage, split=side, device="cpu") for r in (run, old))
        assert (one.trained, one.pairs) == (other.trained, other.pairs)


def test_the_last_weights_can_be_judged_at_the_size_they_were_made_with(
    run: Run, camouflage: Path, tmp_path: Path
) -> None:
    other = Run(tmp_path / "other")
    run.copy_to(other.folder)
    state = other.load("last")
    for name, values in state["ema"].items():  # surely not the best
        state["ema"][name] = -values if name.endswith("weight") else values
    other.save("last", state)
    (best,), (last,) = (
        judge(other, camouflage, device="cpu", which=which) for which in ("best", "last")
    )
    assert best.scores.mean != last.scores.mean
    Config.load(run.config_path).replace(img_size=32).save(other.config_path)
    (same,) = judge(other, camouflage, device="cpu")
    assert same.scores.mean == best.scores.mean


def test_several_folders_are_scored_at_once_but_none_twice(
    run: Run, camouflage: Path, copy: Path
) -> None:
    names = [one.name for one in judge(run, [camouflage, copy], device="cpu")]
    assert len(names) == len(set(names)) == 2
    with pytest.raises(InputError, match="Two of the given folders hold a set called"):
        judge(run, [camouflage, camouflage], device="cpu")


def test_augmentation_shows_what_it_brings_and_costs(run: Run, camouflage: Path) -> None:
    (plain,) = judge(run, camouflage, device="cpu")
    (one,) = judge(run, camouflage, device="cpu", views=BOTH)
    assert one.plain is not None
    assert one.plain.mean == plain.scores.mean != one.scores.mean
    gain = one.scores.mean["iou"] - plain.scores.mean["iou"]
    assert f"({gain:+.4f}, 95 % interval" in one.gain
    assert "mirrored at scales 1, 1.5" in one.gain and "times as long" in one.gain
    assert one.scores.seconds_per_image > 1.5 * one.plain.seconds_per_image
    values = json.loads(json.dumps(one.to_json(), allow_nan=False))
    assert values["plain"]["mean"] == plain.scores.mean
    assert values["views"] == {"flip": True, "scales": [1.0, 1.5]} and one.offer == ""
    assert draw_test(run, one).stat().st_size > 1000


def test_the_threshold_is_the_best_on_validation_and_knows_no_test_image(
    run: Run, camouflage: Path, tmp_path: Path
) -> None:
    found = validation_threshold(run, device="cpu")
    (held,) = judge(run, camouflage, split="validation", device="cpu", threshold=True)
    every = [held.scores.iou_at(level / 255) for level in range(256)]
    assert found.iou == pytest.approx(max(every)) == pytest.approx(every[round(found.value * 255)])
    assert held.threshold == found and "so a bound" in held.summary()
    spoiled = tmp_path / "spoiled"
    shutil.copytree(camouflage, spoiled)
    for path in (spoiled / "Test").rglob("*.png"):
        with Image.open(path) as image:
            inverted = 255 - np.asarray(image.convert("L"))
        Image.fromarray(inverted).save(path)
    for given in (spoiled, [spoiled], [str(spoiled)]):
        assert validation_threshold(run, given, device="cpu") == found
    (test,) = judge(run, camouflage, device="cpu", threshold=True)
    values = test.to_json()
    assert values["validation_threshold"]["value"] == found.value
    assert values["iou_at_validation_threshold"] == test.scores.iou_at(found.value)
    assert values["iou_at_validation_threshold"] <= test.scores.other["best_threshold_iou"]


def test_a_threshold_needs_the_runs_own_images(run: Run, copy: Path) -> None:
    with pytest.raises(InputError, match="nothing to score as 'validation'"):
        validation_threshold(run, copy, device="cpu")
    own = validation_threshold(run, device="cpu")
    assert validation_threshold(run, [copy], device="cpu") == own  # where the run was trained


def test_a_threshold_is_looked_for_in_the_data_given(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(run.load_json("summary")["data"]["root"])
    shutil.copytree(root, tmp_path / "moved")
    looked: list[Path] = []

    def choose(run: Run, folder: Path, *how: Any, **more: Any) -> Any:
        looked.append(folder)
        return choose_pairs(run, folder, *how, **more)

    monkeypatch.setattr(judging, "choose_pairs", choose)
    validation_threshold(run, [tmp_path / "moved"], device="cpu")
    assert looked == [tmp_path / "moved"]
    with pytest.raises(InputError, match="Give the data it was trained on too"):
        gone = Run(tmp_path / "alone")
        run.copy_to(gone.folder)
        gone.save_json("summary", {"data": {"root": "/not/here"}})
        validation_threshold(gone, [], device="cpu")
