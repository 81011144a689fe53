"""The meta device treated as CUDA would be, for steps that are counted and not carried out.

Tensors there have shapes and no values. Autocast does not know it, so its casts are made here;
reads of numbers, for which a host would wait, give zeros.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils, checkpoint
from torch.utils._pytree import tree_map

META = torch.device("meta")
HALF = (torch.float16, torch.bfloat16)

# Functions that CUDA's autocast computes in half or full precision (PyTorch's documentation,
# "Automatic Mixed Precision", CUDA op-specific behavior), as far as vision networks use them.
IN_HALF = {
    *(torch.conv1d, torch.conv2d, torch.conv_transpose2d, F.linear, torch.matmul, torch.einsum),
    *(torch.mm, torch.bmm, torch.addmm, torch.baddbmm, Tensor.mm, Tensor.bmm, Tensor.matmul),
    *(Tensor.__matmul__, Tensor.__rmatmul__),
}
IN_FULL = {
    *(F.layer_norm, torch.layer_norm, F.group_norm, torch.group_norm, F.normalize),
    *(F.softmax, torch.softmax, Tensor.softmax, F.log_softmax, F.softplus, F.cross_entropy),
    *(torch.exp, Tensor.exp, torch.log, Tensor.log, torch.pow, Tensor.pow, Tensor.__pow__),
    *(torch.sum, Tensor.sum, torch.norm, Tensor.norm, torch.rsqrt, Tensor.rsqrt),
    *(torch.cumsum, Tensor.cumsum, torch.prod, Tensor.prod),
}
# Reads of numbers, for which a host waits; here they give zeros.
READS: dict[Any, Callable[[Tensor], Any]] = {
    Tensor.tolist: lambda x: torch.zeros(x.shape).tolist(),
    Tensor.item: lambda x: 0.0,
    Tensor.__float__: lambda x: 0.0,
    Tensor.__bool__: lambda x: False,
    Tensor.cpu: lambda x: torch.zeros(x.shape, dtype=x.dtype),
}


def adam_step(optimizer: torch.optim.Optimizer, *rest: Any) -> None:
    """Read and write what AdamW does: PyTorch's own refuses this device."""
    parameters = [
        p for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    for p in parameters:
        if p not in optimizer.state:
            moments = ("exp_avg", "exp_avg_sq")
            optimizer.state[p] = {name: torch.zeros_like(p) for name in moments}
    gradients: list[Any] = [p.grad for p in parameters]
    first = [optimizer.state[p]["exp_avg"] for p in parameters]
    second = [optimizer.state[p]["exp_avg_sq"] for p in parameters]
    with torch.no_grad():
        torch._foreach_lerp_(first, gradients, 0.1)
        torch._foreach_addcmul_(second, gradients, gradients)
        torch._foreach_addcdiv_(parameters, first, second)


class Casts(TorchFunctionMode):
    """What CUDA's autocast does to functions, and what reads of numbers give, without a device."""

    def __init__(self) -> None:
        super().__init__()
        self.dtype: torch.dtype | None = None
        self._weights: dict[int, Tensor] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in READS and args[0].device == META:
            return READS[function](args[0])
        if function is Tensor.to and args[0].device == META and _asks_for_cpu(args, kwargs):
            return torch.zeros(args[0].shape, dtype=args[0].dtype)
        if function is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if self.dtype is not None and function in IN_HALF:
            args, kwargs = tree_map(self._to_half, (args, kwargs))
        elif self.dtype is not None and function in IN_FULL:
            args, kwargs = tree_map(_to_full, (args, kwargs))
        return function(*args, **kwargs)

    @contextlib.contextmanager
    def autocast(
        self,
        device_type: str,
        dtype: torch.dtype | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> Iterator[None]:
        """Stand in for torch.autocast."""
        before, self.dtype = self.dtype, dtype if enabled else None
        # A checkpoint that computes again asks for the CPU's, in a backward pass: modes end there.
        again = self if device_type == "cpu" else contextlib.nullcontext()
        try:
            with again:
                yield
        finally:
            self.dtype = before
            if before is None:
                self._weights.clear()

    def of_checkpoint(self, *rest: Any, **more: Any) -> tuple[None, dict[str, Any]]:
        """Return what a checkpoint keeps of the autocast it is in: for the device, for the CPU."""
        return None, {"enabled": self.dtype is not None, "dtype": self.dtype}

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **rest: Any,
    ) -> Tensor:
        """Take the kernel that keeps no table of all pairs, which every card of ours has."""
        if self.dtype is not None:
            query, key, value = map(self._to_half, (query, key, value))
        fused = torch.ops.aten._scaled_dot_product_efficient_attention
        rows = (query, key, value, attn_mask, True, dropout_p, is_causal)
        return fused(*rows, scale=scale)[0]

    def _to_half(self, x: Any) -> Any:
        if not (isinstance(x, Tensor) and x.dtype is torch.float32 and x.device == META):
            return x
        if not (x.is_leaf and x.requires_grad):
            return x.to(self.dtype)
        if id(x) not in self._weights:  # autocast casts a weight once
            self._weights[id(x)] = x.to(self.dtype)
        return self._weights[id(x)]


def _asks_for_cpu(args: Any, kwargs: Any) -> bool:
    wanted = kwargs.get("device", args[1] if len(args) > 1 else None)
    return isinstance(wanted, str | torch.device) and torch.device(wanted).type == "cpu"


def _to_full(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype in HALF else x


@contextlib.contextmanager
def as_cuda() -> Iterator[None]:
    """Have the meta device treated as CUDA's would be: autocast, and lists in one kernel."""
    casts, kinds = Casts(), _foreach_utils._get_foreach_kernels_supported_devices
    lists = "_get_foreach_kernels_supported_devices"
    with (
        patch.object(torch, "autocast", casts.autocast),
        patch.object(torch.amp, "autocast", casts.autocast),
        patch.object(checkpoint, "_get_autocast_kwargs", casts.of_checkpoint),
        patch.object(_foreach_utils, lists, lambda: [*kinds(), META.type]),
        casts,
    ):
        yield
