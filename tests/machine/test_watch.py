"""Who is named silent, and what a failure leaves: with a clock and a store that are made up."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from camoxpert_nb.errors import InputError, PeerLost
from camoxpert_nb.machine import joining, watch
from camoxpert_nb.machine.joining import Card, Place, _Waiting, join
from camoxpert_nb.machine.watch import Watch, _Pulse, described, lost

CARDS = [Card(rank, 3, 0, "h", 100 + rank, "1", "2", False) for rank in range(3)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    return now


def test_a_silent_process_is_named_once_and_greeted_with_how_long_it_was(
    clock: list[float],
) -> None:
    """Process 2 gives its last sign at 4 s; it is named after 30 s of silence, and only once."""
    pulse, said = _Pulse(CARDS), {}
    for beat in range(1, 41):
        clock[0] += 2.0
        third = min(beat, 2) if beat < 30 else beat
        beats = [str(beat).encode(), str(beat).encode(), str(third).encode()]
        if news := [*pulse.news(beats)]:
            said[2 * beat] = news
    assert [*said] == [36, 60]
    assert said[36][0].startswith("process 2 on h has not answered for 32 s")
    assert said[60] == ["process 2 on h answers again, after 56 s"]


def test_who_stood_still_itself_blames_nobody(clock: list[float]) -> None:
    """Asleep for an hour, a laptop first gives the others time to answer."""
    pulse = _Pulse(CARDS)
    assert [*pulse.news([b"1"] * 3)] == []
    clock[0] += 3600
    assert [*pulse.news([b"1"] * 3)] == []
    for beat in range(12):
        clock[0] += 2.0
        assert [*pulse.news([str(beat).encode()] * 3)] == []


class Store:
    """What the processes know of each other."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.timeout = 0.0

    def set(self, key: str, value: str) -> None:
        self.values[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.values[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        if self.values.get(key, b"").decode() == expected:
            self.set(key, desired)
        return self.values[key]


def watcher(rank: int, monkeypatch: pytest.MonkeyPatch, local_rank: int = 0) -> Watch:
    monkeypatch.setattr(watch.threading.Thread, "start", lambda self: None)
    place = Place(rank, 3, local_rank, 3, "127.0.0.1", 1)
    return Watch(place, Store(), CARDS)  # type: ignore[arg-type]


def test_the_first_failure_is_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    found = watcher(1, monkeypatch)
    assert found.cause() is None
    found.post(InputError("no images"))
    found.place = Place(2, 3, 2, 3, "127.0.0.1", 1)
    found.post(ValueError("what followed"))
    cause = found.cause()
    assert cause == {"process": 1, "host": "h", "kind": "InputError", "message": "no images"}
    assert described(2, "h", ValueError("x"))["message"] == "ValueError: x"
    error = lost(cause, speaks=True)
    assert str(error) == "process 1 on h: no images" and not error.silent
    assert lost(cause, speaks=False).silent


def test_who_failed_waits_until_all_others_were_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found, waited = watcher(1, monkeypatch), list[list[str]]()
    monkeypatch.setattr(found, "_wait_for", lambda keys: bool(waited.append(keys)))
    found.wait_until_heard()
    assert waited == [["heard 0", "heard 2"]]
    assert found.store.check([watch.LEAVES])
    found.heard()
    assert found.store.check(["heard 1"])


def test_who_hears_is_who_it_was_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    found = watcher(0, monkeypatch)
    before, told = (found.tell, found.failed), list[str]()
    with found.told(told.append, lambda error: None):
        found.tell("silent")
    assert (found.tell, found.failed) == before and told == ["silent"]


@pytest.mark.parametrize(
    ("rank", "local_rank", "speaks"), [(0, 0, True), (2, 0, True), (2, 2, False), (1, 0, None)]
)
def test_a_process_that_waits_for_one_that_failed_is_ended(
    monkeypatch: pytest.MonkeyPatch, rank: int, local_rank: int, speaks: bool | None
) -> None:
    """With the words of that one, by one process of each machine; itself it does not end."""
    found, ended, failures = watcher(rank, monkeypatch, local_rank), list[int](), list[PeerLost]()
    monkeypatch.setattr(watch.os, "_exit", ended.append)
    monkeypatch.setattr(watch, "complain", lambda error: None)
    found.failed = failures.append
    cause = {"process": 1, "host": "h", "kind": "InputError", "message": "no images"}
    found._end(found.store, cause)
    if speaks is None:
        assert ended == failures == []
        return
    assert ended == [failures[0].exit_code] and failures[0].silent is not speaks
    assert found.store.check([f"heard {rank}"])


def test_it_has_six_seconds_to_notice_by_itself(
    monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    """Another one failed before the first beat; beats are two seconds apart."""
    found, ended = watcher(2, monkeypatch), list[float]()
    found.post(InputError("no images"))

    def wait(seconds: float) -> bool:
        clock[0] += seconds
        return clock[0] >= 1014.0

    monkeypatch.setattr(watch, "connect", lambda place: found.store)
    monkeypatch.setattr(found._ended, "wait", wait)
    monkeypatch.setattr(found, "_end", lambda store, cause: ended.append(clock[0] - 1000.0))
    found._work()
    assert ended == [8.0, 10.0, 12.0]


# --- joining


@pytest.mark.parametrize(
    ("rank", "machine", "machines"), [(0, 0, 3), (3, 0, 3), (4, 1, 3), (7, 1, 3), (8, 2, 3)]
)
def test_places_are_counted_by_machines(
    monkeypatch: pytest.MonkeyPatch, rank: int, machine: int, machines: int
) -> None:
    """Ten processes, four on each machine; torchrun says it itself."""
    for name in ("GROUP_RANK", "GROUP_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    place = Place(rank, 10, rank % 4, 4, "h", 1)
    assert (place.machine, place.machines) == (machine, machines)
    monkeypatch.setenv("GROUP_RANK", "5")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "9")
    assert (place.machine, place.machines) == (5, 9)


def test_a_place_is_read_from_its_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"RANK": 5, "WORLD_SIZE": 8, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}
    for name, value in {**values, "MASTER_ADDR": "here", "MASTER_PORT": 4711}.items():
        monkeypatch.setenv(name, str(value))
    assert joining.read_place() == Place(5, 8, 1, 2, "here", 4711)
    assert joining.expected()
    monkeypatch.delenv("WORLD_SIZE")
    assert not joining.expected()


def test_the_others_are_waited_for_in_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, ...]] = []

    class Waits:
        def __init__(self, *how: Any) -> None:
            made.append(how)
            raise KeyboardInterrupt

    monkeypatch.setattr(joining, "_Waiting", Waits)
    monkeypatch.setattr(joining.time, "monotonic", lambda: 100.0)
    with pytest.raises(KeyboardInterrupt):
        join(Place(0, 2, 0, 2, "h", 1), 5.0, cuda=False)
    assert made[0][1:] == (400.0, 5.0)


