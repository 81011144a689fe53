"""Figures of images: what a network found, what it missed, and how sure it was.

Maps are uint8 of 0...255 and masks of 0 and 1, each (H, W) like its image; sizes may differ from
image to image. Where there is an object, a map is stretched to 0...1 before it is cut, as the
metrics do; without a mask it is cut as it is, or an image of nothing would always hold something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from ..data.images import Array, our_mark, read_grey, read_image
from ..data.masks import IGNORED, object_share, read_labels, read_objects
from ..data.pairs import Pair
from ..data.reading import NOTHING_IGNORED
from ..errors import InputError
from ..evaluation.metrics import Cut, cut
from .canvas import STYLE, WIDTH, Names, Picture, empty_picture, plain
from .style import BLACK, BLUE, GREY, ORANGE, PURPLE, VERDICTS, YELLOW, error_map

THRESHOLDS = np.arange(100) / 100
CURVES = {"iou": "IoU", "f": "F (beta$^2$ = 0.3)"}
TINT = tuple(bytes.fromhex(PURPLE[1:]))  # of what was found: a colour that is rare outdoors
RULE = "IoU = hit / (hit + miss + false alarm), in pixels"
CUT = "the map is stretched to 0...1, then cut at 0.5"


@rc_context(STYLE)
def show_pairs(images: Sequence[Array], masks: Sequence[Array], names: Names) -> Figure:
    """Draw a sample of a data set: each image with its object's outline, and its mask.

    `images`: (H, W, 3) uint8 each, `masks`: (H, W) of 0, 1 and IGNORED each; sizes may differ.
    """
    if not len(images):
        return empty_picture("Image and mask", "There is no image to show.")
    count = -(-len(images) // 3)
    figure = Picture(figsize=(WIDTH, 0.6 + 2.1 * count), layout="constrained")
    axes = blank(figure, count, 6)
    cells = axes.reshape(-1, 2)[: len(images)]
    for (left, right), image, mask, name in zip(cells, images, masks, names, strict=True):
        left.imshow(image)
        right.imshow(np.array([0.0, 1.0, 0.5])[mask], cmap="gray", vmin=0, vmax=1)
        outline(left, (mask == 1).view(np.uint8))
        size = f"{mask.shape[1]} x {mask.shape[0]} px, object {100 * object_share(mask):.1f} %"
        if (mask == IGNORED).any():
            size += f", {100 * (mask == IGNORED).mean():.1f} % ignored (grey)"
        left.set_title(f"{short(name)}\n{size}", fontsize=7.5)
    figure.suptitle(f"n = {len(images)} images, the mask's outline in yellow")
    return figure


@rc_context(STYLE)
def show_predictions(
    preview: Mapping[str, Any], *, rows: int = 6, title: str = "", note: str = ""
) -> Figure:
    """Draw a row per image: image, mask, probability, and where prediction and mask differ.

    `preview`: names, and image, mask and probability (the map) as lists or stacked, as in a run's
    preview.npz; "notes", if given, are written beside each IoU, and `note` says what they are. IoU
    is that of the maps shown.
    """
    total = len(preview.get("names", ()))
    if not total:
        return empty_picture("Predictions", "No prediction has been made yet.")
    n = min(rows, total)
    keys = ("names", "image", "mask", "probability")
    items = list(
        zip(*(preview[key][:n] for key in keys), preview.get("notes", [""] * n)[:n], strict=True)
    )
    heights = [_height(mask) for mask in preview["mask"][:n]]
    figure = Picture(figsize=(WIDTH, 0.9 + sum(heights)), layout="constrained")
    axes = blank(figure, n, 4, heights)
    headings = ("image", "mask", "probability: black 0, white 1", "prediction against mask")
    for ax, heading in zip(axes[0], headings, strict=True):
        ax.set_title(f"{heading}\n", fontsize=9)
    scores = [_draw_prediction(row, *item) for row, item in zip(axes, items, strict=True)]
    legend(figure, VERDICTS)
    scored = [score for score in scores if score is not None]
    mean = f"; mean IoU of these {len(scored)}: {np.mean(scored):.2f}" if scored else ""
    shapes = {np.shape(mask) for mask in preview["mask"][:n]}
    size = "{1} x {0} px".format(*shapes.pop()) if len(shapes) == 1 else "the masks' own sizes"
    figure.suptitle(f"{title or f'{n} of {total} images'} at {size}{mean}\n{RULE}; {CUT}{note}")
    return figure


@rc_context(STYLE)
def show_overlay(
    image: Array, probability: Array, mask: Array | None = None, name: str = ""
) -> Picture:
    """Draw one image large: what was found on it, the map and, given its mask, where they differ.

    Without a mask the outline is that of probability above 0.5.
    """
    panels = 2 if mask is None else 3
    figure = Picture(figsize=(WIDTH, 1.1 + WIDTH / panels * slope(image)), layout="constrained")
    axes = blank(figure, 1, panels)[0]
    truth = np.zeros(image.shape[:2], bool) if mask is None else mask > 0
    shown = cut(probability, truth)
    axes[0].imshow(overlay(image, shown.found))
    axes[0].set_title("found: tinted")
    axes[1].imshow(probability, cmap="gray", vmin=0, vmax=255)
    axes[1].set_title("probability: black 0, white 1")
    if mask is None:
        result = f"{100 * shown.found.mean():.1f} % of the image above probability 0.5"
    else:
        outline(axes[0], truth)
        axes[2].imshow(error_map(image, truth, shown.found))
        axes[2].set_title("prediction against mask")
        axes[0].set_title("found: tinted; mask: yellow line")
        legend(figure, VERDICTS)
        result = verdict(shown) + (f"; {RULE}; {CUT}" if truth.any() else "")
    figure.suptitle(f"{short(name)}\n{result}")
    return figure


@rc_context(STYLE)
def show_threshold(
    image: Array, probability: Array, mask: Array, threshold: float = 0.5, name: str = ""
) -> Figure:
    """Draw one image cut at `threshold` (0...1), and how IoU and F depend on it.

    For a mask without an object, the share of the image that is falsely found takes their place.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"The threshold is {threshold}; choose one of 0 to 1.")
    wanted = mask > 0
    shown = cut(probability, wanted, threshold)
    figure = Picture(figsize=(WIDTH, 4.2 + WIDTH / 3 * slope(image)), layout="constrained")
    axes = figure.subplot_mosaic(
        [["image", "map", "errors"], ["curve"] * 3], height_ratios=[WIDTH / 3 * slope(image), 2.6]
    )
    axes["image"].imshow(overlay(image, shown.found))
    outline(axes["image"], wanted)
    axes["map"].imshow(shown.stretched, cmap="gray", vmin=0, vmax=1)
    axes["errors"].imshow(error_map(image, wanted, shown.found))
    headings = (
        f"found at {threshold:.2f}: tinted; mask: yellow line",
        "map, stretched to 0...1" if wanted.any() else "map",
        "prediction against mask",
    )
    for ax, heading in zip(list(axes.values())[:3], headings, strict=True):
        ax.set_axis_off()
        ax.set_title(heading)
    curves = cut(probability, wanted, *THRESHOLDS).curves
    names = CURVES if wanted.any() else {"false_alarm": "false alarm, share of the image"}
    _draw_curves(axes["curve"], {names[key]: curves[key] for key in names}, threshold)
    legend(figure, VERDICTS)
    figure.suptitle(f"{short(name)}: {verdict(shown)} at threshold {threshold:.2f}\n{RULE}")
    return figure


