"""What Kaggle asks of a folder that is uploaded, as sentences that say what to change.

The rules are those of the official client (kaggle 2.2) and of Kaggle's pages on metadata. Where
the client only warns, or the server quietly does something else, it is a problem here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError

KERNEL, DATASET = "kernel-metadata.json", "dataset-metadata.json"
T4 = "NvidiaTeslaT4"  # two of them: one alone is not offered
SHAPES = (T4, "TpuV5E8")
RETIRED = {
    "NvidiaTeslaP100": T4,
    "TpuV38": "TpuV5E8",
    "Tpu1VmV38": "TpuV5E8",
    "TpuV232": "no accelerator",
    "TpuV2256": "no accelerator",
}
LICENCES = ("CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "apache-2.0", "GPL-3.0", "other")
LARGEST = 1_000_000  # bytes of a notebook's source
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_FLAGS = ("is_private", "enable_gpu", "enable_tpu", "enable_internet")


def check(folder: Path) -> None:
    """Raise InputError with every sentence about a folder that Kaggle would not take as meant."""
    if found := problems(folder):
        raise InputError("\n".join([f"{folder} cannot be uploaded as it is:", *found]))


def problems(folder: Path) -> list[str]:
    """Return what is wrong with a folder that holds metadata of a notebook or a data set."""
    for name, rules in ((KERNEL, _kernel), (DATASET, _dataset)):
        if (folder / name).exists():
            try:
                metadata = json.loads((folder / name).read_text(encoding="utf-8"))
            except ValueError as error:
                return [f"{name} is not JSON ({error}). Build it again."]
            return list(rules(metadata, folder))
    return [f"neither {KERNEL} nor {DATASET} is here. Give one of the folders that were built."]


def slug_of(title: str) -> str:
    """Return the last part of the address that Kaggle makes of a title."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _kernel(metadata: Mapping[str, Any], folder: Path) -> Iterator[str]:
    title, identity = str(metadata.get("title", "")), str(metadata.get("id", ""))
    yield from _identity(identity)
    if not 5 <= len(title) <= 50:
        yield f"title {title!r} has {len(title)} characters, but must have 5 to 50."
    if slug_of(title) != identity.rpartition("/")[2]:
        yield (
            f"title {title!r} becomes the address {slug_of(title)!r}, id says {identity!r}: Kaggle "
            "would make another notebook. Let them agree."
        )
    for name, wanted in (("language", "python"), ("kernel_type", "notebook")):
        if metadata.get(name) != wanted:
            yield f"{name} is {metadata.get(name)!r}, but must be {wanted!r}."
    for name in [name for name in _FLAGS if not isinstance(metadata.get(name), bool)]:
        yield f"{name} must be true or false; left out, the client decides otherwise than told."
    yield from _machine(metadata)
    for name in ("dataset_sources", "kernel_sources"):
        yield from (line for each in metadata.get(name, []) for line in _identity(each, name))
    yield from _notebook(folder / str(metadata.get("code_file", "")))


def _machine(metadata: Mapping[str, Any]) -> Iterator[str]:
    shape = metadata.get("machine_shape")
    if shape in RETIRED:
        yield f"machine_shape {shape} is retired, Kaggle gives {RETIRED[shape]}. Write {T4!r}."
    elif shape not in SHAPES:
        yield f"machine_shape is {shape!r}, not one that everybody gets: {', '.join(SHAPES)}."
    if (shape == T4) != (metadata.get("enable_gpu") is True):
        yield "enable_gpu and machine_shape contradict each other: set both, true and the T4."


def _notebook(path: Path) -> Iterator[str]:
    if not path.is_file():
        yield f"code_file: {path.name or 'nothing'} is not in the folder."
        return
    if path.stat().st_size > LARGEST:
        yield f"{path.name} has {path.stat().st_size:,} bytes; Kaggle takes {LARGEST:,}."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    if any(cell.get("outputs") for cell in notebook["cells"]):
        yield f"{path.name} holds outputs, of another run than Kaggle's. Clear them all."
    if "widgets" in notebook["metadata"]:
        yield f"{path.name} holds the state of widgets, which breaks its page. Clear all outputs."


def _dataset(metadata: Mapping[str, Any], folder: Path) -> Iterator[str]:
    yield from _identity(str(metadata.get("id", "")), shortest=6)
    for name, low, high in (("title", 6, 50), ("subtitle", 20, 80)):
        text = str(metadata.get(name, ""))
        if not low <= len(text) <= high:
            yield f"{name} {text!r} has {len(text)} characters, but must have {low} to {high}."
    names = [each.get("name") for each in metadata.get("licenses", [])]
    if len(names) != 1 or names[0] not in LICENCES:
        yield (
            f"licenses are {names}, but must be exactly one of {', '.join(LICENCES)}. Kaggle has "
            "no MIT: write 'other' and put a LICENSE file beside it."
        )
    if "other" in names and not (folder / "LICENSE").exists():
        yield "the licence is 'other', but there is no LICENSE file that says which."


def _identity(identity: str, what: str = "id", shortest: int = 3) -> Iterator[str]:
    owner, _, slug = identity.partition("/")
    if not _SLUG.fullmatch(owner.lower()) or not _SLUG.fullmatch(slug):
        yield (
            f"{what} {identity!r} must be 'owner/name' in small letters, digits and single "
            "hyphens, without 'datasets/' or 'code/' before it."
        )
    elif not shortest <= len(slug) <= 50:
        yield f"{what} {identity!r}: the name must have {shortest} to 50 characters."
