"""All that only a GPU can show, in phases that write their JSON at once: `make gpu`.

Each phase stays under four minutes; one that is done is not done again, so a machine that is lent
for a quarter of an hour gives what there was time for. Needs nothing but the kit, the benchmarks'
segmentation_models_pytorch and pytest. `--small` goes through all of it on a CPU in a minute, to
see that it works; its numbers say nothing.

    python benchmarks/gpu.py --out build/gpu [steps unseen fit start half doctor tests]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.cost import noise
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.prepare import build_state, step_settings
from camoxpert_nb.training.train import train_step

WEIGHTS = {"deep": 1.0, "balance": 0.1, "uncertainty": 0.5}
Values = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is done: what users train, or the least that goes through all of it.

    `light` is a backbone whose launches take longer than its kernels; `unseen` are backbones, and
    the sizes and batches of their steps, that the forecast's constants were not fitted to.
    """

    backbone: str
    pixels: int
    batch: int
    light: tuple[str, int, int]
    unseen: tuple[tuple[str, ...], tuple[tuple[int, int], ...]]
    steps: int  # timed
    half_steps: int
    images: int  # generated, without `data`
    device: str
    num_workers: int = -1
    data: Path | None = None

    def config(self, **values: Any) -> Config:
        """Return settings of this size, without pretrained weights."""
        chosen = {
            "backbone": self.backbone,
            "img_size": self.pixels,
            "batch_size": self.batch,
            "stage2_batch_size": self.batch,
            "device": self.device,
            "num_workers": self.num_workers,
            "parallel": "none",
            "pretrained": False,
        }
        return make_config("balanced-2gpu", **chosen | values)


REAL = Size(
    *("edgenext_base", 320, 16),
    light=("tf_efficientnet_lite0", 256, 8),
    unseen=(
        ("convnext_tiny", "pvt_v2_b2", "resnet50", "tf_efficientnet_lite2"),
        ((352, 12), (448, 8)),
    ),
    steps=20,
    half_steps=200,
    images=400,
    device="cuda",
)
SMALL = Size(
    *("test_convnext", 64, 4),
    light=("test_resnet", 64, 2),
    unseen=(("test_resnet",), ((64, 2), (96, 2))),
    steps=2,
    half_steps=6,
    images=24,
    device="cpu",
    num_workers=0,
)


def steps(size: Size, folder: Path) -> Values:
    """Kernel time, launches, wall time and peak memory of a step: ours by graph and not, and peers.

    A peer's step is forward, structure loss, backward, clip and fused AdamW, on one batch that
    stays on the device; ours is the kit's whole step, with augmentation, average and records.
    """
    return {"heavy": _all_steps(size), "light": _all_steps(_light(size))}


def _all_steps(size: Size) -> Values:
    found = {name: _measure(_peer_step(name, size), size) for name in ("FPN", "Unet")}
    for graphed in (False, True):
        found["CamoXpert, graph" if graphed else "CamoXpert"] = _measure(
            _own_step(size.config(cuda_graph=graphed)), size
        )
    return found


def _light(size: Size) -> Size:
    backbone, pixels, batch = size.light
    return replace(size, backbone=backbone, pixels=pixels, batch=batch)


def unseen(size: Size, folder: Path) -> Values:
    """Steps that the forecast was not fitted to; `fit_forecast.py --unseen` compares them."""
    found = {}
    backbones, shapes = size.unseen
    for backbone in backbones:
        for pixels, batch in shapes:
            each = replace(size, backbone=backbone, pixels=pixels, batch=batch)
            found[f"{backbone}, {pixels} px x {batch}"] = _measure(_own_step(each.config()), each)
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
    """Images a second in `fit`, where the time of each epoch went, and what lay between epochs."""
    found = {}
    for name, each in (("heavy", size), ("light", _light(size))):
        config = _with_photos(each, folder, f"run-{name}")
        began = time.perf_counter()
        run = fit(config)
        found[name] = {"seconds": round(time.perf_counter() - began, 1), "epochs": _epochs(run)}
    return found


def _with_photos(size: Size, folder: Path, run: str) -> Config:
    """Return settings of two epochs of stage one and three of stage two."""
    return size.config(
        dataset_path=str(size.data or _generated(size, folder)),
        cache_dir=str(folder / "cache"),
        checkpoint_dir=str(folder / f"{run}-{time.time():.0f}"),
        epochs=5,
        stage1_epochs=2,
        progressive_unfreeze=False,
    )


def _generated(size: Size, folder: Path) -> Path:
    data = folder / f"data-{size.images}"
    return data if data.exists() else make_synthetic(data, train=size.images, size=size.pixels)


def _epochs(run: Run) -> list[Values]:
    keys = ("epoch", "stage", "seconds", "images_per_second", "data_wait_percent", "time_percent")
    keys += ("graph_percent", "gpu_use", "verdict")
    ends = [record["time"] for record in run.records("epoch")]
    return [
        {key: record.get(key) for key in keys} | {"since_the_last": round(end - before, 2)}
        for record, end, before in zip(run.records("epoch"), ends, [ends[0], *ends], strict=False)
    ]


def start(size: Size, folder: Path) -> Values:
    """Seconds from the command to the numbers of a first step, and of the imports alone."""
    config = _with_photos(replace(size, images=8 * size.batch), folder, "start")
    config.replace(epochs=1, stage1_epochs=0).save(folder / "start.json")
    imports = _command("-c", "import torch, timm")["seconds"]
    began = time.time()
    done = _command("-m", "camoxpert_nb", "train", "--config", str(folder / "start.json"))
    first = Run(config.checkpoint_dir).records("step")[:1]
    return done | {
        "import torch, timm": imports,
        "to the first step": first and round(first[0]["time"] - began, 1),
    }


def _command(*words: str) -> Values:
    """Run Python with these words; return its seconds, exit status and last words."""
    with _timed(on_gpu=False) as seconds:
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    said = (done.stdout + done.stderr)[-400:]
    return {"seconds": round(seconds[0], 1), "exit": done.returncode, "says": said}


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
    """Seconds of `camoxpert doctor --quick`."""
    return _command("-m", "camoxpert_nb", "doctor", "--quick")


def tests(size: Size, folder: Path) -> Values:
    """The tests that need a GPU, several at a time where pytest-xdist is; a CPU skips them."""
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", "tests/test_gpu.py", "-rA"]
    if importlib.util.find_spec("xdist"):
        words += ["-n", str(min((os.cpu_count() or 1) // 2, 8))]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    (folder / "tests.txt").write_text(done.stdout + done.stderr)
    return {"exit": done.returncode, "last": done.stdout.strip().splitlines()[-1:]}


PHASES: dict[str, Callable[[Size, Path], Values]] = {
    "steps": steps,
    "unseen": unseen,
    "fit": fit_speed,
    "start": start,
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
        "size": vars(size) | {"data": size.data and size.data.name},
    }


def main() -> None:
    """Go through the phases that are not done yet, and print what each found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phases", nargs="*", default=[*PHASES], help=f"of {', '.join(PHASES)}")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--data", type=Path, help="photos for fit; without, some are generated")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.phases) - set(PHASES):
        parser.error(f"no phase {', '.join(sorted(unknown))}; there are {', '.join(PHASES)}")
    if not options.small and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA GPU here; --small shows that the script works")
    size = replace(SMALL if options.small else REAL, data=options.data)
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
