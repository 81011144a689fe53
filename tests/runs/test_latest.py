from __future__ import annotations

import os
from pathlib import Path

import pytest

from camoxpert_nb.runs import latest
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config


def make_run(folder: Path, age: float = 0.0) -> Run:
    run = Run(folder)
    folder.mkdir(parents=True)
    run.save_config(make_config("tiny"))
    run.log("start")
    when = run.history_path.stat().st_mtime - age
    os.utime(run.history_path, (when, when))
    return run


def test_our_link_follows_the_newest_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert make_run(tmp_path / name).point_latest() == ""
        assert (tmp_path / "latest").readlink() == Path(name)
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to("deleted")
    assert Run(tmp_path / "a").point_latest() == ""
    assert Run(tmp_path / "latest").folder.resolve() == tmp_path / "a"


@pytest.mark.parametrize("what", ["file", "folder", "abroad", "photos", "up", "itself"])
def test_what_is_not_ours_stays(what: str, tmp_path: Path) -> None:
    runs, link = tmp_path / "runs", tmp_path / "runs" / "latest"
    run = make_run(runs / "a")
    (runs / "photos").mkdir()
    if what == "file":
        link.write_text("mine")
    elif what == "folder":
        link.mkdir()
    else:
        targets = {"abroad": str(tmp_path), "photos": "photos", "up": "..", "itself": "./photos/.."}
        link.symlink_to(targets[what])
    before = link.lstat()
    assert "left as it is" in run.point_latest()
    assert link.lstat().st_ino == before.st_ino and link.lstat().st_mtime == before.st_mtime
    assert Run(link).folder == run.folder  # it is no run: the newest one serves


def test_without_links_the_newest_run_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*anything: object, **more: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    older, newer = make_run(tmp_path / "z", age=100), make_run(tmp_path / "a")
    for run in (newer, older):
        assert run.point_latest() == ""
    (tmp_path / "empty").mkdir()
    assert Run(tmp_path / "latest").folder == newer.folder
    assert latest.place_of(tmp_path / "empty") == tmp_path / "empty"
    assert Run(tmp_path / "none" / "latest").folder == tmp_path / "none" / "latest"


def test_a_latest_goes_with_the_folder_it_names(tmp_path: Path) -> None:
    link = tmp_path / "latest"
    for name, gone in (("a", True), ("b", False), ("", False)):
        (tmp_path / "a").mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        if name:
            link.symlink_to(name)
        latest.drop_latest(tmp_path / "a")  # it is there: nothing goes
        assert link.is_symlink() == bool(name)
        (tmp_path / "a").rmdir()
        latest.drop_latest(tmp_path / "a")
        assert link.is_symlink() == (bool(name) and not gone)
    link.write_text("mine")
    latest.drop_latest(tmp_path / "latest")
    assert link.read_text() == "mine"


def test_settings_and_history_or_weights_are_a_run(tmp_path: Path) -> None:
    names = ("config.json", "history.jsonl", "last.pt")
    for there in range(8):
        folder = tmp_path / str(there)
        folder.mkdir()
        for bit, name in enumerate(names):
            if there >> bit & 1:
                (folder / name).touch()
        assert latest.is_run(folder) == (there in (3, 5, 7))
    (tmp_path / "8" / "config.json").mkdir(parents=True)
    (tmp_path / "8" / "last.pt").touch()
    assert not latest.is_run(tmp_path / "8")


def test_why_a_latest_is_left_alone_is_told_whole(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    (tmp_path / "latest").write_text("mine")
    assert run.point_latest() == (
        f"{tmp_path}/latest is left as it is: it is no link of ours. Name this run: {tmp_path}/a"
    )
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to(tmp_path)
    assert run.point_latest() == (
        f"{tmp_path}/latest is left as it is: it leads to {tmp_path}, which is no run here"
    )
    (tmp_path / "latest").unlink()
    run.point_latest()
    assert Run(tmp_path / "latest").point_latest() == ""  # through the link itself
    assert (tmp_path / "latest").readlink() == Path("a")
