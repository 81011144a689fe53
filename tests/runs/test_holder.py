"""A lock belongs to a process, not to a number."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from camoxpert_nb.errors import InputError
from camoxpert_nb.runs import holder
from camoxpert_nb.runs.process import status
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.save_config(make_config("tiny"))
    return run


def lock(run: Run, **values: object) -> None:
    (run.folder / "process.json").write_text(json.dumps({"host": platform.node(), **values}))


def test_a_number_that_another_program_has_by_now_holds_nothing(run: Run) -> None:
    with run.locked():
        noted = json.loads((run.folder / "process.json").read_text())
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        try:
            lock(run, **{**noted, "trainer": stranger.pid, "trainer_began": f"{stranger.pid} 17"})
            assert run.training_pid() is None
            assert status(run).pid is None
            with run.locked():
                assert run.training_pid() == os.getpid()
        finally:
            stranger.kill()


@pytest.mark.parametrize("file", ["process", "lock"])
def test_a_lock_of_an_older_kit_goes_by_its_time(run: Run, file: str) -> None:
    name = {"process": "trainer", "lock": "pid"}[file]
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        try:
            path = run.folder / f"{file}.json"
            path.write_text(json.dumps({"host": platform.node(), name: other.pid}))
            assert run.training_pid() == other.pid
            with pytest.raises(InputError, match="is being trained by process"), run.locked():
                pass
            yesterday = time.time() - 86_400  # the process began later: it is another one
            os.utime(path, (yesterday, yesterday))
            assert run.training_pid() is None
        finally:
            other.kill()


def test_after_a_reboot_nothing_is_held(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with run.locked():
        assert run.training_pid() == os.getpid()
        monkeypatch.setattr(holder, "boot_id", lambda: "another boot")
        assert run.training_pid() is None


def test_another_machine_on_a_shared_disk_holds_while_it_writes(run: Run) -> None:
    lock(run, host="elsewhere", trainer=7)
    run.log("step", epoch=1, step=1)
    with pytest.raises(InputError, match=r"process 7 on elsewhere.*try again"), run.locked():
        pass
    line = json.dumps({"kind": "step", "epoch": 1, "step": 1, "time": time.time() - 600})
    run.history_path.write_text(line + "\n")
    with run.locked():
        assert run.training_pid() == os.getpid()


@pytest.mark.parametrize("pid", [-1, 0, 2**40, 4_000_000])
def test_a_number_that_no_process_can_have_holds_nothing(run: Run, pid: int) -> None:
    lock(run, trainer=pid)
    assert run.training_pid() is None


def test_on_windows_no_process_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, signal: int) -> None:
        raise AssertionError("signal 0 is Ctrl-C there")

    monkeypatch.setattr(holder.os, "kill", kill)
    monkeypatch.setattr(holder.os, "name", "nt")
    with pytest.raises(InputError, match="Windows is not supported"):
        holder.alive(os.getpid())


def test_an_older_lock_of_another_machine_says_nothing_of_who_started_here(run: Run) -> None:
    """What process.json says is of another machine then; of one and the same both hold."""
    for host, expected in (("there", {}), ("here", {"pid": 5, "started": 1.0})):
        known = {"pid": 5, "started": 1.0, "host": "here"}
        (run.folder / "process.json").write_text(json.dumps(known))
        (run.folder / "lock.json").write_text(json.dumps({"pid": 7, "host": host}))
        assert Run(run.folder).process() == {**expected, "trainer": 7, "host": host}


def test_a_process_that_ended_unnoticed_holds_nothing() -> None:
    """A child that nobody waited for keeps its number; one that sleeps is alive."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        assert holder.alive(child.pid)
        child.kill()
        until = time.monotonic() + 10
        while holder.alive(child.pid) and time.monotonic() < until:
            time.sleep(0.01)
        assert Path(f"/proc/{child.pid}").exists() and not holder.alive(child.pid)
    assert not holder.alive(child.pid)


def test_another_users_process_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(holder.os, "kill", refused)
    assert holder.alive(1)


def test_a_process_that_trained_before_is_not_known_after_the_next_one(run: Run) -> None:
    """It was killed; who was started here stays known."""
    lock(run, pid=5, started=1.0, trainer=4_000_000, trainer_began="4000000 17")
    with run.locked():
        assert run.process()["trainer"] == os.getpid()
    assert run.process() == {"pid": 5, "started": 1.0, "host": platform.node()}
