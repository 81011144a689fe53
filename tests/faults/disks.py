"""Disks that are full, read-only, slow, or gone while a training works.

Each is made by the system itself, where it lets us: a small disk in memory (tmpfs) that is filled,
made read-only or given more room from here, at a moment drawn at random. Where nothing may be
mounted, the writes themselves are refused.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config

from .kills import reference
from .moments import any_line, any_write, do_at, name_of, write_by
from .tally import Fault, Tally
from .whole_runs import Act, differences, leftovers, train


def refuse_from(place: str, number: int, code: int, folder: Path) -> None:
    """Have the system refuse all writes to files below `folder` from one of them on."""
    seen, refused = 0, False

    def before(path: str, raw: Any, data: memoryview) -> None:
        nonlocal seen, refused
        seen += place == f"write {name_of(path)}"
        if refused or seen == number:
            refused = True
            os.write(raw.fileno(), data[: len(data) // 2])
            raise OSError(code, os.strerror(code), path)

    write_by(folder, before)


def _refused(code: int, words: tuple[str, ...], folder: Path, times: int, seed: int) -> Tally:
    """Refuse all writes from a random one on; then there is room again, and the run goes on."""
    tally, random, whole = Tally(), Random(seed), reference(0)
    for trial in range(3 * times):
        config = whole.named(f"{folder.name}-{trial}")
        moment = any_write(whole.counts, random)
        act = partial(refuse_from, *moment, code, Path(config.checkpoint_dir).parent)
        ended = train(config, act)
        if ended[0] == 0 and "failed" not in ended[1]:  # only what is made anew was not written
            continue
        tally.count(not (lost := _lost(whole.config, config, *ended, words)), f"{moment}: {lost}")
        if tally.tried == times:
            break
    return tally


def _lost(
    whole: Config, config: Config, code: int, said: str, words: tuple[str, ...], expected: int = 1
) -> str:
    """Say what is wrong with how a training ended, and with how it goes on."""
    run = Run(config.checkpoint_dir)
    if code not in (expected, 1, 2) or "Traceback" in said:
        return f"exit code {code}: {said}"
    if not any(word in said for word in words):
        return f"unclear: {said}"
    for name in ("last", "best"):
        if run.has(name):
            run.load(name)
    code, said = train(config)
    if code:
        return f"it does not go on: {said}"
    found = differences(Path(whole.checkpoint_dir), run.folder)
    return "; ".join([*found, *filter(None, [leftovers(config)])])


def slow_down(folder: Path, random: Random) -> None:
    """Have each write to files below `folder` take its time, one in sixty long."""

    def before(path: str, raw: Any, data: memoryview) -> None:
        time.sleep(0.4 if random.random() < 1 / 60 else random.uniform(0, 0.003))

    write_by(folder, before)


def _slow(folder: Path, times: int, seed: int) -> Tally:
    tally, whole = Tally(), reference(0)
    for trial in range(times):
        config = whole.named(f"{folder.name}-{trial}")
        places = Path(config.checkpoint_dir).parent
        code, said = train(config, partial(slow_down, places, Random(seed + trial)))
        found = [f"exit code {code}: {said}"] if code else []
        found += differences(Path(whole.config.checkpoint_dir), Path(config.checkpoint_dir))
        tally.count(not found, "; ".join(found))
    return tally


@contextmanager
def _disk(folder: Path) -> Iterator[Path | None]:
    """Yield a small disk of its own in `folder`; None where nothing may be mounted."""
    place = folder / "disk"
    place.mkdir(exist_ok=True)
    order = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(order, capture_output=True).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, room: int) -> None:
    """Fill a disk but for so many bytes."""
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65536))
    os.truncate(disk / "filler", max((disk / "filler").stat().st_size - room, 0))


def lock_up(disk: Path, how: str = "ro") -> None:
    """Make a disk read-only, as a system does that found it damaged; or "rw" again."""
    for _ in range(100):  # refused while a file is open for writing
        if not subprocess.run(
            ["mount", "-o", f"remount,{how}", str(disk)], capture_output=True
        ).returncode:
            return
        time.sleep(0.02)


def _filled(folder: Path, times: int, seed: int) -> Tally:
    def break_it(random: Random, disk: Path) -> tuple[Act, Act]:
        room = random.choice((0, 4096, 200_000, 3_000_000))
        return partial(fill, disk, room), (disk / "filler").unlink

    return _on_a_disk(break_it, FULL, folder, times, seed)


def _locked_up(folder: Path, times: int, seed: int) -> Tally:
    def break_it(random: Random, disk: Path) -> tuple[Act, Act]:
        return partial(lock_up, disk), partial(lock_up, disk, "rw")

    return _on_a_disk(break_it, ("read-only",), folder, times, seed)


def _on_a_disk(
    break_it: Callable[[Random, Path], tuple[Act, Act]],
    words: tuple[str, ...],
    folder: Path,
    times: int,
    seed: int,
) -> Tally:
    """Break a run's disk at random lines; mend it when the training ended, and let it go on."""
    tally, random, whole = Tally(), Random(seed), reference(0)
    with _disk(folder) as disk:
        if disk is None:
            tally.skipped = "no disk may be mounted here: it takes root and mount"
            return tally
        for trial in range(3 * times):
            config = whole.named(f"{folder.name}-{trial}").replace(checkpoint_dir=f"{disk}/run")
            act, mend = break_it(random, disk)
            moment = any_line(whole.counts, random)
            code, said = train(config, partial(do_at, moment, disk, act))
            broken = code != 0
            mend()
            if broken:
                lost = _lost(whole.config, config, code, said, words)
                tally.count(not lost, f"{moment}: {lost}")
            shutil.rmtree(disk / "run", ignore_errors=True)
            if tally.tried == times:
                break
    return tally


