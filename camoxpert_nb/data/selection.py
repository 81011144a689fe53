"""Which images: what trains, what validates, what is left out, and why.

Validation is carved out of training by a hash of each name, so adding files moves nothing; test
images are never among either.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ..errors import InputError, few
from ..outside.paths import given
from ..settings.config import Config
from .audit import find_copies
from .cache import Progress, cache_folder
from .identity import Split, below, digests
from .layouts import ImageSet, Pair, find_datasets, is_noncam
from .synthetic import make_synthetic

COPIES = "copies of other training images"  # a reason to leave images out


@dataclass(frozen=True)
class Selection:
    """What a run uses: training pairs, test pairs by set, and names left out, by reason."""

    train: tuple[Pair, ...]
    test: dict[str, tuple[Pair, ...]]
    left_out: dict[str, list[str]]


def select(sets: Iterable[ImageSet], *, noncam: bool = False) -> Selection:
    """Merge the sets' training pairs and list their test pairs by set.

    NonCAM pairs (empty masks, no part of the field's protocol) are left out unless `noncam`.
    Two test sets of one name both stay; the second is called by its folder as well.
    """
    train: list[Pair] = []
    test: dict[str, tuple[Pair, ...]] = {}
    left_out: dict[str, list[str]] = {}
    for image_set in sets:
        for split, pairs in (("training", image_set.train), ("test", image_set.test)):
            kept = tuple(pair for pair in pairs if noncam or not is_noncam(pair))
            if len(kept) < len(pairs):
                names = left_out.setdefault(f"NonCAM {split} images", [])
                names += [pair.name for pair in pairs if is_noncam(pair)]
            if split == "training":
                train += kept
            elif kept:
                name = image_set.name
                test[name if name not in test else f"{name} ({image_set.root})"] = kept
    return Selection(tuple(train), test, left_out)


def split_validation(
    pairs: Sequence[Pair], share: float = 0.1
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Return (training, validation) pairs: about `share` of them validate.

    Each pair's side follows from the sha256 of its name alone, so adding or removing other files
    moves nothing. Neither side is empty. Raises InputError for fewer than two pairs.
    """
    if not 0 < share < 1:
        raise InputError(f"validation share {share}: expected a number between 0 and 1, as 0.1.")
    if len(pairs) < 2:
        raise InputError(
            f"{len(pairs)} training pairs found, expected at least 2: one to train and one to "
            "validate. Add images, or keep the NonCAM images if those were left out."
        )
    order = sorted(pairs, key=lambda pair: (_fraction(pair.name), pair.image))
    count = sum(_fraction(pair.name) < share for pair in order)
    chosen = set(order[: min(max(count, 1), len(order) - 1)])
    validation = tuple(pair for pair in pairs if pair in chosen)
    return tuple(pair for pair in pairs if pair not in chosen), validation


def _fraction(name: str) -> float:
    return (
        int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:6], "big")
        / 2**48
    )


@dataclass(frozen=True)
class Data:
    """The images of a run: what trains, what validates, what was left out and why."""

    root: Path
    train: Sequence[Pair]
    validation: Sequence[Pair]
    test: Mapping[str, Sequence[Pair]]
    left_out: Mapping[str, Sequence[str]]  # reason: names
    leaks: Sequence[str] = ()  # training images that are test images too, byte for byte
    changes: Sequence[str] = ()  # what came and went since the run that goes on was made

    @cached_property  # every file is looked at
    def split(self) -> Split:
        """What trains and validates, by contents."""
        return Split.of(self.train, self.validation, self.root)


def build_data(
    config: Config, progress: Progress | None = None, known: Split | None = None
) -> Data:
    """Find the images, leave out what does not belong, hold out validation.

    Without a data set, generated images take its place. Of images with the same contents one is
    kept, and none validates that trains. `known` is the split of a run that goes on: what trained
    it trains, what it held out validates, and what is new trains.
    """
    if config.dataset_path:
        root = Path(config.dataset_path)
    else:
        folder = cache_folder(config) / f"generated-{config.img_size}px"
        root = make_synthetic(folder, size=config.img_size, progress=progress)
    data = _without_copies(_find(find_datasets(root), root, config))
    return _as_before(data, known) if known else _hold_out(data, config.val_share)


