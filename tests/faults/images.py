"""Images and masks as strangers' disks hold them, through every door by which the kit reads them.

Each is read right, or named; none is passed over, and none holds anything up.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from camoxpert_nb.data.audit import audit, report
from camoxpert_nb.data.cache import open_cache
from camoxpert_nb.data.images import read_image
from camoxpert_nb.data.layouts import Found, look_through
from camoxpert_nb.data.pairs import Pair
from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation.scoring import score_maps
from camoxpert_nb.figures.found_files import predict_pictures
from camoxpert_nb.network.build import build_net
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config

from .pictures import SIDE, Picture, mask, picture, put, stem
from .tally import Fault, Tally

BATCH = 40  # files in a folder
MOST = SIDE**2 / (SIDE**2 - 1) + 1e-9  # of the E-measure, as the field computes it
SECONDS = 10.0  # a file may take so long, in the mean of its folder, on a busy machine


class Put(NamedTuple):
    """A file that was put somewhere: where, what is in it, and what kind of a thing it is."""

    path: Path
    made: Picture
    kind: str

    @property
    def whole(self) -> bool:
        return self.made.whole and self.kind == "file"

    def __str__(self) -> str:
        return f"{self.path.name!r} ({self.made.how}, {self.kind})"


def _folders(folder: Path, times: int, rng: random.Random) -> Iterator[tuple[Path, int, int]]:
    """Yield an empty folder for each batch, its first number and how many belong to it."""
    for first in range(0, times, BATCH):
        place = folder / "batch"
        place.mkdir()
        yield place, first, min(BATCH, times - first)
        shutil.rmtree(place)


def _fill(place: Path, numbers: range, rng: random.Random) -> list[Put]:
    place.mkdir(parents=True, exist_ok=True)
    made = []
    for number in numbers:
        each, name = picture(rng), stem(rng, number)
        path = place / f"{name}{each.suffix}"
        made.append(Put(path, each, put(path, each.data, rng, rng.random() < 0.04)))
    return made


def _right(put: Put, found: np.ndarray) -> bool:
    """Say whether what was read is what was written, as far as that can be told."""
    if put.made.pixels is None or put.kind != "file":
        return put.kind == "file" and found.ndim == 3 and found.dtype == np.uint8
    return np.array_equal(found, put.made.pixels)


def _read(put: Put) -> tuple[bool, str]:
    """Return whether reading did right, and what it did."""
    began = time.monotonic()
    try:
        right, what = _right(put, read_image(put.path)), "read"
    except InputError as error:
        right, what = not put.whole and str(put.path) in str(error), f"{error}"
    except BaseException as error:
        return False, f"{type(error).__name__}: {error}"
    took = time.monotonic() - began
    return right and took < SECONDS, f"{what} in {took:.1f} s"


def reading(folder: Path, times: int, seed: int) -> Tally:
    """Read each file by itself."""
    rng, tally = random.Random(seed), Tally()
    for place, first, count in _folders(folder, times, rng):
        for each in _fill(place, range(first, first + count), rng):
            right, what = _read(each)
            tally.count(right, f"{each}: {what}")
    return tally


def in_data_sets(folder: Path, times: int, seed: int) -> Tally:
    """Put them into data sets: look through each, audit it, and decode it for a training."""
    rng, tally = random.Random(seed), Tally()
    for place, first, count in _folders(folder, times, rng):
        images = _fill(place / "Imgs", range(first, first + count), rng)
        masks = [_mask(place / "GT", each, rng) for each in images]
        good = place / "Imgs" / "good.png", place / "GT" / "good.png"
        for path in good:
            shutil.copyfile(_one_good(folder), path)
        began = time.monotonic()
        try:
            lost = list(_of_set(place, folder / "cache", images, masks))
        except Exception as error:
            lost = [f"the data set of {count}: {type(error).__name__}: {error}"]
        if (took := time.monotonic() - began) > SECONDS * count:
            lost.append(f"the data set of {count} took {took:.0f} s")
        for number in range(count):
            tally.count(number >= len(lost), lost[number] if number < len(lost) else "")
    return tally


def _one_good(folder: Path) -> Path:
    """Return a picture in which nothing is wrong, so that each data set has one pair."""
    from PIL import Image

    path = folder / "good.png"
    if not path.exists():
        grey = np.zeros((SIDE, SIDE), np.uint8)
        grey[4:12, 4:12] = 255
        Image.fromarray(grey).save(path)
    return path


def _mask(place: Path, image: Put, rng: random.Random) -> Put:
    place.mkdir(exist_ok=True)
    size = (SIDE, SIDE) if image.made.pixels is None else image.made.pixels.shape[:2]
    made = mask(rng, (size[0], size[1]))
    path = place / f"{image.path.name[: -len(image.made.suffix)]}.png"
    return Put(path, made, put(path, made.data, rng, rng.random() < 0.02))


def _of_set(place: Path, cache: Path, images: Sequence[Put], masks: Sequence[Put]) -> Iterator[str]:
    """Yield what was lost: files neither used nor named, read wrong, or refused though whole."""
    found = look_through(place)
    looked = audit(found, store=cache)
    said = report(looked, None)
    pairs = {pair.image: pair for each in found.sets for pair in each.pairs}
    bad = {
        item
        for finding in looked.findings
        for item in finding.items
        if finding.kind in ("unreadable", "shape")
    }

    def named(put: Put) -> bool:
        return any(item.startswith(f"{put.path.name} (") for item in bad)

    usable = []
    for image, own in zip(images, masks, strict=True):
        pair = pairs.get(image.path)
        if pair is None or pair.mask != own.path:
            if image.path.name not in said:
                yield f"{image}: neither used nor named"
        elif named(image) or named(own):
            if image.whole and own.whole:
                yield f"{image} with {own}: whole, and yet refused"
        else:
            usable.append((image, own, pair))
    yield from _decoded(found, cache, usable, set(pairs.values()))


def _decoded(
    found: Found, cache: Path, usable: list[tuple[Put, Put, Pair]], every: set[Pair]
) -> Iterator[str]:
    """Yield what a training would be given otherwise than it was written, or not be told."""
    good = {pair for _, _, pair in usable} | {pair for pair in every if pair.name == "good"}
    broken = len(every) - len(good)
    try:
        open_cache(sorted(every), SIDE, cache)
        if broken:
            yield f"{broken} pairs that cannot be used were decoded without a word"
    except InputError as error:
        if not str(error).partition("\n")[0].startswith(tuple(map(str, range(1, 10)))):
            yield f"the training's message counts nothing: {error}"
    kept = [each for each in usable if _side(each[0]) == _side(each[1]) == (SIDE, SIDE)]
    if not kept:
        return
    array = open_cache([pair for _, _, pair in kept], SIDE, cache).array
    for (image, own, _), layers in zip(kept, array, strict=True):
        if not _right(image, layers[:3].transpose(1, 2, 0)):
            yield f"{image}: a training would see other pixels"
        if own.made.pixels is not None and ((own.made.pixels[..., 0] > 128) != layers[3]).any():
            yield f"{own}: a training would see another mask"


def _side(put: Put) -> tuple[int, ...] | None:
    return None if put.made.pixels is None else put.made.pixels.shape[:2]


def predicted(folder: Path, times: int, seed: int) -> Tally:
    """Give them to `predict_pictures`: a map of each, or its name among those left out."""
    rng, tally = random.Random(seed), Tally()
    config = make_config("tiny", img_size=32, device="cpu", pretrained=False)
    run = Run(folder / "run")
    run.folder.mkdir()
    run.save_config(config)
    run.save("best", {"net": build_net(config).state_dict(), "config": config.as_dict()})
    for place, first, count in _folders(folder, times, rng):
        images = _fill(place / "in", range(first, first + count), rng)
        try:
            found = predict_pictures(run, [each.path for each in images], place / "maps")
            found.write_csv()
            shown = dict(zip(found.table["picture"], found.table["name"], strict=True))
            unread = found.unread
        except Exception as error:
            shown, unread = {}, []
            tally.lost.append(f"{count} pictures: {type(error).__name__}: {error}")
        for each in images:
            path = str(each.path)
            mapped = path in shown and (place / "maps" / f"{shown[path]}.png").is_file()
            told = any(line.startswith(f"{path}: ") for line in unread)
            tally.count(mapped != told and (mapped or not each.whole), f"{each}: {mapped=} {told=}")
    return tally


def scored(folder: Path, times: int, seed: int) -> Tally:
    """Score them as maps of a method: by the measures, or refused by name."""
    rng, tally = random.Random(seed), Tally()
    for place, first, count in _folders(folder, times, rng):
        for number in range(first, first + count):
            made = mask(rng, (SIDE, SIDE)) if rng.random() < 0.7 else picture(rng)
            name = stem(rng, number)
            maps, photo = place / name / "maps", place / name / "photo.png"
            maps.mkdir(parents=True)
            shutil.copyfile(_one_good(folder), photo)
            truth = place / name / f"{name}.png"
            truth.write_bytes(_whole_mask())
            path = maps / f"{name}{made.suffix}"
            each = Put(path, made, put(path, made.data, rng, rng.random() < 0.04))
            tally.count(*_score(maps, Pair(name, photo, truth, "set"), each))
    return tally


def _whole_mask() -> bytes:
    return mask(random.Random(1), (SIDE, SIDE)).data


def _score(maps: Path, pair: Pair, put: Put) -> tuple[bool, str]:
    try:
        scores = score_maps(maps, [pair])
    except InputError as error:
        excused = not (put.whole and put.made.how == "mask")
        return excused and (str(put.path) in str(error) or str(maps) in str(error)), str(error)
    except BaseException as error:
        return False, f"{put}: {type(error).__name__}: {error}"
    values = [v for v in scores.mean.values() if v is not None]
    perfect = put.made.how != "mask" or (scores.mean["mae"], scores.mean["iou"]) == (0, 1)
    return perfect and all(0 <= value <= MOST for value in values), f"{put}: {scores.mean}"


USED = "each image used or named; a training sees the very pixels"
FUZZED = (
    Fault("images", "read right, or named in the message", reading, 240, 5000),
    Fault("data sets", USED, in_data_sets, 80, 2000),
    Fault("pictures to predict", "a map of each, or its name and the reason", predicted, 40, 800),
    Fault("maps to score", "scored, or refused by name", scored, 60, 1000),
)
