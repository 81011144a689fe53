"""Processes that look for each other: who is missing, who does not fit, whose flags hold.

All are started by hand over gloo, as on several machines: each is the only one of its "machine".
Every kind of failure happens once to real processes; its other forms are told by the same words.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forked import Forked, wait_until
from torch import distributed as dist

from camoxpert_nb.errors import InputError, TrainingError
from camoxpert_nb.machine import joining, watch
from camoxpert_nb.machine.joining import Card, Place, read_place
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config

QUICK = "import camoxpert_nb.machine.joining as j; j.SPEAK_EVERY = 0.3\n"


@pytest.fixture
def config(pair_config: Config, tmp_path: Path) -> Config:
    return pair_config.replace(epochs=2, checkpoint_dir=str(tmp_path / "run"))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Group:
    """Processes with one address, which the test starts one by one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.world, self.address, self.port = folder, 2, "127.0.0.1", free_port()
        self.processes: list[Forked] = []

    def start(self, rank: int, *arguments: str, change: str = "", **variables: str) -> Forked:
        environment = {
            "RANK": str(rank),
            "WORLD_SIZE": str(self.world),
            "MASTER_ADDR": self.address,
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": "1",
            "MASTER_PORT": str(self.port),
            **variables,
        }
        output = self.folder / f"said-{len(self.processes)}.txt"
        process = Forked(list(arguments), output, change + "\n" + QUICK, **environment)
        self.processes.append(process)
        return process

    def train(self, rank: int, config: Config, *flags: str, change: str = "") -> Forked:
        """Start `train`; only the first one has the settings file."""
        if rank == 0:
            config.save(Path(config.checkpoint_dir).with_suffix(".json"))
        file = Path(config.checkpoint_dir).with_suffix(".json" if rank == 0 else ".absent")
        return self.start(rank, "train", "--config", str(file), *flags, change=change)

    def ends(self) -> list[tuple[int, str]]:
        """Return exit code and words of each."""
        return [process.ends() for process in self.processes]


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    made = Group(tmp_path)
    yield made
    for process in made.processes:
        process.kill()


# -- who is missing ---------------------------------------------------------------------------


def test_the_first_says_who_is_missing(group: Group, config: Config) -> None:
    group.train(0, config, "--join-minutes", "0.03")
    [(code, said)] = group.ends()
    assert code == 2
    address = f"127.0.0.1:{group.port}"
    assert f"waiting for 1 of 2 machines at {address} (0 s)" in said
    assert f"process 1 of 2 did not come to {address} within 0.03 minutes" in said
    assert "--join-minutes" in said
    assert "Traceback" not in said


def test_the_wait_is_told_within_ten_seconds(group: Group, config: Config) -> None:
    assert joining.SPEAK_EVERY <= 10
    assert config.join_minutes == 5


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "nobody answers there yet, connection refused"),
        ("no-such-machine.invalid", "no machine is known by the name no-such-machine.invalid"),
    ],
)
def test_others_say_that_the_first_is_missing(
    group: Group, config: Config, address: str, why: str
) -> None:
    group.address = address
    group.train(1, config, "--join-minutes", "0.03")
    [(code, said)] = group.ends()
    assert code == 2
    assert f"waiting for 1 of 2 machines at {address}:{group.port}: {why} (0 s)" in said
    assert f"the first process is not to be reached at {address}:{group.port} ({why})" in said
    assert "Traceback" not in said


