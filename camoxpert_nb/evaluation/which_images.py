"""Which images `evaluate` scores, and how many of them trained the network."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..data.identity import Split
from ..data.layouts import Pair, find_datasets
from ..data.selection import select
from ..errors import InputError
from ..runs.run import Run


class Chosen(NamedTuple):
    """A set of images to score: why these, and how many of them trained the network."""

    name: str
    pairs: list[Pair]
    note: str
    split: str
    trained: int


def choose_pairs(
    run: Run, dataset_path: Path, split: str = "auto", noncam: bool = False
) -> list[Chosen]:
    """Return each set to score; see `judge`."""
    chosen = select(find_datasets(dataset_path), noncam=noncam)
    known = Split.load(run.load_json("split"))
    tested = [pair for pairs in chosen.test.values() for pair in pairs]
    pairs = [*chosen.train, *tested]
    keys = dict(zip(pairs, known.keys(pairs), strict=True))
    if split == "test" or (split == "auto" and chosen.test):
        side, kind = "test", "test"
        sets = [(name, list(pairs), "test split") for name, pairs in chosen.test.items()]
    elif split == "all" or (
        split == "auto" and not any(keys[pair] in known.train for pair in chosen.train)
    ):
        side, kind = "", "all"
        sets = [(dataset_path.name, pairs, "all images of the folder")]
    else:
        side, kind = "training", "validation"
        kept = [pair for pair in chosen.train if keys[pair] in known.validation]
        sets = [(dataset_path.name, kept, "the images this run held out for validation")]
    if not any(pairs for _, pairs, _ in sets):
        raise InputError(
            f"{dataset_path}: nothing to score as '{split}' ({len(chosen.train)} training and "
            f"{sum(map(len, chosen.test.values()))} test images found). Use another --split."
        )
    gone = {why: len(pairs) for why, pairs in chosen.left_out.items() if side in why}
    tail = "".join(f"; left out: {count} {why}" for why, count in gone.items())
    found = []
    for name, pairs, note in sets:
        count = sum(keys[pair] in known.train for pair in pairs)
        warning = f"; WARNING: {count} of these {len(pairs)} trained the network" * (count > 0)
        found += [Chosen(name, pairs, note + tail + warning, kind, count)] * (len(pairs) > 0)
    return found