def _gone(folder: Path, times: int, seed: int) -> Tally:
    """Move or remove a run's folder or the data, at random lines."""
    tally, random, whole = Tally(), Random(seed), reference(0)
    for trial in range(3 * times):
        config = whole.named(f"{folder.name}-{trial}")
        place, away = Path(config.checkpoint_dir), Path(f"{config.checkpoint_dir}-away")
        moment = any_line(whole.counts, random)
        remove = trial % 2 == 1
        act = partial(shutil.rmtree, place) if remove else partial(place.rename, away)
        code, said = train(config, partial(do_at, moment, folder, partial(_if_there, act)))
        if code == 0:
            continue
        lost = "" if not place.exists() else f"{place} was made anew"
        if not remove:
            config = config.replace(checkpoint_dir=str(away))
        lost = lost or _lost(whole.config, config, code, said, ("not there any more",))
        tally.count(not lost, f"{'removed' if remove else 'moved'} at {moment}: {lost}")
        if tally.tried == times:
            break
    return tally


def _if_there(act: Act) -> None:
    with suppress(FileNotFoundError):  # before the run has a folder
        act()


def _no_data(folder: Path, times: int, seed: int) -> Tally:
    """Move the data away at random lines, and back when the training ended."""
    tally, random, whole = Tally(), Random(seed), reference(0)
    for trial in range(3 * times):
        data = folder / "data"
        config = whole.named(f"{folder.name}-{trial}")
        if not data.exists():
            shutil.copytree(config.dataset_path, data)
        config = config.replace(dataset_path=str(data))
        moment, away = any_line(whole.counts, random), folder / "away"
        code, said = train(config, partial(do_at, moment, folder, partial(data.rename, away)))
        if not away.exists():
            continue
        away.rename(data)
        words = ("no such", "not there", "cannot be used", "No such") if code else ("",)
        wrong = f"{config.checkpoint_dir} is not there any more" in said  # the run is
        lost = said if wrong else _lost(whole.config, config, code, said, words, expected=code)
        tally.count(not lost, f"{moment}: {lost}")
        if tally.tried == times:
            break
    return tally


FULL = ("disk is full", "disk is probably full", "Make room", "No space left", "are free")
DISKS = (
    Fault(
        "disk full from any write on (refused by a stand-in)",
        "one sentence, exit code 1 or 2; with room again it goes on, bit for bit",
        partial(_refused, errno.ENOSPC, FULL),
        few=1,
        many=60,
    ),
    Fault("disk full at any line (a real one)", "the same", _filled, few=1, many=40),
    Fault("disk read-only from any line on (a real one)", "the same", _locked_up, few=1, many=40),
    Fault("disk slow at each write", "it takes longer, and all is the same", _slow, few=1, many=10),
    Fault(
        "run folder moved or removed at any line",
        "one sentence; nothing is made where it was; moved, it goes on there, bit for bit",
        _gone,
        few=1,
        many=40,
    ),
    Fault(
        "data gone from any line on",
        "trained on from the decoded images, or one sentence; with data it goes on, bit for bit",
        _no_data,
        few=1,
        many=20,
    ),
)
