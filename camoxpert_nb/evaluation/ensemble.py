"""Several networks as one: the mean of their maps, what it brings, and what it costs.

Probabilities are averaged at the mask's own size: there members of any image size and backbone
meet, and each map is the one that its member alone would be scored by.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.cache import Progress
from ..data.masks import read_labels
from ..data.pairs import Pair, unique_names
from ..data.reading import Reading
from ..errors import InputError
from ..runs.run import Run
from .compare import PAIRED, fewest, paired_differences
from .files import cores, in_order
from .judge import chosen_sets, open_predictor
from .metrics import Measured
from .predict import PLAIN, Prediction, Predictor, Unread, Views
from .scores import Scores, number
from .scoring import measure_map, refuse_other_shapes, scores_of
from .which_images import Chosen, holders

Seconds = list[list[float]]
MEAN = "the mean of its members"


@dataclass(frozen=True)
class Ensemble:
    """Networks that predict together; a place in `members` for each."""

    members: Sequence[Predictor]

    def each(
        self,
        images: Sequence[Pair | Path],
        views: Views = PLAIN,
        seconds: Seconds | None = None,
        unread: Unread | None = None,
    ) -> Iterator[tuple[Prediction, ...]]:
        """Yield the predictions of all members for each image, in order.

        seconds: takes each member's seconds per image of each batch. unread: as Predictor's.
        """
        times = seconds if seconds is not None else [[] for _ in self.members]
        return zip(
            *(
                member.predict(images, views, own, unread)
                for member, own in zip(self.members, times, strict=True)
            ),
            strict=True,
        )

    def predict(
        self,
        images: Iterable[Pair | Path],
        views: Views | None = None,
        *,
        unread: Unread | None = None,
    ) -> Iterator[Prediction]:
        """Yield the mean of the members' maps for each image, in order; errors are Predictor's."""
        for predictions in self.each([*images], views or PLAIN, unread=unread):
            yield together(predictions)


def together(predictions: Sequence[Prediction]) -> Prediction:
    """Return the mean of several maps of one image, without what only one network has."""
    mean = np.stack([each.probability for each in predictions]).mean(0, dtype=np.float32)
    mean = np.asarray(mean, np.float32)
    doubt = float((mean * (1 - mean)).sum() / max(float(mean.sum()), 1e-6))
    return Prediction(predictions[0].name, mean, doubt, np.empty((0, 0), np.float32), [], [])


@dataclass(frozen=True)
class Together:
    """What an ensemble reached on a set of images, and each member alone on the same.

    split: as `Judged` has it, or "out-of-fold": then each image was scored by those that held it
    out, and `members` is empty. trained: how many of the images trained any member. seconds: of
    each member's network per image, median over the batches.
    """

    name: str
    note: str
    split: str
    trained: int
    scores: Scores
    members: Mapping[str, Scores] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def gains(self) -> list[dict[str, Any]]:
        """Return for the members' mean, and each member, the gain of the ensemble in IoU.

        A row has "against", "difference", and "low" and "high" of the paired bootstrap, wide enough
        that all of them hold at once in 95 % of cases (Bonferroni); none without two images.
        """
        kept = self.scores.per_image["object_share"] > 0
        if not self.members or kept.sum() < 2:
            return []
        own = self.scores.per_image.loc[kept, list(PAIRED)]
        tables = {name: one.per_image.loc[kept, list(PAIRED)] for name, one in self.members.items()}
        mean = sum(tables.values(), own * 0) / len(tables)
        rows = []
        for name, table in {MEAN: mean, **tables}.items():
            first = paired_differences(table, own, self.confidence)[0]
            rows.append({"against": name, **{k: first[k] for k in ("difference", "low", "high")}})
        return rows

    @property
    def confidence(self) -> float:
        """Of each interval."""
        return 1 - 0.05 / (len(self.members) + 1)

    def summary(self) -> str:
        """Return scores, members, gain and cost as text."""
        lines = [f"{self.name}: {self.note}", self.scores.summary()]
        if self.split == "out-of-fold":
            return "\n".join([*lines, "  no ensemble is scored: no image is new to all members"])
        lines += [
            f"  alone: {name}: IoU {number(one.mean['iou'], 4)}, {self.seconds[name]:.4f} seconds"
            for name, one in self.members.items()
        ]
        gains, n = self.gains(), self.scores.n - self.scores.n_empty
        lines += [
            f"  gain over {row['against']}: IoU {row['difference']:+.4f} "
            f"({row['low']:+.4f} to {row['high']:+.4f})"
            for row in gains
        ]
        lines += [f"  {self.meaning(n)}"] if gains else []
        cost, one = sum(self.seconds.values()), float(np.mean([*self.seconds.values()]))
        lines.append(f"  all members take {cost / one if one else 1:.1f} times as long as one")
        return "\n".join(lines)

    def meaning(self, n: int) -> str:
        """Say what the intervals tell."""
        if self.trained:
            return f"WARNING: {self.trained} of these images trained a member: no gain is proved."
        if n < (least := fewest(self.confidence)):
            return f"{n} images are too few to tell a gain from chance: take {least} or more."
        return (
            f"Intervals are paired, over {n} images, and hold together in 95 % of cases: one that "
            "holds 0 tells no gain. The best member was not known before these images were scored."
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values that `json` can write."""
        own = {"name": self.name, "split": self.split, "trained": self.trained}
        members = {
            name: {"mean": one.mean, "seconds_per_image": self.seconds[name]}
            for name, one in self.members.items()
        }
        values = own | self.scores.to_json() | {"note": self.note}
        return values | {"members": members, "gains": self.gains()}


