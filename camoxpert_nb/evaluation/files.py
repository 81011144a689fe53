"""A folder's image files by name, and work on them in threads, in order: without torch."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ..data.folders import SUFFIXES
from ..data.spellings import holds_masks
from ..errors import InputError, few

_AHEAD = 16  # images read or maps scored beyond the one in turn: bounds the memory

DEEPEST = 4  # folders below one without images that are looked through

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
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder. Give the one that holds the images.")
        if below := _with_images(folder):
            raise InputError(
                f"{folder} has no images itself; folders in it have: {few(below)}. Give one of "
                "them."
            )
        raise InputError(
            f"{folder} has no images, nor has a folder in it. Give the folder that holds "
            f"{', '.join(SUFFIXES)}."
        )
    return found


def _with_images(folder: Path) -> list[str]:
    """Return the folders below one that hold images, no masks, and how many; not far below."""
    found = []
    for place, below, files in os.walk(folder):
        below[:] = sorted(each for each in below if each[0] != ".")
        if len(Path(place).relative_to(folder).parts) >= DEEPEST:
            below.clear()
        names = [each for each in files if each[0] != "." and Path(each).suffix.lower() in SUFFIXES]
        if names and not holds_masks(Path(place).name):
            found.append(f"{Path(place).relative_to(folder)} ({len(names)})")
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
