"""Boundary IoU against its definition, pixel by pixel, and where masks are odd."""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from camoxpert_nb.evaluation.boundary import boundary_iou
from camoxpert_nb.evaluation.metrics import measure

Array = NDArray[np.uint8]


def outline(mask: Array, broad: int) -> NDArray[np.bool_]:
    """Pixels of the mask that have one outside it within `broad` rows and columns."""
    side = 2 * broad + 1
    around = np.lib.stride_tricks.sliding_window_view(np.pad(mask, broad), (side, side))
    return (mask > 0) & (around.min((2, 3)) == 0)


def by_definition(mask: Array, found: Array) -> float:
    broad = max(1, round(0.02 * math.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2)))
    one, other = outline(mask, broad), outline(found, broad)
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 0.0


def of_the_authors(mask: Array, broad: int) -> Array:
    """The outline as `mask_to_boundary` of boundary-iou-api finds it: erosions, one by one."""
    inner = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    for _ in range(broad):
        inner = cv2.erode(inner, np.ones((3, 3), np.uint8))
    return mask - inner[1:-1, 1:-1]


def masks(shape: tuple[int, int]) -> Iterator[tuple[str, Array]]:
    rng, empty = np.random.default_rng(0), np.zeros(shape, np.uint8)
    height, width = shape
    yield "empty", empty
    yield "full", empty + 1
    one = empty.copy()
    one[height // 2, width // 3] = 1
    yield "one pixel", one
    yield "all but one pixel", 1 - one
    corner = empty.copy()
    corner[-1, -1] = 1
    yield "one pixel in the corner", corner
    at_the_edge = empty.copy()
    at_the_edge[: height // 2, width // 2 :] = 1
    yield "cut by the image's edge", at_the_edge
    frame = empty + 1
    frame[2:-2, 2:-2] = 0
    yield "a frame", frame
    line = empty.copy()
    line[height // 2] = 1
    yield "a line", line
    blob = empty.copy()
    cv2.ellipse(blob, (width // 2, height // 2), (width // 3, height // 4), 20, 0, 360, 1, -1)
    yield "an object", blob
    yield "an object, moved", np.roll(blob, 2, 1)
    holes = blob * (rng.random(shape) > 0.02)
    yield "an object with holes", holes.astype(np.uint8)
    yield "scattered", (rng.random(shape) > 0.5).astype(np.uint8)


@pytest.mark.parametrize("shape", [(30, 47), (75, 80), (1, 9), (2, 2)])
def test_it_is_what_the_definition_says_for_every_two_masks(shape: tuple[int, int]) -> None:
    every = dict(masks(shape))
    for what, mask in every.items():
        for other, found in every.items():
            value = boundary_iou(mask, found)
            assert value == pytest.approx(by_definition(mask, found), abs=1e-12), (what, other)
            assert value == boundary_iou(found, mask)


def test_outlines_of_a_large_image_are_those_of_the_authors_code() -> None:
    rng = np.random.default_rng(1)
    for shape in ((700, 1000), (6500, 300)):  # the second: squares of more than 16 bits
        every = dict(masks(shape))
        broad = round(0.02 * math.hypot(*shape))
        mask = every["an object"]
        for name in ("an object, moved", "full", "cut by the image's edge"):
            found = every[name] & (rng.random(shape) > 1e-5)
            one, other = of_the_authors(mask, broad), of_the_authors(found, broad)
            expected = np.count_nonzero(one & other) / np.count_nonzero(one | other)
            assert boundary_iou(mask, found) == pytest.approx(expected, abs=1e-12)


def test_it_is_taken_of_the_two_masks_that_iou_compares() -> None:
    rng = np.random.default_rng(2)
    mask = dict(masks((60, 80)))["an object"]
    soft = cv2.GaussianBlur(mask * np.float32(90), (0, 0), 4) + rng.uniform(30, 60, mask.shape)
    image = soft.astype(np.uint8)
    stretched = (image - float(image.min())) / (float(image.max()) - float(image.min()))
    found = (stretched > 0.5).astype(np.uint8)
    values = measure(image, mask).values
    assert values["boundary_iou"] == pytest.approx(by_definition(mask, found), abs=1e-12)
    assert 0 < values["boundary_iou"] < values["iou"]


@pytest.mark.parametrize("level", [0, 127, 128, 255])
def test_a_constant_map_is_nothing_or_all_found(level: int) -> None:
    every = dict(masks((40, 50)))
    image = np.full((40, 50), level, np.uint8)
    found = every["full" if level > 127.5 else "empty"]
    for mask in every.values():
        expected = by_definition(mask, found)
        assert measure(image, mask).values["boundary_iou"] == pytest.approx(expected, abs=1e-12)


def test_a_small_object_is_all_outline_and_scores_its_iou() -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[90:98, 90:98] = 1
    values = measure(np.roll(mask, 2, 1) * np.uint8(255), mask).values
    assert values["boundary_iou"] == values["iou"]


def test_ignored_pixels_are_background_for_both_outlines() -> None:
    mask = dict(masks((40, 50)))["an object"]
    ignored = np.zeros(mask.shape, bool)
    ignored[:, 25:] = True
    found = np.roll(mask, 3, 0)
    expected = by_definition(mask * ~ignored, found * ~ignored)
    image = np.where(ignored, np.uint8(200), found * np.uint8(255))
    values = measure(image, mask, ignored).values
    assert values["boundary_iou"] == pytest.approx(expected, abs=1e-12)


def test_what_is_one_half_after_stretching_is_in_neither_mask() -> None:
    """Levels 0, 1 and 2 are stretched to 0, 1/2 and 1; of the object all is outline."""
    image = np.array([[0, 0, 1, 2, 1, 0]], np.uint8)
    values = measure(image, (image == 2).astype(np.uint8)).values
    assert values["iou"] == values["boundary_iou"] == 1.0
