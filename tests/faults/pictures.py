"""Images as strangers' disks hold them: of every form, whole and damaged, under odd names."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from camoxpert_nb.data.images import Array

SIDE = 24  # of most: a cache of this side then holds their very pixels
NAMES = (
    *("two words", " before", "dots.in.it", "Ümläut", "Ce\u0301dille", "C\u00e9dille", "-dash"),
    *("line\nbreak", "tab\there", "long" * 45, "<b>tag", "<script>alert(1)", "$x^2$", "$\\frac$"),
    *("100%", "a,b", "it's", '"said"', "#1", "\x1b[2J", "\x1b]0;x\x07", "\u202etxt", "日本", "🦎"),
    *("\udcff", "~", "*", "[1]", "{x}", "C:", "back\\slash", "&amp;", "a;rm -rf", "`x`"),
)


class Picture(NamedTuple):
    """What lies in a file. pixels: (H, W, 3) that reading must give, None where it cannot be told.

    whole: nothing is damaged, so it must be read. how: how it came to be, in words.
    """

    suffix: str
    data: bytes
    pixels: Array | None
    whole: bool
    how: str


def _noise(rng: random.Random, shape: tuple[int, ...]) -> Array:
    """Return big spots of values, as photos have them: not what every format stores alike."""
    random = np.random.default_rng(rng.getrandbits(32))
    return random.integers(0, 256, shape, np.uint8)


def _stored(image: Image.Image, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def _side(rng: random.Random) -> tuple[int, int]:
    sizes = [(SIDE, SIDE)] * 6 + [(1, 1), (1, 40), (SIDE, 2 * SIDE), (33, 17)]
    return rng.choice(sizes)


Made = tuple[str, bytes, Array]


def _plain(rng: random.Random) -> Made:
    pixels = _noise(rng, (*_side(rng), 3))
    kind = rng.choice(["PNG", "BMP", "TIFF", "PPM", "TGA", "WEBP"])
    how = {"lossless": True} if kind == "WEBP" else {}
    return f".{kind.lower()}", _stored(Image.fromarray(pixels), kind, **how), pixels


def _jpeg(rng: random.Random) -> Made:
    small = Image.fromarray(_noise(rng, (4, 4, 3))).resize(_side(rng)[::-1], Image.BILINEAR)
    data = _stored(small, "JPEG", quality=90, progressive=rng.random() < 0.5)
    return rng.choice([".jpg", ".jpeg"]), data, np.asarray(Image.open(io.BytesIO(data)))


def _cmyk(rng: random.Random) -> Made:
    image = Image.fromarray(_noise(rng, (*_side(rng), 4)), "CMYK")
    return ".tif", _stored(image, "TIFF"), np.asarray(image.convert("RGB"))


def _deep(rng: random.Random) -> Made:
    values = _noise(rng, _side(rng)).astype(np.uint16) * 257
    values[0, 0] = 65535
    grey = (values // 257).astype(np.uint8)
    kind = rng.choice(["PNG", "TIFF"])
    return f".{kind.lower()}", _stored(Image.fromarray(values), kind), np.stack([grey] * 3, -1)


def _modes(rng: random.Random) -> Made:
    mode = rng.choice(["1", "L", "LA", "P", "RGBA", "PA"])
    pixels = _noise(rng, (*_side(rng), 4))
    if mode in ("P", "1"):
        image = Image.fromarray(pixels[..., :3]).convert(mode)
    else:
        image = Image.fromarray(pixels, "RGBA").convert(mode.replace("PA", "RGBA"))
    kind = rng.choice(["PNG", "TIFF"])
    return f".{kind.lower()}", _stored(image, kind), np.asarray(image.convert("RGB"))


def _turned(rng: random.Random) -> Made:
    image, exif = Image.fromarray(_noise(rng, (SIDE, 2 * SIDE, 3))), Image.Exif()
    exif[0x0112] = rng.choice([*range(1, 9), 0, 9, 77])
    data = _stored(image, rng.choice(["PNG", "TIFF"]), exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    suffix = ".png" if data.startswith(b"\x89") else ".tif"
    return suffix, data, np.asarray(upright.convert("RGB"))


def _broken_exif(rng: random.Random) -> Made:
    """The tag of a camera that lies about itself; every pixel is there."""
    good = Image.Exif()
    good[0x0112], good[0x010E], good[0x9286] = 1, "x" * 30, 9999
    raw = bytearray(good.tobytes())
    for _ in range(rng.randint(1, 8)):
        raw[rng.randrange(6, len(raw))] = rng.getrandbits(8)
    raw = raw[: rng.randint(6, len(raw))]
    pixels = _noise(rng, (SIDE, SIDE, 3))
    return ".png", _stored(Image.fromarray(pixels), "PNG", exif=bytes(raw)), pixels


def _moving(rng: random.Random) -> Made:
    """Several pictures in one file: the first one counts."""
    kind = rng.choice(["GIF", "WEBP", "TIFF", "PNG"])
    frames = [Image.fromarray(_noise(rng, (SIDE, SIDE, 3)) & 0xC0) for _ in range(3)]
    how = {"lossless": True} if kind == "WEBP" else {}
    frames = [f.quantize(64) if kind == "GIF" else f for f in frames]
    first = np.asarray(frames[0].convert("RGB"))
    data = _stored(frames[0], kind, save_all=True, append_images=frames[1:], **how)
    return f".{kind.lower()}", data, first


WHOLE: tuple[Callable[[random.Random], Made], ...] = (
    *(_plain, _plain, _jpeg, _cmyk, _deep, _modes, _modes, _turned, _broken_exif, _moving),
)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bomb(rng: random.Random) -> tuple[str, bytes]:
    """A header that claims more pixels than any memory holds, or data that swells in a text."""
    side = rng.choice([20_000, 65_000, 2**31 - 1])
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head)
    swollen = zlib.compress(b"\0" * 30_000_000, 9)
    text = _chunk(b"zTXt", b"note\0\0" + swollen) if rng.random() < 0.5 else b""
    gif = b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + b"\0" * 6
    gif += b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x02\x02D\x01\0;"
    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, side, side, 1, 24, *[0] * 6)
    data = {".png": png + text + _chunk(b"IDAT", swollen), ".gif": gif, ".bmp": bmp}
    return rng.choice([*data.items()])


NO_IMAGE = (
    *(
        b"",
        b"\0",
        b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1",
    ),
    *(
        b"PK\x03\x04" + b"\0" * 40,
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        b"GIF89a",
        b"BM",
        b"II*\0",
    ),
    *(
        b"P6\n99999999999 9\n255\n",
        b"P6\n-3 4\n255\nxx",
        b"RIFF\xff\xff\xff\xffWEBPVP8 ",
        b"\xff\xd8",
    ),
    *(b"\x89PNG\r\n\x1a\n", b"MM\0*\xff\xff\xff\xff", b"\0\0\x0a" + b"\0" * 15, b"P1\n"),
)


def _damaged(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    way = rng.choice(["cut", "cut", "flipped", "magic", "zeroed", "doubled", "spliced"])
    place = rng.randrange(len(data) + 1)
    if way == "cut":
        return data[:place], "cut"
    changed = bytearray(data)
    if way == "flipped":
        for _ in range(rng.choice([1, 2, 8, 64])):
            changed[rng.randrange(len(data))] ^= rng.randint(1, 255)
    if way == "magic":
        changed[: rng.randint(1, 8)] = rng.choice(NO_IMAGE)[:8]
    if way == "zeroed":
        changed[place:] = bytes(len(data) - place)
    if way == "doubled":
        changed = changed[:place] + changed
    if way == "spliced":
        other = rng.randrange(len(data) + 1)
        changed = changed[: min(place, other)] + changed[max(place, other) :]
    return bytes(changed), way


def picture(rng: random.Random) -> Picture:
    """Return a picture: about half of them whole."""
    if rng.random() < 0.08:
        suffix, data = _bomb(rng)
        return Picture(suffix, data, None, False, "bomb")
    if rng.random() < 0.08:
        return Picture(rng.choice([".png", ".jpg"]), rng.choice(NO_IMAGE), None, False, "no image")
    make = rng.choice(WHOLE)
    suffix, data, pixels = make(rng)
    how = make.__name__.strip("_")
    if rng.random() < 0.1:
        suffix, how = rng.choice([".png", ".jpg"]), f"{how} under a wrong suffix"
    if rng.random() < 0.2:
        suffix = suffix.upper()
    if rng.random() < 0.5:
        return Picture(suffix, data, pixels, True, how)
    data, way = _damaged(data, rng)
    return Picture(suffix, data, pixels if way == "cut" else None, False, f"{how}, {way}")


def mask(rng: random.Random, size: tuple[int, int]) -> Picture:
    """Return a mask (H, W) of 0 and 255 as PNG, a third of them damaged; pixels: grey, thrice."""
    grey = np.zeros(size, np.uint8)
    grey[: max(size[0] // 2, 1), : max(size[1] // 2, 1)] = 255
    data = _stored(Image.fromarray(grey), "PNG")
    pixels = np.stack([grey] * 3, -1)
    if rng.random() < 0.67:
        return Picture(".png", data, pixels, True, "mask")
    data, way = _damaged(data, rng)
    return Picture(".png", data, pixels if way == "cut" else None, False, f"mask, {way}")


def stem(rng: random.Random, number: int) -> str:
    """Return a file's name, odd in most cases; no two are one, however a system writes them."""
    word = rng.choice([*NAMES, "plain", "plain"])
    return f"{word}{number}" if rng.random() < 0.5 else f"{number}{word}"


def put(path: Path, data: bytes, rng: random.Random, odd: bool) -> str:
    """Write a file, or (odd) something else of its name that no image is; return what it is."""
    ways = ["folder", "circle", "nowhere", "pipe", "device"] if odd else ["file"]
    way = rng.choice(ways)
    if way == "file":
        path.write_bytes(data)
    elif way == "folder":
        path.mkdir()
    elif way == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"circle": path.name, "nowhere": "missing", "device": "/dev/zero"}[way])
    return way
