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
from ..data.images import Array, read_map, same_shape
from ..data.masks import IGNORED, read_labels, read_mask, refuse, sizes
from ..data.pairs import Pair, unique_names
from ..data.reading import PLAIN, MaskReading
from ..errors import InputError, few
from .files import by_stem, cores, in_order
from .metrics import Measured, measure
from .scores import Curves, Scores, build_scores

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
        return measure_map(item.probability, read_labels(pair))

    refuse_other_shapes(pairs)
    seconds: list[float] = []
    jobs = zip(predictor.predict(pairs, views, seconds), pairs, strict=True)
    rows, curves = _measure_all(score, jobs, unique_names(pairs), cores(), progress)
    median = float(np.median(seconds))  # the first batch warms up, and would spoil a mean
    return build_scores(rows, curves.of_images, median, curves.means())


def score_folder(
    predictions: Path,
    ground_truth: Path,
    *,
    how: MaskReading = PLAIN,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score a folder of any method's maps on the folder of masks with the same file names.

    how: what the masks mean.
    Raises InputError, naming files, when a map is missing, extra, coloured or of another size than
    its mask: anything else would score another set than the one that was meant.
    """
    maps, masks = by_stem(Path(predictions)), by_stem(Path(ground_truth))
    _check_names(maps, masks)

    def score(stem: str) -> Measured:
        labels = read_mask(masks[stem], how)
        return measure_map(_read_map(maps[stem], labels.shape), labels)

    rows, curves = _measure_all(score, masks, [*masks], workers or cores(), progress)
    return build_scores(rows, curves.of_images, means=curves.means())


def score_maps(folder: Path, pairs: Sequence[Pair], *, progress: Progress | None = None) -> Scores:
    """Score the maps of a folder that are named like the pairs' images or masks.

    There may be others, of other sets. Raises InputError, naming files, where maps are missing or
    of another size than their mask.
    """
    maps = by_stem(Path(folder))
    found = {
        pair: maps[stem]
        for pair in pairs
        for stem in (pair.mask.stem, pair.image.stem)  # the last that is there counts
        if stem in maps
    }
    missing = [pair.name for pair in pairs if pair not in found]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {len(pairs)} images have no map there: {few(missing)} "
            f"(maps: {few(list(maps))}). Give the folder that holds a map of each image that is "
            "scored, named like it; maps of several sets in a folder each, named like the set."
        )

    def score(pair: Pair) -> Measured:
        labels = read_labels(pair)
        return measure_map(_read_map(found[pair], labels.shape), labels)

    rows, curves = _measure_all(score, pairs, unique_names(pairs), cores(), progress)
    return build_scores(rows, curves.of_images, means=curves.means())


def measure_map(probability: NDArray[Any], labels: Array) -> Measured:
    """Return the measures of a map (H, W), 0...1 or 8-bit, against the labels of its mask."""
    return measure(probability, labels == 1, labels == IGNORED)


def refuse_other_shapes(pairs: Sequence[Pair]) -> None:
    """Raise InputError for masks of another shape than their image, as training does."""
    wrong = []
    for pair in pairs:
        photo, mask = sizes(pair)
        if not same_shape(photo, mask):
            wrong.append(str(refuse(pair.mask, mask, pair.image, photo)))
    if wrong:
        listed = "\n".join(f"  {line}" for line in wrong[:5])
        more = f"\n  ... and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise InputError(
            f"{len(wrong)} of {len(pairs)} masks cannot be scored:\n{listed}{more}\nPut the mask "
            "that belongs to the image in its place, or remove both. Where the photos are turned "
            "by EXIF, --mask-exif says how the masks were drawn."
        )


def _measure_all(
    score: Callable[[Any], Measured],
    jobs: Iterable[Any],
    names: Sequence[str],
    workers: int,
    progress: Progress | None,
) -> tuple[pd.DataFrame, Curves]:
    """Return a row of values and the curves of all jobs, in order."""
    if not names:
        raise InputError("There are no images to score. Give a folder, or a split, that has some.")
    return tabulated(names, in_order(score, jobs, workers=workers), progress)


def tabulated(
    names: Sequence[str], found: Iterable[Measured], progress: Progress | None = None
) -> tuple[pd.DataFrame, Curves]:
    """Return a row of values for each image, and the images' curves, as they are measured."""
    rows: list[dict[str, Any]] = []
    curves = Curves(len(names))
    for name, measured in zip(names, found, strict=True):
        rows.append({"name": name, **measured.values})
        curves.take(measured)
        if progress:
            progress(len(rows), len(names))
    return pd.DataFrame(rows), curves


def scores_of(
    names: Sequence[str], found: Iterable[Measured], seconds_per_image: float | None = None
) -> Scores:
    """Return the scores of images that are measured already."""
    rows, curves = tabulated(names, found)
    return build_scores(rows, curves.of_images, seconds_per_image, curves.means())


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
