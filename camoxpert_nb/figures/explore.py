"""Exploring a run: what it predicts for each image of a data set, and figures of it.

explored = explore("runs/latest", "/data/COD10K")
explored.show("worst"); explored.routing("COD10K-CAM-1-Aquatic-13-Pipefish-543"); explored.usage()
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..data.cache import Progress
from ..data.images import Array
from ..data.masks import read_objects
from ..data.pairs import Pair
from ..data.reading import Reading
from ..errors import InputError
from ..evaluation.judge import open_predictor as open_predictor
from ..evaluation.predict import Kept, Predictor
from ..evaluation.routing import Dependence, by_place, dependence, object_shares
from ..evaluation.scoring import evaluate
from ..evaluation.which_images import choose_pairs
from ..outside.terminal import paged
from ..runs.run import Run
from ..settings.config import EXPERTS, MIXED
from .canvas import stage_names
from .experts import show_experts, show_levels, show_removed, show_routing
from .predictions import (
    counted,
    preview_of,
    read_pair,
    show_overlay,
    show_predictions,
    show_threshold,
)
from .ranking import GROUPS, ORDERS, describe, evenly, ordered

UNCERTAINTY = "uncertainty = sum of p (1 - p) / sum of p over the pixels: 0 sure, 1 all in doubt"


class Explored:
    """What a run predicts for a data set. Images are named, or numbered by their row in `table`.

    table: a row per image with name, dataset, class (the super-class in COD10K's names), every
    measure, object_share, size (in words) and uncertainty. pairs: the files of each row.
    kept: the prediction of each. gates (n, mixtures, experts). experts: their names. note: which
    images these are, and why.
    """

    def __init__(
        self,
        predictor: Predictor,
        pairs: Sequence[Pair],
        table: pd.DataFrame,
        kept: Sequence[Kept],
        note: str,
    ) -> None:
        self.predictor, self.pairs, self.table, self.kept = predictor, list(pairs), table, kept
        self.gates, self.note = np.stack([each.gates for each in kept]), note
        self.experts = EXPERTS[: self.gates.shape[2]]

    def __repr__(self) -> str:
        return paged(f"Explored({len(self.pairs)} images: {self.note})")

    def map_of(self, image: str | int) -> Array:
        """Return the map of an image at its mask's size, (H, W) uint8 of 0...255, as it counts."""
        row = self.row_of(image)
        return counted(self.kept[row].probability, self.pairs[row])

    def files_of(self, image: str | int) -> tuple[Array, Array, str]:
        """Return image and mask as stored, and the name."""
        return *read_pair(self.pairs[self.row_of(image)]), str(
            self.table["name"][self.row_of(image)]
        )

    def show(self, by: str = "worst", n: int = 6, seed: int = 0) -> Figure:
        """Draw n images with their maps and errors: "worst", "best", "uncertain" or "random"."""
        rows = ordered(self.table, by, n, seed)
        title = f"{len(rows)} of {len(self.table)} images, {ORDERS[by][2]},"
        maps = [self.kept[row].probability for row in rows]
        shown = preview_of([self.pairs[row] for row in rows], maps)
        shown["names"] = self.table["name"][rows].tolist()
        shown["notes"] = [f"uncertainty {each:.2f}" for each in self.table["uncertainty"][rows]]
        return show_predictions(shown, rows=n, title=title, note=f"\n{UNCERTAINTY}")

    def overlay(self, image: str | int) -> Figure:
        """Draw one image: what was found on it, its map, and the errors."""
        picture, mask, name = self.files_of(image)
        return show_overlay(picture, self.map_of(image), mask, name)

    def threshold(self, image: str | int, at: float = 0.5) -> Figure:
        """Draw one image cut at a threshold, and its IoU and F over all thresholds."""
        picture, mask, name = self.files_of(image)
        return show_threshold(picture, self.map_of(image), mask, at, name)

    def levels(self, image: str | int) -> Figure:
        """Draw the map that each level of the decoder would give."""
        picture, mask, name = self.files_of(image)
        return show_levels(picture, mask, self.kept[self.row_of(image)].levels(), name)

    def routing(self, image: str | int) -> Figure:
        """Draw which expert counts most at each place of one image, beside the set's mean."""
        picture, mask, name = self.files_of(image)
        gates = self._by_place(self.kept[self.row_of(image)])
        return show_routing(picture, mask, gates, self.gates.mean(0), self.experts, name)

    @cached_property
    def dependence(self) -> dict[str, Dependence]:
        """For each mixture how much the choice of experts depends on the place."""
        gates = [np.stack(maps) for maps in zip(*map(self._by_place, self.kept), strict=True)]
        masks = [read_objects(pair) for pair in self.pairs]
        return {
            stage: dependence(each, [object_shares(mask, each.shape[2]) for mask in masks])
            for stage, each in zip(stage_names(len(gates)), gates, strict=True)
        }

    def removed(self, image: str | int) -> Figure:
        """Draw how one image's map and IoU change with each expert removed."""
        picture, mask, name = self.files_of(image)
        pair = self.pairs[self.row_of(image)]
        others = {
            expert: without(self.predictor, expert).predict_one(pair).probability
            for expert in self.experts
        }
        return show_removed(picture, mask, self.map_of(image), others, name)

    def usage(self, by: str = "") -> Figure:
        """Draw how much each mixture uses each expert; or each "dataset", "class" or "size"."""
        if by not in ("", *GROUPS):
            raise InputError(f"No group '{by}': choose {', '.join(GROUPS)}, or none.")
        groups = None
        if by:
            parts = self.table.groupby(by, observed=True)
            groups = {str(name): part.index.tolist() for name, part in parts}
        note = [f"{stage}: {found}" for stage, found in self.dependence.items()]
        return show_experts(self.gates, self.experts, groups=groups, note=note)

    def _by_place(self, kept: Kept) -> list[NDArray[np.float64]]:
        return [
            by_place(cells, self.predictor.size, stride)
            for cells, stride in zip(kept.cells, MIXED, strict=True)
        ]

    def row_of(self, image: str | int) -> int:
        """Return the row of an image in `table`; InputError names near ones."""
        names = self.table["name"].tolist()
        if isinstance(image, str) and image in names:
            return names.index(image)
        if not isinstance(image, str) and 0 <= image < len(names):
            return int(image)
        near = difflib.get_close_matches(str(image), names, 3, 0.4) or names[:3]
        raise InputError(
            f"No image {image!r} among these {len(names)}. Give a row number from 0, or a name as "
            f"{', '.join(near)}."
        )


def explore(
    run: Run | Path | str,
    dataset_path: Path | str,
    *,
    split: str = "auto",
    limit: int | None = None,
    noncam: bool = False,
    reading: Reading | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Explored:
    """Predict a data set with a run's best weights, once, and return what there is to show.

    Which images: as `judge.judge` chooses them; `limit` takes that many, evenly from all. Raises
    InputError when there is nothing to predict.
    """
    run = run if isinstance(run, Run) else Run(run)
    predictor = open_predictor(run, device)
    chosen = choose_pairs(run, Path(dataset_path), split, noncam, reading)
    every = [pair for one in chosen for pair in one.pairs]
    pairs, by_image = evenly(every, limit), dict[Path, Kept]()
    scores = evaluate(predictor, pairs, progress=progress, kept=by_image)
    kept = [by_image[pair.image] for pair in pairs]
    table = describe(scores.per_image, pairs, uncertainty=[each.uncertainty for each in kept])
    note = "; ".join(f"{one.name}: {one.note}" for one in chosen)
    note += f"; {len(pairs)} of {len(every)} images, evenly chosen" * (len(pairs) < len(every))
    return Explored(predictor, pairs, table, kept, note)


def without(predictor: Predictor, expert: str) -> Predictor:
    """Return the same network with one expert never chosen: the others take its place."""
    net = copy.deepcopy(predictor.net)
    for level in net.levels:  # type: ignore[union-attr]
        if level.mixture is None:
            continue
        choice = level.mixture.router.choice
        if len(choice.bias) < 2:
            raise InputError("This network has a single expert; there is none to take its place.")
        with torch.no_grad():
            choice.bias[EXPERTS.index(expert)] = -torch.inf
    return dataclasses.replace(predictor, net=net)
