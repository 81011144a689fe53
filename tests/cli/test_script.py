"""`fit` as scripts call it: the command's numbers, going on, and what cannot work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from equal_runs import assert_equal_runs, stop_after
from own_parts import dice

from camoxpert_nb import Run, fit, judge, make_config
from camoxpert_nb.cli.main import main
from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import Config


def test_two_lines_train_and_judge_as_the_commands_do(
    tiny: Config, camouflage: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"--preset auto --dataset-path {camouflage} --cache-dir {cache} --device cpu --epochs 2"
    words += " --backbone test_resnet --no-pretrained --width 16 --img-size 64 --num-workers 0"
    folder = tmp_path / "command"
    assert main(["train", *words.split(), "--checkpoint-dir", str(folder)]) == 0
    capsys.readouterr()
    config = make_config(
        "auto",
        dataset_path=camouflage,
        cache_dir=cache,
        device="cpu",
        epochs=2,
        backbone="test_resnet",
        pretrained=False,
        width=16,
        img_size=64,
        num_workers=0,
        checkpoint_dir=str(tmp_path / "python"),
    )
    run = fit(config)
    assert_equal_runs(Run(folder), run)
    said = capsys.readouterr().out
    assert "best validation IoU" in said and f"judge(run, {str(camouflage)!r})" in said
    assert "camoxpert" not in said.splitlines()[-5:]
    scores = judge(run, camouflage, device="cpu")
    out = tmp_path / "scores.json"
    how = f"--dataset-path {camouflage} --device cpu --json {out}"
    assert main(["evaluate", "--run", str(folder), *how.split()]) == 0
    assert f'"iou": {scores.iou}' in out.read_text()


def test_a_run_goes_on_by_itself_or_its_folder(tiny: Config, tmp_path: Path) -> None:
    whole = fit(tiny, quiet=True)
    parts = tiny.replace(checkpoint_dir=str(tmp_path / "parts"))
    run = fit(parts, report=stop_after(2))
    assert not run.finished
    with pytest.raises(InputError, match=r"is a run. To go on with it: fit\('.*', resume=True\)"):
        fit(run)
    run = fit(run, resume=True, report=stop_after(4))
    assert_equal_runs(whole, fit(str(run.folder), resume=True, quiet=True))


def test_stopped_it_says_with_which_call_it_goes_on(
    tiny: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(tiny, loss=dice, on_step=lambda record: "stop")
    said = capsys.readouterr().out
    assert f"fit({str(run.folder)!r}, resume=True, loss=dice, on_step=<lambda in line" in said


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_shows_nothing(tiny: Config, quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tiny, quiet=quiet)
    assert bool(capsys.readouterr().out) != quiet


def test_what_is_no_settings_is_told() -> None:
    with pytest.raises(InputError, match="fit got a dict, expected settings: make_config"):
        fit({"epochs": 3})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="fit got None"):
        fit(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no run to go on from"):
        fit("nowhere", resume=True)
    with pytest.raises(InputError, match="loss is 'dice', expected a function"):
        fit(make_config("tiny"), loss="dice")


def test_several_processes_are_torchruns_to_start(tiny: Config) -> None:
    with pytest.raises(InputError, match="torchrun --standalone --nproc-per-node 2 SCRIPT"):
        fit(tiny.replace(parallel="ddp"), quiet=True)


SCRIPT = """
import sys
import torch
from camoxpert_nb import fit, judge, make_config, predict

def bce(logits, masks):
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, masks)

def last_of_all(record):
    print("epoch", record["epoch"], flush=True)

run = fit(make_config("tiny", dataset_path={data!r}, cache_dir={cache!r}, device="cpu",
    checkpoint_dir={run!r}, num_workers=2, parallel={parallel!r}), loss=bce, on_epoch=last_of_all)
print("end", run.finished, flush=True)
"""


def script_in(folder: Path, data: Path, cache: Path, parallel: str = "auto") -> Path:
    path = folder / "train.py"
    run = str(folder / "run")
    values = {"data": str(data), "cache": str(cache), "run": run, "parallel": parallel}
    path.write_text(SCRIPT.format(**values))
    return path


def test_a_plain_script_without_a_guard_trains(
    camouflage: Path, cache: Path, tmp_path: Path
) -> None:
    script = script_in(tmp_path, camouflage, cache)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "images are loaded in this process" in done.stdout
    assert "0 workers: in this process, as a NOTE below says" in done.stdout
    assert done.stdout.count("epoch 1\n") == 1 and "end True" in done.stdout


def test_a_script_under_torchrun_is_one_training(
    camouflage: Path, cache: Path, tmp_path: Path
) -> None:
    script = script_in(tmp_path, camouflage, cache, "ddp")
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    how: dict[str, Any] = {"capture_output": True, "text": True, "check": False}
    done = subprocess.run([sys.executable, *words], env={**os.environ}, timeout=150, **how)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("end True") == 2
    assert done.stdout.count("epoch 1\n") == 1, "callbacks run once"
    run = Run(tmp_path / "run")
    assert run.finished and run.own_parts == {"loss": "bce"}
    assert "2 CPU" in (tmp_path / "run" / "log.txt").read_text()
