"""The one door for paths: what they mean, and whether they can be used, before any work starts.

`name` is what the user calls a path: a flag as --json, or an environment variable. Every function
raises InputError with that name.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .spelling import alike

LONGEST = 200  # bytes of a file name that we make: most file systems take 255


def given(path: Path | str, name: str = "a path") -> Path:
    """Return a path as people write it: `~` and `~user` are home folders, empty ones are refused.

    A relative path is told from the current folder, and stays relative.
    """
    text = str(path)
    if not text.strip():
        raise InputError(f"{name} is empty: give a folder or file ('.' is the current folder).")
    if "\0" in text:
        raise InputError(f"{name} {text!r} holds a zero byte, which no path may.")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # nobody of that name, or no home folder at all
        raise InputError(
            f"{name} {text}: there is no such home folder ({error}). Write the whole path."
        ) from error


def readable(path: Path | str, name: str, kind: str = "file or folder") -> Path:
    """Return the path of something that is there and can be read.

    kind: "file", "folder", or "file or folder".
    """
    path = given(path, name)
    there = _mode(path, name)
    if there is None:
        raise InputError(f"{name} {path}: no such {kind}. {_near(path)}")
    if kind != "file or folder" and stat.S_ISDIR(there) != (kind == "folder"):
        found, other = ("folder", "NAME") if stat.S_ISDIR(there) else ("file", "..")
        example = path.parent if other == ".." else path / other
        raise InputError(f"{name} {path} is a {found}, expected a {kind}: give one, as {example}.")
    if not os.access(path, os.R_OK | (os.X_OK if stat.S_ISDIR(there) else 0)):
        raise InputError(f"{name} {path} cannot be read (permission denied): change its rights.")
    return path


def writable_file(path: Path | str, name: str) -> Path:
    """Return the path of a file that can be written; folders above it may be missing.

    Nothing is made or changed.
    """
    path = given(path, name)
    there = _mode(path, name)
    if there is not None and stat.S_ISDIR(there):
        raise InputError(f"{name} {path} is a folder, expected a file: give {path / 'NAME'}.")
    if there is None:
        _check_room(_above(path.parent, name), path, name)
    elif not os.access(path, os.W_OK):
        raise InputError(f"{name} {path} cannot be written (it is read-only): {_ELSEWHERE}.")
    elif stat.S_ISREG(there):
        _check_room(path.parent, path, name)
    return path


def writable_folder(path: Path | str, name: str) -> Path:
    """Return the path of a folder that can be written into, or made."""
    path = given(path, name)
    there = _mode(path, name)
    if there is not None and not stat.S_ISDIR(there):
        raise InputError(f"{name} {path} is a file, expected a folder: give a folder.")
    _check_room(_above(path, name), path, name)
    return path


# What our files begin with, by what they hold: others of that name are not ours to replace.
SIGNS = {
    "JSON": (b"{", b"["),
    "scores": (b"dataset,",),
    "a picture": (b"\x89PNG", b"%PDF", b"<?xml", b"<svg"),
    "ONNX": (b"\x08",),  # the first field of a model, its version
}
PICTURES = (".png", ".pdf", ".svg")  # what `figures.canvas.save` writes
OF_A_RUN = {"config.json", "summary.json", "split.json", "process.json", "history.jsonl"}
OF_A_RUN |= {"best.pt", "last.pt", "preview.npz", "log.txt", "history.csv"}


def replaceable(path: Path, name: str, holds: str) -> Path:
    """Return the path of a file to be written, unless something else is there that would be lost.

    holds: what will be written, a key of SIGNS.
    """
    if path.name in OF_A_RUN and (path.parent / "config.json").is_file():
        raise InputError(f"{name} {path} is a file of a run, which needs it: {_ELSEWHERE}.")
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
        if start and not start.startswith(SIGNS[holds]):
            raise InputError(
                f"{name} {path} is there already and holds something else than {holds}, which "
                f"would be lost: {_ELSEWHERE}, or remove it."
            )
    return path


def check_ending(path: Path, name: str, known: Sequence[str]) -> None:
    """Raise InputError unless the file's name ends as one of `known`: the ending says the kind."""
    if path.suffix.lower() in known:
        return
    found = f"ends in {path.suffix}" if path.suffix else "has no ending"
    raise InputError(
        f"{name} {path} {found}, expected {' or '.join(known)}: give {path.with_suffix(known[0])}."
    )


