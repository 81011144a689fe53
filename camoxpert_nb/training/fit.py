"""A whole training in this process: start or go on, obey requests, save, and end well."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.cache import Progress
from ..errors import InputError, PeerLost, TrainingError
from ..machine.distributed import ALONE, Ranks, together
from ..machine.gpu_use import Gauge, verdict
from ..runs.process import new_folder
from ..runs.records import seconds_per_image
from ..runs.run import Onlooker, Run
from ..settings.config import Config
from .budget import foresee, minutes_to_train, passed
from .memory import memory_advice, rehearse
from .prepare import Loaders, Training, prepare, split, step_settings, summary, versions
from .resume import restore
from .schedule import Place, Stage
from .train import epoch_record, train_epoch
from .validate import preview, validate

Report = Callable[[dict[str, Any]], None]

STEP_RECORDS = 20  # per epoch, in the history


def fit(
    config: Config,
    *,
    resume: bool = False,
    report: Report = lambda record: None,
    announce: Callable[[Training], None] = lambda training: None,
    progress: Progress | None = None,
    net: nn.Module | None = None,
    ranks: Ranks = ALONE,
) -> Run:
    """Train as `config` says, in `config.checkpoint_dir`, and return the run.

    `announce` is told once what will be trained; `report` gets each record: "step", "epoch",
    "note", "stop" or "end". The first Ctrl-C (or SIGTERM) ends the step, saves and returns; a
    second one interrupts. With `resume` the folder's last checkpoint is taken up, exactly. `net`
    is as in `recipe.prepare`. With `ranks` this is one of several processes that train together:
    all do the same, but only the first one's run writes.

    Raises InputError for settings or data that cannot work, TrainingError when training breaks;
    RUN/failure.json then says why.
    """
    folder = ranks.from_first(lambda: _folder(config, resume))
    run = Run(folder) if ranks.first else Onlooker(folder)
    config = config.replace(checkpoint_dir=str(folder))
    try:
        going_on = ranks.from_first(lambda: resume and run.has("last"))
        training = prepare(config, progress, net, ranks=ranks, empty=going_on)
        with run.locked(), _graceful(run):
            _begin(training, run, going_on)
            announce(training)
            with contextlib.closing(Gauge(training.devices.ids)) as gauge:
                _Session(training, Loaders(training, progress), run, report, gauge).work()
    except Exception as error:
        _note_failure(run, error)
        raise
    return run


def _folder(config: Config, resume: bool) -> Path:
    folder = Path(config.checkpoint_dir or new_folder())
    if Run(folder).exists() and not resume:
        raise InputError(
            f"{folder} already holds a run. Go on with `camoxpert resume {folder}`, or "
            "choose another --checkpoint-dir."
        )
    return folder


def _begin(training: Training, run: Run, going_on: bool) -> None:
    """Take up the last checkpoint, if there is one to go on from, and write down what starts."""
    run.clear()
    if going_on:
        restore(training, run)
    run.save_json("split", split(training))
    run.save_config(training.config)
    run.point_latest()
    devices = list(training.device_lines)
    run.log("start", step=training.state.step, versions=versions(), devices=devices)


def _note_failure(run: Run, error: Exception) -> None:
    """Leave the reason in the folder, unless it is another one's or another process knows it."""
    ours = run.folder.exists() and run.training_pid() in (None, os.getpid())
    if ours and not isinstance(error, PeerLost):
        run.save_json("failure", {"kind": type(error).__name__, "message": str(error)})


