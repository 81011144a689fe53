from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from camoxpert_nb.figures import experts

IMAGE = np.full((20, 30, 3), 90, np.uint8)
MASK = np.zeros((20, 30), np.uint8)
MASK[5:15, 10:20] = 1


def words(figure: Figure) -> str:
    figure.savefig(io.BytesIO(), format="png", dpi=50)
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_each_level_has_its_map_and_its_iou() -> None:
    coarse, fine = np.zeros((2, 20, 30), np.uint8)
    coarse[5:15, 10:30] = 51
    fine[5:15, 10:20] = 255
    figure = experts.show_levels(IMAGE, MASK, {"stride 32": coarse, "stride 4": fine}, "bird")
    said = words(figure)
    assert "stride 32\nIoU 0.50, highest 0.20" in said
    assert "stride 4\nIoU 1.00, highest 1.00" in said
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), coarse)


def test_what_an_expert_changed_adds_up_as_shown() -> None:
    """0.2445 and 0.2455 of 2000 pixels round to 0.24 and 0.25."""
    mask = np.ones((40, 50), np.uint8)
    maps = []
    for found in (489, 491):
        probability = np.zeros(2000, np.uint8)
        probability[:found] = 255
        maps.append(probability.reshape(40, 50))
    image = np.zeros((40, 50, 3), np.uint8)
    said = words(experts.show_removed(image, mask, maps[0], {"edge": maps[1]}, "bird"))
    assert "all experts: IoU 0.24" in said and "no edge: IoU 0.25 (+0.01)" in said


def test_removing_an_expert_shows_where_the_map_changes() -> None:
    before = MASK * np.uint8(255)
    half = before.copy()
    half[5:10] = 0
    figure = experts.show_removed(IMAGE, MASK, before, {"edge": half, "context": before}, "bird")
    said = words(figure)
    assert "all experts: IoU 1.00" in said
    assert "no edge: IoU 0.50 (-0.50)" in said
    assert "no context: map unchanged" in said
    change = np.asarray(figure.axes[1].images[0].get_array())
    assert change.sum() == -50  # pixels that fell from 1 to 0
    assert (change[10:] == 0).all()


def test_routing_shows_who_leads_where_and_who_counts_on_the_object() -> None:
    on, off = np.zeros((2, 20, 20))
    on[5:15, 7:13], off = 1, off + 0.1
    fine = np.stack([0.6 * on + off, 0.9 - 0.6 * on - off, off])  # the first leads on the object
    even = np.full((3, 10, 10), 1 / 3)
    usual = [[0.5, 0.3, 0.2], [0.1, 0.5, 0.4]]
    figure = experts.show_routing(IMAGE, MASK, [fine, even], usual, ("a", "b", "c"), "bird")
    said = words(figure)
    assert "bird: which expert counts where" in said and "stride 8, on the object" in said
    leaders = np.asarray(figure.axes[1].images[0].get_array())
    grey = (0.35 + 0.5 * 90 / 255) * 255 * 0.5
    blue, orange = np.array([0, 0x72, 0xB2]), np.array([0xE6, 0x9F, 0])
    np.testing.assert_allclose(leaders[10, 15], grey + 0.5 * blue, atol=1)
    np.testing.assert_allclose(leaders[1, 1], grey + 0.5 * orange, atol=1)
    table = np.asarray(figure.axes[3].images[0].get_array())
    np.testing.assert_allclose(table.sum(1), 100, atol=0.5)
    assert table[0, 0] > 60 > 20 > table[1, 0]  # on the object, elsewhere
    np.testing.assert_allclose(table[2], [50, 30, 20])
    np.testing.assert_allclose(table[3], [100 / 3] * 3)


def test_the_expert_with_the_largest_weight_is_counted() -> None:
    gates = np.array([[[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]], [[0.1, 0.5, 0.4], [0.2, 0.2, 0.6]]])
    figure = experts.show_experts(gates, ("a", "b", "c"), note=["the place tells much"])
    weight, leads = (np.asarray(ax.images[0].get_array()) for ax in figure.axes)
    np.testing.assert_allclose(weight, [[30, 40, 30], [20, 20, 60]])
    np.testing.assert_allclose(leads, [[50, 50, 0], [0, 0, 100]])
    assert "the place tells much" in words(figure) and "stride 16" in words(figure)
