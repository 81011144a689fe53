"""Where a process can be killed: before each line of the kit, and within each write to a file.

`record` counts these places while a process works; `kill_at` has another one die at one of them, at
once and without a word, as `kill -9` does.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import pathlib
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import camoxpert_nb

KIT = str(Path(camoxpert_nb.__file__).parent) + os.sep
# What writes, or decides what is written; the rest of the kit is mostly arithmetic.
WRITERS = ("runs/", "training/fit.py", "training/saving.py", "training/resume.py")
WRITERS += ("training/loggers.py", "training/state.py", "data/cache.py", "data/copies.py")
# What happens in each step and at each epoch's end.
STEPS = ("training/fit.py", "training/epoch.py", "training/train.py", "training/validate.py")


class Moment(NamedTuple):
    """The `number`-th time, from 1, that a process comes to a place."""

    place: str  # "line runs/whole.py:31" or "write last.pt.part"
    number: int

    def __str__(self) -> str:
        return f"{self.place}, time {self.number}"


Counts = dict[str, int]  # how often an undisturbed process comes to each place


def any_line(counts: Counts, random: Random) -> Moment:
    """Draw a line of the kit, and a time this process comes to it.

    Half of them are drawn from all that happens while it trains and saves, so that all parts of a
    run are hit; half by file, line and time, so that rare lines are hit, too.
    """
    lines = sorted(place for place in counts if place.startswith("line "))
    if random.random() < 0.5:
        lines = [each for each in lines if each.split()[1].startswith(STEPS)]
        place = random.choices(lines, [counts[each] for each in lines])[0]
        return Moment(place, random.randint(1, counts[place]))
    if random.random() < 0.7:
        lines = [each for each in lines if each.split()[1].startswith(WRITERS)]
    file = random.choice(sorted({each.split(":")[0] for each in lines}))
    place = random.choice([each for each in lines if each.split(":")[0] == file])
    return Moment(place, random.randint(1, counts[place]))


def any_write(counts: Counts, random: Random) -> Moment:
    """Draw a file that is written, and one of the writes to it."""
    place = random.choice(sorted(each for each in counts if each.startswith("write ")))
    return Moment(place, random.randint(1, counts[place]))


def record(counts: Path, folder: Path) -> Callable[[], None]:
    """Count all places this process comes to; what is returned writes them to `counts`."""
    seen: Counter[str] = Counter()

    def save() -> None:
        sys.settrace(None)
        counts.write_text(json.dumps(seen))

    _watch(folder, lambda place: bool(seen.update([place])))
    return save


def kill_at(moment: Moment, folder: Path) -> None:
    """Die when this process comes to a place that often; of a write, half is done."""
    do_at(moment, folder, die, half=True)


def do_at(moment: Moment, folder: Path, act: Callable[[], Any], half: bool = False) -> None:
    """Call `act` when this process comes to a place that often, with `half` of a write done."""
    seen = 0

    def is_it(place: str) -> bool:
        nonlocal seen
        seen += place == moment.place
        return place == moment.place and seen == moment.number

    kind, where = moment.place.split(" ", 1)
    _watch(folder, is_it, act, half, where.split(":")[0] if kind == "line" else kind)


def die() -> None:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def _watch(
    folder: Path,
    is_it: Callable[[str], bool],
    act: Callable[[], Any] = die,
    half: bool = False,
    files: str = "",
) -> None:
    """Ask `is_it` at each line of the kit and each write below `folder`, and act where it is.

    files: how the names of those files of the kit end whose lines are looked at: the rest is fast.
    """

    def line(frame: Any, event: str, _: Any) -> Any:
        place = f"line {frame.f_code.co_filename[len(KIT) :]}:{frame.f_lineno}"
        if event == "line" and is_it(place):
            act()
        return line

    def call(frame: Any, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        return line if name.startswith(KIT) and name.endswith(files) else None

    def write(path: str, raw: io.FileIO, data: memoryview) -> None:
        if is_it(f"write {name_of(path)}"):
            if half:
                os.write(raw.fileno(), data[: len(data) // 2])
            act()

    if files != "write":
        threading.settrace(call)
        sys.settrace(call)
    write_by(folder, write)


def name_of(path: str) -> str:
    """Return a file's name without what differs from run to run."""
    name = Path(path).name
    return re.sub(r"[0-9a-f]{4,}", "0", name)


def write_by(folder: Path, before: Callable[[str, io.FileIO, memoryview], None]) -> None:
    """Have `before` called, with path, file and bytes, ahead of each write to a file below."""
    opened = io.open

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            before(str(self.name), self, memoryview(data).cast("B"))
            return super().write(data) or 0

    def our_open(file: Any, mode: str = "r", buffering: int = -1, *text: Any, **named: Any) -> Any:
        known = isinstance(file, (str, os.PathLike)) and str(Path(file).absolute()).startswith(
            str(folder)
        )
        if not known or not set(mode) & set("wax+"):
            return opened(file, mode, buffering, *text, **named)
        raw = Raw(file, mode.replace("b", "").replace("t", ""))
        buffered: Any = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        if "b" in mode:
            return buffered
        named.pop("opener", None), named.pop("closefd", None)
        return io.TextIOWrapper(buffered, *text, **named)

    builtins.open = io.open = our_open
    pathlib.Path.open = our_open  # Python 3.10 keeps a reference of its own