def test_only_one_process_of_a_machine_speaks(group: Group, config: Config) -> None:
    group.world = 4
    for rank in (0, 1):
        local = {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
        group.start(rank, "train", "--join-minutes", "0.03", **local)
    (_, first), (_, second) = group.ends()
    assert "waiting for 1 of 2 machines" in first
    assert "waiting" not in second
    assert "process 2, 3 of 4 did not come" in first


def test_a_late_process_is_waited_for(group: Group, config: Config) -> None:
    group.train(0, config).says("waiting for 1 of 2 machines")
    group.train(1, config)
    assert [code for code, _ in group.ends()] == [0, 0]


PLACE = Place(rank=1, world=2, local_rank=0, local_world=1, host="127.0.0.1", port=0)
CARD = Card(1, 2, 1, "second", 7, kit="1.0", torch="2.5.0+cpu", cuda=False)


def test_one_number_given_twice_is_named() -> None:
    store = dist.HashStore()
    joining._put(store, CARD)
    joining._put(store, CARD)  # its own card may be there already
    with pytest.raises(InputError, match="process 1 is there twice: as 7 on second and as 8 on"):
        joining._put(store, replace(CARD, pid=8))


def test_a_port_in_use_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        place = replace(PLACE, rank=0, port=taken.getsockname()[1])
        with pytest.raises(InputError, match="choose another MASTER_PORT"):
            joining._open_store(place)


def test_missing_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT"):
        read_place()
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "one")
    with pytest.raises(InputError, match="LOCAL_RANK=one"):
        read_place()


# -- who does not fit -------------------------------------------------------------------------


def test_other_versions_are_named(group: Group, config: Config) -> None:
    group.train(0, config)
    group.train(1, config, change="import torch; torch.__version__ = '2.3.0+cpu'")
    for code, said in group.ends():
        assert code == 2
        assert f"process 1 on {socket.gethostname()} has torch 2.3.0; process 0 on" in said
        assert "Traceback" not in said
    assert not Path(config.checkpoint_dir).exists()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"kit": "0.0.1"}, "process 1 on second has camoxpert_nb 0.0.1; process 0 on first has 1."),
        (
            {"torch": "2.4.0"},
            r"process 1 on second has torch 2.4.0\+?.*; process 0 on first has 2.5",
        ),
        ({"world": 3}, "process 1 on second has a world of 3; process 0 on first has 2"),
    ],
)
def test_whatever_differs_is_named(other: dict[str, Any], words: str) -> None:
    first = replace(CARD, rank=0, host="first")
    joining._check([first, replace(CARD, torch="2.5.0+cu130")])  # another build is no other version
    with pytest.raises(InputError, match=words):
        joining._check([first, replace(CARD, **other)])


def copy_of_data(config: Config, folder: Path) -> Path:
    shutil.copytree(config.dataset_path, folder)
    return folder


def test_other_contents_of_the_same_names_are_named(
    group: Group, config: Config, tmp_path: Path
) -> None:
    other = copy_of_data(config, tmp_path / "other")
    file = sorted(path for path in other.rglob("*CAM*Train*") if path.is_file()) or sorted(
        path for path in other.rglob("Train/**/*.png") if "NonCAM" not in path.name
    )
    with file[0].open("ab") as opened:
        opened.write(b"\0")
    group.train(0, config)
    group.train(1, config, "--dataset-path", str(other))
    ends = group.ends()
    assert [code for code, _ in ends] == [2, 3]
    for _, said in ends:
        assert f"process 1 on {socket.gethostname()} has other contents in 1 of" in said
        assert file[0].name in said
        assert "Traceback" not in said


# -- whose flags hold -------------------------------------------------------------------------


def test_each_machine_has_its_own_places_and_no_other_flags(
    group: Group, config: Config, tmp_path: Path
) -> None:
    other, decoded = copy_of_data(config, tmp_path / "other"), tmp_path / "decoded"
    group.train(0, config)
    own = ["--dataset-path", str(other), "--cache-dir", str(decoded), "--num-workers", "1"]
    group.train(1, config, *own, "--seed", "7", "--no-use-ema", "--device", "cpu")
    (code, said), (second_code, _) = group.ends()
    assert (code, second_code) == (0, 0), said
    named = f"process 1 on {socket.gethostname()} was given"
    assert f"{named} --seed 7; the first process's 42 holds" in said
    assert f"{named} --no-use-ema; the first process's on holds" in said
    assert said.count("was given") == 2
    assert list(decoded.glob("*.npy")), "the second machine decodes into its own cache"
    used = Config.load(Run(config.checkpoint_dir).config_path)
    assert used.seed == 42
    assert used.dataset_path == config.dataset_path


