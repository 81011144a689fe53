"""How fast a training is and how far it came: its records in figures and in words."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

from .history import behind, comparable_epochs, kept_epoch
from .holder import alive
from .pace import Pace, clock, estimate_of
from .process import Status, status
from .run import Record, Run

Records = Sequence[Mapping[str, Any]]
WAITING = {"starting": "loading PyTorch", "running": "reading images and building the network"}
# How a ready notebook of Kaggle is called, before and after its upload: it trains and scores.
READY = ("this notebook", "/camoxpert-train")
FEW = 400  # records from which the time left is reckoned: 20 epochs


def performance(
    epochs: Records, config: Mapping[str, Any], devices: Sequence[str]
) -> dict[str, Any]:
    """Return the figures of a training; what was not measured or not reached is None.

    epochs: the "epoch" records of its history, in order. config: its settings, of which
    batch_size, stage2_batch_size, accumulation_steps and target_iou are read. devices: a line for
    each device that trained.

    batch_per_device and effective_batch: of stage one and two. minutes_per_epoch: median, of
    training alone; minutes_per_epoch_in_all: median from end to end, with validation and saving.
    gpu_percent: mean utilisation of each GPU. minutes_to_target: of training alone, until the
    first epoch whose validation IoU (raw or averaged weights) was at least target_iou.
    """
    first = config["batch_size"]
    batches = [first, config.get("stage2_batch_size") or first]
    per_step = len(devices) * config.get("accumulation_steps", 1)
    seconds = [record.get("seconds", 0.0) for record in epochs]
    scores = [
        max(record.get("iou") or 0.0, record.get("iou_ema") or 0.0) if comparable else 0.0
        for record, comparable in zip(epochs, comparable_epochs(epochs), strict=True)
    ]
    target = config["target_iou"]
    reached = next((i for i, score in enumerate(scores) if score >= target), None)
    kept = kept_epoch(epochs)
    ends = [after.get("time", 0.0) - before.get("time", 0.0) for before, after in pairwise(epochs)]
    return {
        "devices": list(devices),
        "batch_per_device": batches,
        "effective_batch": [batch * per_step for batch in batches],
        "epochs": len(epochs),
        "minutes_per_epoch": median(seconds) / 60 if seconds else None,
        "minutes_per_epoch_in_all": median(ends) / 60 if ends else None,
        "images_per_second": _over_time(epochs, "images_per_second"),
        "gpu_percent": _per_gpu(epochs),
        "data_wait_percent": _over_time(epochs, "data_wait_percent"),
        "target_iou": target,
        "minutes_to_target": None if reached is None else list(accumulate(seconds))[reached] / 60,
        "epoch_of_target": None if reached is None else epochs[reached].get("epoch"),
        "best_iou": None if kept is None else kept.iou,
        "best_epoch": None if kept is None else epochs[kept.place].get("epoch"),
    }


def seconds_per_image(epochs: Records, stages: Records, devices: int) -> dict[int, float]:
    """Return a device's seconds for one whole image by open blocks, from one epoch record or more.

    stages: those of the plan, each with "name", "open_blocks" and "area", the share of an image's
    pixels that trains in it. What was not trained yet counts as the slowest that was.
    """
    areas = {stage["name"]: stage["area"] for stage in stages}
    known = {
        record["stage"]: devices / record["images_per_second"] / areas.get(record["stage"], 1.0)
        for record in epochs
    }
    slowest, found = max(known.values()), dict[int, float]()
    for stage in stages:
        usual = found.get(stage["open_blocks"], slowest)
        found[stage["open_blocks"]] = known.get(stage["name"], usual)
    return found


def in_words(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return `performance`'s figures as a row of the guide's table: heading and text."""
    target = f"{figures['target_iou']:g}"
    reached = "not reached"
    if figures["minutes_to_target"] is not None:
        reached = f"{figures['minutes_to_target']:.1f} min (epoch {figures['epoch_of_target']})"
    busy = figures["gpu_percent"]
    return {
        "devices": "; ".join(figures["devices"]),
        "batch per device": _stages(figures["batch_per_device"]),
        "effective batch": _stages(figures["effective_batch"]),
        "epochs": str(figures["epochs"]),
        "minutes per epoch": _text(figures["minutes_per_epoch"], ".2f"),
        "minutes per epoch, with validation": _text(figures["minutes_per_epoch_in_all"], ".2f"),
        "images/s": _text(figures["images_per_second"], ".1f"),
        "GPU busy": ", ".join(f"{each:.0f} %" for each in busy) if busy else "not measured",
        "waiting for data": _text(figures["data_wait_percent"], ".1f", " %"),
        f"training time to IoU {target}": reached,
        "best validation IoU": _text(figures["best_iou"], ".3f")
        + (f" (epoch {figures['best_epoch']})" if figures["best_epoch"] else ""),
    }


