"""Precision, recall, F and E over the 256 thresholds: a line a method, or a set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ..evaluation.scores import Scores, number
from .canvas import STYLE, WIDTH, Picture, empty_picture, plain
from .style import BLUE, GREEN, ORANGE, PURPLE, RED, SKY

_COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)  # the palette's yellow is too pale for a line
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))  # for print, and more than six lines
_OVER_THRESHOLDS = ("f", "e")
_PANELS = (
    ("precision over recall", "recall"),
    ("F ($\\beta^2$ = 0.3) over the threshold", "threshold"),
    ("E ($E_\\phi$) over the threshold", "threshold"),
)
_LETTERS = 95  # of the legend that fit into a row


@rc_context(STYLE)
def show_curves(scores: Mapping[str, Scores], title: str = "") -> Figure:
    """Draw precision over recall, F and E over the thresholds, a line for each of the scores.

    scores: by the name of a run, a method or a set. Each curve is the mean over the images with an
    object, as pysodmetrics 1.6 computes it; a dot marks the maximum of a curve, which is max F or
    max E. Where no image has an object there is nothing to draw, and that is said.
    """
    shown = {_named(name, each): each for name, each in scores.items() if each.curves}
    title = f"{title}: " * bool(title) + "precision-recall, F and E curves"
    if not shown:
        return empty_picture(title, "No image with an object was scored, so there are no curves.")
    columns = max(1, min(len(shown), _LETTERS // (8 + max(map(len, shown)))))
    height = 4.0 + 0.22 * -(-len(shown) // columns)
    figure = Picture(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(wspace=0.06))
    axes = figure.subplots(1, 1 + len(_OVER_THRESHOLDS))
    for ax, (what, below) in zip(axes, _PANELS, strict=True):
        ax.set(title=what, xlabel=below, xlim=(0, 1), ylim=(0, 1.01), box_aspect=1)
        ax.set(xticks=np.arange(6) / 5, yticks=np.arange(6) / 5)
    for place, (name, each) in enumerate(shown.items()):
        _draw_lines(axes, each, name, place)
    figure.legend(loc="outside lower center", ncols=columns, handlelength=3)
    figure.suptitle(f"{title}\nmean over the images at each of 256 thresholds; dot: the maximum")
    return figure


def _named(name: str, scores: Scores) -> str:
    best = ", ".join(f"max {each.upper()} {number(scores.mean[f'max_{each}'])}" for each in "fe")
    return f"{plain(name)} (n = {scores.n - scores.n_empty}): {best}"


def _draw_lines(axes: list[Axes], scores: Scores, name: str, place: int) -> None:
    """Draw a method's line into each panel; the first panel's stands for it in the legend."""
    curves, thresholds = scores.curves, np.arange(256) / 255
    colour = _COLOURS[place % len(_COLOURS)]
    style: dict[str, Any] = {"color": colour, "linestyle": _DASHES[place % len(_DASHES)]}
    axes[0].plot(curves["recall"], curves["precision"], label=name, **style)
    for ax, curve in zip(axes[1:], _OVER_THRESHOLDS, strict=True):
        best = int(curves[curve].argmax())
        ax.plot(thresholds, curves[curve], **style)
        ax.plot(thresholds[best], curves[curve][best], "o", color=colour, markersize=4)
