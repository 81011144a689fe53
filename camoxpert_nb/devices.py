"""Which devices train, in which precision, and why."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import torch
from torch import nn

from .errors import InputError

GIB = 2**30


@dataclass(frozen=True)
class Devices:
    """The devices of one training process: none but the CPU, one GPU, or several (DataParallel)."""

    kind: str  # "cpu" | "one" | "dp"
    ids: tuple[int, ...]
    reason: str

    @property
    def main(self) -> torch.device:
        """Where the parameters live."""
        return torch.device("cuda", self.ids[0]) if self.ids else torch.device("cpu")

    @property
    def count(self) -> int:
        """How many parts a batch is split into."""
        return max(len(self.ids), 1)

    def describe(self) -> list[str]:
        """Return a line for each device with its name and memory."""
        if not self.ids:
            return [f"CPU: {platform.processor() or platform.machine()}, {cpu_count()} cores"]
        lines = []
        for i in self.ids:
            info = torch.cuda.get_device_properties(i)
            lines.append(f"GPU {i}: {info.name}, {info.total_memory / GIB:.1f} GiB")
        return lines


@dataclass(frozen=True)
class Precision:
    """The number format of the forward pass, and why."""

    dtype: torch.dtype | None  # None: float32, no autocast
    reason: str

    @property
    def scaled(self) -> bool:
        """Say whether gradients need a scaler (fp16's range is short)."""
        return self.dtype is torch.float16


def pick_devices(wanted: str = "auto") -> Devices:
    """Return every visible GPU, or the CPU; InputError when "cuda" is wanted and there is none."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu":
        return Devices("cpu", (), "--device cpu was asked for")
    if count == 0:
        if wanted == "cuda":
            raise InputError(
                "--device cuda, but PyTorch sees no CUDA GPU. On Kaggle choose the accelerator "
                "'GPU T4 x2'; elsewhere check `nvidia-smi`, or use --device auto to train on "
                "the CPU."
            )
        return Devices("cpu", (), "no CUDA GPU is visible")
    if count == 1:
        return Devices("one", (0,), "one GPU is visible")
    return Devices("dp", tuple(range(count)), f"{count} GPUs are visible: DataParallel")


def choose_precision(devices: Devices, amp: bool = True) -> Precision:
    """Return the format that is fast and safe on these devices.

    fp16 with a gradient scaler on compute capability 7.x (T4, V100), whose bf16 is emulated and
    slow; bf16 from 8.0; float32 on older cards and on the CPU.
    """
    if not amp:
        return Precision(None, "float32: --no-amp was asked for")
    if not devices.ids:
        return Precision(None, "float32: the CPU gains nothing by less")
    lowest = min(torch.cuda.get_device_capability(i) for i in devices.ids)
    version = ".".join(map(str, lowest))
    if lowest >= (8, 0):
        return Precision(torch.bfloat16, f"bfloat16: compute capability {version}")
    if lowest >= (7, 0):
        return Precision(torch.float16, f"float16, scaled: capability {version} has no bfloat16")
    return Precision(None, f"float32: capability {version} has no fast half precision")


def choose_preset(devices: Devices, *, own_images: bool) -> tuple[str, str]:
    """Return the preset for this hardware and the reason; `own_images`: a data set was given."""
    if devices.count >= 2:
        return "balanced-2gpu", f"{devices.count} GPUs"
    if not devices.ids and not own_images:
        return "demo", "no GPU and no data set: a small network that a CPU trains in minutes"
    if not devices.ids:
        return "single-gpu", "no GPU; on a CPU these settings take long, --dry-run says how long"
    memory = torch.cuda.get_device_properties(devices.ids[0]).total_memory / GIB
    if memory >= 14:
        return "single-gpu-optimized", f"one GPU with {memory:.0f} GiB"
    return "single-gpu", f"one GPU with {memory:.0f} GiB, under 14"


def parallel(module: nn.Module, devices: Devices) -> nn.Module:
    """Return the module as it will be called: itself, or split over the GPUs."""
    return nn.DataParallel(module, list(devices.ids)) if devices.kind == "dp" else module


def bare(module: nn.Module) -> nn.Module:
    """Return the module without its parallel wrapper: the only thing that is ever saved."""
    return module.module if isinstance(module, nn.DataParallel) else module


def cpu_count() -> int:
    """Return the cores this process may use, which a container limits below the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def seed_step(seed: int, step: int) -> None:
    """Seed dropout and the like for one step; nothing random is left to save."""
    torch.manual_seed((seed * 1_000_003 + step) % 2**63)
