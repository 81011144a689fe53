"""An image and its mask, and the set they belong to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .reading import PLAIN, MaskReading

DEEPEST = 12  # folders of a path that tell two images of one name apart


class Pair(NamedTuple):
    """One image and its mask; `name` is the image's stem, `dataset` the name of its set.

    how: what the values of the mask mean.
    """

    name: str
    image: Path
    mask: Path
    dataset: str
    how: MaskReading = PLAIN


@dataclass(frozen=True)
class ImageSet:
    """The pairs of one data set, split as its folders split it, and the files left alone.

    second: masks not taken, as a sentence each, because their image has another one.
    """

    name: str
    layout: str
    root: Path
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]
    images_without_mask: tuple[Path, ...] = ()
    masks_without_image: tuple[Path, ...] = ()
    validation: tuple[Pair, ...] = ()
    second: tuple[str, ...] = ()

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All pairs, whatever their split."""
        return self.train + self.validation + self.test


def is_noncam(pair: Pair) -> bool:
    """Say whether the name is one of COD10K's images without a camouflaged object."""
    return "noncam" in pair.name.lower()


def unique_names(pairs: Sequence[Pair]) -> list[str]:
    """Return the pairs' names; of those that share one, with as much of the path as tells them.

    TestDataset/CVC-300/images/1.png and TestDataset/Kvasir/images/1.png: two pictures.
    """
    names = [pair.name for pair in pairs]
    for depth in range(1, DEEPEST):
        count = Counter(names)
        if max(count.values(), default=0) < 2:
            break
        names = [
            "/".join((*pair.image.parts[-1 - depth : -1], pair.name)) if count[name] > 1 else name
            for name, pair in zip(names, pairs, strict=True)
        ]
    return names
