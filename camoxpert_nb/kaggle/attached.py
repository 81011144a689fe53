"""What is attached, found by a short name: a data set, a run with its weights, pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..data.layouts import SUFFIXES, find_datasets
from ..data.selection import input_root
from ..errors import InputError, few
from ..runs.run import RUNS, Run
from .inputs import scratch, sources

KEPT = ("best.pt", "last.pt")  # of a run, the better one first
DRAWN = {"figures", "reports", "overlays", "maps", "kit", "report_files", "__pycache__"}
HOW_TO_ATTACH = (
    "Input > Add Input > Your Work > the training notebook, whose version was saved to its end; or "
    "a data set with its runs/NAME folder or best.pt"
)


def attached_folder(wanted: str) -> Path:
    """Return the folder that is meant: a path, or the name (or owner/name) of what is attached.

    Raises InputError that lists what is attached.
    """
    text = wanted.strip()
    there = Path(text).expanduser()
    if there.exists():
        return there
    words = [word for word in re.split(r"[/\\]+", text.lower()) if word]
    skipped = [*input_root().parts, "input", "datasets", "kaggle"]
    words = [word for word in words if word not in skipped]
    for source in sources():
        names = [part.lower() for part in source.parts]
        for at in range(len(words), 0, -1):  # the longest part that names a source; the rest below
            if names[-at:] == words[:at]:
                below = source.joinpath(
                    *Path(text).parts[len(Path(text).parts) - len(words) + at :]
                )
                if below.exists():
                    return below
    listed = "\n  ".join(map(str, sources())) or "nothing"
    raise InputError(
        f"{wanted!r} is not attached, and no folder here. Attached:\n  {listed}\nGive one of these "
        "paths (on the right, under Input, the copy sign beside a folder), or leave it empty."
    )


def attached_run(wanted: str = "") -> tuple[Run, str, list[str]]:
    """Return the run to predict with, which of its weights ("best" or "last"), and what was found.

    wanted: a run's folder, a file of its weights, or the name of what is attached; "" for the
    newest that is attached, or is in runs/ here. A lone file under another name is linked where a
    run would have it. Raises InputError that says what is attached instead.
    """
    if wanted.strip():
        place = attached_folder(wanted)
        found = [place] if place.is_file() else list(_weights_below(place))
    else:
        found = [path for place in (*sources(), RUNS) for path in _weights_below(place)]
    if not found:
        raise InputError(
            f"no run is {f'in {wanted!r}' if wanted else 'attached'}: looked for best.pt or "
            f"last.pt. {_attached_in_words()} Attach one: {HOW_TO_ATTACH}."
        )
    found.sort(key=lambda path: path.stat().st_mtime)
    *others, path = found
    lines = [f"run       {path}"]
    lines += [f'run       passed over, older: {each} (RUN = "{each.parent}")' for each in others]
    return *_as_run(path), lines


def attached_pictures(wanted: str = "") -> tuple[list[Path], list[str]]:
    """Return the pictures to predict, and sentences about what was found where.

    wanted: a folder, a file, or the name of what is attached; "" for all that is attached but
    runs and masks. Raises InputError when there is none.
    """
    places = [attached_folder(wanted)] if wanted.strip() else sources()
    pictures, lines = list[Path](), list[str]()
    for place in places:
        found, what = _pictures_in(place, bool(wanted.strip()))
        pictures += found
        lines.append(f"pictures  {place}: {what}")
    if not pictures:
        listed = "\n  ".join(lines) or "nothing is attached"
        raise InputError(
            f"there are no pictures ({', '.join(SUFFIXES[:8])} ...).\n  {listed}\nAttach some: "
            "Input > Add Input > Datasets, or Upload > New Dataset for your own; then run all "
            "cells again. PICTURES names a folder where several are attached."
        )
    return pictures, lines


def _weights_below(place: Path) -> Iterator[Path]:
    """Yield the weights of each run at or below a folder: of each the best, or the last."""
    for name in KEPT:
        for path in sorted(place.rglob(name)) if place.is_dir() else ():
            linked = path.parent.name == "latest" and len(list(path.parent.parent.iterdir())) > 1
            if not linked and (name == KEPT[0] or not (path.parent / KEPT[0]).exists()):
                yield path


def _as_run(path: Path) -> tuple[Run, str]:
    """Return the run that a file of weights belongs to, and which it is there."""
    if path.name in KEPT:
        return Run(path.parent), path.stem
    if path.suffix.lower() not in (".pt", ".pth"):
        raise InputError(f"{path}: expected a run's best.pt, or a folder that holds one.")
    folder = scratch() / "weights" / path.stem
    folder.mkdir(parents=True, exist_ok=True)
    (folder / KEPT[0]).unlink(missing_ok=True)
    (folder / KEPT[0]).symlink_to(path.resolve())
    return Run(folder), "best"


def _pictures_in(place: Path, named: bool) -> tuple[list[Path], str]:
    """Return the pictures of one input, and what it is in words."""
    if place.is_file():
        fits = place.suffix.lower() in SUFFIXES
        return ([place], "one picture") if fits else ([], "no picture")
    if not named and next(_weights_below(place), None):
        return [], "a run, whose figures are no pictures"
    try:
        sets = find_datasets(place)
    except InputError:
        sets = []
    paths = sorted(_images_below(place))
    masks = {os.path.realpath(pair.mask) for each in sets for pair in each.pairs}
    images = [path for path in paths if os.path.realpath(path) not in masks]
    tests = {os.path.realpath(pair.image) for each in sets for pair in each.test}
    if tests and not named:
        kept = [path for path in images if os.path.realpath(path) in tests]
        return kept, f"a data set; its {len(kept):,} test images"
    ends = sorted({path.suffix for path in place.rglob("*") if path.is_file()} - {""})
    other = f"no pictures (files: {few(ends) if ends else 'none'})"
    left = f", {len(masks):,} masks left out" if masks else ""
    return images, f"{len(images):,} pictures{left}" if images else other


def _images_below(place: Path) -> Iterable[Path]:
    for folder, below, names in os.walk(place, followlinks=True):
        below[:] = sorted(each for each in below if each not in DRAWN and each[0] not in "._")
        for name in names:
            if name.lower().endswith(SUFFIXES) and name[0] != ".":
                yield Path(folder) / name


def _attached_in_words() -> str:
    names = [str(source) for source in sources()]
    return f"Attached: {', '.join(names)}." if names else "Nothing is attached."
