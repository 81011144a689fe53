from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from camoxpert_nb.errors import InputError
from camoxpert_nb.kaggle.rules import DATASET, KERNEL, check, problems, slug_of

NOTEBOOK: dict[str, Any] = {
    "cells": [{"cell_type": "code", "outputs": [], "source": "1"}],
    "metadata": {},
}
GOOD_KERNEL: dict[str, Any] = {
    "id": "some-one/camoxpert-03-train",
    "title": "CamoXpert 03 train",
    "code_file": "a.ipynb",
    "language": "python",
    "kernel_type": "notebook",
    "is_private": True,
    "enable_gpu": True,
    "enable_tpu": False,
    "enable_internet": False,
    "machine_shape": "NvidiaTeslaT4",
    "dataset_sources": ["some-one/camoxpert-kit"],
    "kernel_sources": [],
}
GOOD_DATASET: dict[str, Any] = {
    "id": "some-one/camoxpert-kit",
    "title": "CamoXpert kit",
    "subtitle": "Train networks that find camouflage",
    "licenses": [{"name": "other"}],
}


def kernel(folder: Path, notebook: dict[str, Any] = NOTEBOOK, **changes: Any) -> list[str]:
    (folder / "a.ipynb").write_text(json.dumps(notebook))
    (folder / KERNEL).write_text(json.dumps(GOOD_KERNEL | changes))
    return problems(folder)


def dataset(folder: Path, **changes: Any) -> list[str]:
    (folder / "LICENSE").write_text("MIT")
    (folder / "camoxpert_nb").mkdir(exist_ok=True)
    (folder / "camoxpert_nb" / "__init__.py").touch()
    (folder / "camoxpert_nb-1.0-py3-none-any.whl").touch()
    (folder / DATASET).write_text(json.dumps(GOOD_DATASET | changes))
    return problems(folder)


def test_what_keeps_the_rules_passes(tmp_path: Path) -> None:
    assert kernel(tmp_path) == []
    check(tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"title": "abc", "id": "some-one/abc"}, "must have 5 to 50"),
        ({"title": "Another title"}, "'another-title'"),
        ({"id": "03-train"}, "'owner/name'"),
        ({"id": "code/some-one/03-train"}, "'owner/name'"),
        ({"dataset_sources": ["datasets/some-one/kit"]}, "without 'datasets/'"),
        ({"kernel_sources": ["some-one/Bad_Slug"]}, "kernel_sources 'some-one/Bad_Slug'"),
        ({"machine_shape": "NvidiaTeslaP100"}, "retired, Kaggle gives NvidiaTeslaT4"),
        ({"machine_shape": "NvidiaA100"}, "not one that everybody gets"),
        ({"machine_shape": None}, "contradict"),
        ({"enable_gpu": False}, "contradict"),
        ({"enable_internet": "false"}, "enable_internet must be true or false"),
        ({"kernel_type": "script"}, "must be 'notebook'"),
        ({"code_file": "other.ipynb"}, "other.ipynb is not in the folder"),
    ],
)
def test_each_breach_of_a_notebook_has_its_sentence(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    assert any(sentence in line for line in kernel(tmp_path, **changes))
    with pytest.raises(InputError, match="cannot be uploaded"):
        check(tmp_path)


def test_outputs_widgets_and_weight_are_refused(tmp_path: Path) -> None:
    full = {"cells": [{"cell_type": "code", "outputs": [{}], "source": "1" * 1_000_000}]}
    said = "\n".join(kernel(tmp_path, notebook={**full, "metadata": {"widgets": {}}}))
    assert "holds outputs" in said and "state of widgets" in said and "bytes" in said


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"title": "kit"}, "must have 6 to 50"),
        ({"subtitle": "too short"}, "must have 20 to 80"),
        ({"id": "some-one/kit"}, "must have 6 to 50"),
        ({"licenses": [{"name": "MIT"}]}, "Kaggle has no MIT"),
        ({"licenses": [{"name": "other"}, {"name": "CC0-1.0"}]}, "exactly one"),
        ({"licenses": []}, "exactly one"),
    ],
)
def test_each_breach_of_a_data_set_has_its_sentence(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    assert dataset(tmp_path) == []
    assert any(sentence in line for line in dataset(tmp_path, **changes))


def test_another_licence_needs_its_text(tmp_path: Path) -> None:
    dataset(tmp_path)
    (tmp_path / "LICENSE").unlink()
    assert "no LICENSE file" in problems(tmp_path)[0]


def test_what_is_no_metadata_is_said(tmp_path: Path) -> None:
    assert "neither" in problems(tmp_path)[0]
    (tmp_path / KERNEL).write_text("{")
    assert "not JSON" in problems(tmp_path)[0]


def test_addresses_follow_from_titles() -> None:
    assert slug_of("CamoXpert 03 train: a  Test!") == "camoxpert-03-train-a-test"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dataset_sources": None}, "dataset_sources is null"),
        ({"dataset_sources": {"a": 1}}, "dataset_sources is an object"),
        ({"kernel_sources": [3]}, "kernel_sources holds a whole number"),
        ({"machine_shape": ["T4"]}, "machine_shape is a list"),
        ({"id": 7}, "id is a whole number"),
        ({"title": ["x"]}, "title is a list"),
    ],
)
def test_metadata_of_another_shape_has_a_sentence(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    assert any(sentence in line for line in kernel(tmp_path, **changes))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import os\nprint(1)\n", "must be a notebook"),
        ("[]", "must be a notebook"),
        ("", "0 bytes"),
        ('{"nbformat": 3, "worksheets": []}', "version 3"),
        ('{"nbformat": 4, "cells": []}', "no metadata"),
        ('{"nbformat": 4, "cells": {}, "metadata": {}}', "cells is an object"),
        ('{"nbformat": 4, "cells": ["x"], "metadata": {}}', "no objects"),
    ],
)
def test_what_is_no_notebook_has_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    kernel(tmp_path)
    (tmp_path / "a.ipynb").write_text(text)
    assert any(sentence in line for line in problems(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_metadata_in_another_encoding_are_refused(tmp_path: Path, encoding: str) -> None:
    kernel(tmp_path)
    text = (tmp_path / KERNEL).read_text()
    (tmp_path / KERNEL).write_bytes(text.encode(encoding))
    assert any("UTF-" in line for line in problems(tmp_path))


def test_a_kit_without_its_package_is_refused(tmp_path: Path) -> None:
    dataset(tmp_path)
    (tmp_path / "camoxpert_nb" / "__init__.py").unlink()
    assert problems(tmp_path) == []  # the wheel serves
    next(tmp_path.glob("*.whl")).unlink()
    assert any("lacks its package" in line for line in problems(tmp_path))
    (tmp_path / "camoxpert_nb").rmdir()
    assert any("nothing to upload" in line for line in problems(tmp_path))
