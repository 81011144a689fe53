"""Looking into a run: how it sees each image of a data set, and figures of it.

seen = explore("runs/latest", "/data/COD10K")
seen.show("worst"); seen.routing("COD10K-CAM-1-Aquatic-13-Pipefish-543"); seen.usage()
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..data.cache import Progress
from ..data.images import Array
from ..data.layouts import Pair
from ..errors import InputError
from ..evaluation.evaluate import evaluate
from ..evaluation.judge import choose_pairs, inference
from ..evaluation.predict import predict
from ..network.backbone import STRIDES
from ..network.model import EXPERTS
from ..runs.run import Run
from .experts import show_experts, show_levels, show_removed, show_routing
from .predictions import read_pair, show_overlay, show_predictions, show_threshold
from .ranking import GROUPS, ORDERS, describe, ordered

UNCERTAINTY = "uncertainty = sum of p (1 - p) / sum of p over the pixels: 0 sure, 1 all in doubt"


class Look(NamedTuple):
    """All that a network says of one image.

    probability (H, W) uint8 of 0...255; gates (stages, experts); levels: the map of each level of
    the decoder, coarse to fine, by name, as `probability`, which is the last one.
    """

    probability: Array
    gates: NDArray[np.float32]
    levels: dict[str, Array]


@dataclass(frozen=True)
class Looker:
    """A run's best network, ready to look at images; `settings` are those of `predict`."""

    net: nn.Module
    experts: tuple[str, ...]
    settings: Mapping[str, Any]

    def look(self, image: Pair | Path) -> Look:
        """Look at one image; maps have its own size (of a Pair: its mask's)."""
        watched = _Watched(self.net)
        (seen,) = predict(watched, [image], **self.settings)
        size = seen.probability.shape
        levels = {
            f"stride {stride}, {logits.shape[-1]} x {logits.shape[-2]} places": _map(logits, size)
            for stride, logits in reversed(list(zip(STRIDES[1:], watched.deep, strict=False)))
        }
        probability = _levels_of_8_bits(seen.probability)
        gates = torch.cat(watched.gates)[0].numpy()
        return Look(probability, gates, {**levels, "stride 4, the prediction": probability})

    def without(self, expert: str) -> Looker:
        """Return the same network with one expert never chosen: the next best takes its place."""
        if len(self.experts) < 2:
            raise InputError("This network has a single expert; there is none to take its place.")
        net = copy.deepcopy(self.net)
        for stage in net.stages:  # type: ignore[union-attr]
            with torch.no_grad():
                stage.mixture.router.bias[self.experts.index(expert)] = -torch.inf
        return Looker(net, self.experts, self.settings)


