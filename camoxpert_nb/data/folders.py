"""The folders of a data set, each listed once: images, lists of names, and what nobody reads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import InputError, few
from ..outside.spelling import alike

_WANTED = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jfif", ".jpe", ".jp2"),
    *(".j2k", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".avif"),
)
SUFFIXES = tuple(suffix for suffix in _WANTED if suffix in Image.registered_extensions())
# Files that hold pictures or masks in a form that is not read, and what mends it.
UNREAD = {
    "save them as JPEG or PNG": (
        *(".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".raw", ".dng", ".cr2", ".nef"),
        *(".arw", ".psd", ".svg", ".exr", ".hdr", ".pdf", ".dcm", ".nii", ".mha", ".mat", ".npy"),
        *(".npz", ".mp4", ".avi", ".mov", ".mkv", ".webm", ".h5", ".hdf5", ".parquet", ".svgz"),
        *(".tfrecord", ".jpeg2000", ".jxr", ".fits"),
    ),
    "unpack the archive": (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz"),
    "masks are read from image files only: draw these outlines as PNG": (".json", ".xml"),
}
# Of systems, not of people: hidden, deleted, thumbnails of a network disk.
HIDDEN = (
    *(".", "__macosx", "#recycle", "$recycle.bin", "@eadir", "@recycle", "lost+found"),
    *("system volume information", "thumbs.db"),
)
# Copies that editors, browsers and downloads leave: x.jpg~, x.jpg.1, x.jpg.crdownload.
LEFT_BEHIND = re.compile(r"[.](jpe?g|png|bmp|tiff?|webp|gif)[\w.~-]{0,12}$", re.IGNORECASE)
LISTS = (".txt", ".csv", ".tsv", ".lst")
DEPTH = 16  # /kaggle/input/datasets/<owner>/<slug>/<folder>/COD10K-v3/Train/Image needs 7


@dataclass(frozen=True)
class Folder:
    """A folder that was listed. `others`: files of kinds that are not read, but for LISTS.

    `hidden`: images that begin with a dot, or lie in such a folder, which nobody means to use.
    `problem`: why it could not be listed, or not to its end; "" as a rule.
    """

    path: Path
    real: str  # without symbolic links: a folder seen under two names is one folder
    plain: str
    images: tuple[str, ...]
    folders: tuple[Folder, ...]
    lists: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    problem: str = ""

    def walk(self) -> Iterator[Folder]:
        """Yield this folder and all below it, from the top down."""
        yield self
        for folder in self.folders:
            yield from folder.walk()


def list_folders(root: Path | str) -> Folder:
    """Return the tree of folders; InputError when `root` is no folder."""
    path = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100 (keeps symbolic links)
    _check_folder(path)
    return _scan(path, os.path.realpath(path), (), DEPTH)


def plain(name: str) -> str:
    """Return a name without case, "_", "-" and " "."""
    return re.sub(r"[-_ ]", "", name.lower())


def advice_for(suffix: str) -> str:
    """Return what mends files of a kind that is not read; "" where they are no pictures."""
    return next((advice for advice, kinds in UNREAD.items() if suffix in kinds), "")


def not_taken(folder: Path) -> dict[Path, str]:
    """Return the files of a folder that are no pictures here, with what mends each, or ""."""
    files = [each for each in sorted(folder.iterdir()) if each.is_file()]
    shown = [each for each in files if not each.name.lower().startswith(HIDDEN)]
    kinds = {each: each.suffix.lower() for each in shown}
    return {each: advice_for(kind) for each, kind in kinds.items() if kind not in SUFFIXES}


def named(files: Mapping[Path, str]) -> str:
    """Return the names of files with why they are not taken, each reason once."""
    reasons = "; ".join(dict.fromkeys(filter(None, files.values())))
    return few([each.name for each in files]) + (f" ({reasons})" if reasons else "")


def _scan(path: Path, real: str, above: tuple[str, ...], depth: int) -> Folder:
    """List a folder and those below it, once, asking the disk for no file's properties."""
    images: list[str] = []
    lists: list[str] = []
    others: list[str] = []
    hidden: list[str] = []
    folders: list[Folder] = []
    entries, problem = _entries(path)
    for entry in entries:
        name = entry.name.lower()
        if name.startswith(HIDDEN):
            hidden += _hidden(entry)
            continue
        if name.endswith(SUFFIXES):
            images.append(entry.name)
        elif entry.is_dir():
            link = entry.is_symlink()
            below = os.path.realpath(entry.path) if link else f"{real}{os.sep}{entry.name}"
            if below in (*above, real):
                continue
            if depth:
                folders.append(_scan(path / entry.name, below, (*above, real), depth - 1))
            else:
                problem = f"folders more than {DEPTH} deep are not looked into"
        else:
            (lists if name.endswith(LISTS) else others).append(entry.name)
    return Folder(
        path=path,
        real=real,
        plain=plain(path.name),
        images=tuple(images),
        folders=tuple(folders),
        lists=tuple(lists),
        others=tuple(others),
        hidden=tuple(hidden),
        problem=problem,
    )


def _hidden(entry: os.DirEntry[str]) -> list[str]:
    """Return the images of a hidden entry; macOS puts a false "._x.jpg" beside each x.jpg."""
    if not entry.is_dir(follow_symlinks=False):
        names = [entry.name]
    else:
        top = Path(entry.path).parent
        names = [
            (Path(folder) / name).relative_to(top).as_posix()
            for folder, _, files in os.walk(entry.path)
            for name in files
        ]
    images = [name for name in names if name.lower().endswith(SUFFIXES)]
    return [name for name in images if not name.rpartition("/")[2].startswith("._")]


def _entries(path: Path) -> tuple[list[os.DirEntry[str]], str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name), ""
    except OSError as error:  # another user's folder beside the data is no reason to stop
        return [], f"cannot be listed ({error.strerror})"


def _check_folder(path: Path) -> None:
    if path.is_dir():
        return
    if path.exists():
        raise InputError(
            f"{path} is a file, expected the folder of a data set: give the folder that holds the "
            "images and masks (an archive must be unpacked first)."
        )
    parent = next(folder for folder in path.parents if folder.is_dir())
    names = [entry.name for entry in _entries(parent)[0] if entry.is_dir()]
    near = alike(path.relative_to(parent).parts[0], names, least=0.7)
    found = f"Did you mean {' or '.join(near)}?" if near else f"Found: {some(names)}."
    raise InputError(f"{path}: no such folder. Looked in {parent}. {found}")


def some(names: list[str] | tuple[str, ...], limit: int = 8) -> str:
    """Return the first names for a message, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "nothing") + more
