"""Which folder of masks belongs to which folder of images, where several could: the nearest one.

Folders that say the same split in other words (test, holdout) may hold files of the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .folders import Folder
from .pairing import Names
from .spellings import WORD, holds_masks, reduced, said, without_splits

Rank = tuple[int, int, int, int]
Pairing = Callable[[Folder, Folder], Names]
_SETS = {form(word) for word in ("data", "dataset", "set", "sets") for form in (str, str.title)}


@dataclass
class Nearness:
    """The folders below `tree` with images, and how near those of masks lie to those of images.

    pair: returns which names of two folders meet.
    """

    tree: Folder
    pair: Pairing
    met: dict[tuple[str, str], Names] = field(default_factory=dict)

    def names(self, images: Folder, masks: Folder) -> Names:
        """Return which names of two folders meet, looked up once."""
        key = (images.real, masks.real)
        if key not in self.met:
            self.met[key] = self.pair(images, masks)
        return self.met[key]

    def masks_of(self, images: Folder) -> list[Folder]:
        """Return the mask folders nearest to an image folder, of those that share names with it."""
        _, masks = self._groups.get(_key(self._below(images)), ([], []))
        return self.nearest(images, [each for each in masks if agree_from_common(images, each)])

    def nearest(self, images: Folder, options: Sequence[Folder]) -> list[Folder]:
        """Return those options that share names, lie nearest, and are nobody's else."""
        free = [
            each
            for each in options
            if self.names(images, each).files and not self._is_of_another(images, each)
        ]
        best = max((rank(images, each) for each in free), default=None)
        return [each for each in free if rank(images, each) == best]

    def _is_of_another(self, images: Folder, masks: Folder) -> bool:
        """Say whether the same masks belong to images that lie nearer."""
        own, near = set(self.names(images, masks).files.values()), rank(images, masks)
        others, _ = self._groups.get(_key(self._below(masks)), ([], []))
        return any(
            other.real != images.real
            and rank(other, masks) > near
            and agree_from_common(other, masks)
            and not own.isdisjoint(self.names(other, masks).files.values())
            for other in others
        )

    @cached_property
    def _groups(self) -> dict[Any, tuple[list[Folder], list[Folder]]]:
        """Return folders of images and of masks by all that their paths say but for splits."""
        found: dict[Any, tuple[list[Folder], list[Folder]]] = {}
        for folder in self.tree.walk():
            if folder.images:
                parts = self._below(folder)
                group = found.setdefault(_key(parts), ([], []))
                group[any(map(holds_masks, parts))].append(folder)
        return found

    def _below(self, folder: Folder) -> tuple[str, ...]:
        return folder.path.relative_to(self.tree.path).parts


def _key(parts: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return without_splits(reduced(parts))


def agree(images: tuple[str, ...], masks: tuple[str, ...]) -> bool:
    """Say whether two paths name the same images: CAMO's masks lie in one folder for all splits."""
    wanted, found = reduced(images), reduced(masks)
    return found in (wanted, without_splits(wanted))


def agree_from_common(images: Folder, masks: Folder) -> bool:
    """Say whether the paths agree from the lowest folder on that holds both."""
    _, own, other = _apart(images, masks)
    return agree(own, other)


def rank(images: Folder, masks: Folder) -> Rank:
    """Return how near a mask folder is: by place, then by how alike the rest is spelled.

    images/test goes with masks/test, not with masks/Test or masks/holdout; more is nearer.
    """
    common, own, other = _apart(images, masks)
    same = sum(a == b for a, b in zip(own, other, strict=False))
    left, right = _spelled(own), _spelled(other)
    more = (left ^ right) & _SETS if any(map(said, other)) else ()
    return common, same, len(left & right), -len(more)


def _spelled(parts: tuple[str, ...]) -> set[str]:
    return {word for part in parts for word in WORD.findall(part)}


def _apart(images: Folder, masks: Folder) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """Return how many folders two paths share, and what each has below those."""
    own, other = images.path.parts, masks.path.parts
    common = 0
    while common < min(len(own), len(other)) and own[common] == other[common]:
        common += 1
    return common, own[common:], other[common:]
