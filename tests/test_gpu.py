"""What only a GPU can show. Without one these are skipped; nothing else in the suite needs CUDA."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_nb.doctor.doctor import check_machine, find_limits
from camoxpert_nb.machine.devices import Devices, Precision, choose_precision, pick_devices
from camoxpert_nb.network.build import build_net
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.cost import noise
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.prepare import build_state, step_settings
from camoxpert_nb.training.train import train_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


@pytest.fixture
def on_gpu(tiny: Config) -> Config:
    return tiny.replace(device="cuda", parallel="none")


def test_a_run_moves_between_gpu_and_cpu(on_gpu: Config) -> None:
    """Optimiser, average and scaler included, in mixed precision."""
    run = fit(on_gpu.replace(epochs=1))
    assert run.load_json("summary")["finished"]
    fit(on_gpu.replace(device="cpu", epochs=2), resume=True)
    fit(on_gpu.replace(epochs=3), resume=True)
    records = run.records("epoch")
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert all(math.isfinite(record["loss"]) for record in records)
    assert records[0]["gpu_memory_gib"][0] > 0
    assert records[0]["verdict"]


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 13])
def test_a_run_goes_on_in_the_middle_of_an_epoch(
    on_gpu: Config, tmp_path: Path, steps: int
) -> None:
    """Stopped after so many steps of 10 an epoch, in parts of accumulation, and at its borders."""
    config = on_gpu.replace(epochs=2, stage1_epochs=1, batch_size=3, seed=7)
    whole = fit(config)
    parts = config.replace(checkpoint_dir=str(tmp_path / "parts"))

    def stop(record: dict[str, Any]) -> None:
        if record["kind"] == "step" and record["step"] == steps:
            Run(parts.checkpoint_dir).request("stop")

    assert not fit(parts, report=stop).load_json("summary")["finished"]
    run = fit(parts, resume=True)
    assert run.load_json("summary")["finished"]
    first, second = ([r["epoch"] for r in each.records("epoch")] for each in (whole, run))
    assert first == second
    for a, b in zip(whole.records("epoch"), run.records("epoch"), strict=True):
        assert (a["step"], a["lr"]) == (b["step"], b["lr"])
        assert b["loss"] == pytest.approx(a["loss"], rel=0.05)  # atomics add in any order
        for shares, others in zip(a["gates"], b["gates"], strict=True):
            assert shares == pytest.approx(others, abs=0.05)


def test_data_parallel_over_all_gpus_agrees_with_one(on_gpu: Config) -> None:
    config = on_gpu.replace(backbone="test_convnext", amp=False, clip=1e9)
    one = build_state(config, build_net(config), pick_devices(parallel="none"), _plain())
    together = Devices("dp", tuple(range(torch.cuda.device_count())), "all GPUs, even if one")
    many = build_state(config, build_net(config), together, _plain())
    weights = {"deep": 1.0, "balance": 0.1, "uncertainty": 0.0}
    for state in (one, many):
        state.open_blocks(4)
    found = [
        train_step(state, [noise(7, config.img_size)], step_settings(config), weights)
        for state in (one, many)
    ]
    assert found[1]["loss"] == pytest.approx(found[0]["loss"], rel=1e-4)
    assert found[1]["gradient_norm"] == pytest.approx(found[0]["gradient_norm"], rel=1e-2)


def test_ddp_over_all_gpus(on_gpu: Config, tmp_path: Path) -> None:
    config = on_gpu.replace(parallel="ddp")
    config.save(tmp_path / "config.json")
    command = [sys.executable, "-m", "camoxpert_nb", "train", "--config"]
    subprocess.run([*command, str(tmp_path / "config.json")], check=True, timeout=300)
    summary = Run(config.checkpoint_dir).load_json("summary")
    assert summary["parallel"] == "ddp"
    assert len(summary["devices"]) == torch.cuda.device_count()


def test_a_batch_that_does_not_fit_is_computed_in_parts(on_gpu: Config) -> None:
    """The memory of this process is limited to what a few images need."""
    config = on_gpu.replace(img_size=256, batch_size=16, stage2_batch_size=16)
    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(0.4 * 2**30, free) / total)
    try:
        run = fit(config)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert run.load_json("summary")["finished"]
    assert run.records("note")


def test_the_doctor_finds_the_gpus_healthy() -> None:
    report = check_machine(quick=True)
    assert report.healthy, report.text()
    assert "none" in report.speeds


def test_the_largest_batch_fits(on_gpu: Config) -> None:
    limits, text = find_limits(on_gpu)
    assert all(limit.measured and limit.batch for limit in limits), text


def test_fifty_steps_of_balanced(on_gpu: Config, camouflage: Path, tmp_path: Path) -> None:
    """The preset's network at 320 px, from random weights; prints the table for LOG.md."""
    config = make_config(
        "balanced-2gpu",
        dataset_path=str(camouflage),
        cache_dir=on_gpu.cache_dir,
        checkpoint_dir=str(tmp_path / "balanced"),
        pretrained=False,
        parallel="none",
        batch_size=13,
        stage2_batch_size=12,
        epochs=25,
        stage1_epochs=5,
        num_workers=2,
    )
    run = fit(config)
    summary = run.load_json("summary")
    last = run.records("epoch")[-1]
    assert summary["step"] >= 50
    assert math.isfinite(last["loss"])
    print(summary["precision"], summary["performance"], last["gpu_memory_gib"])


def test_precision_follows_the_card() -> None:
    precision = choose_precision(pick_devices())
    capability = torch.cuda.get_device_capability(0)
    wanted = torch.bfloat16 if capability >= (8, 0) else torch.float16
    assert precision.dtype is (wanted if capability >= (7, 0) else None)


def _plain() -> Precision:
    return choose_precision(pick_devices("cpu"))
