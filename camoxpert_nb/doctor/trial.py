"""One way to train, tried in a process of its own: `python -m camoxpert_nb.doctor.trial FOLDER`.

The folder holds the order, `trial.json`; each part's outcome is written beside it.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..machine.devices import GIB, Devices, choose_precision, parallel
from ..machine.distributed import ALONE, Ranks, joined, leave
from ..network.build import build_net
from ..network.losses import Supervised, total
from ..settings.config import Config
from ..training.cost import noise, run_steps
from ..training.prepare import build_state, step_settings
from ..training.state import set_open_blocks

TIMEOUT = 240  # seconds for one way to train, before its processes end themselves
COMPARED_PX, COMPARED_IMAGES = 128, 2  # per device, where gradients are compared
# Largest relative difference: float32 sums in another order; half precision keeps 8 to 11 bits.
TOLERANCE, HALF_TOLERANCE = 1e-2, 5e-2

FIXES = {
    "no kernel image": "Use a newer card, or a PyTorch build that has kernels for this one.",
    "out of memory": "Free the GPU (`nvidia-smi` shows who uses it), or lower --batch-size.",
    "bus error": "/dev/shm is full: start the container with --shm-size=2g.",
    "sigbus": "/dev/shm is full: start the container with --shm-size=2g.",
    "nccl": "Set NCCL_P2P_DISABLE=1, make /dev/shm larger, or train with --parallel none.",
    "misaligned": "Train with --parallel ddp, or none: the GPUs disturb each other in one process.",
    "illegal memory": "Train with --parallel ddp, or none; update the driver.",
    "not finish": "Set NCCL_P2P_DISABLE=1 and try again; until then train with --parallel none.",
    "differ": "Do not train this way on this machine; update driver and PyTorch, try again.",
    "not finite": "Train with --no-amp; if that does not help, update driver and PyTorch.",
    "cudnn": "Update the driver, or install a PyTorch for an older CUDA.",
}


@dataclass(frozen=True)
class Trial:
    """One way to train, in `processes` processes: "none", "dp" or "ddp" on the GPUs `ids`."""

    name: str
    mode: str
    ids: tuple[int, ...]
    processes: int
    parts: tuple[str, ...]  # of PARTS


@dataclass(frozen=True)
class CheckResult:
    """Something that was run: `ok` is None when it was not, and `detail` says why."""

    name: str
    ok: bool | None
    seconds: float
    detail: str
    fix: str = ""


def fix_for(failure: str) -> str:
    """Return what to do about an error message."""
    known = (fix for sign, fix in FIXES.items() if sign in failure.lower())
    return next(known, "Restart the session and try again; CUDA_LAUNCH_BLOCKING=1 tells more.")


def main(arguments: Sequence[str]) -> int:
    """Run this process's share of the trial in the folder `arguments[0]`; return the exit code."""
    folder = Path(arguments[0])
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(TIMEOUT, exit=True, file=nowhere)
        try:
            with joined() as ranks:
                _run_parts(folder, ranks)
        except Exception as error:
            rank = os.environ.get("RANK", "0")
            (folder / f"error-{rank}").write_text(_message(error), encoding="utf-8")
            return 1
        finally:
            faulthandler.cancel_dump_traceback_later()
    return 0


@dataclass(frozen=True)
class _Share:
    """What a part of a trial gets to work with, in each of its processes."""

    config: Config
    steps: int
    devices: Devices
    ranks: Ranks


def _run_parts(folder: Path, ranks: Ranks) -> None:
    order = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
    trial = Trial(**order["trial"])
    kind = trial.mode if trial.mode != "none" else "one" if trial.ids else "cpu"
    own = trial.ids[ranks.local_rank :][:1] if kind == "ddp" else trial.ids
    devices = Devices(kind, tuple(own), "", ranks.world)
    share = _Share(Config(**order["config"]), order["steps"], devices, ranks)
    for number, part in enumerate(trial.parts):
        started, speed = time.perf_counter(), 0.0
        try:
            ok, detail, speed = PARTS[part](share)
        except Exception as error:
            if ranks.world > 1:  # the others wait for this one: nothing can go on
                raise
            ok, detail = False, _message(error)
        seconds, fix = round(time.perf_counter() - started, 2), "" if ok else fix_for(detail)
        check = CheckResult(f"{trial.name}, {part}", ok, seconds, detail, fix)
        if ranks.first:
            outcome = {"check": dataclasses.asdict(check), "speed": speed}
            (folder / f"part-{number}").write_text(json.dumps(outcome), encoding="utf-8")


Outcome = tuple[bool, str, float]


