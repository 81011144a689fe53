"""Which devices are chosen, on machines made up for it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from camoxpert_nb.errors import InputError
from camoxpert_nb.machine.devices import (
    Devices,
    _with_strides,
    bare,
    choose_gpus,
    choose_precision,
    cpu_count,
    parallel,
    pick_devices,
    precision_of,
    processes_to_start,
    seed_step,
)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    count = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    return count


@pytest.mark.parametrize("gpus", [2], indirect=True)
def test_two_gpus_are_used_without_a_flag(gpus: int) -> None:
    together = pick_devices()
    assert (together.kind, together.ids, together.count) == ("dp", (0, 1), 2)
    assert processes_to_start("auto", "auto", "all") == 2
    assert processes_to_start("auto", "dp", "all") == 0
    assert processes_to_start("auto", "none", "all") == 0
    ranks = [pick_devices(local_rank=rank, world=2) for rank in (0, 1)]
    assert [rank.ids for rank in ranks] == [(0,), (1,)]
    assert [(rank.kind, rank.own, rank.count) for rank in ranks] == [("ddp", 1, 2)] * 2


@pytest.mark.parametrize("gpus", [0], indirect=True)
def test_a_gpu_that_is_not_there_is_said(gpus: int) -> None:
    with pytest.raises(InputError, match="--device cuda, but PyTorch sees no CUDA GPU"):
        pick_devices("cuda")


@pytest.mark.parametrize("gpus", [2], indirect=True)
def test_gpus_can_be_left_alone(gpus: int) -> None:
    assert pick_devices(parallel="none").ids == (0,)
    assert pick_devices(gpus="1").ids == (1,)
    assert pick_devices("cpu").kind == "cpu"
    assert processes_to_start("cpu", "auto", "all") == 0
    assert processes_to_start("auto", "auto", "1") == 0
    assert pick_devices(gpus="1,0", local_rank=0, world=2).ids == (1,)


@pytest.mark.parametrize("gpus", [1], indirect=True)
def test_one_gpu(gpus: int) -> None:
    assert pick_devices().kind == "one"
    assert pick_devices(parallel="dp").kind == "one"
    assert processes_to_start("auto", "auto", "all") == 0
    assert processes_to_start("auto", "ddp", "all") == 1
    with pytest.raises(InputError, match="process 1 of this machine has no GPU: 1 are"):
        pick_devices(local_rank=1, world=2)


@pytest.mark.parametrize("gpus", [0], indirect=True)
def test_no_gpu(gpus: int) -> None:
    assert pick_devices().kind == "cpu"
    assert (pick_devices(world=2).kind, pick_devices(world=2).count) == ("ddp", 2)
    assert processes_to_start("auto", "auto", "all") == 0
    assert processes_to_start("auto", "ddp", "all") == 2
    with pytest.raises(InputError, match="GPU T4 x2"):
        pick_devices("cuda")


@pytest.mark.parametrize("gpus", [0], indirect=True)
def test_flags_that_do_nothing_without_a_gpu_are_named(gpus: int) -> None:
    assert "--parallel dp has no effect: there is no GPU" in pick_devices(parallel="dp").reason
    assert "--gpus 0,1 has no effect" in pick_devices("cpu", gpus="0,1").reason
    with pytest.raises(InputError, match="--gpus 0,1: none is visible"):
        pick_devices(gpus="0,1")
    assert "has no effect" not in pick_devices().reason + pick_devices("cpu").reason
    assert "has no effect" not in pick_devices(parallel="none").reason


@pytest.mark.parametrize("gpus", [0, 2], indirect=True)
@pytest.mark.parametrize("wish", ["none", "dp"])
def test_torchrun_decides_how_many_processes(gpus: int, wish: str) -> None:
    reason = pick_devices(parallel=wish, world=2, started="torchrun").reason
    assert f"--parallel {wish} has no effect: torchrun started 2 processes" in reason
    assert "has no effect" not in pick_devices(parallel="ddp", world=2, started="torchrun").reason


@pytest.mark.parametrize("gpus", [2], indirect=True)
@pytest.mark.parametrize("wish", ["2", "0,0", "-1", "one"])
def test_gpus_that_are_not_there_are_refused(gpus: int, wish: str) -> None:
    with pytest.raises(InputError, match="--gpus"):
        choose_gpus(wish)


def test_what_is_saved_is_never_wrapped() -> None:
    net = nn.Linear(2, 2)
    assert bare(nn.DataParallel(net)) is net
    assert bare(net) is net
    assert parallel(net, pick_devices("cpu")) is net


SILENT = """
import sys, torch
from torch import distributed as dist, nn
from camoxpert_nb.machine.devices import Devices, parallel
from camoxpert_nb.network.build import build_net
from camoxpert_nb.network.losses import Supervised, total
from camoxpert_nb.settings.config import make_config
rank = int(sys.argv[1])
store = dist.FileStore(sys.argv[2], 2)
dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
torch.manual_seed(0)
net = build_net(make_config("tiny", backbone="test_convnext", pretrained=False))
module = parallel(Supervised(net), Devices("ddp", (), "", 2))
for _ in range(2):
    net.zero_grad()
    total(module(torch.rand(2, 3, 64, 64), torch.ones(2, 1, 64, 64)))[0].backward()
