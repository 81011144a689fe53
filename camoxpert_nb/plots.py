"""Figures from data: each function takes plain records or arrays and returns a Figure.

The figures are matplotlib objects that pyplot never sees: nothing stays open, no backend is chosen,
and the same code draws in a notebook, in a script and on a machine without a display.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle, groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from .errors import InputError

EXPERTS = ("texture", "attention", "hybrid", "frequency", "edge", "context", "contrast")
# Okabe and Ito's palette (Color Universal Design, 2008), told apart by every kind of vision
BLACK, GREY = "#000000", "#8C8C8C"
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, YELLOW = "#56B4E9", "#D55E00", "#F0E442"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW)
VERDICTS = {"hit": BLUE, "miss": YELLOW, "false alarm": RED}
TERMS = {"loss": BLACK, "structure": BLUE, "deep": ORANGE, "uncertainty": PURPLE, "balance": GREEN}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.titlesize": 11,
}
WIDTH = 10.0  # inches: about 1000 px, a notebook's width

Records = Sequence[Mapping[str, Any]]
Names = Sequence[str]
Array = NDArray[np.uint8]
Floats = NDArray[np.float64]
Band = tuple[str, float, float]


class Picture(Figure):
    """A Figure that a notebook shows by itself, although no pyplot backend was set up for it."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure, by the path's suffix as PNG, PDF or SVG; return the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


