"""Figures of a run: its training, its test images, and its place among published results."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from ..data.images import read_image
from ..data.layouts import ImageSet
from ..data.masks import read_labels
from ..evaluation.judge import Judged
from ..evaluation.published import OURS, TEST_IMAGES, compared_with_published, why_not_comparable
from ..evaluation.scores import LABELS
from ..outside.paths import file_name
from ..runs.run import Run
from ..runs.whole import inside
from ..settings.config import EXPERTS, Config
from .canvas import STYLE, WIDTH, Picture, empty_picture, save, try_to_draw
from .experts import show_experts
from .history import history_of
from .predictions import preview_of, show_pairs, show_predictions
from .ranking import evenly
from .style import BLUE, GREY
from .thresholds import show_curves


@rc_context(STYLE)
def show_among_published(table: pd.DataFrame) -> Figure:
    """Draw S-measure, weighted F and MAE of a `compared_with_published` table, this run marked."""
    shown = ("s_measure", "weighted_f", "mae")
    dataset, ours = table["dataset"].iloc[0], table["source"] == OURS
    figure = Picture(figsize=(WIDTH, 1.6 + 0.19 * len(table)), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True)
    places = np.arange(len(table))
    for ax, measure in zip(axes, shown, strict=True):
        ax.plot(table[measure][~ours], places[~ours], "o", color=GREY, markersize=4)
        ax.plot(table[measure][ours], places[ours], "D", color=BLUE, markersize=7)
        better = "lower" if measure == "mae" else "higher"
        ax.set_title(f"{LABELS[measure]} ({better} is better)")
        ax.axhspan(*(places[ours][0] + np.array([-0.5, 0.5])), color=BLUE, alpha=0.12, linewidth=0)
    row = table[ours].iloc[0]
    if pd.notna(row["low"]):
        axes[0].hlines(places[ours], row["low"], row["high"], color=BLUE, linewidth=2)
    sizes = table[["backbone", "input_size"]].agg(lambda r: ", ".join(filter(None, r)), axis=1)
    names = table["method"] + np.where(sizes == "", "", " (" + sizes + ")")
    axes[0].set_yticks(places, names, fontsize=7.5)
    axes[0].set_ylim(len(table) - 0.5, -0.5)
    axes[0].get_yticklabels()[places[ours][0]].set(color=BLUE, weight="bold")
    figure.suptitle(
        f"{dataset} test set, n = {TEST_IMAGES[dataset]:,}: {row['method']} (diamond; line: 95 % "
        f"interval) among {len(table) - 1} published rows\nbest S-measure on top; a dot is missing "
        "where the source does not give the measure"
    )
    return figure


PICTURES = 6


def draw_training(run: Run, say: Callable[[str], None]) -> None:
    """Draw the run's curves, its validation pictures and its experts into RUN/figures.

    `say` is told each file, or why it was left out.
    """
    folder = run.folder / "figures"
    figures = try_to_draw(lambda: training_figures(run), say, str(folder)) or {}
    for name, figure in figures.items():
        path = inside(run.folder, "figures", f"{name}.png")
        if try_to_draw(partial(save, figure, path), say, str(path)):
            say(f"figure: {path}")


def training_figures(run: Run) -> dict[str, Figure]:
    """Return the figures of a training by name: curves, and once it validated the other two."""
    config, preview = Config.load(run.config_path), run.load_preview()
    figures = {"curves": history_of(run)}
    if preview:
        figures["validation"] = show_predictions(preview)
        figures["experts"] = show_experts(preview["gates"], EXPERTS[: config.num_experts])
    return figures


def draw_test(run: Run, judged: Judged) -> Path:
    """Draw a few scored images, from the best to the worst, into RUN/figures."""
    name = judged.name if judged.split == "validation" else f"test-{judged.name}"
    path = inside(run.folder, "figures", f"{file_name(name)}.png")
    return save(show_test(judged), path)


def draw_tests(run: Run, judged: Sequence[Judged], say: Callable[[str], None]) -> None:
    """Draw each set's images and curves; `say` is told each file, or why it was left out."""
    for each in judged:
        for draw, what in ((draw_test, "pictures"), (draw_curves, "precision-recall curves")):
            if path := try_to_draw(partial(draw, run, each), say, f"the {what} of {each.name}"):
                say(f"figure: {path}")


def draw_curves(run: Run, judged: Judged) -> Path:
    """Draw a set's precision-recall, F and E curves into RUN/figures."""
    path = inside(run.folder, "figures", f"{file_name('precision-recall-' + judged.name)}.png")
    return save(show_curves({run.folder.resolve().name: judged.scores}, judged.name), path)


def show_test(judged: Judged) -> Figure:
    """Draw a few scored images, from the best to the worst, as they were scored."""
    ranked = judged.scores.per_image["iou"].sort_values(ascending=False).index
    pairs = [judged.pairs[row] for row in evenly(ranked, PICTURES)]
    shown = preview_of(pairs, [judged.kept[pair.image].probability for pair in pairs])
    title = f"{judged.name}: {len(pairs)} of {len(ranked)} scored images, best to worst,"
    return show_predictions(shown, title=title)


def show_published(judged: Judged) -> Figure:
    """Draw the scores among published results, or say why they cannot stand beside them."""
    how: dict[str, Any] = {"split": judged.split, "trained": judged.trained}
    reason = why_not_comparable(judged.scores, judged.name, **how)
    if reason:
        return empty_picture(f"{judged.name} beside published results", textwrap.fill(reason, 110))
    return show_among_published(compared_with_published(judged.scores, judged.name, **how))


def draw_pairs(sets: Sequence[ImageSet], path: Path) -> Path:
    """Draw a few pairs from all over the sets, each mask's outline on its image."""
    pairs = [pair for each in sets for pair in each.pairs]
    shown = evenly(pairs, 2 * PICTURES)
    return save(
        show_pairs(
            [read_image(pair.image) for pair in shown],
            [read_labels(pair) for pair in shown],
            [pair.name for pair in shown],
        ),
        path,
    )
