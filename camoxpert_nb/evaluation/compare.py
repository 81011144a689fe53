"""Runs side by side: on the same images, over seeds, and in speed.

Two means over the same images are compared image by image, because how hard an image is moves both
alike. The test is the paired bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap,
1993): the images are drawn again and again, and the interval holds the middle 95 % of the mean
differences. It answers "would it hold on other images of this kind?", never "with another seed?";
for that a setting is trained with several seeds, and `ablation` shows mean and spread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..errors import InputError, few
from ..outside.spelling import counted
from ..outside.tables import table
from ..outside.terminal import room
from ..runs.records import in_words, performance
from ..runs.run import Run
from ..settings.config import PATHS
from .metrics import MEASURES
from .scores import LABELS, bootstrap, percentile_interval

# Max E and F are maxima of a set's mean curve, not means over images: they cannot be paired.
PAIRED = tuple(name for name in MEASURES if name not in ("max_e", "max_f"))
# Settings that change where, how fast or how long a run trains and what it keeps, no step of it.
_ELSEWHERE = {"preset", "seed", "checkpoint_dir", "cache_dir", "num_workers", "save_minutes"}
_ELSEWHERE |= {"time_budget", "target_iou", "stop_at_target", "patience", "keep_best"}
_ELSEWHERE |= {"log", "join_minutes", "device", "cuda_graph", "gradient_checkpointing"}


class Comparison(NamedTuple):
    """What `compare` finds.

    n: shared images with an object. means: a row per run, over those. differences: a row per
    further run and measure, with "run", "measure", "difference" to the first run, "low", "high".
    statements: one sentence per further run, on IoU. left_out: per run, how many of its images
    were not compared, by reason.
    """

    n: int
    means: pd.DataFrame
    differences: pd.DataFrame
    statements: list[str]
    left_out: dict[str, dict[str, int]]

    def summary(self) -> str:
        """Return means, statements and what was left out as text."""
        gone = [
            f"left out of {run}: {count} {why}"
            for run, reasons in self.left_out.items()
            for why, count in reasons.items()
            if count
        ]
        means = aligned(self.means.rename(columns=LABELS).T)
        return "\n".join([f"{counted(self.n, 'shared image')}", means, *self.statements, *gone])


def compare(
    tables: Mapping[str, pd.DataFrame], trained: Mapping[str, int] | None = None
) -> Comparison:
    """Compare runs by name, each with the first, on the images that all of them have.

    tables: `Scores.per_image` of each run; trained: how many of its images trained it. With k
    further runs the intervals are of 1 - 0.05 / k (Bonferroni), so that all of them together are
    wrong once in twenty times. Raises InputError for fewer than two runs, an image twice in one, or
    fewer than two shared.
    """
    indexed = {run: _by_name(run, table) for run, table in tables.items()}
    if len(indexed) < 2:
        raise InputError(f"{len(indexed)} run to compare. Give two or more, by different names.")
    names = set.intersection(*(set(table.index) for table in indexed.values()))
    first, *others = indexed
    shares = indexed[first]["object_share"]
    kept = [name for name in indexed[first].index if name in names and shares[name] > 0]
    if len(kept) < 2:
        found = "; ".join(f"{run}: {few(table.index)}" for run, table in indexed.items())
        raise InputError(
            f"The runs share {len(kept)} images with an object ({found}). Score them on the same "
            "data set, and on images that none of them trained on."
        )
    shared = {run: table.loc[kept, list(PAIRED)] for run, table in indexed.items()}
    confidence = 1 - 0.05 / len(others)
    rows = [
        {"run": run, **row}
        for run in others
        for row in paired_differences(shared[first], shared[run], confidence)
    ]
    statements = [
        _statement(first, row, len(kept), confidence, trained or {})
        for row in rows
        if row["measure"] == "iou"
    ]
    left_out = {
        run: {
            "images that another run was not scored on": len(set(table.index) - names),
            "images without an object": len(names) - len(kept),
        }
        for run, table in indexed.items()
    }
    return Comparison(
        len(kept),
        pd.DataFrame({run: table.mean() for run, table in shared.items()}).T,
        pd.DataFrame(rows),
        statements,
        left_out,
    )


def paired_differences(
    before: pd.DataFrame, after: pd.DataFrame, confidence: float = 0.95
) -> list[dict[str, Any]]:
    """Return for each measure the mean of after - before, and its interval (low, high).

    The tables hold the same images in the same order, with the columns `PAIRED`.
    """
    change = (after[list(PAIRED)].to_numpy() - before[list(PAIRED)].to_numpy()).astype(float)
    resampled = bootstrap(len(change)) @ change  # (RESAMPLES, measures)
    rows = []
    for name, mean, values in zip(PAIRED, change.mean(0), resampled.T, strict=True):
        low, high = percentile_interval(values, confidence)
        rows.append({"measure": name, "difference": float(mean), "low": low, "high": high})
    return rows


def ablation(
    settings: Mapping[str, Mapping[str, Any]], values: Mapping[str, float | None]
) -> pd.DataFrame:
    """Return mean and spread over runs that differ in nothing but their seed or fold.

    settings: each run's Config as a dict; values: its score, as its best validation IoU (None:
    the run has none, and is counted as such). A row per group: the settings by which the groups
    differ, "runs", "without a score", "seeds", "mean", "sd" (of the sample, n - 1; none for one
    run), "lowest", "highest".
    """
    plain = {run: {k: _grouped(k, v) for k, v in each.items()} for run, each in settings.items()}
    texts = pd.DataFrame(plain, dtype=object).map(str)  # a column per run
    varied = [k for k in texts.index if k not in _ELSEWHERE and texts.loc[k].nunique() > 1]
    labels = {run: ", ".join(f"{k} {texts[run][k]}" for k in varied) for run in texts}
    scores = pd.DataFrame({"settings": labels, "seed": texts.loc["seed"], "score": values})
    scores = scores.replace({"settings": {"": "all settings alike"}}).astype({"score": float})
    return (
        scores.groupby("settings", sort=False)
        .agg(
            **{"runs": ("seed", "size"), "without a score": ("score", lambda s: s.isna().sum())},
            seeds=("seed", ", ".join),
            mean=("score", "mean"),
            sd=("score", "std"),
            lowest=("score", "min"),
            highest=("score", "max"),
        )
        .reset_index()
    )


def _grouped(name: str, value: Any) -> Any:
    """Return a setting as groups are told apart by it: of a fold how many, as which is a seed."""
    if name in PATHS and value:
        return Path(value).resolve()  # one place has many paths
    return str(value).partition("/")[2] if name == "fold" else value


def ablation_text(groups: pd.DataFrame) -> str:
    """Return `ablation` as people read it: what one run cannot have is said, not left as NaN."""
    shown = groups.rename(columns={"sd": "standard deviation"})
    shown["standard deviation"] = [
        "one run" if pd.isna(each) else f"{each:.4f}" for each in groups["sd"]
    ]
    for name in ("mean", "lowest", "highest"):
        shown[name] = ["none yet" if pd.isna(each) else f"{each:.4f}" for each in groups[name]]
    if not shown["without a score"].any():
        shown = shown.drop(columns="without a score")
    widest, most = shown["settings"].map(len).max(), room()
    if not most or 2 * widest < most:
        return aligned(shown.set_index("settings"))
    numbers = [f"{place}: {each}" for place, each in enumerate(shown["settings"], 1)]
    shown["settings"] = [each.partition(":")[0] for each in numbers]
    return "\n".join([*numbers, aligned(shown.set_index("settings"))])


def aligned(frame: pd.DataFrame) -> str:
    """Return a table as text that fits the terminal: numbers of four digits, texts as they are."""
    heads = [str(frame.index.name or ""), *map(str, frame.columns)]
    rows = [
        dict(zip(heads, [str(index), *map(_cell, values)], strict=True))
        for index, values in zip(frame.index, frame.to_numpy(object), strict=True)
    ]
    return "\n".join(table(rows, most=room(), right=True))


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def performance_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return a row of `performance.in_words` for each run, measured from its records."""
    return pd.DataFrame(
        [{"run": str(run.folder), **in_words(run_performance(run))} for run in runs]
    )


