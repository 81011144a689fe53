"""The scores of a set of images: means, how sure they are, and who pulls them up or down.

An interval says how far a mean would move had other images of the same kind been photographed. It
says nothing about training again with another seed: for that, train again (`compare.ablation`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..outside.refused import naming
from .metrics import MEASURES, Measured

Floats = NDArray[np.float64]
Mean = dict[str, float | None]
Bounds = tuple[float, float]
Interval = dict[str, Bounds | None]

RESAMPLES = 1000
LABELS = {
    "iou": "IoU",
    "dice": "Dice",
    "s_measure": "S-measure (S_alpha)",
    "weighted_f": "weighted F",
    "mean_e": "mean E (E_phi)",
    "adaptive_e": "adaptive E",
    "max_e": "max E",
    "mean_f": "mean F",
    "adaptive_f": "adaptive F",
    "max_f": "max F",
    "mae": "MAE",
    "boundary_iou": "Boundary IoU",
}
_COLUMNS = {
    "name": "image",
    "group": "group",
    "n": "images",
    "object_share": "object, share of the image",
    "raw_mae": "MAE, not stretched",
    "false_alarm": "false alarms, share of the image",
}
SIZES = ("no object", "under 1 %", "1 to 5 %", "5 to 15 %", "15 % and more")  # of the image
EDGES = (0.01, 0.05, 0.15)
COD10K = re.compile(r"^COD10K-(?:Non)?CAM-\d+-([A-Za-z]+)-")
# The best over the thresholds is that of the mean curve, as in pysodmetrics; name: its curve.
_BEST = {"max_e": "e", "max_f": "f", "best_threshold_iou": "iou"}


@dataclass(frozen=True)
class Scores:
    """How good the maps of a set are.

    n: images; n_empty: those without an object. mean: the twelve measures (None without an image
    to average), where max E and F are the maximum of the mean curve, as in pysodmetrics. They are
    over the images with an object: IoU and F of an empty mask are 0 whatever is predicted.
    empty: of the empty images, mean "mae" without min-max and "false_alarm" (share of pixels above
    0.5). per_image: a row for each image with its name and `metrics.Measured.values`.
    curves: the mean curves of `metrics.Measured`, each (256,); none without an image to average.
    Precision and recall are averaged image by image at each threshold, as papers of the field do.

    interval: of each mean, (low, high) of `bootstrap`; None for fewer than two images.
    other: "pooled_iou" (all pixels of the set as one image), "best_threshold_iou" and the
    "best_threshold" (0...1) it was found at, on these very images: a bound, not a result.
    by_size, by_class: a row for each group with "group", "n", "mean" and the "interval" of IoU;
    the object's share of the image, and the super-class in COD10K's names (none: no rows).
    seconds_per_image: the network's, median over the batches; None for maps from files.
    """

    n: int
    n_empty: int
    mean: Mean
    per_image: pd.DataFrame
    curves: dict[str, Floats]
    empty: Mean
    interval: Interval = field(default_factory=dict)
    other: Mean = field(default_factory=dict)
    by_size: list[dict[str, Any]] = field(default_factory=list)
    by_class: list[dict[str, Any]] = field(default_factory=list)
    seconds_per_image: float | None = None

    @property
    def note(self) -> str:
        """Over which images the mean is, in a sentence."""
        if self.n_empty == 0:
            return f"Mean over {self.n} images."
        mae, alarm = self.empty["mae"], self.empty["false_alarm"]
        apart = f"MAE {mae:.4f}, false alarm {alarm:.2%} of pixels"
        if self.n_empty == self.n:
            return f"No mean: all {self.n} masks are empty ({apart})."
        counted = f"Mean over the {self.n - self.n_empty} of {self.n} images that have an object"
        return f"{counted}; empty masks are reported apart ({apart})."

    def iou_at(self, threshold: float) -> float | None:
        """Return the mean IoU of the stretched maps cut at `threshold` (0...1, in steps of 1/255).

        A threshold is chosen on other images than these (`judge.validation_threshold`).
        """
        return float(self.curves["iou"][round(threshold * 255)]) if self.curves else None

    def summary(self) -> str:
        """Return the note and the means, with their intervals, as a few lines of text."""
        spread = " In brackets: 95 % intervals over the images." if self.interval else ""
        lines = [self.note + spread]
        for name, value in self.mean.items():
            if value is not None:
                lines.append(f"  {LABELS[name]:<19} {number(value, 4, self.interval.get(name))}")
        for title, rows in (("by object size", self.by_size), ("by super-class", self.by_class)):
            groups = [f"{row['group']} {number(row['mean']['iou'])} (n {row['n']})" for row in rows]
            lines += [f"  IoU {title}: {', '.join(groups)}"] if groups else []
        if self.seconds_per_image is not None:
            lines.append(f"  network: {self.seconds_per_image:.4f} seconds per image")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values that `json` can write; curves as columns of a table."""
        values = dict(vars(self)) | {"note": self.note}
        curves = curve_table(self).to_dict("list") if self.curves else {}
        return values | {"curves": curves, "per_image": self.per_image.to_dict("records")}


