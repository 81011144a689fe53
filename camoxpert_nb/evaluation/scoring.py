"""Scoring maps against masks: those of a network, or any method's folder of them.

Every measure is taken at the mask's own size, image by image (`metrics`), in threads beside the
network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.cache import Progress
from ..data.images import Array, read_map, read_mask
from ..data.layouts import Pair
from ..errors import InputError, few
from .files import by_stem, cores, in_order
from .metrics import Measured, measure
from .scores import Scores, build_scores

if TYPE_CHECKING:  # the network's side: a folder of maps is scored without torch
    from .predict import Kept, Prediction, Predictor, Views


def evaluate(
    predictor: Predictor,
    pairs: Sequence[Pair],
    *,
    views: Views | None = None,
    progress: Progress | None = None,
    kept: dict[Path, Kept] | None = None,
) -> Scores:
    """Predict and score each pair at its mask's own size; scoring runs while the net predicts.

    views: test-time augmentation, by default none. `progress(done, total)` is called after each
    image. kept: takes each image's prediction, by the image's path. Errors are those of
    `Predictor.predict`.
    """

    def score(job: tuple[Prediction, Pair]) -> Measured:
        item, pair = job
        if kept is not None:
            kept[pair.image] = item.kept()
        return measure(item.probability, read_mask(pair.mask))

    seconds: list[float] = []
    jobs = zip(predictor.predict(pairs, views, seconds), pairs, strict=True)
    rows, curves = _measure_all(score, jobs, [pair.name for pair in pairs], cores(), progress)
    median = float(np.median(seconds))  # the first batch warms up, and would spoil a mean
    return build_scores(rows, curves, median)


def score_folder(
    predictions: Path,
    ground_truth: Path,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score a folder of any method's maps on the folder of masks with the same file names.

    Raises InputError, naming files, when a map is missing, extra, coloured or of another size than
    its mask: anything else would score another set than the one that was meant.
    """
    maps, masks = by_stem(Path(predictions)), by_stem(Path(ground_truth))
    _check_names(maps, masks)

    def score(stem: str) -> Measured:
        mask = read_mask(masks[stem])
        return measure(_read_map(maps[stem], mask.shape), mask)

    return build_scores(*_measure_all(score, masks, [*masks], workers or cores(), progress))


def _measure_all(
    score: Callable[[Any], Measured],
    jobs: Iterable[Any],
    names: Sequence[str],
    workers: int,
    progress: Progress | None,
) -> tuple[pd.DataFrame, dict[str, NDArray[np.float64]]]:
    """Return a row of values and the (n, 256) curves of all jobs, in order."""
    if not names:
        raise InputError("There are no images to score. Give a folder, or a split, that has some.")
    rows, curves = [], []
    for name, measured in zip(names, in_order(score, jobs, workers=workers), strict=True):
        rows.append({"name": name, **measured.values})
        curves.append(measured.curves)
        if progress:
            progress(len(rows), len(names))
    return pd.DataFrame(rows), {key: np.stack([c[key] for c in curves]) for key in curves[0]}


def _read_map(path: Path, shape: tuple[int, ...]) -> Array:
    image = read_map(path)
    if image.shape != shape:
        raise InputError(
            f"{path} has (height, width) {image.shape}, its mask {shape}. Have the method "
            "stretch its maps to the mask's size before it writes them."
        )
    return image


def _check_names(maps: dict[str, Path], masks: dict[str, Path]) -> None:
    missing, extra = sorted(masks.keys() - maps.keys()), sorted(maps.keys() - masks.keys())
    lower = {stem.lower(): stem for stem in extra}
    cases = [f"{lower[stem.lower()]} for {stem}" for stem in missing if stem.lower() in lower]
    if cases:
        raise InputError(f"Names differ in upper and lower case: {few(cases)}. Rename the maps.")
    if len(missing) == len(masks):
        raise InputError(
            f"No map has the name of a mask: maps {few(extra)}; masks {few(missing)}. "
            "Map and mask belong together by file name without suffix."
        )
    if missing:
        raise InputError(
            f"{len(missing)} of {len(masks)} masks have no map: {few(missing)}. Predict them too, "
            "or give the masks of this set only."
        )
    if extra:
        raise InputError(f"{len(extra)} maps have no mask: {few(extra)}. Remove or score apart.")