def run_performance(run: Run) -> dict[str, Any]:
    """Return `performance.performance` of a run's folder; InputError when it never started."""
    starts = run.records("start")
    if not starts:
        raise InputError(f"{run.folder}: no training has begun here. Give a run folder.")
    return performance(run.records("epoch"), run.load_json("config"), starts[-1]["devices"])


def _statement(
    first: str, row: Mapping[str, Any], n: int, confidence: float, trained: Mapping[str, int]
) -> str:
    low, high, gain = row["low"], row["high"], row["difference"]
    numbers = (
        f"{row['run']} against {first}: IoU {gain:+.4f} on average over {n} images in pairs "
        f"({100 * confidence:.3g} % interval {low:+.4f} to {high:+.4f}, paired bootstrap"
        f"{_several(confidence)}). "
    )
    known = {run: count for run in (first, str(row["run"])) if (count := trained.get(run, 0))}
    if known:
        counts = ", ".join(f"{count} trained {run}" for run, count in known.items())
        return f"{numbers}WARNING: of these images {counts}: this says nothing about new ones."
    if n < (least := fewest(confidence)):
        return (
            f"{numbers}{n} images are too few to tell: even if all of them agree, chance alone "
            f"does so once in {2 ** (n - 1)} times. Compare on {least} images or more."
        )
    if low <= 0 <= high:
        return (
            f"{numbers}The interval holds 0: these images do not tell which of the two is better."
        )
    word = "better" if gain > 0 else "worse"
    return numbers + (
        f"The interval is clear of 0: {row['run']} is {word} on images of this kind. Another seed "
        "can still move a mean as much: train both again with --seed 1 and 2, and compare all."
    )


def _several(confidence: float) -> str:
    """Say why an interval is wider than 95 %."""
    if confidence < 0.951:
        return ""
    count = round(0.05 / (1 - confidence))
    return f"; wider than 95 %, so that all {count} comparisons hold at once in 95 % of cases"


def fewest(confidence: float) -> int:
    """Return how many pairs must agree before chance is out of the question (two-sided sign test).

    Intervals drawn from fewer are too short: the bootstrap knows only the values that it has.
    """
    return math.ceil(1 - math.log2(1 - confidence))


def _by_name(run: str, table: pd.DataFrame) -> pd.DataFrame:
    indexed = table.set_index("name")
    twice = indexed.index[indexed.index.duplicated()].unique()
    if len(twice):
        raise InputError(
            f"{run} has {len(twice)} image names twice ({few(twice)}): compare one set at a time."
        )
    return indexed