print(sum(p.grad.stride() != p.stride() for p in net.parameters() if p.grad is not None))
dist.destroy_process_group()
"""


def test_two_processes_exchange_gradients_that_lie_as_their_weights(tmp_path: Path) -> None:
    """ConvNeXt's lie otherwise, of which DDP warns; warnings are errors here."""
    command = [sys.executable, "-W", "error:Grad strides", "-c", SILENT]
    made = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in made:
        out, errors = process.communicate(timeout=120)
        assert "Grad strides" not in errors
        assert (process.returncode, out.strip()) == (0, "0"), errors


@pytest.mark.parametrize(
    ("capability", "dtype", "scaled"),
    [
        ((6, 1), None, False),
        ((7, 0), torch.float16, True),
        ((7, 5), torch.float16, True),  # a T4, whose bfloat16 is emulated
        ((8, 0), torch.bfloat16, False),
        ((9, 0), torch.bfloat16, False),
    ],
)
def test_precision_goes_by_the_oldest_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: object, scaled: bool
) -> None:
    found = precision_of(capability)
    assert (found.dtype, found.scaled) == (dtype, scaled)
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda number: (capability, (9, 0))[number]
    )
    both = Devices("dp", (0, 1), "")
    assert choose_precision(both) == choose_precision(Devices("dp", (1, 0), "")) == found
    assert choose_precision(both, amp=False).dtype is None
    assert choose_precision(Devices("cpu", (), "")).dtype is None


def test_devices_are_counted_in_all_processes() -> None:
    """What a process has itself, and what a step has."""
    for ids, world, own, count in (
        ((), 1, 1, 1),
        ((), 3, 1, 3),
        ((0, 1), 1, 2, 2),
        ((1,), 4, 1, 4),
    ):
        found = Devices("", ids, "", world)
        assert (found.own, found.count) == (own, count)
    assert Devices("one", (1, 0), "").main == torch.device("cuda", 1)


@pytest.mark.parametrize("gpus", [4], indirect=True)
def test_of_the_gpus_that_are_named_each_process_has_its_own(
    gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [pick_devices(gpus="3,1", local_rank=rank, world=2).ids for rank in (0, 1)]
    assert found == [(3,), (1,)]
    assert pick_devices(gpus="2,0", parallel="none").ids == (2,)  # the first of them
    assert pick_devices(parallel="ddp").kind == "ddp"  # alone, as one of one
    assert processes_to_start("auto", "auto", "3,1") == 2
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    assert processes_to_start("auto", "auto", "all") == 0


@pytest.mark.parametrize("gpus", [2], indirect=True)
def test_only_flags_that_do_nothing_are_named(gpus: int) -> None:
    assert "no effect" not in pick_devices(parallel="dp").reason
    assert "no effect" in pick_devices(parallel="dp", gpus="1").reason


def test_chance_is_another_one_in_each_step_process_and_run() -> None:
    """Also where the sums of the three are equal."""
    drawn = {}
    for place in itertools.product((1, 2), (0, 1, 2), (0, 1, 2)):
        seed_step(*place)
        drawn[place] = torch.rand(4).tolist()
    assert len({tuple(each) for each in drawn.values()}) == len(drawn) == 18
    seed_step(2, 1, 0)
    assert torch.rand(4).tolist() == drawn[2, 1, 0]


def test_a_container_may_have_fewer_cores_than_its_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5, 7}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert cpu_count() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cpu_count() == 64


def test_a_gradient_takes_strides_only_where_it_lies_so_already() -> None:
    lies_so = torch.rand(4, 3, 1, 1).to(memory_format=torch.channels_last)
    shape, strides = torch.Size((4, 3, 1, 1)), (3, 1, 1, 1)
    found = _with_strides(shape, strides, lies_so)
    assert found.stride() == strides and torch.equal(found, lies_so)
    other = torch.rand(3, 4).T[..., None, None]  # its places are another order
    kept = _with_strides(shape, strides, other)
    assert kept is other
