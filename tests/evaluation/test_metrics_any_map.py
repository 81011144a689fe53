"""Whatever a map holds: each measure keeps its bounds, and a perfect map is perfect."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from properties import tried

from camoxpert_nb.evaluation.metrics import measure

SIDES = st.integers(1, 20)
BOUNDED = ("iou", "dice", "s_measure", "weighted_f", "adaptive_f", "mae", "boundary_iou")
BOUNDED += ("raw_mae", "false_alarm", "object_share")


@st.composite
def maps(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A map of 0...255 of few or many values, and a mask of few or many pixels."""
    shape, seed = (draw(SIDES), draw(SIDES)), draw(st.integers(0, 2**32 - 1))
    random, share = np.random.default_rng(seed), draw(st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0]))
    levels = draw(st.sampled_from([1, 2, 3, 256]))
    values = random.integers(0, levels, shape) * (255 // max(levels - 1, 1))
    mask = random.random(shape) < share
    if draw(st.booleans()):  # a map that knows something
        values = np.where(mask, np.maximum(values, 128), values // 2)
    return values.astype(np.uint8), mask.astype(np.uint8)


@tried(150)
@given(maps())
def test_bounds(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    values = measure(*pair).values
    assert all(-1e-9 <= values[name] <= 1 + 1e-9 for name in BOUNDED), values
    most = pair[1].size / max(pair[1].size - 1, 1) + 1e-9  # the field divides by pixels - 1
    assert 0 <= values["adaptive_e"] <= most
    iou, dice = values["iou"], values["dice"]
    assert dice == pytest.approx(2 * iou / (1 + iou)) and iou <= dice + 1e-12


@tried(60)
@given(maps())
def test_a_perfect_map(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    mask = pair[1]
    values = measure(mask * np.uint8(255), mask).values
    assert values["mae"] == values["raw_mae"] == values["false_alarm"] == 0
    if mask.any():
        assert values["iou"] == values["dice"] == 1
        assert values["weighted_f"] == pytest.approx(1) and values["boundary_iou"] == 1


@tried(60)
@given(maps())
def test_the_error_of_the_complement_is_the_same(
    pair: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    values, mask = pair
    here, there = measure(values, mask).values, measure(255 - values, 1 - mask).values
    assert here["raw_mae"] == pytest.approx(there["raw_mae"], abs=1e-9)
    if values.min() != values.max():
        assert here["mae"] == pytest.approx(there["mae"], abs=1e-9)


@tried(60)
@given(maps(), st.integers(0, 3))
def test_turning_both_changes_no_overlap(
    pair: tuple[NDArray[np.uint8], NDArray[np.uint8]], times: int
) -> None:
    here = measure(*pair).values
    there = measure(*(np.ascontiguousarray(np.rot90(each, times)) for each in pair)).values
    for name in ("iou", "dice", "mae", "adaptive_f", "false_alarm", "object_share"):
        assert here[name] == pytest.approx(there[name], abs=1e-9), name
