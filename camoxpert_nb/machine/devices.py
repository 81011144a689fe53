"""Which devices train, in which precision, and why."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError

GIB = 2**30
TRIAL_PROCESSES = 2  # of --parallel ddp without a GPU: slow, but it shows that it works


@dataclass(frozen=True)
class Devices:
    """What this process trains on: the CPU, one GPU, or several (DataParallel).

    `world` is the number of such processes in one training (DDP).
    """

    kind: str  # "cpu" | "one" | "dp" | "ddp"
    ids: tuple[int, ...]
    reason: str
    world: int = 1

    @property
    def main(self) -> torch.device:
        """Where the parameters live."""
        return torch.device("cuda", self.ids[0]) if self.ids else torch.device("cpu")

    @property
    def own(self) -> int:
        """How many parts this process splits its batches into."""
        return max(len(self.ids), 1)

    @property
    def count(self) -> int:
        """How many devices train together, in all processes."""
        return self.own * self.world

    def memory(self) -> list[float]:
        """Return each GPU's memory in GiB; nothing for the CPU."""
        return [torch.cuda.get_device_properties(i).total_memory / GIB for i in self.ids]

    def describe(self) -> list[str]:
        """Return a line for each device with its name and memory."""
        if not self.ids:
            return [f"CPU: {platform.processor() or platform.machine()}, {cpu_count()} cores"]
        names = [torch.cuda.get_device_properties(i).name for i in self.ids]
        facts = zip(self.ids, names, self.memory(), strict=True)
        return [f"GPU {i}: {name}, {gib:.1f} GiB" for i, name, gib in facts]


@dataclass(frozen=True)
class Precision:
    """The number format of the forward pass, and why."""

    dtype: torch.dtype | None  # None: float32, no autocast
    reason: str

    @property
    def scaled(self) -> bool:
        """Say whether gradients need a scaler (fp16's range is short)."""
        return self.dtype is torch.float16


def pick_devices(
    wanted: str = "auto",
    *,
    parallel: str = "auto",
    gpus: str = "all",
    local_rank: int = 0,
    world: int = 1,
    started: str = "",
) -> Devices:
    """Return the devices of this process, which is number `local_rank` on its machine.

    `wanted` is auto, cuda or cpu; `parallel` auto, none, dp or ddp; `gpus` is "all" or numbers as
    "0,1". Of several processes (`world`) each takes one GPU; `started` names what started them, if
    not the kit. What was asked for and has no effect here is said in the reason. Raises InputError
    for what is not there.
    """
    found = _pick(wanted, parallel, gpus, local_rank, world)
    idle = _without_effect(found, parallel, gpus, started)
    return replace(found, reason="; ".join([found.reason, *idle]))


def _pick(wanted: str, parallel: str, gpus: str, local_rank: int, world: int) -> Devices:
    visible = choose_gpus(gpus) if wanted != "cpu" else ()
    joined = world > 1 or parallel == "ddp"
    if wanted == "cuda" and not visible:
        raise InputError(
            "--device cuda, but PyTorch sees no CUDA GPU. On Kaggle choose the accelerator "
            "'GPU T4 x2'; elsewhere check `nvidia-smi`, or use --device auto to train on "
            "the CPU."
        )
    if not visible:
        why = "--device cpu was asked for" if wanted == "cpu" else "no CUDA GPU is visible"
        return Devices("ddp" if joined else "cpu", (), why + _processes(joined, world), world)
    if joined:
        if local_rank >= len(visible):
            raise InputError(
                f"process {local_rank} of this machine has no GPU: {len(visible)} are to be used "
                f"(--gpus {gpus}). Start as many processes as GPUs: --nproc-per-node "
                f"{len(visible)}, or --parallel ddp without torchrun."
            )
        reason = f"each GPU has its own process (DDP), {world} in all"
        return Devices("ddp", (visible[local_rank],), reason, world)
    if len(visible) == 1 or parallel == "none":
        alone = "one GPU is visible" if len(visible) == 1 else "--parallel none: one GPU only"
        return Devices("one", visible[:1], alone)
    return Devices("dp", visible, f"{len(visible)} GPUs share each batch (DataParallel)")


def _without_effect(found: Devices, parallel: str, gpus: str, started: str) -> list[str]:
    """Return a sentence for each flag that can do nothing on these devices."""
    sentences = []
    if gpus != "all" and not found.ids:
        sentences.append(f"--gpus {gpus} has no effect: this training uses no GPU")
    if found.kind == "ddp" and parallel in ("none", "dp"):
        starter = f"{started} started" if started else "there are"
        sentences.append(
            f"--parallel {parallel} has no effect: {starter} {found.world} processes, which train "
            "together (DDP)"
        )
    elif parallel == "dp" and found.own == 1:
        what = "only one GPU" if found.ids else "no GPU"
        sentences.append(f"--parallel dp has no effect: there is {what} to share a batch")
    return sentences