def overlay(image: Array, found: NDArray[np.bool_]) -> Array:
    """Return the image (H, W, 3) with what was found (H, W) tinted and outlined."""
    picture = image.copy()
    picture[found] = (0.6 * image[found] + 0.4 * np.array(TINT)).astype(np.uint8)
    outlines, _ = cv2.findContours(found.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, TINT, max(1, round(max(found.shape) / 300)))
    return picture


def read_pair(pair: Pair) -> tuple[Array, Array]:
    """Return a pair's image (H, W, 3) and mask (H, W) of 0 and 1, the image at the mask's size."""
    image, mask = read_image(pair.image), read_objects(pair)
    return fitted(image, mask.shape), mask


def counted(probability: Array, pair: Pair) -> Array:
    """Return a map (H, W) with nothing found, its lowest value, in pixels that count nowhere."""
    if pair.how.ignore == NOTHING_IGNORED:
        return probability
    ignored = read_labels(pair) == IGNORED
    return np.where(ignored, probability.min(), probability).astype(np.uint8)


def preview_of(pairs: Sequence[Pair], maps: Sequence[Array]) -> dict[str, Any]:
    """Return what `show_predictions` draws: pairs and their maps as they count, at mask size."""
    images, masks = zip(*map(read_pair, pairs), strict=True) if pairs else ((), ())
    names = [pair.name for pair in pairs]
    maps = [counted(each, pair) for each, pair in zip(maps, pairs, strict=True)]
    return {"names": names, "image": images, "mask": masks, "probability": maps}