# -- who fails --------------------------------------------------------------------------------


def stored(config: Config) -> dict[str, Any]:
    return Run(config.checkpoint_dir).load_json("failure")


def test_the_first_says_why_another_cannot_start(
    group: Group, config: Config, tmp_path: Path
) -> None:
    words = str(tmp_path / "none")
    group.train(0, config)
    group.train(1, config, "--dataset-path", words)
    (code, first), (own_code, second) = group.ends()
    assert (code, own_code) == (3, 2)
    assert f"camoxpert: process 1 on {socket.gethostname()}: " in first
    assert words in first
    assert words in second
    assert "Traceback" not in first + second
    left = stored(config)
    assert (left["process"], left["host"], left["kind"]) == (1, socket.gethostname(), "InputError")
    assert words in left["message"]


FAILING = """
import camoxpert_nb.training.epoch as t
from camoxpert_nb.errors import TrainingError
whole, steps = t.queue_step, iter(range(100))
def step(*a, **k):
    if next(steps) == 2:
        raise {error}
    return whole(*a, **k)
t.queue_step = step
"""


@pytest.mark.parametrize(
    ("rank", "error", "words"),
    [
        (0, "TrainingError('nothing fits any more')", "nothing fits any more"),
        (
            1,
            "OSError(28, 'No space left on device', '/full')",
            "/full: the disk is full: free some space (No space left on device)",
        ),
    ],
)
def test_others_say_why_one_fails_in_training(
    group: Group, config: Config, rank: int, error: str, words: str
) -> None:
    for each in range(2):
        change = FAILING.format(error=error) if each == rank else ""
        group.train(each, config.replace(epochs=20), change=change)
    ends = group.ends()
    assert ends[rank][0] == 1
    assert ends[1 - rank][0] == 3
    assert f"camoxpert: process {rank} on {socket.gethostname()}: {words}" in ends[1 - rank][1]
    assert "Traceback" not in ends[1 - rank][1]
    assert words in ends[rank][1]
    left = stored(config)
    assert words in left["message"]
    assert left.get("process", 0) == rank


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("no such folder"), "no such folder"),
        (TrainingError("nothing fits"), "nothing fits"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
        (KeyError(), "KeyError"),
    ],
)
def test_what_a_failing_process_leaves_is_a_sentence(error: Exception, words: str) -> None:
    left = json.loads(json.dumps(watch.described(1, "second", error)))
    assert left["message"] == words
    heard = watch.lost(left, speaks=True)
    assert str(heard) == f"process 1 on second: {words}"
    assert heard.exit_code == 3


def test_a_silent_process_is_named_and_greeted(group: Group, config: Config) -> None:
    quick = "import camoxpert_nb.machine.watch as w; w.BEAT, w.SILENCE = 0.2, 2.0\n"
    long = config.replace(epochs=500)
    group.train(0, long, change=quick)
    second = group.train(1, long, change=quick)
    run, name = Run(config.checkpoint_dir), f"process 1 on {socket.gethostname()}"
    wait_for(run, "epoch")
    second.signal(signal.SIGSTOP)
    wait_for(run, "note")
    assert run.records("note")[-1]["message"].startswith(f"{name} has not answered for 2 s")
    second.signal(signal.SIGCONT)
    wait_for(run, "note", 2)
    assert f"{name} answers again" in run.records("note")[-1]["message"]
    run.request("stop")
    (code, said), (second_code, _) = group.ends()
    assert (code, second_code) == (130, 130), said
    assert f"{name} has not answered for 2 s" in said
    assert f"{name} answers again" in said


def test_patience_with_a_silent_process_is_half_a_minute() -> None:
    assert watch.SILENCE == 30
    assert watch.BEAT < 5


def wait_for(run: Run, kind: str, count: int = 1) -> None:
    wait_until(lambda: len(run.records(kind)) >= count, f"no {kind} record")
