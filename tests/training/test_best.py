"""The best epoch is chosen above the noise, and the run says what it kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.best import choose_weights, is_as_good, last_better, update_best
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.validate import Validation


def scored(*ious: float) -> Validation:
    return Validation(float(np.mean(ious)), 0.1, ious, 0)


LOW, HIGH = scored(0.2, 0.3, 0.4, 0.5), scored(0.5, 0.6, 0.7, 0.8)


def test_an_epoch_is_as_good_within_the_paired_error_of_the_mean() -> None:
    """Differences of .02, -.01, .03, -.02: mean .005, standard error .0119."""
    assert is_as_good((0.50, 0.50, 0.50, 0.50), (0.52, 0.49, 0.53, 0.48))
    assert not is_as_good((0.50, 0.50, 0.50, 0.50), (0.52, 0.53, 0.53, 0.52))
    assert is_as_good((0.5,), (0.5,)) and not is_as_good((0.4,), (0.5,))
    assert is_as_good((), ())


def test_a_later_epoch_is_taken_unless_an_earlier_one_was_better_by_more_than_chance() -> None:
    best, taken = update_best({}, 1, "raw", LOW)
    assert taken and (best["epoch"], best["highest"]["epoch"]) == (1, 1)
    best, taken = update_best(best, 2, "ema", HIGH)
    assert taken and (best["epoch"], best["weights"]) == (2, "ema")
    near = scored(0.55, 0.55, 0.72, 0.76)
    best, taken = update_best(best, 3, "raw", near)
    assert taken and best["epoch"] == 3
    assert best["highest"] == {"epoch": 2, "iou": HIGH.iou}
    best, taken = update_best(best, 4, "raw", LOW)
    assert not taken and (best["epoch"], best["highest"]["epoch"]) == (3, 2)
    best, taken = update_best(best, 5, "raw", LOW, keep="last")
    assert taken and best["epoch"] == 5


def test_small_steps_down_do_not_add_up() -> None:
    """Each epoch is within the error of the one before, but not of the highest."""
    best: dict[str, Any] = {}
    kept = []
    for epoch in range(1, 12):
        drop = 0.01 * (epoch - 1)
        wobble = [0.02 * (-1) ** (index + epoch) for index in range(6)]
        ious = [0.7 - drop + each for each in wobble]
        best, taken = update_best(best, epoch, "raw", scored(*ious))
        kept += [epoch] * taken
    assert kept[0] == 1 and kept[-1] < 6


def test_the_best_of_an_older_kit_is_a_mean_to_beat() -> None:
    old = {"epoch": 4, "iou": 0.6, "weights": "raw"}
    assert update_best(old, 5, "raw", LOW) == (old, False)
    best, taken = update_best(old, 6, "raw", HIGH)
    assert taken and best["epoch"] == 6


def test_the_average_is_taken_unless_the_raw_weights_are_better_by_more_than_chance() -> None:
    assert choose_weights({"raw": HIGH}) == "raw"
    assert choose_weights({"raw": HIGH, "ema": scored(0.5, 0.61, 0.7, 0.78)}) == "ema"
    assert choose_weights({"raw": HIGH, "ema": LOW}) == "raw"


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_run_says_what_it_kept(tiny: Config, keep: str) -> None:
    run = fit(tiny.replace(epochs=3, keep=keep))
    best, records = run.load_json("summary")["best"], run.records("epoch")
    assert best["epoch"] == [record["epoch"] for record in records if record["best"]][-1]
    assert run.load("best")["epoch"] == best["epoch"]
    if keep == "last":
        assert best["epoch"] == 3
    highest = max(max(r["iou"], r["iou_ema"]) for r in records)
    assert best["highest"]["iou"] <= highest + 1e-9


def test_the_error_is_that_of_a_sample() -> None:
    """Differences of .1115, -.0885, .1115, .0415: mean .044, error .0472 by n - 1, .0408 by n."""
    ious = (0.5, 0.5, 0.5, 0.5)
    others = tuple(0.5 + each for each in (0.1115, -0.0885, 0.1115, 0.0415))
    assert is_as_good(ious, others)
    assert not is_as_good(ious, tuple(each + 0.004 for each in others))
    assert is_as_good((0.5, float("nan")), (0.5, 0.0))  # no number finds nothing
    assert not is_as_good((float("nan"),) * 3, (0.2, 0.2, 0.2))
    assert is_as_good((0.2, 0.2), (float("nan"), float("nan")))


def test_what_is_above_what_is_held_is_taken_though_a_higher_one_is_gone() -> None:
    """The highest was on the same images, and its weights were not kept."""
    best, _ = update_best({}, 1, "raw", HIGH)
    best, _ = update_best(best, 2, "raw", LOW, keep="last")
    assert (best["epoch"], best["highest"]["epoch"]) == (2, 1)
    best, taken = update_best(best, 3, "ema", scored(0.21, 0.31, 0.41, 0.51))
    assert taken and (best["epoch"], best["weights"]) == (3, "ema")
    assert best["highest"] == {"epoch": 1, "iou": HIGH.iou}


def test_of_equal_scores_the_later_is_the_highest_and_other_images_begin_anew() -> None:
    best, _ = update_best({}, 1, "raw", HIGH)
    best, _ = update_best(best, 2, "raw", HIGH)
    assert best["highest"]["epoch"] == 2 and best["better"]["epoch"] == 1
    best, _ = update_best(best, 3, "raw", scored(0.1, 0.2))  # other images
    assert best["highest"] == {"epoch": 3, "iou": pytest.approx(0.15)}
    assert best["ious"] == [0.1, 0.2]


def test_better_is_told_from_higher() -> None:
    """A score within the error is the highest, and no better one."""
    best, _ = update_best({}, 1, "raw", scored(0.5, 0.6, 0.7, 0.8))
    best, _ = update_best(best, 2, "raw", scored(0.56, 0.58, 0.72, 0.79))
    assert best["highest"]["epoch"] == 2 and last_better(best)["epoch"] == 1
    best, _ = update_best(best, 3, "raw", scored(0.6, 0.7, 0.8, 0.9))
    assert last_better(best)["epoch"] == 3
