"""Several runs as one: the mean of maps, on images that no member trained on."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from camoxpert_nb.cli import main as cli
from camoxpert_nb.data.identity import Split
from camoxpert_nb.data.images import read_map
from camoxpert_nb.data.layouts import find_datasets
from camoxpert_nb.data.pairs import Pair
from camoxpert_nb.data.reading import Reading
from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation import ensemble as ensembles
from camoxpert_nb.evaluation.ensemble import (
    MEAN,
    Ensemble,
    Together,
    judge_together,
    open_ensemble,
    together,
)
from camoxpert_nb.evaluation.judge import judge, open_predictor
from camoxpert_nb.evaluation.metrics import MEASURES
from camoxpert_nb.evaluation.predict import PLAIN, Prediction, Views
from camoxpert_nb.evaluation.repeated import held_out_pairs
from camoxpert_nb.evaluation.scores import Scores, build_scores
from camoxpert_nb.evaluation.which_images import Chosen
from camoxpert_nb.runs.repeat import Repeat
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config
from camoxpert_nb.training.fit import fit

Runs = dict[str, Run]


@pytest.fixture(scope="module")
def runs(camouflage: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    places = {"dataset_path": str(camouflage), "cache_dir": str(cache), "device": "cpu"}
    root = tmp_path_factory.mktemp("ensemble")
    other = {"backbone": "test_convnext", "img_size": 96}
    ways = {"one": {}, "two": {"seed": 7, **other}, "f1": {"fold": "1/2"}, "f2": {"fold": "2/2"}}
    made = {}
    for name, way in ways.items():
        config = make_config("tiny", epochs=1, checkpoint_dir=str(root / name), **places, **way)
        made[name] = fit(config)
    return made


def test_the_mean_of_maps_is_taken_at_the_masks_size(runs: Runs, camouflage: Path) -> None:
    (test,) = (found.test for found in find_datasets(camouflage))
    each = [open_predictor(runs[name], "cpu") for name in ("one", "two")]
    assert each[0].size != each[1].size
    maps = [[one.probability for one in predictor.predict(test)] for predictor in each]
    for mean, *alone in zip(Ensemble(each).predict(test), *maps, strict=True):
        np.testing.assert_allclose(mean.probability, (alone[0] + alone[1]) / 2, atol=1e-6)
        assert 0 <= mean.uncertainty <= 1


def test_members_score_as_alone_and_the_gain_is_paired(runs: Runs, camouflage: Path) -> None:
    pair = [runs["one"], runs["two"]]
    (found,) = judge_together(pair, camouflage, device="cpu")
    assert found.split == "test" and found.trained == 0
    for run in pair:
        (alone,) = judge(run, camouflage, device="cpu")
        own = found.members[str(run.folder)]
        assert own.mean == alone.scores.mean and own.n == found.scores.n
    rows = {row["against"]: row for row in found.gains()}
    means = [one.mean["iou"] for one in found.members.values()]
    gain = found.scores.mean["iou"] - sum(means) / 2
    assert rows[MEAN]["difference"] == pytest.approx(gain)
    assert rows[MEAN]["low"] <= gain <= rows[MEAN]["high"]
    assert sum(found.seconds.values()) == pytest.approx(found.scores.seconds_per_image)
    assert "hold together in 95 %" in found.summary()


def test_images_that_any_member_trained_on_do_not_judge(runs: Runs, camouflage: Path) -> None:
    (found,) = judge_together(
        [runs["one"], runs["f1"]], camouflage, split="validation", device="cpu"
    )
    splits = [Split.load(runs[name].load_json("split")) for name in ("one", "f1")]
    allowed = {*splits[0].validation, *splits[1].validation}
    allowed -= {*splits[0].train, *splits[1].train}
    assert found.scores.n == len(allowed) > 0 and found.trained == 0
    (whole,) = judge_together([runs["one"], runs["f1"]], camouflage, split="all", device="cpu")
    assert whole.trained == len({*splits[0].train, *splits[1].train})
    assert "WARNING" in whole.note and "no gain is proved" in whole.summary()


def test_of_folds_each_image_is_scored_by_who_held_it_out(runs: Runs, camouflage: Path) -> None:
    folds = [runs["f1"], runs["f2"]]
    (found,) = judge_together(folds, camouflage, split="validation", device="cpu")
    assert found.split == "out-of-fold" and not found.members and not found.gains()
    assert "no ensemble is scored" in found.summary()
    values = found.scores.per_image.set_index("name")["iou"]
    alone: dict[str, float] = {}
    for run in folds:
        (one,) = judge(run, camouflage, split="validation", device="cpu")
        alone |= dict(zip(one.scores.per_image["name"], one.scores.per_image["iou"], strict=True))
        assert {pair.name for pair in held_out_pairs(run)} == {pair.name for pair in one.pairs}
    assert dict(values) == pytest.approx(alone) and len(values) == len(alone)


def test_a_run_given_twice_is_refused(runs: Runs) -> None:
    with pytest.raises(InputError, match="given twice"):
        open_ensemble([runs["one"], runs["two"], runs["one"].folder], "cpu")


def test_commands_take_several_runs_and_the_folder_of_a_repeat(
    runs: Runs, camouflage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two, images = f"{runs['one'].folder} {runs['two'].folder}", camouflage / "Test" / "Image"
    files = f"--json {tmp_path / 'a.json'} --csv {tmp_path / 'a.csv'}"
    line = f"evaluate --run {two} --dataset-path {camouflage} --device cpu {files}"
    assert cli.main(shlex.split(line)) == 0
    assert len(json.loads((tmp_path / "a.json").read_text())["members"]) == 2
    assert "gain over the mean of its members" in capsys.readouterr().out
    assert cli.main(shlex.split(f"{line} --report")) == 2
    assert "--report is about one run" in capsys.readouterr().err
    line = f"predict --run {two} --input {images} --output {tmp_path / 'maps'} --device cpu"
    assert cli.main(shlex.split(line)) == 0
    maps = sorted((tmp_path / "maps").glob("*.png"))
    assert len(maps) == len([*images.iterdir()]) and read_map(maps[0]).max() > 0

    config, folder = make_config("tiny"), tmp_path / "all"
    Repeat(folder, "fold", (1, 2), config).save()
    for number in (1, 2):
        runs[f"f{number}"].copy_to(folder / f"fold-{number}-of-2")
    line = f"evaluate --run {folder} --dataset-path {camouflage} --device cpu"
    assert cli.main(shlex.split(line)) == 0 and "alone" in capsys.readouterr().out
    line = f"compare {folder} --dataset-path {camouflage} --device cpu"
    assert cli.main(shlex.split(line)) == 0
    said = capsys.readouterr().out
    assert "fold-2-of-2 against" in said and "1, 1" not in said.split("standard")[0]
    assert cli.main(shlex.split(f"export {folder}")) == 2
    assert "holds several runs: name one of them" in capsys.readouterr().err


# ---- by hand -------------------------------------------------------------------------------------


def scored(ious: list[float | None]) -> Scores:
    """Scores of images with these IoU (None: without an object)."""
    values = np.array([0.0 if iou is None else iou for iou in ious])
    rows = pd.DataFrame(dict.fromkeys(MEASURES, values))
    rows.insert(0, "name", [f"image-{number}" for number in range(len(rows))])
    rows["object_share"] = [0.0 if iou is None else 0.1 for iou in ious]
    rows = rows.assign(intersection=values, union=1.0, raw_mae=0.5, false_alarm=0.25)
    return build_scores(rows, dict.fromkeys(("e", "f", "iou"), np.repeat(values[:, None], 256, 1)))


def of_two(*ious: float | None, trained: int = 0) -> Together:
    """An ensemble whose members are worse by 0.1 and 0.3 in each image with an object."""
    less = {
        name: scored([None if iou is None else iou - by for iou in ious])
        for name, by in (("runs/a", 0.1), ("runs/b", 0.3))
    }
    seconds = {"runs/a": 0.5, "runs/b": 1.5}
    return Together("pond", "test split", "test", trained, scored([*ious]), less, seconds)


def prediction(name: str, *levels: float) -> Prediction:
    gates = np.ones((2, 7), np.float32)
    return Prediction(name, np.array([levels], np.float32), 0.5, gates, [gates], [])


def test_the_mean_of_maps_has_its_own_doubt_and_nothing_of_one_network() -> None:
    found = together([prediction("a", 0.25, 1.0), prediction("a", 0.75, 0.5)])
    assert found.name == "a" and found.probability.tolist() == [[0.5, 0.75]]
    assert found.probability.dtype == np.float32
    assert found.uncertainty == pytest.approx((0.25 + 0.1875) / 1.25)
    assert found.gates.shape == (0, 0) and found.gates.dtype == np.float32
    assert found.cells == found.deep == []
    assert together([prediction("a", 0.0, 0.0)]).uncertainty == 0.0
    assert together([prediction("a", 0.25, 0.0)]).uncertainty == 0.75


class Member:
    def __init__(self, *levels: float) -> None:
        self.levels, self.asked = levels, list[object]()

    def predict(self, images: list[str], views: object, seconds: object, unread: object) -> object:
        self.asked.append((images, views, unread))
        assert isinstance(seconds, list)
        seconds.append(self.levels[0])
        for image in images:
            yield prediction(image, *self.levels)


def test_all_members_are_asked_the_same_and_timed_apart() -> None:
    one, two = Member(0.25, 0.5), Member(0.75, 1.0)
    seconds, unread, views = [[], []], {}, Views(flip=True)  # type: ignore[var-annotated]
    ensemble = Ensemble([one, two])  # type: ignore[list-item]
    found = list(ensemble.each(["a", "b"], views, seconds, unread))  # type: ignore[list-item]
    assert [[each.name for each in pair] for pair in found] == [["a", "a"], ["b", "b"]]
    assert [each.probability.tolist() for each in found[0]] == [[[0.25, 0.5]], [[0.75, 1.0]]]
    assert seconds == [[0.25], [0.75]]
    assert one.asked == two.asked == [(["a", "b"], views, unread)]
    means = list(ensemble.predict(iter(["a", "b"]), unread=unread))  # type: ignore[arg-type]
    assert [mean.probability.tolist() for mean in means] == [[[0.5, 0.75]]] * 2
    list(ensemble.predict(["a"], views))  # type: ignore[list-item]
    assert one.asked[1:] == two.asked[1:] == [(["a", "b"], PLAIN, unread), (["a"], views, None)]


def test_gains_are_over_the_members_mean_and_over_each() -> None:
    """By 0.1 and 0.3 in each image with an object, so by 0.2 over their mean, without spread."""
    rows = of_two(0.5, None, 0.7).gains()
    assert [row["against"] for row in rows] == [MEAN, "runs/a", "runs/b"]
    for row, gain in zip(rows, (0.2, 0.1, 0.3), strict=True):
        assert [*row] == ["against", "difference", "low", "high"]
        assert [row[key] for key in ("difference", "low", "high")] == pytest.approx([gain] * 3)
    assert of_two(0.5, None).gains() == [] and len(of_two(0.5, 0.6).gains()) == 3
    assert of_two(0.5).confidence == pytest.approx(1 - 0.05 / 3)


TOO_FEW = "2 images are too few to tell a gain from chance: take 7 or more."
TOLD = (
    "Intervals are paired, over 7 images, and hold together in 95 % of cases: one that holds 0 "
    "tells no gain. The best member was not known before these images were scored."
)


def test_an_ensemble_is_told_with_its_members_gains_and_cost() -> None:
    found = of_two(0.5, 0.7, None)
    assert found.summary() == (
        f"pond: test split\n{found.scores.summary()}\n"
        "  alone: runs/a: IoU 0.5000, 0.5000 seconds\n"
        "  alone: runs/b: IoU 0.3000, 1.5000 seconds\n"
        "  gain over the mean of its members: IoU +0.2000 (+0.2000 to +0.2000)\n"
        "  gain over runs/a: IoU +0.1000 (+0.1000 to +0.1000)\n"
        "  gain over runs/b: IoU +0.3000 (+0.3000 to +0.3000)\n"
        f"  {TOO_FEW}\n"
        "  all members take 2.0 times as long as one"
    )
    alone = of_two(0.5)
    assert alone.summary().split("\n")[-2:] == [
        "  alone: runs/b: IoU 0.2000, 1.5000 seconds",
        "  all members take 2.0 times as long as one",
    ]
    still = replace(alone, seconds=dict.fromkeys(alone.members, 0.0))
    assert still.summary().endswith("  all members take 1.0 times as long as one")
    folds = replace(found, split="out-of-fold", members={}, seconds={})
    assert folds.summary() == (
        f"pond: test split\n{found.scores.summary()}\n"
        "  no ensemble is scored: no image is new to all members"
    )


def test_what_intervals_mean_depends_on_images_and_training() -> None:
    found = of_two(0.5)
    assert [found.meaning(n) for n in (2, 7)] == [TOO_FEW, TOLD]
    assert found.meaning(6) == TOO_FEW.replace("2 images", "6 images")
    assert of_two(0.5, trained=3).meaning(100) == (
        "WARNING: 3 of these images trained a member: no gain is proved."
    )


def test_values_of_an_ensemble_hold_each_members_mean_and_the_sets_note() -> None:
    found = of_two(0.5, 0.7)
    values = found.to_json()
    assert (values["name"], values["note"], values["split"], values["trained"]) == (
        *("pond", "test split", "test", 0),
    )
    assert values["members"] == {
        "runs/a": {"mean": found.members["runs/a"].mean, "seconds_per_image": 0.5},
        "runs/b": {"mean": found.members["runs/b"].mean, "seconds_per_image": 1.5},
    }
    assert values["gains"] == found.gains() and values["mean"] == found.scores.mean


def test_runs_given_twice_are_named_once(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with pytest.raises(InputError) as caught:
        open_ensemble([one, str(two), Run(one), two, two])
    assert str(caught.value) == (
        f"{one}, {two} is given twice: the mean would count it twice. Give each run once."
    )


def test_members_are_opened_and_images_chosen_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    sets = [
        Chosen("pond", [], "", "test", 0),
        Chosen("folds", [], "", "out-of-fold", 0),
    ]

    def choose(*words: Any) -> Any:
        told.append(words)
        return [], sets

    monkeypatch.setattr(ensembles, "open_predictor", lambda run, *how: (run.folder, *how))
    monkeypatch.setattr(ensembles, "chosen_sets", choose)
    for name in ("_all_by_all", "_each_by_its_holders"):
        monkeypatch.setattr(ensembles, name, lambda *words, name=name, **how: (name, *words, how))
    two = [Run(tmp_path / "one"), Run(tmp_path / "two")]
    places = [run.folder for run in two]
    every = Ensemble([(place, "auto", "best") for place in places])  # type: ignore[misc]
    how = {"views": PLAIN, "progress": None}
    assert judge_together(two, tmp_path) == [
        ("_all_by_all", every, sets[0], two, how),
        ("_each_by_its_holders", every, sets[1], two, how),
    ]
    assert told == [(two, tmp_path, "auto", False, None)]
    more: dict[str, Any] = {"split": "all", "noncam": True, "reading": Reading(), "which": "last"}
    how = {"views": Views(flip=True), "progress": print}
    first, _ = judge_together(two, tmp_path, device="cpu", **more, **how)
    assert first[1] == Ensemble([(place, "cpu", "last") for place in places])  # type: ignore[misc]
    assert first[4] == how and told[1] == (two, tmp_path, "all", True, Reading())


LEFT = np.zeros((4, 8), np.float32)
LEFT[1:3, 1:5] = 1


class Finds:
    """Finds the left object in the images named, elsewhere nothing; slower from batch to batch."""

    def __init__(self, seconds: float, *names: str) -> None:
        self.seconds, self.names, self.asked = seconds, names, list[Any]()

    def predict(self, images: Any, views: Any, seconds: Any, unread: Any = None) -> Any:
        self.asked.append(([each.name for each in images], views, unread))
        for place, image in enumerate(images):
            seconds.append(self.seconds * (1, 2, 9)[place])
            found = LEFT * (image.name in self.names)
            yield Prediction(image.name, found, 0.0, np.empty((0, 0), np.float32), [], [])


@pytest.fixture
def three(tmp_path: Path) -> list[Pair]:
    """Three images with the same object on the left."""
    made = []
    for name in "abc":
        files = [tmp_path / f"{name}.{kind}" for kind in ("jpg", "png")]
        Image.new("RGB", (8, 4)).save(files[0])
        Image.fromarray((255 * LEFT).astype(np.uint8)).save(files[1])
        made.append(Pair(name, *files, "x"))
    return made


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many threads were asked for, of 3."""
    asked, whole = list[int](), ensembles.in_order

    def ordered(function: Any, items: Any, *, workers: int) -> Any:
        asked.append(workers)
        return whole(function, items, workers=workers)

    monkeypatch.setattr(ensembles, "in_order", ordered)
    monkeypatch.setattr(ensembles, "cores", lambda: 3)
    return asked


