"""All that only a GPU can show, in phases that write their JSON at once: `make gpu`.

Each phase stays under four minutes; one that is done is not done again, so a machine that is lent
for a quarter of an hour gives what there was time for. Needs nothing but the kit, the benchmarks'
segmentation_models_pytorch and pytest. `--small` goes through all of it on a CPU in a minute, to
see that it works; its numbers say nothing.

    python benchmarks/gpu.py --out build/gpu [steps fit half doctor tests]
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from camoxpert_nb import __version__
from camoxpert_nb.data.synthetic import make_synthetic
from camoxpert_nb.machine.devices import Precision, choose_precision, pick_devices
from camoxpert_nb.network.build import build_net
from camoxpert_nb.network.losses import structure_loss
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.cost import noise
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.prepare import build_state, step_settings
from camoxpert_nb.training.train import train_step

WEIGHTS = {"deep": 1.0, "balance": 0.1, "uncertainty": 0.5}
Values = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is done: what users train, or the least that goes through all of it."""

    backbone: str
    pixels: int
    batch: int
    steps: int  # timed
    half_steps: int
    images: int
    device: str

    def config(self, **values: Any) -> Config:
        """Return settings of this size, without pretrained weights."""
        chosen = {
            "backbone": self.backbone,
            "img_size": self.pixels,
            "batch_size": self.batch,
            "stage2_batch_size": self.batch,
            "device": self.device,
            "parallel": "none",
            "pretrained": False,
        }
        return make_config("balanced-2gpu", **chosen | values)


REAL = Size("edgenext_base", 320, 16, 20, 300, 800, "cuda")
SMALL = Size("test_convnext", 64, 4, 2, 6, 24, "cpu")


def steps(size: Size, folder: Path) -> Values:
    """Kernel time, launches, wall time and peak memory of a step: ours by graph and not, and peers.

    A peer's step is forward, structure loss, backward, clip and fused AdamW, on one batch that
    stays on the device; ours is the kit's whole step, with augmentation, average and records.
    """
    found = {}
    for name in ("FPN", "Unet"):
        found[name] = _measure(_peer_step(name, size), size)
    for graphed in (False, True):
        found["CamoXpert, graph" if graphed else "CamoXpert"] = _measure(
            _own_step(size.config(cuda_graph=graphed)), size
        )
    return found


def _peer_step(name: str, size: Size) -> Callable[[], Any]:
    device, dtype = torch.device(size.device), _precision(size).dtype
    net = getattr(smp, name)(f"tu-{size.backbone}", encoder_weights=None).to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=True)
    batch = noise(size.batch, size.pixels)
    image, mask = batch["image"].to(device) / 255, batch["mask"].to(device).float()

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            logits = net(image)
        loss = structure_loss(logits, mask).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return loss

    return step


def _own_step(config: Config, precision: Precision | None = None) -> Callable[[], Any]:
    devices = pick_devices(config.device, parallel="none")
    state = build_state(config, build_net(config), devices, precision or choose_precision(devices))
    state.open_blocks(4)
    settings = step_settings(config)
    batch = noise(config.batch_size, config.img_size)
    batch = {name: values.to(devices.main) for name, values in batch.items()}

    def step() -> dict[str, float]:
        values = train_step(state, [batch], settings, WEIGHTS)
        state.step += 1
        return values

    return step


def _measure(step: Callable[[], Any], size: Size) -> Values:
    """Return milliseconds of wall time and of kernels, launches and the peak of memory."""
    on_gpu = size.device == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for _ in range(6):  # libraries choose their kernels, the graph is captured
        step()
    with _timed(on_gpu) as seconds:
        for _ in range(size.steps):
            step()
    wall = seconds[0] / size.steps
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] * on_gpu
    with torch.profiler.profile(activities=kinds) as profile:
        for _ in range(3):
            step()
        if on_gpu:
            torch.cuda.synchronize()
    wanted = torch.autograd.DeviceType.CUDA if on_gpu else torch.autograd.DeviceType.CPU
    events = [event for event in profile.events() if event.device_type == wanted]
    kernels = sum(e.self_device_time_total if on_gpu else e.self_cpu_time_total for e in events)
    return {
        "wall_ms": round(1000 * wall, 2),
        "kernel_ms": round(kernels / 3000, 2),
        "kernels": len(events) // 3,
        "images_per_second": round(size.batch / wall, 1),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 3) if on_gpu else None,
    }


