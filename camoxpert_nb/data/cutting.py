"""How images are cut into those that train and those that validate: by a share, or in folds.

Copies of one picture stay on one side. A share follows from a hash of each name, so adding files
moves nothing. Folds are of one size, and follow from the contents of the files alone: they are the
same for every seed, on every machine, and whatever files are called.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from ..errors import InputError
from ..settings.decide import ENOUGH
from .copies import Look, groups
from .identity import digests
from .pairs import Pair


def cut(pairs: Sequence[Pair], looks: Mapping[Path, Look], count: int) -> dict[Pair, int]:
    """Return the fold, 1...count, of each pair; folds differ by the size of a group at most.

    Groups of pictures that look alike come first, the largest before others, then single pictures
    in the order of their digests; each goes where the fewest images are. Raises InputError for
    fewer different pictures than folds.
    """
    known = digests(pair.image for pair in pairs)
    grouped = [tuple(group) for group in groups({p: looks.get(p.image, "") for p in pairs})]
    together = {pair for group in grouped for pair in group}
    units = [*grouped, *((pair,) for pair in pairs if pair not in together)]
    if len(units) < count:
        raise InputError(
            f"{count} folds are wanted, but the {len(pairs)} images make {len(units)} different "
            "pictures (those that look alike, as frames of a film, stay together). Give fewer "
            "folds, or more images."
        )
    sizes = dict.fromkeys(range(1, count + 1), 0)
    places: dict[Pair, int] = {}
    for unit in sorted(units, key=lambda unit: (-len(unit), min(known[p.image] for p in unit))):
        fold = min(sizes, key=lambda each: (sizes[each], each))
        sizes[fold] += len(unit)
        places |= dict.fromkeys(unit, fold)
    return places


def split_validation(
    pairs: Sequence[Pair], share: float = 0.1, together: Iterable[Sequence[Pair]] = ()
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Return (training, validation) pairs: about `share` of them validate.

    Each pair's side follows from the sha256 of its name alone, so adding or removing other files
    moves nothing; but where that gives fewer than ENOUGH, the next ones in the order of those
    numbers make up the share. The pairs of a group in `together` stay on one side: that of the
    first of their names, or training, where there are more of them than may validate. Neither side
    is empty.
    Raises InputError for fewer than two pairs.
    """
    if not 0 < share < 1:
        raise InputError(f"validation share {share}: expected a number between 0 and 1, as 0.1.")
    if len(pairs) < 2:
        raise InputError(
            f"{len(pairs)} training pairs found, expected at least 2: one to train and one to "
            "validate. Add images, or keep the NonCAM images if those were left out."
        )
    grouped = [tuple(group) for group in together]
    known = {pair for group in grouped for pair in group}
    units = [*grouped, *((pair,) for pair in pairs if pair not in known)]
    if len(units) < 2:  # all are one picture: then no split is better than another
        units = [(pair,) for pair in pairs]
    order = sorted(units, key=lambda unit: min((_fraction(p.name), p.image) for p in unit[:1]))
    most = max(share * len(pairs), min(map(len, units)))
    small = [unit for unit in order if len(unit) <= most]
    count = sum(_fraction(unit[0].name) < share for unit in small)
    least = min(max(round(share * len(pairs)), 1), ENOUGH)  # chance gives few pairs one or none
    needed = 1 + bisect.bisect_left([*accumulate(map(len, small))], least)  # units with so many
    taken = small[: min(max(count, needed), len(units) - 1)]
    chosen = {pair for unit in taken for pair in unit}
    validation = tuple(pair for pair in pairs if pair in chosen)
    return tuple(pair for pair in pairs if pair not in chosen), validation


def _fraction(name: str) -> float:
    return (
        int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:6], "big")
        / 2**48
    )
