"""Generated camouflage: a data set that needs no download and is worth learning from.

Every image is one texture with an animal-like region cut from the same texture family with shifted
statistics: turned, finer, of another phase, flatter. Object and background are equalised to the
same distribution and coloured by the same palette, and the light falls unevenly, so neither
brightness nor colour gives the object away: a network has to learn texture and outline.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError
from ..outside.reading import read_json
from ..outside.scratch import scratch, sweep
from .images import write_map

Field = NDArray[np.float32]  # (H, W)

LAYOUTS = ("COD10K-v3", "flat")
RECORD = "generated.json"  # lies beside the images and says what made them
RECIPE = 1  # raised when the same seed would give other images
IMAGES = {"train": 400, "test": 100}  # unless asked otherwise
NONCAM = 0.2  # of them show no object
MOST, SMALLEST = 10_000, 32  # images in a split; pixels on the short side

FAMILIES = ("Ripple", "Spot", "Bark", "Leaf", "Grass", "Pebble")
PERIODS = ((6, 9), (6, 9), (7, 10), (4.5, 6), (6, 8.5), (6, 9))  # pixels of a 96 px background
HUES = (0.07, 0.10, 0.14, 0.24, 0.33, 0.55)  # bark, sand, straw, moss, leaf, slate
# How hard it is. A small network reaches a per-image IoU of 0.6 to 0.7 in a minute or two.
AREA = (0.01, 0.40)  # share of the image that the object covers, log-uniform between the two
FINER = (2.0, 2.5)  # the background's period over the object's
FLATTER = (0.3, 0.55)  # the object's contrast over the background's
RELIEF = (0.3, 0.5)  # light and shadow on the object's edge


class Texture(NamedTuple):
    """The statistics of a texture: family, period in pixels, direction in radians, elongation."""

    family: str
    period: float
    angle: float
    stretch: float


def make_synthetic(
    root: str | Path,
    *,
    train: int = IMAGES["train"],
    test: int = IMAGES["test"],
    size: int = 96,
    noncam: float = NONCAM,
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
    spec: dict[str, Any] = {"recipe": RECIPE, "train": train, "test": test, "size": size}
    spec |= {"noncam": noncam, "seed": seed, "layout": layout}
    _check(**spec)
    sweep(root.parent, root.name)
    if _is_there(root, spec):
        return root
    # Written elsewhere and renamed when complete, so an interrupted call leaves no half set behind.
    with scratch(root.parent, root.name) as folder:
        made = folder / "set"
        tasks = [("Train", i) for i in range(train)] + [("Test", i) for i in range(test)]
        for done, (split, index) in enumerate(tasks, start=1):
            _write(made, split, index, spec)
            if progress is not None:
                progress(done, len(tasks))
        (made / RECORD).write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")
        if root.exists():
            root.rmdir()
        made.rename(root)
    return root


def _check(
    *, train: int, test: int, size: int, noncam: float, seed: int, layout: str, **_: int
) -> None:
    if not (0 <= train <= MOST and 0 <= test <= MOST and train + test > 0):
        raise InputError(
            f"Cannot generate {train} training and {test} test images: "
            f"give counts from 0 to {MOST}, at least one image in all."
        )
    if size < SMALLEST:
        raise InputError(
            f"Images of {size} px are too small for a texture: give {SMALLEST} or more."
        )
    if not 0 <= noncam <= 1:
        raise InputError(f"noncam={noncam} is no share of images: give a number from 0 to 1.")
    if seed < 0:
        raise InputError(f"seed={seed} cannot start a random sequence: give 0 or more.")
    if layout not in LAYOUTS:
        raise InputError(f"Unknown layout {layout!r} for generated data: choose one of {LAYOUTS}.")


def _is_there(root: Path, spec: dict[str, Any]) -> bool:
    """True: the same set is there. False: nothing is there. Anything else must not be touched."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    record = root / RECORD
    found = (
        read_json(record, "what made the images; remove the folder, and they are made anew")
        if record.is_file()
        else {}
    )
    if found == spec and sum(1 for _ in root.rglob("*.jpg")) == spec["train"] + spec["test"]:
        return True
    differ = [f"{key} {found.get(key)}" for key in spec if found.get(key) != spec[key]]
    content = f"another generated set ({', '.join(differ) or 'incomplete'})" if found else "files"
    raise InputError(f"{root} already holds {content}: choose another folder or remove this one.")


