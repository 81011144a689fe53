"""Everything that goes to Kaggle, made from the same notebooks and package as anywhere else.

    OUTPUT/kit               the package, as a wheel and as a folder: a data set
    OUTPUT/03_train, ...     each notebook with its metadata: `kaggle kernels push -p` takes it
    OUTPUT/camoxpert_kaggle  one notebook that carries the package: drag it into the browser

What a notebook needs on Kaggle is put in here, as cells of their own.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .bootstrap import print_of
from .errors import InputError
from .kaggle_rules import DATASET, KERNEL, T4, check, slug_of

PACKAGE = Path(__file__).parent
PROJECT = PACKAGE.parent
KIT = "camoxpert-kit"
DATA = ("ivanomelchenkoim11/cod10k-dataset", "ivanomelchenkoim11/camo-dataset")
NEEDS = {"03_train": "02_configure", "04_evaluate": "03_train", "05_visualize": "03_train"}
# 01_gpu_check is not among them: it would keep GPU memory that the training needs.
STORY = ("02_configure", "03_train", "04_evaluate", "05_visualize")
ONE = "camoxpert_kaggle"
ABOUT = """# CamoXpert on Kaggle

Trains a network that finds camouflaged animals and people, judges it and shows what it sees. This
one notebook carries the whole kit.

1. **Input > Add Input**: attach COD10K, and CAMO if you like. Without data, images are generated.
2. **Session options > Accelerator**: GPU T4 x2.
3. **Save Version > Save & Run All**. It stops in time, saved, and says how to go on next time.
"""
# Cells that are added, and what stands in the cell before each.
INPUTS = "from camoxpert_nb.session import begin\n\nsession = begin()\nprint(session)"
DATA_LINE = "DATA = DATA or session.data"
ADDED = {
    "run": (
        "chosen(SETTINGS",
        'config = session.settings(config)\nprint(config.checkpoint_dir or "a new run begins")',
    ),
    "next": (
        "camoxpert resume",
        'from camoxpert_nb.session import how_to_go_on\n\nprint(how_to_go_on(run, "{kernel}"))',
    ),
}
Cell = dict[str, Any]


def build(
    user: str, output: Path, *, data: Sequence[str] = DATA, weights: Sequence[Path] = ()
) -> list[Path]:
    """Write the folders to upload and return them; all keep Kaggle's rules.

    `user` is the owner of what is uploaded, `data` the data sets to attach ("owner/name"),
    `weights` files of backbone weights that travel with the kit. Raises InputError when something
    breaks a rule, or when the project's notebooks are not here.
    """
    notebooks = sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))
    if not notebooks or not (PROJECT / "pyproject.toml").exists():
        raise InputError(
            f"{PROJECT} holds no notebooks and no pyproject.toml: the kit is made from the "
            "project's folder. Get it, `pip install --editable .` there, and run this again."
        )
    folders = [_kit(user, output / "kit", weights)]
    for path in notebooks:
        title, *cells = _cells(path, user)
        cells = [title, _bootstrap(), *cells]
        sources = [f"{user}/{KIT}", *data]
        folders.append(_kernel(output / path.stem, cells, user, sources, NEEDS.get(path.stem)))
    paths = [PROJECT / "notebooks" / f"{stem}.ipynb" for stem in STORY]
    told = [_cells(path, user, ONE, begun=path is not paths[0]) for path in paths]
    parts = [*(part[:-1] for part in told[:-1]), told[-1]]  # each ends in what comes next
    about = {"cell_type": "markdown", "id": "about", "metadata": {}, "source": ABOUT}
    cells = [about, _bootstrap(_archive()), *(cell for part in parts for cell in part)]
    folders.append(_kernel(output / ONE, cells, user, data))
    for folder in folders:
        check(folder)
    return folders


def _kit(user: str, folder: Path, weights: Sequence[Path]) -> Path:
    _empty(folder)
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (PROJECT / "LICENSE", *weights):
        shutil.copy(path, folder)
    _wheel(folder)
    metadata = {
        "title": "CamoXpert kit",
        "subtitle": "Train and judge networks that find camouflaged objects",
        "id": f"{user}/{KIT}",
        "licenses": [{"name": "other"}],
        "description": "The package camoxpert_nb, for the CamoXpert notebooks. MIT: see LICENSE.",
    }
    _write(folder / DATASET, metadata)
    return folder


def _wheel(folder: Path) -> None:
    """Build the wheel offline, from a copy: what an earlier build left must not get into it."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch)
        shutil.copytree(folder / PACKAGE.name, source / PACKAGE.name)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(PROJECT / name, source)
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
        command += ["--no-index", "--quiet", "--wheel-dir", str(folder), str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1]
        raise InputError(
            f"the wheel could not be built ({reason}). It needs pip and a recent setuptools here: "
            f"`{sys.executable} -m pip install --upgrade setuptools`."
        )


