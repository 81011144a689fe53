"""The gauge with made-up GPUs: what is averaged, what happens where the use cannot be read."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from camoxpert_nb.machine.gpu_use import Gauge, verdict

GIB = 2**30


class Gpus:
    """Two GPUs of 8 GiB, as PyTorch tells of them; each answer but the last is given once."""

    def __init__(self) -> None:
        self.use: list[list[int]] = [[10], [90]]
        self.used = [1, 2]  # GiB
        self.error: Exception | None = None

    def utilization(self, index: int) -> int:
        if self.error:
            raise self.error
        values = self.use[index]
        return values.pop(0) if len(values) > 1 else values[0]

    def mem_get_info(self, index: int) -> tuple[int, int]:
        if self.used[index] is None:
            raise RuntimeError("CUDA error: the launch timed out")
        return (8 - self.used[index]) * GIB, 8 * GIB


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    made = Gpus()
    monkeypatch.setattr(torch.cuda, "utilization", made.utilization)
    monkeypatch.setattr(torch.cuda, "mem_get_info", made.mem_get_info)
    return made


@pytest.fixture
def gauge(gpus: Gpus) -> Iterator[Gauge]:
    """A gauge that takes no sample by itself."""
    made = Gauge([0], every=60)
    yield made
    made.close()


def test_each_gpu_has_its_own_figures(gpus: Gpus) -> None:
    gauge = Gauge([1, 0], every=60)
    assert gauge.reason == ""
    assert gauge.read() == {"gpu_percent": [90.0, 10.0], "gpu_memory_gib": [2.0, 1.0]}
    gauge.close()


def test_use_is_averaged_and_memory_is_the_highest_since_the_last_read(
    gpus: Gpus, gauge: Gauge
) -> None:
    gpus.use[0] = [0, 100, 80, 20]
    gauge._sample()
    gpus.used[0] = 5
    gauge._sample()
    gpus.used[0] = 4
    assert gauge.read() == {"gpu_percent": [50.0], "gpu_memory_gib": [5.0]}
    assert gauge.read() == {"gpu_percent": [80.0], "gpu_memory_gib": [4.0]}


def test_what_a_gpu_did_before_the_training_does_not_count(gpus: Gpus) -> None:
    gpus.use[0] = [0, 70]
    gauge = Gauge([0], every=60)
    assert gauge.read()["gpu_percent"] == [70.0]
    gauge.close()


def test_the_thread_samples_by_itself_and_ends(gpus: Gpus) -> None:
    gauge = Gauge([0], every=0.01)
    deadline = time.monotonic() + 10
    while len(gauge._samples) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(gauge._samples) >= 3
    gauge.close()
    time.sleep(0.1)
    count = len(gauge._samples)
    time.sleep(0.1)
    assert len(gauge._samples) == count


def test_without_nvidias_library_the_memory_is_known_and_the_reason_said(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # PyTorch's own answer ...
    monkeypatch.setattr(torch.cuda, "mem_get_info", gpus.mem_get_info)
    monkeypatch.setattr(torch.cuda, "_HAS_PYNVML", False)  # ... where the package is missing
    monkeypatch.setattr(torch.cuda, "_PYNVML_ERR", None, raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    gauge = Gauge([0, 1], every=60)
    assert gauge.reason.startswith("GPU use is not measured: ModuleNotFoundError: nvidia-ml-py")
    assert gauge.read() == {"gpu_memory_gib": [1.0, 2.0]}
    gauge.close()


def test_a_driver_that_stops_answering_stops_nothing(gpus: Gpus, gauge: Gauge) -> None:
    assert gauge.reason == ""
    gpus.error = RuntimeError("GPU is lost")
    assert gauge.read() == {"gpu_memory_gib": [1.0]}
    assert "GPU is lost" in gauge.reason
    gpus.used[0] = None
    assert gauge.read() == {}


def test_without_a_gpu_nothing_is_said() -> None:
    gauge = Gauge([])
    assert gauge.read() == {}
    assert gauge.reason == ""


def record(workers: float = 0, data: float = 0, host: float = 0, **rest: Any) -> dict[str, Any]:
    device = 100 - workers - data - host
    time = {"workers": workers, "data": data, "host": host, "device": device}
    return {"time_percent": time, **rest}


GPU: dict[str, Any] = {"gpu_memory_gib": [3.0]}


@pytest.mark.parametrize(
    ("epoch", "what", "change"),
    [
        (record(data=40, **GPU), "Starved by data (40 %", "--num-workers"),
        (record(data=40), "Starved by data", "--cache-dir"),
        (record(workers=30, data=2, **GPU), "start of the loading processes", "once in a session"),
        (record(workers=20, data=30, host=16), "Starved by data (30 %", "--num-workers"),
        (record(host=75, **GPU), "Bound by the host (75 %", "leave --cuda-graph on"),
        (record(host=75, graph_percent=97.0, **GPU), "Bound by the host", "other programs"),
        (record(gpu_percent=[95.0, 20.0], **GPU), "number 1", "--parallel ddp"),
        (record(host=14, data=14, gpu_percent=[97.0], **GPU), "Bound by compute (72 %", "nothing"),
        (record(data=1, **GPU), "Bound by compute (99 %", "nothing is wasted"),
        (record(data=1), "the CPU's arithmetic", "GPU"),
    ],
)
def test_the_verdict_names_what_bounds_the_speed(
    epoch: dict[str, Any], what: str, change: str
) -> None:
    sentence = verdict(epoch)
    assert what in sentence
    assert change in sentence
