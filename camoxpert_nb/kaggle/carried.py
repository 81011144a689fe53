"""The two ready notebooks, kaggle/*.ipynb: their cells that carry the package, made anew.

Everything else in them is written by hand, in Jupyter. Kaggle takes a megabyte of source, and the
package is larger. So what a reader may want to read or change stands as code, a cell for each
room; the rest is packed, and becomes plain files beside the notebook when it is run.
"""

from __future__ import annotations

import base64
import bz2
import json
import re
import textwrap
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..outside.reading import read_json
from .bootstrap import MARK, NAME, files_of, print_of
from .earlier import NOBODYS

PACKAGE = Path(__file__).parents[1]
# The files that stand as code, in the order in which they are read.
TRAINING: dict[str, tuple[str, ...]] = {
    "settings": ("config",),
    "runs": ("run",),
    "data": ("layouts", "selection", "cache", "batches", "augment"),
    "network": ("model", "mixture", "layers", "losses", "backbone", "build"),
    "training": (
        *("prepare", "schedule", "state", "train", "epoch"),
        *("validate", "score", "best", "fit"),
    ),
}
PREDICTION: dict[str, tuple[str, ...]] = {
    "network": ("model", "mixture", "layers", "backbone", "build"),
    "evaluation": ("predict",),
}
READY = {"camoxpert_train": TRAINING, "camoxpert_predict": PREDICTION}
HIDDEN = {"_kg_hide-input": True, "jupyter": {"source_hidden": True}}
Cell = dict[str, Any]


