"""One place for runs, and the list of what lies there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from camoxpert_nb.errors import InputError
from camoxpert_nb.runs.place import (
    check_run,
    enter_kit,
    in_words,
    list_runs,
    listed,
    runs_below,
    unfinished,
    usual_places,
)
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config


def made(folder: Path, *, epochs: int = 0, end: str = "", moment: float = 1e9) -> Run:
    run = Run(folder)
    run.folder.mkdir(parents=True)
    run.save_config(make_config("tiny", dataset_path="/photos"))
    run.log("start")
    for epoch in range(1, epochs + 1):
        run.log("epoch", epoch=epoch, iou=0.1 * epoch, iou_ema=None)
    if end:
        run.log(end)
    for path in folder.iterdir():
        os.utime(path, (moment, moment))
    return run


def test_notebooks_of_the_kit_work_where_its_commands_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    monkeypatch.chdir(notebooks)
    assert enter_kit() == "" and Path.cwd() == notebooks  # somebody else's folder of that name
    (tmp_path / "camoxpert_nb").mkdir()
    (tmp_path / "camoxpert_nb" / "__init__.py").touch()
    assert str(tmp_path) in enter_kit() and Path.cwd() == tmp_path
    assert enter_kit() == "" and Path.cwd() == tmp_path
    assert usual_places() == []
    made(Path("runs") / "new")
    made(notebooks / "runs" / "old")
    assert usual_places() == [Path("runs"), Path("notebooks/runs")]


def test_a_list_has_every_run_once_the_newest_first(tmp_path: Path) -> None:
    made(tmp_path / "b", epochs=2, end="end", moment=2e9)
    made(tmp_path / "deep" / "er" / "a", epochs=1, end="stop", moment=1e9)
    made(tmp_path / "a name 迷", moment=3e9)
    (tmp_path / "latest").symlink_to("b")
    (tmp_path / "no run").mkdir()
    (tmp_path / "no run" / "config.json").write_text("{}")
    rows = list_runs([tmp_path])
    assert [row["name"] for row in rows] == ["a name 迷", "b", "a"]
    assert [row["state"] for row in rows] == ["died", "finished", "stopped"]
    assert [row["epochs_done"] for row in rows] == [0, 2, 1]
    assert [row["best_iou"] for row in rows] == [None, 0.2, 0.1]
    assert {row["epochs"] for row in rows} == {2} and {row["img_size"] for row in rows} == {64}
    assert {row["data"] for row in rows} == {"/photos"}
    assert [run.folder for run in runs_below(tmp_path / "b")] == [tmp_path / "b"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", "[1]"),
        ("config.json", "no JSON"),
        ("history.jsonl", "no record\n"),
        ("process.json", '{"pid": "x"}'),
        ("failure.json", "{"),
    ],
)
def test_a_broken_run_hides_no_other(tmp_path: Path, name: str, text: str) -> None:
    made(tmp_path / "good", epochs=1, end="end")
    made(tmp_path / "bad")
    (tmp_path / "bad" / name).write_text(text)
    rows = {row["name"]: row for row in list_runs([tmp_path])}
    assert rows["good"]["state"] == "finished"
    assert rows["bad"]["state"] == "unreadable" and name in rows["bad"]["note"]


def test_a_folder_of_runs_says_how_many_there_are_and_which(tmp_path: Path) -> None:
    for name in ("c", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        for file in ("config.json", "history.jsonl"):
            (tmp_path / "runs" / name / file).write_text("{}")
    with pytest.raises(InputError, match=r"There are 2 runs in it: .*b, .*c\. Give one of them"):
        check_run(Run(tmp_path / "runs"))
    for name in ("d", "e", "f"):
        (tmp_path / "runs" / name).mkdir()
    with pytest.raises(InputError, match="holds b, c, d and 2 more\\. There are 2 runs"):
        check_run(Run(tmp_path / "runs"))


def left_over(name: str, *, epochs: int, end: str = "", **settings: Any) -> Run:
    run = made(Path("runs", name), epochs=epochs, end=end)
    run.save_config(make_config("tiny", **{"dataset_path": "/photos", "epochs": 12, **settings}))
    (run.folder / "last.pt").touch()
    return run


def test_the_run_to_go_on_with_is_the_furthest_of_these_settings_that_ended_too_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_config("tiny", dataset_path="/photos", epochs=12)
    assert unfinished(config) is None
    left_over("far", epochs=10)  # killed
    left_over("second-try", epochs=1, end="stop")
    left_over("others", epochs=11, end="stop", lr=0.5)
    left_over("unsaved", epochs=11).folder.joinpath("last.pt").unlink()
    left_over("own-loss", epochs=11).save_json("own", {"loss": "dice"})
    Path("runs/broken").mkdir()
    Path("runs/broken/config.json").write_text("{")
    Path("runs/latest").symlink_to("far")
    found = unfinished(config)
    assert found is not None and found.folder == Path("runs/far")
    assert unfinished(config.replace(checkpoint_dir="runs/mine")) is None
    again = unfinished(config.replace(lr=0.5))
    assert again is not None and again.folder == Path("runs/others")
    left_over("whole", epochs=12, end="end")  # since then: nothing is left to do
    assert unfinished(config) is None


def test_a_run_in_a_list_is_a_row_of_texts(tmp_path: Path) -> None:
    moment = time.mktime((2026, 3, 4, 5, 6, 7, 0, 0, -1))
    made(tmp_path / "a", epochs=2, end="end", moment=moment)
    assert in_words(listed(Run(tmp_path / "a"))) == {
        "run": str(tmp_path / "a"),
        "state": "finished",
        "epochs": "2 of 2",
        "best IoU": "0.200",
        "backbone": "test_resnet",
        "size": "64 px",
        "when": "2026-03-04 05:06",
        "data": "/photos",
    }
    Run(tmp_path / "b").folder.mkdir()
    (tmp_path / "b" / "config.json").write_text("{}")
    row = listed(Run(tmp_path / "b"))
    assert row["data"] == "generated images" and row["epochs"] is None and row["epochs_done"] == 0
    assert in_words(row) | {"when": ""} == {
        "run": str(tmp_path / "b"),
        "state": "empty",
        "epochs": "0 of ?",
        "best IoU": "",
        "backbone": "",
        "size": "",
        "when": "",
        "data": "generated images",
    }
    (tmp_path / "b" / "config.json").write_text("{")
    broken = in_words(listed(Run(tmp_path / "b")))
    assert (broken["state"], broken["epochs"], broken["data"]) == ("unreadable", "", "")
    assert listed(Run(tmp_path / "none"))["when"] == 0.0


def test_runs_are_looked_for_so_deep_and_not_in_hidden_folders(tmp_path: Path) -> None:
    for name in ("1/2/3/4", "1/2/3/x/5", ".hidden/a", "only-settings", "1/latest", "last"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").touch()
    for name in ("1/2/3/4", "1/2/3/x/5", ".hidden/a", "1/latest"):
        (tmp_path / name / "history.jsonl").touch()
    (tmp_path / "last" / "last.pt").touch()
    inner = tmp_path / "last" / "inner"  # what lies in a run is part of it
    inner.mkdir()
    (inner / "config.json").touch()
    (inner / "process.json").touch()
    found = {run.folder.relative_to(tmp_path).as_posix() for run in runs_below(tmp_path)}
    assert found == {"1/2/3/4", "last"}


def test_a_folder_that_is_no_run_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    see = "`camoxpert runs FOLDER` lists the runs below a folder."

    def said(folder: Path, flag: str = "") -> str:
        with pytest.raises(InputError) as error:
            check_run(Run(folder), flag)
        return str(error.value)

    none, empty, some = (tmp_path / name for name in ("none", "empty", "some"))
    assert said(none, "--run") == f"--run {none}: no such folder, expected that of a run. {see}"
    empty.mkdir()
    (empty / ".hidden").touch()
    assert said(empty) == (
        f"{empty} is no run: it has no config.json, and holds nothing. Give a run's folder. {see}"
    )
    made(some / "a")
    assert said(some) == (
        f"{some} is no run: it has no config.json, and holds a. There is a run in it: {some}/a."
    )
    for weights in ("best.pt", "last.pt"):
        (empty / weights).touch()
        check_run(Run(empty))  # weights alone predict
        (empty / weights).unlink()
    check_run(Run(some / "a"))


def test_of_those_that_ended_only_the_later_ones_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was killed after another of the same settings was finished is to go on."""
    monkeypatch.chdir(tmp_path)
    config = make_config("tiny", dataset_path="/photos", epochs=12)
    left_over("whole", epochs=12, end="end")
    left_over("later", epochs=3, end="stop")
    found = unfinished(config)
    assert found is not None and found.folder == Path("runs/later")
    left_over("as-far", epochs=3, end="stop")
    again = unfinished(config)
    assert again is not None and again.folder == Path("runs/as-far")  # of equals the newest