class Explored:
    """How a run sees a data set. Images are named, or numbered by their row in `table`.

    table: a row per image with name, dataset, class (the super-class in COD10K's names), every
    measure, object_share, size (in words) and uncertainty. pairs: the files of each row.
    gates (n, stages, experts). note: which images these are, and why.
    """

    def __init__(
        self,
        looker: Looker,
        pairs: Sequence[Pair],
        table: pd.DataFrame,
        gates: NDArray[np.float32],
        note: str,
    ) -> None:
        self.looker, self.pairs, self.table, self.gates = looker, list(pairs), table, gates
        self.note = note

    def __repr__(self) -> str:
        return f"Explored({len(self.pairs)} images: {self.note})"

    def map_of(self, image: str | int) -> Array:
        """Return the map of an image at its mask's size, (H, W) uint8 of 0...255."""
        return self.looker.look(self.pairs[self._row(image)]).probability

    def files_of(self, image: str | int) -> tuple[Array, Array, str]:
        """Return image and mask as stored, and the name."""
        return *read_pair(self.pairs[self._row(image)]), str(self.table["name"][self._row(image)])

    def show(self, by: str = "worst", n: int = 6, seed: int = 0) -> Figure:
        """Draw n images with their maps and errors: "worst", "best", "uncertain" or "random"."""
        rows = ordered(self.table, by, n, seed)
        title = f"{len(rows)} of {len(self.table)} images, {ORDERS[by][2]},"
        note = f"\n{UNCERTAINTY}"
        return show_predictions(self.preview(rows), rows=n, title=title, note=note)

    def preview(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return images, masks and maps of some rows as `show_predictions` takes them."""
        files = [self.files_of(row) for row in rows]
        return {
            "names": [name for _, _, name in files],
            "image": [image for image, _, _ in files],
            "mask": [mask for _, mask, _ in files],
            "probability": [self.map_of(row) for row in rows],
            "notes": [f"uncertainty {self.table['uncertainty'][row]:.2f}" for row in rows],
        }

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
        look = self.looker.look(self.pairs[self._row(image)])
        picture, mask, name = self.files_of(image)
        return show_levels(picture, mask, look.levels, name)

    def routing(self, image: str | int) -> Figure:
        """Draw which experts each stage chose for one image, beside the set's mean."""
        picture, mask, name = self.files_of(image)
        gates = self.gates[self._row(image)]
        return show_routing(picture, mask, gates, self.gates.mean(0), self.looker.experts, name)

    def removed(self, image: str | int) -> Figure:
        """Draw how one image's map and IoU change with each expert removed."""
        picture, mask, name = self.files_of(image)
        pair, experts = self.pairs[self._row(image)], self.looker.experts
        others = {each: self.looker.without(each).look(pair).probability for each in experts}
        return show_removed(picture, mask, self.map_of(image), others, name)

    def usage(self, by: str = "") -> Figure:
        """Draw how much each stage uses each expert; or each "dataset", "class" or "size"."""
        if by not in ("", *GROUPS):
            raise InputError(f"No group '{by}': choose {', '.join(GROUPS)}, or none.")
        groups = None
        if by:
            parts = self.table.groupby(by, observed=True)
            groups = {str(name): part.index.tolist() for name, part in parts}
        return show_experts(self.gates, self.looker.experts, groups=groups)

    def _row(self, image: str | int) -> int:
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
    device: str = "auto",
    progress: Progress | None = None,
) -> Explored:
    """Look at a data set with a run's best weights, once, and return what there is to show.

    Which images: as `judge.judge` chooses them; `limit` takes that many, evenly from all. Raises
    InputError when there is nothing to look at.
    """
    run = run if isinstance(run, Run) else Run(run)
    looker = open_looker(run, device)
    chosen = choose_pairs(run, Path(dataset_path), split, noncam)
    every = [pair for one in chosen for pair in one.pairs]
    pairs = _evenly(every, limit)
    watched = _Watched(looker.net)
    scores = evaluate(watched, pairs, progress=progress, **looker.settings)
    table = describe(scores.per_image, pairs, uncertainty=torch.cat(watched.doubts).numpy())
    note = "; ".join(f"{one.name}: {one.note}" for one in chosen)
    note += f"; {len(pairs)} of {len(every)} images, evenly chosen" * (len(pairs) < len(every))
    return Explored(looker, pairs, table, torch.cat(watched.gates).numpy(), note)


def open_looker(run: Run | Path | str, device: str = "auto") -> Looker:
    """Return a run's best network, ready to look at images."""
    net, settings = inference(run if isinstance(run, Run) else Run(run), device)
    experts = tuple(EXPERTS)[: len(net.stages[0].mixture.experts)]  # type: ignore[union-attr, arg-type]
    return Looker(net, experts, settings)


class _Watched(nn.Module):
    """Passes images to a network and keeps, of each, what it says besides the map."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.gates: list[Tensor] = []
        self.doubts: list[Tensor] = []
        self.deep: list[Tensor] = []  # of the last batch alone: they are large

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        outputs = self.net(image)
        probability = outputs["logits"].float().sigmoid().flatten(1)
        doubt = (probability * (1 - probability)).sum(1) / probability.sum(1).clamp(min=1e-6)
        self.gates.append(outputs["gates"].float().cpu())
        self.doubts.append(doubt.cpu())
        self.deep = [logits.float().cpu() for logits in outputs["deep"]]
        return outputs


def _map(logits: Tensor, size: tuple[int, ...]) -> Array:
    stretched = functional.interpolate(logits[:1], size, mode="bilinear", align_corners=False)
    return _levels_of_8_bits(stretched.sigmoid()[0, 0].numpy())


def _levels_of_8_bits(probability: NDArray[np.floating]) -> Array:
    return np.rint(probability * 255).astype(np.uint8)


def _evenly(items: Sequence[Any], count: int | None) -> list[Any]:
    if count is None or count >= len(items):
        return list(items)
    return [items[place] for place in np.linspace(0, len(items) - 1, count).round().astype(int)]