def labelled(rows: pd.DataFrame | Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows of scores as a table with the field's names of measures over its columns."""
    names = {**LABELS, **_COLUMNS}
    table = rows if isinstance(rows, pd.DataFrame) else pd.json_normalize(list(rows))
    return table.rename(columns=lambda each: names.get(str(each).removeprefix("mean."), each))


def curve_table(scores: Scores) -> pd.DataFrame:
    """Return the mean curves as a table: "threshold" (0...1), and a column for each curve."""
    thresholds = np.arange(256) / 255
    return pd.DataFrame({"threshold": thresholds[: 256 * bool(scores.curves)], **scores.curves})


class Curves:
    """The curves of a set's images, taken in one by one.

    of_images: (n, 256) for each curve whose maximum has an interval; of the others only the
    mean over the images with an object is kept, so the largest test set needs 40 MB.
    """

    def __init__(self, images: int) -> None:
        self.of_images = {name: np.empty((images, 256)) for name in _BEST.values()}
        self._sums: dict[str, Floats] = {}
        self._taken = self._with_object = 0

    def take(self, measured: Measured) -> None:
        """Add the next image."""
        counted = measured.values["object_share"] > 0
        for name, curve in measured.curves.items():
            if name in self.of_images:
                self.of_images[name][self._taken] = curve
            elif counted:
                self._sums[name] = self._sums.get(name, 0) + curve
        self._taken += 1
        self._with_object += counted

    def means(self) -> dict[str, Floats]:
        """Return the mean of the other curves, (256,) each; none without an image to average."""
        return {name: each / self._with_object for name, each in self._sums.items()}


def build_scores(
    rows: pd.DataFrame,
    curves: Mapping[str, Floats],
    seconds_per_image: float | None = None,
    means: Mapping[str, Floats] | None = None,
) -> Scores:
    """Return the scores of images whose values are `rows` and whose curves are (n, 256) each.

    Rows hold "name" and `metrics.Measured.values`. means: further curves, averaged already.
    """
    is_empty = (rows["object_share"] == 0).to_numpy()
    counted = ~is_empty
    of_set = _Averages(rows, curves)
    mean, other = of_set.mean(counted)
    mean_curves = {}
    if counted.any():
        mean_curves = {name: values[counted].mean(0) for name, values in curves.items()}
        mean_curves |= means or {}
        other["best_threshold"] = int(mean_curves["iou"].argmax()) / 255
    sizes = np.where(is_empty, 0, 1 + np.searchsorted(EDGES, rows["object_share"], "right"))
    found = [COD10K.match(name) for name in rows["name"]]
    classes = np.array([match[1] if match else "other names" for match in found])
    empty = rows.loc[is_empty, ["raw_mae", "false_alarm"]].rename(columns={"raw_mae": "mae"})
    return Scores(
        n=len(rows),
        n_empty=int(is_empty.sum()),
        mean=mean,
        per_image=rows,
        curves=mean_curves,
        empty=empty.mean().to_dict() if len(empty) else dict.fromkeys(empty),
        interval=of_set.interval(counted),
        other=other,
        by_size=of_set.groups(np.array(SIZES)[sizes], SIZES, counted),
        by_class=of_set.groups(classes, sorted(set(classes)), counted) if any(found) else [],
        seconds_per_image=seconds_per_image,
    )


def bootstrap(n: int, seed: int = 0) -> Floats:
    """Return (RESAMPLES, n): the weight of each of n images in each resample, rows sum to 1.

    A statistic of the weighted images in each row, cut to its middle 95 %, is the percentile
    interval of Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    rng = np.random.default_rng(seed)
    drawn = (np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(RESAMPLES))
    return np.stack([counts / n for counts in drawn])


def percentile_interval(values: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """Return the bounds of the middle `confidence` share of the values."""
    outside = 50 * (1 - confidence)
    low, high = np.percentile(values, [outside, 100 - outside])
    return float(low), float(high)


def write_csv(tables: Mapping[Any, pd.DataFrame], path: Path) -> Path:
    """Write tables below each other as CSV, their keys as the first columns; return the path.

    tables: `Scores.per_image` or `curve_table` by "dataset", or by ("dataset", "method").
    """
    both = isinstance(next(iter(tables), None), tuple)
    table = pd.concat(dict(tables), names=["dataset", "method"][: 1 + both])
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = table.reset_index(level=-1, drop=True).reset_index()
        rows.to_csv(path, index=False, errors="backslashreplace")
    return path


class _Averages:
    """All averages of weighted images, of which the plain mean is one and each resample another."""

    def __init__(self, rows: pd.DataFrame, curves: Mapping[str, Floats]) -> None:
        self._values = rows[[*MEASURES, "intersection", "union"]].to_numpy(float)
        self._curves = {name: curves[key] for name, key in _BEST.items()}  # (n, 256) each

    def mean(self, chosen: NDArray[np.bool_]) -> tuple[Mean, Mean]:
        """Return the averages over the chosen images: of the measures, and the other ones."""
        if not chosen.any():
            return dict.fromkeys(MEASURES), dict.fromkeys(["pooled_iou", "best_threshold_iou"])
        weights = chosen[None] / chosen.sum()
        every: Mean = {name: float(v[0]) for name, v in self._averages(weights, ...).items()}
        return {name: every.pop(name) for name in MEASURES}, every

    def interval(self, chosen: NDArray[np.bool_]) -> Interval:
        """Return the interval of each measure over the chosen images."""
        if chosen.sum() < 2:
            return dict.fromkeys(MEASURES)
        every = self._averages(bootstrap(int(chosen.sum())), chosen)
        return {name: percentile_interval(every[name]) for name in MEASURES}

    def groups(
        self, labels: NDArray[Any], order: Sequence[str], counted: NDArray[np.bool_]
    ) -> list[dict[str, Any]]:
        """Return a row for each label that occurs, in the given order."""
        rows = []
        for label in order:
            inside = labels == label
            if inside.any():
                chosen = inside & counted
                row = {"group": str(label), "n": int(inside.sum()), "mean": self.mean(chosen)[0]}
                rows.append(row | {"interval": self.interval(chosen)["iou"]})
        return rows

    def _averages(self, weights: Floats, chosen: Any) -> dict[str, Floats]:
        values, count = weights @ self._values[chosen], len(MEASURES)
        result = dict(zip(MEASURES, values.T, strict=False))
        result["pooled_iou"] = values[:, count] / np.maximum(values[:, count + 1], 1e-300)
        best = {name: (weights @ each[chosen]).max(1) for name, each in self._curves.items()}
        return result | best


def number(value: float | None, digits: int = 3, interval: Bounds | None = None) -> str:
    """Return a score, and its interval, as text; "none" where there is nothing to score."""
    bounds = " ({0:.{2}f} to {1:.{2}f})".format(*interval, digits) if interval else ""
    return "none" if value is None else f"{value:.{digits}f}{bounds}"
