"""What is typed wrongly, and what help says."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from pathlib import Path

import pytest

from camoxpert_nb.cli import main as cli
from camoxpert_nb.settings.checks import flag_of, near
from camoxpert_nb.settings.config import Config
from camoxpert_nb.settings.table import default_of, help_of


def commands() -> dict[str, argparse.ArgumentParser]:
    subs = next(a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(subs.choices)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("trian", "no command 'trian'; did you mean train?"),
        ("train --epochz 3", "no flag --epochz; did you mean --epochs?"),
        ("tran", "no command 'tran'; did you mean train"),
        ("Evaluate", "no command 'Evaluate'; did you mean evaluate?"),
        ("batch_size", "did you mean batch-size?"),
        ("--verison", "no flag --verison; did you mean --version?"),
        ("--epochs 3 train", "camoxpert: no flag --epochs"),
        ("", "no command was given"),
        ("train --batchsize 3", "no flag --batchsize; did you mean --batch-size"),
        ("train --batch_size 3", "no flag --batch_size; did you mean --batch-size?"),
        ("train --Batch_Size=3", "no flag --Batch_Size; did you mean --batch-size?"),
        (
            "export --run runs/a",
            "no flag --run: the run stands by itself, as `camoxpert export RUN`.",
        ),
        ("resume", "camoxpert resume: RUN is missing, as in `camoxpert resume RUN`."),
        ("data", "FOLDER is missing, as in `camoxpert data FOLDER`."),
        (
            "predict --run .",
            "--input, --output are missing, as in `camoxpert predict --run RUN --input",
        ),
        ("data --folder=photos", "the folder stands by itself, as `camoxpert data FOLDER`."),
        ("train -epochs 3", "no flag -epochs; did you mean --epochs?"),
        ("train --no-ampp", "no flag --no-ampp; did you mean --no-amp"),
        ("train --mask-invertt", "did you mean --mask-invert"),
        ("train epochs 3", "epochs 3: nothing here takes it; did you mean --epochs?"),
        ("doctor extra", "extra: nothing here takes it."),
        ("export --formt onnx", "no flag --formt; did you mean --format"),
        ("evaluate --spilt test", "did you mean --split"),
        ("evaluate --split tset", "--split: 'tset' is none of auto, test, validation, all; did"),
        ("kaggle bild", "'bild' is none of build, check, renew; did you mean build?"),
        ("predict --device gpu", "'gpu' is none of auto, cuda, cpu"),
        ("train --epochs ten", "--epochs: 'ten' is no whole number"),
        ("train --epochs 96.5", "'96.5' is no whole number"),
        ("train --lr fast", "--lr: 'fast' is no number"),
        ("train --stage2-lr quick", "'quick' is no number"),
        ("evaluate --scales big", "'big' is no number"),
        ("train --epochs", "--epochs: expected one argument"),
    ],
)
def test_what_is_not_known_is_named_with_what_is_like_it(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(shlex.split(line))
    shown = capsys.readouterr().err
    assert said in shown
    assert "--help` lists" in shown and "usage:" not in shown and "rank" not in shown
    assert len(shown.splitlines()) <= 3


def test_values_that_begin_like_flags_are_none() -> None:
    given = vars(cli._parser().parse_args(["train", "--ignore-label", "-1", "--mask-suffix=-mask"]))
    assert (given["ignore_label"], given["mask_suffix"]) == (-1, "-mask")
    given = vars(cli._parser().parse_args(["export", "--", "--odd-run"]))
    assert given["run"] == "--odd-run"


def test_help_names_no_command_that_is_not_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    assert "rank" not in capsys.readouterr().out
    assert "rank" in commands()


@pytest.mark.parametrize("name", [name for name in commands() if name != "rank"])
def test_every_argument_has_help_with_its_default_and_unit(name: str) -> None:
    sub = commands()[name]
    text = " ".join(sub.format_help().split())
    plain = {item.name: item for item in dataclasses.fields(Config)}
    for action in sub._actions:
        assert action.help, f"{name} {action.dest}"
        if action.option_strings and action.default not in (None, "", False, argparse.SUPPRESS, []):
            assert "default" in sub.formatter_class("x")._get_help_string(action)  # type: ignore[operator]
        if action.dest in plain and action.default is argparse.SUPPRESS and name != "demo":
            wanted = help_of(
                plain[action.dest],
                default=name in ("train", "batch-size", "repeat", "lr-find", "data"),
            )
            assert " ".join(wanted.split()) in text.replace("- ", "-") or wanted in text


def test_the_help_of_a_setting_follows_from_the_table() -> None:
    items = {item.name: item for item in dataclasses.fields(Config)}
    for name, item in items.items():
        told = help_of(item)
        assert told.startswith(item.metadata["help"])
        known = default_of(item) or ("" if "empty:" in told else "empty")
        assert (f"default {known}" if known else "; empty: ") in told
        assert all(each in told for each in item.metadata.get("choices", ())), name
        assert item.metadata.get("unit", "") in told
        assert flag_of(name) in commands()["train"]._option_string_actions or name == "preset"
    assert help_of(items["img_size"]).endswith("(default 320 px)")
    assert help_of(items["amp"]).endswith("(default on)")
    assert help_of(items["keep"], default=False).endswith("(best, last)")


def test_names_that_are_alike_but_for_their_writing_are_the_only_ones() -> None:
    assert near("Batch_Size", ["batch-size", "stage2-batch-size"]) == "; did you mean batch-size?"
    assert near("qqq", ["batch-size"]) == "."


@pytest.mark.parametrize("name", ["x.txt", "x", "x.jpg", "x.png.bak"])
@pytest.mark.parametrize(
    "line",
    ["data {0} --picture", "runs {0} --figure", "evaluate --run {0} --dataset-path {0} --picture"],
)
def test_a_picture_of_another_ending_is_refused(
    line: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert cli.main([*line.format(tmp_path).split(), str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert name in said and "expected .png or .pdf or .svg: give" in said


@pytest.mark.parametrize(
    "line",
    [
        "evaluate --run {0} --dataset-path {0}",
        "predict --run {0} --input {0} --output {0}/maps",
        "export {0}",
        "resume {0}",
        "train --resume-from {0}",
        "predict --run {0}/inner/../ --input {0} --output {0}/maps",
    ],
)
def test_a_folder_that_is_no_run_is_refused_in_one_way(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photo.jpg").touch()
    (tmp_path / "inner").mkdir()
    assert cli.main(line.format(tmp_path).split()) == 2
    said = capsys.readouterr().err
    assert "is no run: it has no config.json, and holds inner, photo.jpg." in said
    assert "`camoxpert runs FOLDER`" in said


def test_help_names_what_a_flag_takes(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("evaluate", "compare", "data", "train", "lr-find"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        said = capsys.readouterr().out
        for flag in ("JSON", "CURVES", "PICTURE", "CSV", "PREDICTIONS", "RUNS"):
            assert f"--{flag.lower()} {flag}" not in said
        assert "--mask-exif auto|shown|stored" in said
        assert "empty: by name (default empty" not in " ".join(said.split())
