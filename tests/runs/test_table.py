"""The flat table of a run's epochs."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pandas as pd
import pytest
from fabricated import fabricated

from camoxpert_nb.runs.run import Run
from camoxpert_nb.runs.table import as_csv, flat, write_table


def test_nested_numbers_are_named_by_their_way() -> None:
    record = {
        "kind": "epoch",
        "stage": "all",
        "verdict": "the GPU sets the pace, (all well)",
        "loss": None,
        "best": True,
        "lr": {"head": 1e-3, "backbone": 0},
        "gates": [[0.25, 0.75]],
        "weighted": {"deep": {"far": 2}},
        "gpu_percent": [],
    }
    assert flat(record) == {
        "stage": "all",
        "best": 1,
        "lr/head": 1e-3,
        "lr/backbone": 0,
        "gates/0/0": 0.25,
        "gates/0/1": 0.75,
        "weighted/deep/far": 2,
    }


def test_a_row_an_epoch_and_a_column_a_number(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for record in fabricated(3):
        run.log(record["kind"], **{k: v for k, v in record.items() if k not in ("kind", "time")})
    run.log("epoch", epoch=4, step=80, iou=math.nan, later=5)
    write_table(run)
    table = pd.read_csv(tmp_path / "history.csv")
    assert table.columns[0] == "epoch"
    assert table["epoch"].tolist() == [1, 2, 3, 4]
    assert table["lr/head"].tolist()[:3] == [1e-3, 1e-3 / 2, 1e-3 / 3]
    assert table["stage"].tolist()[:3] == ["all"] * 3
    assert table["later"].isna().tolist() == [True, True, True, False]
    assert math.isnan(table["iou"][3])
    assert table["gates/3/6"][0] == pytest.approx(1 / 7)


def test_what_is_cut_from_history_is_cut_from_the_table(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for epoch in (1, 2, 3):
        run.log("epoch", epoch=epoch, step=epoch, iou=0.5)
    run.cut_history(2, 2)
    write_table(run)
    assert pd.read_csv(tmp_path / "history.csv")["epoch"].tolist() == [1, 2]


def test_a_run_without_epochs_has_a_table_without_rows(tmp_path: Path) -> None:
    write_table(Run(tmp_path))
    assert (tmp_path / "history.csv").read_text() == "epoch\n"
    assert as_csv([]) == "epoch\n"


def test_a_table_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    run.log("epoch", epoch=1, step=1)
    write_table(run)
    before = (tmp_path / "history.csv").read_bytes()
    run.log("epoch", epoch=2, step=2)

    def fail(descriptor: int) -> None:
        raise PermissionError(13, "in use")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(PermissionError):
        write_table(run)
    assert (tmp_path / "history.csv").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))
