"""A run's scores among the published ones, where the two can be compared, and only there.

published.csv: method, backbone, input_size (pixels; empty where its source does not say), dataset,
measures, source. Every row was read in the source it names. Published tables give no per-image IoU.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from .errors import InputError
from .palette import BLUE, GREY
from .plots import STYLE, WIDTH, Picture
from .scores import LABELS, Scores

TEST_IMAGES = {"CAMO": 250, "CHAMELEON": 76, "COD10K": 2026, "NC4K": 4121}
COLUMNS = ("s_measure", "weighted_f", "mean_e", "adaptive_e", "max_e", "mae")
# SINet-V2's README: two images are in the field's usual training set and in COD10K's test set.
_USUAL_OVERLAP = {"COD10K": 2}
_OURS = "this run"


def published(dataset: str) -> pd.DataFrame:
    """Return the published rows of a test set; InputError for one without any."""
    _check_name(dataset)
    rows = pd.read_csv(Path(__file__).with_suffix(".csv"), keep_default_na=False, na_values={})
    rows[list(COLUMNS)] = rows[list(COLUMNS)].apply(pd.to_numeric)
    return rows[rows["dataset"] == dataset].reset_index(drop=True)


def beside(
    scores: Scores,
    dataset: str,
    *,
    split: str = "test",
    trained: int = 0,
    name: str = _OURS,
    backbone: str = "",
    input_size: str = "",
) -> pd.DataFrame:
    """Return the published rows of `dataset` and this run's, best S-measure first.

    split: "test", "all" (of a folder) or "validation"; trained: how many of the scored images
    trained the network. The run's row
    has "low" and "high", the 95 % interval of its S-measure. Raises InputError, with the reason,
    unless these are the benchmark's test images and its protocol.
    """
    if reason := why_not(scores, dataset, split=split, trained=trained):
        raise InputError(reason)
    low, high = scores.interval["s_measure"] or (None, None)
    ours: dict[str, object] = {
        "method": name,
        "backbone": backbone,
        "input_size": input_size,
        "dataset": dataset,
    }
    ours |= {measure: scores.mean[measure] for measure in COLUMNS}
    ours |= {"source": _OURS, "low": low, "high": high}
    table = pd.concat([published(dataset), pd.DataFrame([ours])], ignore_index=True)
    return table.sort_values("s_measure", ascending=False, ignore_index=True)


def why_not(scores: Scores, dataset: str, *, split: str = "test", trained: int = 0) -> str | None:
    """Return why scores cannot stand beside published ones, in a sentence; None if they can."""
    if dataset not in TEST_IMAGES:
        return (
            f"'{dataset}' is no test set with published numbers here ({', '.join(TEST_IMAGES)}), "
            "so there is nothing to stand beside."
        )
    noncam = int(scores.per_image["name"].str.contains("noncam", case=False).sum())
    if split == "validation":
        return (
            "The scored images are those the run held out for validation, and it chose its best "
            f"weights on them; published numbers are of {dataset}'s test split. Score that with "
            "--split test."
        )
    if noncam or scores.n_empty:
        count = f"{noncam} NonCAM images" if noncam else f"{scores.n_empty} images without object"
        return (
            f"{count} are among the {scores.n} scored, but the field scores {dataset} without "
            "them: they change every mean. Score without --noncam."
        )
    if scores.n != TEST_IMAGES[dataset]:
        return (
            f"{scores.n} images were scored, but {dataset}'s test set has "
            f"{TEST_IMAGES[dataset]:,}: means over other images cannot be compared. Score all of "
            "the test set and nothing else."
        )
    if trained > _USUAL_OVERLAP.get(dataset, 0):
        return (
            f"{trained} of the {scores.n} scored images trained this network, so its numbers are "
            "too good. Train without them."
        )
    return None


@rc_context(STYLE)
def show_beside(table: pd.DataFrame) -> Figure:
    """Draw S-measure, weighted F and MAE of all methods of a `beside` table, this run marked."""
    shown = ("s_measure", "weighted_f", "mae")
    dataset, ours = table["dataset"].iloc[0], table["source"] == _OURS
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


def _check_name(dataset: str) -> None:
    if dataset not in TEST_IMAGES:
        raise InputError(f"No published rows for '{dataset}'. Known: {', '.join(TEST_IMAGES)}.")
