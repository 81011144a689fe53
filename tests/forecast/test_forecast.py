"""A whole training on cards that are not here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from camoxpert_nb.data import cache
from camoxpert_nb.data.counting import count_images
from camoxpert_nb.errors import InputError
from camoxpert_nb.forecast import forecast
from camoxpert_nb.forecast.forecast import forecast_on
from camoxpert_nb.machine import cards
from camoxpert_nb.machine.devices import Precision, precision_of
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.schedule import Plan


@pytest.fixture(scope="module", autouse=True)
def counted_once() -> Iterator[None]:
    """Count each training's steps once: that takes seconds, and the cards do not matter for it."""
    whole, known = forecast.count_training, dict[Any, Any]()

    def count(config: Config, plan: Plan, precision: Precision) -> Any:
        key = (config.batch_size, config.preset, config.gradient_checkpointing, str(precision))
        if (key := (*key, str(plan.in_rows()))) not in known:
            known[key] = whole(config, plan, precision)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecast, "count_training", count)
        yield


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return forecast_on(make_config("tiny"), "t4x2", 400)


def test_a_forecast_adds_up(found: dict[str, Any]) -> None:
    assert (found["images"], found["validation"], found["gpus"]) == (360, 40, 2)
    assert found["low"] < found["seconds"] < found["high"]
    stages = found["stages"]
    assert sum(row["epochs"] for row in stages) == 2
    total = sum(row["seconds"] for row in stages) + found["decoding_seconds"]
    assert found["seconds"] == pytest.approx(total)
    row = stages[0]
    steps = row["steps"] * row["step"]["seconds"]["likely"]
    between = found["between_epochs_seconds"]["likely"]
    assert row["steps"] == 360 // (2 * row["batch"])
    assert row["seconds_per_epoch"] == pytest.approx(steps + between)


def test_it_says_what_a_reader_needs(found: dict[str, Any]) -> None:
    text = found["text"]
    assert "forecast for 2 x Tesla T4" in text and "float16" in text
    assert "an epoch" in text and "of 14.6 GiB" in text and "bound by" in text
    assert "in all about" in text and "fits; in" in text
    assert "no step was ever compared on this card" in text
    assert "360 images to train, 40 to validate" in text


def test_the_data_set_is_counted_and_not_opened(
    tiny: Config, camouflage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(cache, "_decode_into")
    found = forecast_on(tiny, "rtx3090")
    images = count_images(tiny)
    assert (found["images"], found["validation"]) == (images.train, images.validation)
    assert found["gpus"] == 1 and "no step was ever" not in found["text"]


def test_what_does_not_fit_is_said_with_what_would(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.replace(batch_size=256)
    whole = forecast_on(config, "t4", 400)
    need = max(row["gib_per_device"] for row in whole["stages"])
    monkeypatch.setitem(cards.CARDS, "t4", replace(cards.CARDS["t4"], gib=1.05 * need))
    short = forecast_on(config, "t4", 400)
    assert whole["fits"] and not short["fits"]
    assert 0 < short["largest_batch"] < 256 < whole["largest_batch"]
    assert "does NOT fit" in short["text"] and f"of {short['largest_batch']} would" in short["text"]
    monkeypatch.setitem(cards.CARDS, "t4", replace(cards.CARDS["t4"], gib=0.1))
    assert "not even one image" in forecast_on(tiny, "t4", 400)["text"]


def test_small_images_are_counted_as_they_train(tiny: Config) -> None:
    """At half the side a step moves about a quarter of the images' bytes, and never more."""
    grows = tiny.replace(epochs=3, stage1_epochs=0, img_size=128, start_size=64)
    config = grows.replace(progressive_unfreeze=False)
    small, middle, whole = forecast_on(config, "t4", 400)["stages"]
    assert [row["name"] for row in (small, middle, whole)] == [
        *("two, 64 px", "two, 96 px", "two, 128 px")
    ]
    kernels = [row["step"]["kernels"]["likely"] for row in (small, middle, whole)]
    assert 0.2 * kernels[2] < kernels[0] < kernels[1] < kernels[2]
    assert small["gib_per_device"] < whole["gib_per_device"]
    alone = forecast_on(config.replace(start_size=0), "t4", 400)
    step = alone["stages"][0]["step"]["kernels"]["likely"]
    assert step <= kernels[2] < 1.1 * step  # images of full size pass through


def test_settings_count(tiny: Config) -> None:
    alone = forecast_on(tiny.replace(parallel="none", amp=False), "l4x2", 400)
    assert alone["gpus"] == 1 and alone["precision"].startswith("float32")
    two = forecast_on(tiny, "l4x2", 400)
    assert two["gpus"] == 2 and two["precision"].startswith("bfloat16")
    assert two["stages"][0]["steps"] == alone["stages"][0]["steps"] // 2
    assert precision_of((6, 0)).dtype is None and precision_of((7, 5)).scaled  # a P100, a T4


def test_what_cannot_be_is_refused(tiny: Config) -> None:
    with pytest.raises(InputError, match="no such card"):
        forecast_on(tiny, "t5", 400)
    with pytest.raises(InputError, match="larger than the 9 training images"):
        forecast_on(tiny.replace(batch_size=16), "t4", 10)