def renewed(path: Path, kernel: str = NOBODYS) -> dict[str, Any]:
    """Return a ready notebook with its cells that carry the package as that is now.

    kernel: "owner/slug" on Kaggle, for advice on the next session. Outputs are left out. Raises
    InputError for a file that is not one of `READY`, or has no cell `kit` to begin with.
    """
    if path.stem not in READY:
        raise InputError(f"{path}: expected one of {', '.join(READY)}, as .ipynb.")
    notebook = read_json(path, "a notebook of version 4", {"cells": list, "metadata": dict})
    own = [_bare(cell) for cell in notebook["cells"] if not cell.get("id", "").startswith("kit-")]
    at = [place for place, cell in enumerate(own) if cell.get("id") == "kit"]
    if len(at) != 1:
        raise InputError(f"{path}: expected one cell with the id 'kit', found {len(at)}.")
    own[at[0] : at[0] + 1] = _kit_cells(READY[path.stem], kernel)
    metadata = {name: notebook["metadata"][name] for name in ("kernelspec", "language_info")}
    return {"cells": own, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def renew(path: Path) -> bool:
    """Write a ready notebook anew, as Jupyter writes them; say whether anything changed."""
    text, before = as_text(renewed(path)), path.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8", newline="\n")
    return text != before


def renew_all() -> list[tuple[Path, bool]]:
    """Renew the ready notebooks of this project; say of each whether anything changed.

    Raises InputError where the project's folder is not here.
    """
    folder = PACKAGE.parent / "kaggle"
    paths = [folder / f"{stem}.ipynb" for stem in READY]
    if lost := [path.name for path in paths if not path.is_file()]:
        raise InputError(
            f"{folder} lacks {', '.join(lost)}: the notebooks are renewed in the project's folder. "
            "Get it, `pip install --editable .` there, and run this again."
        )
    return [(path, renew(path)) for path in paths]


def as_text(notebook: dict[str, Any]) -> str:
    """Return a notebook's file: each source as a list of lines, so that changes can be read."""
    cells = [
        {**cell, "source": cell["source"].splitlines(keepends=True)} for cell in notebook["cells"]
    ]
    values = {**notebook, "cells": cells}
    return json.dumps(values, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def differences(path: Path) -> list[str]:
    """Say how the code that a notebook carries differs from this package, [] if it does not.

    Raises InputError when it carries none.
    """
    found = _files_in(path)
    own = {name: text for texts in _rooms().values() for name, text in texts.items()}
    if not found:
        raise InputError(
            f"{path} carries no code: expected a notebook with cells that begin with %%kit, as "
            f"{', '.join(READY)} have."
        )
    said = [f"{name}: only in the notebook" for name in sorted({*found} - {*own})]
    said += [f"{name}: not in the notebook" for name in sorted({*own} - {*found})]
    return said + [
        f"{name}: other than here" for name in sorted({*own} & {*found}) if own[name] != found[name]
    ]


def _files_in(path: Path) -> dict[str, str]:
    """Return name and text of all files that a notebook carries; its code is not executed."""
    notebook = read_json(path, "a notebook of version 4", {"cells": list})
    sources = ["".join(cell.get("source", "")) for cell in notebook["cells"]]
    found: dict[str, str] = {}
    for source in sources:
        if source.startswith("%%kit "):
            found |= files_of(source)
        for packed in re.findall(r'^    "\w+": """([A-Za-z0-9+/=\s]+)"""', source, re.MULTILINE):
            try:
                files = json.loads(bz2.decompress(base64.b64decode(packed)))
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{path}: a packed part cannot be read ({error}). Get the notebook again."
                ) from error
            found |= {name: text for name, text in files.items() if text is not None}
    return found


def _kit_cells(plain: dict[str, tuple[str, ...]], kernel: str) -> list[Cell]:
    """Return the cells that write the package and make it ready to import."""
    rooms = _rooms()
    cells = [_code("kit", _first(kernel))]
    for room, stems in plain.items():
        cells.append(_code(f"kit-{room}", _room_cell(room, stems, rooms[room])))
    return [*cells, _code("kit-rest", _rest(rooms, plain))]


def _first(kernel: str) -> str:
    source = (PACKAGE / "kaggle" / "bootstrap.py").read_text(encoding="utf-8")
    return f"""{source}

from IPython import get_ipython

os.environ.setdefault("CAMOXPERT_KERNEL", "{kernel}")
get_ipython().register_magic_function(keep_code, "cell", "kit")"""


def _room_cell(room: str, stems: tuple[str, ...], texts: dict[str, str]) -> str:
    """Return a `%%kit` cell with these files of a room."""
    parts = [f"%%kit {room}"]
    for stem in stems:
        name = f"{NAME}/{room}/{stem}.py"
        parts += [f"{MARK} {name} {'=' * (94 - len(name))}", texts[name]]
    return "\n".join(parts).rstrip("\n")


def _rest(rooms: dict[str, dict[str, str]], plain: dict[str, tuple[str, ...]]) -> str:
    lines = ["# Packed: all other files of the package. Run, they lie in kit/ as plain files."]
    lines.append("PACKED = {")
    for room, texts in rooms.items():
        shown = {f"{NAME}/{room}/{stem}.py" for stem in plain.get(room, ())}
        packed = {name: None if name in shown else text for name, text in texts.items()}
        content = json.dumps(packed, ensure_ascii=False, sort_keys=True).encode()
        code = base64.b64encode(bz2.compress(content, 9)).decode()  # the same bytes everywhere
        count = sum(text.count("\n") for text in packed.values() if text)
        lines.append(f"    # {len(texts) - len(shown)} files, {count:,} lines")
        lines += [f'    "{room or NAME}": """', *textwrap.wrap(code, 120), '    """,']
    return "\n".join([*lines, "}", f'print(find_kit(keep_packed(PACKED), "{print_of(PACKAGE)}"))'])


def _rooms() -> dict[str, dict[str, str]]:
    """Return name and text of each of the package's files, by room ("" for the package itself)."""
    rooms: dict[str, dict[str, str]] = {}
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in (".py", ".csv"):
            name = path.relative_to(PACKAGE).as_posix()
            text = path.read_bytes().decode().replace("\r\n", "\n")
            rooms.setdefault(name.rpartition("/")[0], {})[f"{NAME}/{name}"] = text
    return rooms


def _code(name: str, source: str) -> Cell:
    shape: Cell = {"cell_type": "code", "execution_count": None, "outputs": []}
    return {**shape, "id": name, "metadata": HIDDEN, "source": source}


def _bare(cell: Cell) -> Cell:
    """Return a cell without outputs, its source as one text."""
    bare = {**cell, "source": "".join(cell["source"])}
    return {**bare, "execution_count": None, "outputs": []} if "outputs" in cell else bare
