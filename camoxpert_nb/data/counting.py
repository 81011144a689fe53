"""How many images a training would use, and what their masks look like: for forms, in a moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from ..errors import InputError
from ..settings.config import Config
from ..settings.decide import few_validate
from .cache import cache_folder
from .copies import looks, remembered_looks
from .findings import NO_OBJECT, require_objects, sentences, settle
from .layouts import Found, look_through
from .masks import look
from .pairs import Pair, is_noncam
from .reading import Reading
from .selection import choose, hold_out, share_of, without_copies
from .synthetic import IMAGES, NONCAM

SAMPLE = 24  # masks looked at
AT_ONCE = 1500  # pictures whose looks are taken in a few seconds
NOTES = 6  # of what is not used, shown


@dataclass(frozen=True)
class Images:
    """How many images a training would use; `test` by set, `left_out` by reason.

    doubts: what is odd about a few masks that were looked at; notes: what is not used.

    `noncam` of those that train and validate show no object. With `exact` False the images are
    still to be generated, or were not looked at yet: the split is known only roughly.
    """

    source: str
    train: int
    validation: int
    noncam: int
    test: Mapping[str, int]
    left_out: Mapping[str, int]
    exact: bool = True
    doubts: Sequence[str] = ()
    notes: Sequence[str] = ()

    def rows(self) -> list[tuple[str, str]]:
        """Return names and sentences, a row each."""
        about = "" if self.exact else "about "
        cam, few = self.train + self.validation - self.noncam, few_validate(self.validation)
        test = ", ".join(f"{name} {count:,}" for name, count in self.test.items())
        return [
            ("from", self.source),
            ("train on", f"{about}{self.train:,} images"),
            ("validate on", f"{about}{self.validation:,} held out of training"),
            ("of these", f"{cam:,} CAM (an object is there), {self.noncam:,} NonCAM (none is)"),
            ("test sets", test or "none; score on the held-out images"),
            *[("left out", f"{count:,} {why}") for why, count in self.left_out.items()],
            *[("look at", text) for text in (*few, *self.doubts, *self.notes)],
        ]

    def __str__(self) -> str:
        return "\n".join(f"{name:<12} {text}" for name, text in self.rows())

    def _repr_html_(self) -> str:
        import pandas as pd

        return str(pd.DataFrame(self.rows()).to_html(index=False, header=False, border=0))


def count_images(config: Config) -> Images:
    """Count what a training would use, and look at a few masks.

    Of images with the same contents one counts. Which nearly are the same is looked at; of many
    only where a training or a dry run has done it, else the split is known only roughly. Raises
    InputError when the folder holds nothing that can train, or masks that teach nothing.
    """
    if not config.dataset_path:
        return _to_be_generated(config)
    found = _found(config.dataset_path, Reading.of(config))
    data = without_copies(choose(found, Path(config.dataset_path), config))
    every = [*data.train, *data.validation, *(p for pairs in data.test.values() for p in pairs)]
    paths, store = [pair.image for pair in every], cache_folder(config)
    known = looks(paths, store) if len(paths) <= AT_ONCE else remembered_looks(paths, store)
    data = hold_out(replace(data, looks=known or {}), config)
    used = (*data.train, *data.validation)
    return Images(
        source=", ".join(f"{each.name} ({each.layout})" for each in found.sets),
        train=len(data.train),
        validation=len(data.validation),
        noncam=sum(is_noncam(pair) for pair in used),
        test={name: len(pairs) for name, pairs in data.test.items()},
        left_out={why: len(names) for why, names in data.left_out.items()},
        exact=known is not None,
        doubts=doubts_about(used, require=True),
        notes=first(data.notes),
    )


def first(notes: Sequence[str]) -> list[str]:
    """Return the first notes, and how to see the rest."""
    rest = len(notes) - NOTES
    return [*notes[:NOTES], *([f"and {rest} more: camoxpert data DIR --all"] if rest > 0 else [])]


@lru_cache(maxsize=8)
def doubts_about(pairs: tuple[Pair, ...], *, require: bool = False) -> tuple[str, ...]:
    """Return what is odd about masks, in sentences, by a few of them from all over `pairs`.

    require: raise InputError where nothing can be learned from any.
    """
    pairs = pairs[:: max(-(-len(pairs) // SAMPLE), 1)]
    kinds: dict[str, list[str]] = {}
    with ThreadPoolExecutor() as threads:
        for pair, problems in zip(pairs, threads.map(_problems, pairs), strict=True):
            for kind in problems:
                if not (is_noncam(pair) and kind in NO_OBJECT):
                    kinds.setdefault(kind, []).append(pair.name)
    settled = settle(kinds, len(pairs), sum(map(is_noncam, pairs)))
    if require:
        require_objects(settled, len(pairs))
    return tuple(sentences(settled, len(pairs)))


def _problems(pair: Pair) -> list[str]:
    try:
        return [kind for kind, _ in look(pair).problems]
    except InputError:  # a training names it, and all others that are broken
        return []


def forget_images() -> None:
    """Look at the disk again at the next count: files may have changed."""
    _found.cache_clear()
    doubts_about.cache_clear()


@lru_cache(maxsize=4)
def _found(root: str, reading: Reading) -> Found:
    return look_through(root, reading)


def _to_be_generated(config: Config) -> Images:
    """Count as `make_synthetic` will, but for the split, which follows from each name's hash."""
    empty = {split: int(images * NONCAM) for split, images in IMAGES.items()}
    gone = {"train": 0, "test": 0} if config.noncam else empty
    left_out = {"NonCAM training images": empty["train"], "NonCAM test images": empty["test"]}
    used = IMAGES["train"] - gone["train"]
    validation = max(round(used * share_of(config)), 1)
    return Images(
        source=f"generated camouflage of {config.img_size} px, made before the training",
        train=used - validation,
        validation=validation,
        noncam=empty["train"] - gone["train"],
        test={"generated": IMAGES["test"] - gone["test"]},
        left_out={} if config.noncam else left_out,
        exact=False,
    )
