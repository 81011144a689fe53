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
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config

from .kills import reference
from .moments import any_write, name_of, write_by
from .tally import Fault, Tally
from .whole_runs import differences, leftovers, tiny, train

SETTINGS: dict[str, Any] = {"batch_size": 2}


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
    if code not in (expected, 2) or "Traceback" in said:
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


FAULTS = (
    Fault(
        "disk full from any write on (refused by a stand-in)",
        "one sentence, exit code 1; with room again it goes on, bit for bit",
        partial(_refused, errno.ENOSPC, ("disk is full", "disk is probably full", "Make room")),
        few=2,
        many=60,
    ),
)
