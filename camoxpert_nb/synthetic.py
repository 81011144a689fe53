"""Generated camouflage: a data set that needs no download and is worth learning from.

Every image is one texture with an animal-like region cut from the same texture family with shifted
statistics: turned, finer or coarser, of another phase, a little flatter. Object and background are
equalised to the same distribution and coloured by the same palette, and the light falls unevenly,
so neither brightness nor colour gives the object away: a network has to learn texture and outline.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import InputError
from .images import write_map

Field = NDArray[np.float32]  # (H, W)

FAMILIES = ("Ripple", "Spot", "Bark", "Leaf", "Grass", "Pebble")
LAYOUTS = ("COD10K-v3", "flat")
RECORD = "generated.json"  # lies beside the images and says what made them
RECIPE = 1  # raised when the same seed would give other images
MOST, SMALLEST = 10_000, 32  # images in a split; pixels on the short side
AREA = (0.01, 0.40)  # share of the image that the object covers, log-uniform between the two
HUES = (0.07, 0.10, 0.14, 0.24, 0.33, 0.55)  # bark, sand, straw, moss, leaf, slate


PERIODS = {
    "Ripple": (6, 9),
    "Spot": (6, 9),
    "Bark": (7, 10),
    "Leaf": (5, 7),
    "Grass": (7, 10),
    "Pebble": (7, 10),
}
CONTRAST = (0.35, 0.6)
RELIEF = (0.2, 0.45)
FACTOR = (1.9, 2.4)


class Texture(NamedTuple):
    """The statistics of a texture: family, period in pixels, direction in radians, elongation."""

    family: str
    period: float
    angle: float
    stretch: float


def make_synthetic(
    root: str | Path,
    *,
    train: int = 400,
    test: int = 100,
    size: int = 96,
    noncam: float = 0.2,
    seed: int = 0,
    layout: str = "COD10K-v3",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a generated data set of JPEG images and PNG masks (0/255) to `root`; return `root`.

    `train` and `test` count images, `noncam` is the share of them without an object (COD10K's
    NonCAM: an empty mask), `size` is the short side in pixels, the long side is up to a third
    longer. `layout` is "COD10K-v3" (Train|Test/Image + GT_Object) or "flat" (Imgs + GT, both
    splits together). Image i of a split depends on seed, size, noncam and i alone, not on the
    counts. `progress(done, total)` is called after each image.
    A folder that holds the same set already is returned at once; any other content is left alone.
    Raises InputError for counts, sizes, shares and layouts out of range and for a folder in use.
    """
    root = Path(root)
    wanted = {"recipe": RECIPE, "train": train, "test": test, "size": size}
    wanted |= {"noncam": noncam, "seed": seed, "layout": layout}
    _check(train, test, size, noncam, layout)
    if _holds(root, wanted):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    # Written elsewhere and renamed when complete, so an interrupted call leaves no half set behind.
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as folder:
        made = Path(folder) / "set"
        for done, (split, index) in enumerate(_tasks(train, test), start=1):
            _write(made, split, index, size, noncam, seed, layout)
            if progress is not None:
                progress(done, train + test)
        (made / RECORD).write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        if root.exists():
            root.rmdir()
        made.rename(root)
    return root


def _check(train: int, test: int, size: int, noncam: float, layout: str) -> None:
    if not (0 <= train <= MOST and 0 <= test <= MOST and train + test > 0):
        raise InputError(
            f"Cannot generate {train} training and {test} test images: "
            f"give counts from 0 to {MOST}, at least one image in all."
        )
    if size < SMALLEST:
        raise InputError(
            f"Cannot generate images of {size} px: the smallest objects would have no texture. "
            f"Give a size of at least {SMALLEST}."
        )
    if not 0 <= noncam <= 1:
        raise InputError(f"noncam={noncam} is no share of images: give a number from 0 to 1.")
    if layout not in LAYOUTS:
        raise InputError(f"Unknown layout {layout!r} for generated data: choose one of {LAYOUTS}.")


