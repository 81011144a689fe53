"""A run's curves as one matplotlib figure, to keep and to edit; `curves` draws them live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, groupby
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from ..settings.config import EXPERTS
from .canvas import STYLE, WIDTH, Floats, Names, Picture, _say, empty_picture
from .style import BLACK, BLUE, COLOURS, RED, SKY, TERMS

Records = Sequence[Mapping[str, Any]]


Band = tuple[str, float, float]


@rc_context(STYLE)
def show_history(
    records: Records, *, target: float | None = None, title: str = "", experts: Names = EXPERTS
) -> Figure:
    """Draw a run on one page: loss, IoU, learning rate, expert share, speed and data wait.

    `records` are the "epoch" records of a run's history, in order; whatever they lack is left out
    and said so. `target` (IoU, 0...1) becomes a dashed line.
    """
    if not records:
        return empty_picture(title, "No epoch has ended yet.")
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


def _column(records: Records, key: str) -> Floats:
    """The values of one key, NaN where a record lacks it."""
    return np.array([record.get(key) for record in records], dtype=float)
