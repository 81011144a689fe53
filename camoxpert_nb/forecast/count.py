"""What a training step computes, moves and launches, counted without the card that will run it.

The real step runs once on PyTorch's "meta" device, where tensors have shapes and no values: each
operation is seen and none is carried out, so a step of any batch takes seconds on any machine.
"""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..machine.devices import Devices, Precision
from ..settings.config import Config
from ..training.cost import run_steps
from ..training.prepare import build_state, step_settings
from ..training.state import TrainState
from .as_cuda import HALF, META, adam_step, as_cuda

ALL_BLOCKS = 4
ROUND = 512  # bytes that PyTorch's allocator rounds up to

# Kernels of operations that have several; those of half convolutions change the layout as well.
KERNELS = {
    "convolution": 2.0,
    "convolution_backward": 4.0,
    "native_group_norm": 3.0,
    "native_group_norm_backward": 5.0,
    "native_layer_norm_backward": 2.0,
}
MORE = 1.17  # kernels where one was counted: measured steps have 5 % fewer to 7 % more than this
NO_KERNEL = ("empty", "new_empty", "_unsafe_view")
LIST_SHARE, LIST_NUMBERS = 48, 320 * 65536  # tensors, and numbers, in one kernel of a list
# Backward passes in which many threads add into one place.
CROWD = 16  # an enlargement by 4 a side
SCATTERED = ("upsample", "_adaptive_avg_pool2d", "grid_sampler", "index_put")


@dataclass
class Work:
    """What a step of one GPU with `images` does, or a forward pass.

    launches: kernels. flops: of convolutions and products, by precision: "half", "tf32" (full
    convolutions, on cards that have it) and "full". moved: bytes read and written, by kind:
    "plain", "depthwise" (convolutions), "scattered" (see SCATTERED), "norm" (of a batch) and
    "narrow", that divided by its channels. crowded: numbers added into one place one after another,
    where these are more than CROWD. peak_bytes: the most alive at once; of these
    kept_bytes are there all the time, and gradient_bytes, in so many gradients, are exchanged.
    """

    images: int
    launches: float = 0.0
    crowded: float = 0.0
    flops: dict[str, float] = field(default_factory=dict)
    moved: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    kept_bytes: int = 0
    gradient_bytes: int = 0
    gradients: int = 0


class Steps:
    """Counts whole steps of one training on one GPU; `net` ends on the meta device."""

    def __init__(self, config: Config, net: nn.Module, precision: Precision) -> None:
        self.settings, self.size = step_settings(config), config.img_size
        self.state = _state(config, net, precision)
        self.state.open_blocks(ALL_BLOCKS)
        with as_cuda(), Counter(Work(0)):
            self._take(1)  # after it the optimiser has its moments

    def count(self, open_blocks: int, batch: int, size: int = 0) -> Work:
        """Return the work of a step with so many open blocks; each of its batches has `batch`.

        They train with `size` pixels a side, 0: as they are loaded.
        """
        state = self.state
        state.open_blocks(open_blocks, size)
        state.optimizer.zero_grad(set_to_none=True)
        images = batch * self.settings.accumulation
        work = count(lambda: self._take(batch), images, _kept(state))
        gradients = [p.grad for p in state.net.parameters() if p.grad is not None]
        work.gradients, work.gradient_bytes = len(gradients), sum(map(_bytes, gradients))
        return work

    def _take(self, batch: int) -> None:
        run_steps(self.state, self.settings, self.size, batch, 0)


def count_forward(config: Config, net: nn.Module, precision: Precision, batch: int) -> Work:
    """Return the work of predicting `batch` images; `net` ends on the meta device."""
    net = net.to(META).eval()
    image = torch.empty(batch, 3, config.img_size, config.img_size, device=META)

    @torch.no_grad()
    def predict() -> None:
        with torch.autocast("cuda", precision.dtype, enabled=precision.dtype is not None):
            net(image)

    return count(predict, batch, [*net.parameters(), *net.buffers()])


def count(step: Callable[[], Any], images: int, kept: Iterable[Tensor]) -> Work:
    """Return what `step` does, on the meta device; `kept` are the tensors that outlive it."""
    work = Work(images)
    counter = Counter(work)
    work.kept_bytes = counter.keep(kept)
    gc.collect()  # nothing of earlier steps ends during this one
    with as_cuda(), counter:
        step()
    work.launches *= MORE
    return work


@dataclass(frozen=True)
class _OnMeta(Devices):
    """One device that computes nothing."""

    @property
    def main(self) -> torch.device:
        return META