def _holds(root: Path, wanted: dict[str, object]) -> bool:
    """True: the same set is there. False: nothing is there. Anything else must not be touched."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    record = root / RECORD
    found = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    if found == wanted and sum(1 for _ in root.rglob("*.jpg")) == found["train"] + found["test"]:
        return True
    differ = [f"{key}={found[key]}" for key in wanted if found and found.get(key) != wanted[key]]
    content = f"another generated set ({', '.join(differ) or 'incomplete'})" if found else "files"
    raise InputError(f"{root} already holds {content}: choose another folder or remove this one.")


def _tasks(train: int, test: int) -> list[tuple[str, int]]:
    return [("Train", index) for index in range(train)] + [("Test", index) for index in range(test)]


def _write(
    root: Path, split: str, index: int, size: int, noncam: float, seed: int, layout: str
) -> None:
    empty = math.floor((index + 1) * noncam) > math.floor(index * noncam)
    rng = np.random.default_rng([seed, size, split == "Test", index])
    family, image, mask = _make_image(rng, size, empty)
    number = index + 1 + MOST * (split == "Test")  # as in COD10K, no name occurs in both splits
    kind = "NonCAM" if empty else "CAM"
    name = f"COD10K-{kind}-9-Generated-{FAMILIES.index(family) + 1}-{family}-{number}"
    images, masks = ("Imgs", "GT") if layout == "flat" else (f"{split}/Image", f"{split}/GT_Object")
    write_map(root / masks / f"{name}.png", mask)
    (root / images).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / images / f"{name}.jpg", quality=95)


def _make_image(
    rng: np.random.Generator, size: int, empty: bool
) -> tuple[str, NDArray[np.uint8], Field]:
    """Return the texture family, the image (H, W, 3) and its mask (H, W) of 0 and 1."""
    longer = round(size * rng.choice([1, 1, 1.17, 1.33]))
    shape = (size, longer) if rng.random() < 0.7 else (longer, size)
    family = str(rng.choice(FAMILIES))
    unit = size / 96
    period = unit * rng.uniform(*PERIODS[family])
    texture = Texture(family, period, rng.uniform(0, math.pi), rng.uniform(1.6, 2.4))
    mask = np.zeros(shape, np.float32) if empty else _place(rng, shape)
    tone = _equalise(_height(rng, shape, texture), mask < 0.5)
    if not empty:
        inner = _equalise(_height(rng, shape, _shifted(rng, texture)), mask >= 0.5)
        ease = float(np.interp(mask.mean(), [0.02, 0.1], [0.65, 1]))
        inner = 0.5 + (inner - 0.5) * rng.uniform(*CONTRAST) * ease
        border = cv2.GaussianBlur(mask, (0, 0), unit * rng.uniform(0.6, 1.0))
        tone += (inner - tone) * border
    return family, _colour(rng, tone, _relief(rng, mask, unit), unit), mask


def _relief(rng: np.random.Generator, mask: Field, unit: float) -> Field:
    """Light on the object's round edge: one side a little brighter, the other darker; mean 0."""
    strength, angle = rng.uniform(*RELIEF), rng.uniform(0, 2 * math.pi)
    down, right = np.gradient(cv2.GaussianBlur(mask, (0, 0), 1.5 * unit) * 4 * unit)
    return np.asarray(strength * (down * math.sin(angle) + right * math.cos(angle)), np.float32)


def _shifted(rng: np.random.Generator, texture: Texture) -> Texture:
    """The object's statistics: turned by 50 to 90 degrees, and about half as coarse."""
    turn = rng.uniform(0.28, 0.5) * math.pi * int(rng.choice([-1, 1]))
    return texture._replace(
        angle=texture.angle + turn, period=texture.period / rng.uniform(*FACTOR)
    )


def _height(rng: np.random.Generator, shape: tuple[int, int], texture: Texture) -> Field:
    if texture.family in ("Leaf", "Pebble"):
        return _cells(rng, shape, texture)
    if texture.family == "Grass":
        return _strokes(rng, shape, texture)
    return _noise(rng, shape, texture)


def _noise(rng: np.random.Generator, shape: tuple[int, int], texture: Texture) -> Field:
    """White noise through a filter: log-Gabor (Field, JOSA A 1987) or a fractal's power law."""
    y, x = (
        np.fft.fftfreq(shape[0])[:, None].astype(np.float32),
        np.fft.rfftfreq(shape[1])[None].astype(np.float32),
    )
    along = x * math.cos(texture.angle) + y * math.sin(texture.angle)
    across = y * math.cos(texture.angle) - x * math.sin(texture.angle)
    bark = texture.family == "Bark"
    if bark:
        along, across = along * texture.stretch * 1.4, across / 1.4
    radius = np.maximum(texture.period * np.hypot(along, across), 1e-6)
    gain = np.exp(-(np.log(radius) ** 2) / (2 * (0.6 if bark else 0.3) ** 2))
    if texture.family == "Ripple":
        gain *= np.exp(-((np.arctan2(along, np.abs(across)) / 0.35) ** 2) / 2)
    white = np.fft.rfft2(rng.standard_normal(shape, np.float32))
    return np.fft.irfft2(white * gain, shape).astype(np.float32)


