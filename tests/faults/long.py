"""A long training, and a dashboard that watches it: what they hold must not grow for ever."""

from __future__ import annotations

import multiprocessing.synchronize
import os
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from forked import CONTEXT

from camoxpert_nb.runs.run import Run

from .tally import Fault, Tally
from .whole_runs import ended, started, tiny

# KiB of memory an epoch may cost. Both processes keep the history's records, about 10 KiB of Python
# objects an epoch, so that nothing is read twice; three times that is 60 MiB in 2,000 epochs.
GROWTH = 30.0
# KiB by which the memory of an idle process goes up and down: pictures, buffers, the allocator.
NOISE = 16 * 1024.0
WARM = 0.3  # share of the epochs after which all has been done once
SHOWN = 12  # dashboards that are opened and closed one after the other


class Sample(NamedTuple):
    """What a process holds: memory of its own in KiB, open files, threads."""

    memory: float
    files: int
    threads: int


def held_by(pid: int) -> Sample:
    """Return what a process holds now; OSError or KeyError where the system does not say it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    memory = float(values["RssAnon"].split()[0])
    return Sample(memory, len([*Path(f"/proc/{pid}/fd").iterdir()]), int(values["Threads"]))


def watch(folder: str, over: multiprocessing.synchronize.Event, said: str) -> None:
    """Show a run's dashboard as a notebook does, and others again and again, until it is over."""
    os.environ["CAMOXPERT_BATCH"] = "0"
    from camoxpert_nb.notebook.dashboard import Dashboard

    dashboard = Dashboard(folder)
    dashboard._repr_mimebundle_()  # its thread keeps up from here on
    while not over.wait(1.0):
        pass
    dashboard.close()
    for _ in range(SHOWN):
        other = Dashboard(folder)
        other._repr_mimebundle_()
        other.close()
    deadline = time.monotonic() + 10
    while (left := _own_threads()) and time.monotonic() < deadline:
        time.sleep(0.1)
    from ipywidgets import Widget

    Path(said).write_text(f"{len(left)} {len(getattr(Widget, '_active_widgets', {}))}")


def _own_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if "_refresh_often" in each.name]


def _long(folder: Path, epochs: int, seed: int) -> Tally:
    """Train so many epochs while a dashboard watches, and look at both processes all the time."""
    tally = Tally(tried=epochs)
    try:
        held_by(os.getpid())
    except (OSError, KeyError):
        return Tally(skipped="this system does not say what a process holds (/proc)")
    config = tiny(folder, "long", epochs=epochs, batch_size=7, seed=seed, save_minutes=1e6)
    run, over, said = Run(config.checkpoint_dir), CONTEXT.Event(), folder / "watched"
    training = started(config)
    while not run.records("epoch") and training.is_alive():
        time.sleep(0.1)
    watcher = CONTEXT.Process(target=watch, args=(str(run.folder), over, str(said)))
    watcher.start()
    pids = {"training": training.pid or 0, "dashboard": watcher.pid or 0}
    epoch_of, samples, names = _look(run, training, pids)
    code, words = ended(training, config, 60)
    over.set()
    watcher.join(60)
    found = [] if code == 0 else [f"exit code {code}: {words}"]
    for name, held in samples.items():
        found += _grown(name, epoch_of, held)
    found += _files(run, epochs, names)
    left = said.read_text() if said.exists() else "it hangs"
    found += [] if left.split()[0] == "0" else [f"threads and widgets left: {left}"]
    tally.lost += found
    return tally


def _look(
    run: Run, training: Any, pids: dict[str, int]
) -> tuple[list[int], dict[str, list[Sample]], set[str]]:
    """Sample both processes while the training lives; also return its files' names when warm."""
    epochs: list[int] = []
    samples: dict[str, list[Sample]] = {name: [] for name in pids}
    names: set[str] = set()
    while training.is_alive():
        time.sleep(0.3)
        done = len(run.records("epoch"))
        try:
            now = {name: held_by(pid) for name, pid in pids.items()}
        except (OSError, KeyError):  # it ended meanwhile
            break
        epochs.append(done)
        for name, sample in now.items():
            samples[name].append(sample)
        if done >= 5 and not names:
            names = _names(run)
    return epochs, samples, names


def _grown(name: str, epochs: list[int], held: list[Sample]) -> list[str]:
    """Say what of a process grew; its memory by a straight line through all samples when warm."""
    warm = [i for i, epoch in enumerate(epochs) if epoch >= WARM * epochs[-1]]
    at = np.array([epochs[i] for i in warm], float)
    memory, files, threads = np.array([held[i] for i in warm], float).T
    slope = float(np.polyfit(at, memory, 1)[0])
    span = at[-1] - at[0]
    print(
        f"{name}: {slope:.1f} KiB an epoch over {span:.0f} epochs, from {memory[0] / 1024:.0f} to "
        f"{memory[-1] / 1024:.0f} MiB; files {files.min():.0f} to {files.max():.0f}, threads "
        f"{threads.min():.0f} to {threads.max():.0f}",
        flush=True,
    )
    found = []
    if slope * span > GROWTH * span + NOISE:
        found.append(f"{name}: memory grows by {slope:.0f} KiB an epoch")
    for what, counts in (("open files", files), ("threads", threads)):
        third = max(len(counts) // 3, 1)
        if np.median(counts[-third:]) > np.median(counts[:third]) + 1:
            found.append(f"{name}: {what} grow from {counts[0]:.0f} to {counts[-1]:.0f}")
    return found


def _names(run: Run) -> set[str]:
    """Return the names of a run's files, but for those of epochs that are kept."""
    return {each.name for each in run.folder.iterdir() if not each.name.startswith("best-epoch")}


def _files(run: Run, epochs: int, before: set[str]) -> list[str]:
    """Say which files of a run are too many or too large."""
    found = []
    if more := _names(run) - before - {"summary.json"}:
        found.append(f"files that were not there before: {', '.join(sorted(more))}")
    if len(list(run.folder.glob("best-epoch*"))) > 2:
        found.append("more epochs are kept than were asked for")
    largest = 4096 * epochs  # bytes: a record of an epoch, and one of a step, have 2 KiB
    for name in ("history.jsonl", "history.csv", "log.txt"):
        if (path := run.folder / name).exists() and path.stat().st_size > largest + 65536:
            found.append(f"{name} has {path.stat().st_size} bytes")
    return found


LONG = (
    Fault(
        "a long training with its dashboard, in epochs",
        f"memory grows by less than {GROWTH:.0f} KiB an epoch (the records); files, handles, "
        "threads stay as they were",
        _long,
        few=30,
        many=2000,
    ),
)
