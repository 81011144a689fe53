"""Everything that goes to Kaggle, made from the same notebooks and package as anywhere else.

    OUTPUT/kit               the package, as a wheel and as a folder: a data set
    OUTPUT/03_train, ...     each notebook with its metadata: `kaggle kernels push -p` takes it
    OUTPUT/camoxpert_train, camoxpert_predict   the ready notebooks of kaggle/, which carry the kit

The notebooks go as they are, behind a first cell that finds the kit and names the notebook.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..outside.reading import read_json
from .bootstrap import print_of
from .built import refuse_foreign, replace_built
from .carried import HIDDEN, PACKAGE, READY, renewed
from .rules import DATASET, KERNEL, KIT, T4, check, slug_of

PROJECT = PACKAGE.parent
DATA = ("ivanomelchenkoim11/cod10k-dataset", "ivanomelchenkoim11/camo-dataset")
LANGUAGE = {"name": "python", "mimetype": "text/x-python", "file_extension": ".py"}
NEEDS = {"03_train": "02_configure", "04_evaluate": "03_train", "05_visualize": "03_train"}
Cell = dict[str, Any]


def build(
    user: str, output: Path, *, data: Sequence[str] = DATA, weights: Sequence[Path] = ()
) -> list[Path]:
    """Write the folders to upload and return them; all keep Kaggle's rules.

    `user` is the owner of what is uploaded, `data` the data sets to attach ("owner/name"),
    `weights` files of backbone weights that travel with the kit. What an earlier build wrote is
    replaced. Raises InputError when something breaks a rule, when those folders hold files that no
    build wrote, or when the project's notebooks are not here.
    """
    notebooks = sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))
    if not notebooks or not (PROJECT / "pyproject.toml").exists():
        raise InputError(
            f"{PROJECT} holds no notebooks and no pyproject.toml: the kit is made from the "
            "project's folder. Get it, `pip install --editable .` there, and run this again."
        )
    if not user:
        raise InputError(
            "no owner is given, expected your name on Kaggle, as in the address of your page: "
            "--user NAME."
        )
    names = ["kit", *(path.stem for path in notebooks), *READY]
    refuse_foreign(output, names)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        for folder in _build_all(user, made, notebooks, data, weights):
            check(folder)
        return [replace_built(made / name, output / name) for name in names]


def _build_all(
    user: str, output: Path, notebooks: list[Path], data: Sequence[str], weights: Sequence[Path]
) -> list[Path]:
    folders = [_kit(user, output / "kit", weights)]
    for path in notebooks:
        title, *cells = _cells(path)
        cells = [title, _bootstrap(f"{user}/{_slug(path.stem)}"), *cells]
        sources = [f"{user}/{KIT}", *data]
        folders.append(_kernel(output / path.stem, cells, user, sources, NEEDS.get(path.stem)))
    for stem in READY:
        ready = renewed(PROJECT / "kaggle" / f"{stem}.ipynb", f"{user}/{_slug(stem)}")["cells"]
        # What it predicts is the training's output; its pictures are attached by hand.
        trains = stem == "camoxpert_train"
        needs = None if trains else "camoxpert_train"
        kit = [f"{user}/{KIT}"] * bool(weights)  # which lie in it; the code is in the notebook
        folders.append(_kernel(output / stem, ready, user, [*kit, *data] * trains, needs))
    return folders


def _kit(user: str, folder: Path, weights: Sequence[Path]) -> Path:
    folder.mkdir()
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
    folder.mkdir()
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
        "metadata": {"kaggle": options, "kernelspec": about, "language_info": LANGUAGE},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    _write(folder / f"{folder.name}.ipynb", notebook)
    metadata = {
        "id": f"{user}/{_slug(folder.name)}",
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
        "kernel_sources": [f"{user}/{_slug(needs)}"] if needs else [],
        "competition_sources": [],
        "model_sources": [],
    }
    _write(folder / KERNEL, metadata)
    return folder


def _cells(path: Path) -> list[Cell]:
    """Return a notebook's cells, each source as one text: the official client wants it so."""
    values = read_json(path, "a notebook of version 4", {"cells": list})
    cells = values.get("cells", [])
    if not cells or not all(isinstance(cell, dict) and "source" in cell for cell in cells):
        raise InputError(f"{path}: holds no cells, expected a notebook of version 4. Get it again.")
    plain = {"metadata": {}, "cell_type": "code"}
    return [{**plain, **cell, "source": "".join(cell["source"])} for cell in cells]


def _bootstrap(kernel: str) -> Cell:
    """Return the first code cell; `kernel` ("owner/slug") is for advice on the next session."""
    source = (PACKAGE / "kaggle" / "bootstrap.py").read_text(encoding="utf-8")
    call = f'print(find_kit(built="{print_of(PACKAGE)}"))'
    name = f'os.environ.setdefault("CAMOXPERT_KERNEL", "{kernel}")'
    shape: Cell = {"cell_type": "code", "execution_count": None, "id": "kit", "outputs": []}
    return {**shape, "metadata": HIDDEN, "source": f"{source}\n\n{name}\n{call}"}


def _title(stem: str) -> str:
    return "CamoXpert " + stem.removeprefix("camoxpert_").replace("_", " ")


def _slug(stem: str) -> str:
    return slug_of(_title(stem))


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
