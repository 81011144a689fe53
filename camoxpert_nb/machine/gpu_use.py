"""How busy the GPUs are while training, and what bounds its speed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .devices import GIB

LOSS = 15.0  # per cent of the time, from which on it is worth a word
UNEVEN = 0.6  # of the busiest GPU's use


class Gauge:
    """Samples use and memory of GPUs in a thread of its own, until it is closed.

    PyTorch reads the use through nvidia-ml-py, which is optional. Without it only the memory is
    known, and `reason` says why.
    """

    def __init__(self, ids: Sequence[int], *, every: float = 0.5) -> None:
        self.ids, self.reason = tuple(ids), ""
        self._samples: list[list[tuple[float, float]]] = []  # per moment, per GPU: per cent, GiB
        self._lock, self._closed = threading.Lock(), threading.Event()
        self.read()  # to know the reason, if there is one; nothing was trained yet
        if self.ids:
            threading.Thread(target=self._watch, args=(every,), daemon=True).start()

    def read(self) -> dict[str, list[float]]:
        """Return what was seen since the last call, or an empty dict without a GPU.

        "gpu_percent": mean share of the time in which each GPU computed; "gpu_memory_gib": the
        highest use of its memory, by all processes.
        """
        if not self._samples:
            self._sample()
        with self._lock:
            samples, self._samples = self._samples, []
        columns = list(zip(*samples, strict=True))
        if not columns:
            return {}
        memory = {"gpu_memory_gib": [round(max(gib for _, gib in c), 2) for c in columns]}
        if self.reason:
            return memory
        return {"gpu_percent": [round(sum(p for p, _ in c) / len(c), 1) for c in columns], **memory}

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _watch(self, every: float) -> None:
        while not self._closed.wait(every):
            self._sample()

    def _sample(self) -> None:
        use = [0] * len(self.ids)
        if not self.reason:
            try:
                use = [torch.cuda.utilization(i) for i in self.ids]
            except Exception as error:  # NVML's errors are its own classes; training goes on
                self.reason = f"GPU use is not measured: {type(error).__name__}: {error}"
        with contextlib.suppress(RuntimeError):  # a GPU that is lost ends the training by itself
            sample = [(float(p), _gib_used(i)) for i, p in zip(self.ids, use, strict=True)]
            with self._lock:
                self._samples.append(sample)


def verdict(record: Mapping[str, Any]) -> str:
    """Return one sentence on what bounds the speed of an epoch, and what to change.

    `record` is the epoch's, with "time_percent" (shares of "workers", "data", "host", "device"),
    "graph_percent" and, of a GPU, what Gauge.read returns. What lost most is named, if that is at
    least LOSS of the time.
    """
    time, use = record["time_percent"], record.get("gpu_percent", [])
    share, worst = max((time[name], name) for name in ("workers", "data", "host"))
    if share >= LOSS:
        loss = _LOSSES[worst].format(share)
        return f"{loss} {_against_host(record)}" if worst == "host" else loss
    if use and min(use) < UNEVEN * max(use):
        shares = " and ".join(f"{each:.0f} %" for each in use)
        return (
            f"GPU number {use.index(min(use))} of this run idles (use {shares}): train with "
            "--parallel ddp, which gives each GPU a process of its own."
        )
    if "gpu_memory_gib" in record:
        return f"Bound by compute ({time['device']:.0f} % of the time): nothing is wasted."
    return (
        f"Bound by the CPU's arithmetic ({time['device']:.0f} % of the time): train on a GPU, or "
        "lower --img-size."
    )


_LOSSES = {
    "workers": "Bound by the start of the loading processes ({:.0f} % of the time): it happens "
    "once in a session, later epochs are free of it.",
    "data": "Starved by data ({:.0f} % of the time is spent waiting for images): raise "
    "--num-workers, or move --cache-dir to a faster disk.",
    "host": "Bound by the host ({:.0f} % of the time the GPU waits for its next kernel):",
}


def _against_host(record: Mapping[str, Any]) -> str:
    more = "raise --batch-size (`camoxpert batch-size` finds the largest)"
    if record.get("graph_percent", 0.0) >= 50:  # its launches cost nothing already
        return f"{more}, or close other programs."
    return f"{more}, which gives it more to do at once; on one GPU leave --cuda-graph on."


def _gib_used(index: int) -> float:
    free, total = torch.cuda.mem_get_info(index)
    return (total - free) / GIB