class _Session:
    """One stretch of a training: from its start or a checkpoint to its end or a stop.

    All processes go through it in step.
    """

    def __init__(
        self, training: Training, loaders: Loaders, run: Run, report: Report, gauge: Gauge
    ) -> None:
        self.training, self.loaders, self.run, self.report = training, loaders, run, report
        self.gauge = gauge
        self.state, self.plan, self.ranks = training.state, training.plan, training.ranks
        self.began = self.saved = time.monotonic()
        budget = training.config.time_budget
        self.minutes = self.ranks.from_first(lambda: minutes_to_train(budget))
        self.started_at = self.state.step

    def work(self) -> None:
        """Train, and sum up what was reached."""
        if self.gauge.reason:
            self.note(self.gauge.reason)
        try:
            with together():
                if self.training.devices.ids:  # the CPU's memory is not the short one
                    self.rehearse()
                stopped = self.train()
        except torch.OutOfMemoryError as error:
            error.__traceback__ = None  # its frames hold the memory that the advice is measured in
            raise TrainingError(memory_advice(self.training)) from error
        if stopped:
            self.run.clear()
            self.report(self.run.log("stop", step=self.state.step, why=stopped))
        self.run.save_json(
            "summary",
            summary(self.training, self.loaders.fingerprint, self.run, finished=not stopped),
        )
        if not stopped:
            self.report(self.run.log("end", step=self.state.step, best=self.state.best))

    def train(self) -> str:
        """Train to the end, or to the stop whose reason is returned, with everything saved."""
        while self.state.step < self.plan.steps:
            place = self.plan.at(self.state.step)
            stopped = self.train_epoch(place)
            if stopped:
                return stopped
            self.end_epoch(place)
            if place.epoch == self.plan.at(self.started_at).epoch:  # measured by now
                self.forecast(self.ranks.from_first(self.measured))
            stopped = self.between_steps(save=True)
            if stopped and self.state.step < self.plan.steps:
                return stopped
        return ""

    def train_epoch(self, place: Place) -> str:
        """Train to the end of the epoch, whose last step the epoch's own end saves and obeys."""
        state, steps = self.state, place.stage.steps
        end, parts = state.step - place.step_in_epoch + steps, state.parts_per_batch
        settings, batches = step_settings(self.training.config), self.loaders.epoch(place)
        for record in train_epoch(state, self.plan, batches, settings):
            record |= {"steps": self.plan.steps, "step_in_epoch": state.step - end + steps}
            self.report({"kind": "step", **record})
            if state.parts_per_batch > parts:
                parts = self.tell_parts(place.stage, state.parts_per_batch)
            if state.step == end:
                break
            if state.step % max(steps // STEP_RECORDS, 1) == 0:
                self.run.log("step", **record)
            stopped = self.between_steps()
            if stopped:
                return stopped
        return ""

    def end_epoch(self, place: Place) -> None:
        """Score raw and averaged weights, keep the best, and log the epoch."""
        training, state = self.training, self.state
        record = epoch_record(state, self.plan, place) | self.utilisation()
        record["verdict"] = verdict(record)
        nets = {"raw": state.net} | ({"ema": state.ema.module} if state.ema else {})
        how: dict[str, Any] = {
            "dtype": training.precision.dtype,
            "device": training.devices.main,
        }
        scores = {
            name: validate(net, self.loaders.validation(place.stage.batch), ranks=self.ranks, **how)
            for name, net in nets.items()
        }
        best = max(scores, key=lambda name: scores[name]["iou"])
        record |= {
            "iou": scores["raw"]["iou"],
            "iou_ema": scores["ema"]["iou"] if "ema" in scores else None,
            "mae": scores[best]["mae"],
            "best": scores[best]["iou"] > state.best.get("iou", -1.0),
        }
        if record["best"]:
            state.best = {"epoch": record["epoch"], "iou": scores[best]["iou"], "weights": best}
            weights = {"net": nets[best].state_dict(), "config": training.config.as_dict()}
            self.run.save("best", weights | state.best | {"version": versions()["camoxpert_nb"]})
        self.ranks.from_first(lambda: self.save_preview(nets[best], how))
        self.report(self.run.log("epoch", **record))

    def save_preview(self, net: nn.Module, how: dict[str, Any]) -> None:
        """Write how the same few validation images are predicted now."""
        arrays = preview(net, self.loaders.validation_set, **how)
        pairs = self.training.data.validation
        names = [pairs[index].name for index in arrays.pop("index").tolist()]
        self.run.save_preview(arrays | {"names": names})

    def measured(self) -> dict[int, float]:
        """Return a device's seconds for one image by open blocks, as the epochs so far took."""
        names = {stage.open_blocks: stage.name for stage in self.plan.stages}
        return seconds_per_image(self.run.records("epoch"), names, self.training.devices.count)

    def forecast(self, seconds: dict[int, float]) -> None:
        """Say how far this session comes, if it ends; `seconds`: a device's for one image."""
        if self.minutes < math.inf:
            left = self.minutes - (time.monotonic() - self.began) / 60
            step, elapsed = self.state.step, passed()
            self.note(str(foresee(self.plan, seconds, left, step=step, elapsed=elapsed)))

    def utilisation(self) -> dict[str, list[float]]:
        """Return the use and memory of all processes' GPUs since the last time."""
        readings = self.ranks.gather(self.gauge.read())
        return {name: [x for r in readings for x in r.get(name, [])] for name in readings[0]}

    def between_steps(self, save: bool = False) -> str:
        """Wait while paused, save if asked to or overdue; return why to stop, or nothing.

        What any process was asked, all do at the same step. A request is read once: a stop that
        comes later is seen, and saved, a step later.
        """
        config, run = self.training.config, self.run
        while True:
            minutes = (time.monotonic() - self.began) / 60, (time.monotonic() - self.saved) / 60
            overdue = save or minutes[1] > config.save_minutes or run.wants("save")
            requests = (run.wants("pause"), run.wants("stop"), minutes[0] >= self.minutes, overdue)
            pause, stop, late, save = self.ranks.any(*requests)
            if stop or late or save:
                self.save()
            if stop or late or not pause:
                break
            save = False
            time.sleep(0.2)
        return "asked to stop" if stop else "the time budget is used up" if late else ""

    def save(self) -> None:
        """Write last.pt, from which the run can go on exactly."""
        config, place = self.training.config, self.plan.at(self.state.step)
        samples = place.step_in_epoch * self.training.images_per_step(place.stage)
        where = {"epoch": place.epoch, "samples": samples}
        made = {"config": config.as_dict(), "version": versions()["camoxpert_nb"]}
        self.run.save("last", self.state.state_dict() | where | made)
        self.run.request("save", wanted=False)
        self.saved = time.monotonic()

    def rehearse(self) -> None:
        """Try both parts of the training, so that stage two cannot surprise."""
        config, own = self.training.config, self.training.devices.own
        split, costs = rehearse(self.state, self.plan, step_settings(config), config.img_size)
        for stage in split:
            self.tell_parts(stage, self.state.parts[stage.open_blocks])
        self.forecast({blocks: own * cost.seconds_per_image for blocks, cost in costs.items()})

    def tell_parts(self, stage: Stage, parts: int) -> int:
        """Log that the stage's batches are computed in so many parts, and return how many."""
        message = (
            f"memory is short in stage '{stage.name}': each batch of {stage.batch} per device is "
            f"computed in {parts} parts. The effective batch stays; it only takes longer."
        )
        self.note(message)
        return parts

    def note(self, message: str) -> None:
        """Log something the user should know."""
        self.report(self.run.log("note", step=self.state.step, message=message))


@contextlib.contextmanager
def _graceful(run: Run) -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop; the second one acts as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        run.request("stop")
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
