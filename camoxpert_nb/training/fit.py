"""A whole training in this process: start or go on, obey requests, save, and end well."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ..data.cache import Progress
from ..errors import TrainingError
from ..machine.distributed import ALONE, Ranks, together
from ..machine.gpu_use import Gauge, verdict
from ..runs.records import seconds_per_image
from ..runs.run import Onlooker, Run
from ..settings.config import Config
from .best import update_best
from .budget import ends_at, how_far, minutes_gone
from .early import why_over
from .epoch import EpochSteps, end_epoch
from .failure import explained, graceful, note_failure
from .loggers import Loggers
from .memory import memory_advice, rehearse
from .own import Callbacks, Own
from .prepare import Loaders, Training, step_settings, summary
from .resume import begin, folder_for, prepare_for
from .saving import Saver, made_by, saves_beside
from .schedule import Stage
from .score import judge, nets_of, save_preview
from .sound import diverged, why_spoiled, why_unsound
from .train import Diverged
from .validate import average_batch_norm

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
    began: float | None = None,
    own: Own | None = None,
) -> Run:
    """Train as `config` says, in `config.checkpoint_dir`, and return the run.

    `announce` is told once what will be trained; `report` gets each record: "step", "validating",
    "epoch", "note", "stop" or "end". The first Ctrl-C (or SIGTERM) ends the step, saves and
    returns; a second one interrupts. With `resume` the folder's last checkpoint is taken up,
    exactly. `net` is as in `prepare.prepare`. With `ranks` this is one of several processes that
    train together: all do the same, but only the first one's run writes. The time budget counts
    from `began`, as time.time() tells it, by default from now. `own`: the user's parts (`own.Own`).

    Raises InputError for settings or data that cannot work, TrainingError when training breaks;
    RUN/failure.json then says why.
    """
    folder = ranks.from_first(lambda: folder_for(config, resume))
    end = ranks.from_first(lambda: ends_at(config.time_budget, began))
    run = Run(folder) if ranks.first else Onlooker(folder)
    new = ranks.first and not config.checkpoint_dir
    config = config.replace(checkpoint_dir=str(folder))
    with explained(run, new=new):
        training, known = prepare_for(run, config, resume, ranks, progress, net, own)
        with run.locked(), graceful(run):
            begin(training, run, known)
            announce(training)
            loggers = Loggers(run, training.config, training.state.step, report)
            saver = Saver(run, beside=saves_beside(run, training.devices))
            gauge, closing = Gauge(training.devices.ids), contextlib.closing
            with closing(loggers), closing(gauge), closing(saver):
                loaders = Loaders(training, progress)
                trainer = _Trainer(training, loaders, run, loggers.report, gauge, saver, end)
                told = ranks.told(trainer.note, partial(note_failure, run))
                with told, contextlib.closing(loaders.feed):
                    for doubt in [*loaders.doubts, *training.notes]:
                        trainer.note(doubt)
                    trainer.work()
    return run


class _Trainer:
    """One stretch of a training: from its start or a checkpoint to its end or a stop.

    All processes go through it in step.
    """

    def __init__(
        self,
        training: Training,
        loaders: Loaders,
        run: Run,
        report: Report,
        gauge: Gauge,
        saver: Saver,
        end: float,
    ) -> None:
        self.end = end  # when the time is used up, as time.time() tells it
        self.training, self.loaders, self.run, self.report = training, loaders, run, report
        self.gauge, self.saver = gauge, saver
        self.state, self.plan, self.ranks = training.state, training.plan, training.ranks
        self.saved = time.monotonic()
        self.settings = step_settings(training.config)
        self.between = 0.0  # seconds from the last epoch to this one
        self.first_epoch = self.state.epoch
        self.scored_on = training.data.split.scored
        loaders.feed.say = self.note
        self.steps: EpochSteps | None = None
        self.left = 0  # steps of the epoch that were not recorded yet
        self.over = ""  # why the training ends before its last epoch
        own = self.state.own if self.ranks.first else Own()  # one process calls the user's
        self.callbacks = Callbacks(own, partial(run.request, "stop"), self.note)

    def work(self) -> None:
        """Train, and sum up what was reached."""
        self.loaders.begin(self.plan.stage_at(self.state.epoch), self.state.epoch, self.state.seen)
        if self.gauge.reason:
            self.note(self.gauge.reason)
        self.tell_graph()
        try:
            with together():
                if self.training.devices.ids:  # the CPU's memory is not the short one
                    self.rehearse()
                stopped = self.train()
            self.saver.finish()
        except Diverged as error:
            raise self.diverged(str(error).split(". ")[0]) from error
        except torch.OutOfMemoryError as error:
            error.__traceback__ = None  # its frames hold the memory that the advice is measured in
            raise TrainingError(memory_advice(self.training)) from error
        if stopped:
            self.run.clear()
            self.report(self.run.log("stop", step=self.state.step, why=stopped))
        if self.over:
            self.note(f"training ends after epoch {self.state.epoch}: {self.over}")
        found = summary(self.training, self.loaders.fingerprint, self.run, finished=not stopped)
        self.run.save_json("summary", found | {"ended_early": self.over})
        if not stopped:
            end = {"step": self.state.step, "best": self.state.best, "why": self.over}
            self.report(self.run.log("end", **end))
        self.callbacks.raise_failure(self.state.own.call(self.run.folder))

    def diverged(self, why: str) -> TrainingError:
        """Return the error for a training that has lost its numbers."""
        return diverged(self.run, self.training.config, why, self.state)

    def train(self) -> str:
        """Train to the end, or to the stop whose reason is returned, with everything saved."""
        state = self.state
        while state.epoch < self.plan.epochs:
            if stopped := self.train_epoch():
                return stopped
            started = time.monotonic()
            self.end_epoch()
            self.over = self.ranks.from_first(self.why_over)
            stopped = self.between_steps(save=True)
            self.between = time.monotonic() - started
            if self.over:
                return ""
            if stopped and state.epoch < self.plan.epochs:
                return stopped
            if state.epoch == self.first_epoch + 1:  # measured by now
                self.forecast(*self.ranks.from_first(self.measured))
        return ""

    def why_over(self) -> str:
        """Say why the training ends before its last epoch, or nothing."""
        return why_over(self.training.config, self.plan, self.state)

    def train_epoch(self) -> str:
        """Train to the end of the epoch, whose last step the epoch's own end saves and obeys."""
        state, stage = self.state, self.plan.stage_at(self.state.epoch)
        batches = self.loaders.epoch(stage, state.epoch, state.seen)
        self.left = self.plan.steps_left(state.epoch, state.seen)
        self.parts = state.parts_per_batch
        self.steps = EpochSteps(state, self.plan, batches, self.settings)
        for record in self.steps:
            self.take(stage, record)
            if self.left and (stopped := self.between_steps()):
                return stopped
        return ""

    def take(self, stage: Stage, record: dict[str, Any]) -> None:
        """Report a step, and log some of them."""
        self.left -= 1
        self.tell({"kind": "step", **record})
        if self.state.parts_per_batch > self.parts:
            self.parts = self.tell_parts(stage, self.state.parts_per_batch)
        self.tell_graph()
        if self.left and self.left % max(stage.steps // STEP_RECORDS, 1) == 0:
            self.run.log("step", **record)

    def settle(self) -> bool:
        """Let the state be whole, and say whether it stands within an epoch."""
        if self.steps:
            for record in self.steps.settle():
                self.take(self.steps.stage, record)
        return self.left > 0

    def end_epoch(self) -> None:
        """Score raw and averaged weights, keep the best, and log the epoch."""
        training, state = self.training, self.state
        batch = self.plan.stage_at(state.epoch).batch
        record = end_epoch(state, self.plan) | self.utilisation()
        # While the GPU validates, the workers load what comes then.
        self.loaders.begin(self.plan.stage_at(state.epoch), state.epoch)
        record["verdict"] = verdict(record)
        average_batch_norm(state.net, nets_of(training).get("ema"), self.ranks)
        if why := why_spoiled(state, all_skipped=record["loss"] is None):
            raise self.diverged(why)
        images = len(training.data.validation)
        self.report({"kind": "validating", "epoch": state.epoch, "images": images})
        judged = judge(training, self.loaders, batch)
        if not judged.finite:
            raise self.diverged("the network gives no numbers any more")
        config, taken = training.config, not why_unsound(state, epoch_ends=True)
        if taken:
            found = state.epoch, judged.weights, judged.scored, config.keep
            state.best, taken = update_best(state.best, *found)
        record |= judged.record | {"validation": self.scored_on, "best": taken}
        record["weights"] = judged.weights
        saved = {"net": judged.net.state_dict(), **made_by(config)}
        if taken:
            self.saver.save("best", saved | state.best)
        if not why_unsound(state, epoch_ends=True):
            this = {"epoch": state.epoch, "iou": judged.scored.iou, "weights": judged.weights}
            self.saver.keep(config.keep_best, state.epoch, judged.scored.iou, saved | this)
        shown = training, self.loaders, self.run, judged.net
        self.ranks.from_first(lambda: save_preview(*shown))
        self.tell(self.run.log("epoch", **record))

    def tell(self, record: dict[str, Any]) -> None:
        """Report a step or an epoch, to the user's own functions too."""
        self.report(record)
        self.callbacks.report(record)

    def measured(self) -> tuple[dict[int, float], float]:
        """Return a device's seconds for a whole image by open blocks, and those between epochs."""
        records, count = self.run.records("epoch"), self.training.devices.count
        return seconds_per_image(records, self.plan.in_rows(), count), self.between

    def forecast(self, seconds: dict[int, float], between: float = 0.0) -> None:
        """Say how far this session comes, if it ends; `seconds`: a device's for one image."""
        if self.end < math.inf:
            left, place = (self.end - time.time()) / 60, (self.state.epoch, self.state.seen)
            found = how_far(
                self.plan, seconds, left, between=between, place=place, elapsed=minutes_gone()
            )
            self.note(str(found))

    def utilisation(self) -> dict[str, list[float]]:
        """Return the use and memory of all processes' GPUs since the last time."""
        readings = self.ranks.gather(self.gauge.read())
        return {name: [x for r in readings for x in r.get(name, [])] for name in readings[0]}

    def between_steps(self, save: bool = False) -> str:
        """Wait while paused, save if asked to or overdue; return why to stop, or nothing.

        What any process was asked, all do at the same step. A request is read once: a stop that
        comes later is seen, and saved, a step later. With `save` an epoch ends here; where its last
        step was only just read, all is left to that end.
        """
        config, run = self.training.config, self.run
        orphan, ends = False, save
        while True:
            late = self.ranks.first and time.time() >= self.end
            minutes = (time.monotonic() - self.saved) / 60
            overdue = save or minutes > config.save_minutes or self.wants_save()
            asked = (run.wants("pause"), run.wants("stop"), late, self.ranks.orphaned, overdue)
            pause, stop, late, orphan, save = self.ranks.any(*asked)
            if any((pause, stop, late, orphan, save)) and not (self.settle() or ends):
                return ""
            ends_here = stop or late or orphan
            if ends_here or save:
                self.save(last=ends_here, epoch_ends=ends)
            if stop or late or orphan or not pause:
                break
            save = False
            time.sleep(0.2)
        if orphan and not stop:
            return "the launcher of these processes is gone"
        return (
            self.callbacks.asked or "asked to stop"
            if stop
            else "the time budget is used up"
            if late
            else ""
        )

    def save(self, last: bool = False, epoch_ends: bool = False) -> None:
        """Write last.pt, from which the run can go on exactly, unless it could not.

        Raises TrainingError where that is to be the last save.
        """
        self.saved = time.monotonic()
        if why := why_unsound(self.state, epoch_ends=epoch_ends):
            if last:
                raise self.diverged(why)
            return self.note(f"this state is not saved, as {why}; last.pt is the one before")
        obeyed = partial(self.run.request, "save", wanted=False)
        self.saver.save("last", self.state.state_dict() | made_by(self.training.config), obeyed)

    def wants_save(self) -> bool:
        """Say whether a save was asked for, and none is being written."""
        return self.run.wants("save") and not self.saver.writes("last")

    def rehearse(self) -> None:
        """Try both parts of the training, so that stage two cannot surprise."""
        size, own = self.training.config.img_size, self.training.devices.own
        split, costs = rehearse(self.state, self.plan, self.settings, size)
        for stage in split:
            self.tell_parts(stage, self.state.parts[stage.open_blocks])
        self.forecast({blocks: own * cost.seconds_per_image for blocks, cost in costs.items()})

    def tell_graph(self) -> None:
        """Log, once, why steps are not captured."""
        note, self.state.graph.note = self.state.graph.note, ""
        if note:
            self.note(note)

    def tell_parts(self, stage: Stage, parts: int) -> int:
        """Log that the stage's batches are computed in so many parts, and return how many."""
        message = (
            f"memory is short in stage {stage.name}: each batch of {stage.batch} per device is "
            f"computed in {parts} parts. The effective batch stays; it only takes longer."
        )
        self.note(message)
        return parts

    def note(self, message: str) -> None:
        """Log something the user should know."""
        self.report(self.run.log("note", step=self.state.step, message=message))
