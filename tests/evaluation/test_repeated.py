"""Several runs of the same settings: means and spreads that were worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from camoxpert_nb.data.identity import Split
from camoxpert_nb.data.layouts import find_datasets
from camoxpert_nb.data.pairs import is_noncam
from camoxpert_nb.data.selection import select
from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation import repeated
from camoxpert_nb.evaluation.metrics import MEASURES
from camoxpert_nb.evaluation.repeated import (
    SHOWN,
    Repeated,
    held_out_pairs,
    score_repeat,
    summed_up,
)
from camoxpert_nb.evaluation.scores import Scores, build_scores
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config


def scored(values: list[float | None]) -> Scores:
    """Scores of images with these IoU (None: without an object); MAE is a tenth of it."""
    ious = [0.0 if value is None else value for value in values]
    rows = pd.DataFrame(dict.fromkeys(MEASURES, ious)).assign(mae=[each / 10 for each in ious])
    rows.insert(0, "name", [f"image-{number}" for number in range(len(rows))])
    rows["object_share"] = [0.0 if value is None else 0.1 for value in values]
    rows = rows.assign(intersection=1.0, union=2.0, raw_mae=0.5, false_alarm=0.25)
    curves = np.repeat(np.array(ious)[:, None], 256, 1)
    return build_scores(rows, dict.fromkeys(("e", "f", "iou"), curves))


def member(folder: Path, train: str, validation: str, seconds: float = 90.0) -> Run:
    """A finished run, whose images are letters."""
    run = Run(folder)
    folder.mkdir()
    run.save_json("summary", {"seconds": seconds, "epochs": 7})
    sides = {"train": dict(zip(train, train, strict=True))}
    sides["validation"] = dict(zip(validation, validation, strict=True))
    run.save_json("split", {"format": 2, **sides, "masks": {}, "gone": [], "looks": {}})
    return run


def test_folds_are_summed_up_by_members_and_by_images(tmp_path: Path) -> None:
    runs = {"one": member(tmp_path / "1", "d", "abc"), "two": member(tmp_path / "2", "abc", "d")}
    scores = {"one": scored([0.2, 0.4, None]), "two": scored([0.9])}
    found = summed_up("fold", runs, scores)
    rows = [
        {key: row[key] for key in ("member", "images", "epochs", "minutes")} for row in found.rows
    ]
    assert rows == [
        {"member": "one", "images": 3, "epochs": 7, "minutes": 1.5},
        {"member": "two", "images": 1, "epochs": 7, "minutes": 1.5},
    ]
    assert [row["iou"] for row in found.rows] == pytest.approx([0.3, 0.9])  # with an object alone
    assert found.mean["iou"] == pytest.approx(0.6)
    assert found.sd["iou"] == pytest.approx(0.6 / 2**0.5)  # of n - 1
    assert (found.mean["mae"], found.sd["mae"]) == pytest.approx((0.06, 0.06 / 2**0.5))
    assert found.images == 3 and set(found.pooled) == set(SHOWN)
    assert found.pooled["iou"][0] == pytest.approx(0.5)  # (0.2 + 0.4 + 0.9) / 3
    assert found.notes == [] and found.meaning.startswith("The standard deviation (n - 1) is over")


def test_the_interval_is_that_of_the_mean_and_not_of_the_images(tmp_path: Path) -> None:
    """Half of 100 images score 0.2, half 0.8: the error of their mean is 0.3 / 10."""
    runs = {"one": member(tmp_path / "1", "b", "a"), "two": member(tmp_path / "2", "a", "b")}
    found = summed_up("fold", runs, dict.fromkeys(runs, scored([0.2, 0.8] * 25)))
    mean, bounds = found.pooled["iou"]
    assert mean == pytest.approx(0.5) and bounds is not None and found.images == 100
    assert bounds == pytest.approx((0.5 - 1.96 * 0.03, 0.5 + 1.96 * 0.03), abs=0.01)
    alone = summed_up("fold", {"one": runs["one"]}, {"one": scored([0.7, None])})
    assert alone.pooled["iou"] == (pytest.approx(0.7), None) and alone.sd["iou"] is None
    assert summed_up("fold", {"one": runs["one"]}, {"one": scored([None])}).pooled == {}


def test_over_seeds_nothing_is_pooled(tmp_path: Path) -> None:
    runs = {name: member(tmp_path / name, "ab", "c") for name in ("1", "2")}
    found = summed_up("seed", runs, dict.fromkeys(runs, scored([0.5, 0.6])))
    assert (found.pooled, found.images, found.notes) == ({}, 0, [])
    assert found.meaning.startswith("The standard deviation (n - 1) says how far a single training")
    assert "pooled" not in found.to_json()


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        ([("bcd", "a"), ("acd", "b")], ["2 images are scored by no member"]),
        ([("bc", "a"), ("ac", "b"), ("ab", "c")], []),
        ([("c", "ab"), ("a", "bc")], ["1 images are scored by several members"]),
        ([("cd", "ab"), ("ad", "bc")], ["1 images are scored by no", "1 images are scored by sev"]),
    ],
)
def test_images_that_no_fold_or_several_score_are_named(
    tmp_path: Path, sides: list[tuple[str, str]], said: list[str]
) -> None:
    runs = {str(n): member(tmp_path / str(n), *side) for n, side in enumerate(sides)}
    notes = summed_up("fold", runs, dict.fromkeys(runs, scored([0.5]))).notes
    assert len(notes) == len(said)
    assert all(words in note for words, note in zip(said, notes, strict=True))


@pytest.fixture
def run(camouflage: Path, tmp_path: Path) -> Run:
    """A run that trained on all images but for six, some of which show no object."""
    made = Run(tmp_path / "run")
    made.folder.mkdir()
    made.save_config(make_config("tiny", dataset_path=str(camouflage), noncam=True))
    made.save_json("summary", {"data": {"root": str(camouflage)}})
    return made


def hold_out(run: Run, camouflage: Path, count: int) -> list[Any]:
    every = [*select(find_datasets(camouflage), noncam=True).train]
    empty = [pair for pair in every if is_noncam(pair)]
    others = [pair for pair in every if not is_noncam(pair)]
    held, rest = [*empty[:2], *others[:count]], [*empty[2:], *others[count:]]
    run.save_json("split", Split.of(rest, held, camouflage).after(Split({}, {})))
    return held


def test_a_member_is_scored_on_what_it_held_out(run: Run, camouflage: Path) -> None:
    held = hold_out(run, camouflage, 4)
    assert sum(map(is_noncam, held)) == 2
    assert {pair.name for pair in held_out_pairs(run)} == {pair.name for pair in held}


def test_a_copy_of_a_held_out_image_counts_once(
    run: Run, camouflage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = hold_out(run, camouflage, 4)
    own = select(find_datasets(camouflage), noncam=True)
    twice = replace(own, train=(*own.train, held[0]._replace(name="copy")))
    monkeypatch.setattr(repeated, "select", lambda sets, noncam: twice)
    assert len(held_out_pairs(run)) == len(held)


def test_where_nothing_that_was_held_out_is_left_it_is_said(run: Run, tmp_path: Path) -> None:
    run.save_json("split", {"format": 2, "train": {}, "validation": {"0123": "gone.jpg"}})
    with pytest.raises(InputError, match="none of the 1 images"):
        held_out_pairs(run)


def of_two_folds() -> Repeated:
    def row(name: str, value: float | None, epochs: int | None) -> dict[str, Any]:
        return {
            "member": name,
            **dict.fromkeys(SHOWN, value),
            "images": 3,
            "epochs": epochs,
            "minutes": 1.25,
        }

    means: dict[str, float | None] = dict.fromkeys(SHOWN, 0.5)
    nothing: dict[str, float | None] = dict.fromkeys(SHOWN)
    pooled = {"iou": (0.5, (0.25, 0.75)), "mae": (0.125, None)}
    rows = [row("one", 0.25, 7), row("two", None, None)]
    return Repeated("fold", rows, means, nothing, pooled, 4, ["NOTE: so.", "NOTE: and so."])


def test_members_means_and_spreads_are_a_row_each() -> None:
    table = of_two_folds().table()
    assert [*table] == ["member", *SHOWN, "images", "epochs", "minutes"]
    assert table["member"].tolist() == ["one", "two", "mean", "standard deviation"]
    assert table["mae"].tolist()[::2] == [0.25, 0.5] and table["mae"].isna().tolist()[1::2] == [
        True,
        True,
    ]
    assert table["images"].tolist()[:2] == [3, 3] and table["images"].isna().tolist()[2:] == [
        True,
        True,
    ]


def test_what_folds_reached_is_told_with_empty_cells_for_what_is_not_known() -> None:
    number = "0.2500               0.2500      0.2500          0.2500  0.2500"
    assert of_two_folds().summary().split("\n") == [
        "member                 IoU  S-measure (S_alpha)  weighted F  mean E (E_phi)     MAE  "
        "images  epochs  minutes",
        f"one                 {number}       3       7      1.2",
        "two" + " " * 87 + "3              1.2",
        "mean                " + number.replace("0.25", "0.50"),
        "standard deviation",
        "The standard deviation (n - 1) is over folds that differ in the images they trained on "
        "and in those they are scored on; it is no error of the mean, as folds share most of their "
        "training images (Bengio and Grandvalet, 2004).",
        "All 4 images with an object together. Each image is scored by the one member that held "
        "it out. The interval (95 %, bootstrap over the images) says how far that mean would move "
        "with other images of this kind.",
        "  IoU                 0.5000 (0.2500 to 0.7500)",
        "  MAE                 0.1250",
        "NOTE: so.",
        "NOTE: and so.",
    ]


def test_what_seeds_reached_is_told_without_pooling() -> None:
    alone = replace(of_two_folds(), by="seed", pooled={}, images=0, notes=[])
    assert alone.summary().split("\n")[5:] == [
        "The standard deviation (n - 1) says how far a single training of these settings lies from "
        "their mean where nothing but the seed differs; it says nothing about other images."
    ]
    assert [*alone.to_json()] == ["by", "members", "mean", "sd", "meaning", "notes"]


def test_a_cell_without_a_value_is_empty() -> None:
    assert [repeated._text(value, 2) for value in (None, float("nan"), np.nan)] == ["", "", ""]
    assert [repeated._text(1.256, digits) for digits in (0, 1, 2)] == ["1", "1.3", "1.26"]
    assert repeated._text(0.0, 4) == "0.0000"


def test_results_are_plain_values_under_their_names() -> None:
    found = of_two_folds()
    assert found.to_json() == {
        "by": "fold",
        "members": found.rows,
        "mean": dict.fromkeys(SHOWN, 0.5),
        "sd": dict.fromkeys(SHOWN),
        "meaning": found.meaning,
        "notes": ["NOTE: so.", "NOTE: and so."],
        "pooled": {
            "iou": {"mean": 0.5, "interval": (0.25, 0.75)},
            "mae": {"mean": 0.125, "interval": None},
        },
        "pooled_images": 4,
    }


def test_notes_about_folds_are_whole_sentences(tmp_path: Path) -> None:
    runs = {"1": member(tmp_path / "1", "cd", "ab"), "2": member(tmp_path / "2", "ad", "bc")}
    assert summed_up("fold", runs, dict.fromkeys(runs, scored([0.5]))).notes == [
        "NOTE: 1 images are scored by no member that is here.",
        "NOTE: 1 images are scored by several members: the data changed between them.",
    ]


def test_a_member_without_times_has_none(tmp_path: Path) -> None:
    run = member(tmp_path / "1", "a", "b")
    for summary, minutes, epochs in (({}, 0.0, None), ({"seconds": 100, "epochs": 3}, 1.67, 3)):
        run.save_json("summary", summary)
        (row,) = summed_up("seed", {"one": run}, {"one": scored([0.5])}).rows
        assert (row["minutes"], row["epochs"], row["iou"]) == (minutes, epochs, 0.5)
        assert row["mae"] == pytest.approx(0.05)


def test_each_member_is_opened_and_scored_on_what_it_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {name: member(tmp_path / name, "a", "b") for name in ("one", "two")}
    told: list[Any] = []

    def evaluated(predictor: object, pairs: object, progress: object) -> Scores:
        told.append((predictor, pairs, progress))
        return scored([0.25 * len(told)])

    monkeypatch.setattr(repeated, "open_predictor", lambda run, device: (run, device))
    monkeypatch.setattr(repeated, "held_out_pairs", lambda run: ["held by", run])
    monkeypatch.setattr(repeated, "evaluate", evaluated)
    found, scores = score_repeat("seed", runs, "cpu", progress=print)
    one, two = runs.values()
    assert told == [
        ((one, "cpu"), ["held by", one], print),
        ((two, "cpu"), ["held by", two], print),
    ]
    assert [scores[name].mean["iou"] for name in ("one", "two")] == [0.25, 0.5]
    assert (found.by, found.mean["iou"]) == ("seed", 0.375)
    score_repeat("seed", {"one": one})
    assert told[2] == ((one, "auto"), ["held by", one], None)
    with pytest.raises(InputError) as caught:
        score_repeat("seed", {})
    said = "No member is there to be scored: train one to its end first."
    assert str(caught.value) == said


def test_where_nothing_is_left_the_sentence_names_folder_run_and_count(
    run: Run, camouflage: Path
) -> None:
    held = {letter: f"{letter}.jpg" for letter in "0123"}
    run.save_json("split", {"format": 2, "train": {}, "validation": held})
    with pytest.raises(InputError) as caught:
        held_out_pairs(run)
    assert str(caught.value) == (
        f"{camouflage} holds none of the 4 images that {run.folder} held out: put them back where "
        "the run trained on them, so that it can be scored."
    )


def test_images_without_an_object_are_held_out_where_the_run_trained_on_such(
    run: Run, camouflage: Path
) -> None:
    held = hold_out(run, camouflage, 4)
    assert len(held_out_pairs(run)) == len(held) == 6
    run.save_config(make_config("tiny", dataset_path=str(camouflage), noncam=False))
    assert len(held_out_pairs(run)) == 4


def test_the_pooled_interval_is_of_each_measure_by_itself(tmp_path: Path) -> None:
    """MAE is a tenth of the IoU in these images, and so are mean and bounds."""
    runs = {"one": member(tmp_path / "1", "b", "a")}
    pooled = summed_up("fold", runs, {"one": scored([0.2, 0.4, 0.9, None])}).pooled
    (iou, of_iou), (mae, of_mae) = pooled["iou"], pooled["mae"]
    assert iou == pytest.approx(0.5) and mae == pytest.approx(0.05)
    assert of_iou is not None and of_mae == pytest.approx([each / 10 for each in of_iou])
    assert of_iou[0] == pytest.approx(0.2) and of_iou[1] == pytest.approx(0.9)