@rc_context(STYLE)
def show_history(
    records: Records, *, target: float | None = None, title: str = "", experts: Names = EXPERTS
) -> Figure:
    """Draw a run on one page: loss, IoU, learning rate, expert share, speed and data wait.

    `records` are the "epoch" records of a run's history, in order; whatever they lack is left out
    and said so. `target` (IoU, 0...1) becomes a dashed line.
    """
    if not records:
        return _empty(title, "No epoch has ended yet.")
    figure = Picture(figsize=(WIDTH, 9.6), layout="constrained")
    epochs = _column(records, "epoch")
    count = f"{len(records)} epoch" + "s" * (len(records) > 1)
    measure = "IoU: mean over the validation images, each map stretched to 0...1 and cut at 0.5"
    figure.suptitle(f"{title + ': ' if title else ''}{count}\n{measure}")
    axes = figure.subplots(3, 2)
    terms = {name: (_column(records, name), colour) for name, colour in TERMS.items()}
    _draw_lines(axes[0, 0], epochs, terms, "Training loss and its terms", "mean of the epoch")
    _draw_iou(axes[0, 1], epochs, records, target)
    groups = dict.fromkeys(name for record in records for name in record.get("lr") or {})
    rates = {name: _column([record.get("lr") or {} for record in records], name) for name in groups}
    _draw_rates(axes[1, 0], epochs, rates)
    _draw_shares(axes[1, 1], epochs, records, experts)
    speed, wait = _column(records, "images_per_second"), _column(records, "data_wait_percent")
    for ax, values in zip(axes[2], (speed, wait), strict=True):
        ax.set_ylim(0, 1.1 * np.nanmax(values, initial=0.1))
    _draw_lines(axes[2, 0], epochs, {"": (speed, BLUE)}, "Training speed", "images per second")
    _draw_lines(axes[2, 1], epochs, {"": (wait, BLUE)}, "Waiting for data", "% of the time")
    stages = _stages(epochs, records)
    for ax in axes.flat:
        _draw_stages(ax, stages, named=ax in axes[0])
        ax.set(xlabel="epoch", xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


@rc_context(STYLE)
def show_predictions(preview: Mapping[str, Any], *, rows: int = 6, title: str = "") -> Figure:
    """Draw a row per image: image, mask, probability, and where prediction and mask differ.

    `preview`: names (n,), image (n, S, S, 3) uint8, mask (n, S, S) uint8 0/1, probability (n, S, S)
    uint8 0...255, as in a run's preview.npz. IoU is that of the maps shown, as the metrics take it:
    where there is an object, a map is stretched to 0...1 before the threshold of 0.5.
    """
    total = len(preview.get("names", ()))
    if not total:
        return _empty("Predictions", "No prediction has been made yet.")
    n = min(rows, total)
    images, masks = preview["image"][:n], preview["mask"][:n] > 0
    maps = preview["probability"][:n] / 255
    figure = Picture(figsize=(WIDTH, 0.9 + 2.6 * n), layout="constrained")
    axes = figure.subplots(n, 4, squeeze=False)
    headings = ("image", "mask", "probability: black 0, white 1", "prediction against mask")
    for ax, heading in zip(axes[0], headings, strict=True):
        ax.set_title(f"{heading}\n", fontsize=9)
    rows_of = zip(axes, preview["names"][:n], images, masks, maps, strict=True)
    scores = [_draw_prediction(*row) for row in rows_of]
    patches = [Patch(color=colour, label=name) for name, colour in VERDICTS.items()]
    figure.legend(handles=patches, loc="outside lower right", ncols=3)
    scored = [score for score in scores if score is not None]
    mean = f"; mean IoU {np.mean(scored):.2f}, n = {len(scored)}" if scored else ""
    figure.suptitle(
        f"{title or f'{n} of {total} images'} at {images.shape[2]} x {images.shape[1]} px{mean}\n"
        "IoU of an image = hit / (hit + miss + false alarm), in pixels; the map is stretched to "
        "0...1, then cut at 0.5"
    )
    return figure


@rc_context(STYLE)
def show_pairs(images: Sequence[Array], masks: Sequence[Array], names: Names) -> Figure:
    """Draw a sample of a data set: each image with its object's outline, and its mask.

    `images`: (H, W, 3) uint8 each, `masks`: (H, W) of 0 and 1 each; sizes may differ.
    """
    if not len(images):
        return _empty("Image and mask", "There is no image to show.")
    count = -(-len(images) // 3)
    figure = Picture(figsize=(WIDTH, 0.6 + 2.1 * count), layout="constrained")
    axes = figure.subplots(count, 6, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    cells = axes.reshape(-1, 2)[: len(images)]
    for (left, right), image, mask, name in zip(cells, images, masks, names, strict=True):
        left.imshow(image)
        right.imshow(mask, cmap="gray", vmin=0, vmax=1)
        if mask.any() and not mask.all():
            left.contour(mask, [0.5], colors=[YELLOW], linewidths=1)
        size = f"{mask.shape[1]} x {mask.shape[0]} px, object {mask.mean():.1%}"
        left.set_title(f"{_short(name)}\n{size}", fontsize=7.5)
    figure.suptitle(f"n = {len(images)} images, the mask's outline in yellow")
    return figure


@rc_context(STYLE)
def show_experts(gates: ArrayLike, names: Names = EXPERTS) -> Figure:
    """Draw how much each stage relied on each expert, as the mean over the images.

    `gates` (n, stages, E): each expert's weight for one image in one stage, rows sum to 1.
    Raises InputError unless there is one name per expert.
    """
    values = np.asarray(gates, float)
    if values.ndim != 3 or values.shape[2] != len(names):
        raise InputError(
            f"Gates of shape {values.shape} do not fit {len(names)} expert names: "
            "give (images, stages, experts) and one name per expert."
        )
    share = values.mean(0) * 100
    figure = Picture(figsize=(WIDTH, 1.8 + 0.55 * len(share)), layout="constrained")
    ax = figure.subplots()
    picture = ax.imshow(share, cmap="cividis", vmin=0, aspect="auto")
    for (stage, expert), value in np.ndenumerate(share):
        dark = value < 0.6 * share.max()
        ax.text(expert, stage, f"{value:.0f}", ha="center", va="center", color="w" if dark else "k")
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(share)), [f"stage {stage + 1}" for stage in range(len(share))])
    ax.grid(False)
    ax.set_title(f"Mean expert weight over n = {len(values)} images; each row sums to 100 %")
    figure.colorbar(picture, ax=ax, label="mean weight, %")
    return figure


def _draw_iou(ax: Axes, epochs: Floats, records: Records, target: float | None) -> None:
    raw, ema = _column(records, "iou"), _column(records, "iou_ema")
    lines = {"raw weights": (raw, SKY), "averaged weights (EMA)": (ema, BLUE)}
    _draw_lines(ax, epochs, lines, "Validation IoU", "IoU, 0 to 1")
    if target is not None:
        ax.axhline(target, color=RED, linestyle="--", linewidth=1, label=f"target {target:.2f}")
    better = np.fmax(raw, ema)
    if np.isfinite(better).any():
        at = int(np.nanargmax(better))
        best = f"best {better[at]:.3f}, epoch {epochs[at]:.0f}"
        ax.plot(epochs[at], better[at], "o", color=BLACK, mfc="none", markersize=10, label=best)
        ax.set_ylim(0, 1.08 * max(better[at], target or 0, 0.05))
        ax.legend(loc="lower right")


def _draw_rates(ax: Axes, x: Floats, rates: Mapping[str, ArrayLike]) -> None:
    """Learning rates on a log axis; where a group is frozen (rate 0) its line has a gap."""
    lines = {}
    for (name, values), colour in zip(rates.items(), cycle(COLOURS), strict=False):
        rate = np.asarray(values, float)
        lines[name] = (np.where(rate > 0, rate, np.nan), colour)
    _draw_lines(ax, x, lines, "Learning rate per group", "learning rate (not drawn while 0)")
    for below, line in enumerate(reversed(ax.lines)):
        line.set_linewidth(1.5 + 0.5 * below)  # groups often share one rate: all stay visible
    if ax.lines:
        ax.set_yscale("log")


def _draw_shares(ax: Axes, epochs: Floats, records: Records, experts: Names) -> None:
    ax.set_title("Expert share, mean over the stages")
    ax.set_ylabel("% of the weight")
    known = [index for index, record in enumerate(records) if record.get("gates")]
    if not known:
        _say(ax, "not recorded")
        return
    share = np.array([np.mean(records[index]["gates"], 0) for index in known]) * 100  # (epochs, E)
    tops, edges = np.cumsum(share, 1), [*(epochs[known] - 0.5), epochs[known[-1]] + 0.5]
    for name, colour, part, top in zip(experts, cycle(COLOURS), share.T, tops.T, strict=False):
        ax.stairs(top, edges, baseline=top - part, fill=True, color=colour, label=name)
    ax.set_ylim(0, 100)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), reverse=True)


