"""Figures of what goes on inside a network: its levels, and which experts it trusts.

Maps are uint8 of 0...255 and masks of 0 and 1, each (H, W) like its image, as in `pictures`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from ..evaluation.metrics import cut
from ..evaluation.routing import object_shares
from ..settings.config import EXPERTS
from .canvas import STYLE, WIDTH, Names, Picture, draw_table, stage_names
from .predictions import CUT, RULE, Array, blank, legend, outline, short, slope, verdict
from .style import BLACK, COLOURS, VERDICTS, error_map


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
        # Of the rounded ones, so that what is shown adds up.
        step = round(round(after.iou or 0.0, 2) - round(before.iou or 0.0, 2), 2) + 0.0
        result = f"{verdict(after)} ({step:+.2f})" if change.any() else "map unchanged"
        ax.set_title(f"no {expert}: {result}", fontsize=8)
    figure.colorbar(shown, ax=axes, label="change of the probability; orange: less without it")
    legend(figure, VERDICTS)
    figure.suptitle(
        f"{short(name)}: one expert removed from every mixture, the others take its place\n"
        f"{RULE}; {CUT}"
    )
    return figure


@rc_context(STYLE)
def show_routing(
    image: Array,
    mask: Array,
    gates: Sequence[ArrayLike],
    usual: ArrayLike,
    experts: Names,
    name: str = "",
) -> Figure:
    """Draw which expert leads at each place of an image, and who counts on the object.

    `gates`: for each mixture (E, h, w), adding up to 1 at each place; `usual` (mixtures, E): the
    set's mean.
    """
    maps = [np.asarray(each, float) for each in gates]
    tall = WIDTH / (len(maps) + 1) * slope(image)
    figure = Picture(figsize=(WIDTH, 3.6 + tall), layout="constrained")
    grid = figure.add_gridspec(2, len(maps) + 1, height_ratios=[tall, 2.4])
    axes = [figure.add_subplot(grid[0, column]) for column in range(len(maps) + 1)]
    for ax in axes:
        ax.set_axis_off()
    axes[0].imshow(image)
    axes[0].set_title("image and its mask's outline")
    outline(axes[0], mask)
    rows, table = [], []
    for ax, stage, each, mean in zip(
        axes[1:], stage_names(len(maps)), maps, np.asarray(usual, float), strict=True
    ):
        ax.imshow(_leaders(image, each))
        outline(ax, mask, BLACK)
        ax.set_title(f"{stage}: the expert that counts most")
        share = object_shares(mask, each.shape[1])
        for where, weight in (("on the object", share), ("elsewhere", 1 - share)):
            rows.append(f"{stage}, {where}")
            table.append((each * weight).sum((1, 2)) / max(weight.sum(), 1e-9))
        rows.append(f"{stage}, all images")
        table.append(mean)
    draw_table(figure.add_subplot(grid[1, :]), np.array(table) * 100, rows, experts)
    legend(figure, dict(zip(experts, COLOURS, strict=False)))
    figure.suptitle(f"{short(name)}: which expert counts where; weights in %, each row sums to 100")
    return figure


def _leaders(image: Array, gates: NDArray[np.float64]) -> Array:
    """Return the image in pale grey under the colours of the experts that lead at each place."""
    height, width = image.shape[:2]
    rows = np.arange(height) * gates.shape[1] // height
    columns = np.arange(width) * gates.shape[2] // width
    leader = gates.argmax(0)[rows][:, columns]
    colours = np.array([[*bytes.fromhex(colour[1:])] for colour in COLOURS])
    grey = 0.35 + 0.5 * image.mean(2, keepdims=True) / 255
    return np.rint(255 * 0.5 * grey + 0.5 * colours[leader]).astype(np.uint8)


@rc_context(STYLE)
def show_experts(
    gates: ArrayLike,
    names: Names = EXPERTS,
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
    note: Sequence[str] = (),
) -> Figure:
    """Draw how much each mixture relied on each expert, and in how many images it counted most.

    `gates` (n, mixtures, E): each expert's weight in one image, rows sum to 1. `groups`: the
    images of each group; then each row is a group, and its numbers are means over the mixtures.
    `note` stands below, a paragraph each. Raises InputError unless there is a name per expert.
    """
    values = np.asarray(gates, float)
    if values.ndim != 3 or values.shape[2] != len(names):
        raise InputError(
            f"Gates of shape {values.shape} do not fit {len(names)} expert names: "
            "give (images, mixtures, experts) and one name per expert."
        )
    leads = np.eye(len(names))[values.argmax(2)]
    rows, tables = stage_names(values.shape[1]), [values.mean(0), leads.mean(0)]
    if groups is not None:
        rows = [f"{name} (n = {len(images)})" for name, images in groups.items()]
        tables = [
            np.stack([table[list(images)].mean((0, 1)) for images in groups.values()])
            for table in (values, leads)
        ]
    below = [line for each in note for line in textwrap.wrap(each, 140, subsequent_indent="  ")]
    tall = 1.8 + 0.4 * len(rows) + 0.16 * len(below)
    figure = Picture(figsize=(WIDTH, tall), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, table in zip(axes, tables, strict=True):
        draw_table(ax, table * 100, rows, names)
    axes[0].set_title("Mean weight, %; each row sums to 100")
    of = "images" if groups is None else "images and mixtures"
    axes[1].set_title(f"Largest weight of all, % of the {of}")
    figure.suptitle(f"Use of the experts over n = {len(values)} images")
    figure.supxlabel("\n".join(below), x=0.01, ha="left", size="medium")
    return figure
