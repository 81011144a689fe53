"""Which images: what trains, what validates, what is left out, and why.

Validation is what the data set's folders say, or is carved out of training (`cutting`). Test images
are never among either.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ..errors import InputError, few
from ..outside.paths import given
from ..settings.checks import fold_of
from ..settings.config import Config
from .audit import find_copies
from .cache import Progress, cache_folder
from .copies import Look, alike, groups, looks
from .cutting import cut, split_validation
from .identity import Split, below, digests
from .layouts import Found, find_datasets, look_through
from .pairs import ImageSet, Pair, is_noncam
from .reading import AUTOMATIC, Reading
from .synthetic import make_synthetic

COPIES = "copies of other training images"  # reasons to leave images out
HELD_OUT = "copies of images held out for validation"
LATE = "images of a validation split that came later"
OTHER_FOLDS = "images of a validation split, which other folds score"


@dataclass(frozen=True)
class Selection:
    """What a run uses: pairs that train, validate, test (by set), and names left out, by reason.

    empty_tests: how many NonCAM images were left out of each test set.
    """

    train: tuple[Pair, ...]
    test: dict[str, tuple[Pair, ...]]
    left_out: dict[str, list[str]]
    validation: tuple[Pair, ...] = ()
    empty_tests: dict[str, int] = field(default_factory=dict)


def select(sets: Iterable[ImageSet], *, noncam: bool = False) -> Selection:
    """Merge the sets' training and validation pairs and list their test pairs by set.

    NonCAM pairs (empty masks, no part of the field's protocol) are left out unless `noncam`.
    Two test sets of one name both stay; the second is called by its folder as well.
    """
    merged: dict[str, list[Pair]] = {"training": [], "validation": []}
    test: dict[str, tuple[Pair, ...]] = {}
    left_out: dict[str, list[str]] = {}
    empty_tests: dict[str, int] = {}
    for image_set in sets:
        for split, pairs in (
            ("training", image_set.train),
            ("validation", image_set.validation),
            ("test", image_set.test),
        ):
            kept = tuple(pair for pair in pairs if noncam or not is_noncam(pair))
            if len(kept) < len(pairs):
                names = left_out.setdefault(f"NonCAM {split} images", [])
                names += [pair.name for pair in pairs if is_noncam(pair)]
            if split != "test":
                merged[split] += kept
                continue
            for name in dict.fromkeys(pair.dataset for pair in pairs):
                scored = tuple(pair for pair in kept if pair.dataset == name)
                own = f"{name} ({image_set.root})" if scored and name in test else name
                test |= {own: scored} if scored else {}
                if empty := sum(pair.dataset == name for pair in pairs) - len(scored):
                    empty_tests[own] = empty_tests.get(own, 0) + empty
    train, validation = tuple(merged["training"]), tuple(merged["validation"])
    return Selection(train, test, left_out, validation, empty_tests)


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
    near_leaks: Sequence[str] = ()  # nearly the same picture in training and in test or validation
    notes: Sequence[str] = ()  # what lies below the root and is not used, and about lists of names
    looks: Mapping[Path, Look] = field(default_factory=dict, repr=False)

    @cached_property  # every file is looked at
    def split(self) -> Split:
        """What trains and validates, by contents."""
        return Split.of(self.train, self.validation, self.root, self.looks)


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
    reading = Reading.of(config) if config.dataset_path else Reading()
    data = without_copies(choose(look_through(root, reading), root, config))
    data = _with_looks(data, config, progress)
    if not known:
        return hold_out(data, config)
    return _as_before(_of_the_fold(data, known) if fold_of(config.fold)[1] else data, known)


def _with_looks(data: Data, config: Config, progress: Progress | None) -> Data:
    """Look at every picture, and name those in training that nearly are in test or validation.

    Folds keep what is alike together, so there only test images count.
    """
    folds = fold_of(config.fold)[1]
    scored = {"validation": data.validation, **data.test}
    others = [(pair, name) for name, pairs in scored.items() for pair in pairs]
    every = [*(pair.image for pair in data.train), *(pair.image for pair, _ in others)]
    seen = looks(every, cache_folder(config), progress)
    mine = [seen[pair.image] for pair in data.train]
    exact = set(data.leaks)
    pairs = alike(mine, [seen[pair.image] for pair, _ in others]).tolist()
    near = {
        data.train[i].image: f"{data.train[i].image.name} ~ {others[j][0].image.name} "
        f"({others[j][1]})"
        for i, j in pairs
        if data.train[i].name not in exact and not (folds and others[j][1] == "validation")
    }
    return replace(data, looks=seen, near_leaks=list(near.values()))


def without_copies(data: Data) -> Data:
    """Keep one of the training images with the same contents; name those that test as well."""
    test = [pair for pairs in data.test.values() for pair in pairs]
    masks = {pair.image: pair.mask for pair in (*data.train, *data.validation)}
    gone: dict[Path, str] = {}
    leaks: list[str] = []
    sides = {"train": data.train, "validation": data.validation, "test": test}
    for group in find_copies(sides):
        held = [path for place, path in group if place == "validation"]
        own = [path for place, path in group if place == "train"]
        for first, copies, why in ((held, held[1:], HELD_OUT), (held, own, HELD_OUT)):
            gone.update(dict.fromkeys(copies, why) if first else {})
        for copy in [] if held else own[1:]:
            same = len(set(digests([masks[own[0]], masks[copy]]).values())) == 1
            gone[copy] = COPIES if same else f"{COPIES}, with other masks"
        tests = any(place == "test" for place, _ in group)
        leaks += [path.stem for path in own[:1] if tests and path not in gone]
    left_out: dict[str, list[str]] = {}
    for path, why in sorted(gone.items()):
        left_out.setdefault(why, []).append(path.stem)
    return replace(
        data,
        train=[pair for pair in data.train if pair.image not in gone],
        validation=[pair for pair in data.validation if pair.image not in gone],
        left_out={**data.left_out, **left_out},
        leaks=sorted(leaks),
    )


def hold_out(data: Data, config: Config) -> Data:
    """Hold out the images that validate: those of a fold, or `val_share` of them."""
    fold, folds = fold_of(config.fold)
    if folds:
        return _hold_out_fold(data, fold, folds)
    return _hold_out_share(data, config.val_share)


def share_of(config: Config) -> float:
    """Return about which share of the images validates."""
    folds = fold_of(config.fold)[1]
    return 1 / folds if folds else config.val_share


def _hold_out_fold(data: Data, fold: int, folds: int) -> Data:
    """Hold out one fold; images of a validation split never train, and validate in their fold."""
    places = cut([*data.train, *data.validation], data.looks, folds)
    train = [pair for pair in data.train if places[pair] != fold]
    if not train:
        raise InputError(
            f"--fold {fold}/{folds} leaves no image to train: {len(data.train)} may train, and "
            "those that look alike stay together. Give fewer folds, or more images."
        )
    held = [pair for pair in (*data.train, *data.validation) if places[pair] == fold]
    others = [pair.name for pair in data.validation if places[pair] != fold]
    return _without(replace(data, train=train, validation=held), others)


def _of_the_fold(data: Data, known: Split) -> Data:
    """Leave out the images of a validation split that the run's fold does not score."""
    keys, paths = known.keys(data.validation), set(known.validation.values())
    mine = [
        key in known.validation or below(pair.image, data.root) in paths
        for pair, key in zip(data.validation, keys, strict=True)
    ]
    kept = [pair for pair, own in zip(data.validation, mine, strict=True) if own]
    others = [pair.name for pair, own in zip(data.validation, mine, strict=True) if not own]
    return _without(replace(data, validation=kept), others)


def _without(data: Data, others: list[str]) -> Data:
    left = {OTHER_FOLDS: others} if others else {}
    return replace(data, left_out={**data.left_out, **left})


def _hold_out_share(data: Data, share: float) -> Data:
    """Hold out validation images of the sets that have none of their own.

    What looks alike stays on one side. Sets of which some images validate are left as they are.
    """
    given = {pair.dataset for pair in data.validation}
    free = {pair for pair in data.train if pair.dataset not in given}
    if data.validation and len(free) < 2:
        return data
    grouped = groups({pair: data.looks.get(pair.image, "") for pair in data.train})
    bound = {pair for group in grouped if not free.issuperset(group) for pair in group}
    together = [group for group in grouped if free.issuperset(group)]
    candidates = [pair for pair in data.train if pair in free - bound]
    _, held = split_validation(candidates, share, together)
    kept = set(held)
    train = [pair for pair in data.train if pair not in kept]
    return replace(data, train=train, validation=[*data.validation, *held])


def _as_before(data: Data, known: Split) -> Data:
    """Put each image on the side and in the place where the run had it; say what came and went.

    A file with other contents where a held-out image was is that image, saved anew, and must not
    train; unless most images are others: then it is another data set. What is new and nearly the
    same as a held-out image does not train either.
    """
    pool = [*data.train, *data.validation]
    keys = dict(zip(pool, known.keys(pool), strict=True))
    places = {key: place for place, key in enumerate([*known.train, *known.validation])}
    pairs = sorted(pool, key=lambda pair: places.get(keys[pair], len(places)))
    same = sum(key in places for key in keys.values()) > len(places) / 2
    there = set(known.validation.values()) if same else set()
    held = [
        pair
        for pair in pairs
        if keys[pair] in known.validation
        or (keys[pair] not in known.train and below(pair.image, data.root) in there)
    ]
    kept = set(held)
    left = _kept_out(data, [p for p in pairs if p not in kept and keys[p] not in known.train], held)
    train = [pair for pair in pairs if pair not in kept and pair not in left]
    changes = _came_and_went(keys, train, held, known)
    if not train or not held:
        raise InputError(
            f"{data.root} holds {len(train)} images that may train and {len(held)} of those that "
            "the run held out for validation: its scores would mean nothing. Give the data set the "
            "run began with, or start a new run from its weights: --init-from."
        )
    left_out = dict(data.left_out)
    for pair, why in left.items():
        left_out[why] = [*left_out.get(why, ()), pair.name]
    return replace(data, train=train, validation=held, changes=changes, left_out=left_out)


def _kept_out(data: Data, new: Sequence[Pair], held: Sequence[Pair]) -> dict[Pair, str]:
    """Return which of the images that came since must not train, and why."""
    given = set(data.validation)
    left = {pair: LATE for pair in new if pair in given}
    seen = [[data.looks.get(pair.image, "") for pair in side] for side in (new, held)]
    near = alike(*seen)[:, 0].tolist()
    return {**left, **{new[place]: HELD_OUT for place in near}}


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


def choose(found: Found, root: Path, config: Config) -> Data:
    """Return what may train and what tests, by name and place; InputError if nothing trains."""
    chosen = select(found.sets, noncam=config.noncam)
    if not chosen.train:
        held = ", ".join([*chosen.test, *(["a validation split"] if chosen.validation else [])])
        raise InputError(
            f"{root} holds test images only ({held or 'none usable'}), as the names of its folders "
            "or lists say. Give the folder that also holds a training split, one flat folder with "
            "Imgs and GT, or name the folders that are to train: --image-folder, --mask-folder."
        )
    left_out = {
        **chosen.left_out,
        "images without a mask": [p.name for s in found.sets for p in s.images_without_mask],
        "masks without an image": [p.name for s in found.sets for p in s.masks_without_image],
        "images that no list of training images names": [pair.name for pair in found.unlisted],
    }
    left_out = {why: names for why, names in left_out.items() if names}
    notes = [f"not used: {each}" for each in found.unused if not each.harmless]
    notes += [line for each in found.sets for line in each.second]
    data = Data(root, chosen.train, chosen.validation, chosen.test, left_out)
    return replace(data, notes=[*notes, *found.lists])


def find_data(wanted: str = "", reading: Reading = AUTOMATIC) -> str:
    """Return the data folder to use: `wanted`, else Kaggle's if image sets are mounted, else "".

    reading: where images and masks lie below `wanted`, by default found out. Raises InputError
    when `wanted` holds no image with its mask.
    """
    if wanted:
        folder = str(given(wanted, "the data folder"))
        find_datasets(folder, reading)
        return folder
    try:
        return str(input_root()) if find_datasets(input_root()) else ""
    except InputError:  # not on Kaggle, or nothing attached that can train: images are generated
        return ""


def input_root() -> Path:
    """Return the folder that Kaggle mounts data sets in, or CAMOXPERT_INPUT."""
    name = "CAMOXPERT_INPUT"
    return given(os.environ.get(name) or "/kaggle/input", f"the environment variable {name}")
