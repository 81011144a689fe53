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


def halves() -> tuple[np.ndarray, np.ndarray]:
    """Two images of 1 x 2 places: the object is on the left, then on the right.

    On it the first expert weighs 3/4, beside it 1/4.
    """
    shares = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    first = 0.25 + 0.5 * shares
    return np.stack([first, 1 - first], 1), shares


def test_information_of_a_case_computed_by_hand() -> None:
    """Of the expert 1 bit, at each place the entropy of 3/4 and 1/4, which is 0.8113."""
    found = dependence(*halves(), draws=9)
    left = 1 - 0.8112781
    assert found.place == pytest.approx(left, abs=1e-6)
    assert found.object == pytest.approx(left, abs=1e-6)
    np.testing.assert_allclose(found.weights, [[0.75, 0.25], [0.25, 0.75]])
    # With the other mask the weights are exchanged: the information is the same, in each draw.
    assert found.chance == found.highest_chance == pytest.approx(left, abs=1e-6)
    assert str(found) == (
        "how much the choice of the expert depends on the place: 0.189 bits (0: not at all; at "
        "most 1.00); on object or background: 0.1887 bits (by chance, with masks of other images: "
        "0.1887, at most 0.1887)"
    )


def test_chance_is_drawn_so_often_and_always_alike() -> None:
    rng = np.random.default_rng(5)
    gates = rng.dirichlet(np.ones(3), (7, 4, 4)).transpose(0, 3, 1, 2)
    masks = squares(7, 4)
    one, again, other = (dependence(gates, masks, 5, seed) for seed in (0, 0, 1))
    assert (one.chance, one.highest_chance) == (again.chance, again.highest_chance)
    assert one.chance != other.chance and one.object == other.object
    assert one.chance < one.highest_chance
    assert dependence(gates, masks).chance == dependence(gates, masks, 100, 0).chance
    assert np.isnan(dependence(gates, masks, 0).highest_chance)


def test_regions_that_are_not_there_have_no_weights() -> None:
    gates, shares = halves()
    found = dependence(gates, 0 * shares)
    assert found.weights.tolist() == [[0, 0], [0.5, 0.5]]
    assert found.object == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shape", [(2, 1, 3), (1, 1, 2), (2, 2, 1)])
def test_shares_of_another_shape_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError) as caught:
        dependence(halves()[0], np.zeros(shape))
    assert str(caught.value) == (
        f"Gates of shape (2, 2, 1, 2) and object shares of {shape}: give (n, experts, h, w) and "
        "(n, h, w)."
    )


def test_cells_are_laid_over_rows_and_columns() -> None:
    """Of 2 x 2 cells over 5 places each takes three, the last ones two."""
    places = by_place([[[1, 2], [3, 4]]], 70, 16)
    assert places.tolist() == [[[1, 1, 1, 2, 2]] * 3 + [[3, 3, 3, 4, 4]] * 2]


def test_a_share_is_the_mean_of_the_mask_there() -> None:
    mask = np.array([[1, 0, 0, 0], [0, 0, 0, 1]], np.uint8)
    assert object_shares(mask, 1).tolist() == [[0.25]]
    assert object_shares(mask, 2).tolist() == [[0.5, 0], [0, 0.5]]
