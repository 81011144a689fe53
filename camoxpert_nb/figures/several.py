"""Several runs in one figure: their validation IoU and structure loss over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..errors import InputError
from ..runs.history import kept_epoch
from ..runs.place import list_runs, usual_places
from ..runs.run import Record, Run
from .canvas import STYLE, WIDTH, Floats, Picture, empty_picture
from .curves import column
from .style import COLOURS

MOST = 14  # lines that can be told apart: each colour whole and dashed
DASHES = ("-", (0, (4, 2)))


@rc_context(STYLE)
def show_runs(runs: Sequence[Run | Path | str] = ()) -> Figure:
    """Draw the validation IoU (the better of raw and averaged weights) and structure loss of runs.

    The training loss is no measure between runs, as its terms and weights differ; a run with a loss
    of its own, or with `legacy_loss`, has no line there.

    runs: runs or their folders; none: the newest in runs/. Where runs were validated on different
    images the figure says so: their IoU cannot be compared. Raises InputError for a folder without
    a run.
    """
    chosen = [_opened(run) for run in runs] or newest()
    drawn = [(run, epochs) for run in chosen[:MOST] if (epochs := run.records("epoch"))]
    if not drawn:
        return empty_picture("Several runs", "No run here has ended an epoch yet.")
    names = _names([run for run, _ in drawn])
    rows = -(-len(drawn) // 2)
    figure = Picture(figsize=(WIDTH, 4.0 + 0.22 * rows), layout="constrained")
    scores, losses = figure.subplots(1, 2)
    unlike = 0  # runs without a structure loss
    for place, (name, (run, epochs)) in enumerate(zip(names, drawn, strict=True)):
        at, iou, loss = column(epochs, "epoch"), _iou(epochs), _structure(run, epochs)
        look = {"color": COLOURS[place % len(COLOURS)], "ls": DASHES[place // len(COLOURS)]}
        kept = kept_epoch(epochs)
        best = f", best IoU {kept.iou:.3f}" if kept else ""
        for ax, values in ((scores, iou), (losses, loss)):
            marker = "o" if len(at) < 15 else ""
            ax.plot(at, values, marker=marker, markersize=3.5, label=name + best, **look)
        unlike += not np.isfinite(loss).any()
    _finish(scores, "Validation IoU", 1.0)
    _finish(losses, "Validation structure loss" + f"\n({unlike} without)" * bool(unlike))
    lines, labels = scores.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=2)
    left = len(chosen) - len(drawn)
    title = f"{len(drawn)} runs" if len(drawn) > 1 else names[0]
    title += f", {left} more not drawn" * (left > 0)
    figure.suptitle("\n".join([title, _comparable([epochs for _, epochs in drawn])]).strip())
    return figure


def newest() -> list[Run]:
    """Return the runs of the usual places, the newest first."""
    return [Run(row["folder"]) for row in list_runs(usual_places())]


def _opened(run: Run | Path | str) -> Run:
    run = run if isinstance(run, Run) else Run(run)
    if not run.config_path.is_file():
        raise InputError(
            f"{run.folder} holds no run (config.json is missing), expected the folder of one. "
            "See which there are: camoxpert runs"
        )
    return run


def _names(runs: Sequence[Run]) -> list[str]:
    """Return what tells the folders apart: their names, or whole paths where two have one."""
    names = [run.folder.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def _iou(epochs: Sequence[Record]) -> Floats:
    """Return the better IoU of each epoch, NaN where none was measured."""
    both = np.stack([column(epochs, "iou"), column(epochs, "iou_ema")])
    better = np.nan_to_num(both, nan=-1.0).max(0)
    return np.where(better < 0, np.nan, better)


def _structure(run: Run, epochs: Sequence[Record]) -> Floats:
    """Return the validation structure loss of each epoch, NaN where another loss was measured."""
    loss = column(epochs, "val_loss")
    own = "loss" in run.own_parts or run.load_json("config").get("legacy_loss")
    return np.full_like(loss, np.nan) if own else loss


def _comparable(runs: Sequence[Sequence[Record]]) -> str:
    """Say where runs were validated on different images."""
    sets = {epochs[-1].get("validation") for epochs in runs}
    if len(sets) < 2:
        return ""
    return (
        f"not to be compared: they were validated on {len(sets)} different sets of images. "
        "Score them on one: camoxpert evaluate"
    )


def _finish(ax: Axes, title: str, most: float | None = None) -> None:
    ax.set(title=title, xlabel="epoch")
    values = np.concatenate([np.zeros(0), *(line.get_ydata() for line in ax.lines)])
    ax.set_ylim(0, most or 1.08 * values[np.isfinite(values)].max(initial=0) or 1)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