def test_who_is_missing_is_told_by_machine_and_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three machines with two processes each the cards of 1, 4 and 5 are not there."""
    monkeypatch.setattr(joining.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(joining.time, "monotonic", lambda: 100.0)
    store, waiting = Store(), _Waiting(Place(0, 6, 0, 2, "h", 1), 99.0, 5.0)
    for rank in (0, 2, 3):
        store.set(f"card {rank}", json.dumps({}))
    with pytest.raises(InputError, match="process 1, 4, 5 of 6 did not come to h:1 within 5 min"):
        waiting.collect(store)  # type: ignore[arg-type]
    assert waiting.missing == [0, 2] and waiting.sentence().startswith(
        "waiting for 2 of 3 machines"
    )
    assert b"did not come" in store.get("given up")
    with pytest.raises(InputError, match="did not come"):  # the others read it
        _Waiting(Place(2, 6, 0, 2, "h", 1), 200.0, 5.0).collect(store)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("other", "fits"),
    [
        ({"torch": "2+cpu"}, True),  # another build of the same version
        ({"torch": "3"}, False),
        ({"kit": "9"}, False),
        ({"world": 4}, False),
        ({"cuda": True, "host": "there", "pid": 1}, True),
    ],
)
def test_processes_train_together_that_have_the_same(other: dict[str, Any], fits: bool) -> None:
    cards = [CARDS[0], Card(**{**vars(CARDS[1]), **other})]
    if fits:
        return joining._check(cards)
    with pytest.raises(InputError, match="process 1"):
        joining._check(cards)


def test_one_number_is_given_to_one_process() -> None:
    store = Store()
    joining._put(store, CARDS[1])  # type: ignore[arg-type]
    joining._put(store, CARDS[1])  # type: ignore[arg-type]
    twin = Card(**{**vars(CARDS[1]), "pid": 7, "host": "there"})
    with pytest.raises(
        InputError, match=r"process 1 is there twice: as 101 on h and as\s7 on there"
    ):
        joining._put(store, twin)  # type: ignore[arg-type]
    assert SimpleNamespace(**json.loads(store.get("card 1"))).pid == 101
