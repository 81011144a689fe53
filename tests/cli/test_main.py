"""The command line as people type it."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camoxpert_nb import __version__
from camoxpert_nb.cli import main as cli
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.checks import flag_of
from camoxpert_nb.settings.config import Config, make_config, plain_type
from camoxpert_nb.training.console import Console

# What the predecessor's guide tells people to type, after the program's name.
GUIDE = """
train --dataset-path {data} --checkpoint-dir {run} --backbone edgenext_base --num-experts 7
--batch-size 16 --stage2-batch-size 12 --accumulation-steps 1 --img-size 320 --epochs 140
--stage1-epochs 30 --lr 0.00065 --stage2-lr 0.00015 --scheduler cosine --min-lr 0.00001
--warmup-epochs 10 --progressive-unfreeze --deep-supervision --gradient-checkpointing --use-ema
--ema-decay 0.999 --num-workers 16 --weight-decay 0.0001 --seed 42
"""
GUIDE_FAST = """
train --dataset-path {data} --checkpoint-dir {run} --backbone edgenext_base --num-experts 7
--batch-size 24 --stage2-batch-size 16 --accumulation-steps 1 --img-size 320 --epochs 140
--stage1-epochs 30 --lr 0.001 --stage2-lr 0.0002 --scheduler cosine --min-lr 0.00001
--warmup-epochs 10 --progressive-unfreeze --deep-supervision --use-ema --num-workers 16
"""
EVERY_OTHER_FLAG = """
train --dataset-path {data} --checkpoint-dir {run} --no-amp --skip-stage1 --t-mult 2
--scheduler cosine_restart --device cpu
"""


@pytest.fixture
def places(
    camouflage: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    monkeypatch.setenv("CAMOXPERT_CACHE", str(cache))
    return {"data": str(camouflage), "run": str(tmp_path / "run")}


def run(line: str, **places: str) -> int:
    return cli.main(shlex.split(line.format(**places)))


def without(line: str, flags: str) -> str:
    """Leave out what `flags` gives otherwise: a flag that is given twice is refused."""
    for flag in re.findall(r"--[a-z0-9-]+", flags):
        line = re.sub(rf"{flag}(?= |\n|$)( (?!--)\S+)?", "", line)
    return f"{line} {flags}"


# A small network stands in, so that the estimate's real step is quick.
SMALL = " --backbone test_resnet --no-pretrained --img-size 64"


@pytest.mark.parametrize("line", [GUIDE, GUIDE_FAST, EVERY_OTHER_FLAG])
def test_the_guides_commands_run_word_for_word(
    line: str, places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(without(line, SMALL) + " --dry-run", **places) == 0
    said = capsys.readouterr().out
    assert "learning rates" in said
    assert not Path(places["run"]).exists()


def test_the_dry_run_shows_what_the_guides_banner_shows(
    places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(
            without(
                GUIDE,
                SMALL.replace("64", "32")
                + " --accumulation-steps 2 --batch-size 4 --stage2-batch-size 3 --dry-run",
            ),
            **places,
        )
        == 0
    )
    said = capsys.readouterr().out
    for wanted in (
        "CPU",
        "backbone          test_resnet",
        "7, weighed in each cell of the image",
        "32 x 32 px",
        "batch 4 per CPU x 1 CPU x 2 accumulated = 8 effective",
        "batch 3 per CPU x 1 CPU x 2 accumulated = 6 effective",
        "epochs            140",
        "deep supervision  on",
        "checkpointing     on",
        "two (all) from epoch 104",
        "decay 0.999",
        "IoU 0.72",
        "million",
        "none",
        "16 workers",
        "GiB per device",
        "an epoch",
        "6.50e-04",
        "1.00e-05",
    ):
        assert wanted in said, wanted


def test_every_setting_is_a_flag_and_reaches_the_config() -> None:
    values = {int: 5, float: 0.25, str: "word", bool: True}
    for item in dataclasses.fields(Config):
        if item.name == "preset":
            continue
        kind = plain_type(item)[0]
        words = [flag_of(item.name)] + ([] if kind is bool else [str(values[kind])])
        given = vars(cli._parser().parse_args(["train", *words]))
        assert given[item.name] == values[kind]
    given = vars(cli._parser().parse_args(["train", "--no-amp", "--no-use-ema"]))
    assert (given["amp"], given["use_ema"]) == (False, False)


def test_what_is_done_with_trained_runs(
    places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, report = str(tmp_path / "other"), Path(places["run"]) / "report.html"
    train = "train --preset tiny --dataset-path {data} --checkpoint-dir"
    assert run(f"{train} {{run}}", **places) == run(f"{train} {other} --seed 1", **places) == 0
    capsys.readouterr()

    assert run(f"compare {{run}} {other} --dataset-path {{data}}", **places) == 0
    said = capsys.readouterr().out
    assert "paired bootstrap" in said
    assert "all settings alike" in said  # but for the seed: one group of two runs
    assert run("compare {run} --dataset-path {data}", **places) == 2
    assert run(f"compare {{run}} {tmp_path} --dataset-path {{data}}", **places) == 2  # no maps

    table = tmp_path / "scores.csv"
    flags = f"--flip --validation-threshold --csv {table} --report"
    assert run(f"evaluate --run {{run}} --dataset-path {{data}} {flags}", **places) == 0
    assert "seen as it is and mirrored" in capsys.readouterr().out
    assert report.exists()
    assert len(table.read_text().splitlines()) == 1 + 7

    maps, images = tmp_path / "maps", Path(places["data"]) / "Test" / "Image"
    assert run(f"predict --run {{run}} --input {images} --output {maps} --overlay", **places) == 0
    assert len(list((maps / "overlays").glob("*.png"))) == len(list(maps.glob("*.png"))) == 8

    assert run("export {run}", **places) == 0
    said = capsys.readouterr().out
    assert "images/s on this CPU" in said
    assert (Path(places["run"]) / "model.onnx").exists()


def test_maps_of_any_method_are_compared_with_runs_and_drawn(
    places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train --preset tiny --dataset-path {data} --checkpoint-dir {run}", **places) == 0
    maps, images = tmp_path / "maps", Path(places["data"]) / "Test" / "Image"
    assert run(f"predict --run {{run}} --input {images} --output {maps}", **places) == 0
    curves, picture = tmp_path / "curves.csv", tmp_path / "curves.png"
    flags = f"--dataset-path {{data}} --curves {curves} --picture {picture}"
    assert run(f"compare {maps} {{run}} {flags}", **places) == 0
    said = capsys.readouterr().out
    assert f"against {maps}: IoU" in said and "what trained them is not known" in said
    assert "share a row" not in said  # one run: there is no spread to show
    lines = curves.read_text().splitlines()
    assert lines[0].startswith("dataset,method,threshold") and len(lines) == 1 + 2 * 256
    assert picture.stat().st_size > 10_000
    assert run(f"compare {maps} {images} {flags}", **places) == 2  # no run


def test_the_largest_batch_is_told_with_the_flags_to_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "limits.json"
    assert run(f"batch-size --preset tiny --device cpu --json {file}") == 0
    assert "Train with: --batch-size 4 --stage2-batch-size 4" in capsys.readouterr().out
    limits = json.loads(file.read_text())
    assert [limit["part"] for limit in limits] == [1, 2]
    assert all(limit["batch"] > 4 and not limit["measured"] for limit in limits)


def test_the_doctors_exit_code_says_whether_it_is_healthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from camoxpert_nb.doctor.doctor import CheckResult, MachineReport
    from camoxpert_nb.doctor.facts import read_facts

    broken = CheckResult("GPU 0, convolution", False, 0.1, "no kernel image", "Use a newer card.")
    checkup = MachineReport(read_facts(2, tmp_path), [], [broken], {}, "Mend it.")
    monkeypatch.setattr("camoxpert_nb.doctor.doctor.check_machine", lambda *words, **flags: checkup)
    assert run(f"doctor --quick --json {tmp_path / 'd.json'}") == 1
    assert "What to do: Use a newer card." in capsys.readouterr().out
    assert json.loads((tmp_path / "d.json").read_text())["healthy"] is False


def test_train_resume_evaluate_predict_end_to_end(
    places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(places["run"])
    assert run("train --preset tiny --dataset-path {data} --checkpoint-dir {run}", **places) == 0
    said = capsys.readouterr().out
    assert "experts %" in said
    assert "camoxpert evaluate --run" in said
    assert (folder / "figures" / "curves.png").exists()
    assert "epoch   2  stage two" in (folder / "log.txt").read_text()

    assert run("resume {run} --epochs 3", **places) == 0
    assert "epoch   3  stage two" in capsys.readouterr().out

    scores = tmp_path / "scores.json"
    assert run(f"evaluate --run {{run}} --dataset-path {{data}} --json {scores}", **places) == 0
    values = json.loads(scores.read_text())
    gone = len(list((Path(places["data"]) / "Test" / "Image").glob("*NonCAM*")))
    assert f"test split; left out: {gone} NonCAM test image" in capsys.readouterr().out
    assert values["n"] == len(values["per_image"])
    assert set(values["mean"]) == {
        "iou",
        "dice",
        "s_measure",
        "weighted_f",
        "mean_e",
        "adaptive_e",
        "max_e",
        "mean_f",
        "adaptive_f",
        "max_f",
        "mae",
        "boundary_iou",
    }
    maps = tmp_path / "maps"
    images = Path(places["data"]) / "Test" / "Image"
    assert run(f"predict --run {{run}} --input {images} --output {maps}", **places) == 0
    for path in images.iterdir():
        with Image.open(path) as image, Image.open(maps / f"{path.stem}.png") as found:
            assert found.mode == "L"
            assert found.size == image.size


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "timeout"])
def test_ctrl_c_ends_the_step_saves_and_says_how_to_go_on(
    places: dict[str, str], number: signal.Signals
) -> None:
    """A terminal, `timeout` and batch systems signal the loading processes, too."""
    line = "-m camoxpert_nb train --preset tiny --epochs 500 --dataset-path {data} --num-workers 1 "
    words = shlex.split((line + "--checkpoint-dir {run}").format(**places))
    child = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    folder, until = Run(places["run"]), time.monotonic() + 60
    while len(folder.records("epoch")) < 2:
        assert time.monotonic() < until
        assert child.poll() is None
        time.sleep(0.1)
    os.killpg(child.pid, number)
    said, _ = child.communicate(timeout=60)
    assert child.returncode == 130
    assert f"camoxpert resume {places['run']}" in said
    assert folder.load("last")["step"] == folder.records("stop")[0]["step"]


def test_predicted_maps_score_as_the_network_does(places: dict[str, str], tmp_path: Path) -> None:
    run("train --preset tiny --dataset-path {data} --checkpoint-dir {run}", **places)
    test, maps, masks = Path(places["data"]) / "Test", tmp_path / "maps", tmp_path / "masks"
    masks.mkdir()
    for path in (test / "GT_Object").iterdir():
        if "NonCAM" not in path.name:
            (masks / path.name).write_bytes(path.read_bytes())
    images = tmp_path / "images"
    images.mkdir()
    for path in (test / "Image").iterdir():
        if "NonCAM" not in path.name:
            (images / path.name).write_bytes(path.read_bytes())
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    assert run(f"evaluate --run {{run}} --dataset-path {{data}} --json {one}", **places) == 0
    assert run(f"predict --run {{run}} --input {images} --output {maps}", **places) == 0
    assert run(f"evaluate --predictions {maps} --ground-truth {masks} --json {two}") == 0
    a, b = json.loads(one.read_text()), json.loads(two.read_text())
    assert a["n"] == b["n"]
    for name, value in a["mean"].items():
        assert value == pytest.approx(b["mean"][name], abs=1e-9), name


def test_a_flat_folder_is_scored_on_what_the_run_held_out(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from camoxpert_nb.data.synthetic import make_synthetic

    data = make_synthetic(tmp_path / "flat", train=40, test=0, size=64, layout="flat")
    line = f"--dataset-path {data} --cache-dir {cache} --noncam"
    assert run(f"train --preset tiny --checkpoint-dir {tmp_path / 'run'} {line}") == 0
    known = json.loads((tmp_path / "run" / "split.json").read_text())
    scores = tmp_path / "scores.json"
    evaluate = f"evaluate --run {tmp_path / 'run'} --dataset-path {data} --json {scores}"
    assert run(evaluate + " --noncam") == 0
    said = capsys.readouterr().out
    assert "held out for validation (its best weights were chosen on them" in said
    scored = {row["name"] for row in json.loads(scores.read_text())["per_image"]}
    assert scored == {Path(path).stem for path in known["validation"].values()}
    assert run(evaluate + " --split all") == 0
    assert "trained the network" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train --dataset-path /no/such/folder", "no such folder"),
        ("train --preset fancy", "no preset 'fancy'"),
        ("train --preset tiny --num-experts 8", "--num-experts is 8"),
        ("train --preset tiny --dataset-path {data} --backbone edgenext_bas", "edgenext_base"),
        ("train --preset tiny --dataset-path {data} --batch-size 600", "larger than"),
        ("train --preset tiny --dataset-path {data} --device cuda", "no CUDA GPU"),
        ("train --config /no/config.json", "--config /no/config.json: no such file"),
        ("resume /no/such/run", "RUN /no/such/run: no such file or folder"),
        ("train --resume-from /no/such/run", "--resume-from /no/such/run: no such"),
        ("evaluate --dataset-path {data}", "evaluate needs --run RUN"),
        ("evaluate --predictions x", "belong together"),
        ("evaluate --run /no/such/run --dataset-path {data}", "--run /no/such/run: no such folder"),
        ("predict --run /no/such/run --input a --output b", "--run /no/such/run: no such folder"),
        ("data /no/such/folder", "no such folder"),
    ],
)
def test_unusable_input_ends_with_code_2_and_a_sentence(
    line: str, said: str, places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    if "cuda" in line:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    assert (
        run(line + (" --checkpoint-dir {run}" if line.startswith("train") else ""), **places) == 2
    )
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    assert not Path(places["run"]).exists()


def test_the_epochs_of_a_run_that_goes_on_are_not_chosen_anew(
    places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train --preset tiny --resume-from {run} --fit-to-budget", **places) == 2
    said = capsys.readouterr().err
    assert "--fit-to-budget chooses the epochs of a new run, but --resume-from goes on" in said


def test_an_unknown_flag_ends_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["train", "--batchsize", "3"])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert __version__ in capsys.readouterr().out


def test_data_reports_noncam_and_writes_json(
    places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "sample.png"
    line = f"data {{data}} --json {tmp_path / 'audit.json'} --picture {picture}"
    assert run(line, **places) == 0
    assert picture.exists()
    assert "NonCAM" in capsys.readouterr().out
    assert json.loads((tmp_path / "audit.json").read_text())


def test_a_terminal_gets_one_moving_line_and_a_file_none() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    record = {
        "kind": "step",
        "epoch": 1,
        "stage": "one",
        "step": 3,
        "steps": 10,
        "loss": 1.0,
        "images_per_second": 5.0,
    }
    screen, file = Terminal(), io.StringIO()
    Console(("a",), screen).report(record)
    Console(("a",), file).report(record)
    assert "stage one" in screen.getvalue() and "step 3/10" in screen.getvalue()
    assert "\n" not in screen.getvalue()
    assert file.getvalue() == ""


def test_a_config_file_stands_for_a_preset(places: dict[str, str], tmp_path: Path) -> None:
    config = make_config("tiny", dataset_path=places["data"], epochs=3)
    config.save(tmp_path / "mine.json")
    assert (
        run(
            f"train --config {tmp_path / 'mine.json'} --checkpoint-dir {{run}} --epochs 2", **places
        )
        == 0
    )
    written = Config.load(Path(places["run"]) / "config.json")
    changes = {"epochs": 2, "checkpoint_dir": places["run"], "lr_batch": 4, "stage2_lr_batch": 4}
    assert written == config.replace(**changes)
    assert np.isfinite(json.loads((Path(places["run"]) / "summary.json").read_text())["seconds"])


BEFORE_THE_FIRST_STEP = """
import sys
from camoxpert_nb.cli.main import main
from camoxpert_nb.training import fit as module
def fit(config, **rest):
    print("loaded:", sorted({"matplotlib", "pandas", "torch"} & set(sys.modules)))
    raise SystemExit(0)
module.fit = fit
main(["train", "--preset", "tiny", "--device", "cpu"])
"""


def test_nothing_that_draws_is_loaded_before_the_first_step(tmp_path: Path) -> None:
    """matplotlib and pandas cost seconds on a slow host, which a run's start would wait for."""
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_THE_FIRST_STEP],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "loaded: ['torch']" in done.stdout, done.stderr


def test_one_file_for_two_outputs_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.png"
    assert cli.main(["data", str(tmp_path), "--json", str(file), "--picture", str(file)]) == 2
    assert "name the same file" in capsys.readouterr().err and not file.exists()
