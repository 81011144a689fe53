"""Curves and strips: what is drawn is what was recorded."""

from __future__ import annotations

import base64
import io
import math
import re
import time
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest
from fabricated import fabricated
from PIL import Image

from camoxpert_nb.figures import style
from camoxpert_nb.figures.curves import (
    HEIGHT,
    INK,
    MOST,
    WIDTH,
    Line,
    Panel,
    epochs_done,
    panels,
    plot,
)
from camoxpert_nb.figures.live_images import IMAGES, live_images

SVG = "{http://www.w3.org/2000/svg}"


def split(records: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return tuple([r for r in records if r["kind"] == kind] for kind in ("step", "epoch"))  # type: ignore[return-value]


def drawn(records: list[dict[str, Any]], total: int = 50) -> dict[str, ElementTree.Element]:
    steps, epochs = split(records)
    html = panels(steps, epochs, total=total, target=0.6)
    root = ElementTree.fromstring(f"<html>{html}</html>")
    found = []
    for picture in root.findall(".//img"):  # what shows untrusted notebooks leaves these alone
        kind, data = str(picture.get("src")).split(",")
        assert kind == "data:image/svg+xml;base64"
        found.append(ElementTree.fromstring(base64.b64decode(data)))
        assert picture.get("alt") == found[-1].get("aria-label")
    return {str(svg.get("aria-label")).split(":")[0]: svg for svg in found}


def numbers(svg: ElementTree.Element, tag: str, key: str) -> list[list[float]]:
    texts = [str(each.get(key)) for each in svg.findall(f"{SVG}{tag}")]
    return [[float(x) for x in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)] for text in texts]


def test_what_is_nothing_beside_the_others_is_shown_as_0() -> None:
    x = np.array([0.0, 1.0])
    lines = [
        Line("sum", x, np.array([2.0, 1.0]), "red"),
        Line("balance", x, np.array([1e-3, -5.96e-9]), "blue"),
    ]
    assert "balance 0<" in plot(Panel("Loss", "", lines), 1.0)
    rates = [line._replace(y=np.abs(line.y)) for line in lines]
    assert "balance 5.96e-09<" in plot(Panel("Rate", "", rates, log=True), 1.0)


def test_every_panel_is_whole_and_can_be_read_aloud() -> None:
    found = drawn(fabricated(50))
    assert list(found) == [
        "Training and validation loss",
        "Validation and training IoU",
        "Learning rate",
        "Expert share",
        "Training speed",
        "Waiting for data",
        "GPU use",
        "GPU memory",
    ]
    for svg in found.values():
        assert svg.get("role") == "img"
        texts = [text.text for text in svg.findall(f"{SVG}text")]
        assert "epoch" in texts
        assert {"0", "50"} <= set(texts)
    assert "best, epoch 50: 0.706" in str(found["Validation and training IoU"].get("aria-label"))
    assert "target 0.6" in str(found["Validation and training IoU"].get("aria-label"))


@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_nothing_is_drawn_outside_its_panel(count: int) -> None:
    records = fabricated(count)
    records[3] |= {"loss": math.inf, "structure": math.nan, "deep": 1e6}
    for svg in drawn(records).values():
        for tag, key in (("path", "d"), ("circle", "cx"), ("circle", "cy"), ("text", "x")):
            flat = [value for each in numbers(svg, tag, key) for value in each]
            assert all(0 <= value <= max(WIDTH, HEIGHT) for value in flat)
        assert "nan" not in ElementTree.tostring(svg, "unicode")


def test_what_was_not_recorded_has_no_panel() -> None:
    assert drawn([]) == {}
    assert list(drawn(fabricated(3)[:10])) == [
        "Training and validation loss",
        "Learning rate",
    ]
    assert "GPU use" not in drawn(fabricated(3, gpus=0))
    assert "uncertainty" not in ElementTree.tostring(
        drawn(fabricated(3))["Training and validation loss"], "unicode"
    )


