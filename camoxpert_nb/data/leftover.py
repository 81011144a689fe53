"""What lies below a root and is not used: every image file, with the reason, and what mends it."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, few
from .folders import LEFT_BEHIND, SUFFIXES, Folder, advice_for, some
from .pairing import same
from .reading import Reading
from .spellings import IMAGES, MASKS, holds_masks, holds_other_annotations

if TYPE_CHECKING:
    from .matching import Match


OF_A_RUN = ("config.json", "history.jsonl")  # files by which a run's folder is known
REMAINS = "remains"  # of images, in the place of a suffix


@dataclass(frozen=True)
class Unused:
    """Files of one folder that are not used, and why. `harmless`: nobody would miss them."""

    place: str
    count: int
    reason: str
    names: tuple[str, ...] = ()
    harmless: bool = False

    def __str__(self) -> str:
        some_names = f" ({few(self.names)})" if self.names else ""
        return f"{self.place}: {self.count} {self.reason}{some_names}"


def unused_files(
    tree: Folder, matches: Sequence[Match], listed: Set[Path] = frozenset()
) -> tuple[Unused, ...]:
    """Return the folders whose images belong to no set, and files of kinds that are not read.

    listed: lists of names, of which is said elsewhere what became of them.
    """
    images = {match.images.real for match in matches}
    masks = {match.masks.real for match in matches}
    second = {other.real for match in matches for other in match.others}
    found, seen = [], set[str]()
    for folder in tree.walk():
        place = folder.path.relative_to(tree.path).as_posix()
        if folder.images and folder.real not in images | masks | seen:
            seen.add(folder.real)
            found.append(_of_folder(folder, place, folder.real in second, matches))
        if folder.problem:
            found.append(Unused(place, 1, f"folder {folder.problem}"))
        found += _unread(folder, place, listed, harmless=folder.real not in images | masks)
        if folder.hidden:
            reason = "hidden images (in a folder or of a name that begins with a dot)"
            found.append(Unused(place, len(folder.hidden), reason, folder.hidden[:3], True))
    return tuple(found)


def _of_folder(folder: Folder, place: str, second: bool, matches: Sequence[Match]) -> Unused:
    count = len(folder.images)
    if second:
        return Unused(place, count, "masks not taken: another folder was", harmless=True)
    names = [name for name in folder.path.parts if name in place.split("/")]
    stems = set(map(same, folder.images))
    twin = any(
        stems <= set(map(same, match.names.files))
        for match in matches
        if folder.path.parent in match.images.path.parents
    )
    if any(map(holds_other_annotations, names)) or (twin and holds_masks(folder.path.name)):
        return Unused(place, count, "files beside the images and masks used", harmless=True)
    if holds_masks(folder.path.name):
        return Unused(place, count, "masks whose images were not found", folder.images[:3])
    return Unused(place, count, "images whose masks were not found", folder.images[:3])


def _unread(folder: Folder, place: str, listed: Set[Path], *, harmless: bool) -> Iterator[Unused]:
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in folder.others:
        if folder.path / name in listed:
            continue
        left = LEFT_BEHIND.search(name)
        kinds[REMAINS if left else Path(name).suffix.lower()].append(name)
    for suffix, names in sorted(kinds.items()):
        advice = advice_for(suffix)
        if suffix == REMAINS:
            reason = "files that look like images of another ending: rename them if they are meant"
            yield Unused(place, len(names), reason, tuple(names[:3]))
        elif advice:
            outline = suffix in (".json", ".xml", ".gz", ".mat")
            files = "file, which is" if len(names) == 1 else "files, which are"
            reason = f"{suffix[1:].upper()} {files} not read: {advice}"
            yield Unused(place, len(names), reason, tuple(names[:3]), harmless and outline)
        elif not suffix and len(names) > 2:
            reason = "files without a suffix, which are not read: add .jpg or .png"
            yield Unused(place, len(names), reason, tuple(names[:3]), harmless=True)


def nothing_found(tree: Folder, rows: Sequence[str], reading: Reading) -> InputError:
    """Return what to say of a root in which no image has its mask."""
    if all((tree.path / name).is_file() for name in OF_A_RUN):
        return InputError(
            f"{tree.path} is a run, and no data set: it holds what a training wrote. Expected a "
            "folder of images and masks here; a run is given as --run, or to `camoxpert compare`."
        )
    folders = [folder for folder in tree.walk() if folder.images]
    kinds = ". ".join(str(each) for each in unused_files(tree, []) if "not read" in each.reason)
    if not folders:
        other = f" Found: {kinds}." if kinds else ""
        if hidden := [name for folder in tree.walk() for name in folder.hidden]:
            other += f" {len(hidden)} hidden images are not used ({few(hidden)}): give that folder."
        return InputError(
            f"{tree.path}: no image files ({' '.join(SUFFIXES)}) here or in the "
            f"{sum(1 for _ in tree.walk()) - 1} folders below.{other}"
            " Check the path and its permissions; an archive must be unpacked first."
        )
    found = [f"{_place(folder, tree)} ({_kinds(folder)})" for folder in folders]
    said = f"\n  {kinds}." if kinds else ""
    asked = reading.in_words()
    return InputError(
        f"{tree.path}: no image has its mask ({sum(len(f.images) for f in folders)} images)"
        f"{f' with {asked}' if asked else ''}.\n"
        f"  Found: {' '.join([some(found) + '.', *_hints(folders)])}{said}\n"
        f"  Looked for: {', '.join(rows)}.\n  Imgs may be called {', '.join(IMAGES[:12])} ...; "
        f"GT may be called {', '.join(MASKS[:12])} ...\n  Give the folder above both. An image and "
        "its mask share one name, as cat.jpg and cat.png, in two folders or in one, or differ by a "
        "word, as cat_mask.png.\n  Where nothing can be renamed, say what is what: --image-folder "
        "DIR --mask-folder DIR (below the data set; * stands for anything), --mask-suffix _mask."
    )


def _place(folder: Folder, tree: Folder) -> str:
    return "this folder itself" if folder is tree else str(folder.path.relative_to(tree.path))


def _kinds(folder: Folder) -> str:
    """Return how many images a folder holds, by kind where there are several."""
    kinds: dict[str, int] = defaultdict(int)
    for name in folder.images:
        kinds[Path(name).suffix.lower()] += 1
    if len(kinds) == 1:
        return str(len(folder.images))
    return ", ".join(f"{count} {suffix[1:]}" for suffix, count in sorted(kinds.items()))


def _hints(folders: Sequence[Folder]) -> Iterator[str]:
    for folder in folders[:8]:
        name = folder.path.name
        for word in difflib.get_close_matches(folder.plain, (*IMAGES, *MASKS), 1):
            same_word = word == folder.plain
            yield (
                f"{name} has {folder.images[0]}." if same_word else f"{name!r} looks like {word!r}."
            )
