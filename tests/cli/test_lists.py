"""The lists as people see them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from camoxpert_nb.cli import main as cli
from camoxpert_nb.cli.lists import table
from camoxpert_nb.outside.terminal import width
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config


def said(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(shlex.split(line)) == 0
    return capsys.readouterr().out


def test_runs_are_a_table_or_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "No runs in runs/" in said("runs", capsys)
    run = Run("runs/one")
    run.folder.mkdir(parents=True)
    run.save_config(make_config("tiny"))
    run.log("epoch", epoch=1, iou=0.5, iou_ema=0.6)
    run.log("end")
    heading, row, *rest = said("runs", capsys).splitlines()
    assert heading.split()[:3] == ["run", "state", "epochs"] and not rest
    for wanted in ("runs/one", "finished", "1 of 2", "0.600", "test_resnet", "64 px", "generated"):
        assert wanted in row
    assert json.loads(said("runs --json", capsys))[0]["best_iou"] == 0.6
    assert "written to list.json" in said("runs runs --json list.json", capsys)
    assert json.loads(Path("list.json").read_text())[0]["folder"] == "runs/one"
    assert json.loads(said("runs . --json", capsys))[0]["name"] == "one"
    Path("empty").mkdir()
    assert json.loads(said("runs empty --json", capsys)) == []
    run.config_path.write_text("[]")
    assert "unreadable" in said("runs", capsys)
    assert cli.main(["runs", "nowhere"]) == 2


@pytest.mark.parametrize("most", [30, 40, 60, 100])
def test_a_table_fits_where_a_column_can_be_cut(most: int) -> None:
    rows = [{"run": "a", "data": "/data/迷彩/" + "x" * 70 + "/CAMO"}, {"run": "bb", "data": ""}]
    lines = table(rows, cut="data", most=most)
    assert max(map(width, lines)) <= most and lines[1].endswith("/CAMO")
    assert table(rows, cut="data")[1].endswith(rows[0]["data"])  # a file takes any width


def test_backbones_are_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    heading, row, *rest = said("backbones resnet18d", capsys).splitlines()
    assert heading.split()[0] == "backbone" and row.split()[0] == "resnet18d"
    assert "apache-2.0" in row and "--backbone NAME" in rest[0]
    assert "1 more match and cannot be used" in said("backbones swin_tiny_patch4_window7", capsys)
    (found,) = json.loads(said("backbones resnet18d --json", capsys))
    assert found["name"] == "resnet18d" and 11 < found["parameters"] < 12
    assert cli.main(["backbones", "resnettt50"]) == 2
    assert "resnet50" in capsys.readouterr().err