def _write(root: Path, split: str, index: int, spec: dict[str, Any]) -> None:
    empty = math.floor((index + 1) * spec["noncam"]) > math.floor(index * spec["noncam"])
    rng = np.random.default_rng([spec["seed"], spec["size"], split == "Test", index])
    family, image, mask = _make_image(rng, spec["size"], empty)
    kind, number = "NonCAM" if empty else "CAM", FAMILIES.index(family) + 1
    unique = index + 1 + MOST * (split == "Test")  # as in COD10K, no name occurs in both splits
    name = f"COD10K-{kind}-9-Generated-{number}-{family}-{unique}"
    flat = spec["layout"] == "flat"
    images, masks = ("Imgs", "GT") if flat else (f"{split}/Image", f"{split}/GT_Object")
    write_map(root / masks / f"{name}.png", mask, ours=False)
    (root / images).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / images / f"{name}.jpg", quality=95)


def _make_image(
    rng: np.random.Generator, size: int, empty: bool
) -> tuple[str, NDArray[np.uint8], Field]:
    """Return the texture family, the image (H, W, 3) and its mask (H, W) of 0 and 1."""
    unit, longer = size / 96, round(size * rng.choice([1, 1, 1.17, 1.33]))
    shape = (size, longer) if rng.random() < 0.7 else (longer, size)
    family = str(rng.choice(FAMILIES))
    period, angle = unit * rng.uniform(*PERIODS[FAMILIES.index(family)]), rng.uniform(0, math.pi)
    texture = Texture(family, period, angle, rng.uniform(1.6, 2.4))
    mask = np.zeros(shape, np.float32) if empty else _place(rng, shape)
    tone = _equalise(_height(rng, shape, texture), mask < 0.5)
    if not empty:
        turned = angle + rng.uniform(0.33, 0.67) * math.pi
        texture = texture._replace(angle=turned, period=period / rng.uniform(*FINER))
        inner = _equalise(_height(rng, shape, texture), mask >= 0.5)
        # A small object holds too little texture to be outlined by, so it is flatter still.
        flatter = rng.uniform(*FLATTER) * float(np.interp(mask.mean(), [0.02, 0.1], [0.4, 1]))
        border = cv2.GaussianBlur(mask, (0, 0), unit * rng.uniform(0.6, 1.0))
        tone += (0.5 + (inner - 0.5) * flatter - tone) * border
    return family, _colour(rng, tone, _relief(rng, mask, unit), unit), mask


def _height(rng: np.random.Generator, shape: tuple[int, int], texture: Texture) -> Field:
    if texture.family in ("Leaf", "Pebble"):
        return _cells(rng, shape, texture)
    return (_strokes if texture.family == "Grass" else _noise)(rng, shape, texture)


