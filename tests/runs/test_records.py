"""The figures of a training against sums done by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from camoxpert_nb.runs.history import behind, finite, is_after, kept_epoch, score_of
from camoxpert_nb.runs.records import in_words, performance, seconds_per_image

CONFIG = {"batch_size": 16, "stage2_batch_size": 12, "accumulation_steps": 2, "target_iou": 0.72}
GPUS = ["GPU 0: T4, 14.6 GiB", "GPU 1: T4, 14.6 GiB"]


def epoch(number: int, seconds: float, iou: float, **more: object) -> dict:
    speeds = {"images_per_second": 600 / seconds, "data_wait_percent": 10.0 * number}
    times = {"time": 1000.0 + 100 * number, "seconds": seconds}
    return {"epoch": number, "iou": iou, "iou_ema": None, **times, **speeds, **more}


EPOCHS = [
    epoch(1, 60.0, 0.5),
    epoch(2, 30.0, 0.70, iou_ema=0.73, gpu_percent=[90.0, 80.0]),
    epoch(3, 30.0, 0.71, gpu_percent=[100.0, 90.0]),
]


def test_figures_are_those_of_the_records() -> None:
    found = performance(EPOCHS, CONFIG, GPUS)
    assert found["batch_per_device"] == [16, 12]
    assert found["effective_batch"] == [64, 48]
    assert found["minutes_per_epoch"] == 0.5
    assert found["minutes_per_epoch_in_all"] == pytest.approx(100 / 60)
    assert found["images_per_second"] == pytest.approx(1800 / 120)  # not the mean of 10, 20, 20
    assert found["data_wait_percent"] == pytest.approx((10 * 60 + 20 * 30 + 30 * 30) / 120)
    assert found["gpu_percent"] == [95.0, 85.0]
    assert (found["minutes_to_target"], found["epoch_of_target"]) == (1.5, 2)
    assert (found["best_iou"], found["best_epoch"]) == (0.73, 2)


def test_a_stage_that_was_not_trained_is_as_slow_as_the_slowest_known() -> None:
    records = [
        {"stage": "decoder", "images_per_second": 50.0},
        {"stage": "decoder", "images_per_second": 40.0},  # the last epoch counts
        {"stage": "top", "images_per_second": 20.0},
    ]
    names = {0: "decoder", 1: "top", 2: "more", 4: "all"}
    stages = [{"name": name, "open_blocks": key, "area": 1.0} for key, name in names.items()]
    found = seconds_per_image(records, stages, devices=2)
    assert found == {0: 0.05, 1: 0.1, 2: 0.1, 4: 0.1}


def test_what_was_not_reached_or_measured_is_said_so() -> None:
    found = performance(EPOCHS[:1], {**CONFIG, "stage2_batch_size": None}, ["CPU: 2 cores"])
    assert found["effective_batch"] == [32, 32]
    assert found["minutes_to_target"] is None and found["gpu_percent"] is None
    said = in_words(found)
    assert said["training time to IoU 0.72"] == "not reached"
    assert said["GPU busy"] == "not measured"
    assert said["effective batch"] == "32"


def test_a_run_without_an_epoch_has_no_figures_but_a_row() -> None:
    said = in_words(performance([], CONFIG, GPUS))
    assert said["epochs"] == "0"
    assert said["best validation IoU"] == said["images/s"] == "not measured"


def test_the_row_names_both_stages_and_the_epoch() -> None:
    said = in_words(performance(EPOCHS, CONFIG, GPUS))
    assert said["effective batch"] == "64 (stage one), 48 (two)"
    assert said["training time to IoU 0.72"] == "1.5 min (epoch 2)"
    assert said["best validation IoU"] == "0.730 (epoch 2)"


def scored(epoch: int, iou: float, ema: float | None = None, **more: Any) -> dict[str, Any]:
    return {"kind": "epoch", "epoch": epoch, "iou": iou, "iou_ema": ema, **more}


def test_the_best_epoch_is_the_one_whose_weights_were_kept() -> None:
    # A later one, lower by less than chance, was kept: it is not the highest.
    epochs = [scored(1, 0.3, 0.4, best=True), scored(2, 0.3, 0.38, best=True), scored(3, 0.2, 0.1)]
    assert kept_epoch(epochs) == (1, 0.38, (0, 0.4))
    figures = performance(epochs, {"batch_size": 1, "target_iou": 0.7}, [])
    assert (figures["best_iou"], figures["best_epoch"]) == (0.38, 2)


def test_the_distance_to_the_highest_is_told_where_another_epoch_is_kept() -> None:
    assert behind(10, 0.451, 5, 0.46) == ", within 0.009 of the highest, epoch 5"
    assert behind(10, 0.4596, 5, 0.46) == ", as good as the highest, epoch 5"
    assert behind(5, 0.46, 5, 0.46) == behind(6, 0.46, 5, 0.46) == ""


def test_the_score_is_of_the_weights_that_were_judged() -> None:
    assert score_of(scored(1, 0.5, 0.4, weights="ema")) == 0.4
    assert score_of(scored(1, 0.5, 0.6, weights="raw")) == 0.5
    assert score_of(scored(1, 0.5, 0.6)) == 0.6  # of an older kit


def test_without_a_mark_the_highest_counts_and_scores_over_other_images_never() -> None:
    assert kept_epoch([]) is None
    assert kept_epoch([{"kind": "epoch", "epoch": 1}]) is None
    assert kept_epoch([scored(1, 0.4), scored(2, 0.5), scored(3, 0.3)]) == (1, 0.5, (1, 0.5))
    other = [scored(1, 0.9, best=True, validation="a"), scored(2, 0.5, validation="b")]
    assert kept_epoch(other) == (1, 0.5, (1, 0.5))


def of_epoch(number: int, iou: float, seconds: float, **more: Any) -> dict[str, Any]:
    return {"kind": "epoch", "epoch": number, "iou": iou, "seconds": seconds, **more}


def test_figures_of_three_epochs_by_hand() -> None:
    """A run that began with epoch 4, whose target is met exactly by the second of its epochs."""
    epochs = [
        of_epoch(4, 0.5, 60, iou_ema=0.4, time=100, images_per_second=10, data_wait_percent=30),
        of_epoch(5, 0.6, 60, iou_ema=0.7, time=170, images_per_second=10, weights="ema", best=True),
        of_epoch(6, 0.9, 300, time=500, images_per_second=31, data_wait_percent=30, weights="raw"),
    ]
    config = {"batch_size": 8, "stage2_batch_size": 6, "accumulation_steps": 3, "target_iou": 0.7}
    found = performance(epochs, config, ["GPU 0", "GPU 1"])
    assert found["batch_per_device"] == [8, 6] and found["effective_batch"] == [48, 36]
    assert (found["minutes_to_target"], found["epoch_of_target"]) == (2.0, 5)
    assert (found["best_iou"], found["best_epoch"]) == (0.7, 5)  # that is marked, not the highest
    assert found["minutes_per_epoch"] == 1.0  # the median
    assert found["minutes_per_epoch_in_all"] == pytest.approx((70 + 330) / 2 / 60)
    assert found["images_per_second"] == pytest.approx((600 + 600 + 9300) / 420)
    assert found["data_wait_percent"] == pytest.approx((1800 + 0 + 9000) / 420)
    other = [each | {"validation": "a" if place < 2 else "b"} for place, each in enumerate(epochs)]
    again = performance(other, config, ["GPU 0"])
    assert again["epoch_of_target"] == 6 and again["best_epoch"] == 6  # of the same images alone


def test_a_stage_that_is_not_known_is_as_slow_as_the_slowest_device() -> None:
    epochs = [{"stage": "one", "images_per_second": 40}, {"stage": "two", "images_per_second": 10}]
    names = {0: "one", 2: "two", 4: "two (all)"}
    stages = [{"name": name, "open_blocks": key, "area": 1.0} for key, name in names.items()]
    assert seconds_per_image(epochs, stages, 2) == {0: 0.05, 2: 0.2, 4: 0.2}


def test_a_small_image_counts_as_the_part_of_a_whole_one_that_it_is() -> None:
    stages = [
        {"name": "one", "open_blocks": 0, "area": 0.25},
        {"name": "two, 96 px", "open_blocks": 4, "area": 0.25},
        {"name": "two, 192 px", "open_blocks": 4, "area": 1.0},
    ]
    epochs = [
        {"stage": "one", "images_per_second": 80.0},
        {"stage": "two, 96 px", "images_per_second": 20.0},
    ]
    assert seconds_per_image(epochs, stages, 1) == {0: 0.05, 4: 0.2}
    epochs.append({"stage": "two, 192 px", "images_per_second": 8.0})
    assert seconds_per_image(epochs, stages, 1) == {0: 0.05, 4: 0.125}


def test_numbers_that_json_does_not_know_become_none_however_deep() -> None:
    value = {"a": math.inf, "b": {"c": math.nan, "d": 1.5}, "e": "inf"}
    assert finite(value) == {"a": None, "b": {"c": None, "d": 1.5}, "e": "inf"}


@pytest.mark.parametrize(
    ("record", "after"),
    [
        ({"kind": "step", "epoch": 3, "step": 20}, False),  # the last that is kept
        ({"kind": "step", "epoch": 3, "step": 21}, True),
        ({"kind": "step", "epoch": 2, "step": 99}, False),  # of an epoch that is over
        ({"kind": "step", "epoch": 4, "step": 1}, True),
        ({"kind": "epoch", "epoch": 2, "step": 99}, False),
        ({"kind": "epoch", "epoch": 3, "step": 1}, True),
        ({"kind": "note", "epoch": 9, "step": 99}, False),
    ],
)
def test_after_two_epochs_and_twenty_steps(record: dict[str, Any], after: bool) -> None:
    assert is_after(record, 2, 20) == after
