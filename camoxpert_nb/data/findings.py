"""What can be found in a data set: how much it matters, and what to do about it.

The look through a data set, the training and the form say the same of the same masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import InputError, few

INVERTED = 0.5  # of the masks whose border is object, from which on all are taken for inverted
OFTEN = 0.1  # of the masks: more than that is no accident


class Kind(NamedTuple):
    """What a finding is called, whether it stops training, and what to do about it."""

    title: str
    weight: str  # stop: cannot be used; warn: changes the numbers; note: harmless
    advice: str


KINDS = {
    "unreadable": Kind(
        "files that cannot be read",
        "stop",
        "Do what the reason says; damaged files: download them again, or remove image and mask.",
    ),
    "shape": Kind(
        "masks of another shape than their image",
        "stop",
        "Put the mask that belongs to the image in its place, or remove both.",
    ),
    "nothing": Kind(
        "nothing can be learned",
        "stop",
        "See the findings about masks below: each names the flag that reads them right.",
    ),
    "inverted": Kind(
        "masks that look inverted: their border is object",
        "warn",
        "If the objects are black, read them with --mask-invert; if that flag is given, leave it "
        "out. Look at them: camoxpert data DIR --picture FILE.",
    ),
    "leak": Kind(
        "images that are both in training and in test",
        "warn",
        "Remove them from training, or say so beside the test scores.",
    ),
    "near leak": Kind(
        "nearly the same picture in training and in test (saved anew, mirrored, turned, or a film)",
        "warn",
        "Remove them from training, or say so beside the test scores.",
    ),
    "copies": Kind(
        "images stored more than once",
        "warn",
        "Training keeps one of each. Remove the others where they test or count.",
    ),
    "near copies": Kind(
        "nearly the same pictures (saved anew, mirrored, turned, or frames of a film)",
        "note",
        "They stay on one side when validation images are held out.",
    ),
    "unused": Kind(
        "images and other files that are not used",
        "warn",
        "Move them beside the others, or name them: --image-folder, --mask-folder, --mask-suffix.",
    ),
    "beside": Kind("files that are not needed", "note", "Nothing to do, unless masks are there."),
    "lists": Kind(
        "lists of names beside the images", "note", "What is not obeyed has no effect: see why."
    ),
    "list": Kind(
        "lists of names that are not obeyed",
        "warn",
        "Mend the list, or sort the images into folders called train, val and test.",
    ),
    "image alone": Kind(
        "images without a mask",
        "warn",
        "They are not used. Add masks of the same name, or say what their names have more: "
        "--mask-suffix.",
    ),
    "mask alone": Kind(
        "masks without an image", "warn", "They are not used. Add images of the same name."
    ),
    "second": Kind(
        "images with several masks",
        "warn",
        "Remove those that are not meant, or name the right ones: --mask-folder, --mask-suffix.",
    ),
    "empty": Kind(
        "empty masks",
        "warn",
        "Check that no object is meant; 'NonCAM' in the name marks images without one.",
    ),
    "full": Kind(
        "masks that are all object", "warn", "Check them; if objects are black: --mask-invert."
    ),
    "ids": Kind(
        "masks without a value above 128",
        "warn",
        "Read as empty. Masks of ids, classes or dark colours: --mask-object nonzero, or the ids "
        "that are object, as --mask-object 1,3.",
    ),
    "unnamed": Kind(
        "masks without a value that --mask-object names",
        "warn",
        "Read as empty. Their values stand beside them: name those that are object.",
    ),
    "not ignored": Kind(
        "masks without the value of --ignore-label, all of them",
        "warn",
        "Nothing is ignored. Their values stand beside them: name the one that counts nowhere, or "
        "leave the flag out.",
    ),
    "void": Kind(
        "masks of small ids and a bright value, as 255",
        "warn",
        "The bright value is read as the object. If it means 'ignore', name it: --ignore-label; "
        "and for ids above 1 --mask-object nonzero.",
    ),
    "levels": Kind(
        "masks of several brightnesses",
        "warn",
        "Only what is above 128 is object. If all of it is: --mask-object nonzero. A value that "
        "counts nowhere: --ignore-label.",
    ),
    "colour": Kind(
        "masks in colour",
        "warn",
        "Read as brightness: object where it is above 128. If every colour is object: "
        "--mask-object nonzero.",
    ),
    "exif": Kind(
        "photos that EXIF turns, with masks that it does not",
        "warn",
        "Look at them: camoxpert data DIR --picture FILE. --mask-exif shown or stored says how the "
        "masks were drawn.",
    ),
    "alpha": Kind("masks in the alpha channel", "note", "Read from there."),
    "zero_one": Kind("masks stored as 0 and 1 instead of 0 and 255", "note", "Read as object = 1."),
    "border": Kind(
        "masks whose border is mostly object",
        "note",
        "Look at them: camoxpert data DIR --picture FILE.",
    ),
    "grey": Kind("masks with grey values", "note", "Read as object where grey is above 128."),
    "size": Kind(
        "masks of another size than their image, same shape", "note", "Resized with the image."
    ),
}
NO_OBJECT = ("empty", "ids", "unnamed")  # kinds of masks that are read without an object


@dataclass(frozen=True)
class Finding:
    """All cases of one kind in one place; an item is a name with the detail in brackets."""

    kind: str
    place: str
    items: tuple[str, ...]


def settle(found: Mapping[str, Sequence[str]], total: int, noncam: int = 0) -> dict[str, list[str]]:
    """Return what was found in `total` masks with what follows for all of them together.

    found: kinds of single masks, with names; noncam: how many are meant to be empty, of which
    nothing is found. Adds "inverted" and "nothing".
    """
    kinds = {kind: list(names) for kind, names in found.items() if names}
    if len(kinds.get("not ignored", ())) < total:  # it is rare, but there
        kinds.pop("not ignored", None)
    border, full = kinds.get("border", []), kinds.get("full", [])
    if border and len(border) + len(full) > INVERTED * (total - noncam):
        kinds["inverted"] = kinds.pop("border")
    empty = sum(len(kinds.get(kind, ())) for kind in NO_OBJECT)
    wanted = total - noncam
    if wanted and empty == wanted:
        kinds["nothing"] = [f"none of the {wanted} masks shows an object"]
    elif wanted and len(kinds.get("full", ())) == wanted:
        kinds["nothing"] = [f"each of the {wanted} masks is all object"]
    return {kind: kinds[kind] for kind in KINDS if kind in kinds}


def sentences(kinds: Mapping[str, Sequence[str]], total: int) -> list[str]:
    """Return a sentence for each kind that changes numbers; harmless ones where they are many."""
    said = []
    for kind, names in kinds.items():
        title, weight, advice = KINDS[kind]
        if weight == "warn" or (kind in ("alpha", "border") and len(names) > OFTEN * total):
            count = f"{len(names)} of {total} masks"
            said.append(f"{count}: {title} ({few(names)}). {advice.rstrip('.')}")
    return said


def require_objects(kinds: Mapping[str, Sequence[str]], total: int) -> None:
    """Raise InputError where no mask shows an object, or each shows nothing else."""
    if "nothing" in kinds:
        raise InputError(
            f"Nothing can be learned here: {kinds['nothing'][0]}. "
            f"{'. '.join(sentences(kinds, total))}."
        )