def fit_speed(size: Size, folder: Path) -> Values:
    """Images a second in `fit` after each stage's first epoch, where the time went, first step."""
    data = make_synthetic(folder / "data", train=size.images, test=1, size=size.pixels)
    config = size.config(
        dataset_path=str(data),
        cache_dir=str(folder / "cache"),
        checkpoint_dir=str(folder / f"run-{time.time():.0f}"),
        epochs=5,
        stage1_epochs=2,
        progressive_unfreeze=False,
    )
    began = time.perf_counter()
    run = fit(config)
    keys = ("images_per_second", "data_wait", "time_percent", "graph_percent", "gpu_use", "verdict")
    epochs = [
        {key: record.get(key) for key in ("epoch", "stage", "seconds", *keys)}
        for record in run.records("epoch")
    ]
    return {"seconds": round(time.perf_counter() - began, 1), "epochs": epochs}


def half(size: Size, folder: Path) -> Values:
    """float16 by the scaler's way beside bfloat16 and float32: losses of the same steps."""
    kinds = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
    found = {}
    for name, dtype in kinds.items():
        step = _own_step(size.config(lr=3e-4), Precision(dtype, name))
        values = [step() for _ in range(size.half_steps)]
        losses = [each["loss"] for each in values if not each["skipped"]]
        found[name] = {
            "first": round(losses[0], 4),
            "last": round(sum(losses[-20:]) / len(losses[-20:]), 4),
            "skipped": sum(each["skipped"] for each in values),
        }
    return found


def doctor(size: Size, folder: Path) -> Values:
    """Seconds of `camoxpert doctor --quick`, and of the imports alone in a process of its own."""
    commands = {
        "import torch, timm": ["-c", "import torch, timm"],
        "doctor --quick": ["-m", "camoxpert_nb", "doctor", "--quick"],
    }
    found: Values = {}
    for name, words in commands.items():
        with _timed(on_gpu=False) as seconds:
            done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
        found[name] = {"seconds": round(seconds[0], 1), "exit": done.returncode}
        found[name]["says"] = done.stdout[-300:]
    return found


def tests(size: Size, folder: Path) -> Values:
    """The tests that need a GPU; on a CPU they are skipped."""
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", "tests/test_gpu.py", "-s"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    (folder / "tests.txt").write_text(done.stdout + done.stderr)
    return {"exit": done.returncode, "last": done.stdout.strip().splitlines()[-1:]}


PHASES: dict[str, Callable[[Size, Path], Values]] = {
    "steps": steps,
    "fit": fit_speed,
    "half": half,
    "doctor": doctor,
    "tests": tests,
}


@contextmanager
def _timed(on_gpu: bool) -> Iterator[list[float]]:
    """Give a list that holds the seconds afterwards, until the GPU is done."""
    seconds: list[float] = []
    if on_gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    yield seconds
    if on_gpu:
        torch.cuda.synchronize()
    seconds.append(time.perf_counter() - started)


def _precision(size: Size) -> Precision:
    return choose_precision(pick_devices(size.device, parallel="none"))


def _machine(size: Size) -> Values:
    on_gpu = size.device == "cuda"
    return {
        "card": torch.cuda.get_device_name() if on_gpu else platform.machine(),
        "date": time.strftime("%Y-%m-%d"),
        "camoxpert_nb": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "size": vars(size),
    }


def main() -> None:
    """Go through the phases that are not done yet, and print what each found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phases", nargs="*", default=[*PHASES], help=f"of {', '.join(PHASES)}")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.phases) - set(PHASES):
        parser.error(f"no phase {', '.join(sorted(unknown))}; there are {', '.join(PHASES)}")
    if not options.small and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA GPU here; --small shows that the script works")
    size = SMALL if options.small else REAL
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.phases:
        file = options.out / f"{name}.json"
        if file.exists():
            print(f"{name}: done before, see {file}", flush=True)
            continue
        started = time.perf_counter()
        found = PHASES[name](size, options.out)
        result = {"phase": name, "machine": _machine(size), "found": found}
        result["seconds"] = round(time.perf_counter() - started, 1)
        file.write_text(json.dumps(result, indent=1))
        print(json.dumps(result, indent=1), flush=True)


if __name__ == "__main__":
    main()
