"""The reader's own pictures: uploaded, or named by a path on the machine of the notebook."""

from __future__ import annotations

import base64
import html
import io
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import numpy as np
from PIL import Image

from ..data.folders import SUFFIXES, named, not_taken
from ..data.images import Array, read_image
from ..errors import InputError
from ..outside.paths import readable
from .picker_fields import alarm
from .viewer import Panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 24  # pictures of a folder that are looked at
LINK = "color:var(--jp-content-link-color, #0072B2);text-decoration:underline"


class OwnPicture(Panel):
    """Takes pictures from the reader's computer and gives back overlay, mask and map.

    The run's network is loaded at the first picture. `results` holds (name, image, map) of each;
    of several, `which` chooses the one that is shown.
    """

    def __init__(self, run: Any, device: str = "auto", picture: str = "") -> None:
        self.run, self.device, self.results = run, device, list[tuple[str, Array, Array]]()
        self._predictor: Any = None
        # The front end writes the number of files behind the description, in brackets.
        self.upload = widgets.FileUpload(
            accept="image/*",
            multiple=True,
            description="Upload pictures, so far",
            layout={"width": "240px"},
        )
        self.path = widgets.Text(
            description="or a path",
            placeholder="a photo or a folder of photos here, then Enter",
            continuous_update=False,
            layout={"width": "480px", "max_width": "100%"},
        )
        self.which = widgets.Dropdown(description="shown", layout={"display": "none"})
        super().__init__([self.upload, self.path, self.which])
        self.upload.observe(self._take_upload, "value")
        self.path.observe(lambda change: self._take_path(change["new"]), "value")
        self.which.observe(self.draw, "value")
        if picture:
            self.path.value = picture

    def __repr__(self) -> str:
        return f"OwnPicture for {self.run}, {len(self.results)} pictures so far"

    def predict(self, path: Path | str) -> Figure:
        """Return the picture in a file with what was found on it."""
        self._add(Path(path), Path(path).name)
        return self._figure(-1)

    def figure(self) -> Figure:
        """Return the chosen picture with what was found on it."""
        from ..figures.canvas import empty_picture

        if not self.results:
            return empty_picture("Your own picture", "None was given yet.")
        return self._figure(-1 if self.which.value is None else self.which.value)

    def _figure(self, place: int) -> Figure:
        from ..figures.predictions import show_overlay

        name, image, probability = self.results[place]
        return show_overlay(image, probability, name=name)

    def _add(self, path: Path, name: str) -> None:
        """Predict a file; InputError says what is wrong with it under the name its owner knows."""
        from ..figures.explore import open_predictor

        self._predictor = self._predictor or open_predictor(self.run, self.device)
        try:
            image = read_image(path)
        except InputError as error:
            raise InputError(why_no_picture(str(error), path, name)) from error
        self.results.append((name, image, self._predictor.predict_one(path).probability))

    def _take_upload(self, change: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self._look(_written(uploaded(change["new"]), Path(folder)))

    def _take_path(self, text: str) -> None:
        if not text.strip():
            return
        note = ""
        try:
            path = readable(text.strip().strip("\"'"), "the path")
            files = pictures_in(path) if path.is_dir() else [path]
            if not files:
                raise InputError(
                    f"{path} holds no picture ({', '.join(SUFFIXES)}), expected at least one: name "
                    f"the folder in which they lie, or a file.{passed_over(path)}"
                )
            if len(files) > MOST:
                note = (
                    f"<p>The first {MOST} of {len(files)} pictures; name the others one by one.</p>"
                )
            if path.is_dir() and (rest := passed_over(path)):
                note += f"<p>{html.escape(rest)}</p>"
        except InputError as error:
            self.message.value = alarm(str(error))
            return
        self._look(((file, file.name) for file in files[:MOST]), note)

    def _look(self, files: Iterable[tuple[Path, str]], note: str = "") -> None:
        """Predict files, each with its name, and show the first that is a picture."""
        self.results, lines = [], [note]
        self.picture.layout.display = "none"
        for path, name in files:
            self.message.value = f"looking at {html.escape(name)} ..."
            try:
                self._add(path, name)
                lines.append(downloads(*self.results[-1]))
            except InputError as error:
                lines.append(alarm(str(error)))
        self.message.value = "".join(lines)
        self.which.unobserve(self.draw, "value")
        self.which.options = [(name, place) for place, (name, _, _) in enumerate(self.results)]
        self.which.value = 0 if self.results else None
        self.which.layout.display = "" if len(self.results) > 1 else "none"
        self.which.observe(self.draw, "value")
        if self.results:
            self.draw()


def own_picture(run: Any, device: str = "auto", picture: str = "") -> OwnPicture:
    """Return a field for the reader's own pictures.

    run: a run or its folder. picture: a file or folder to look at from the start.
    """
    return OwnPicture(run, device, picture)


def pictures_in(folder: Path) -> list[Path]:
    """Return the picture files of a folder, by name; hidden ones are none."""
    files = [each for each in folder.iterdir() if each.name.lower().endswith(SUFFIXES)]
    return sorted(each for each in files if each.name[0] != "." and each.is_file())


def passed_over(folder: Path) -> str:
    """Return a sentence on what a folder holds besides its pictures; "" where it is nothing."""
    alike = [each for each in sorted(folder.iterdir()) if each.name.lower().endswith(SUFFIXES)]
    folders = {each: f"{each.name} is a folder" for each in alike if each.is_dir()}
    rest = not_taken(folder) | folders
    return f" Not read as pictures: {named(rest)}." if rest else ""


def why_no_picture(text: str, path: Path, name: str) -> str:
    """Return what is wrong with a file that is no part of a data set, under its own name."""
    reason = text.partition(". The file is damaged")[0].replace(f"'{path}'", "it")
    reason = reason.replace(str(path), name).rstrip(".")
    return (
        f"{reason}. Expected was a photo, as JPEG or PNG: choose another file, or save it as one."
    )


def uploaded(value: Any) -> list[tuple[str, bytes]]:
    """Return name and content of what a FileUpload holds, in ipywidgets 7 (dict) or 8 (tuple)."""
    if isinstance(value, dict):
        return [(name, bytes(each["content"])) for name, each in value.items()]
    return [(each["name"], bytes(each["content"])) for each in value]


def _written(files: Iterable[tuple[str, bytes]], folder: Path) -> Iterator[tuple[Path, str]]:
    """Write each file and yield its path and name; a name from a browser is no path here."""
    for number, (name, content) in enumerate(files):
        path = folder / f"{number}{Path(name).suffix[:8]}"
        path.write_bytes(content)
        yield path, name


def downloads(name: str, image: Array, probability: Array) -> str:
    """Return links to overlay, mask (0 and 255) and map of a picture, as HTML without files."""
    from ..figures.predictions import overlay

    found, stem = probability > 127, html.escape(Path(name).stem)
    files = {
        "overlay": overlay(image, found),
        "mask": found.astype(np.uint8) * np.uint8(255),
        "map": probability,
    }
    links = [
        f'<a download="{stem}_{kind}.png" href="{_data_uri(array)}" style="{LINK}">{kind}</a>'
        for kind, array in files.items()
    ]
    share = f"{100 * found.mean():.1f} % of the picture above probability 0.5"
    return f"<p><b>{html.escape(name)}</b>: {share}. Download {', '.join(links)}.</p>"


def _data_uri(array: Array) -> str:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
