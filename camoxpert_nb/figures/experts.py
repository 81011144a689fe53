"""Figures of what goes on inside a network: its levels, and which experts it trusts.

Maps are uint8 of 0...255 and masks of 0 and 1, each (H, W) like its image, as in `pictures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ..errors import InputError
from ..evaluation.metrics import cut
from ..settings.config import EXPERTS
from .canvas import STYLE, WIDTH, Names, Picture, draw_table, stage_names
from .predictions import CUT, RULE, Array, blank, legend, outline, short, slope, verdict
from .style import BLACK, VERDICTS, error_map


@rc_context(STYLE)
def show_levels(image: Array, mask: Array, levels: Mapping[str, Array], name: str = "") -> Figure:
    """Draw what each level of the decoder makes of an image, coarse to fine, in one row.

    `levels`: the map of each, by what to call it, all at the mask's size.
    """
    figure = Picture(
        figsize=(WIDTH, 1.0 + WIDTH / (len(levels) + 1) * slope(image)), layout="constrained"
    )
    axes = blank(figure, 1, len(levels) + 1)[0]
    axes[0].imshow(image)
    axes[0].set_title("image\nand its mask's outline", fontsize=8)
    for ax, (level, probability) in zip(axes[1:], levels.items(), strict=True):
        ax.imshow(probability, cmap="gray")
        result = verdict(cut(probability, mask))
        ax.set_title(f"{level}\n{result}, highest {probability.max() / 255:.2f}", fontsize=8)
    for ax in axes:
        outline(ax, mask)
    figure.suptitle(
        f"{short(name)}: the map of each level of the decoder, black where lowest, white where "
        f"highest\n{RULE}; {CUT}",
        fontsize=10,
    )
    return figure


@rc_context(STYLE)
def show_removed(
    image: Array, mask: Array, probability: Array, without: Mapping[str, Array], name: str = ""
) -> Figure:
    """Draw how the map changes with one expert removed, and what that does to the IoU.

    `probability`: the map with all experts; `without`: the map without each, by its name.
    """
    rows = -(-(len(without) + 1) // 4)
    figure = Picture(
        figsize=(WIDTH, 1.0 + rows * (0.35 + WIDTH / 4.4 * slope(image))), layout="constrained"
    )
    axes = blank(figure, rows, 4)
    before = cut(probability, mask)
    axes.flat[0].imshow(error_map(image, mask > 0, before.found))
    axes.flat[0].set_title(f"all experts: {verdict(before)}", fontsize=9)
    most = max(max(np.abs(each - probability.astype(float)).max() for each in without.values()), 26)
    for ax, (expert, other) in zip(axes.flat[1:], without.items(), strict=False):
        change = (other.astype(float) - probability) / 255
        shown = ax.imshow(change, cmap="PuOr", vmin=-most / 255, vmax=most / 255)
        outline(ax, mask, BLACK)
        after = cut(other, mask)
        step = round((after.iou or 0.0) - (before.iou or 0.0), 2) + 0.0
        result = f"{verdict(after)} ({step:+.2f})" if change.any() else "map unchanged"
        ax.set_title(f"no {expert}: {result}", fontsize=8)
    figure.colorbar(shown, ax=axes, label="change of the probability; orange: less without it")
    legend(figure, VERDICTS)
    figure.suptitle(
        f"{short(name)}: one expert removed at every stage, the next best takes its place\n"
        f"{RULE}; {CUT}"
    )
    return figure


@rc_context(STYLE)
def show_routing(
    image: Array, mask: Array, gates: ArrayLike, usual: ArrayLike, experts: Names, name: str = ""
) -> Figure:
    """Draw which experts each stage chose for an image, and how that differs from the usual.

    `gates` and `usual` (stages, E): the image's weights, 0 where not chosen, and the set's mean.
    """
    chosen, mean = np.asarray(gates, float) * 100, np.asarray(usual, float) * 100
    figure = Picture(figsize=(WIDTH, 5.4), layout="constrained")
    axes = figure.subplot_mosaic([["image", "chosen"], ["image", "against"]], width_ratios=[1, 2.2])
    axes["image"].imshow(image)
    axes["image"].set_axis_off()
    outline(axes["image"], mask)
    axes["image"].set_title("mask's outline in yellow")
    stages = stage_names(len(chosen))
    blank = np.where(chosen > 0, chosen, np.nan)
    draw_table(axes["chosen"], blank, stages, experts)
    axes["chosen"].set_title("weight of the chosen experts, %; empty: not chosen")
    draw_table(axes["against"], chosen - mean, stages, experts, signed=True)
    axes["against"].set_title("more or less than in the mean over the images, in points")
    figure.suptitle(
        f"{short(name)}: how the experts were chosen; each stage's weights sum to 100 %"
    )
    return figure


@rc_context(STYLE)
def show_experts(
    gates: ArrayLike, names: Names = EXPERTS, *, groups: Mapping[str, Sequence[int]] | None = None
) -> Figure:
    """Draw how much each stage relied on each expert, and for how many images it chose it.

    `gates` (n, stages, E): each expert's weight for one image in one stage, rows sum to 1, 0 where
    it was not chosen. `groups`: the images of each group; then each row is a group, and its
    numbers are means over the stages. Raises InputError unless there is a name per expert.
    """
    values = np.asarray(gates, float)
    if values.ndim != 3 or values.shape[2] != len(names):
        raise InputError(
            f"Gates of shape {values.shape} do not fit {len(names)} expert names: "
            "give (images, stages, experts) and one name per expert."
        )
    chosen = values > 0
    rows, tables = stage_names(values.shape[1]), [values.mean(0), chosen.mean(0)]
    if groups is not None:
        rows = [f"{name} (n = {len(images)})" for name, images in groups.items()]
        tables = [
            np.stack([table[list(images)].mean((0, 1)) for images in groups.values()])
            for table in (values, chosen)
        ]
    figure = Picture(figsize=(WIDTH, 1.6 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, table in zip(axes, tables, strict=True):
        draw_table(ax, table * 100, rows, names)
    axes[0].set_title("Mean weight, %; each row sums to 100")
    axes[1].set_title("Chosen, % of the " + ("images" if groups is None else "images and stages"))
    figure.suptitle(f"Use of the experts over n = {len(values)} images")
    return figure
