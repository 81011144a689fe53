"""The gauge with a made-up NVML: which GPU is meant, what is averaged, what happens without."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from camoxpert_nb.machine.gpu_use import Gauge, verdict

GIB = 2**30


class FakeNvml:
    """Three GPUs, of which PyTorch may see any, in any order."""

    def __init__(self) -> None:
        self.use = {"GPU-a": [10], "GPU-b": [90], "GPU-c": [50]}
        self.memory = {"GPU-a": 1 * GIB, "GPU-b": 2 * GIB, "GPU-c": 3 * GIB}
        self.broken = False

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self.use:
            raise LookupError(f"no {uuid}")
        return uuid

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        if self.broken:
            raise RuntimeError("GPU is lost")
        values = self.use[handle]
        return SimpleNamespace(gpu=values.pop(0) if len(values) > 1 else values[0])

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return SimpleNamespace(used=self.memory[handle])


def seen(*names: str) -> Any:
    """Return PyTorch's properties of its GPUs 0, 1, ...: their UUIDs come without the prefix."""
    return lambda index: SimpleNamespace(uuid=names[index])


def test_pytorchs_gpus_are_found_by_uuid_whatever_is_hidden() -> None:
    gauge = Gauge([0, 1], nvml=FakeNvml(), properties=seen("c", "b"), every=60)
    assert gauge.read() == {"gpu_percent": [50.0, 90.0], "gpu_memory_gib": [3.0, 2.0]}
    gauge.close()


def test_use_is_averaged_and_memory_is_the_highest_since_the_last_read() -> None:
    nvml = FakeNvml()
    nvml.use["GPU-a"] = [0, 100, 80, 20]
    gauge = Gauge([0], nvml=nvml, properties=seen("a"), every=60)
    gauge._sample()
    nvml.memory["GPU-a"] = 5 * GIB
    gauge._sample()
    nvml.memory["GPU-a"] = 4 * GIB
    assert gauge.read() == {"gpu_percent": [50.0], "gpu_memory_gib": [5.0]}
    assert gauge.read() == {"gpu_percent": [80.0], "gpu_memory_gib": [4.0]}
    gauge.close()


def test_the_thread_samples_by_itself_and_ends() -> None:
    gauge = Gauge([0], nvml=FakeNvml(), properties=seen("a"), every=0.01)
    deadline = time.monotonic() + 10
    while len(gauge._samples) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(gauge._samples) >= 3
    gauge.close()
    time.sleep(0.1)
    count = len(gauge._samples)
    time.sleep(0.1)
    assert len(gauge._samples) == count


def test_without_nvml_pytorchs_peak_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda index: (index + 1) * GIB)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda index: None)
    gauge = Gauge([0, 1], nvml=FakeNvml(), properties=seen("a", "unknown"))
    assert "unknown" in gauge.reason
    assert gauge.read() == {"gpu_memory_gib": [1.0, 2.0]}


def test_a_driver_that_stops_answering_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda index: GIB)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda index: None)
    nvml = FakeNvml()
    gauge = Gauge([0], nvml=nvml, properties=seen("a"), every=60)
    nvml.broken = True
    assert gauge.read() == {"gpu_memory_gib": [1.0]}
    assert "GPU is lost" in gauge.reason


def test_without_a_gpu_nothing_is_said() -> None:
    gauge = Gauge([])
    assert gauge.read() == {}
    assert gauge.reason == ""


@pytest.mark.parametrize(
    ("record", "what", "change"),
    [
        ({"data_wait_percent": 40, "gpu_percent": [30.0]}, "Starved by data", "--num-workers"),
        ({"data_wait_percent": 40}, "Starved by data", "--num-workers"),
        ({"data_wait_percent": 2, "gpu_percent": [95.0, 20.0]}, "number 1", "--parallel ddp"),
        ({"data_wait_percent": 2, "gpu_percent": [0.0, 0.0]}, "not busy", "--batch-size"),
        ({"data_wait_percent": 2, "gpu_percent": [35.0, 40.0]}, "not busy", "--batch-size"),
        ({"data_wait_percent": 1, "gpu_percent": [97.0, 93.0]}, "Bound by compute", "97 %"),
        ({"data_wait_percent": 1, "gpu_memory_gib": [3.0]}, "Not starved", "nvidia-ml-py"),
        ({"data_wait_percent": 1}, "the CPU's arithmetic", "GPU"),
    ],
)
def test_the_verdict_names_what_bounds_the_speed(
    record: dict[str, Any], what: str, change: str
) -> None:
    sentence = verdict(record)
    assert what in sentence
    assert change in sentence
