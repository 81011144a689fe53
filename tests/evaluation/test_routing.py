"""How much the experts' choice depends on the place, on gates whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation.routing import by_place, dependence, object_shares


def squares(n: int = 6, side: int = 8) -> np.ndarray:
    """Masks (n, side, side) of a quarter each, at a place of its own."""
    rng, masks = np.random.default_rng(0), np.zeros((n, side, side))
    for mask in masks:
        y, x = rng.integers(0, side // 2 + 1, 2)
        mask[y : y + side // 2, x : x + side // 2] = 1
    return masks


def test_constant_gates_depend_on_nothing() -> None:
    gates = np.tile(np.array([0.5, 0.3, 0.2])[None, :, None, None], (6, 1, 8, 8))
    found = dependence(gates, squares())
    assert found.place == pytest.approx(0, abs=1e-9)
    assert found.object == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(found.weights, [[0.5, 0.3, 0.2]] * 2)


def test_an_expert_for_objects_tells_all_there_is() -> None:
    masks = squares()
    gates = np.stack([masks, 1 - masks], 1)
    found = dependence(gates, masks)
    quarter = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    assert found.place == pytest.approx(quarter, abs=1e-6)
    assert found.object == pytest.approx(quarter, abs=1e-6)
    assert found.chance <= found.highest_chance < 0.5 * found.object
    np.testing.assert_allclose(found.weights, [[1, 0], [0, 1]])
    assert "place: 0.811 bits (0: not at all; at most 1.00)" in str(found)
    assert "on object or background: 0.8113 bits (by chance" in str(found)


def test_gates_that_ignore_the_object_tell_what_chance_tells() -> None:
    gates = np.random.default_rng(1).dirichlet(np.ones(7), (6, 8, 8)).transpose(0, 3, 1, 2)
    found = dependence(gates, squares())
    assert found.place > 0.3  # the places differ
    assert found.object < 2 * found.highest_chance < 0.05


def test_one_image_has_no_chance_to_compare_with() -> None:
    assert np.isnan(dependence(np.ones((1, 1, 4, 4)), np.ones((1, 4, 4))).chance)
    with pytest.raises(InputError, match="give \\(n, experts, h, w\\)"):
        dependence(np.ones((1, 4, 4)), np.ones((1, 4, 4)))


@pytest.mark.parametrize(
    "size, stride, cells", [(320, 8, 8), (352, 8, 8), (96, 16, 6), (50, 16, 4)]
)
def test_cells_lie_where_the_network_had_them(size: int, stride: int, cells: int) -> None:
    values = np.arange(cells * cells, dtype=float).reshape(1, cells, cells)
    places = by_place(values, size, stride)[0]
    count = -(-size // stride)
    side = -(-count // cells)
    assert places.shape == (count, count)
    for place in (0, count // 2, count - 1):
        assert places[place, 0] == (place // side) * cells


def test_shares_are_those_of_the_mask() -> None:
    mask = np.zeros((30, 60), np.uint8)
    mask[:15, :30] = 1
    np.testing.assert_allclose(object_shares(mask, 2), [[1, 0], [0, 0]])
