"""Reading and writing images and masks: the only place that knows about file formats.

Pillow decodes, because it refuses truncated files where OpenCV fills them with grey; OpenCV
resizes, because it is six times faster and its area filter does not alias.
"""

from __future__ import annotations

import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import InputError, few
from ..outside.reading import NO_IMAGES, in_words
from ..outside.refused import naming
from ..outside.slow import reading

Array = NDArray[np.uint8]

# Of tags that nobody reads and of large pictures, without the file's name: nothing to act on.
warnings.filterwarnings("ignore", module=r"PIL\.")

_ORIENTATION = 0x0112  # the EXIF tag that says how to turn the photo; 1: not at all
_WIDTH, _LENGTH = 0x0100, 0x0101  # tags of TIFF: the size as it is stored
SHAPE_TOLERANCE = 0.02  # of height / width: a resized copy may be off by a rounded pixel


class OtherKind(ValueError):
    """A file that is whole, in a form that is not read; its words say what mends it."""


def read_image(path: Path) -> Array:
    """Return the photo as (H, W, 3) uint8 RGB, turned upright as its EXIF tag says.

    Raises InputError, naming the file, when it is missing, truncated or not an image.
    """
    return _decode(path, "RGB")


def read_photo(path: Path) -> tuple[Array, Header]:
    """Return what `read_image` does, and what the header says."""
    with opened(path) as image:
        head = _header(image)
        return upright(image, grey_of(image, "RGB")), head


def read_grey(path: Path) -> Array:
    """Return any image file as (H, W) uint8 grey: masks and predicted maps before thresholding.

    16-bit files are scaled to 8 bits instead of clipped. Raises InputError as `read_image` does.
    """
    return _decode(path, "L")


def binary(grey: Array) -> Array:
    """Return a grey mask (H, W), 0...255, as 0 and 1.

    The field's rule is grey > 128. A mask stored as 0/1 instead of 0/255 would be empty under it,
    so one whose brightest pixel is 1 is taken as 0/1.
    """
    threshold = 0 if grey.max(initial=0) <= 1 else 128
    return (grey > threshold).view(np.uint8)


def read_map(path: Path) -> Array:
    """Return a method's map as (H, W) uint8 grey; a grey map stored in colour is one too.

    Where all colours are one, the map is in the alpha channel.

    Raises InputError where it is coloured, and as `read_grey` does.
    """
    with opened(path) as stored:
        if "A" in stored.mode or "transparency" in stored.info:
            rgba = np.asarray(stored.convert("RGBA"))
            colours, alpha = rgba[..., :3], upright(stored, rgba[..., 3])
            if alpha.min() != alpha.max():
                if (colours == colours[0, 0]).all():
                    return alpha
                raise InputError(
                    f"{path} has values in its colours and in its alpha channel. A map is grey: 0 "
                    "background, 255 object. Save it without alpha."
                )
    image = _decode(path)
    if image.ndim == 2:
        return image
    if (image != image[..., :1]).any():
        raise InputError(f"{path} is coloured. A map is grey: 0 background, 255 object.")
    return image[..., 0]


def resize_image(image: Array, size: int) -> Array:
    """Return (size, size, 3), squashed to a square as the field's evaluation protocol does."""
    shrinking = min(image.shape[:2]) >= size
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size, size), interpolation=interpolation), np.uint8)


def resize_mask(mask: Array, size: int) -> Array:
    """Return (size, size) of 0 and 1: a pixel is object where at least half of its area is.

    Area averaging and one threshold keep thin legs that nearest-neighbour sampling would drop,
    and the result is still binary.
    """
    grey = resize_image(mask * np.uint8(255), size)
    return (grey >= 128).astype(np.uint8)


def write_map(path: Path, probability: NDArray[np.floating], *, ours: bool = True) -> None:
    """Write a (H, W) map of 0...1 as an 8-bit grey PNG, rounded (truncation costs S-measure).

    `ours`: it may be replaced by another map one day, see `is_ours`.
    """
    picture = Image.fromarray(np.rint(probability * 255).astype(np.uint8))
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, pnginfo=our_mark() if ours else None)


MARK = ("Software", "camoxpert_nb")


def our_mark() -> PngInfo:
    """Return what our pictures carry, by which they are known as ours."""
    info = PngInfo()
    info.add_text(*MARK)
    return info


def is_ours(path: Path) -> bool:
    """Say whether a picture was written by this kit."""
    try:
        with Image.open(path) as image:
            return image.info.get(MARK[0]) == MARK[1]
    except Exception:  # see `opened`
        return False


