"""What only a GPU can show. Without one these are skipped; nothing else in the suite needs CUDA."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from own_parts import dice, sgd

from camoxpert_nb.doctor.doctor import check_machine, find_limits
from camoxpert_nb.machine.devices import Devices, Precision, choose_precision, pick_devices
from camoxpert_nb.network.build import build_net
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.cost import noise
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.graph import WARM_UP, GpuRecorder, StepGraph
from camoxpert_nb.training.own import Own
from camoxpert_nb.training.prepare import build_state, step_settings
from camoxpert_nb.training.state import TrainState
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


def test_parts_of_ones_own_train_and_go_on_in_mixed_precision(
    on_gpu: Config, tmp_path: Path
) -> None:
    """Launch by launch, with an optimiser that knows no rates on the device; on the CPU too."""
    run = fit(on_gpu.replace(epochs=2), own=Own(dice, on_the_device, sgd))
    (note,) = [each["message"] for each in run.records("note") if "captured" in each["message"]]
    assert "your own loss dice, augment on_the_device, optimizer sgd" in note
    fit(on_gpu.replace(epochs=3), resume=True, own=Own(dice, on_the_device, sgd))
    fit(on_gpu.replace(epochs=4, device="cpu"), resume=True, own=Own(dice, on_the_device, sgd))
    records = run.records("epoch")
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    assert all(math.isfinite(record["val_loss"]) for record in records)
    assert records[0]["graph_percent"] == 0


def on_the_device(images: Any, masks: Any, generator: torch.Generator) -> Any:
    turned = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
    return torch.where(turned, images.flip(-1), images), torch.where(turned, masks.flip(-1), masks)


def test_data_parallel_over_all_gpus_agrees_with_one(on_gpu: Config) -> None:
    config = on_gpu.replace(backbone="test_convnext", amp=False, clip=1e6)
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


@pytest.mark.parametrize("backbone", ["test_convnext", "edgenext_xx_small"])
def test_two_processes_share_one_card_over_gloo(
    on_gpu: Config, tmp_path: Path, backbone: str
) -> None:
    """Convolutions of one place once made DDP warn of strides, in each process."""
    config = on_gpu.replace(parallel="ddp", backbone=backbone, epochs=2)
    config.save(tmp_path / "config.json")
    script, torchrun = Path(__file__).with_name("one_card.py"), "torch.distributed.run"
    command = [sys.executable, "-m", torchrun, "--standalone", "--nproc-per-node", "2", script]
    command += ["train", "--config", tmp_path / "config.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    run = Run(config.checkpoint_dir)
    summary = run.load_json("summary")
    assert (summary["parallel"], summary["finished"]) == ("ddp", True)
    assert all(math.isfinite(record["loss"]) for record in run.records("epoch"))
    assert all(len(record["gpu_memory_gib"]) == 2 for record in run.records("epoch"))
    assert "strides" not in done.stdout + done.stderr


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


# --- the captured step

WEIGHTS = {"deep": 1.0, "balance": 0.1, "uncertainty": 0.0}
HALF = Precision(torch.float16, "float16, scaled")
PRECISIONS = {
    "float32": Precision(None, "float32"),
    "bfloat16": Precision(torch.bfloat16, "bfloat16"),
    "float16": HALF,
}


def opened(config: Config, precision: Precision) -> TrainState:
    """Return a state on the GPU with the whole network open, always with the same weights."""
    torch.manual_seed(0)
    net, devices = build_net(config), pick_devices(parallel="none")
    state = build_state(config, net, devices, precision)
    state.open_blocks(4)
    return state


def take(state: TrainState, config: Config, steps: int, **weights: float) -> list[dict[str, float]]:
    """Take steps on batches of noise, each with its own augmentation."""
    found = []
    for _ in range(steps):
        batch = noise(4, config.img_size)
        generator = torch.Generator().manual_seed(state.step)
        batch["uniform"] = torch.rand(batch["uniform"].shape, generator=generator)
        found.append(train_step(state, [batch], step_settings(config), WEIGHTS | weights))
        state.step += 1
    return found


def weights_of(state: TrainState) -> list[torch.Tensor]:
    return [p.detach().double().cpu() for p in state.net.parameters()]


def distance(some: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    return sum(float((a - b).abs().sum()) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backbone", ["test_convnext", "test_resnet"])
def test_captured_steps_equal_eager_ones(on_gpu: Config, precision: str, backbone: str) -> None:
    """Twenty steps: losses within 3 %, and weights no further apart than those of two eager runs.

    Atomics add in any order, and AdamW's first steps make whole steps of small differences.
    """
    config, chosen = on_gpu.replace(backbone=backbone), PRECISIONS[precision]
    if precision == "bfloat16" and not torch.cuda.is_bf16_supported():
        pytest.skip("no bfloat16")
    start = weights_of(opened(config, chosen))
    eager = opened(config.replace(cuda_graph=False), chosen)
    graphed = opened(config, chosen)
    again = opened(config.replace(cuda_graph=False), chosen)
    expected, found, _ = (take(state, config, 20) for state in (eager, graphed, again))
    assert graphed.graph.captured and not graphed.graph.note and not eager.graph.captured
    assert eager.averaged == graphed.averaged > 0
    for a, b in zip(expected, found, strict=True):
        assert a["skipped"] == b["skipped"]
        if not a["skipped"]:
            assert b["loss"] == pytest.approx(a["loss"], rel=0.03)
    moved = distance(start, weights_of(eager))
    apart = distance(weights_of(eager), weights_of(again))
    assert moved > 0
    assert distance(weights_of(eager), weights_of(graphed)) < 2 * apart + 0.02 * moved
    assert graphed.scaler.get_scale() == eager.scaler.get_scale()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_replay_skips_a_step_that_is_not_finite(on_gpu: Config, precision: str) -> None:
    """An infinite weight of a loss makes the gradient so, in a step that was captured before."""
    state = opened(on_gpu.replace(backbone="test_convnext"), PRECISIONS[precision])
    for _ in range(40):  # float16 first finds its scale
        if take(state, on_gpu, 1)[0]["skipped"] == 0 and state.graph.captured:
            break
    assert state.graph.captured
    assert state.ema is not None and state.usage is not None

    def everything() -> list[torch.Tensor]:
        moments = [v for s in state.optimizer.state.values() for v in s.values()]
        rest = [state.usage, state.shares, state.counted]
        return [
            t.clone()
            for t in (
                *state.net.state_dict().values(),
                *state.ema.module.state_dict().values(),
                *moments,
                *rest,
            )
        ]

    before, averaged, scale = everything(), state.averaged, state.scaler.get_scale()
    (values,) = take(state, on_gpu, 1, deep=math.inf)
    assert values["skipped"] == 1 and state.skipped_in_row == 1 and state.averaged == averaged
    assert all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))
    assert state.scaler.get_scale() == (scale / 2 if precision == "float16" else scale)
    (values,) = take(state, on_gpu, 1)
    assert values["skipped"] == 0 and state.skipped_in_row == 0
    assert not all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))


def test_a_replay_draws_what_an_eager_step_draws() -> None:
    """Dropout follows from the seed alone, so that a resumed run goes on as it would have."""
    device = torch.device("cuda", torch.cuda.current_device())
    graph, batch = StepGraph(GpuRecorder(device), device), {"x": torch.ones(1000)}

    def work(batches: Any) -> torch.Tensor:
        x = batches[0]["x"].to(device)
        return torch.nn.functional.dropout(torch.nn.functional.dropout(x, 0.3), 0.3)

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        found = graph.run(0, [batch], work)
        assert found is not None
        return found.clone()

    eager = [drawn(seed) for seed in range(WARM_UP)]
    replayed = [drawn(seed) for seed in (1, 0, 1)]
    assert graph.captured
    assert all(torch.equal(eager[s], r) for s, r in zip((1, 0, 1), replayed, strict=True))
    assert not torch.equal(replayed[0], replayed[1])


@pytest.mark.parametrize("backbone", ["edgenext_xx_small", "test_efficientnet"])
def test_edgenext_is_captured_as_others_are(on_gpu: Config, backbone: str) -> None:
    config = on_gpu.replace(backbone=backbone, use_ema=True)
    state = opened(config, choose_precision(pick_devices()))
    values = take(state, config, WARM_UP + 2)
    assert state.graph.captured, state.graph.note
    assert all(math.isfinite(each["loss"]) for each in values)


def test_a_step_that_cannot_be_captured_goes_on_eagerly(
    on_gpu: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = opened(on_gpu, HALF)  # a scaler must be ready again, too
    average = type(state).average

    def waits(self: TrainState, finite: torch.Tensor) -> None:
        assert finite.item() in (True, False)  # a wait for the device: forbidden in a capture
        average(self, finite)

    monkeypatch.setattr(type(state), "average", waits)
    values = take(state, on_gpu, WARM_UP + 4)
    assert not state.graph.captured and state.graph.recorder is None
    assert state.graph.note.startswith("the step could not be captured as a CUDA graph")
    assert all("loss" in each for each in values)
    torch.nn.functional.dropout(torch.ones(9, device="cuda"), 0.5)  # the generator works again
    assert torch.cuda.current_stream() == torch.cuda.default_stream()


def test_a_training_replays_its_steps_and_says_where_the_time_went(
    on_gpu: Config, tmp_path: Path
) -> None:
    config = on_gpu.replace(backbone="test_convnext", epochs=4, stage1_epochs=2, num_workers=1)
    for graphed in (True, False):
        folder = str(tmp_path / f"graph-{graphed}")
        run = fit(config.replace(cuda_graph=graphed, checkpoint_dir=folder))
        records = run.records("epoch")
        for record in records:
            print(graphed, record["seconds"], record["time_percent"], record["verdict"])
            assert sum(record["time_percent"].values()) == pytest.approx(100, abs=0.5)
            assert (record["graph_percent"] > 0) == graphed
        assert records[1]["graph_percent"] == (100 if graphed else 0)
        assert [record["step"] for record in run.records("step")] == sorted(
            record["step"] for record in run.records("step")
        )
        notes = [record["message"] for record in run.records("note")]
        assert not any("CUDA graph" in note for note in notes), notes


def test_speed_of_captured_and_eager_steps(on_gpu: Config) -> None:
    """Prints milliseconds a step for LOG.md; a replay is no slower."""
    from camoxpert_nb.training.cost import run_steps

    config, taken = on_gpu.replace(backbone="edgenext_xx_small", img_size=256), {}
    for graphed in (True, False):
        chosen = config.replace(cuda_graph=graphed)
        state = opened(chosen, choose_precision(pick_devices()))
        taken[graphed] = run_steps(state, step_settings(chosen), 256, 8).seconds
        print(f"cuda_graph {graphed}: {1000 * taken[graphed]:.1f} ms, {state.graph.note}")
    assert taken[True] < 1.1 * taken[False]


def _plain() -> Precision:
    return choose_precision(pick_devices("cpu"))