def _draw_lines(
    ax: Axes, x: Floats, lines: Mapping[str, tuple[Floats, str]], title: str, unit: str
) -> None:
    ax.set(title=title, ylabel=unit)
    for name, (values, colour) in lines.items():
        if np.isfinite(values).any():
            marker = "o" if np.isfinite(values).sum() < 15 else ""
            ax.plot(x, values, color=colour, marker=marker, markersize=3.5, label=name)
    if not ax.lines:
        _say(ax, "not recorded")
    elif len(lines) > 1:
        ax.legend()


def _stages(epochs: Floats, records: Records) -> list[Band]:
    """Name, left and right edge of each run of epochs in the same stage."""
    bands = []
    named = zip((str(record.get("stage", "")) for record in records), epochs, strict=True)
    for name, run in groupby(named, key=lambda pair: pair[0]):
        inside = [float(epoch) for _, epoch in run]
        bands.append((name, inside[0] - 0.5, inside[-1] + 0.5))
    return bands


def _draw_stages(ax: Axes, stages: Sequence[Band], *, named: bool = True) -> None:
    """Shade every second stage and write the names above the axes, clear of the lines."""
    for _, first, last in stages[1::2]:
        ax.axvspan(first, last, color="#F1F1F1", zorder=0, linewidth=0)
    if named and stages:
        middles = [(first + last) / 2 for _, first, last in stages]
        top = ax.secondary_xaxis("top")
        top.set_xticks(middles, [name for name, _, _ in stages], fontsize=7.5, color="#555555")
        top.tick_params(length=0, pad=1)
        top.spines[:].set_visible(False)


def _draw_prediction(
    axes: NDArray[Any], name: str, image: Array, mask: NDArray[np.bool_], probability: Floats
) -> float | None:
    found = (_stretched(probability) if mask.any() else probability) > 0.5
    score = _iou(found, mask)
    axes[0].imshow(image)
    axes[1].imshow(mask, cmap="gray", vmin=0, vmax=1)
    axes[2].imshow(probability, cmap="gray", vmin=0, vmax=1)
    axes[3].imshow(_compare(image, mask, found))
    said = f"no object, {found.mean():.1%} false alarm" if score is None else f"IoU {score:.2f}"
    axes[3].set_title(axes[3].get_title(loc="left") + said, fontsize=9)
    axes[0].text(  # not a title: a long name would widen its column
        0, 1.03, _short(str(name)), transform=axes[0].transAxes, fontsize=8, in_layout=False
    )
    for ax in axes:
        ax.set_axis_off()
    return score


def _column(records: Records, key: str) -> Floats:
    """The values of one key, NaN where a record lacks it."""
    return np.array([record.get(key) for record in records], dtype=float)


def _stretched(probability: Floats) -> Floats:
    """Stretch a map to 0...1, as the field's toolbox does before it scores; a flat map stays."""
    return (probability - probability.min()) / (np.ptp(probability) or 1)


def _iou(found: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float | None:
    """Intersection over union of two (H, W) maps; None if there is no object to find."""
    return float((found & mask).sum() / (found | mask).sum()) if mask.any() else None


def _compare(image: Array, mask: NDArray[np.bool_], found: NDArray[np.bool_]) -> Floats:
    """The image in pale grey, (H, W, 3) of 0...1, with hits, misses and false alarms in colour."""
    picture = np.repeat(0.35 + 0.5 * image.mean(2, keepdims=True) / 255, 3, 2)
    verdicts = (found & mask, mask & ~found, found & ~mask)
    for where, colour in zip(verdicts, VERDICTS.values(), strict=True):
        picture[where] = 0.35 * picture[where] + 0.65 * np.array(to_rgb(colour))
    return picture


def _short(name: str, most: int = 40) -> str:
    return name if len(name) <= most else f"{name[: most // 2 - 1]}...{name[-most // 2 + 2 :]}"


def _say(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=GREY)
    ax.set_yticks([])


def _empty(title: str, text: str) -> Figure:
    figure = Picture(figsize=(WIDTH, 2), layout="constrained")
    ax = figure.subplots()
    ax.set_axis_off()
    _say(ax, text)
    figure.suptitle(title)
    return figure
