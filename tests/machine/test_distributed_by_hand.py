"""What processes agree on, with their answers made up: nothing is started and nothing sent."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributed as dist

from camoxpert_nb.errors import InputError, PeerLost
from camoxpert_nb.machine import distributed
from camoxpert_nb.machine.distributed import Ranks, _failed, _on_gpus, _threads_for
from camoxpert_nb.machine.joining import Card


def card(rank: int, machine: int, cuda: bool = True) -> Card:
    return Card(rank, 4, machine, f"host-{machine}", 100 + rank, "1", "2", cuda)


# Process 3 of four on two machines: the second of its machine.
CARDS = tuple(card(rank, rank // 2) for rank in range(4))
THIRD = Ranks(3, 4, 1, 2, cards=CARDS)


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The three others have one more than this one each."""

    def all_reduce(values: Tensor) -> None:
        values.copy_(4 * values + 3)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)


def test_sum_and_mean_are_over_all_processes_and_leave_their_own(others: None) -> None:
    own = torch.tensor([1.0, 2.0])
    assert THIRD.total(own).tolist() == [7.0, 11.0]
    assert THIRD.mean(own).tolist() == [1.75, 2.75]  # of four, not of the machine's two
    assert own.tolist() == [1.0, 2.0]


def test_one_process_is_enough_to_ask_for_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "all_reduce", lambda x: x.add_(torch.tensor([0, 1, 0])))
    assert THIRD.any(False, False, True) == [False, True, True]


def test_the_first_process_tells_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    sources: list[int] = []

    def broadcast(values: list[Any], src: int) -> None:
        sources.append(src)
        values[0] = "of the first"

    monkeypatch.setattr(dist, "all_reduce", lambda values: None)
    monkeypatch.setattr(dist, "broadcast_object_list", broadcast)
    monkeypatch.setattr(dist, "broadcast", lambda tensor, src: sources.append(src))
    assert THIRD.from_first(lambda: 1 / 0) == "of the first"  # not called here
    THIRD.spread(iter([torch.ones(1)]))
    assert sources == [0, 0]


@pytest.mark.parametrize(("rank", "local_rank", "turn"), [(0, 0, 0), (2, 0, 0), (3, 1, 1)])
def test_on_each_machine_one_process_goes_first(
    monkeypatch: pytest.MonkeyPatch, rank: int, local_rank: int, turn: int
) -> None:
    """Between the turns all are asked whether it went well."""
    order: list[str] = []
    monkeypatch.setattr(dist, "all_reduce", lambda values: order.append("asked"))
    Ranks(rank, 4, local_rank, 2).in_turn(lambda: order.append("work"))
    expected = ["asked", "asked"]
    expected.insert(turn, "work")
    assert order == expected


@pytest.mark.parametrize("here", [True, False])
def test_an_error_ends_all_in_its_own_words(monkeypatch: pytest.MonkeyPatch, here: bool) -> None:
    def gather(values: list[Any], own: Any) -> None:
        values[:] = [{}, {}, {"process": 2, "host": "h", "message": "no images"}, own]

    monkeypatch.setattr(dist, "all_reduce", lambda values: values if here else values.fill_(1))
    monkeypatch.setattr(dist, "all_gather_object", gather)

    def work() -> None:
        if here:
            raise InputError("no images there")

    with pytest.raises(InputError if here else PeerLost, match="no images"):
        THIRD.in_turn(work)


def test_a_process_knows_its_machine_and_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [Ranks(rank, 4, cards=CARDS).machine for rank in range(4)] == [0, 0, 1, 1]
    assert Ranks().machine == 0
    monkeypatch.setattr(os, "getppid", lambda: 7)
    assert not Ranks(parent=7).orphaned and Ranks(parent=8).orphaned
    assert not Ranks(parent=0).orphaned  # it is not to end with anybody


def test_gpus_talk_directly_where_all_processes_have_one() -> None:
    assert _on_gpus(CARDS) and not _on_gpus([*CARDS, card(4, 2, cuda=False)]) and not _on_gpus([])


@pytest.mark.parametrize(
    ("codes", "code", "named"),
    [
        ({0: -signal.SIGTERM, 1: 1}, 1, "process 1"),  # which the launcher ended for the other
        ({0: PeerLost.exit_code, 1: -signal.SIGSEGV}, 1, "process 1 of 2 was killed (SIGSEGV)"),
        ({0: -signal.SIGTERM, 1: -signal.SIGKILL}, 1, "process 1 of 2 was killed (SIGKILL)"),
        ({0: 1, 1: InputError.exit_code}, InputError.exit_code, "process 1"),
        ({1: PeerLost.exit_code, 0: PeerLost.exit_code}, PeerLost.exit_code, "process 0"),
        ({0: 5, 1: 4}, 4, "process 1"),
    ],
)
def test_the_cause_is_found_among_those_that_follow(
    codes: dict[int, int], code: int, named: str
) -> None:
    found = _failed(codes, 2)
    assert found.exit_code == code and str(found).startswith(named)


def test_cores_are_shared_out_unless_the_user_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "cpu_count", lambda: 12)
    for processes, threads in ((4, "3"), (5, "2"), (20, "1")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        with _threads_for(processes):
            assert os.environ["OMP_NUM_THREADS"] == threads
        assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    with _threads_for(4):
        assert os.environ["OMP_NUM_THREADS"] == "9"
    assert os.environ["OMP_NUM_THREADS"] == "9"