def _over_time(epochs: Records, key: str) -> float | None:
    """Return the mean over the time trained: a slow epoch counts as long as it took."""
    total = sum(record.get("seconds", 0.0) for record in epochs)
    return (
        sum((r.get(key) or 0.0) * r.get("seconds", 0.0) for r in epochs) / total if total else None
    )


def _per_gpu(epochs: Records) -> list[float] | None:
    known = [record["gpu_percent"] for record in epochs if record.get("gpu_percent")]
    return [fmean(each) for each in zip(*known, strict=False)] or None


def _stages(values: Sequence[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else "{} (stage one), {} (two)".format(*values)


def _text(value: float | None, form: str, unit: str = "") -> str:
    return "not measured" if value is None else f"{value:{form}}{unit}"


class Watch:
    """A run in words: its records so far, its plan and its status, as of the last `refresh`."""

    def __init__(self, run: Run) -> None:
        self.run, self.name = run, str(run.folder)
        with contextlib.suppress(ValueError):  # as short as it can be written here
            self.name = str(run.folder.relative_to(Path.cwd()))
        self.status, self.records = Status("empty"), list[Record]()
        self.refresh()

    def refresh(self) -> None:
        """Bring all up to date; of a run whose folder was removed, keep what was seen of it."""
        before, found = self.status, status(self.run)
        if before.name != "empty" and not self.run.folder.exists():
            self.status = Status("gone", cause=self._removed(before))
            return
        self.records, self.status = self.run.records(), found
        self.steps, self.epochs = (
            [record for record in self.records if record["kind"] == kind]
            for kind in ("step", "epoch")
        )
        self._newest = max(
            [*self.steps[-1:], *self.epochs[-1:]],
            key=lambda record: record.get("step", 0),
            default={},
        )
        self._steps = self.steps[-1].get("steps", 0) if self.steps else 0
        self._estimate = estimate_of(self.run)
        settings = self.run.load_json("config")
        self.total_epochs, self.target = settings.get("epochs", 1), settings.get("target_iou", 0.0)

    def _removed(self, before: Status) -> str:
        """Say that the folder is gone, and what became of the training in it."""
        if before.name == "gone":
            return before.cause
        lives = before.pid is not None and alive(before.pid)
        still = f" Process {before.pid} still trains and cannot save: `kill {before.pid}`." * lives
        return f"the folder {self.name} was deleted or moved.{still}"

    def share_done(self) -> float:
        """Return how much of the training is over, 0 to 1."""
        return self._newest.get("step", 0) / max(self._steps, 1) if self.steps else 0.0

    def place(self) -> str:
        """Say where the training is, how fast, and how long it will take."""
        newest = self._newest
        if not newest:
            return WAITING.get(self.status.name, "")
        epoch, stage = newest.get("epoch", "?"), newest.get("stage", "?")
        words = [f"epoch {epoch} of {self.total_epochs}, stage {stage}"]
        if self.steps:
            speeds = sorted(record.get("images_per_second", 0.0) for record in self.steps[-5:])
            words.append(f"step {newest.get('step', 0)} of {self._steps}")
            words.append(f"{speeds[len(speeds) // 2]:.3g} images/s")
        loading = [WAITING["starting"]] if self.status.name == "starting" else []
        return ", ".join([*loading, *words, *self._time_left()])

    def best(self) -> str:
        """Say the best validation IoU so far, or nothing."""
        kept = kept_epoch(self.epochs)
        if kept is None:
            return ""
        place, iou = kept.highest
        epoch, highest = (self.epochs[each].get("epoch", 0) for each in (kept.place, place))
        which = f"epoch {epoch}{behind(epoch, kept.iou, highest, iou)}"
        return f"best validation IoU {kept.iou:.3f} ({which}), target {self.target:g}"

    def saved(self) -> str:
        """Say when the state was saved last, or that it is about to be."""
        if self.status.pid is not None and self.run.wants("save"):
            return "about to save"
        with contextlib.suppress(FileNotFoundError):
            moment = time.localtime((self.run.folder / "last.pt").stat().st_mtime)
            return time.strftime("saved %Y-%m-%d %H:%M:%S", moment)
        return ""

    def advice(self, buttons: bool = True) -> str:
        """Say how to go on from here; nothing while the training goes on by itself.

        buttons: whether those of a panel stand beside it.
        """
        folder, saved = self.name, self.run.has("last")
        why = (self.records or [{}])[-1].get("why")
        early = f"It ended early: {why}. " if why else ""
        resume = "press Resume" if buttons else f"`Dashboard('{folder}').resume()` in a notebook"
        go_on = f"{resume}, or type `camoxpert resume {folder}`"
        return {
            "empty": f"No run here yet: {folder}. It is shown as soon as one begins."
            if self.run.folder.exists()
            else f"There is no folder {folder}: nothing was trained there, or it was deleted or "
            "moved. Name another run, or train one: notebook 03_train.",
            "gone": "If it was moved, open it where it is now; if it was deleted, train again.",
            "paused": f"Nothing is lost. To go on: {resume}.",
            "stopped": f"Everything is saved. To go on: {go_on}."
            if saved
            else f"It ended before anything was trained. To start it again: {resume}.",
            "finished": f"{early}Best weights: `{folder}/best.pt`. Score them: {self._scorer()}.",
            "died": f"What was saved last is whole. To go on from there: {go_on}."
            if saved
            else f"Nothing was trained yet. Mend the cause, then launch again, or {resume}.",
        }.get(self.status.name, "")

    def _scorer(self) -> str:
        """Say what scores the best weights, in the notebook where this is read."""
        if os.environ.get("CAMOXPERT_KERNEL", "").endswith(READY):
            return "the cells below, or `judge`"
        return f"notebook 04_evaluate, or `camoxpert evaluate --run {self.name}`"

    def line(self) -> str:
        """Return the run in one line of plain text, with the cause below it when it died."""
        process = f" (process {self.status.pid})" if self.status.pid else ""
        known = [f"{self.name}: {self.status.name}{process}", self.place(), self.best()]
        advice = self.advice(buttons=False).replace("`", "")
        lines = ["; ".join(filter(None, known)), self.status.cause, advice]
        return "\n".join(filter(None, lines))

    def _time_left(self) -> list[str]:
        if self.status.name != "running":
            return []
        starts = [i for i, record in enumerate(self.records) if record["kind"] == "start"]
        first = starts[-1] if starts else 0  # of the process that trains now
        stages = self.records[first].get("stages") or [] if starts else []
        pace = Pace(stages, self._estimate)
        for record in self.records[max(first, len(self.records) - FEW) :]:
            pace.hear(record)
        seconds = pace.seconds_left()
        return [] if seconds is None else [f"{clock(seconds)} left"]
