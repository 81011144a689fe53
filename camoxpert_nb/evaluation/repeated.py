"""What several runs of the same settings reached: each member, the mean, and the spread.

Every member is scored with its best weights on the images that it held out, at each mask's size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.cache import Progress
from ..data.identity import Split
from ..data.layouts import find_datasets
from ..data.pairs import Pair
from ..data.selection import select
from ..errors import InputError
from ..runs.run import Run
from ..settings.config import Config
from .compare import aligned
from .judge import data_of, open_predictor
from .scores import LABELS, Bounds, Scores, bootstrap, percentile_interval
from .scoring import evaluate
from .which_images import reading_for

SHOWN = ("iou", "s_measure", "weighted_f", "mean_e", "mae")
SEEDS = (
    "The standard deviation (n - 1) says how far a single training of these settings lies from "
    "their mean where nothing but the seed differs; it says nothing about other images."
)
FOLDS = (
    "The standard deviation (n - 1) is over folds that differ in the images they trained on and in "
    "those they are scored on; it is no error of the mean, as folds share most of their training "
    "images (Bengio and Grandvalet, 2004)."
)
POOLED = (
    "Each image is scored by the one member that held it out. The interval (95 %, bootstrap over "
    "the images) says how far that mean would move with other images of this kind."
)


@dataclass(frozen=True)
class Repeated:
    """What `score_repeat` finds. by: "seed" or "fold".

    rows: of each member "member", SHOWN (None without an object), "images", "epochs", "minutes".
    mean, sd: of SHOWN over the members; sd is of the sample, None for fewer than two. pooled: for
    folds (mean, interval or None) of SHOWN over all `images` with an object. notes: what is to be
    known besides.
    """

    by: str
    rows: list[dict[str, Any]]
    mean: dict[str, float | None]
    sd: dict[str, float | None]
    pooled: dict[str, tuple[float, Bounds | None]]
    images: int
    notes: Sequence[str] = ()

    @property
    def meaning(self) -> str:
        """What the spread says, in a sentence."""
        return SEEDS if self.by == "seed" else FOLDS

    def table(self) -> pd.DataFrame:
        """Return the members, their mean and their standard deviation, a row each."""
        ends = [
            {"member": "mean", **self.mean},
            {"member": "standard deviation", **self.sd},
        ]
        return pd.DataFrame([*self.rows, *ends])

    def summary(self) -> str:
        """Return everything as text."""
        shown = self.table().rename(columns=LABELS)
        for name, digits in (*((LABELS[each], 4) for each in SHOWN), ("minutes", 1)):
            shown[name] = [_text(value, digits) for value in shown[name]]
        for name in ("images", "epochs"):
            shown[name] = [_text(value, 0) for value in shown[name]]
        lines = [aligned(shown.set_index("member")), self.meaning]
        if self.pooled:
            lines += [f"All {self.images} images with an object together. {POOLED}"]
            lines += [
                f"  {LABELS[name]:<19} {mean:.4f}"
                + (f" ({bounds[0]:.4f} to {bounds[1]:.4f})" if bounds else "")
                for name, (mean, bounds) in self.pooled.items()
            ]
        return "\n".join([*lines, *self.notes])

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values that `json` can write."""
        pooled = {
            name: {"mean": mean, "interval": bounds} for name, (mean, bounds) in self.pooled.items()
        }
        values = {"by": self.by, "members": self.rows, "mean": self.mean, "sd": self.sd}
        values |= {"meaning": self.meaning, "notes": list(self.notes)}
        return values | ({"pooled": pooled, "pooled_images": self.images} if pooled else {})


def score_repeat(
    by: str, runs: Mapping[str, Run], device: str = "auto", progress: Progress | None = None
) -> tuple[Repeated, dict[str, Scores]]:
    """Score each finished member on what it held out; return the results and each one's scores.

    Raises InputError where there is no member, or its images are not where it trained on them.
    """
    if not runs:
        raise InputError("No member is there to be scored: train one to its end first.")
    scores = {
        name: evaluate(open_predictor(run, device), held_out_pairs(run), progress=progress)
        for name, run in runs.items()
    }
    return summed_up(by, runs, scores), scores


def summed_up(by: str, runs: Mapping[str, Run], scores: Mapping[str, Scores]) -> Repeated:
    """Return the table, mean and spread of members whose scores are known."""
    rows = []
    for name, run in runs.items():
        found, own = run.load_json("summary"), scores[name]
        row = {"member": name, **{each: own.mean[each] for each in SHOWN}, "images": own.n}
        minutes = round(found.get("seconds", 0.0) / 60, 2)
        rows.append({**row, "epochs": found.get("epochs"), "minutes": minutes})
    table = pd.DataFrame(rows)[list(SHOWN)].astype(float)
    pooled, images = _pooled([*scores.values()]) if by == "fold" else ({}, 0)
    notes = _about_union(runs) if by == "fold" else []
    return Repeated(
        by, rows, _plain(table.mean()), _plain(table.std(ddof=1)), pooled, images, notes
    )


def held_out_pairs(run: Run) -> list[Pair]:
    """Return the images that validated a run, each once, as they lie where it trained.

    Raises InputError where none of them is there any more.
    """
    root, split = Path(data_of(run)), Split.load(run.load_json("split"))
    sets = find_datasets(root, reading_for(run, root)[0])
    chosen = select(sets, noncam=Config.load(run.config_path).noncam)
    own = [*chosen.validation, *chosen.train]
    found: dict[str, Pair] = {}
    for key, pair in zip(split.keys(own), own, strict=True):
        if key in split.validation:
            found.setdefault(key, pair)
    if not found:
        raise InputError(
            f"{root} holds none of the {len(split.validation)} images that {run.folder} held out: "
            "put them back where the run trained on them, so that it can be scored."
        )
    return list(found.values())


def _pooled(scores: Sequence[Scores]) -> tuple[dict[str, tuple[float, Bounds | None]], int]:
    """Return mean and interval of SHOWN over the images of all members that have an object."""
    every = pd.concat([one.per_image for one in scores], ignore_index=True)
    values = every.loc[every["object_share"] > 0, list(SHOWN)].to_numpy()
    if not len(values):
        return {}, 0
    drawn = bootstrap(len(values)) @ values if len(values) > 1 else None
    return {
        name: (
            float(values[:, place].mean()),
            None if drawn is None else percentile_interval(drawn[:, place]),
        )
        for place, name in enumerate(SHOWN)
    }, len(values)


def _about_union(runs: Mapping[str, Run]) -> list[str]:
    """Say where the folds are not what they should be: each image scored once."""
    splits = [Split.load(run.load_json("split")) for run in runs.values()]
    scored = Counter(key for split in splits for key in split.validation)
    every = {key for split in splits for key in (*split.train, *split.validation)}
    twice = sum(times > 1 for times in scored.values())
    notes = []
    if never := len(every - set(scored)):
        notes.append(f"NOTE: {never} images are scored by no member that is here.")
    if twice:
        notes.append(
            f"NOTE: {twice} images are scored by several members: the data changed between them."
        )
    return notes


def _plain(values: pd.Series[float]) -> dict[str, float | None]:
    return {str(name): None if np.isnan(value) else float(value) for name, value in values.items()}


def _text(value: Any, digits: int) -> str:
    return "" if value is None or pd.isna(value) else f"{value:.{digits}f}"