def _convolution(share: _Share) -> Outcome:
    """Compare a convolution in the chosen precision with the CPU's in float32."""
    device, precision = share.devices.main, choose_precision(share.devices)
    torch.manual_seed(0)
    layer, x = nn.Conv2d(16, 16, 3, padding=1), torch.randn(4, 16, 64, 64)

    def gradients(place: torch.device, dtype: torch.dtype | None) -> Tensor:
        layer.zero_grad()
        layer.to(place)
        with torch.autocast(place.type, dtype=dtype, enabled=dtype is not None):
            layer(x.to(place)).square().mean().backward()
        return _flat(layer)

    pair = gradients(torch.device("cpu"), None), gradients(device, precision.dtype)
    what = f"{precision.reason}; gradients"
    return _compare([pair], HALF_TOLERANCE, what, "the CPU in float32")


def _network(share: _Share, checkpointing: bool) -> Outcome:
    """Compare loss and gradients, in float32, with one device's, or one GPU's with the CPU's."""
    devices, ranks = share.devices, share.ranks
    one = Devices("one", devices.ids[:1] if devices.kind in ("dp", "ddp") else (), "")
    size = min(share.config.img_size, COMPARED_PX)
    batch = noise(COMPARED_IMAGES * devices.count, size)
    inputs = (batch["image"] / 255, batch["mask"].float())
    mine = [tensor.chunk(ranks.world)[ranks.rank] for tensor in inputs]
    config = share.config.replace(gradient_checkpointing=False)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # its 10 bits are too few
        expected = _gradients(config, one, inputs, ALONE)
        config = config.replace(gradient_checkpointing=checkpointing)
        found = _gradients(config, devices, mine, ranks)
    pairs = [(expected[:1], found[:1]), (expected[1:], found[1:])]
    reference = "one GPU" if one.ids else "one process on the CPU"
    return _compare(pairs, TOLERANCE, f"loss {found[0]:.4f}; loss and gradients", reference)


def _speed(share: _Share) -> Outcome:
    """Take whole training steps, in the precision of a training."""
    config, devices, ranks = share.config, share.devices, share.ranks
    precision = choose_precision(devices)
    state = build_state(config, build_net(config), devices, precision, ranks)
    state.open_blocks(4)
    batch, settings = config.batch_size * devices.own, step_settings(config)
    steps = run_steps(state, settings, config.img_size, batch, share.steps)
    speed = config.batch_size * devices.count * settings.accumulation / steps.seconds
    memory = f", peak {steps.peak_bytes / GIB:.1f} GiB" if steps.peak_bytes else ""
    if state.parts_per_batch > 1:
        memory += f" with batches split in {state.parts_per_batch}, as they did not fit"
    detail = (
        f"{share.steps} steps of {config.backbone}, {config.img_size} px, {config.batch_size} "
        f"images per device, {precision.reason.split(':')[0]}: {speed:.1f} images/s{memory}"
    )
    if not math.isfinite(steps.loss):
        return False, f"the loss is not finite in {detail}", 0.0
    return True, detail, speed


PARTS: dict[str, Callable[[_Share], Outcome]] = {
    "convolution": _convolution,
    "network": partial(_network, checkpointing=False),
    "network with checkpointing": partial(_network, checkpointing=True),
    "training": _speed,
}


def _gradients(config: Config, devices: Devices, inputs: Sequence[Tensor], ranks: Ranks) -> Tensor:
    """Return the loss and all gradients of these images, in one vector on the CPU."""
    net = build_net(config).to(devices.main)
    # Batch-norm over a part of the batch is the one thing that may differ; it stands still.
    set_open_blocks(net, net.backbone_blocks(), 4, keep_statistics=True)
    module = parallel(Supervised(net), devices)
    parts = module(*(tensor.to(devices.main) for tensor in inputs))
    even = torch.full_like(parts["router"][0], 1 / parts["router"].shape[-1]).detach()
    loss, _terms = total(parts, usage=even)
    loss.backward()
    return torch.cat([ranks.mean(loss.detach()).cpu().view(1), _flat(net)])


def _flat(module: nn.Module) -> Tensor:
    grads = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
    return torch.cat(grads).cpu().clone()


def _compare(
    pairs: Sequence[tuple[Tensor, Tensor]], allowed: float, what: str, reference: str
) -> Outcome:
    """Judge (expected, found) by their largest relative difference; a NaN never agrees."""
    errors = torch.stack([(found - expected).norm() / expected.norm() for expected, found in pairs])
    error = float(errors.max())  # of PyTorch, as Python's would lose a NaN
    verb = "agree with" if error <= allowed else "differ from"
    detail = f"{what} {verb} those of {reference} (relative difference {error:.0e})"
    return error <= allowed, detail, 0.0


def _message(error: Exception) -> str:
    return type(error).__name__ + ": " + str(error).strip().partition("\n")[0]


if __name__ == "__main__":
    code = main(sys.argv[1:])
    leave(code)
    sys.exit(code)
