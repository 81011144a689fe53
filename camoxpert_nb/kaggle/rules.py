"""What Kaggle asks of a folder that is uploaded, as sentences that say what to change.

The rules are those of the official client (kaggle 2.2) and of Kaggle's pages on metadata. Where
the client only warns, or the server quietly does something else, it is a problem here.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..outside.reading import Kinds, name_of, read_json

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
_TEXT = ("title", "subtitle", "id", "code_file", "language", "kernel_type", "machine_shape")
_LISTS = ("dataset_sources", "kernel_sources", "competition_sources", "model_sources")
OF_KERNEL: Kinds = dict.fromkeys(_TEXT, (str, type(None))) | dict.fromkeys(_LISTS, list)
OF_DATASET: Kinds = {"title": str, "subtitle": str, "id": str, "licenses": list}
KIT, PACKAGE = "camoxpert-kit", "camoxpert_nb"
NOBODY = ("your-name", "yourname", "your-username", "username", "user", "owner")
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_FLAGS = ("is_private", "enable_gpu", "enable_tpu", "enable_internet")


def check(folder: Path) -> None:
    """Raise InputError with every sentence about a folder that Kaggle would not take as meant."""
    if found := problems(folder):
        raise InputError("\n".join([f"{folder} cannot be uploaded as it is:", *found]))


def problems(folder: Path) -> list[str]:
    """Return what is wrong with a folder that holds metadata of a notebook or a data set."""
    for name, rules, kinds in ((KERNEL, _kernel, OF_KERNEL), (DATASET, _dataset, OF_DATASET)):
        if (folder / name).exists():
            try:
                metadata = read_json(folder / name, f"Kaggle's metadata, as built: {name}", kinds)
            except InputError as error:
                return [str(error)]
            marked = (folder / name).read_bytes().startswith(codecs.BOM_UTF8)
            mark = [f"{name} begins with a byte order mark (BOM): save it as UTF-8 without."]
            return [*mark[: int(marked)], *rules(metadata, folder)]
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
    yield from _sources(metadata)
    yield from _notebook(folder / str(metadata.get("code_file", "")))


def _sources(metadata: Mapping[str, Any]) -> Iterator[str]:
    for name in ("dataset_sources", "kernel_sources"):
        for each in metadata.get(name, []):
            if isinstance(each, str):
                yield from _identity(each, name)
            else:
                yield f"{name} holds {name_of(each)}, expected texts 'owner/name'."


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
    try:
        notebook = read_json(path, "a notebook", {"nbformat": int, "cells": list, "metadata": dict})
    except InputError as error:
        yield f"code_file must be a notebook, as kernel_type says: {error}"
    else:
        yield from _contents(path.name, notebook)


def _contents(name: str, notebook: Mapping[str, Any]) -> Iterator[str]:
    cells, version = notebook.get("cells"), notebook.get("nbformat", 4)
    if version != 4 or not isinstance(cells, list):
        yield (
            f"{name} is a notebook of version {version}, expected 4 with cells: `jupyter nbconvert "
            f"--to notebook --inplace {name}` makes it one."
        )
    elif not all(isinstance(cell, dict) for cell in cells):
        yield f"{name} holds cells that are no objects {{...}}. Build it again."
    elif any(cell.get("outputs") for cell in cells):
        yield f"{name} holds outputs, of another run than Kaggle's. Clear them all."
    if "metadata" not in notebook:
        yield f"{name} has no metadata, which say what language it is in. Build it again."
    if "widgets" in notebook.get("metadata", {}):
        yield f"{name} holds the state of widgets, which breaks its page. Clear all outputs."


def _dataset(metadata: Mapping[str, Any], folder: Path) -> Iterator[str]:
    yield from _identity(str(metadata.get("id", "")), shortest=6)
    for name, low, high in (("title", 6, 50), ("subtitle", 20, 80)):
        text = str(metadata.get(name, ""))
        if not low <= len(text) <= high:
            yield f"{name} {text!r} has {len(text)} characters, but must have {low} to {high}."
    listed = metadata.get("licenses", [])
    names = [each.get("name") if isinstance(each, dict) else str(each) for each in listed]
    if len(names) != 1 or names[0] not in LICENCES:
        yield (
            f"licenses are {names}, but must be exactly one of {', '.join(LICENCES)}. Kaggle has "
            "no MIT: write 'other' and put a LICENSE file beside it."
        )
    if "other" in names and not (folder / "LICENSE").exists():
        yield "the licence is 'other', but there is no LICENSE file that says which."
    yield from _files(metadata, folder)


def _files(metadata: Mapping[str, Any], folder: Path) -> Iterator[str]:
    files = [path.name for path in folder.iterdir() if path.name not in (DATASET, "LICENSE")]
    if not files:
        yield "there is nothing to upload beside the metadata. Build it again."
    elif str(metadata.get("id", "")).endswith(f"/{KIT}"):
        wheel = any(name.startswith(f"{PACKAGE}-") and name.endswith(".whl") for name in files)
        if not wheel and not (folder / PACKAGE / "__init__.py").is_file():
            yield (
                f"the kit lacks its package: neither the folder {PACKAGE} nor its wheel is here. "
                "Build it again."
            )


def _identity(identity: str, what: str = "id", shortest: int = 3) -> Iterator[str]:
    owner, _, slug = identity.partition("/")
    if owner.lower() in NOBODY:
        yield f"{what} {identity!r}: {owner!r} stands for a name. Build it with --user NAME, yours."
    if not _SLUG.fullmatch(owner.lower()) or not _SLUG.fullmatch(slug):
        yield (
            f"{what} {identity!r} must be 'owner/name' in small letters, digits and single "
            "hyphens, without 'datasets/' or 'code/' before it."
        )
    elif not shortest <= len(slug) <= 50:
        yield f"{what} {identity!r}: the name must have {shortest} to 50 characters."