def _cells(rng: np.random.Generator, shape: tuple[int, int], texture: Texture) -> Field:
    """Voronoi cells around a jittered lattice (Worley, SIGGRAPH 1996): leaves, or round pebbles."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    long = texture.stretch if texture.family == "Leaf" else 1.3
    u = (x * math.cos(texture.angle) + y * math.sin(texture.angle)) / (texture.period * long)
    v = (y * math.cos(texture.angle) - x * math.sin(texture.angle)) / texture.period
    table = rng.random((3, 64 * 64), np.float32)  # jitter along, jitter across, tone
    column, row = np.floor(u).astype(np.int32), np.floor(v).astype(np.int32)
    u, v = u - column, v - row
    nearest, second = np.full(shape, 9, np.float32), np.full(shape, 9, np.float32)
    tone = np.zeros(shape, np.float32)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            cell = (row + j) % 64 * 64 + (column + i) % 64
            distance = (table[0][cell] + i - u) ** 2 + (table[1][cell] + j - v) ** 2
            tone = np.where(distance < nearest, table[2][cell], tone)
            second = np.minimum(second, np.maximum(distance, nearest))
            nearest = np.minimum(nearest, distance)
    nearest, second = np.sqrt(nearest), np.sqrt(second)
    gap = np.minimum((second - nearest) * 3, 1)
    return np.asarray(0.6 * tone + 0.7 * gap - 0.6 * nearest, np.float32)


def _strokes(rng: np.random.Generator, shape: tuple[int, int], texture: Texture) -> Field:
    """Blades of grass: straight strokes of scattered direction, the later ones lie on top."""
    canvas = np.full(shape, 128, np.uint8)
    length, width = texture.period * 2.2, max(1, round(texture.period / 4.5))
    count = int(4 * shape[0] * shape[1] / (length * width))
    middle = rng.random((count, 2)) * shape[::-1]
    angle = texture.angle + rng.normal(0, 0.25, count)
    half = np.stack([np.cos(angle), np.sin(angle)], 1) * length * rng.uniform(0.3, 0.7, (count, 1))
    ends = np.stack([middle - half, middle + half], 1)
    for tone, blades in zip(
        rng.permuted(np.arange(40, 250, 7)), np.array_split(ends, 30), strict=True
    ):
        points = np.rint(blades * 16).astype(np.int32)
        cv2.polylines(canvas, list(points), False, int(tone), width, cv2.LINE_AA, 4)
    return canvas.astype(np.float32)


def _equalise(height: Field, region: NDArray[np.bool_]) -> Field:
    """Map heights to ranks 0...1 within the region: every region gets the same distribution."""
    shares = np.linspace(0, 1, 129)
    return np.interp(height, np.quantile(height[region], shares), shares).astype(np.float32)


def _place(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """A silhouette somewhere in the image, of an area drawn from AREA; (H, W) of 0 and 1."""
    goal = math.exp(rng.uniform(*np.log(AREA)))
    silhouette = _silhouette(rng, chunky=not 0.04 < goal < 0.15)
    if 0.03 < goal < 0.15 and rng.random() < 0.25:
        second = _silhouette(rng, chunky=False)
        silhouette = np.concatenate([silhouette, np.roll(second, rng.integers(40), 0)], 1)
    rows, columns = np.flatnonzero(silhouette.any(1)), np.flatnonzero(silhouette.any(0))
    silhouette = silhouette[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    seat, scale = rng.random(2), math.sqrt(goal * shape[0] * shape[1] / silhouette.sum())
    best, miss = np.zeros(shape, np.float32), math.inf
    for _ in range(7):  # thin parts vanish and edges cut off, so the scale is corrected
        mask = _rescaled(silhouette, shape, scale, seat)
        area = max(float(mask.mean()), 1e-3)
        if abs(area - goal) < miss:
            best, miss = mask, abs(area - goal)
        scale *= min(math.sqrt(goal / area), 1.3)
    return best


def _rescaled(
    silhouette: Field, shape: tuple[int, int], scale: float, seat: NDArray[np.float64]
) -> Field:
    """The silhouette at this scale; `seat` 0...1 slides it from one edge to the other."""
    down, right = (np.array(shape) - np.array(silhouette.shape) * scale) * seat
    smooth = cv2.GaussianBlur(silhouette, (0, 0), max(0.4 / scale, 0.3))  # against aliasing
    move = np.array([[scale, 0, right], [0, scale, down]])
    return (cv2.warpAffine(smooth, move, shape[::-1]) >= 0.5).astype(np.float32)


def _silhouette(rng: np.random.Generator, *, chunky: bool) -> Field:
    """An animal-like blob: a bent body of changing girth with head, tail and legs, on 256 x 256."""
    canvas = np.zeros((256, 256), np.float32)
    steps = np.linspace(-1, 1, 25)
    heading = (
        rng.uniform(0, 2 * math.pi) + rng.uniform(-1, 1) * steps + rng.uniform(-1, 1) * steps**2
    )
    length = rng.uniform(60, 90) if chunky else rng.uniform(90, 160)
    spine = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), 0) * length / len(steps)
    spine += 128 - spine.mean(0)
    lobes = rng.uniform(24, 38, 2) if chunky else rng.uniform(13, 28, 2)
    girth = np.interp(steps, [-1, -0.5, 0.2, 0.7, 0.9, 1], [3, lobes[0], lobes[1], 9, 15, 10])
    for point, radius in zip(spine, girth, strict=True):
        cv2.circle(canvas, _pixel(point), round(radius), 1.0, -1)
    for joint in rng.integers(6, 19, rng.integers(0, 3 if chunky else 7)):
        side = heading[joint] + rng.choice([-1, 1]) * rng.uniform(0.8, 2.2)
        knee = spine[joint] + (girth[joint] + rng.uniform(5, 25)) * _unit(side)
        foot = knee + rng.uniform(10, 25) * _unit(side + rng.uniform(-1.2, 1.2))
        cv2.line(canvas, _pixel(spine[joint]), _pixel(knee), 1.0, 10)
        cv2.line(canvas, _pixel(knee), _pixel(foot), 1.0, 7)
    bend = [_smooth(rng, canvas.shape, 7) * 7 + axis for axis in np.mgrid[:256, :256]]
    return cv2.remap(canvas, *(np.float32(axis) for axis in bend[::-1]), cv2.INTER_LINEAR)


def _unit(angle: float) -> NDArray[np.float64]:
    return np.array([math.cos(angle), math.sin(angle)])


def _pixel(point: NDArray[np.float64]) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _smooth(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Field:
    """Slowly varying noise of about unit variance, (H, W)."""
    coarse = rng.standard_normal((cells, cells), np.float32) * 1.5
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _colour(rng: np.random.Generator, tone: Field, relief: Field, unit: float) -> NDArray[np.uint8]:
    """Colour a map of tones 0...1 by one palette, with patches, uneven light and sensor noise."""
    shape = tone.shape
    litter = cv2.GaussianBlur(rng.standard_normal(shape, np.float32), (0, 0), 0.8 * unit)
    tone = np.clip(tone + 0.05 * litter / litter.std(), 0, 1)
    dark, light = rng.uniform(0.12, 0.28), rng.uniform(0.55, 0.75)
    knots = [0, rng.uniform(0.35, 0.65), 1]
    lightness = np.interp(tone, knots, [dark, (dark + light) / 2, light]).astype(np.float32)
    hue = float(rng.choice(HUES)) + rng.normal(0, 0.015) + 0.015 * _smooth(rng, shape, 3)
    hue = hue + rng.uniform(-0.05, 0.05) * tone
    saturation = (
        rng.uniform(0.1, 0.3) + 0.05 * _smooth(rng, shape, 4) + rng.uniform(-0.1, 0.1) * tone
    )
    hls = cv2.merge([hue % 1 * 360, lightness, np.clip(saturation, 0.02, 1)])
    colour = cv2.cvtColor(hls, cv2.COLOR_HLS2RGB)
    x, y = np.linspace(-1, 1, shape[1])[None], np.linspace(-1, 1, shape[0])[:, None]
    slope = rng.normal(0, 0.13, 2)
    shine = (1 + slope[0] * y + slope[1] * x + 0.1 * _smooth(rng, shape, 4)).astype(np.float32)
    shine += relief
    noise = rng.standard_normal(colour.shape, np.float32) * rng.uniform(0.005, 0.02)
    return np.rint(np.clip(colour * shine[..., None] + noise, 0, 1) * 255).astype(np.uint8)
