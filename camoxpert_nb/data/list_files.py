"""What a file of names says: train.txt, val.csv, a table with a column "split", splits.json.

Such files are written by many programs: with commas, semicolons or tabs, with or without a head, in
UTF-8 or UTF-16. One that speaks of splits and is not understood says why.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import few
from .folders import SUFFIXES, Folder
from .pairing import same
from .spellings import said, words

TEXTS = (".txt", ".lst", ".csv", ".tsv", ".list", ".ids", ".names", "")
NOT_READ = (
    *(".xlsx", ".xls", ".ods", ".parquet", ".pkl", ".pickle", ".yaml", ".yml", ".npy", ".mat"),
    *(".jsonl", ".xml", ".h5", ".feather", ".db"),
)
LARGEST = 20_000_000  # bytes; a longer file is no list of names
NAMES = (
    *("image", "images", "img", "filename", "file", "name", "path", "id", "imageid", "imagename"),
    *("imagepath", "imgpath", "imgname", "filepath", "photo", "picture", "stem", "key", "names"),
)
ENDINGS = ("id", "name", "file", "path", "image", "img", "key")  # of isic_id, image_key, ...
COLUMNS = ("split", "splits", "set", "subset", "partition", "phase", "fold", "usage", "dataset")
INDICES = ("dataset", "data", "index", "metadata", "meta", "files", "list", "names", "images")
OF_SPLITS = {"split", "splits", "subset", "subsets", "partition", "partitions", "fold", "folds"}

_FRACTION = re.compile(r"[-+]?\d*[.]\d+(e[-+]?\d+)?$", re.IGNORECASE)

Rows = list[list[str]]


@dataclass(frozen=True)
class NameList:
    """The images of one split, a line each; or, with `problem`, why the file is not understood."""

    path: Path
    split: str
    lines: tuple[str, ...] = ()
    problem: str = ""

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"


def lists_in(folder: Folder) -> Iterator[NameList]:
    """Yield the lists of a folder: of each file that its name or a column says to be one."""
    for name in (*folder.lists, *folder.others):
        path, kind, stem = folder.path / name, Path(name).suffix.lower(), Path(name).stem
        speaks = bool(said(stem) or OF_SPLITS & set(words(stem)))
        if kind in NOT_READ and speaks:
            problem = f"{kind[1:].upper()} files are not read as lists: save it as CSV or text"
            yield NameList(path, "", problem=problem)
        elif kind == ".json" and (speaks or stem.lower() in INDICES):
            if any(same(image) == same(name) for image in folder.images):
                continue  # the outlines of that image
            yield from _of_json(path, said(stem), speaks)
        elif kind in TEXTS and (speaks or kind in (".csv", ".tsv")):
            yield from _of_text(path, said(stem), speaks)


def _of_text(path: Path, split: str, speaks: bool) -> Iterator[NameList]:
    rows = _rows(path)
    if not rows:
        return
    table = list(_of_table(path, rows))
    speaks_of_splits = bool(OF_SPLITS & set(words(path.stem)))
    if table:
        yield from table
    elif speaks_of_splits and all(len(row) > 1 and row[-1].isdigit() for row in rows):
        problem = f"its column of {few(sorted({row[-1] for row in rows}))} is not understood: "
        yield NameList(path, "", problem=problem + "write train, val or test in it")
    elif split and (numbers := _measured(rows)):
        problem = f"it holds numbers ({few(numbers)}), so it may be no list: save the names alone"
        yield NameList(path, "", problem=problem)
    elif split:
        yield NameList(path, split, tuple(row[0] for row in _without_head(rows)))
    elif speaks:
        yield NameList(path, "", problem="it has no column of splits (split: train, val or test)")


def _measured(rows: Rows) -> list[str]:
    """Return the columns of a table with a head that hold fractions, as scores do."""
    if _without_head(rows) is rows:
        return []
    columns = zip(*(row for row in rows if len(row) == len(rows[0])), strict=True)
    return [head for head, *cells in columns if cells and all(map(_FRACTION.match, cells))]


def _of_json(path: Path, split: str, speaks: bool) -> Iterator[NameList]:
    """Yield what a JSON file says: names, names by split, the split of each name, or records."""
    try:
        values = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        if speaks:
            yield NameList(path, "", problem=f"it is not JSON ({error})")
        return
    if isinstance(values, dict) and {"annotations", "shapes", "categories"} & set(values):
        return  # outlines (COCO, LabelMe), of which is said elsewhere that they are not read
    found = list(_of_values(path, values, split))
    problem = "expected a list of names, names by split, or records with a split"
    yield from found or ([NameList(path, "", problem=problem)] if speaks else [])


def _of_values(path: Path, values: Any, split: str) -> Iterator[NameList]:
    lists = {k: v for k, v in values.items() if _is_names(v)} if isinstance(values, dict) else {}
    if lists and any(map(said, lists)):  # beside them stand a description, labels, ...
        unsaid = [key for key in lists if not said(key)]
        if unsaid:
            yield NameList(path, "", problem=f"what it calls {few(unsaid)} is no split")
            return
        for key, each in lists.items():
            yield NameList(path, said(key), tuple(map(_name_of, each)))
    elif isinstance(values, dict) and values and all(isinstance(v, str) for v in values.values()):
        yield from _by_split(path, values.items())
    elif isinstance(values, list) and values and all(isinstance(v, dict) for v in values):
        head = list(values[0])
        rows = [[str(each.get(key, "")) for key in head] for each in values]
        table = list(_of_table(path, [head, *rows]))
        named = [NameList(path, split, tuple(map(_name_of, values)))] if split else []
        yield from table or named
    elif isinstance(values, list) and split:
        yield NameList(path, split, tuple(map(_name_of, values)))


def _is_names(value: Any) -> bool:
    """Say whether a JSON value may be the images of a split; a number of them is none."""
    kinds = (str, dict, list)
    return isinstance(value, list) and all(isinstance(each, kinds) for each in value)


def _name_of(value: Any) -> str:
    """Return the name in an item of a JSON list: itself, or what a record says."""
    if isinstance(value, dict):
        own = {_key(name): each for name, each in value.items()}
        return str(next((own[name] for name in NAMES if name in own), value))
    return str(value[0] if isinstance(value, list) and value else value)


def _of_table(path: Path, rows: Rows) -> Iterator[NameList]:
    """Yield the names of each split of a table with a head and a column of splits."""
    head = [_key(cell) for cell in rows[0]]
    body = [row for row in rows[1:] if len(row) == len(head)]
    names, splits = _column_of_names(head, body), _column_of_splits(head, body)
    if names is None or splits is None:
        telling = [cell for cell in rows[0] if len(head) > 1 and _key(cell) in _TELLING]
        if telling:
            problem = f"its column {telling[0]} is not understood: write train, val or test in it"
            yield NameList(path, "", problem=problem)
    elif short := [row for row in rows[1:] if len(row) != len(head)]:
        problem = f"{len(short)} of its lines have not {len(head)} columns: {few(short)}"
        yield NameList(path, "", problem=problem)
    else:
        yield from _by_split(path, [(row[names], row[splits]) for row in body])


_TELLING = {*COLUMNS[:-1]} | {f"is{s}" for s in ("train", "valid", "val", "test", "validation")}


def _by_split(path: Path, items: Iterable[tuple[str, str]]) -> Iterator[NameList]:
    """Yield a list for each split, of names with what is said of each."""
    found: dict[str, list[str]] = defaultdict(list)
    unsaid: list[str] = []
    for name, word in items:
        (found[said(word)] if said(word) else unsaid).append(name if said(word) else word)
    if unsaid:
        other = few(list(dict.fromkeys(unsaid)))
        yield NameList(path, "", problem=f"{len(unsaid)} of its lines say no split: {other}")
        return
    for split, names in found.items():
        yield NameList(path, split, tuple(names))


def _column_of_names(head: Sequence[str], body: Rows) -> int | None:
    known = [place for place, cell in enumerate(head) if cell in NAMES]
    like = [p for p in range(len(head)) if body and all(_is_file(row[p]) for row in body)]
    ids = [place for place, cell in enumerate(head) if cell.endswith(ENDINGS)]
    return next(iter((*known, *like, *ids)), None)


def _column_of_splits(head: Sequence[str], body: Rows) -> int | None:
    """Return the column whose words are splits, most of them: others count folds, or sets."""
    share: Mapping[int, int] = {
        place: sum(bool(said(row[place])) for row in body)
        for place, cell in enumerate(head)
        if cell in COLUMNS
    }
    best = max(share, key=lambda place: share[place], default=None)
    return best if best is not None and 2 * share[best] > len(body) else None


def _without_head(rows: Rows) -> Rows:
    return rows[1:] if _key(rows[0][0]) in NAMES else rows


def _key(cell: str) -> str:
    return "".join(letter for letter in cell.lower() if letter not in "_- .")


def _is_file(cell: str) -> bool:
    return cell.lower().endswith(SUFFIXES)


def _rows(path: Path) -> Rows:
    """Return the cells of each line that holds something."""
    lines = [line for line in _text(path).splitlines() if line.strip()]
    lines = [line for line in lines if line.lstrip()[0] != "#" or _is_file(line.strip())]
    if not lines:
        return []
    delimiter = max(",;\t", key=lines[0].count)
    table = path.suffix.lower() in (".csv", ".tsv")
    if table or all("," in line for line in lines[:3]):
        rows = csv.reader(lines, delimiter=delimiter if lines[0].count(delimiter) else ",")
        return [[cell.strip() for cell in row] for row in rows]
    return [_cells(line) for line in lines]


def _cells(line: str) -> list[str]:
    """Return the words of a line; a path may hold spaces, and a mask's path may follow it."""
    if "\t" in line:
        return [cell.strip() for cell in line.split("\t")]
    parts = line.split()
    ends = [number for number, word in enumerate(parts, 1) if _is_file(word)]
    if ends:
        return [" ".join(parts[: ends[0]]), *parts[ends[0] :]]
    return [line.strip()]


def _text(path: Path) -> str:
    """Return a file's text, in UTF-8 or UTF-16; bytes of neither stay those of names on disk."""
    try:
        if path.stat().st_size > LARGEST:
            return ""
        raw = path.read_bytes()
    except OSError:
        return ""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", "replace")
    if zeros := raw[:200].count(0):  # UTF-16 without its mark: every other byte of ASCII
        order = "be" if raw[:200:2].count(0) > zeros / 2 else "le"
        return raw.decode(f"utf-16-{order}", "replace")
    return raw.decode("utf-8-sig", "surrogateescape")
