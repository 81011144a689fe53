"""A folder's image files by name, and work on them in threads, in order: without torch."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ..data.layouts import SUFFIXES
from ..errors import InputError

_AHEAD = 16  # images read or maps scored beyond the one in turn: bounds the memory

Item = TypeVar("Item")
Result = TypeVar("Result")


def by_stem(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder by stem, sorted."""
    found: dict[str, Path] = {}
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in files:
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise InputError(f"{found[path.stem]} and {path.name} share a stem: rename one.")
            found[path.stem] = path
    if not found:
        state = "has no images" if folder.is_dir() else "is no folder"
        raise InputError(f"{folder} {state}. Give the folder that holds {', '.join(SUFFIXES)}.")
    return found


def cores() -> int:
    """Return how many threads score or write maps."""
    return min(8, os.cpu_count() or 1)


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[Result]:
    """Yield function(item) for each item, in order, computed a few items ahead in threads."""
    pool, waiting = ThreadPoolExecutor(workers), deque[Future[Result]]()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C or an error ends now, not at the last image