def _noise(rng: np.random.Generator, shape: tuple[int, int], texture: Texture) -> Field:
    """Ripples, spots and bark: white noise through a log-Gabor filter (Field, JOSA A 1987)."""
    x, y = np.fft.rfftfreq(shape[1])[None], np.fft.fftfreq(shape[0])[:, None]
    along, across = _turn(x.astype(np.float32), y.astype(np.float32), texture.angle)
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
    """Leaves and pebbles: Voronoi cells around a jittered lattice (Worley, SIGGRAPH 1996)."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    u, v = _turn(x / texture.period, y / texture.period, texture.angle)
    u /= texture.stretch if texture.family == "Leaf" else 1.3
    column, row = np.floor(u).astype(np.int32), np.floor(v).astype(np.int32)
    u, v = u - column, v - row
    right, down, tones = rng.random((3, 64 * 64), np.float32)  # of each cell; the lattice repeats
    nearest, second = np.full(shape, 9, np.float32), np.full(shape, 9, np.float32)
    tone = np.zeros(shape, np.float32)
    for i, j in np.ndindex(3, 3):
        cell = (row + j - 1) % 64 * 64 + (column + i - 1) % 64
        distance = (right[cell] + (i - 1) - u) ** 2 + (down[cell] + (j - 1) - v) ** 2
        tone = np.where(distance < nearest, tones[cell], tone)
        second = np.minimum(second, np.maximum(distance, nearest))
        nearest = np.minimum(nearest, distance)
    nearest, second = np.sqrt(nearest), np.sqrt(second)
    gap = np.minimum((second - nearest) * 3, 1)
    return np.asarray(0.6 * tone + 0.7 * gap - 0.6 * nearest, np.float32)


def _strokes(rng: np.random.Generator, shape: tuple[int, int], texture: Texture) -> Field:
    """Grass: straight blades of scattered direction, the later ones on top."""
    canvas = np.full(shape, 128, np.uint8)
    length, width = texture.period * 2, max(1, round(texture.period / 6))
    count = int(4 * shape[0] * shape[1] / (length * width))
    middle = rng.random((count, 2)) * shape[::-1]
    angle = texture.angle + rng.normal(0, 0.18, count)
    half = np.stack([np.cos(angle), np.sin(angle)], 1) * length * rng.uniform(0.3, 0.7, (count, 1))
    ends = np.rint(np.stack([middle - half, middle + half], 1) * 16).astype(np.int32)
    tones = rng.permuted(np.arange(40, 250, 7))
    for tone, blades in zip(tones, np.array_split(ends, len(tones)), strict=True):
        cv2.polylines(canvas, list(blades), False, int(tone), width, cv2.LINE_AA, 4)
    return canvas.astype(np.float32)


def _turn(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def _equalise(height: Field, region: NDArray[np.bool_]) -> Field:
    """Map heights to ranks 0...1 within the region: every region gets the same distribution."""
    shares = np.linspace(0, 1, 129)
    return np.interp(height, np.quantile(height[region], shares), shares).astype(np.float32)


def _place(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """One silhouette or two, anywhere, of an area drawn from AREA; (H, W) of 0 and 1."""
    goal = math.exp(rng.uniform(*np.log(AREA)))
    silhouette = _silhouette(rng, chunky=not 0.04 < goal < 0.1)
    if 0.03 < goal < 0.15 and rng.random() < 0.25:
        second = _silhouette(rng, chunky=False)
        height = max(len(silhouette), len(second))
        two = [np.pad(s, ((0, height - len(s)), (4, 4))) for s in (silhouette, second)]
        silhouette = np.concatenate(two, 1)
    seat, scale = rng.random(2), math.sqrt(goal * shape[0] * shape[1] / silhouette.sum())
    best, miss = np.zeros(shape, np.float32), math.inf
    for _ in range(7):  # thin parts vanish and edges cut off, so the scale is corrected
        down, right = (np.array(shape) - np.array(silhouette.shape) * scale) * seat
        smooth = cv2.GaussianBlur(silhouette, (0, 0), max(0.4 / scale, 0.3))  # against aliasing
        move = np.array([[scale, 0, right], [0, scale, down]])
        mask = (cv2.warpAffine(smooth, move, shape[::-1]) >= 0.5).astype(np.float32)
        area = max(float(mask.mean()), 1e-3)
        if abs(area - goal) < miss:
            best, miss = mask, abs(area - goal)
        scale *= min(math.sqrt(goal / area), 1.3)
    return best


def _silhouette(rng: np.random.Generator, *, chunky: bool) -> Field:
    """An animal-like blob: a bent body of changing girth with head, tail and legs, cut out."""
    canvas = np.zeros((256, 256), np.float32)
    steps = np.linspace(-1, 1, 25)
    start, bend, curl = rng.uniform(0, 2 * math.pi), rng.uniform(-1, 1), rng.uniform(-1, 1)
    heading = start + bend * steps + curl * steps**2
    length = rng.uniform(60, 90) if chunky else rng.uniform(90, 160)
    spine = np.cumsum(np.exp(1j * heading)) * length / len(steps)  # points as complex numbers
    spine += 128 + 128j - spine.mean()
    lobes = rng.uniform(24, 38, 2) if chunky else rng.uniform(13, 28, 2)
    girth = np.interp(steps, [-1, -0.5, 0.2, 0.7, 0.9, 1], [3, lobes[0], lobes[1], 9, 15, 10])
    for point, radius in zip(spine, girth, strict=True):
        cv2.circle(canvas, _pixel(point), round(radius), 1.0, -1)
    for joint in rng.integers(6, 19, rng.integers(0, 3 if chunky else 7)):
        side = heading[joint] + rng.choice([-1, 1]) * rng.uniform(0.8, 2.2)
        knee = spine[joint] + (girth[joint] + rng.uniform(5, 25)) * np.exp(1j * side)
        foot = knee + rng.uniform(10, 25) * np.exp(1j * (side + rng.uniform(-1.2, 1.2)))
        cv2.line(canvas, _pixel(spine[joint]), _pixel(knee), 1.0, 14)
        cv2.line(canvas, _pixel(knee), _pixel(foot), 1.0, 9)
    down, right = np.mgrid[:256, :256].astype(np.float32)
    down += 7 * _smooth(rng, canvas.shape, 7)
    right += 7 * _smooth(rng, canvas.shape, 7)
    canvas = np.asarray(cv2.remap(canvas, right, down, cv2.INTER_LINEAR), np.float32)
    rows, columns = np.flatnonzero(canvas.any(1)), np.flatnonzero(canvas.any(0))
    return canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _pixel(point: complex) -> tuple[int, int]:
    return round(point.real), round(point.imag)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], cells: int) -> Field:
    """Slowly varying noise of about unit variance, (H, W)."""
    coarse = rng.standard_normal((cells, cells), np.float32) * 1.5
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _relief(rng: np.random.Generator, mask: Field, unit: float) -> Field:
    """Light on the object's round edge: one side a little brighter, the other darker; mean 0."""
    strength, angle = rng.uniform(*RELIEF), rng.uniform(0, 2 * math.pi)
    down, right = np.gradient(cv2.GaussianBlur(mask, (0, 0), 1.5 * unit) * 4 * unit)
    return np.asarray(strength * _turn(right, down, angle)[0], np.float32)