def test_a_long_line_is_thinned_by_means_and_gaps_stay_gaps() -> None:
    x = np.arange(30_000.0)
    svg = ElementTree.fromstring(
        plot(Panel("t", "u", [Line("a", x, np.ones(30_000), "#000")]), x[-1])
    )
    assert str(svg.findall(f"{SVG}path")[-1].get("d")).count("L") < MOST
    assert "a 1" in str(svg.get("aria-label"))
    gap = np.array([1, 2, np.nan, 3, 4.0])
    svg = ElementTree.fromstring(plot(Panel("t", "u", [Line("a", x[:5], gap, "#000")]), 4.0))
    assert str(svg.findall(f"{SVG}path")[-1].get("d")).count("M") == 2


def test_a_log_axis_leaves_out_what_is_zero() -> None:
    rates = drawn(fabricated(5))["Learning rate"]
    lines = [p for p in rates.findall(f"{SVG}path") if p.get("fill") == "none"]
    assert len(lines) == 2
    first = [float(re.findall(r"[\d.]+", str(line.get("d")))[0]) for line in lines]
    assert first[0] < first[1]  # the frozen group's line begins an epoch later


def test_steps_are_placed_by_the_ends_of_epochs() -> None:
    ends = [{"step": 10, "epoch": 1}, {"step": 14, "epoch": 2}]
    where = epochs_done([0, 5, 10, 12, 14, 19], ends, steps=24, total=4)
    assert where.tolist() == [0, 0.5, 1, 1.5, 2, 3]


def test_a_redraw_is_quick_and_small_even_for_a_long_run() -> None:
    steps, epochs = split(fabricated(200, per_epoch=100))
    started = time.perf_counter()
    html = panels(steps, epochs, total=200, target=0.7)
    assert time.perf_counter() - started < 0.5
    assert len(html) < 160_000


def test_a_panel_reads_on_light_and_dark_pages() -> None:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    steps, epochs = split(fabricated(9))
    for svg in drawn(fabricated(9)).values():
        text = ElementTree.tostring(svg, "unicode").lower()
        assert "background" not in text and "#fff" not in text and "#000" not in text
    assert "#fff" not in panels(steps, epochs, total=9, target=0.7)
    assert 1.05 / (light(INK) + 0.05) > 4.5 and (light(INK) + 0.05) / (light("#111111") + 0.05) > 4


def test_names_are_escaped() -> None:
    assert "<b>" not in plot(
        Panel("<b>", "<b>", [Line("<b>", np.ones(2), np.ones(2), "#000")]), 1.0
    )


def test_the_strip_shows_each_image_with_its_verdict() -> None:
    size, count = 64, IMAGES + 2
    rng = np.random.default_rng(0)
    mask = np.zeros((count, size, size), np.uint8)
    mask[:, 16:48, 16:48] = 1
    mask[1] = 0
    preview = {
        "names": np.array([f"<i>{index}" for index in range(count)]),
        "image": rng.integers(0, 255, (count, size, size, 3), dtype=np.uint8),
        "mask": mask,
        "probability": mask * np.uint8(255),
    }
    html = live_images(preview)
    assert html.count("<img") == IMAGES
    assert 'alt="&lt;i&gt;0: IoU 1.00"' in html
    assert "0.0 % false alarm" in html
    data = re.findall(r"base64,([^\"]+)", html)[0]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert picture.shape[0] > 4 * picture.shape[1]
    verdict = picture[-picture.shape[1] :][picture.shape[1] // 2 - 4, picture.shape[1] // 2]
    assert int(verdict[2]) > int(verdict[0]) + 40  # hits are blue


def test_an_error_map_tells_hit_miss_and_false_alarm_apart() -> None:
    image = np.full((1, 4, 3), 100, np.uint8)
    wanted, found = np.array([[1, 1, 0, 0]], bool), np.array([[1, 0, 1, 0]], bool)
    hit, miss, alarm, nothing = style.error_map(image, wanted, found)[0].tolist()
    assert hit[2] > hit[0]
    assert miss[0] > miss[2] and miss[1] > miss[2]
    assert alarm[0] > alarm[1] > alarm[2]
    assert len(set(nothing)) == 1


@pytest.mark.parametrize("rate", [1e-290, 1e-30, 5000.0, 6e9])
def test_rates_of_any_size_have_a_frame(rate: float) -> None:
    line = Line("head", np.array([0.0, 1.0]), np.array([rate, 3 * rate]), "#000000")
    assert "<path" in plot(Panel("Learning rate", "", [line], log=True), 1.0)
