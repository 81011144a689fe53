from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from camoxpert_nb.errors import InputError, TrainingError
from camoxpert_nb.runs.checkpoint import bare_keys, load_checkpoint
from camoxpert_nb.runs.records import Watch, performance
from camoxpert_nb.runs.run import Onlooker, Run
from camoxpert_nb.runs.table import write_table
from camoxpert_nb.settings.config import Config, make_config

PREVIEW = {
    "names": np.array(["a", "b"]),
    "image": np.ones((2, 3, 3, 3), np.uint8),
    "mask": np.ones((2, 3, 3), np.uint8),
    "probability": np.ones((2, 3, 3), np.uint8),
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_records_come_back_in_order_and_a_torn_line_is_left_out(run: Run) -> None:
    run.log("step", step=1, loss=0.5)
    run.log("epoch", step=2, iou=0.1)
    with run.history_path.open("a") as file:
        file.write('{"kind": "step", "st')
    assert [record["kind"] for record in run.records()] == ["step", "epoch"]
    assert run.records("epoch")[0]["iou"] == 0.1


def test_records_are_read_once_torn_lines_later_and_a_cut_history_anew(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, parsed = Run(run.folder), list[Any]()
    loads = json.loads
    monkeypatch.setattr("json.loads", lambda text: parsed.append(text) or loads(text))

    def steps() -> list[int]:
        parsed.clear()
        return [record["step"] for record in reader.records()]

    assert steps() == []
    run.log("step", epoch=1, step=1)
    with run.history_path.open("a") as file:
        file.write('{"kind": "st')
    assert (steps(), len(parsed)) == ([1], 1)
    assert (steps(), len(parsed)) == ([1], 0)
    with run.history_path.open("a") as file:
        file.write('ep", "epoch": 1, "step": 2}\n')
    assert (steps(), len(parsed)) == ([1, 2], 1)
    for step in range(3, 40):
        run.log("step", epoch=1, step=step)
    assert steps() == list(range(1, 40))
    run.cut_history(0, 20)
    run.log("step", epoch=1, step=21)
    assert (steps(), len(parsed)) == (list(range(1, 22)), 21)
    with run.history_path.open("a") as file:
        file.write('{"kind": "st{"kind": "start"}\n')  # a killed process, and the next one
    run.log("step", epoch=1, step=22)
    assert steps() == list(range(1, 23))
    run.history_path.unlink()
    assert steps() == []


def test_a_file_is_read_again_when_it_is_another_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, parsed = Run(run.folder), list[Any]()
    loads = json.loads
    monkeypatch.setattr("json.loads", lambda text: parsed.append(text) or loads(text))
    for number in (1, 2):  # as long as the one before, and perhaps as old
        run.save_json("process", {"pid": number})
        for _ in range(3):
            assert reader.load_json("process") == {"pid": number}
        reader.load_json("process")["pid"] = 7  # what a reader does with it is its own
        assert reader.load_json("process") == {"pid": number}
        assert len(parsed) == number
    run.save_preview(PREVIEW)
    assert reader.load_preview() is reader.load_preview()
    (run.folder / "process.json").unlink()
    assert reader.load_json("process") == {}


def test_history_is_strict_json_whatever_the_loss(run: Run) -> None:
    run.log(
        "step", epoch=1, step=1, loss=float("nan"), gradient_norm=float("inf"), lr={"head": 1e-3}
    )
    (line,) = run.history_path.read_text().splitlines()
    assert "NaN" not in line and "Infinity" not in line
    (record,) = run.records("step")
    assert (record["loss"], record["gradient_norm"], record["lr"]) == (None, None, {"head": 1e-3})


def test_settings_alone_are_a_run_that_is_still_to_begin(run: Run) -> None:
    run.save_config(make_config("tiny"))
    assert Config.load(run.config_path) == make_config("tiny")
    assert not run.exists()
    run.log("start", step=0)
    assert run.exists()


def test_history_is_cut_back_to_a_place(run: Run) -> None:
    """Epochs and images tell the place: steps of other batches may have higher numbers."""
    run.log("start", step=0)
    run.log("step", epoch=1, step=90)  # small batches
    run.log("epoch", epoch=1, step=100)
    run.log("start", step=25)  # larger ones, as an older kit counted
    run.log("step", epoch=2, step=26)
    run.log("step", epoch=2, step=28)
    run.log("epoch", epoch=2, step=50)
    run.log("note", step=50, message="more")
    run.cut_history(1, 27)
    left = [(record["kind"], record["step"]) for record in run.records()]
    assert left == [
        *[("start", 0), ("step", 90), ("epoch", 100), ("start", 25), ("step", 26)],
        ("note", 50),
    ]
    run.cut_history(1, 27)
    assert len(run.records()) == len(left)


def test_checkpoints_load_without_running_code(run: Run) -> None:
    run.save("last", {"net": {"w": torch.ones(2)}, "step": 3, "best": {"iou": 0.5}})
    state = run.load("last")
    assert state["step"] == 3
    assert torch.equal(state["net"]["w"], torch.ones(2))


def test_a_full_disk_keeps_what_was_saved_and_says_so(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.save("last", {"step": 1})

    def full(state: Any, file: Any) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"disk is probably full.*camoxpert resume"):
        run.save("last", {"step": 2})
    assert run.load("last")["step"] == 1
    assert [path.name for path in run.folder.iterdir()] == ["last.pt"]


def test_kill_in_the_middle_of_a_save_leaves_the_last_checkpoint_whole(run: Run) -> None:
    run.save("last", {"step": 1})
    code = f"""
import os, torch
from camoxpert_nb.runs.run import Run
def half(state, file):
    file.write(b"half of it"); file.flush(); os.kill(os.getpid(), 9)
torch.save = half
Run({str(run.folder)!r}).save("last", {{"step": 2}})
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert ended.returncode == -9
    assert (run.folder / "last.pt.part").exists()
    assert run.load("last")["step"] == 1
    run.save("last", {"step": 3})
    assert run.load("last")["step"] == 3
    assert not (run.folder / "last.pt.part").exists()


def test_a_missing_or_cut_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "last.pt")
    torch.save({"step": 1, "w": torch.ones(1000)}, tmp_path / "last.pt")
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "last.pt")


def test_a_file_that_holds_code_is_refused(tmp_path: Path) -> None:
    torch.save({"step": Path("x")}, tmp_path / "last.pt")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "last.pt")


def test_bare_keys_takes_only_a_wrappers_prefix_away() -> None:
    assert bare_keys({"module.a": 1, "module.b": 2}) == {"a": 1, "b": 2}
    assert bare_keys({"module.a": 1, "b": 2}) == {"module.a": 1, "b": 2}
    assert bare_keys({"net.module.a": 1}) == {"net.module.a": 1}


def test_requests_travel_through_the_folder(run: Run) -> None:
    Run(run.folder).request("stop")
    assert run.wants("stop")
    run.save_json("failure", {"message": "of long ago"})
    run.clear()
    assert not run.wants("stop") and not run.load_json("failure")
    with pytest.raises(ValueError, match="no request"):
        run.request("explode")


def test_the_processes_beside_the_first_do_the_same_and_write_nothing(run: Run) -> None:
    folder = run.folder / "run"
    for each in (Onlooker(folder), Run(folder)):
        with each.locked():
            each.save_config(make_config("tiny"))
            each.log("start", step=0)
            each.save("last", {"step": 0})
            each.save_json("failure", {"message": "none"})
            each.save_preview(PREVIEW)
            each.point_latest()
            each.request("stop")
            assert each.wants("stop")
            each.request("stop", wanted=False)
            assert not each.wants("stop")
            each.request("stop")
            each.clear()
            assert not each.wants("stop")
        assert folder.exists() == (folder.parent / "latest").exists() == (type(each) is Run)
    files = {"config.json", "history.jsonl", "last.pt", "preview.npz"}
    assert {path.name for path in folder.iterdir()} == files
    with Run(folder).locked():
        Onlooker(folder).clear()
        Onlooker(folder).cut_history(-1, -1)
    assert len(Run(folder).records()) == 1


def test_a_folder_is_trained_by_one_process_at_a_time(run: Run) -> None:
    with run.locked():
        assert run.training_pid() == os.getpid()
        run.save_process(run.process() | {"trainer": os.getppid()})
        with pytest.raises(InputError, match=f"trained by process {os.getppid()}"), run.locked():
            pass
    assert run.training_pid() is None
    assert run.process() == {}


def test_the_process_that_was_started_is_known_while_and_after_it_trains(run: Run) -> None:
    started = {"pid": 7, "host": platform.node(), "started": 5.0}
    run.save_process(started)
    with run.locked():
        assert run.process() == {**started, "trainer": os.getpid()}
    assert run.process() == started
    run.save_process({**started, "host": "elsewhere", "trainer": 7})
    with run.locked():  # by now its folder is here
        assert run.process() == {"host": platform.node(), "trainer": os.getpid()}


def test_a_dead_process_holds_nothing(run: Run) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with run.locked():
        run.save_process(run.process() | {"trainer": child.pid})
    run.save_process({"trainer": child.pid, "host": platform.node()})
    with run.locked():
        assert run.training_pid() == os.getpid()


def test_preview_and_json_come_back(run: Run) -> None:
    assert run.load_preview() == {}
    assert run.load_json("summary") == {}
    run.save_preview(PREVIEW)
    assert run.load_preview()["names"].tolist() == ["a", "b"]
    path = run.save_json("summary", {"best": {"iou": 0.5}})
    assert json.loads(path.read_text()) == run.load_json("summary")


@pytest.mark.parametrize("value", [None, "gone", "a word", [1]])
@pytest.mark.parametrize("kind", ["step", "epoch"])
def test_records_edited_by_hand_break_no_reader(tmp_path: Path, kind: str, value: object) -> None:
    """Any value of a record may be missing or of another type; other lines are read as before."""
    run = Run(tmp_path)
    whole = {"kind": kind, "time": 1.0, "epoch": 1, "step": 1, "steps": 2, "seconds": 1.0}
    whole |= {"stage": "all", "images_per_second": 2.0, "iou": 0.5, "data_wait_percent": 3.0}
    for key in whole:
        own = {**whole, key: value} if value != "gone" else {k: whole[k] for k in whole if k != key}
        lines = [json.dumps(each) for each in (whole, own, whole)]
        run.history_path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        watch = Watch(run)
        assert "stage" in watch.place() and watch.line() and watch.share_done() >= 0
        config = {"batch_size": 4, "target_iou": 0.4}
        figures = performance(run.records("epoch"), config, ["cpu"])
        assert figures["best_iou"] == (0.5 if kind == "epoch" else None)
        assert len(run.records()) >= 2


def test_halves_of_files_go_when_a_training_begins_and_files_of_others_stay(run: Run) -> None:
    run.save("last", {"step": 1})
    for name in ("last.pt", "best-epoch001-iou0.5000.pt", "history.jsonl", "preview.npz"):
        (run.folder / f"{name}.part").write_bytes(b"half")
    (run.folder / "images.zip.part").write_bytes(b"a download")
    run.clear()
    assert sorted(path.name for path in run.folder.iterdir()) == ["images.zip.part", "last.pt"]


def test_nothing_is_written_through_a_link_in_the_folder(run: Run, tmp_path: Path) -> None:
    own = tmp_path / "precious"
    own.write_text("precious")
    names = ["stop", "history.jsonl", "config.json", "last.pt.part", "last.pt", "history.csv"]
    for name in names:
        (run.folder / name).unlink(missing_ok=True)
        (run.folder / name).symlink_to(own)
    run.request("stop")
    run.log("start", step=0)
    run.save_config(make_config("tiny"))
    run.save("last", {"step": 0})
    write_table(run)
    assert own.read_text() == "precious"
    assert run.wants("stop") and run.load("last") == {"step": 0}
    run.clear()
    (run.folder / "save").symlink_to(tmp_path / "not there")
    assert run.wants("save")
    run.request("save")
    assert not (tmp_path / "not there").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"names": np.array(["a"])},
        {"image": np.ones((2, 3, 3), np.uint8)},
        {"mask": np.ones((2, 0, 0), np.uint8)},
        {"mask": np.ones((2, 3, 3))},
        {"probability": np.ones((2, 4, 3), np.uint8)},
        {"names": np.array([b"a", b"b"])},
        {"names": np.array([None, {}], dtype=object)},
        {"gates": np.ones(2)},
    ],
)
def test_pictures_of_another_form_are_refused(run: Run, change: dict[str, Any]) -> None:
    np.savez(run.folder / "preview.npz", **{**PREVIEW, **change})
    with pytest.raises(InputError, match="cannot be read as the run's pictures"):
        run.load_preview()
