"""A whole training in this process: start or go on, obey requests, save, and end well."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .config import Config
from .errors import InputError, TrainingError
from .optim import Place
from .recipe import Loaders, Progress, Training, prepare, step_settings, versions
from .resume import restore
from .run import Run
from .train import epoch_record, train_epoch, validate

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
) -> Run:
    """Train as `config` says, in `config.checkpoint_dir`, and return the run.

    `announce` is told once what will be trained; `report` gets each record: "step", "epoch",
    "stop" or "end". The first Ctrl-C (or SIGTERM) ends the step, saves and returns; a second one
    interrupts. With `resume` the folder's last checkpoint is taken up, exactly. `net` is as in
    `recipe.prepare`.

    Raises InputError for settings or data that cannot work, TrainingError when training breaks.
    """
    config = config if config.checkpoint_dir else config.replace(checkpoint_dir=_new_folder())
    run = Run(config.checkpoint_dir)
    if run.exists() and not resume:
        raise InputError(
            f"{run.folder} already holds a run. Go on with `camoxpert resume {run.folder}`, or "
            "choose another --checkpoint-dir."
        )
    going_on = resume and run.has("last")
    training = prepare(config, progress, net, empty=going_on)
    run.folder.mkdir(parents=True, exist_ok=True)
    with run.locked(), _graceful(run):
        run.clear_requests()
        if going_on:
            restore(training, run)
        config.save(run.config_path)
        _point_latest_to(run.folder)
        run.save_json("split", _split(training))
        announce(training)
        loaders = Loaders(training, progress)
        started = training.state.step
        run.log("start", step=started, versions=versions(), devices=training.devices.describe())
        try:
            finished = _train(training, loaders, run, report)
        except torch.OutOfMemoryError as error:
            raise TrainingError(_out_of_memory(training)) from error
        _summarise(training, loaders, run, report, finished)
    return run


def _train(training: Training, loaders: Loaders, run: Run, report: Report) -> bool:
    """Train to the end (True) or to a requested stop (False); every exit leaves a whole state."""
    state, plan = training.state, training.plan
    settings, saved = step_settings(training.config), time.monotonic()
    while state.step < plan.steps:
        place = plan.at(state.step)
        end = state.step - place.step_in_epoch + place.stage.steps
        for record in train_epoch(state, plan, loaders.epoch(place), settings):
            record |= {"steps": plan.steps, "step_in_epoch": state.step - end + place.stage.steps}
            report({"kind": "step", **record})
            if state.step == end:
                break  # the epoch's own end saves and obeys
            if state.step % max(place.stage.steps // STEP_RECORDS, 1) == 0:
                run.log("step", **record)
            saved, stop = _between_steps(training, run, saved)
            if stop:
                return _stop(run, state.step, report)
        report(_end_epoch(training, loaders, run, place))
        saved, stop = _between_steps(training, run, saved=-math.inf)
        if stop and state.step < plan.steps:
            return _stop(run, state.step, report)
    return True


def _end_epoch(training: Training, loaders: Loaders, run: Run, place: Place) -> dict[str, Any]:
    """Score raw and averaged weights, keep the best, log the epoch and return its record."""
    state = training.state
    record = epoch_record(state, training.plan, place)
    nets = {"raw": state.net} | ({"ema": state.ema.module} if state.ema else {})
    results = {
        name: validate(net, loaders.validation(place.stage.batch), training.precision.dtype)
        for name, net in nets.items()
    }
    best = max(results, key=lambda name: results[name][0]["iou"])
    scores, preview = results[best]
    record |= {
        "iou": results["raw"][0]["iou"],
        "iou_ema": results["ema"][0]["iou"] if "ema" in results else None,
        "mae": scores["mae"],
        "best": scores["iou"] > state.best.get("iou", -1.0),
    }
    if record["best"]:
        state.best = {"epoch": record["epoch"], "iou": scores["iou"], "weights": best}
        weights = {"net": nets[best].state_dict(), "config": training.config.as_dict()}
        run.save("best", weights | state.best | {"version": versions()["camoxpert_nb"]})
    index = preview.pop("index")
    run.save_preview(
        preview | {"names": [training.data.validation[i].name for i in index.tolist()]}
    )
    return run.log("epoch", **record)


def _save(training: Training, run: Run) -> float:
    place = training.plan.at(training.state.step)
    samples = place.step_in_epoch * training.images_per_step(place.stage)
    where = {"epoch": place.epoch, "samples": samples}
    config = {"config": training.config.as_dict(), "version": versions()["camoxpert_nb"]}
    run.save("last", training.state.state_dict() | where | config)
    run.request("save", wanted=False)
    return time.monotonic()


def _between_steps(training: Training, run: Run, saved: float) -> tuple[float, bool]:
    """Wait while paused, save if asked to or overdue; return when it was saved, and if to stop."""
    while run.wants("pause") and not run.wants("stop"):
        time.sleep(0.2)
    stop = run.wants("stop")  # read once: a stop that comes later is seen, and saved, a step later
    overdue = time.monotonic() - saved > 60 * training.config.save_minutes
    if stop or overdue or run.wants("save"):
        saved = _save(training, run)
    return saved, stop


def _stop(run: Run, step: int, report: Report) -> bool:
    run.clear_requests()
    report(run.log("stop", step=step, why="asked to stop"))
    return False


def _new_folder() -> str:
    return str(Path("runs") / time.strftime("%Y%m%d-%H%M%S"))


def _point_latest_to(folder: Path) -> None:
    """Let runs/latest name the newest run, where the file system has links."""
    newest = folder.resolve()  # `folder` may be the link itself: "resume runs/latest"
    link = newest.parent / "latest"
    with contextlib.suppress(OSError):
        if link.is_symlink() or not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(newest.name, target_is_directory=True)


def _split(training: Training) -> dict[str, list[str]]:
    """Name the images of each side, so that no later evaluation mistakes one for the other."""
    data = training.data
    return {
        "train": [pair.name for pair in data.train],
        "validation": [pair.name for pair in data.validation],
    }


def _summarise(
    training: Training, loaders: Loaders, run: Run, report: Report, finished: bool
) -> None:
    state, data, epochs = training.state, training.data, run.records("epoch")
    reached = [
        record["epoch"]
        for record in epochs
        if max(record["iou"], record["iou_ema"] or 0.0) >= training.config.target_iou
    ]
    run.save_json(
        "summary",
        {
            "finished": finished,
            "best": state.best,
            "target_iou": training.config.target_iou,
            "target_reached_at_epoch": reached[0] if reached else None,
            "epochs": len(epochs),
            "step": state.step,
            "seconds": round(state.seconds, 1),
            "devices": training.devices.describe(),
            "precision": training.precision.reason,
            "parameters": sum(p.numel() for p in state.net.parameters()),
            "weights_source": state.weights_source,
            "versions": versions(),
            "data": {
                "root": str(data.root),
                "fingerprint": loaders.fingerprint,
                "train": len(data.train),
                "validation": len(data.validation),
                "left_out": {why: list(names) for why, names in data.left_out.items()},
                "leaks": list(data.leaks),
            },
        },
    )
    if finished:
        report(run.log("end", step=state.step, best=state.best))


def _out_of_memory(training: Training) -> str:
    config, stage = training.config, training.plan.at(training.state.step).stage
    flag = "--stage2-batch-size" if stage.part == 2 else "--batch-size"
    half = max(stage.batch // 2, 1)
    advice = [
        f"{flag} {half} --accumulation-steps {config.accumulation_steps * 2} (same effective batch)"
    ]
    if not config.gradient_checkpointing:
        advice.append("--gradient-checkpointing (about a third slower)")
    advice.append(f"--img-size {max(config.img_size * 7 // 8 // 32 * 32, 32)}")
    return (
        f"out of GPU memory in stage '{stage.name}' with {stage.batch} images per GPU at "
        f"{config.img_size} px. In this order, try: {'; or '.join(advice)}. Go on with "
        f"`camoxpert resume {config.checkpoint_dir}` and one of these."
    )


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
