"""Trainings as processes of their own: started, watched, steered, ended and found again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from camoxpert_nb.errors import InputError, TrainingError
from camoxpert_nb.notebook import dashboard as dashboards
from camoxpert_nb.notebook import shown
from camoxpert_nb.notebook.dashboard import Dashboard
from camoxpert_nb.notebook.launch import launch
from camoxpert_nb.notebook.shown import unattended
from camoxpert_nb.runs import process
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config

PATIENCE = 120  # seconds: a child imports torch first, and machines are busy


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboards, "FASTEST", 0.1)


def until(dashboard: Dashboard, true: Callable[[], object]) -> None:
    started = time.monotonic()
    while time.monotonic() - started < PATIENCE:
        dashboard.refresh()
        if true():
            return
        time.sleep(0.05)
    pytest.fail(f"still waiting: {dashboard}")


def steps(dashboard: Dashboard) -> int:
    dashboard.refresh()
    return max((record["step"] for record in dashboard._watch.steps), default=0)


def press(dashboard: Dashboard, name: str) -> None:
    dashboard._repr_mimebundle_()
    button = dashboard._widgets[name]
    until(dashboard, lambda: not button.disabled)  # as a user waits
    button.click()


@pytest.fixture(scope="module")
def shared(
    camouflage: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Dashboard]:
    """A training that the next tests share, one after the other."""
    folder = tmp_path_factory.mktemp("live") / "run"
    data = {"dataset_path": str(camouflage), "cache_dir": str(cache), "device": "cpu"}
    started = time.monotonic()
    dashboard = launch(
        make_config("tiny", epochs=5000, checkpoint_dir=str(folder), **data), wait=False
    )
    assert time.monotonic() - started < 2
    assert dashboard.status.name == "starting"
    yield dashboard
    for child in process._children:
        child.kill()
        child.wait()


@pytest.fixture
def live(shared: Dashboard) -> Dashboard:
    """That training, which goes on where an earlier test ended it."""
    shared.refresh()
    if shared.status.ended:
        press(shared, "Resume")
        until(shared, lambda: shared.status.name == "running")
    return shared


def test_a_second_launch_finds_the_first(live: Dashboard) -> None:
    config = Config.load(live.run.config_path)
    assert launch(config, wait=False).status == live.status
    until(live, lambda: steps(live) > 3)
    assert live.status.pid is not None
    assert launch(config, resume=True, wait=False).status.pid == live.status.pid
    with pytest.raises(InputError, match=str(live.status.pid)):
        process.start(config, resume=True)
    assert os.getsid(live.status.pid) != os.getsid(0)  # it survives this process and its group


def test_pause_holds_the_step_and_resume_moves_it(live: Dashboard) -> None:
    until(live, lambda: steps(live) > 3)
    press(live, "Pause")
    assert live.status.name == "paused"
    time.sleep(0.5)
    held = steps(live)
    time.sleep(0.7)
    assert steps(live) == held
    press(live, "Resume")
    until(live, lambda: steps(live) > held)


def test_a_stopped_run_is_saved_and_goes_on_and_a_killed_one_is_found_dead(
    live: Dashboard,
) -> None:
    saved = live.run.folder / "last.pt"
    press(live, "Pause")
    time.sleep(0.5)
    before = saved.stat().st_mtime_ns if saved.exists() else 0
    press(live, "Resume")
    press(live, "Save")
    until(live, lambda: saved.exists() and saved.stat().st_mtime_ns > before)
    press(live, "Stop")
    until(live, lambda: live.status.ended and live.status.pid is None)
    assert live.status.name == "stopped"
    assert "camoxpert resume" in str(live)
    assert live.run.load("last")["step"] >= steps(live)

    reached = steps(live)
    press(live, "Resume")
    until(live, lambda: steps(live) > reached)
    other = Dashboard(live.run.folder)  # as another notebook would
    assert other.status == live.status
    assert other.status.pid is not None
    os.kill(other.status.pid, signal.SIGKILL)
    until(other, lambda: other.status.name == "died")
    assert "killed" in other.status.cause
    assert f"Dashboard('{other.run.folder}').resume()" in str(other)


def test_a_notebook_without_a_reader_waits_and_keeps_one_output(tiny: Config) -> None:
    settings = {name: value for name, value in tiny.as_dict().items() if name != "preset"}
    cells = [
        "from camoxpert_nb import launch, make_config\n"
        f"config = make_config('tiny', **{settings!r})",
        "dashboard = launch(config)\ndashboard",
        "print(dashboard.status.name)\ndashboard",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    NotebookClient(notebook, timeout=PATIENCE).execute()
    (live,) = notebook.cells[1].outputs
    assert live.data["text/html"].count("data:image/svg+xml") >= 4
    assert "finished" in live.data["text/html"]
    assert re.search(r"best validation IoU 0\.\d+", live.data["text/plain"])
    assert "2 of 2" in live.data["text/plain"]
    printed, again = notebook.cells[2].outputs  # in a later cell it shows itself again
    assert printed.text == "finished\n"
    assert "data:image/svg+xml" in again.data["text/html"]
    assert len(nbformat.writes(notebook)) < 1_000_000


def test_a_script_waits_for_its_training(tiny: Config, tmp_path: Path) -> None:
    """03 as a script (`nbconvert --to script`): what follows needs the trained network."""
    tiny.save(tmp_path / "next.json")
    script = tmp_path / "train.py"
    script.write_text(
        "from camoxpert_nb import chosen, launch\n"
        f"print('ended:', launch(chosen({str(tmp_path / 'next.json')!r})).status.name)\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == "ended: finished"
    assert any("best validation IoU 0." in line for line in lines)
    assert len(lines) < 10  # a line for each epoch and state


def test_a_crash_shows_its_cause(tiny: Config, tmp_path: Path) -> None:
    dashboard = launch(tiny.replace(dataset_path=str(tmp_path / "nothing")), wait=False)
    with pytest.raises(TrainingError, match="nothing") as caught:
        dashboard.wait()
    assert "launch again" in str(caught.value)
    assert "nothing" in dashboard._repr_mimebundle_()["text/plain"]
    assert not dashboard._widgets["Resume"].disabled


def test_a_training_stopped_while_it_starts_ends_at_once(tiny: Config) -> None:
    dashboard = launch(tiny, wait=False)
    press(dashboard, "Stop")
    until(dashboard, lambda: dashboard.status.ended)
    assert dashboard.status.name == "stopped"
    assert "before anything was trained" in str(dashboard)
    assert not dashboard.run.exists()


def test_a_cell_that_is_run_again_starts_no_second_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "_spawn", lambda run, flags: run.save_process({"pid": 7}))
    monkeypatch.setattr(Run, "starter_pid", lambda run: run.process().get("pid"))
    config = make_config("tiny")
    folder = process.start(config).folder
    with pytest.raises(InputError, match=rf"Dashboard\('{folder}'\)"):
        process.start(config)
    assert process.start(config.replace(checkpoint_dir="runs/another")).folder.name == "another"


def test_settings_changed_for_a_run_that_goes_on_become_flags(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    class Child:
        pid = 2**22 + 1  # no process has this number

        def __init__(self, command: list[str], **options: object) -> None:
            assert options["start_new_session"]
            commands.append(command[3:])

        def poll(self) -> int:
            return 0  # dashboards of other tests may still look

    monkeypatch.setattr(process.subprocess, "Popen", Child)
    monkeypatch.setattr(process, "_children", [])
    folder = Path(tiny.checkpoint_dir)
    process.start(tiny)
    assert commands[-1] == ["train", "--config", str(folder / "config.json")]
    assert Config.load(folder / "config.json") == tiny
    monkeypatch.setattr(process, "_children", [])

    Run(folder).log("start", step=0)
    with pytest.raises(InputError, match="resume=True"):
        process.start(tiny)
    process.start(tiny.replace(epochs=9, use_ema=False, preset=""), resume=True)
    assert commands[-1] == ["resume", str(folder), "--epochs", "9", "--no-use-ema"]
    monkeypatch.setattr(process, "_children", [])
    tiny.replace(stage2_lr=1e-4).save(folder / "config.json")
    process.start(tiny, resume=True)
    assert commands[-1] == ["resume", str(folder), "--stage2-lr", "none"]


def test_settings_that_an_older_kit_left_for_a_run_that_never_began_are_taken(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tiny.checkpoint_dir)
    with pytest.raises(InputError, match="holds no run"):
        process.restart(run)
    run.folder.mkdir(parents=True)
    tiny.save(run.folder / "launch.json")
    spawned: list[Config] = []
    monkeypatch.setattr(
        process, "_spawn", lambda run, flags: spawned.append(Config.load(run.config_path))
    )
    process.restart(run)
    assert spawned == [tiny]


def test_a_folder_is_chosen_that_no_run_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda form: "now")
    made = [process.new_folder() for _ in range(3)]
    assert made == [Path("runs/now"), Path("runs/now-2"), Path("runs/now-3")]
    assert all(folder.is_dir() for folder in made)


def test_a_batch_run_is_known_by_environment_or_front_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAMOXPERT_BATCH", raising=False)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    assert not unattended()  # a script: `wait` is there for it

    class Kernel:
        answers = True

        def get_parent(self, channel: str) -> dict[str, object]:
            return {"content": {"allow_stdin": self.answers}}

    class Shell:
        kernel = Kernel()

    monkeypatch.setattr(shown, "kernel_shell", Shell)
    assert not unattended()
    Shell.kernel.answers = False
    assert unattended()
    monkeypatch.setenv("CAMOXPERT_BATCH", "0")
    assert not unattended()
    monkeypatch.setenv("CAMOXPERT_BATCH", "1")
    Shell.kernel.answers = True
    assert unattended()
    monkeypatch.delenv("CAMOXPERT_BATCH")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert unattended()
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert not unattended()


def test_the_notebooks_kernel_stays_light() -> None:
    import subprocess

    code = "import sys, camoxpert_nb.notebook.dashboard; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
