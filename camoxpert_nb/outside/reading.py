"""The one door for texts and numbers from outside: what was found there, or a sentence.

Files come half copied, as pointers of Git LFS, in another encoding, edited by hand.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError

Kinds = Mapping[str, type | tuple[type, ...]]
BROKEN = (OSError, UnicodeError, ValueError, RecursionError)  # all that reading JSON may raise
LFS = b"version https://git-lfs"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NAMES = {dict: "an object {...}", list: "a list [...]", str: "a text", int: "a whole number"}
_NAMES |= {float: "a number", bool: "true or false", type(None): "null"}


def ordinary(path: Path) -> Path:
    """Return the path; InputError for a pipe or a device, of which reading may never end.

    What a shell gives as <(command) is read: it lies in /dev. Links that lead in a circle are
    refused, too; a file that is missing is no matter.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return path
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return path
    if stat.S_ISFIFO(mode) and path.is_absolute() and path.parts[1:2] in (("dev",), ("proc",)):
        return path
    raise InputError(f"{path}: is a pipe or a device, expected an ordinary file. Remove it.")


def read_text(path: Path) -> str:
    """Return a text in UTF-8, with or without its mark at the beginning; else InputError."""
    try:
        raw = ordinary(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    try:
        if not raw.startswith(_UTF16):
            return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    raise InputError(f"{path}: {in_words(raw)}, expected text in UTF-8: save it as UTF-8.")


def read_json(path: Path, what: str, kinds: Kinds | None = None) -> dict[str, Any]:
    """Return the object that a JSON file holds; `what` it is ("a settings file"), for the message.

    kinds: the types that some of its values must have, where they are there; a key may name one
    further down, as "data.root". Raises InputError for a file that is missing, broken or another.
    """
    text = read_text(path)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        found = in_words(text.encode("utf-8", "replace"))
        reason = found if found != TEXT else f"it is not JSON ({error})"
        raise InputError(f"{path}: not {what}: {reason}. {_MEND}") from error
    if not isinstance(values, dict):
        raise InputError(
            f"{path}: not {what}: it holds {name_of(values)}, expected an object {{...}}. {_MEND}"
        )
    for key, kind in (kinds or {}).items():
        _check(path, values, key, kind)
    return values


def name_of(value: Any) -> str:
    """Return what a JSON value is, in words."""
    return _NAMES.get(type(value), type(value).__name__)


def number_in(name: str, low: float, high: float, expected: str) -> float | None:
    """Return the number in an environment variable, None if it is not set or empty.

    Raises InputError when it is no number of low...high; `expected` says what it should be.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise InputError(
            f"the environment variable {name} is {text!r}, expected {expected}. Set it so, or "
            f"`unset {name}`."
        )
    return value


def in_words(raw: bytes) -> str:
    """Say what a file is by its first bytes, where it is something else than was wanted."""
    if not raw.strip(b"\0"):
        found = "it holds nothing but zero bytes" if raw else "it is empty (0 bytes)"
        return f"{found}; its copy was probably cut short: copy it again"
    if raw[4:8] == b"ftyp":  # ISO base media, which HEIF and MP4 are
        return FILM
    start = raw[:512].lstrip().lower()
    for mark, words in _MARKS.items():
        if raw.startswith(mark) or (mark.startswith(b"<") and start.startswith(mark)):
            return words
    return TEXT if _is_text(raw[:512]) else UNKNOWN


def _is_text(start: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8-sig")().decode(start)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return b"\0" not in start


TEXT = "it is text"
FILM = "it is a HEIC photo or a film, which is not read here: save it as JPEG or PNG"
UNKNOWN = "it is neither text nor a file known here"
_PAGE = "it is a web page, as a download without permission gives"
_MARKS = {
    LFS: "it is a pointer of Git LFS, not the file itself: fetch it with `git lfs pull`",
    b"<!doctype": _PAGE,
    b"<html": _PAGE,
    b"<?xml": _PAGE,
    codecs.BOM_UTF16_LE: "it is text in UTF-16",
    codecs.BOM_UTF16_BE: "it is text in UTF-16",
    b"PK\3\4": "it is a zip archive",
    b"\x1f\x8b": "it is packed by gzip: unpack it first",
    b"\x89PNG": "it is a PNG image",
    b"\x89HDF": "it is a file of HDF5 (Keras)",
    b"\xff\xd8\xff": "it is a JPEG image",
    b"Rar!": "it is a RAR archive: unpack it first",
    b"7z\xbc\xaf": "it is a 7z archive: unpack it first",
}
NO_IMAGES = (TEXT, FILM, _PAGE, _MARKS[LFS])  # what no picture is
_MEND = "Get the file again, or mend it where it was edited by hand."


def _check(path: Path, values: dict[str, Any], key: str, kind: type | tuple[type, ...]) -> None:
    *above, last = key.split(".")
    for name in above:
        inner = values.get(name)
        if not isinstance(inner, dict):
            return  # checked by its own key, or not there
        values = inner
    kinds = kind if isinstance(kind, tuple) else (kind,)
    value = values.get(last)
    wrong = isinstance(value, bool) and bool not in kinds  # JSON's true is no number
    if last in values and (wrong or not isinstance(value, kinds)):
        wanted = " or ".join(_NAMES.get(each, each.__name__) for each in kinds)
        raise InputError(f"{path}: {key} is {name_of(value)}, expected {wanted}. {_MEND}")
