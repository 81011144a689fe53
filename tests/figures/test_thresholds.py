"""Precision-recall, F and E curves: what is drawn, for one method, several, or none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from camoxpert_nb.evaluation.metrics import measure
from camoxpert_nb.evaluation.scores import Curves, Scores, build_scores
from camoxpert_nb.figures.thresholds import show_curves


def scores(noise: float = 0.3, images: int = 3, side: int = 24) -> Scores:
    rng, rows, curves = np.random.default_rng(0), [], Curves(images)
    for number in range(images):
        mask = np.zeros((side, side), np.uint8)
        mask[3 : 9 + number, 5:15] = 1
        measured = measure((1 - noise) * mask + noise * rng.random(mask.shape), mask)
        rows.append({"name": f"image-{number}", **measured.values})
        curves.take(measured)
    return build_scores(pd.DataFrame(rows), curves.of_images, means=curves.means())


@pytest.mark.parametrize("count", [1, 3, 13])
def test_each_method_has_a_line_of_its_own_in_each_panel(count: int) -> None:
    methods = {f"runs/$method_{n}": scores(0.3 + 0.05 * n) for n in range(count)}
    figure = show_curves(methods, "COD10K")
    assert [ax.get_xlabel() for ax in figure.axes] == ["recall", "threshold", "threshold"]
    recall, f, e = figure.axes
    lines = recall.get_lines()
    looks = {(line.get_color(), str(line._dash_pattern)) for line in lines}
    assert len(looks) == min(count, 12)
    for line, each in zip(lines, methods.values(), strict=True):
        assert np.array_equal(line.get_xdata(), each.curves["recall"])
        assert np.array_equal(line.get_ydata(), each.curves["precision"])
    for ax, name in ((f, "f"), (e, "e")):
        curves, dots = ax.get_lines()[::2], ax.get_lines()[1::2]
        for curve, dot, each in zip(curves, dots, methods.values(), strict=True):
            assert np.array_equal(curve.get_ydata(), each.curves[name])
            assert dot.get_ydata()[0] == pytest.approx(each.mean[f"max_{name}"])
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    first = methods["runs/$method_0"].mean
    assert texts[0] == (
        f"runs/\\$method_0 (n = 3): max F {first['max_f']:.3f}, max E {first['max_e']:.3f}"
    )
    figure.draw_without_rendering()
    window = legend.get_window_extent()
    assert window.x0 >= 0 and window.x1 <= figure.bbox.x1
    assert window.y1 <= min(ax.get_tightbbox().y0 for ax in figure.axes)  # over no curve


def test_without_an_object_there_is_nothing_to_draw_and_it_is_said() -> None:
    measured = measure(np.zeros((9, 9)), np.zeros((9, 9), np.uint8))
    curves = Curves(1)
    curves.take(measured)
    rows = pd.DataFrame([{"name": "sand", **measured.values}])
    nothing = build_scores(rows, curves.of_images, means=curves.means())
    said = show_curves({"a": nothing}).axes[0].texts[0].get_text()
    assert said.startswith("No image with an object")
    drawn = show_curves({"a": nothing, "b": scores()})
    assert len(drawn.axes[0].get_lines()) == 1