def judge_together(
    runs: Sequence[Run],
    dataset_path: Path | Sequence[Path],
    *,
    split: str = "auto",
    noncam: bool = False,
    reading: Reading | None = None,
    device: str = "auto",
    which: str = "best",
    views: Views = PLAIN,
    progress: Progress | None = None,
) -> list[Together]:
    """Score the mean of the runs' maps, and each run, on images as `judge` chooses them for one.

    An image counts as trained on where any run was. Of folds no image is new to all: with "auto" or
    "validation" each is then scored by those that held it out. Raises InputError as `judge` does.
    """
    ensemble = open_ensemble(runs, device, which)
    _, chosen = chosen_sets(runs, dataset_path, split, noncam, reading)
    how: dict[str, Any] = {"views": views, "progress": progress}
    return [
        _each_by_its_holders(ensemble, one, runs, **how)
        if one.split == "out-of-fold"
        else _all_by_all(ensemble, one, runs, **how)
        for one in chosen
    ]


def open_ensemble(
    runs: Sequence[Run | Path | str], device: str = "auto", which: str = "best"
) -> Ensemble:
    """Return the networks of several runs; InputError for a run that is given twice."""
    opened = [run if isinstance(run, Run) else Run(run) for run in runs]
    places = [run.folder.resolve() for run in opened]
    if twice := [str(each) for each in dict.fromkeys(places) if places.count(each) > 1]:
        raise InputError(
            f"{', '.join(twice)} is given twice: the mean would count it twice. Give each run once."
        )
    return Ensemble([open_predictor(run, device, which) for run in opened])


def _all_by_all(
    ensemble: Ensemble,
    one: Chosen,
    runs: Sequence[Run],
    *,
    views: Views,
    progress: Progress | None,
) -> Together:
    names = [str(run.folder) for run in runs]
    seconds: Seconds = [[] for _ in names]
    found = _measure(ensemble, one.pairs, views, progress, seconds)
    shown = unique_names(one.pairs)
    medians = [float(np.median(each)) for each in seconds]
    whole = scores_of(shown, [each[0] for each in found], sum(medians))
    members = {
        name: scores_of(shown, [each[place + 1] for each in found], medians[place])
        for place, name in enumerate(names)
    }
    times = dict(zip(names, medians, strict=True))
    return Together(one.name, one.note, one.split, one.trained, whole, members, times)


def _each_by_its_holders(
    ensemble: Ensemble,
    one: Chosen,
    runs: Sequence[Run],
    *,
    views: Views,
    progress: Progress | None,
) -> Together:
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, held in enumerate(holders(runs, one.pairs)):
        groups[held].append(place)
    found: dict[int, Measured] = {}
    for held, places in groups.items():
        part = Ensemble([ensemble.members[n] for n in held])
        pairs = [one.pairs[place] for place in places]
        seconds: Seconds = [[] for _ in held]
        measured = [each[0] for each in _measure(part, pairs, views, progress, seconds)]
        found |= dict(zip(places, measured, strict=True))
    scores = scores_of(unique_names(one.pairs), [found[n] for n in range(len(one.pairs))])
    return Together(one.name, one.note, one.split, one.trained, scores)


def _measure(
    ensemble: Ensemble,
    pairs: Sequence[Pair],
    views: Views,
    progress: Progress | None,
    seconds: Seconds,
) -> list[list[Measured]]:
    """Return of each image the measures of the mean, then of each member."""

    def score(job: tuple[tuple[Prediction, ...], Pair]) -> list[Measured]:
        predictions, pair = job
        labels = read_labels(pair)
        maps: list[NDArray[Any]] = [together(predictions).probability]
        maps += [each.probability for each in predictions]
        return [measure_map(each, labels) for each in maps]

    refuse_other_shapes(pairs)
    jobs = zip(ensemble.each(pairs, views, seconds), pairs, strict=True)
    found = []
    for measured in in_order(score, jobs, workers=cores()):
        found.append(measured)
        if progress:
            progress(len(found), len(pairs))
    return found
