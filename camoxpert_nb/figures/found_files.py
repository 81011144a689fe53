"""Pictures without masks: maps, overlays and a table of what a run finds in them, as files."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from ..data.cache import Progress
from ..data.images import Array, read_grey, read_image, refuse_foreign, write_map
from ..errors import InputError
from ..evaluation.files import cores, in_order
from ..evaluation.judge import open_predictor
from ..evaluation.predict import PLAIN, Prediction, Views, refuse_all
from ..runs.run import Run
from .canvas import STYLE, WIDTH, Picture, empty_picture
from .predictions import blank, short, write_overlay

CUT = 0.5  # probability above which a pixel belongs to the object
SIDE = 480  # px: the longest side of a picture in a gallery


@dataclass(frozen=True)
class FoundInPictures:
    """What a run found in pictures. folder: holds NAME.png, the map of each, and overlays/NAME.png.

    table: a row per picture with name, picture (its path), width and height in px, found (share of
    it above the threshold, 0 to 1), highest (probability, 0 to 1) and uncertainty (0 sure, 1 all in
    doubt). unread: what could not be read, and why.
    """

    folder: Path
    table: pd.DataFrame
    threshold: float
    unread: list[str]

    def __repr__(self) -> str:
        empty = int((self.table["found"] == 0).sum())
        lines = [
            f"{len(self.table)} maps in {self.folder} (8-bit grey: 0 background, 255 object), "
            f"overlays in {self.folder / 'overlays'}",
        ]
        if empty:
            lines.append(f"in {empty} of them nothing is above probability {self.threshold:g}")
        return "\n".join([*lines, *(f"NOTE: left out, {each}" for each in self.unread)])

    def show(self, n: int = 8, by: str = "name") -> Figure:
        """Draw n pictures, evenly chosen in the order of a column of `table`, and their maps."""
        if by not in self.table:
            raise InputError(f"no column '{by}'. Columns: {', '.join(self.table)}.")
        rows = self.table.sort_values(by, kind="stable").index.to_numpy()
        chosen = rows[
            np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(int))
        ]
        return _gallery(self, [int(row) for row in chosen])

    def write_csv(self, path: Path | str = "") -> Path:
        """Write the table, by default as found.csv beside the maps, and return the file."""
        path = Path(path or self.folder / "found.csv")
        self.table.to_csv(path, index=False, errors="backslashreplace")  # names of any bytes
        return path

    def write_zip(self, path: Path | str = "") -> Path:
        """Write all files in the folder as one zip, by default beside it, and return the file."""
        path = Path(path or self.folder.with_suffix(".zip"))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as files:  # PNGs are compressed already
            for each in sorted(self.folder.rglob("*")):
                if each.is_file():
                    name = f"{self.folder.name}/{each.relative_to(self.folder)}"
                    files.write(each, name.encode("utf-8", "backslashreplace").decode())
        return path


def predict_pictures(
    run: Run | Path | str,
    pictures: Sequence[Path | str],
    folder: Path | str = "maps",
    *,
    which: str = "best",
    threshold: float = CUT,
    views: Views = PLAIN,
    device: str = "auto",
    progress: Progress | None = None,
) -> FoundInPictures:
    """Predict pictures from anywhere, and write map and overlay of each; return what was found.

    which: the run's weights, "best" or "last". threshold: probability, above 0 and below 1, above
    which the overlay is tinted. Pictures of one name are told apart by their folders' names. A
    picture that cannot be read is left out and named. Raises InputError when none can be read,
    when a file would be replaced that this kit did not write, and for an impossible threshold.
    """
    if isinstance(threshold, bool) or not 0 < threshold < 1:
        raise InputError(f"threshold {threshold!r}: expected a number between 0 and 1, as 0.5.")
    folder = Path(folder)
    paths = [*dict.fromkeys(map(Path, pictures))]
    names = dict(zip(paths, distinct_names(paths), strict=True))
    targets = [folder / part / f"{n}.png" for n in names.values() for part in ("", "overlays")]
    refuse_foreign(targets, "Name another folder for the maps.")
    predictor, unread = open_predictor(run, device, which), dict[Path, str]()

    def write(item: tuple[Path, Prediction]) -> dict[str, Any]:
        path, found = item
        (folder / "overlays").mkdir(parents=True, exist_ok=True)
        write_map(folder / f"{names[path]}.png", found.probability)
        target = folder / "overlays" / f"{names[path]}.png"
        write_overlay(target, read_image(path), found.probability > threshold)
        return _row(names[path], path, found, threshold)

    left = iter(paths)
    maps = (  # what cannot be read is known before the next map comes
        (next(path for path in left if path not in unread), found)
        for found in predictor.predict(paths, views, unread=unread)
    )
    rows = []
    for done, row in enumerate(in_order(write, maps, workers=cores()), 1):
        rows.append(row)
        if progress:
            progress(done, len(paths) - len(unread))
    if not rows:
        refuse_all(paths, unread)
    told = [unread[path] for path in paths if path in unread]
    return FoundInPictures(folder, pd.DataFrame(rows), threshold, told)


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return a file's stem for each path; where two are alike, with folders before it."""
    names = [path.stem for path in paths]
    for depth in range(1, 12):
        counts = Counter(name.casefold() for name in names)
        for row, path in enumerate(paths):
            if counts[names[row].casefold()] > 1:
                above = [part for part in path.parent.parts[-depth:] if part != path.anchor]
                names[row] = "_".join([*above, path.stem])
    counts = Counter(name.casefold() for name in names)  # a.jpg beside a.png
    return [
        f"{name}_{path.suffix[1:]}" if counts[name.casefold()] > 1 else name
        for name, path in zip(names, paths, strict=True)
    ]


def _row(name: str, path: Path, found: Prediction, threshold: float) -> dict[str, Any]:
    height, width = found.probability.shape
    return {
        "name": name,
        "picture": str(path),
        "width": width,
        "height": height,
        "found": round(float((found.probability > threshold).mean()), 6),
        "highest": round(float(found.probability.max()), 4),
        "uncertainty": round(found.uncertainty, 4),
    }


@rc_context(STYLE)
def _gallery(found: FoundInPictures, rows: Sequence[int]) -> Figure:
    """Draw two pictures in a row, each with its overlay and its map."""
    if not rows:
        return empty_picture("What was found", "There is no picture to show.")
    lines = -(-len(rows) // 2)
    figure = Picture(figsize=(WIDTH, 0.5 + 2.3 * lines), layout="constrained")
    axes = blank(figure, lines, 4)
    cells = axes.reshape(-1, 2)[: len(rows)]
    for (left, right), row in zip(cells, rows, strict=True):
        name, share = str(found.table["name"][row]), float(found.table["found"][row])
        left.imshow(_small(read_image(found.folder / "overlays" / f"{name}.png")))
        right.imshow(_small(read_grey(found.folder / f"{name}.png")), cmap="gray", vmin=0, vmax=255)
        left.set_title(f"{short(name, 28)}", fontsize=8)
        right.set_title(f"found: {100 * share:.1f} % of the picture", fontsize=8)
    figure.suptitle(
        f"{len(rows)} of {len(found.table)} pictures: tinted where the probability is above "
        f"{found.threshold:g}; beside it the map, black 0, white 1"
    )
    return figure


def _small(image: Array) -> Array:
    scale = SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = tuple(max(round(side * scale), 1) for side in image.shape[1::-1])
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