def choose_gpus(gpus: str = "all") -> tuple[int, ...]:
    """Return the numbers of the GPUs to use; InputError names those that are not there."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus == "all":
        return tuple(range(count))
    try:
        chosen = tuple(int(part) for part in gpus.split(","))
    except ValueError:
        raise InputError(f"--gpus is '{gpus}'; it must be 'all' or numbers such as 0,1.") from None
    missing = [number for number in chosen if not 0 <= number < count]
    if missing or len(set(chosen)) < len(chosen):
        there = (
            f"GPUs 0 to {count - 1} are" if count > 1 else f"{count} GPU is" if count else "none is"
        )
        raise InputError(
            f"--gpus {gpus}: {there} visible. Name each once, or leave --gpus out to use all."
        )
    return chosen


def processes_to_start(wanted: str, parallel: str, gpus: str) -> int:
    """Return how many processes a training is to be started as; 0: none, this one trains.

    On several GPUs, auto means one process each (DDP): DataParallel copies network and outputs
    between the GPUs in each step, from one thread.
    """
    if parallel in ("none", "dp"):
        return 0
    visible = len(choose_gpus(gpus)) if wanted != "cpu" else 0
    if parallel == "ddp":
        return visible or TRIAL_PROCESSES
    return visible if visible > 1 and torch.distributed.is_nccl_available() else 0


def choose_precision(devices: Devices, amp: bool = True) -> Precision:
    """Return the format that is fast and safe on these devices.

    fp16 with a gradient scaler on compute capability 7.x (T4, V100), whose bf16 is emulated and
    slow; bf16 from 8.0; float32 on older cards and on the CPU.
    """
    if not amp:
        return Precision(None, "float32: --no-amp was asked for")
    if not devices.ids:
        return Precision(None, "float32: the CPU gains nothing by less")
    return precision_of(min(torch.cuda.get_device_capability(i) for i in devices.ids))


def precision_of(lowest: tuple[int, int]) -> Precision:
    """Return the format for GPUs of which the oldest has this compute capability."""
    version = ".".join(map(str, lowest))
    if lowest >= (8, 0):
        return Precision(torch.bfloat16, f"bfloat16: compute capability {version}")
    if lowest >= (7, 0):
        return Precision(torch.float16, f"float16, scaled: capability {version} has no bfloat16")
    return Precision(None, f"float32: capability {version} has no fast half precision")


def parallel(module: nn.Module, devices: Devices) -> nn.Module:
    """Return the bare module as it will be called: itself, split over the GPUs, or kept in step.

    DDP learns here which parameters train, so a new set of them needs a new wrapper.
    """
    if devices.kind == "dp":
        return nn.DataParallel(module, list(devices.ids))
    if devices.kind == "ddp":
        _lay_out_gradients(module)
        return DistributedDataParallel(module, device_ids=list(devices.ids) or None)
    return module


def _lay_out_gradients(module: nn.Module) -> None:
    """Have gradients come with the strides of their weights, which DDP's buckets have.

    Where a dimension is 1 its stride says nothing, and a convolution whose input lies with the
    channels last (ConvNeXt, EdgeNeXt) gives another one than the weight has. DDP compares strides,
    warns, and copies such a gradient by a slower way.
    """
    for weight in module.parameters():
        if weight.requires_grad and 1 in weight.shape and not hasattr(weight, "laid_out"):
            weight.laid_out = weight.register_hook(  # type: ignore[attr-defined]
                partial(_with_strides, weight.shape, weight.stride())
            )


def _with_strides(shape: torch.Size, strides: tuple[int, ...], gradient: Tensor) -> Tensor:
    """Return the gradient with these strides, if it lies so already but for dimensions of 1."""
    rows = zip(shape, strides, gradient.stride(), strict=True)
    lies_so = all(own == found for size, own, found in rows if size > 1)
    return gradient.as_strided(shape, strides) if lies_so else gradient


def bare(module: nn.Module) -> nn.Module:
    """Return the module without its parallel wrapper: the only thing that is ever saved."""
    if isinstance(module, nn.DataParallel | DistributedDataParallel):
        return module.module
    return module


def cpu_count() -> int:
    """Return the cores this process may use, which a container limits below the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed dropout and the like for one step; nothing random is left to save."""
    torch.manual_seed((seed * 1_000_003 + step + rank * 7_919_000_003) % 2**63)


def _processes(joined: bool, world: int) -> str:
    return f"; {world} processes (DDP over gloo)" if joined else ""