def _without_copies(data: Data) -> Data:
    """Keep one of the training images with the same contents; name those that test as well."""
    test = [pair for pairs in data.test.values() for pair in pairs]
    masks = {pair.image: pair.mask for pair in data.train}
    gone: dict[Path, str] = {}
    leaks: list[str] = []
    for group in find_copies({"train": data.train, "test": test}):
        own = [path for place, path in group if place == "train"]
        for copy in own[1:]:
            same = len(set(digests([masks[own[0]], masks[copy]]).values())) == 1
            gone[copy] = COPIES if same else f"{COPIES}, with other masks"
        leaks += [path.stem for path in own[:1] if len(own) < len(group)]
    left_out: dict[str, list[str]] = {}
    for path, why in sorted(gone.items()):
        left_out.setdefault(why, []).append(path.stem)
    return replace(
        data,
        train=[pair for pair in data.train if pair.image not in gone],
        left_out={**data.left_out, **left_out},
        leaks=sorted(leaks),
    )


def _hold_out(data: Data, share: float) -> Data:
    train, validation = split_validation(data.train, share)
    return replace(data, train=train, validation=validation)


def _as_before(data: Data, known: Split) -> Data:
    """Put each image on the side and in the place where the run had it; say what came and went.

    A file with other contents where a held-out image was is that image, saved anew, and must not
    train; unless most images are others: then it is another data set.
    """
    keys = dict(zip(data.train, known.keys(data.train), strict=True))
    places = {key: place for place, key in enumerate([*known.train, *known.validation])}
    pairs = sorted(data.train, key=lambda pair: places.get(keys[pair], len(places)))
    same = sum(key in places for key in keys.values()) > len(places) / 2
    there = set(known.validation.values()) if same else set()
    held = [
        pair
        for pair in pairs
        if keys[pair] in known.validation
        or (keys[pair] not in known.train and below(pair.image, data.root) in there)
    ]
    kept = set(held)
    train = [pair for pair in pairs if pair not in kept]
    changes = _came_and_went(keys, train, held, known)
    if not train or not held:
        raise InputError(
            f"{data.root} holds {len(train)} images that may train and {len(held)} of those that "
            "the run held out for validation: its scores would mean nothing. Give the data set the "
            "run began with, or start a new run from its weights: --init-from."
        )
    return replace(data, train=train, validation=held, changes=changes)


def _came_and_went(
    keys: Mapping[Pair, str], train: Sequence[Pair], held: Sequence[Pair], known: Split
) -> list[str]:
    found = set(keys.values())
    new = [pair.name for pair in train if keys[pair] not in known.train]
    anew = [pair.name for pair in held if keys[pair] not in known.validation]
    paths = {**known.train, **known.validation}
    back = [paths[key] for key in sorted(known.gone & found)]
    changes = [f"{len(new)} new images train from now on: {few(new)}"] if new else []
    if anew:
        changes.append(f"{len(anew)} held-out images have other contents, and stay so: {few(anew)}")
    if back:
        changes.append(f"{len(back)} of the run's images are here again: {few(back)}")
    for what, side in (("training", known.train), ("validation", known.validation)):
        missing = [path for key, path in side.items() if key not in found | known.gone]
        if missing:
            changes.append(
                f"{len(missing)} of the run's {what} images are not here any more, or were "
                f"changed: {few(missing)}"
            )
    return changes


def _find(sets: Sequence[ImageSet], root: Path, config: Config) -> Data:
    """Return what may train and what tests, by name and place; InputError if nothing trains."""
    chosen = select(sets, noncam=config.noncam)
    if not chosen.train:
        raise InputError(
            f"{root} holds test images only ({', '.join(chosen.test) or 'none usable'}). Give the "
            "folder that also holds a training split, or one flat folder with Imgs and GT."
        )
    left_out = {
        **chosen.left_out,
        "images without a mask": [p.name for each in sets for p in each.images_without_mask],
        "masks without an image": [p.name for each in sets for p in each.masks_without_image],
    }
    left_out = {why: names for why, names in left_out.items() if names}
    return Data(root, chosen.train, (), chosen.test, left_out)


