"""A run's scores among the published ones, where the two can be compared, and only there.

published.csv: method, backbone, input_size (pixels; empty where its source does not say), dataset,
measures, source. Every row was read in the source it names. Published tables give no per-image IoU.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..errors import InputError
from .scores import Scores

TEST_IMAGES = {"CAMO": 250, "CHAMELEON": 76, "COD10K": 2026, "NC4K": 4121}
COLUMNS = ("s_measure", "weighted_f", "mean_e", "adaptive_e", "max_e", "mae")
# SINet-V2's README: two images are in the field's usual training set and in COD10K's test set.
_USUAL_OVERLAP = {"COD10K": 2}
OURS = "this run"


def published(dataset: str) -> pd.DataFrame:
    """Return the published rows of a test set; InputError for one without any."""
    if dataset not in TEST_IMAGES:
        raise InputError(f"No published rows for '{dataset}'. Known: {', '.join(TEST_IMAGES)}.")
    rows = pd.read_csv(Path(__file__).with_suffix(".csv"), keep_default_na=False)
    rows[list(COLUMNS)] = rows[list(COLUMNS)].apply(pd.to_numeric)
    return rows[rows["dataset"] == dataset].reset_index(drop=True)


def compared_with_published(
    scores: Scores,
    dataset: str,
    *,
    split: str = "test",
    trained: int = 0,
    name: str = OURS,
    backbone: str = "",
    input_size: str = "",
) -> pd.DataFrame:
    """Return the published rows of `dataset` and this run's, best S-measure first.

    split: "test", "all" (of a folder) or "validation"; trained: how many of the scored images
    trained the network. The run's row has "low" and "high", the 95 % interval of its S-measure.
    Raises InputError, with the reason, unless these are the benchmark's test images and protocol.
    """
    if reason := why_not_comparable(scores, dataset, split=split, trained=trained):
        raise InputError(reason)
    low, high = scores.interval["s_measure"] or (None, None)
    ours = {"method": name, "backbone": backbone, "input_size": input_size, "dataset": dataset}
    measures = {measure: scores.mean[measure] for measure in COLUMNS}
    row = pd.DataFrame([ours | measures | {"source": OURS, "low": low, "high": high}])
    table = pd.concat([published(dataset), row], ignore_index=True)
    return table.sort_values("s_measure", ascending=False, ignore_index=True)


def why_not_comparable(
    scores: Scores, dataset: str, *, split: str = "test", trained: int = 0
) -> str | None:
    """Return why scores cannot stand beside published ones, in a sentence; None if they can."""
    if dataset not in TEST_IMAGES:
        return (
            f"'{dataset}' is no test set with published numbers here ({', '.join(TEST_IMAGES)}), "
            "so there is nothing to compare with."
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
