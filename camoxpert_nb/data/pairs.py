"""An image and its mask, and the set they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .reading import PLAIN, MaskReading


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