def refuse_foreign(targets: Iterable[Path], way_out: str) -> None:
    """Raise InputError where writing these files would replace one that this kit did not write."""
    foreign = [target for target in targets if target.exists() and not is_ours(target)]
    if foreign:
        raise InputError(
            f"{len(foreign)} files that this kit did not write would be replaced by maps: "
            f"{few(foreign)}. {way_out}"
        )


class Header(NamedTuple):
    """What a file's header says: (height, width) as stored, and how EXIF turns it (1: not)."""

    stored: tuple[int, int]
    orientation: int

    @property
    def shown(self) -> tuple[int, int]:
        """The size (height, width) upright."""
        return self.stored[::-1] if self.orientation in (5, 6, 7, 8) else self.stored


def header(path: Path) -> Header:
    """Return what the header says; InputError if it cannot be read."""
    with opened(path) as image:
        return _header(image)


def _header(image: Image.Image) -> Header:
    """Return what the header of an image says that is not decoded yet."""
    size = image.height, image.width
    tags = getattr(image, "tag_v2", {})  # of TIFF, whose size Pillow gives upright already
    stored = int(tags.get(_LENGTH, size[0])), int(tags.get(_WIDTH, size[1]))
    return Header(stored, _orientation(image))


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) from the header alone, upright; InputError if it cannot be read."""
    return header(path).shown


def turned(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return an array (H, W, ...) as an EXIF orientation of 1...8 turns it."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def upright(image: Image.Image, array: NDArray[Any]) -> NDArray[Any]:
    """Return an image's stored pixels as its own EXIF tag turns them."""
    orientation = _orientation(image)
    return array if orientation == 1 else turned(array, orientation)


def _orientation(image: Image.Image) -> int:
    """Return how EXIF turns an image; not at all where the tag, or all of EXIF, is broken.

    The pixels are whole then, and programs show them as they are stored.
    """
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow raises whatever a wrong number leads to
        return 1
    return value if value in range(1, 9) else 1


def same_shape(image_size: Sequence[int], mask_size: Sequence[int]) -> bool:
    """Say whether two sizes (height, width, ...) have one shape: then both resize to one square."""
    stretch = (image_size[0] * mask_size[1]) / (image_size[1] * mask_size[0])
    return abs(stretch - 1) <= SHAPE_TOLERANCE


def _decode(path: Path, mode: str = "") -> Array:
    """Return the pixels in a mode of Pillow, by default L of a grey file and RGB of others."""
    with opened(path) as image:
        return upright(image, grey_of(image, mode))


def grey_of(image: Image.Image, mode: str = "L") -> Array:
    """Return the stored pixels in a mode, L (H, W) or RGB (H, W, 3); 16 bits become 8."""
    if image.mode == "F":
        raise OtherKind("it holds floating-point values; save it as 8-bit PNG, 0...255")
    if image.mode.startswith("I"):  # 16 bits; values that fit 8 are stored wide but mean them
        wide = np.asarray(image)
        narrow = wide if wide.max(initial=0) <= 255 else wide // 257
        image = Image.fromarray(narrow.astype(np.uint8))
    mode = mode or ("L" if image.mode in ("1", "L") else "RGB")
    return np.asarray(image if image.mode == mode else image.convert(mode))


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open a file for Pillow; whatever turns out to be wrong with it becomes an InputError."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise OtherKind("it is a pipe, device or folder, expected an ordinary file")
        with reading(Path(path)), Image.open(path) as image:
            yield image
    except InputError:  # of what the pixels say
        raise
    except Exception as reason:  # damage makes decoders raise anything, struct.error as KeyError
        found = _other_kind(Path(path))
        error = OtherKind(found) if found else reason
        if not Path(path).exists():
            text = f"{path}: no such file. Check the path, or the data set's download."
        elif found:
            text = f"{path}: cannot be read as an image: {found}."
        elif isinstance(error, OtherKind):
            text = f"{path}: cannot be used as it is ({error})."
        else:
            said = str(error) or type(error).__name__
            text = (
                f"{path}: cannot be read as an image ({said}). The file is damaged or cut short: "
                "download it again, or remove the image and its mask from the data set."
            )
        raise InputError(text) from error


def _other_kind(path: Path) -> str:
    """Say of a file that is text, a web page, a pointer or nothing at all what it is, else ""."""
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                found = in_words(file.read(512))
            return found if found in NO_IMAGES or "(0 bytes)" in found else ""
    return ""
