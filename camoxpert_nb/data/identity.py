"""What an image is: the bytes of its file, whatever it is called and wherever it lies.

A run's split.json remembers by this which images trained it, so that neither a renamed copy is
taken for a new image nor another image of the same name for an old one.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from .copies import Look, alike
from .pairs import Pair

FORMAT = 2  # of split.json; the first held names alone


def digests(paths: Iterable[Path]) -> dict[Path, str]:
    """Return 16 hex digits for each file's contents; a file that cannot be read has its path."""
    paths = list(paths)
    with ThreadPoolExecutor() as threads:  # reading and hashing let go of Python's lock
        return dict(zip(paths, threads.map(digest, paths), strict=True))


def digest(path: Path) -> str:
    """Return 16 hex digits for a file's contents, or its path if it cannot be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # to read a pipe may wait for ever
            return str(path)
        return _digest_of(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return str(path)


@cache  # a start asks for the same files up to four times
def _digest_of(path: Path, size: int, time: int) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Split:
    """Which images trained a run and which it held out: by digest, the path they were found at.

    `masks`: each image's mask, by digest; `looks`: each image's look (`copies`). `gone`: images
    that were not there any more when the run went on last. Of runs made by an older kit only the
    names are known (`by_name`).
    """

    train: Mapping[str, str]
    validation: Mapping[str, str]
    by_name: bool = False
    masks: Mapping[str, str] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    looks: Mapping[str, Look] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        train: Sequence[Pair],
        validation: Sequence[Pair],
        root: Path,
        looks: Mapping[Path, Look] | None = None,
    ) -> Split:
        """Return the split of these images, their paths told from `root`."""
        every = (*train, *validation)
        known = digests(path for pair in every for path in (pair.image, pair.mask))

        def side(pairs: Sequence[Pair]) -> dict[str, str]:
            return {known[pair.image]: below(pair.image, root) for pair in pairs}

        masks = {known[pair.image]: known[pair.mask] for pair in every}
        seen = {known[path]: look for path, look in (looks or {}).items() if path in known}
        return cls(side(train), side(validation), masks=masks, looks=seen)

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> Split:
        """Return the contents of a split.json; of an empty one a split without images."""
        train, validation = (values.get(side, {}) for side in ("train", "validation"))
        if values.get("format") == FORMAT:
            masks, gone = values.get("masks", {}), frozenset(values.get("gone", ()))
            return cls(train, validation, False, masks, gone, values.get("looks", {}))
        return cls({name: name for name in train}, {name: name for name in validation}, True)

    def __bool__(self) -> bool:
        return bool(self.train or self.validation)

    def keys(self, pairs: Sequence[Pair]) -> list[str]:
        """Return what this split would know each image by."""
        if self.by_name:
            return [pair.name for pair in pairs]
        found = digests(pair.image for pair in pairs)
        return [found[pair.image] for pair in pairs]

    def near(self, looks: Sequence[Look], side: str) -> set[int]:
        """Return which of these looks are nearly that of an image of a side, by their places."""
        known = [self.looks[key] for key in getattr(self, side) if key in self.looks]
        return set(alike(looks, known)[:, 0].tolist())

    @property
    def scored(self) -> str:
        """8 hex digits of the images and masks that validate: other scores do not compare."""
        known = sorted(f"{key} {self.masks.get(key, '')}" for key in self.validation)
        return hashlib.blake2b(
            "\n".join(known).encode("utf-8", "surrogateescape"), digest_size=4
        ).hexdigest()

    def after(self, before: Split) -> dict[str, Any]:
        """Return what a split.json holds that remembers `before` too."""
        sides: dict[str, dict[str, str]] = {}
        for name in ("train", "validation"):
            known, own = getattr(before, name), getattr(self, name)
            names = {Path(path).stem for path in own.values()}
            if before.by_name:  # of what is not here any more nothing but the name is known
                known = {f"name:{each}": each for each in known if each not in names}
            sides[name] = {**known, **own}
        gone = ({*sides["train"], *sides["validation"]}) - {*self.train, *self.validation}
        masks, looks = {**before.masks, **self.masks}, {**before.looks, **self.looks}
        return {"format": FORMAT, **sides, "masks": masks, "gone": sorted(gone), "looks": looks}


def below(path: Path, root: Path) -> str:
    """Return the path as told from `root`, the same on every machine; whole if it is elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
