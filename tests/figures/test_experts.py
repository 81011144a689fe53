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


def test_routing_shows_the_chosen_and_what_is_unusual() -> None:
    gates = [[0.7, 0.3, 0.0], [0.0, 0.5, 0.5]]
    usual = [[0.5, 0.3, 0.2], [0.1, 0.5, 0.4]]
    figure = experts.show_routing(IMAGE, MASK, gates, usual, ("a", "b", "c"), "bird")
    assert "stage 2, stride 8" in words(figure)
    chosen, against = (np.asarray(ax.images[0].get_array()) for ax in figure.axes[1:])
    np.testing.assert_allclose(np.nan_to_num(chosen), [[70, 30, 0], [0, 50, 50]])
    np.testing.assert_allclose(against, [[20, 0, -20], [-10, 0, 10]], atol=1e-9)
    assert len(figure.axes[1].texts) == 4  # those not chosen stay empty
