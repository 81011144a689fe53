"""A training that is refused before it begins leaves no folder of its own behind."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import camoxpert_nb.machine.distributed as distributed
import camoxpert_nb.training.resume as resume
from camoxpert_nb.cli.main import main
from camoxpert_nb.errors import RankFailed
from camoxpert_nb.runs.process import discard_untrained, start, status
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.fit import fit


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def words(tiny: Config, *changed: str) -> list[str]:
    kept = ["--cache-dir", tiny.cache_dir]
    if "--dataset-path" not in changed:
        kept += ["--dataset-path", tiny.dataset_path]
    return ["train", "--preset", "tiny", "--device", "cpu", *kept, *changed]


def runs() -> list[str]:
    return sorted(path.name for path in Path("runs").glob("*"))


REFUSED = {
    "backbone": ["--backbone", "resnet_of_nobody"],
    "weights": ["--init-from", "weights.pt"],
    "resolution": ["--img-size", "8"],
    "batch": ["--batch-size", "400"],
    "images": ["--dataset-path", "empty"],
    "a dry run": ["--backbone", "resnet_of_nobody", "--dry-run"],
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_leaves_no_folder(what: str, tiny: Config) -> None:
    Path("empty").mkdir()
    Path("weights.pt").write_text("no weights")
    assert main(words(tiny, *REFUSED[what])) == 2
    assert runs() == []


@pytest.mark.parametrize("named", [[], ["--checkpoint-dir", "runs/named"]])
def test_of_several_processes_the_cause_is_told_and_no_folder_stays(
    named: list[str],
    tiny: Config,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(arguments: list[str], _: int) -> None:
        folder = Config.load(Path(arguments[2])).checkpoint_dir
        Path(folder).mkdir(parents=True, exist_ok=True)
        Run(folder).save_json("failure", {"kind": "InputError", "message": "The reason."})
        raise RankFailed("process 0 of 2 was killed.", 1, silent=False)

    monkeypatch.setattr(distributed, "start_ranks", fail)
    assert main(words(tiny, "--parallel", "ddp", *named)) == 1
    assert "The reason. (process 0 of 2 was killed.)" in capsys.readouterr().err
    assert runs() == []


def test_an_interrupted_preparation_leaves_none(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(resume, "prepare", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny.replace(checkpoint_dir=""))
    assert runs() == []


def test_a_demo_that_cannot_be_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(resume, "prepare", interrupt)
    assert main(["demo"]) == 130
    assert runs() == []


def test_a_folder_that_was_there_before_stays(tiny: Config) -> None:
    Path("mine").mkdir()
    refused = words(tiny, "--backbone", "resnet_of_nobody", "--checkpoint-dir", "mine")
    assert main(refused) == 2
    assert Path("mine").is_dir()


@pytest.mark.parametrize("kept", ["config.json", "history.jsonl", "last.pt", "notes.txt"])
def test_a_folder_that_holds_more_than_the_attempt_stays(kept: str, tmp_path: Path) -> None:
    for name in (kept, "failure.json", "process.json"):
        (tmp_path / name).touch()
    discard_untrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {kept, "failure.json", "process.json"}


def test_a_notebook_still_learns_why(tiny: Config) -> None:
    run = start(tiny.replace(checkpoint_dir="", backbone="resnet_of_nobody"))
    while not (now := status(run)).ended:
        time.sleep(0.2)
    assert now.name == "died"
    assert "resnet_of_nobody" in now.cause
    assert len(runs()) == 1