def find_data(wanted: str = "") -> str:
    """Return the data folder to use: `wanted`, else Kaggle's if image sets are mounted, else "".

    Raises InputError when `wanted` holds no image with its mask.
    """
    if wanted:
        folder = str(given(wanted, "the data folder"))
        _sets(folder)
        return folder
    try:
        return str(input_root()) if find_datasets(input_root()) else ""
    except InputError:  # not on Kaggle, or nothing attached that can train: images are generated
        return ""


def input_root() -> Path:
    """Return the folder that Kaggle mounts data sets in, or CAMOXPERT_INPUT."""
    name = "CAMOXPERT_INPUT"
    return given(os.environ.get(name) or "/kaggle/input", f"the environment variable {name}")


@dataclass(frozen=True)
class Images:
    """How many images a training would use; `test` by set, `left_out` by reason.

    `noncam` of those that train and validate show no object. With `exact` False the images are
    still to be generated, and the split is known only roughly.
    """

    source: str
    train: int
    validation: int
    noncam: int
    test: Mapping[str, int]
    left_out: Mapping[str, int]
    exact: bool = True

    def rows(self) -> list[tuple[str, str]]:
        """Return names and sentences, a row each."""
        about = "" if self.exact else "about "
        cam = self.train + self.validation - self.noncam
        test = ", ".join(f"{name} {count:,}" for name, count in self.test.items())
        return [
            ("from", self.source),
            ("train on", f"{about}{self.train:,} images"),
            ("validate on", f"{about}{self.validation:,} held out of training"),
            ("of these", f"{cam:,} CAM (an object is there), {self.noncam:,} NonCAM (none is)"),
            ("test sets", test or "none; score on the held-out images"),
            *[("left out", f"{count:,} {why}") for why, count in self.left_out.items()],
        ]

    def __str__(self) -> str:
        return "\n".join(f"{name:<12} {text}" for name, text in self.rows())

    def _repr_html_(self) -> str:
        import pandas as pd

        return str(pd.DataFrame(self.rows()).to_html(index=False, header=False, border=0))


def count_images(config: Config) -> Images:
    """Count what a training would use, by name and place; no image is opened.

    Raises InputError when the folder holds nothing that can train.
    """
    if not config.dataset_path:
        return _to_be_generated(config)
    sets = _sets(config.dataset_path)
    found = _hold_out(_find(sets, Path(config.dataset_path), config), config.val_share)
    return Images(
        source=", ".join(f"{each.name} ({each.layout})" for each in sets),
        train=len(found.train),
        validation=len(found.validation),
        noncam=sum(is_noncam(pair) for pair in (*found.train, *found.validation)),
        test={name: len(pairs) for name, pairs in found.test.items()},
        left_out={why: len(names) for why, names in found.left_out.items()},
    )


def forget_images() -> None:
    """Look at the disk again at the next count: files may have changed."""
    _sets.cache_clear()


def _to_be_generated(config: Config) -> Images:
    """Count as `make_synthetic` will, but for the split, which follows from each name's hash."""
    made: dict[str, Any] = make_synthetic.__kwdefaults__ or {}
    empty = {split: int(made[split] * made["noncam"]) for split in ("train", "test")}
    gone = {"train": 0, "test": 0} if config.noncam else empty
    left_out = {"NonCAM training images": empty["train"], "NonCAM test images": empty["test"]}
    used = made["train"] - gone["train"]
    validation = max(round(used * config.val_share), 1)
    return Images(
        source=f"generated camouflage of {config.img_size} px, made before the training",
        train=used - validation,
        validation=validation,
        noncam=empty["train"] - gone["train"],
        test={"generated": made["test"] - gone["test"]},
        left_out={} if config.noncam else left_out,
        exact=False,
    )


@lru_cache(maxsize=4)
def _sets(root: str) -> tuple[ImageSet, ...]:
    return tuple(find_datasets(root))
