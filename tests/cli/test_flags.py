"""Every flag that takes a path, found from the parser, with what people really type."""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from camoxpert_nb.cli import main as cli
from camoxpert_nb.cli.parser import PathKind, flag_text
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config

# Words about files that are none: they name what is meant, or count.
NO_PATHS = {"preset", "on", "gpus", "user", "data", "which", "what", "format", "report", "overlay"}


def commands() -> dict[str, argparse.ArgumentParser]:
    subs = next(a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {name: sub for name, sub in subs.choices.items() if name != "rank"}


def arguments() -> Iterator[tuple[str, argparse.Action]]:
    for name, sub in commands().items():
        yield from ((name, each) for each in sub._actions)


PATHS = [(name, each) for name, each in arguments() if isinstance(each.type, PathKind)]
LABELS = [f"{name} {flag_text(each)}" for name, each in PATHS]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a run, a data set's folder, a file, a link that leads nowhere."""
    monkeypatch.chdir(tmp_path)
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.save_config(make_config("tiny"))
    run.log("start")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text")
    (tmp_path / "lost").symlink_to("nowhere")
    (tmp_path / "round").symlink_to("round")
    return tmp_path


def line(command: str, argument: argparse.Action, value: str) -> list[str]:
    """The command with `value` for the argument, and what it needs besides."""
    words = {
        "resume": {"run": ["run"]},
        "evaluate": {"run": ["--run", "run"], "dataset_path": ["--dataset-path", "folder"]},
        "compare": {"runs": ["run", "run"], "dataset_path": ["--dataset-path", "folder"]},
        "predict": {
            "run": ["--run", "run"],
            "input": ["--input", "folder"],
            "output": ["--output", "maps"],
        },
        "export": {"run": ["run"]},
        "data": {"folder": ["folder"]},
        "kaggle": {"what": ["check"], "folder": ["folder"]},
    }.get(command, {})
    if argument.dest in ("predictions", "ground_truth"):
        words = {"predictions": ["--predictions", "folder"]} | {
            "ground_truth": ["--ground-truth", "folder"]
        }
    words = {**words, argument.dest: [*argument.option_strings[:1], value]}
    return [command, *(word for each in words.values() for word in each)]


def test_every_argument_about_files_is_looked_at() -> None:
    words = ("folder", "file", "path", "where decoded", "an image")
    unseen = {
        f"{name} {flag_text(each)}"
        for name, each in arguments()
        if not isinstance(each.type, PathKind)
        and each.nargs != 0
        and each.dest
        not in NO_PATHS
        | {"folder", "stage2_lr", "image_folder", "mask_folder"}  # kaggle's: by what is done
        and any(word in f"{each.help} {each.dest}" for word in words)
    }
    assert not unseen
    assert len(PATHS) > 25


@pytest.mark.parametrize(("command", "argument"), PATHS, ids=LABELS)
def test_a_path_that_cannot_be_used_ends_at_once_with_its_flag(
    command: str,
    argument: argparse.Action,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind = argument.type
    assert isinstance(kind, PathKind)
    bad = ["", " ", "~nobody-of-this-name/x", "lost", "round", "file/x", "x" * 300, "/proc/x/y"]
    if not kind.kind.startswith("new"):
        bad.append("absent")
    if kind.kind in ("file", "new file"):
        bad.append("folder")
    if kind.kind in ("folder", "new folder", "run"):
        bad.append("file")
    if kind.kind == "new file":
        bad += ["file", "run/config.json"]
    before = sorted(here.rglob("*"))
    for value in bad:
        code = cli.main(line(command, argument, value))
        said = capsys.readouterr().err
        assert code == 2, f"{value!r}: {said}"
        assert flag_text(argument) in said, f"{value!r}: {said}"
        assert "Traceback" not in said
    assert sorted(here.rglob("*")) == before


@pytest.fixture
def read_only(here: Path) -> Iterator[Path]:
    place = here / "sealed"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


WRITTEN = [(n, a) for n, a in PATHS if isinstance(a.type, PathKind) and a.type.kind[:3] == "new"]


@pytest.mark.parametrize(
    ("command", "argument"), WRITTEN, ids=[f"{name} {flag_text(each)}" for name, each in WRITTEN]
)
def test_a_read_only_place_is_refused_before_the_work(
    command: str,
    argument: argparse.Action,
    read_only: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for value in ("sealed/x", "sealed/deep/er/x"):
        assert cli.main(line(command, argument, value)) == 2
        said = capsys.readouterr().err
        assert flag_text(argument) in said and "ead-only" in said


def test_a_home_is_a_home_everywhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    given = vars(cli._parser().parse_args(["train", "--checkpoint-dir", "~/new"]))
    cli.check_paths(given["paths"], given)
    assert given["checkpoint_dir"] == str(here / "new")
    assert make_config("tiny", cache_dir="~/c").cache_dir == str(here / "c")
    assert Run("~/run").exists()


@pytest.mark.parametrize(
    "words",
    [
        "train --dataset-path a --dataset-path b",
        "train --lr 0.1 --lr 0.2",
        "train --amp --no-amp",
        "train --no-use-ema --use-ema",
        "train --preset tiny --preset demo",
        "evaluate --json a --json b",
        "predict --run a --input b --input c --output d",
        "data x --json a --json b",
        "kaggle build --user a --user b",
    ],
)
def test_a_flag_that_is_given_twice_is_refused(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(words.split())
    assert "given" in capsys.readouterr().err


def test_the_same_twice_is_no_contradiction_and_lists_grow() -> None:
    parse = cli._parser().parse_args
    assert parse(["train", "--lr", "0.1", "--lr", "0.1"]).lr == 0.1
    for words, name, wanted in (
        ("evaluate --dataset-path a b --dataset-path c", "dataset_path", ["a", "b", "c"]),
        ("evaluate --scales 1 --scales 2", "scales", [1.0, 2.0]),
        ("kaggle build --data a/b --data c/d", "data", ["a/b", "c/d"]),
    ):
        assert vars(cli._parser().parse_args(words.split()))[name] == wanted
