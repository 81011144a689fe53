"""What a network finds in photos without masks: `predict` for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from numpy.typing import NDArray

from ..data.cache import Progress
from ..data.images import read_image, write_map
from ..data.pairs import Pair
from ..errors import InputError
from ..evaluation.files import by_stem
from ..evaluation.judge import open_predictor
from ..evaluation.predict import PLAIN, Kept, Views, images_to_predict
from ..outside.paths import given
from ..runs.run import Run
from .canvas import STYLE, WIDTH, Picture
from .predictions import blank, fitted, overlay, short, show_overlay

SHOWN = 6  # pictures of a list


@dataclass(frozen=True)
class Found:
    """What a network finds in one photo, `path`; `output` is the map's file, None if none."""

    path: Path
    kept: Kept = field(repr=False)
    output: Path | None = None

    @property
    def name(self) -> str:
        """Return the photo's name without its ending."""
        return self.path.stem

    @property
    def probability(self) -> NDArray[np.float32]:
        """Return the map, (H, W) float32 of 0...1, in steps of 1/255, at the photo's size."""
        return np.asarray(self.kept.probability / 255, np.float32)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Return where the probability is above 0.5, (H, W)."""
        return self.kept.probability > 127

    @property
    def share(self) -> float:
        """Return the share of the photo that is found, 0...1."""
        return float(self.mask.mean())

    def show(self) -> Picture:
        """Draw the photo with what was found, and the map."""
        probability = self.kept.probability
        image = fitted(read_image(self.path), probability.shape)
        return show_overlay(image, probability, name=self.name)

    def __repr__(self) -> str:
        written = f", written to {self.output}" if self.output else ""
        return f"{self.path.name}: {100 * self.share:.1f} % of the image found{written}"

    def _repr_png_(self) -> bytes:
        return self.show()._repr_png_()


class Finds(list[Found]):
    """The photos in order, each with what was found; a notebook shows the first few."""

    @rc_context(STYLE)
    def show(self, count: int = SHOWN) -> Picture:
        """Draw the first `count` photos with what was found."""
        shown = self[:count]
        columns = min(len(shown), 3) or 1
        rows = -(-len(shown) // columns) or 1
        figure = Picture(figsize=(WIDTH, 0.6 + rows * (0.3 + WIDTH / 3.2)), layout="constrained")
        axes = blank(figure, rows, columns)
        for ax, each in zip(axes.flat, shown, strict=False):
            image = fitted(read_image(each.path), each.mask.shape)
            ax.imshow(overlay(image, each.mask))
            ax.set_title(f"{short(each.path.name)}\n{100 * each.share:.1f} % found", fontsize=8)
        figure.suptitle(f"{len(shown)} of {len(self)} images; found (above 0.5): tinted")
        return figure

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or "no image"

    def _repr_png_(self) -> bytes:
        return (self[0].show() if len(self) == 1 else self.show())._repr_png_()


def predict(
    run: Run | Path | str,
    images: Pair | Path | str | Sequence[Pair | Path | str],
    output: Path | str = "",
    *,
    device: str = "auto",
    which: str = "best",
    views: Views = PLAIN,
    progress: Progress | None = None,
) -> Finds:
    """Return what the run's network finds in photos: a file, a folder, or several files.

    With `output` each map is also written there as NAME.png, 8-bit at the photo's own size, as
    `camoxpert predict` does. which: "best" or "last" weights. views: test-time augmentation.
    Raises InputError for what cannot be read, or where a map would replace another file.
    """
    place = given(output, "output") if str(output) else None
    paths = _files(images, place)
    predictor = open_predictor(run, device, which)
    found = Finds()
    for path, each in zip(paths, predictor.predict(paths, views), strict=True):
        target = place / f"{path.stem}.png" if place else None
        if target:
            write_map(target, each.probability)
        found.append(Found(path, each.kept(), target))
        if progress:
            progress(len(found), len(paths))
    return found


def _files(images: Any, output: Path | None) -> list[Path]:
    """Return the photos to look at; InputError for anything else, or what `output` would spoil."""
    several = [images] if isinstance(images, Pair | Path | str) else images
    if not isinstance(several, Iterable) or hasattr(several, "shape"):
        raise InputError(
            f"predict got a {type(images).__name__}, expected files: a path, a folder, or a list "
            "of paths. Save an array as a picture first: PIL.Image.fromarray(array).save('a.png')."
        )
    paths: list[Path] = []
    for each in several:
        if not isinstance(each, Pair | Path | str):
            raise InputError(
                f"predict got a list that holds a {type(each).__name__}, expected paths of photos."
            )
        source = given(each.image if isinstance(each, Pair) else each, "the images")
        if not source.exists():
            raise InputError(
                f"{source}: no such file or folder. Give a photo, or a folder of them."
            )
        if output:
            paths += images_to_predict(source, output)
        else:
            paths += [*by_stem(source).values()] if source.is_dir() else [source]
    stems = [path.stem for path in paths]
    if output and len({*stems}) < len(stems):
        raise InputError(
            "two of the images have one name, so that one map would replace the other. Give them "
            "apart, each with an output of its own."
        )
    return paths