def make_unique(wanted: Path) -> Path:
    """Make the folder, or one with -2, -3, ... behind its name, and return it.

    Whoever else asks at the same moment, in whatever process, gets another one.
    """
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 10_000):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise InputError(f"{wanted} and 10,000 like it are there already: name another folder.")


def file_name(text: str) -> str:
    """Return a text as the name of a file: no separators or blanks, all printable, not too long."""
    plain = "".join(
        each if each.isprintable() and each not in ' /\\:*?"<>|' else "_" for each in text
    )
    return plain.encode()[:LONGEST].decode(errors="ignore") or "_"


def with_ending(path: Path, ending: str) -> Path:
    """Return the path with that ending (".onnx"); dots in its name stay: model.v1 is no ending."""
    return path if path.name.lower().endswith(ending) else path.with_name(path.name + ending)


def lend_home() -> None:
    """Give the libraries places for their files where the system knows no home folder.

    Without it some would make a folder called "~" here.
    """
    if os.path.expanduser("~") != "~":  # noqa: PTH111 (Path.home() would raise)
        return
    base = Path(os.environ.get("CAMOXPERT_CACHE") or tempfile.gettempdir())
    for name in ("HF_HOME", "TORCH_HOME", "MPLCONFIGDIR"):
        os.environ.setdefault(name, str(base / name.lower()))


_ELSEWHERE = "name another place"


def _mode(path: Path, name: str) -> int | None:
    """Return what the path is, or None where nothing is there."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise InputError(
                f"{name} {path} is a link to {path.readlink()}, which is not there."
            ) from None
        return None
    except OSError as error:
        raise InputError(f"{name} {path}: {_reason(error, path)}.") from error


def _above(folder: Path, name: str) -> Path:
    """Return the nearest folder that is there: the folder itself, or one above it."""
    for each in (folder, *folder.parents):
        there = _mode(each, name)
        if there is None:
            continue
        if not stat.S_ISDIR(there):
            raise InputError(f"{name}: {each} is a file, so {folder} cannot be made: {_ELSEWHERE}.")
        return each
    return Path()


def _check_room(folder: Path, path: Path, name: str) -> None:
    """Raise InputError unless a file can be made in `folder`; none stays there."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{name} {path} cannot be written ({error.strerror or error}): {_ELSEWHERE}."
        ) from error


def _reason(error: OSError, path: Path) -> str:
    where = error.filename or path
    if isinstance(error, NotADirectoryError):
        part = next((each for each in path.parents if each.is_file()), path)
        return f"{part} is a file, no folder"
    return f"{error.strerror or error}" + (f": {where}" if str(where) != str(path) else "")


def meant(path: Path) -> str:
    """Return a question for what is there and like a path that is not; "" where nothing is."""
    try:
        return _look(path)[1]
    except (OSError, StopIteration):
        return ""


def _near(path: Path) -> str:
    """Say where it was looked for, and what is there."""
    try:
        parent, question = _look(path)
    except (OSError, StopIteration):
        return "Check its spelling."
    return f"Looked in {parent}.{question}"


def _look(path: Path) -> tuple[Path, str]:
    """Return the last folder of a path that is there, and a question for what in it was meant.

    That holds the whole path in the user's own words, so that it can be typed.
    """
    parent = next(each for each in path.absolute().parents if each.is_dir())
    missing = path.absolute().relative_to(parent).parts[0]
    names = [each.name for each in parent.iterdir() if not each.name.startswith(".")]
    rest = path.absolute().relative_to(parent / missing)
    beside = Path(*path.parts[: len(path.parts) - len(rest.parts) - 1])
    near = [str(beside / name / rest) for name in alike(missing, names, least=0.7)]
    return parent, f" Did you mean {' or '.join(near)}?" if near else ""
