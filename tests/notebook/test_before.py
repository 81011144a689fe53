"""What 03 tells before it starts, and what it does not start unasked."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import pytest

from camoxpert_nb.errors import InputError, KitError, TrainingError
from camoxpert_nb.notebook import before, choice, measure
from camoxpert_nb.notebook.before import what_trains
from camoxpert_nb.notebook.launch import launch
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config

MINE = {"trainer": os.getpid(), "host": platform.node()}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(choice, "_listed_gpus", list)


def costs(monkeypatch: pytest.MonkeyPatch, seconds: float | Exception) -> None:
    def measure(config: Config, limit: float) -> dict[str, Any]:
        if isinstance(seconds, Exception):
            raise seconds
        return {"seconds": seconds, "fits": None}

    monkeypatch.setattr(before, "measure", measure)


def test_hours_on_a_cpu_are_not_started_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config("balanced-2gpu")
    costs(monkeypatch, 18 * 3600)
    told = what_trains(config)
    assert "about 18.0 h" in str(told) and "CPU" in str(told) and "balanced-2gpu" in str(told)
    with pytest.raises(InputError, match=r"takes 18\.0 h.*LONG_ON_CPU = True"):
        told.agreed()
    assert told.agreed(True) == config
    monkeypatch.setattr(choice, "_listed_gpus", lambda: [14.6, 14.6])
    told = what_trains(config)
    assert "2 GPUs" in str(told) and told.agreed() == config
    with pytest.raises(InputError, match="without a GPU"):
        what_trains(config.replace(device="cpu")).agreed()


def test_minutes_on_a_cpu_are_and_what_cannot_be_measured_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = make_config("demo")
    costs(monkeypatch, 200)
    assert what_trains(config).agreed() == config
    costs(monkeypatch, TimeoutError("no step was measured within 120 s"))
    with pytest.raises(InputError, match="far longer than an hour"):
        what_trains(config).agreed()
    costs(monkeypatch, InputError("no such folder"))  # the training will say so itself
    assert "not known: no such folder" in str(what_trains(config))
    assert what_trains(config).agreed() == config


def test_where_the_settings_come_from_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    costs(monkeypatch, 2)
    assert "proposed: nothing is saved in next.json" in str(what_trains(Config(), "next.json"))
    Config(dataset_path="saved").save(Path("next.json"))
    told = what_trains(Config(dataset_path="other"), "next.json", "other", ["one thing"])
    assert "next.json, saved" in str(told) and "one thing" in str(told)
    assert "was saved with saved; DATA names other" in str(told)
    told = what_trains(Config(dataset_path="other"), "next.json")
    assert "that is not here, so other is trained" in str(told)
    assert what_trains(Config(dataset_path="saved"), "next.json").notes == []


def test_an_estimate_of_02_is_not_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config("demo")
    Path("runs").mkdir()
    measure.KEPT.write_text(f'{{"seconds": 60, "of": "{measure._print_of(config)}"}}')
    costs(monkeypatch, AssertionError("measured again"))
    assert "about 60 s" in str(what_trains(config))
    costs(monkeypatch, 7)
    assert "about 7 s" in str(what_trains(config.replace(epochs=9)))
    measure.KEPT.write_text("[]")
    assert "about 7 s" in str(what_trains(config))


def test_a_launch_attaches_to_the_training_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("runs/a")
    run.folder.mkdir(parents=True)
    config = make_config("tiny", epochs=7, lr=0.001, dataset_path="data")
    run.save_config(config)
    run.log("epoch", epoch=1, step=3)
    run.save_process(MINE)
    costs(monkeypatch, AssertionError("measured beside a training"))
    asked = config.replace(dataset_path=str(Path("data").resolve()), augment=None)
    for same in (asked, asked.replace(checkpoint_dir="runs/a"), asked.replace(lr=None)):
        dashboard = launch(same, resume=True, wait=False)
        assert dashboard.run.folder.name == "a" and "other settings" not in dashboard._page()
        assert what_trains(same).busy is not None
    page = launch(config.replace(epochs=9), wait=False)._page()
    assert "with other settings than launch got: --epochs 7 (here 9)" in page
    assert "--epochs 7 (here 9)" in str(what_trains(config.replace(epochs=9)))


def test_a_run_that_ended_too_soon_is_named_and_goes_on_when_that_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    costs(monkeypatch, 12)
    config = make_config("tiny", dataset_path="data", epochs=12)
    (nothing,) = what_trains(config, go_on=True).notes
    assert nothing.endswith("GO_ON = True changes nothing.")
    run = Run("runs/a")
    run.folder.mkdir(parents=True)
    run.save_config(config)
    for epoch in range(1, 10):
        run.log("epoch", epoch=epoch, step=3 * epoch)
    (run.folder / "last.pt").touch()
    assert what_trains(config).notes == []

    told = what_trains(config, go_on=False)
    (note,) = told.notes
    assert note.startswith("runs/a, of these very settings, died with 9 of 12 epochs done")
    assert "GO_ON = True" in note and told.agreed().checkpoint_dir == ""
    assert what_trains(config.replace(lr=0.5), go_on=False).notes == []

    told = what_trains(config, go_on=True)
    assert told.agreed().checkpoint_dir == "runs/a" and told.notes == []
    assert "those of the run in runs/a, which goes on" in str(told)
    assert "about 3 s" in str(told)  # of 12 seconds, for 3 of 12 epochs

    begun = Run("runs/b")
    begun.folder.mkdir()
    begun.save_config(config)
    begun.log("epoch", epoch=1, step=3)
    begun.save_process(MINE)
    told = what_trains(config, go_on=True)
    assert "runs/a, of these" in told.notes[0] and "stop what trains" in told.notes[0]
    assert told.agreed().checkpoint_dir == ""


@pytest.mark.parametrize("error", [InputError("one\ntwo"), TrainingError("one"), KitError()])
def test_an_error_in_a_notebook_is_its_sentence_alone(error: KitError) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shown: list[list[str]] = []
    shell = InteractiveShell.instance()
    try:
        shell._showtraceback = lambda kind, value, lines: shown.append(lines)
        shell.user_ns["error"] = error
        shell.run_cell("raise error")
    finally:
        InteractiveShell.clear_instance()
    assert shown == [str(error).splitlines() or ["KitError"]]
