"""Nearly the same picture: saved anew, resized, mirrored, turned by 90 degrees, or film frames.

A picture's look is its 63 lowest frequencies (discrete cosine transform of a 32 x 32 grey version,
as in pHash), weighed by the root of the frequency. Mirroring changes their signs and turning swaps
them, so all eight ways of laying a picture are compared without making any. On the 996 training
images of CAMO 17 pairs are above ALIKE, all frames of two films; the most alike of the others reach
0.88, while copies (JPEG of quality 10, 64 pixels, mirrored, turned) reach 0.987 and more.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..outside.scratch import scratch
from .cache import Progress
from .images import grey_of, opened, read_image

ALIKE = 0.93  # cosine of two looks from which on they are one picture
SIDE, LOW = 32, 8  # of the small grey version, and of the frequencies kept
FLAT = 32.0  # length of the frequencies of a picture with next to nothing in it
MANY = 8  # pictures, from which on what all share is looked for
SHARED = (0.5, 0.98)  # length of the mean of all looks: below nothing is shared, above everything
ROWS = 2048  # looks compared at once: bounds the memory
FORMAT = 1

Floats = NDArray[np.float32]
Look = str  # base64 of 64 signed bytes, or "=" and a digest for a flat picture, or "": unreadable


Key = TypeVar("Key", bound=Hashable)


def looks(
    paths: Sequence[Path], store: Path | None = None, progress: Progress | None = None
) -> dict[Path, Look]:
    """Return the look of each picture, in their order, decoded as small as its format allows.

    That takes 1 to 4 ms each. store: a folder in which looks are remembered by path, size and time.
    Files that cannot be read look like nothing.
    """
    facts = {path: _facts(path) for path in paths}
    file = _file_of(paths, store) if store else None
    known = _remembered(file)
    found = {path: known[fact] for path, fact in facts.items() if fact in known}
    new = [path for path in paths if path not in found]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for done, (path, look) in enumerate(zip(new, threads.map(look_of, new), strict=True), 1):
            found[path] = look
            if progress:
                progress(done, len(new))
    if file and new:
        _remember(file, {facts[path]: look for path, look in found.items()})
    return {path: found[path] for path in paths}


def remembered_looks(paths: Sequence[Path], store: Path) -> dict[Path, Look] | None:
    """Return what `looks` would from its store alone, None if a picture is not there."""
    known = _remembered(_file_of(paths, store))
    found = {path: known.get(_facts(path)) for path in paths}
    return None if None in found.values() else found  # type: ignore[return-value]


def look_of(path: Path) -> Look:
    """Return a picture's look, "" if it cannot be read."""
    try:
        with opened(path) as image:
            image.draft("L", (2 * SIDE, 2 * SIDE))  # JPEG is then decoded at an eighth
            small = cv2.resize(grey_of(image, "L"), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        values = cv2.dct(small.astype(np.float32))[:LOW, :LOW] * _WEIGHT
        if np.linalg.norm(values) < FLAT:
            pixels = read_image(path)
            return "=" + _digest([str(pixels.shape)], pixels.tobytes())
    except InputError:
        return ""
    scaled = np.rint(values * (127 / np.abs(values).max())).astype(np.int8)
    return base64.b64encode(scaled.tobytes()).decode()


def groups(looks_of: Mapping[Key, Look]) -> list[list[Key]]:
    """Return the groups of two and more that look alike, directly or by way of others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    keys, pairs = list(looks_of), alike(list(looks_of.values()))
    links = (np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1]))
    _, labels = connected_components(coo_array(links, shape=(len(keys), len(keys))), False)
    found: dict[int, list[Key]] = defaultdict(list)
    for key, label in zip(keys, labels.tolist(), strict=True):
        found[label].append(key)
    return [group for group in found.values() if len(group) > 1]


def alike(these: Sequence[Look], those: Sequence[Look] | None = None) -> NDArray[np.intp]:
    """Return the places (in `these`, in `those`) of all that look alike, (n, 2).

    Without `those`, the pairs of two among `these`, the first place before the second.
    """
    others = these if those is None else those
    found = [np.array(_flat(these, others), np.intp).reshape(-1, 2)]
    (left, places), (right, other_places) = _matrix(these), _matrix(others)
    common = _common(left, right)
    for first in range(0, len(left) if len(right) else 0, ROWS):
        rows = left[first : first + ROWS]
        best = np.zeros((len(rows), len(right)), np.float32)
        for form in _forms(rows):
            cosine = _cosine(form, right)
            if common is not None:
                np.minimum(cosine, _cosine(form - common, right - common), out=cosine)
            np.maximum(best, cosine, out=best)
        here, there = np.nonzero(best > ALIKE)
        found.append(np.stack([places[first + here], other_places[there]], 1))
    pairs = np.concatenate(found)
    return pairs if those is not None else pairs[pairs[:, 0] < pairs[:, 1]]


def _common(*sides: Floats) -> Floats | None:
    """Return what nearly all pictures share, (LOW, LOW): a black frame, a white background.

    Two of them are one picture where the rest is alike too. None where there is nothing of the
    kind, or all are one picture.
    """
    every = np.concatenate(sides)
    mean = every.mean(0) if len(every) >= MANY else np.zeros((LOW, LOW), np.float32)
    return mean if SHARED[0] < np.linalg.norm(mean) < SHARED[1] else None


def _cosine(these: Floats, those: Floats) -> Floats:
    one, other = (x.reshape(len(x), -1) for x in (these, those))
    lengths = [np.maximum(np.linalg.norm(x, axis=1), 1e-6) for x in (one, other)]
    return (one / lengths[0][:, None]) @ (other / lengths[1][:, None]).T


def _forms(rows: Floats) -> Iterable[Floats]:
    """Yield (n, LOW, LOW) frequencies of the pictures in all eight ways of laying them."""
    signs = ((-1.0) ** np.arange(LOW)).astype(np.float32)
    for values in (rows, rows.swapaxes(1, 2)):
        for down in (1.0, signs[:, None]):
            for across in (1.0, signs[None, :]):
                yield np.ascontiguousarray(values * down * across, np.float32)


def _matrix(every: Sequence[Look]) -> tuple[Floats, NDArray[np.intp]]:
    """Return looks as (n, LOW, LOW) of length 1, and their places; flat ones are not among them."""
    places = [place for place, look in enumerate(every) if look and look[0] != "="]
    data = b"".join(base64.b64decode(every[place]) for place in places)
    values = np.frombuffer(data, np.int8).reshape(-1, LOW, LOW).astype(np.float32)
    lengths = np.linalg.norm(values.reshape(len(values), LOW * LOW), axis=1)
    return values / lengths[:, None, None], np.array(places, np.intp)


def _flat(these: Sequence[Look], those: Sequence[Look]) -> list[tuple[int, int]]:
    """Return the pairs of flat pictures with the very same pixels."""
    known: dict[Look, list[int]] = defaultdict(list)
    for place, look in enumerate(those):
        if look[:1] == "=":
            known[look].append(place)
    return [(place, other) for place, look in enumerate(these) for other in known.get(look, ())]


def _file_of(paths: Sequence[Path], store: Path) -> Path:
    return store / f"looks-{_digest(sorted({str(path.parent) for path in paths}))}.json"


def _facts(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return f"{path} is not there"
    return f"{path.absolute()}|{status.st_size}|{status.st_mtime_ns}"


def _digest(words: Sequence[str], data: bytes = b"") -> str:
    return hashlib.blake2b("\n".join(words).encode("utf-8", "surrogateescape") + data).hexdigest()[
        :16
    ]


def _remembered(file: Path | None) -> dict[str, Look]:
    try:
        values = json.loads(file.read_text("utf-8")) if file else {}
    except (OSError, ValueError):
        return {}
    return values["looks"] if values.get("format") == FORMAT else {}


def _remember(file: Path, known: Mapping[str, Look]) -> None:
    """Write the looks beside the decoded images; they are made anew where that is not possible."""
    text = json.dumps({"format": FORMAT, "looks": known})
    with suppress(OSError, UnicodeEncodeError), scratch(file.parent, "looks") as place:
        unfinished = place / file.name
        unfinished.write_text(text, "utf-8")
        unfinished.replace(file)


def _weights() -> Floats:
    numbers = np.arange(LOW)
    weight = np.sqrt(np.hypot(numbers[:, None], numbers[None, :]))
    return weight.astype(np.float32)


_WEIGHT = _weights()  # 0 for the mean brightness