def fitted(image: Array, shape: tuple[int, ...]) -> Array:
    """Return an image or map at (H, W); copies of one photo may differ by a rounded pixel."""
    if image.shape[:2] == shape:
        return image
    return np.asarray(cv2.resize(image, shape[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def write_overlays(images: Sequence[Path], maps: Path) -> int:
    """Write maps/overlays/<stem>.png for each image; return how many.

    `maps` holds <stem>.png of each image, as `predict_folder` writes them. Raises InputError when
    a map is missing or of another size than its image.
    """
    (maps / "overlays").mkdir(parents=True, exist_ok=True)
    for path in images:
        image, probability = read_image(path), read_grey(maps / f"{path.stem}.png")
        if image.shape[:2] != probability.shape:
            raise InputError(
                f"{maps / path.stem}.png has (height, width) {probability.shape}, its image "
                f"{image.shape[:2]}. Predict this image again."
            )
        write_overlay(maps / "overlays" / f"{path.stem}.png", image, probability > 127)
    return len(images)


def write_overlay(path: Path, image: Array, found: NDArray[np.bool_]) -> None:
    """Write an image with what was found tinted, as a picture that may be replaced by another."""
    Image.fromarray(overlay(image, found)).save(path, pnginfo=our_mark())


def _draw_curves(ax: Axes, curves: Mapping[str, NDArray[np.float64]], threshold: float) -> None:
    for (measure, values), colour in zip(curves.items(), (BLUE, ORANGE), strict=False):
        at = int(values.argmax())
        here = np.interp(threshold, THRESHOLDS, values)
        ax.plot(THRESHOLDS, values, color=colour, label=f"{measure}: {here:.2f} here")
        if len(curves) > 1:
            best = f"its best, {values[at]:.2f} at {THRESHOLDS[at]:.2f}"
            ax.plot(THRESHOLDS[at], values[at], "o", color=colour, mfc="none", label=best)
    ax.axvline(threshold, color=BLACK, linestyle="--", linewidth=1, label="chosen threshold")
    ax.set(xlabel="threshold", xlim=(0, 1), ylim=(0, 1.02), ylabel="0 to 1")
    ax.set_title("This image alone: its best threshold is known only with its mask")
    # Below: lines may run anywhere.
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(ax.get_lines()))


def _draw_prediction(
    axes: NDArray[Any], name: str, image: Array, mask: Array, probability: Array, note: str
) -> float | None:
    wanted = np.asarray(mask) > 0
    shown = cut(probability, wanted)
    axes[0].imshow(image)
    axes[1].imshow(wanted, cmap="gray", vmin=0, vmax=1)
    axes[2].imshow(probability / 255, cmap="gray", vmin=0, vmax=1)
    axes[3].imshow(error_map(image, wanted, shown.found))
    heading = axes[3].get_title(loc="left") + verdict(shown) + (note and f", {note}")
    axes[3].set_title(heading, fontsize=9)
    axes[0].text(  # not a title: a long name would widen its column
        0, 1.03, short(str(name)), transform=axes[0].transAxes, fontsize=8, in_layout=False
    )
    return shown.iou


def verdict(shown: Cut) -> str:
    """Return the IoU in words, or the false alarm where there is no object."""
    alarm = f"no object, {100 * shown.found.mean():.1f} % false alarm"
    return alarm if shown.iou is None else f"IoU {shown.iou:.2f}"


def blank(
    figure: Figure, rows: int, columns: int, heights: Sequence[float] | None = None
) -> NDArray[Any]:
    """Return (rows, columns) axes without frame and ticks, for pictures; `heights` of the rows."""
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    for ax in axes.flat:
        ax.set_axis_off()
        ax.set_anchor("N")  # pictures of several shapes keep their headings in line
    return axes


def outline(ax: Axes, mask: NDArray[Any], colour: str = YELLOW) -> None:
    """Draw the mask's outline; yellow has a dark rim, so that it shows on any photo."""
    if mask.any() and not mask.all():
        for line, width in ((BLACK, 2), (YELLOW, 1)) if colour == YELLOW else ((colour, 1),):
            ax.contour(mask, [0.5], colors=[line], linewidths=width)


def legend(figure: Figure, colours: Mapping[str, str]) -> None:
    """Write what each colour means below the figure."""
    patches = [
        Patch(facecolor=colour, edgecolor=GREY, label=name) for name, colour in colours.items()
    ]
    figure.legend(handles=patches, loc="outside lower right", ncols=len(patches))


def slope(image: Array) -> float:
    """Return height / width, bounded so that no figure becomes a tower."""
    return min(image.shape[0] / image.shape[1], 1.5)


def _height(mask: Array) -> float:
    """Return the inches of a row; a portrait is drawn smaller, not higher than a square."""
    return 0.3 + WIDTH / 4.2 * min(slope(mask), 1.0)


def short(name: str, most: int = 40) -> str:
    """Return the name as a figure shows it, with its middle left out when it is long."""
    name = name.replace("\n", "?")
    return plain(
        name if len(name) <= most else f"{name[: most // 2 - 1]}...{name[-most // 2 + 2 :]}"
    )
