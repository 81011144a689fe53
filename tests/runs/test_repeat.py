"""A plan of several runs: what its files, members and refusals say. No training runs here."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from camoxpert_nb.errors import InputError
from camoxpert_nb.runs import repeat
from camoxpert_nb.runs.repeat import Repeat, is_repeat, members_of, train_member, why_failed
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config


def plan(folder: Path, by: str = "seed", numbers: tuple[int, ...] = (7, 3)) -> Repeat:
    config = make_config("tiny", dataset_path="/photos", seed=9, checkpoint_dir="elsewhere")
    return Repeat(folder, by, numbers, config, "auto")


def test_seeds_and_folds_have_folders_and_settings_of_their_own(tmp_path: Path) -> None:
    seeds, folds = plan(tmp_path), plan(tmp_path, "fold", (1, 2, 3))
    assert list(seeds.members()) == ["seed-7", "seed-3"]
    assert list(folds.members()) == ["fold-1-of-3", "fold-2-of-3", "fold-3-of-3"]
    assert folds.members()["fold-2-of-3"].folder == tmp_path / "fold-2-of-3"
    seed, fold = seeds.config_of("seed-3"), folds.config_of("fold-2-of-3")
    assert (seed.seed, seed.fold) == (3, "")
    assert seed.checkpoint_dir == str(tmp_path / "seed-3")
    assert (fold.seed, fold.fold) == (9, "2/3")
    assert fold.checkpoint_dir == str(tmp_path / "fold-2-of-3")
    assert fold.replace(fold="", checkpoint_dir="elsewhere") == folds.config


def test_a_plan_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "several"
    plan(folder).save()
    assert Repeat.load(folder) == plan(folder)
    assert is_repeat(folder) and not is_repeat(folder.parent)
    written = json.loads((folder / "repeat.json").read_text())
    assert list(written) == ["format", "by", "numbers", "preset", "settings"]
    assert (written["format"], written["by"], written["numbers"]) == (1, "seed", [7, 3])
    assert written["preset"] == "auto" and written["settings"]["dataset_path"] == "/photos"


@pytest.mark.parametrize(
    "change", [{"by": "day"}, {"numbers": [4]}, {"format": 2}, {"by": "seeds"}], ids=str
)
def test_a_plan_of_another_kit_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    plan(tmp_path).save()
    path = tmp_path / "repeat.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError) as error:
        Repeat.load(tmp_path)
    assert str(error.value) == (
        f"{path}: no plan of several runs that this kit can read. Copy it again, or begin anew in "
        "another --checkpoint-dir."
    )


def test_a_plan_that_is_no_json_is_named_as_what_it_should_be(tmp_path: Path) -> None:
    (tmp_path / "repeat.json").write_text('{"format": "1"}')
    with pytest.raises(InputError, match=r"repeat\.json: .*format"):
        Repeat.load(tmp_path)
    (tmp_path / "repeat.json").write_text("[]")
    with pytest.raises(InputError, match=r"repeat\.json: not the plan of several runs"):
        Repeat.load(tmp_path)


def test_only_what_hangs_on_the_machine_may_be_given_again(tmp_path: Path) -> None:
    seeds, folds = plan(tmp_path), plan(tmp_path, "fold", (1, 2))
    assert seeds.changed({"device": "cuda", "epochs": 2, "num_workers": 0}) == {"device": "cuda"}
    assert seeds.changed({"seed": 1, "checkpoint_dir": "other"}) == {}  # not of the plan
    with pytest.raises(InputError, match="--seed 1"):
        folds.changed({"seed": 1})  # there all folds share it
    with pytest.raises(InputError) as error:
        seeds.changed({"device": "cuda", "epochs": 5, "img_size": 96})
    assert str(error.value) == (
        f"{tmp_path} repeats other settings than are given: --img-size 96 (there: 64), --epochs 5 "
        "(there: 2). Leave them out to go on there, or name another --checkpoint-dir to begin "
        "anew."
    )


def test_a_folder_of_several_stands_for_those_that_have_weights(tmp_path: Path) -> None:
    folder = tmp_path / "several"
    plan(folder, "fold", (1, 2, 3)).save()
    with pytest.raises(InputError) as error:
        members_of([folder])
    assert str(error.value) == (
        f"{folder}: none of its members has weights yet. Go on with it first: camoxpert repeat "
        f"--checkpoint-dir {folder}"
    )
    for name, file in (("1", "last.pt"), ("2", "best.pt"), ("3", "best.pt")):
        member = folder / f"fold-{name}-of-3"
        member.mkdir()
        (member / file).touch()
    both = [folder / "fold-2-of-3", folder / "fold-3-of-3"]
    assert members_of([str(tmp_path), folder]) == [tmp_path, *both]


def test_a_member_is_trained_by_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signals are passed on, and its exit code is returned; settings lie there before it begins."""
    asked: list[tuple[Run, list[str]]] = []
    ready = tmp_path / "ready"
    child = (
        "import pathlib, signal, time; signal.signal(10, lambda *_: exit(7));"
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    )

    def command(run: Run, flags: list[str]) -> list[str]:
        asked.append((run, flags))
        return [sys.executable, "-c", child]

    monkeypatch.setattr(repeat, "command_for", command)
    popen = Mock(side_effect=subprocess.Popen)
    monkeypatch.setattr(subprocess, "Popen", popen)

    def wanted() -> int:
        return signal.SIGUSR1 if ready.exists() and not ready.unlink() else 0

    run, config = Run(tmp_path / "deep" / "seed-3"), make_config("tiny", epochs=5)
    assert train_member(run, config, ["--device", "cpu"], wanted) == 7
    assert run.config == config
    assert asked == [(run, ["--device", "cpu"])]
    how = popen.call_args.kwargs
    assert how["start_new_session"] is True  # it does not hear the terminal itself
    assert how["stdin"] == subprocess.DEVNULL
    (run.folder / "last.pt").touch()
    child = "exit(0)"
    assert train_member(run, make_config("tiny", epochs=9), [], lambda: 0) == 0
    assert run.config.epochs == 5  # of one that goes on nothing is written


def test_why_a_member_ended_is_its_own_word_or_its_code(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert why_failed(run, 3) == "its process ended with code 3; what it said stands above."
    assert why_failed(run, 0) == "its process ended with code 0; what it said stands above."
    assert why_failed(run, -9) == ("its process was killed (signal 9); what it said stands above.")
    run.save_json("failure", {"message": "the disk is full"})
    assert why_failed(run, 1) == "the disk is full"