def _kernel(
    folder: Path, cells: Sequence[Cell], user: str, data: Sequence[str], needs: str | None = None
) -> Path:
    """Write a notebook and its metadata: two T4, no internet, private."""
    _empty(folder)
    title = _title(folder.name)
    options = {
        "accelerator": "nvidiaTeslaT4",
        "dataSources": [],
        "isGpuEnabled": True,
        "isInternetEnabled": False,
        "language": "python",
        "sourceType": "notebook",
    }
    about = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": cells,
        "metadata": {
            "kaggle": options,
            "kernelspec": about,
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    _write(folder / f"{folder.name}.ipynb", notebook)
    metadata = {
        "id": f"{user}/{slug_of(title)}",
        "title": title,
        "code_file": f"{folder.name}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": False,
        "machine_shape": T4,
        "dataset_sources": list(data),
        "kernel_sources": [f"{user}/{slug_of(_title(needs))}"] if needs else [],
        "competition_sources": [],
        "model_sources": [],
    }
    _write(folder / KERNEL, metadata)
    return folder


def _cells(path: Path, user: str, notebook: str = "", *, begun: bool = False) -> list[Cell]:
    """Return the cells of a notebook, with those of ADDED behind the cells that they follow.

    They become part of `notebook`, where that is another one; `begun` says that it is under way.
    """
    kernel, told = f"{user}/{slug_of(_title(notebook or path.stem))}", []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        cell["source"] = source.replace("launch(config)", "launch(config, resume=True)")
        told.append(cell)
        if "parameters" in cell["metadata"].get("tags", []):
            lines = [INPUTS] * (not begun) + [DATA_LINE] * ("DATA" in source)
            told.append(_code(f"{path.stem[:2]}-inputs", "\n".join(lines)))
        for name, (mark, text) in ADDED.items():
            if cell["cell_type"] == "code" and mark in source:
                told.append(_code(f"{path.stem[:2]}-{name}", text.format(kernel=kernel)))
    return told


def _bootstrap(archive: str = "") -> Cell:
    lines = "\n".join(textwrap.wrap(archive, 120))
    call = f'print(find_kit("""{lines}""", built="{print_of(PACKAGE)}"))'
    source = (PACKAGE / "bootstrap.py").read_text(encoding="utf-8")
    cell = _code("kit", f"{source}\n\n{call}")
    cell["metadata"] = {"jupyter": {"source_hidden": True}, "_kg_hide-input": True}
    return cell


def _archive() -> str:
    """Return the package as a zip in base64, the same for the same files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as files:
        for path in sorted(PACKAGE.iterdir()):
            if path.suffix in (".py", ".csv"):
                about = zipfile.ZipInfo(f"{PACKAGE.name}/{path.name}")
                about.compress_type = zipfile.ZIP_DEFLATED
                files.writestr(about, path.read_bytes())
    return base64.b64encode(packed.getvalue()).decode()


def _title(stem: str) -> str:
    return "CamoXpert " + stem.removeprefix("camoxpert_").replace("_", " ")


def _code(name: str, source: str) -> Cell:
    shape: Cell = {"cell_type": "code", "execution_count": None, "id": name, "metadata": {}}
    return {**shape, "outputs": [], "source": source}


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
