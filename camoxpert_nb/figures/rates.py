"""The picture of a search for a learning rate: the loss over the rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from .canvas import STYLE, WIDTH, Picture
from .style import BLUE, GREY, ORANGE


@rc_context(STYLE)
def show_rates(
    rates: Sequence[float],
    losses: Sequence[float | None],
    smoothed: Sequence[float],
    *,
    proposal: float | None,
    usual: float,
    title: str = "",
) -> Figure:
    """Draw each step's loss and the smoothed one over the rate, with two rates marked.

    proposal: the rate that is proposed, if one is; usual: the one that the settings train with.
    """
    figure = Picture(figsize=(WIDTH * 0.8, 4.2), layout="constrained")
    ax = figure.subplots()
    dots = np.array([np.nan if loss is None else loss for loss in losses], float)
    ax.plot(rates, dots, ".", color=GREY, markersize=4, label="loss of a step")
    ax.plot(rates, smoothed, color=BLUE, label="smoothed")
    if proposal is not None:
        ax.axvline(proposal, color=ORANGE, lw=1.6, label=f"proposed: {proposal:.2g}")
    ax.axvline(usual, color="k", ls="--", lw=1, label=f"these settings train with: {usual:.2g}")
    ax.set(xscale="log", xlabel="learning rate of the decoder", ylabel="loss")
    shown = np.asarray(smoothed)[np.isfinite(smoothed)]
    if len(shown):
        room = 0.15 * (shown[0] - shown.min()) + 0.3 * shown.min()
        ax.set_ylim(max(shown.min() - room, 0), max(shown[0], np.median(shown)) + 2 * room)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle(title)
    return figure
