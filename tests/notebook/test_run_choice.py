"""A choice of the runs that are here."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from camoxpert_nb.notebook import dashboard, run_choice
from camoxpert_nb.notebook.run_choice import choose_run
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    monkeypatch.chdir(tmp_path)
    runs = []
    for number, name in enumerate(("older", "newer")):
        run = Run(Path("runs") / name)
        run.folder.mkdir(parents=True)
        run.save_config(make_config("tiny"))
        run.log("epoch", epoch=1, step=1, iou=0.25 + number / 4, iou_ema=None)
        for file in run.folder.iterdir():
            os.utime(file, (1e9 + number, 1e9 + number))
        runs.append(run)
    (tmp_path / "runs" / "latest").symlink_to("older")
    return runs


def test_the_newest_stands_first_and_the_named_one_is_chosen(two: list[Run]) -> None:
    choice = choose_run()
    assert [row["name"] for row in choice.rows] == ["newer", "older"]
    assert choice.run.folder == Path("runs/newer")
    assert "IoU 0.500" in choice.which.options[0][0]
    named = choose_run("runs/latest")
    assert named.run.folder == Path("runs/older")
    named.which.value = "runs/newer"
    assert named.run.folder == Path("runs/newer")
    assert "0.250" in repr(named) and "chosen: runs/newer" in repr(named)


def test_a_run_that_lies_elsewhere_is_taken_too(two: list[Run], tmp_path: Path) -> None:
    elsewhere = tmp_path / "else" / "where"
    choice = choose_run(elsewhere)
    assert choice.run.folder == elsewhere and len(choice.which.options) == 3


def test_without_any_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    choice = choose_run("runs/latest")
    assert choice.run.folder == Path("runs/latest") and choice.rows == []
    assert choose_run().run.folder == Path("runs/latest")
    monkeypatch.setenv("CAMOXPERT_BATCH", "1")
    assert "No run here yet." in choice._bundle()["text/html"]
    monkeypatch.setenv("CAMOXPERT_BATCH", "0")
    bundle = choice._bundle()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == choice.box.model_id


def test_the_list_follows_a_run_that_ends(two: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []
    handle = SimpleNamespace(update=lambda bundle, raw: shown.append(bundle))
    monkeypatch.setattr(run_choice, "display", lambda bundle, **how: shown.append(bundle) or handle)
    monkeypatch.setattr(dashboard, "FASTEST", 0.05)
    two[1].save_process({"trainer": os.getpid(), "host": platform.node()})
    choice = choose_run("runs/older")
    choice._ipython_display_()
    assert "running" in shown[-1]["text/plain"] and "running" in choice.which.options[0][0]
    two[1].log("epoch", epoch=2, step=2, iou=0.75, iou_ema=None)
    two[1].log("end", step=2)
    two[1].save_process({})
    began = time.monotonic()
    while len(shown) < 2 and time.monotonic() - began < 10:
        time.sleep(0.02)
    assert "finished" in shown[-1]["text/html"] and "0.750" in shown[-1]["text/html"]
    assert "IoU 0.750" in choice.which.options[0][0] and "running" not in choice._below.value
    assert choice.run.folder == Path("runs/older")  # what was chosen stays
