"""`repeat`: several runs by one command, which goes on where it ended and names what failed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from camoxpert_nb.cli import main as cli
from camoxpert_nb.cli import repeat as module
from camoxpert_nb.data.identity import Split
from camoxpert_nb.errors import STOPPED, KitError
from camoxpert_nb.runs.place import list_runs
from camoxpert_nb.runs.repeat import Repeat, members_of
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.fit import fit

Ask = Callable[[], int]


@pytest.fixture
def words(camouflage: Path, cache: Path, tmp_path: Path) -> str:
    places = f"--dataset-path {camouflage} --cache-dir {cache} --checkpoint-dir {tmp_path / 'all'}"
    return f"repeat --preset tiny --device cpu {places}"


def run(line: str) -> int:
    return cli.main(shlex.split(line))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Train members in this process; return the settings of each training that began."""
    began: list[Config] = []

    def train(run: Run, config: Config, flags: list[str], wanted: Ask) -> int:
        began.append(config)
        try:
            fit(config, resume=run.exists())
        except KitError as error:
            return error.exit_code
        return 0 if run.load_json("summary")["finished"] else STOPPED

    monkeypatch.setattr(module, "train_member", train)
    return began


def test_seeds_differ_in_nothing_else_and_are_summed_up(
    words: str, trained: list[Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"{words} --seeds 2") == 0
    assert [config.seed for config in trained] == [1, 2]
    folder = tmp_path / "all"
    said = capsys.readouterr().out
    assert "nothing but the seed differs" in said and "standard deviation" in said
    found = json.loads((folder / "results.json").read_text())
    assert [row["member"] for row in found["members"]] == ["seed-1", "seed-2"]
    values = [row["iou"] for row in found["members"]]
    assert found["mean"]["iou"] == pytest.approx(sum(values) / 2)
    assert found["sd"]["iou"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    table = pd.read_csv(folder / "results.csv")
    assert [*table["member"]] == ["seed-1", "seed-2", "mean", "standard deviation"]
    splits = [Split.load(Run(folder / name).load_json("split")) for name in ("seed-1", "seed-2")]
    assert splits[0].validation == splits[1].validation
    assert {row["name"] for row in list_runs([folder])} == {"seed-1", "seed-2"}
    # the same command again trains nothing, and more seeds only the new ones
    assert run(f"{words} --seeds 2") == 0 and len(trained) == 2
    assert run(f"repeat --checkpoint-dir {folder} --seeds 3") == 0
    assert [config.seed for config in trained] == [1, 2, 3]


def test_folds_score_every_image_once(
    words: str, trained: list[Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"{words} --folds 3 --epochs 1") == 0
    assert [config.fold for config in trained] == ["1/3", "2/3", "3/3"]
    images = pd.read_csv(tmp_path / "all" / "images.csv")
    assert images["name"].is_unique and set(images["dataset"]) == {
        "fold-1-of-3",
        "fold-2-of-3",
        "fold-3-of-3",
    }
    split = Split.load(Run(tmp_path / "all" / "fold-1-of-3").load_json("split"))
    assert len(images) == len(split.train) + len(split.validation)
    found = json.loads((tmp_path / "all" / "results.json").read_text())
    counted = images[images["object_share"] > 0]
    low, high = found["pooled"]["iou"]["interval"]
    assert found["pooled"]["iou"]["mean"] == pytest.approx(counted["iou"].mean())
    assert low < counted["iou"].mean() < high and not found["notes"]
    assert "by the one member that held it out" in capsys.readouterr().out


def test_one_that_fails_holds_nobody_up_and_is_named(
    words: str,
    trained: list[Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = module.train_member

    def fail_once(run: Run, config: Config, flags: list[str], wanted: Ask) -> int:
        return 1 if config.seed == 8 else whole(run, config, flags, wanted)

    monkeypatch.setattr(module, "train_member", fail_once)
    assert run(f"{words} --seeds 3 --seed 7 --epochs 1") == 1
    assert [config.seed for config in trained] == [7, 9]
    said = capsys.readouterr()
    assert "seed-8 failed: its process ended with code 1" in said.err
    found = json.loads((tmp_path / "all" / "results.json").read_text())
    assert [*found["failed"]] == ["seed-8"] and len(found["members"]) == 2
    monkeypatch.setattr(module, "train_member", whole)
    assert run(f"repeat --checkpoint-dir {tmp_path / 'all'}") == 0
    assert [config.seed for config in trained] == [7, 9, 8]


def test_the_time_is_that_of_the_whole(
    words: str, trained: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    whole = module.train_member

    def slowly(run: Run, config: Config, flags: list[str], wanted: Ask) -> int:
        now[0] += 60 * 4
        assert "--time-budget" in flags
        return whole(run, config.replace(time_budget=0.0), flags, wanted)

    monkeypatch.setattr(module, "train_member", slowly)
    given: list[float] = []
    replace = Config.replace
    monkeypatch.setattr(
        Config,
        "replace",
        lambda self, **new: (
            given.append(new["time_budget"]) or replace(self, **new)
            if new.keys() == {"time_budget"} and new["time_budget"]
            else replace(self, **new)
        ),
    )
    assert run(f"{words} --seeds 3 --epochs 1 --time-budget 6") == STOPPED
    assert given == pytest.approx([6, 2]) and len(trained) == 2
    assert not (tmp_path / "all" / "results.json").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("", "repeat needs --seeds N or --folds K"),
        ("--seeds 2 --folds 3", "--seeds and --folds are both given"),
        ("--seeds 1", "--seeds is 1; give 2 to 1000"),
        ("--folds -3", "--folds is -3; give 2 to 1000"),
        ("--folds 3 --fold 1/3", "leave it out, give --folds K"),
    ],
)
def test_what_cannot_be_repeated_is_refused(
    words: str, flags: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(f"{words} {flags}") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--epochs 7", "--epochs 7 (there: 2)"),
        ("--seeds 2", "repeats over 3 seeds"),
        ("--folds 3", "repeats over 3 seeds"),
        ("--seed 2", "repeats over 3 seeds"),
        ("--preset demo", "preset 'tiny'"),
        ("--img-size 128 --batch-size 8", "--img-size 128 (there: 64), --batch-size 8 (there: 4)"),
    ],
)
def test_another_command_for_the_same_folder_is_refused(
    flags: str, said: str, tiny: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Repeat(tmp_path / "all", "seed", (1, 2, 3), tiny, "tiny").save()
    assert run(f"repeat --checkpoint-dir {tmp_path / 'all'} {flags}") == 2
    assert said in capsys.readouterr().err


def test_members_stand_for_the_folder(tiny: Config, tmp_path: Path) -> None:
    Repeat(tmp_path / "all", "seed", (1, 2), tiny).save()
    with pytest.raises(KitError, match="none of its members has weights yet"):
        members_of([tmp_path / "all"])
    for name in ("seed-1", "seed-2"):
        (tmp_path / "all" / name).mkdir()
    (tmp_path / "all" / "seed-2" / "best.pt").touch()
    assert members_of([tmp_path / "all", tmp_path]) == [tmp_path / "all" / "seed-2", tmp_path]


def test_ctrl_c_saves_the_member_and_the_same_command_goes_on(words: str, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "camoxpert_nb", *shlex.split(f"{words} --seeds 2 --epochs 400")]
    child = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    member = Run(tmp_path / "all" / "seed-1")
    until = time.monotonic() + 100
    while not member.records("epoch") and time.monotonic() < until:
        time.sleep(0.2)
    os.kill(child.pid, signal.SIGINT)
    said: Any = child.communicate(timeout=60)[0]
    assert child.returncode == STOPPED, said
    assert "0 of 2 are finished" in said
    assert member.newest()["kind"] == "stop" and member.has("last")
    assert not (tmp_path / "all" / "seed-2" / "history.jsonl").exists()
