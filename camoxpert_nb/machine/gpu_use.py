"""How busy the GPUs are while training, and what bounds its speed."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

GIB = 2**30
STARVED = 15.0  # per cent of the time waiting for data
BUSY = 70.0  # per cent of the time in which a GPU computes
UNEVEN = 0.6  # of the busiest GPU's use


class Gauge:
    """Samples use and memory of GPUs in a thread of its own, until it is closed.

    `ids` are PyTorch's numbers; `nvml` stands in for NVIDIA's library (pynvml, optional). Without
    it only this process's own peak memory is known, and `reason` says why.
    """

    def __init__(
        self,
        ids: Sequence[int],
        *,
        nvml: Any = None,
        properties: Callable[[int], Any] = torch.cuda.get_device_properties,
        every: float = 0.5,
    ) -> None:
        self.ids, self.reason = tuple(ids), ""
        self._nvml, self._handles = nvml, list[Any]()
        self._samples: list[list[tuple[float, float]]] = []  # per moment, per GPU: per cent, GiB
        self._lock, self._closed = threading.Lock(), threading.Event()
        if not self.ids:
            return
        try:
            self._nvml = nvml or importlib.import_module("pynvml")  # nvidia-ml-py
            self._nvml.nvmlInit()
            self._handles = [_find(self._nvml, properties(i)) for i in self.ids]
        except Exception as error:  # NVML's errors are its own classes, and it may be absent
            self._give_up(error)
            return
        threading.Thread(target=self._watch, args=(every,), daemon=True).start()

    def read(self) -> dict[str, list[float]]:
        """Return what was seen since the last call, or an empty dict without a GPU.

        "gpu_percent": mean share of the time in which each GPU computed; "gpu_memory_gib": the
        highest use of its memory, by all processes.
        """
        if self._handles and not self._samples:
            self._sample()
        with self._lock:
            samples, self._samples = self._samples, []
        if not samples:
            return {"gpu_memory_gib": [_peak(i) for i in self.ids]} if self.ids else {}
        columns = list(zip(*samples, strict=True))
        return {
            "gpu_percent": [round(sum(p for p, _ in c) / len(c), 1) for c in columns],
            "gpu_memory_gib": [round(max(gib for _, gib in c), 2) for c in columns],
        }

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _watch(self, every: float) -> None:
        while self._handles and not self._closed.wait(every):
            self._sample()

    def _sample(self) -> None:
        try:
            sample = [
                (
                    float(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
                    self._nvml.nvmlDeviceGetMemoryInfo(handle).used / GIB,
                )
                for handle in self._handles
            ]
        except Exception as error:  # a driver that stops answering must not stop the training
            self._give_up(error)
            return
        with self._lock:
            self._samples.append(sample)

    def _give_up(self, error: Exception) -> None:
        self._handles = []
        self.reason = f"GPU use is not known: {type(error).__name__}: {error}"


def verdict(record: Mapping[str, Any]) -> str:
    """Return one sentence on what bounds the speed of an epoch, and what to change.

    `record` is the epoch's, with "data_wait_percent" and, of a GPU, what Gauge.read returns.
    """
    wait, use = record["data_wait_percent"], record.get("gpu_percent", [])
    if wait >= STARVED:
        return (
            f"Starved by data: {wait:.0f} % of the time is spent waiting for images; raise "
            "--num-workers, or move --cache-dir to a faster disk."
        )
    if not use:
        return _without_use(wait, on_gpu="gpu_memory_gib" in record)
    shares = " and ".join(f"{each:.0f} %" for each in use)
    if min(use) < UNEVEN * max(use):
        idle = use.index(min(use))
        return (
            f"GPU number {idle} of this run idles (use {shares}): train with --parallel ddp, "
            "which gives each GPU a process of its own."
        )
    if max(use) < BUSY:
        return (
            f"The GPUs are not busy (use {shares}) although data are there: raise --batch-size "
            "(`camoxpert batch-size` finds the largest), or leave out --gradient-checkpointing."
        )
    return f"Bound by compute (GPU use {shares}, data-wait {wait:.0f} %): nothing is wasted."


def _without_use(wait: float, on_gpu: bool) -> str:
    if on_gpu:
        return (
            f"Not starved by data (data-wait {wait:.0f} %); install nvidia-ml-py to see how busy "
            "the GPUs are."
        )
    return (
        f"Bound by the CPU's arithmetic (data-wait {wait:.0f} %): train on a GPU, or lower "
        "--img-size."
    )


def _find(nvml: Any, properties: Any) -> Any:
    """Return NVML's handle of the GPU that PyTorch means.

    NVML numbers all GPUs of the machine, whatever CUDA_VISIBLE_DEVICES hides or reorders.
    """
    uuid = str(properties.uuid)  # PyTorch leaves the prefix out
    name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    return nvml.nvmlDeviceGetHandleByUUID(name)


def _peak(index: int) -> float:
    peak = torch.cuda.max_memory_reserved(index)
    torch.cuda.reset_peak_memory_stats(index)
    return round(peak / GIB, 2)
