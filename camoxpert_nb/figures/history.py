"""A run's curves as one matplotlib figure, to keep and to edit; `curves` draws them live."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..runs.run import Run
from .canvas import STYLE, WIDTH, Floats, Picture, empty_picture, write_note
from .curves import Line, Panel, Records, column, epochs_done, panels_of, rate_panel, with_value
from .style import loss_name

PANELS = 6  # of curves.panels_of: loss, IoU, learning rate, experts, speed, waiting for data
LETTERS = 60  # of a stage's name, as wide as a panel
Band = tuple[str, float, float]


@rc_context(STYLE)
def show_history(
    records: Records,
    *,
    target: float | None = None,
    title: str = "",
    steps: Records = (),
    loss: str = "structure",
) -> Figure:
    """Draw a run on one page: loss, IoU, learning rate, expert share, speed and data wait.

    `records` are the "epoch" records of a run's history, in order; whatever they lack is left out
    and said so. `target` (IoU, 0...1) becomes a dashed line. `steps`, its "step" records, show how
    the learning rate runs within an epoch; without, it has a point an epoch. `loss` is what
    the loss of the map is called in the legend: the name of a loss of your own.
    """
    if not records:
        return empty_picture(title, "No epoch has ended yet.")
    figure = Picture(figsize=(WIDTH, 9.6), layout="constrained")
    epochs = column(records, "epoch")
    count = f"{len(records)} epoch" + "s" * (len(records) > 1)
    measure = "IoU: mean over the validation images, each map stretched to 0...1 and cut at 0.5"
    figure.suptitle(f"{title + ': ' if title else ''}{count}\n{measure}")
    axes = figure.subplots(PANELS // 2, 2)
    panels = panels_of(epochs, records, epochs, records, target, loss)
    stages = _stages(epochs, records)
    rates = _rates(steps, records) if steps else None
    for ax, drawn in zip(axes.flat, panels[:PANELS], strict=True):
        panel = rates if rates and drawn.title == rates.title else drawn
        _draw_panel(ax, panel)
        _draw_stages(ax, stages, named=ax in axes[0])
        # One axis for all: epoch 3 is from 2 to 3, and what is known at its end stands at 3.
        ax.set(xlabel="epochs done", xlim=(epochs[0] - 1, epochs[-1] + 0.02 * len(epochs)))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def history_of(run: Run) -> Figure:
    """Draw a run's `show_history` as far as it is, under its network, experts, size and images."""
    settings, split = run.load_json("config"), run.load_json("split")
    source = run.load_json("summary").get("weights_source", "")
    network = settings.get("backbone", "")
    experts, size = (settings.get(name) for name in ("num_experts", "img_size"))
    count = len(split.get("validation", []))
    words = [
        f"{network}, from random weights" if source.startswith("none") else network,
        f"{experts} experts" if experts else "",
        f"{size} px" if size else "",
        f"n = {count} validation image{'s' * (count != 1)}" if count else "",
    ]
    return show_history(
        run.records("epoch"),
        steps=run.records("step"),
        target=settings.get("target_iou"),
        title=", ".join(filter(None, words)),
        loss=loss_name(run.load_json("own")),
    )


def _rates(steps: Records, records: Records) -> Panel:
    """Return the learning rates at each step on record."""
    last = records[-1]
    ends = last.get("step") or steps[-1].get("step", 0)
    taken = [each for each in steps if each.get("step", 0) <= ends]
    where = epochs_done(column(taken, "step"), records, ends, last["epoch"])
    return rate_panel(where, taken)


def _draw_panel(ax: Axes, panel: Panel) -> None:
    ax.set(title=panel.title, ylabel=panel.unit)
    if not panel.lines:
        write_note(ax, "not recorded")
    elif panel.stacked:
        _draw_stacked(ax, panel.lines)
    else:
        for line in panel.lines:
            _draw_line(ax, line, panel.log)
        if panel.log:
            ax.set_yscale("log")
            for below, drawn in enumerate(reversed(ax.lines)):
                drawn.set_linewidth(
                    1.5 + 0.5 * below
                )  # groups often share a rate: all stay visible
        else:
            values = np.concatenate([line.y for line in panel.lines])
            highest = values[np.isfinite(values)].max(initial=0)
            ax.set_ylim(0, 1.08 * max(highest, panel.top) or 1)
        if len(panel.lines) > 1:  # below the curves, which fill their panel
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)


def _draw_line(ax: Axes, line: Line, log: bool) -> None:
    if line.dashed:
        ax.axhline(line.y[0], color=line.colour, ls="--", lw=1, label=with_value(line))
    elif line.ring:
        ax.plot(line.x, line.y, "o", c=line.colour, mfc="none", ms=10, label=with_value(line))
    else:
        y = np.where(line.y > 0, line.y, np.nan) if log else line.y
        marker = "o" if np.isfinite(y).sum() < 15 else ""
        ax.plot(line.x, y, color=line.colour, marker=marker, markersize=3.5, label=line.label)


def _draw_stacked(ax: Axes, lines: Sequence[Line]) -> None:
    """Draw a bar an epoch, from its start to its end, of shares that sum to 100."""
    below = np.zeros(len(lines[0].y) - 1)
    for line in lines:
        edges, top = line.x, line.y[1:]
        ax.stairs(top, edges, baseline=below, fill=True, color=line.colour, label=line.label)
        below = top
    ax.set_ylim(0, 100)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), reverse=True)


def _stages(epochs: Floats, records: Records) -> list[Band]:
    """Name, left and right edge of each run of epochs in the same stage."""
    bands = []
    named = zip((str(record.get("stage", "")) for record in records), epochs, strict=True)
    for name, run in groupby(named, key=lambda pair: pair[0]):
        inside = [float(epoch) for _, epoch in run]
        bands.append((name, inside[0] - 1, inside[-1]))
    return bands


def _draw_stages(ax: Axes, stages: Sequence[Band], *, named: bool = True) -> None:
    """Shade every second stage and write the names above the axes, clear of the lines."""
    for _, first, last in stages[1::2]:
        ax.axvspan(first, last, color="#F1F1F1", zorder=0, linewidth=0)
    if named and stages:
        middles = [(first + last) / 2 for _, first, last in stages]
        names = _apart([_named(name) for name, _, _ in stages], middles, stages[-1][2])
        top = ax.secondary_xaxis("top")
        top.set_xticks(middles, names, fontsize=7.5, color="#555555")
        top.tick_params(length=0, pad=1)
        top.spines[:].set_visible(False)


def _apart(names: Sequence[str], middles: Sequence[float], epochs: float) -> list[str]:
    """Return names over an axis of so many epochs, raised by a line where they would touch."""
    ends, raised = list[float](), []  # ends: where each line of names is taken up to
    for name, middle in zip(names, middles, strict=True):
        half = len(name) / LETTERS / 2 * epochs
        free = (row for row, end in enumerate(ends) if end <= middle - half)
        row = next(free, len(ends))
        ends[row : row + 1] = [middle + half + 2 / LETTERS * epochs]
        raised.append(name + "\n" * row)
    return raised


def _named(stage: str) -> str:
    """Return a stage's name as it stands above its curves; what opens in it says the rest."""
    return f"stage {stage}" if stage in ("one", "two") else stage