def test_the_mean_and_each_member_are_scored_by_hand(three: list[Pair], threads: list[int]) -> None:
    """Half of the weight suffices: stretched, the mean of one that finds and one that does not."""
    one, two, told = Finds(0.5, "a", "b"), Finds(1.0, "b"), []
    runs = [Run(Path("runs/one")), Run(Path("runs/two"))]
    chosen = Chosen("pond", three, "note", "test", 2)
    views = Views(flip=True)
    found = ensembles._all_by_all(
        Ensemble([one, two]),  # type: ignore[list-item]
        chosen,
        runs,
        views=views,
        progress=lambda *now: told.append(now),
    )
    assert (found.name, found.note, found.split, found.trained) == ("pond", "note", "test", 2)
    assert found.scores.per_image["iou"].tolist() == [1, 1, 0]
    ious = {name: each.per_image["iou"].tolist() for name, each in found.members.items()}
    assert ious == {"runs/one": [1, 1, 0], "runs/two": [0, 1, 0]}
    assert found.scores.per_image["name"].tolist() == ["a", "b", "c"]
    assert found.seconds == {"runs/one": 1.0, "runs/two": 2.0}  # medians of 1, 2 and 9 times
    assert found.scores.seconds_per_image == 3.0
    assert [each.seconds_per_image for each in found.members.values()] == [1.0, 2.0]
    assert one.asked == two.asked == [(["a", "b", "c"], views, None)]
    assert told == [(1, 3), (2, 3), (3, 3)] and threads == [3]


def test_each_image_is_scored_by_those_alone_that_held_it_out(
    three: list[Pair], threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Finds(0.5, "a", "c"), Finds(1.0, "b")
    monkeypatch.setattr(ensembles, "holders", lambda runs, pairs: [(0,), (1,), (0,)])
    found = ensembles._each_by_its_holders(
        Ensemble([one, two]),  # type: ignore[list-item]
        Chosen("pond", three, "note", "out-of-fold", 0),
        [],
        views=PLAIN,
        progress=None,
    )
    assert one.asked == [(["a", "c"], PLAIN, None)] and two.asked == [(["b"], PLAIN, None)]
    assert found.scores.per_image["name"].tolist() == ["a", "b", "c"]
    assert found.scores.per_image["iou"].tolist() == [1, 1, 1]
    assert (found.name, found.note, found.split, found.trained) == (
        *("pond", "note", "out-of-fold", 0),
    )
    assert (found.members, found.seconds, found.scores.seconds_per_image) == ({}, {}, None)
    assert threads == [3, 3]
