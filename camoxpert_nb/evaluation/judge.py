"""How good a run is: the scores of its best weights on the images that may judge it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..data.cache import Progress
from ..data.pairs import Pair
from ..data.reading import Reading
from ..data.selection import find_data
from ..errors import InputError
from ..machine.devices import choose_precision, pick_devices
from ..network.build import load_run
from ..outside.paths import given, meant
from ..outside.terminal import paged
from ..runs.place import check_run
from ..runs.run import Run
from ..settings.config import Config
from .compare import paired_differences
from .judgement import Judgement, Scored
from .predict import MIRRORING, PLAIN, Kept, Predictor, Views
from .scores import Scores, number
from .scoring import evaluate, score_maps
from .which_images import Chosen, choose_pairs, reading_for


class Threshold(NamedTuple):
    """The threshold (0...1) with the best mean IoU on a run's n validation images, and that IoU.

    at_half: the mean IoU at threshold 0.5, on the same images.
    """

    value: float
    iou: float
    n: int
    at_half: float | None = None

    def __str__(self) -> str:
        usual = "" if self.at_half is None else f"; at 0.50 it is {self.at_half:.3f}"
        images = f"{self.n} validation image{'s' * (self.n != 1)}"
        return f"{self.value:.2f}: mean IoU {self.iou:.3f} on {images}{usual}"


@dataclass(frozen=True, repr=False)
class Judged(Scored):
    """What was scored, why those images, and the scores.

    split: "test", "validation" or "all"; trained: how many of the images trained the network.
    views: the test-time augmentation of `scores`; plain: the scores without it, None if it was
    none. threshold: chosen on validation, None if that was not asked for. kept: the predictions
    behind `scores`, by the path of the image.
    """

    name: str
    pairs: list[Pair]
    note: str
    split: str
    trained: int
    scores: Scores
    kept: dict[Path, Kept] = field(repr=False, default_factory=dict)
    views: Views = PLAIN
    plain: Scores | None = None
    threshold: Threshold | None = None

    def summary(self) -> str:
        """Return name, note and all results as text."""
        lines = [f"{self.name}: {self.note}", self.scores.summary(), self.gain or self.offer]
        if self.threshold:
            lines.append(
                f"  IoU {number(self.scores.iou_at(self.threshold.value))} at threshold "
                f"{self.threshold.value:.3f}, chosen on {self.threshold.n} validation images "
                f"(IoU {self.threshold.iou:.3f} there)"
                + (": these very images, so a bound" if self.split == "validation" else "")
            )
        return paged("\n".join(line for line in lines if line))

    @property
    def gain(self) -> str:
        """What test-time augmentation brought and cost, in a sentence; empty without it."""
        before, after = self.plain, self.scores
        if before is None or after.mean["iou"] is None:
            return ""
        kept = after.per_image["object_share"] > 0
        row = paired_differences(before.per_image[kept], after.per_image[kept])[0]
        once, now = before.seconds_per_image or 0.0, after.seconds_per_image or 0.0
        return (
            f"  seen {self.views.in_words()}: IoU {number(before.mean['iou'])} to "
            f"{number(after.mean['iou'])} ({row['difference']:+.4f}, 95 % interval "
            f"{row['low']:+.4f} to {row['high']:+.4f}), network {once:.4f} to {now:.4f} seconds "
            f"per image ({now / once if once else 1:.1f} times as long)"
        )

    @property
    def offer(self) -> str:
        """What mirrored images would bring and cost, in a sentence; empty where they were seen."""
        if self.views != PLAIN or self.scores.seconds_per_image is None:
            return ""
        return f"  seen mirrored too (--flip, MIRRORED in 04): {MIRRORING}"

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values that `json` can write."""
        values: dict[str, Any] = {"name": self.name, "split": self.split, **self.scores.to_json()}
        values |= {"note": self.note, "views": self.views._asdict(), "gain": self.gain.strip()}
        if self.plain:
            plain = self.plain
            values["plain"] = {"mean": plain.mean, "seconds_per_image": plain.seconds_per_image}
        if self.threshold:
            at = self.scores.iou_at(self.threshold.value)
            values["validation_threshold"] = self.threshold._asdict()
            values["iou_at_validation_threshold"] = at
        return values


def judge(
    run: Run | Path | str,
    dataset_path: Path | str | Sequence[Path | str],
    *,
    split: str = "auto",
    noncam: bool = False,
    reading: Reading | None = None,
    device: str = "auto",
    which: str = "best",
    views: Views = PLAIN,
    threshold: bool = False,
    progress: Progress | None = None,
) -> Judgement:
    """Score the run's weights, the best or `which="last"`, on each test set under the folders.

    With "auto" a folder without a test split is scored on the images this run held out, if it
    trained there, and whole otherwise. reading: how the folders are read, by default as the run's
    own data are. Scores are at each mask's own size. With views, each set is
    also scored without them, to show what they bring. threshold: also choose one on validation.
    Raises InputError when nothing is left to score, or a set is found twice.
    """
    run = run if isinstance(run, Run) else Run(run)
    folders, chosen = chosen_sets([run], dataset_path, split, noncam, reading)
    predictor = open_predictor(run, device, which)
    limit = None
    if threshold:
        limit = validation_threshold(run, folders, views=views, predictor=predictor)
    judged = []
    for one in chosen:
        kept: dict[Path, Kept] = {}
        scores = evaluate(predictor, one.pairs, views=views, progress=progress, kept=kept)
        plain = evaluate(predictor, one.pairs, progress=progress) if views != PLAIN else None
        judged.append(Judged(*one, scores, kept, views, plain, limit))
    return Judgement(judged)


