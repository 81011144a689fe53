"""The command that trains the same settings several times, over seeds or folds.

It is a command of its own, and no flag of `train`, because its folder is no run: it holds several,
each of which `train` itself trains, in a process that this one starts, watches and stops.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import STOPPED, InputError
from ..outside.refused import naming
from ..outside.spelling import counted
from ..outside.terminal import tell
from ..runs.process import discard_empty, environment, new_folder
from ..runs.repeat import Repeat, is_repeat, train_member, why_failed
from ..runs.run import Run
from ..settings.config import as_flags
from .flags import add_command, add_preset, add_settings, write_json
from .parser import Options
from .train import choose


def add_commands(commands: Any) -> None:
    """Add repeat."""
    sub = add_command(commands, "repeat", repeat, _refuse_mixed)
    help = "train so many times, with the seeds from --seed on (default: from 1 on)"
    sub.add_argument("--seeds", type=int, metavar="N", help=help)
    help = "cut the images into so many parts and train once for each, which then validates"
    sub.add_argument("--folds", type=int, metavar="K", help=help)
    help = "show what the first of them would do, and end"
    sub.add_argument("--dry-run", action="store_true", help=help)
    add_preset(sub)
    add_settings(sub)


def repeat(options: Options) -> int:
    """Train over several seeds or folds; with the same command again, go on where it ended."""
    if "WORLD_SIZE" in os.environ:
        raise InputError(
            "repeat starts its trainings itself, each with all GPUs of this machine (--parallel): "
            "call it without torchrun."
        )
    began, dry = time.time(), options.pop("dry_run")
    plan, reason, changes = _plan(options)
    if reason:
        tell(reason)
    if dry:
        return _show(plan)
    plan.save()
    with Run(plan.folder).locked():
        return _train_all(plan, changes, began)


def _refuse_mixed(options: Options) -> None:
    seeds, folds = options["seeds"], options["folds"]
    if seeds is not None and folds is not None:
        raise InputError(
            "--seeds and --folds are both given: choose one. The folds are the same for every "
            "seed, so `repeat --folds K --seed 1` and another with --seed 2 do both."
        )
    for flag, number, most in (("--seeds", seeds, 1000), ("--folds", folds, 1000)):
        if number is not None and not 2 <= number <= most:
            raise InputError(f"{flag} is {number}; give 2 to {most}: one training has no spread.")
    if options.get("fold"):
        raise InputError("repeat gives each training its own --fold: leave it out, give --folds K.")


def _plan(options: Options) -> tuple[Repeat, str, Options]:
    """Return what is to be trained, why so, and which settings are others than when it began."""
    seeds, folds = options.pop("seeds"), options.pop("folds")
    folder = Path(options.get("checkpoint_dir") or "")
    if options.get("checkpoint_dir") and is_repeat(folder):
        return _gone_on(Repeat.load(folder), seeds, folds, options)
    if seeds is None and folds is None:
        raise InputError(
            "repeat needs --seeds N or --folds K; to go on with what was begun, its folder: "
            "--checkpoint-dir."
        )
    if options.get("checkpoint_dir") and Run(folder).exists():
        raise InputError(f"{folder} is a run, which holds no others: name a new --checkpoint-dir.")
    first, preset = options.get("seed", 1), options["preset"]
    order = choose(options)
    numbers = range(first, first + seeds) if seeds else range(1, folds + 1)
    place = folder if options.get("checkpoint_dir") else new_folder("repeat-")
    by = "seed" if seeds else "fold"
    return Repeat(place, by, tuple(numbers), order.config, preset), order.reason, {}


def _gone_on(
    plan: Repeat, seeds: int | None, folds: int | None, options: Options
) -> tuple[Repeat, str, Options]:
    """Return the plan of before, perhaps with more seeds; InputError where it was another one."""
    given = {"seed": seeds, "fold": folds}
    other = given["fold" if plan.by == "seed" else "seed"]
    count, here = given[plan.by], len(plan.numbers)
    first = options.get("seed", plan.numbers[0])
    wrong = other or (count and (count < here or (count > here and plan.by == "fold")))
    if wrong or (plan.by == "seed" and first != plan.numbers[0]):
        names = ", ".join(map(plan.name, plan.numbers))
        raise InputError(
            f"{plan.folder} repeats over {here} {plan.by}s ({names}): leave --seeds, --folds and "
            "--seed out, give them as they were (or more seeds), or name another --checkpoint-dir."
        )
    preset = options.pop("preset")
    if options.pop("config") or preset not in ("", plan.preset):
        raise InputError(
            f"{plan.folder} has its settings already (preset '{plan.preset}'): leave --config and "
            "--preset out, or name another --checkpoint-dir."
        )
    changes = plan.changed(options)
    numbers = plan.numbers
    if plan.by == "seed" and count:
        numbers = tuple(range(numbers[0], numbers[0] + count))
    config = plan.config.replace(**changes)
    return Repeat(plan.folder, plan.by, numbers, config, plan.preset), "", changes


def _show(plan: Repeat) -> int:
    """Say what the first training would do, and how many there are."""
    discard_empty(plan.folder)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "config.json"
        name = next(iter(plan.members()))
        plan.config_of(name).save(file)
        command = [sys.executable, "-m", "camoxpert_nb", "train", "--config", str(file)]
        code = subprocess.call([*command, "--dry-run"], env=environment())
    tell(f"{len(plan.numbers)} such trainings, one after the other: {', '.join(plan.members())}")
    return code


class _Signals:
    """Ctrl-C, SIGTERM and SIGHUP that came: `heard` says so, `take` hands each on, once."""

    def __init__(self) -> None:
        self.heard = False
        self._waiting: deque[int] = deque()

    def __call__(self, number: int, frame: Any) -> None:
        self.heard = True
        self._waiting.append(number)

    def take(self) -> int:
        """Return the oldest that was not handed on, or 0."""
        return self._waiting.popleft() if self._waiting else 0


@contextlib.contextmanager
def _signals() -> Iterator[_Signals]:
    """Collect signals meanwhile, so that the training ends its step and is saved."""
    signals, before = _Signals(), {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows knows no SIGHUP
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as nohup does
                before[number] = signal.signal(number, signals)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _train_all(plan: Repeat, changes: Options, began: float) -> int:
    """Train what is not finished; then show what came out. One that fails holds nobody up."""
    members, failed, own = plan.members(), dict[str, str](), Run(plan.folder)
    _refuse_busy(members)
    own.request("stop", wanted=False)
    with _signals() as signals:
        for name, run in members.items():
            if run.finished:
                tell(f"{name}: finished before, kept as it is")
                continue
            budget = plan.config.time_budget
            left = budget - (time.time() - began) / 60
            if signals.heard or own.wants("stop") or (budget and left <= 0):
                return _stopped(plan)
            tell(f"\n{name}, {[*members].index(name) + 1} of {len(members)}: {run.folder}")
            limit = {"time_budget": left if budget else 0.0}
            config = plan.config_of(name).replace(**limit)
            flags = as_flags({**changes, **limit})
            code = train_member(run, config, flags, _asker(signals, own))
            if code == STOPPED or (code and (signals.heard or own.wants("stop"))):
                return _stopped(plan)
            if not run.finished:
                failed[name] = why_failed(run, code)
                tell(f"{name}: FAILED, the others go on. {failed[name]}")
    return _finish(plan, failed)


def _asker(signals: _Signals, own: Run) -> Callable[[], int]:
    """Return what tells the signal to pass on to a training: one that came, or a stop asked for."""
    told: list[bool] = []

    def wanted() -> int:
        if own.wants("stop") and not told:
            told.append(True)
            return signal.SIGTERM
        return signals.take()

    return wanted


def _refuse_busy(members: dict[str, Run]) -> None:
    for run in members.values():
        if pid := run.training_pid() or run.far_away():
            raise InputError(
                f"{run.folder} is being trained by process {pid}: wait until it ends, or end it "
                f"(`touch {run.folder / 'stop'}`), and give the command again."
            )


def _stopped(plan: Repeat) -> int:
    """Say how far it came, and how it goes on."""
    members = plan.members()
    done = sum(run.finished for run in members.values())
    Run(plan.folder).request("stop", wanted=False)
    tell(
        f"\n{done} of {len(members)} are finished, the rest waits. Go on with the same command, or "
        f"with\n  {_again(plan)}"
    )
    return STOPPED


def _finish(plan: Repeat, failed: dict[str, str]) -> int:
    """Score what is finished, print and keep it, and name what failed."""
    from ..evaluation.repeated import score_repeat
    from ..evaluation.scores import write_csv
    from ..training.console import Console

    done = {name: run for name, run in plan.members().items() if run.finished}
    if done:
        tell(f"\nscoring {counted(len(done), 'member')} on the images that each held out")
        progress = Console(()).counting("scoring")
        found, scores = score_repeat(plan.by, done, plan.config.device, progress)
        tell(found.summary())
        result = found.to_json() | {"failed": failed}
        write_json(str(plan.folder / "results.json"), result)
        with naming(plan.folder / "results.csv"):
            found.table().to_csv(plan.folder / "results.csv", index=False)
        tables = {name: one.per_image for name, one in scores.items()}
        write_csv(tables, plan.folder / "images.csv")
        tell(f"kept in {plan.folder}: results.json, results.csv, images.csv")
    for name, why in failed.items():
        tell(f"camoxpert: {name} failed: {why}", sys.stderr)
    if failed:
        again = f"The failed ones are tried again by the same command, or by\n  {_again(plan)}"
        tell(again, sys.stderr)
    return 1 if failed else 0


def _again(plan: Repeat) -> str:
    """Return the command that goes on."""
    return f"camoxpert repeat --checkpoint-dir {plan.folder}"