def _state(config: Config, net: nn.Module, precision: Precision) -> TrainState:
    generator = torch.Generator  # the average asks for one on its device, which has none
    with patch.object(torch, "Generator", lambda device=None: generator()):
        state = build_state(config, net.to(META), _OnMeta("one", (), ""), precision)
    state.optimizer.step = partial(adam_step, state.optimizer)  # type: ignore
    return state


def _kept(state: TrainState) -> list[Tensor]:
    """Return weights, buffers, average, and the moments of what trains."""
    nets = [state.net, *([state.ema.module] if state.ema else [])]
    kept = [x for net in nets for x in (*net.parameters(), *net.buffers())]
    moments = [m for p, m in state.optimizer.state.items() if p.requires_grad]
    return [*kept, *(x for each in moments for x in each.values())]


class Counter(TorchDispatchMode):
    """Adds the operations it sees to `work`, and watches how many bytes are alive."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work, self.alive, self._known = work, 0, set[int]()

    def keep(self, tensors: Iterable[Tensor]) -> int:
        """Take tensors as alive from the start to the end, and return their bytes."""
        before = self.alive
        for x in tensors:
            if x.device == META:
                self._watch(x)
        return self.alive - before

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunction():  # what happens within is not the step's
            out = function(*args, **(kwargs or {}))
        outs, ins = _on_meta(out), _on_meta((args, kwargs))
        for x in outs:
            self._watch(x)
        name = function._schema.name.partition("::")[2]
        if (outs or ins) and not (_is_view(function) or name.startswith(NO_KERNEL)):
            self._add(name, ins, outs, args)
        return out

    def _watch(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        key, size = storage._cdata, -(-storage.nbytes() // ROUND) * ROUND
        if key not in self._known:
            self._known.add(key)
            self.alive += size
            self.work.peak_bytes = max(self.work.peak_bytes, self.alive)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size

    def _add(self, name: str, ins: list[Tensor], outs: list[Tensor], args: Any) -> None:
        work, moved = self.work, float(sum(map(_bytes, [*ins, *outs])))
        if name.startswith(("_foreach", "_fused", "_amp_foreach")):
            lists = max(sum(isinstance(x, (list, tuple)) for x in args), 1)
            numbers = sum(x.numel() for x in ins) / lists
            work.launches += math.ceil(len(ins) / lists / LIST_SHARE) + numbers // LIST_NUMBERS
            moved += 0 if outs else moved / lists  # what is changed in place is written, too
        else:
            work.launches += KERNELS.get(name, 1.0)
        flops, kind = _flops(name, ins, args), _kind(name, args)
        work.moved[kind] = work.moved.get(kind, 0.0) + moved
        if kind == "norm":
            narrow = work.moved.get("narrow", 0.0) + moved / ins[0].shape[1]
            work.moved["narrow"] = narrow
        if kind == "scattered" and ins[0].numel() > CROWD * outs[0].numel():
            work.crowded += ins[0].numel() / outs[0].numel()
        if flops:
            half = any(x.dtype in HALF for x in ins)
            unit = "half" if half else "tf32" if name.startswith("convolution") else "full"
            work.flops[unit] = work.flops.get(unit, 0.0) + flops


def _kind(name: str, args: Any) -> str:
    if name.startswith("convolution"):
        weight, groups = (args[2], args[9]) if name.endswith("backward") else (args[1], args[8])
        return "depthwise" if groups > 1 and weight.shape[1] < 8 else "plain"
    if "batch_norm" in name:
        return "norm"
    back = name.endswith("backward") or name == "index_put"
    return "scattered" if back and name.startswith(SCATTERED) else "plain"


def _flops(name: str, ins: list[Tensor], args: Any) -> float:
    """Return twice the multiplications; of depthwise convolutions, too: they are few."""
    if name == "convolution":
        out = torch.ops.aten.convolution(*args)
        return 2.0 * out.shape[0] * math.prod(out.shape[2:]) * args[1].numel()
    if name == "convolution_backward":
        gradient, weight, wanted = args[0], args[2], args[10][:2]
        places = gradient.shape[0] * math.prod(gradient.shape[2:])
        return 2.0 * places * weight.numel() * sum(wanted)
    if name in ("mm", "addmm", "bmm", "baddbmm"):
        left, right = ins[-2:]
        return 2.0 * left.numel() * right.shape[-1]
    if "attention" in name:
        back = name.endswith("backward")
        query, key = ins[1:3] if back else ins[:2]
        return (10.0 if back else 4.0) * query.numel() * key.shape[-2]
    return 0.0


@cache
def _is_view(function: Any) -> bool:
    shared = [returned.alias_info for returned in function._schema.returns]
    return bool(shared) and all(alias is not None and not alias.is_write for alias in shared)


def _on_meta(values: Any) -> list[Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, Tensor) and x.device == META]


def _bytes(x: Tensor) -> int:
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())  # expanded: read once