def chosen_sets(
    runs: Sequence[Run],
    dataset_path: Path | str | Sequence[Path | str],
    split: str = "auto",
    noncam: bool = False,
    reading: Reading | None = None,
) -> tuple[list[Path], list[Chosen]]:
    """Return the folders, and the sets of images in them that may judge these runs."""
    for run in runs:  # a folder that is no run says so before the data are walked
        check_run(run)
        Config.load(run.config_path)
    several = [dataset_path] if isinstance(dataset_path, str | Path) else list(dataset_path)
    folders = [given(folder, "the data folder") for folder in several]
    chosen = [
        one for folder in folders for one in choose_pairs(runs, folder, split, noncam, reading)
    ]
    if twice := [name for name, n in Counter(one.name for one in chosen).items() if n > 1]:
        raise InputError(
            f"Two of the given folders hold a set called {', '.join(twice)}: score them one at a "
            "time, so that no result stands under the other's name."
        )
    return folders, chosen


def judge_maps(
    folder: Path, like: Sequence[Judged], *, progress: Progress | None = None
) -> list[Judged]:
    """Score any method's maps on the images that were judged already: those of `like`.

    folder: holds maps named like the images or masks; of several sets, in a folder each, named like
    the set. What trained the method is not known here. Raises InputError where maps are missing.
    """
    found = []
    for one in like:
        own = folder / one.name if (folder / one.name).is_dir() else folder
        scores = score_maps(own, one.pairs, progress=progress)
        note = f"maps in {own}, on the same images; what trained them is not known"
        found.append(Judged(one.name, one.pairs, note, one.split, 0, scores))
    return found


def validation_threshold(
    run: Run,
    dataset_path: Path | str | Sequence[Path | str] = (),
    *,
    device: str = "auto",
    views: Views = PLAIN,
    progress: Progress | None = None,
    predictor: Predictor | None = None,
) -> Threshold:
    """Return the threshold that is best on the images this run held out; test images never vote.

    dataset_path: the folder that holds them. Of several the first that does, and where none does
    (or none is given) the one that the run was trained on. predictor: the run's, where it is open
    already. Raises InputError when they are not there, or none of them has an object.
    """
    if isinstance(dataset_path, str | Path):
        (one,) = choose_pairs(run, given(dataset_path, "the data folder"), "validation")
    else:
        one = _held_out(run, dataset_path)
    predictor = predictor or open_predictor(run, device)
    scores = evaluate(predictor, one.pairs, views=views, progress=progress)
    value, iou = scores.other.get("best_threshold"), scores.other["best_threshold_iou"]
    if value is None or iou is None:
        raise InputError(
            f"No validation image of {run.folder} has an object: no threshold is best."
        )
    return Threshold(value, iou, scores.n - scores.n_empty, scores.iou_at(0.5))


def _held_out(run: Run, folders: Sequence[Path | str]) -> Chosen:
    """Return the images that the run held out, of the first folder that has some."""
    trained = str(run.load_json("summary").get("data", {}).get("root", ""))
    places = [Path(each).expanduser() for each in (*folders, trained) if str(each)]
    for folder in places:
        with suppress(InputError):  # no such folder, or none of the images is there
            (one,) = choose_pairs(run, folder, "validation", noncam=False)
            return one
    listed = ", ".join(map(str, dict.fromkeys(places))) or "no folder was given"
    raise InputError(
        f"A threshold is chosen on the images that {run.folder} held out, and none of them is here "
        f"({listed}). Give the data it was trained on too (--dataset-path), or leave out "
        "--validation-threshold."
    )


def open_predictor(run: Run | Path | str, device: str = "auto", which: str = "best") -> Predictor:
    """Return a run's network, ready to predict as it was trained to; `which` is load_run's."""
    run, devices = run if isinstance(run, Run) else Run(run), pick_devices(device)
    check_run(run)
    net, config = load_run(run, which, devices.main)
    dtype = choose_precision(devices, config.amp).dtype
    return Predictor(net, config.img_size, devices.main, config.batch_size, dtype)


def data_of(run: Run, wanted: str = "", attached: str = "") -> str:
    """Return the data folder to look at with `run`: `wanted`, else the one it was trained on.

    attached: a folder that stands in for that one where it is not here, as in a Kaggle session.
    Raises InputError when the run does not say yet where its images came from.
    """
    if wanted:
        return find_data(wanted, reading_for(run, Path(wanted))[0])
    known = run.load_json("summary").get("data", {}).get("root")
    if attached and not (known and Path(known).exists()):
        return find_data(attached)
    if not known:
        lost = not run.folder.exists()
        near = meant(run.folder) if lost else ""
        why = "is not there" if lost else "has no summary.json"
        wait = "it was deleted or moved" if lost else "it is still going on"
        raise InputError(
            f"{run.folder} {why}: nothing was trained there, or {wait}. "
            f"{'Train' if lost else 'Wait until it ends'}, name another run, or say where the "
            f"images are.{near}"
        )
    return str(known)