def _colour(rng: np.random.Generator, tone: Field, relief: Field, unit: float) -> NDArray[np.uint8]:
    """Colour tones of 0...1 by one palette, with patches, uneven light and sensor noise."""
    shape = tone.shape
    litter = cv2.GaussianBlur(rng.standard_normal(shape, np.float32), (0, 0), 0.8 * unit)
    tone = np.clip(tone + 0.05 * litter / litter.std(), 0, 1)
    dark, light, middle = rng.uniform(0.12, 0.28), rng.uniform(0.55, 0.75), rng.uniform(0.35, 0.65)
    lightness = np.interp(tone, [0, middle, 1], [dark, (dark + light) / 2, light])
    hue = float(rng.choice(HUES)) + rng.normal(0, 0.015) + rng.uniform(-0.05, 0.05) * tone
    hue = (hue + 0.015 * _smooth(rng, shape, 3)) % 1 * 360
    saturation = rng.uniform(0.1, 0.3) + rng.uniform(-0.1, 0.1) * tone
    saturation = np.clip(saturation + 0.05 * _smooth(rng, shape, 4), 0.02, 1)
    colour = cv2.cvtColor(
        cv2.merge([hue, lightness.astype(np.float32), saturation]), cv2.COLOR_HLS2RGB
    )
    x, y = np.linspace(-1, 1, shape[1])[None], np.linspace(-1, 1, shape[0])[:, None]
    slope = rng.normal(0, 0.13, 2)
    shine = 1 + slope[0] * x + slope[1] * y + 0.1 * _smooth(rng, shape, 4) + relief
    noise = rng.standard_normal(colour.shape, np.float32) * rng.uniform(0.005, 0.02)
    shone = colour * shine[..., None].astype(np.float32) + noise
    return np.rint(np.clip(shone, 0, 1) * 255).astype(np.uint8)
