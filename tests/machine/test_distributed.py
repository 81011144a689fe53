"""Several processes as one training: for real, over gloo, started by torchrun and by ourselves."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_nb.errors import RankFailed
from camoxpert_nb.machine.distributed import ALONE, _failed, start_ranks
from camoxpert_nb.runs.holder import alive
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.settings.recipe import recipe
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.prepare import Loaders, prepare

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


@pytest.fixture(scope="module")
def alone(pair_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same training by one process with the doubled batch."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    return fit(pair_config.replace(batch_size=8, checkpoint_dir=str(folder)))


@pytest.fixture(scope="module")
def found(pair_config: Config, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes did in each scenario."""
    folder = tmp_path_factory.mktemp("ranks")
    begun = pair_config.replace(batch_size=8, checkpoint_dir=str(folder / "begun"))
    fit(begun, report=_stopping(Run(folder / "begun"), 6))
    pair_config.save(folder / "config.json")
    script = Path(__file__).parent / "scenarios_of_ranks.py"
    command = [*TORCHRUN, "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        [*command, str(folder / "config.json"), str(folder)],
        env={**os.environ, "BEGUN": str(folder / "begun")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads((folder / "found.json").read_text()), "folder": folder}


def _stopping(run: Run, step: int) -> Any:
    return lambda record: record.get("step") == step and run.request("stop")


def gap(one: Run, other: Run, name: str = "net") -> float:
    """The largest difference between two runs' last weights."""
    first, second = one.load("last")[name], other.load("last")[name]
    assert first.keys() == second.keys()
    return max(float((first[key] - second[key]).abs().max()) for key in first)


def test_processes_agree(found: dict[str, Any]) -> None:
    agreed = found["agreements"]
    assert agreed["places"] == [[0, 2, 0], [1, 2, 1]]
    assert agreed["any"] == [True, False]
    assert agreed["total"] == [2.0, 1.0]
    assert agreed["from_first"] == "rank 0"


def test_all_processes_decide_the_same_recipe_for_the_batch_of_all(found: dict[str, Any]) -> None:
    first, second = found["a_recipe"]["values"]
    assert first == second == recipe(20, found["a_recipe"]["photos"], batch=2 * 4, pretrained=False)


def test_an_error_in_one_process_ends_all(found: dict[str, Any]) -> None:
    assert found["an_error_in_one"] == ["PeerLost", "InputError"]


def test_ranks_share_the_batches_of_one(found: dict[str, Any], pair_config: Config) -> None:
    training = prepare(pair_config.replace(batch_size=8))
    epoch = Loaders(training).epoch(training.plan.stage_at(0), 0)
    batches = [batch["index"].tolist() for batch in epoch]
    first, second = found["samples"]["train"]
    assert len(first) == len(second) == len(batches)
    for whole, half, other in zip(batches, first, second, strict=True):
        assert not set(half) & set(other)
        assert sorted(half + other) == sorted(whole)


def test_each_validation_image_counts_once(found: dict[str, Any], pair_config: Config) -> None:
    count = len(prepare(pair_config).data.validation)
    shares = found["samples"]["validation"]
    assert count == 7
    assert sorted(shares[0] + shares[1]) == list(range(count))


def test_two_processes_train_what_one_with_the_doubled_batch_does(
    found: dict[str, Any], alone: Run
) -> None:
    together = Run(found["folder"] / "whole_training")
    assert gap(alone, together) < 2e-4
    assert gap(alone, together, "ema") < 2e-4
    for one, two in zip(alone.records("epoch"), together.records("epoch"), strict=True):
        assert two["stage"] == one["stage"]
        for name in (
            "loss",
            "balance",
            "gradient_norm",
            "iou",
            "iou_ema",
            "mae",
            "val_loss",
            "train_iou",
        ):
            assert two[name] == pytest.approx(one[name], rel=2e-3, abs=1e-4), name
        assert torch.allclose(torch.tensor(two["gates"]), torch.tensor(one["gates"]), atol=1e-3)
        assert two["lr"] == one["lr"]


def test_two_processes_go_on_where_one_stopped(found: dict[str, Any], alone: Run) -> None:
    run = Run(found["folder"] / "begun")
    assert found["going_on"]["epochs"] == 4
    assert gap(alone, run) < 2e-4
    assert [r["parallel"] for r in [run.load_json("summary")]] == ["ddp"]


def test_one_process_goes_on_where_two_stopped(found: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(found["folder"] / "a_stop_file", folder)
    config = Config.load(folder / "config.json")
    step = Run(folder).load("last")["step"]
    run = fit(config.replace(epochs=2, stage1_epochs=1, checkpoint_dir=str(folder)), resume=True)
    assert step == 4
    assert run.load_json("summary")["finished"]
    assert run.load_json("summary")["parallel"] == "cpu"


@pytest.mark.parametrize("name", ["a_signal_to_one", "a_stop_file", "a_deadline"])
def test_all_processes_stop_at_the_same_step(found: dict[str, Any], name: str) -> None:
    first, second = found[name]["steps"]
    assert first == second == found[name]["saved"]
    assert found[name]["end"]["kind"] == "stop"
    wanted = {"a_signal_to_one": 5, "a_stop_file": 4}.get(name, first)
    assert first == wanted
    why = "the time budget is used up" if name == "a_deadline" else "asked to stop"
    assert found[name]["end"]["why"] == why


def test_all_processes_end_early_together(found: dict[str, Any]) -> None:
    assert found["an_early_end"]["epochs"] == [[1], [1]]
    assert "the target is reached" in found["an_early_end"]["summary"]
    folder = found["folder"] / "an_early_end"
    assert len((folder / "history.csv").read_text().splitlines()) == 2


def test_all_processes_pause(found: dict[str, Any]) -> None:
    assert all(0.9 < longest < 20 for longest in found["a_pause"]["longest"])


def test_a_step_that_one_process_spoils_is_skipped_by_all(found: dict[str, Any]) -> None:
    spoiled = found["a_gradient_that_is_not_finite"]
    assert spoiled["skipped"][0] == spoiled["skipped"][1]
    assert spoiled["skipped"][0][:4] == [0.0, 0.0, 1.0, 0.0]
    assert spoiled["finite"]


# -- started by the command line --------------------------------------------------------------


def start(config: Config, *flags: str) -> subprocess.Popen[str]:
    config.save(Path(config.checkpoint_dir).with_suffix(".json"))
    command = [sys.executable, "-m", "camoxpert_nb", "train", "--parallel", "ddp", *flags]
    return subprocess.Popen(
        [*command, "--config", str(Path(config.checkpoint_dir).with_suffix(".json"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(run: Run, kind: str, count: int = 1) -> None:
    deadline = time.monotonic() + 60
    while len(run.records(kind)) < count:
        assert time.monotonic() < deadline, f"no {kind} record"
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rank_of(pid: int) -> str:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(v.split(b"=", 1) for v in variables if b"=" in v).get(b"RANK", b"").decode()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_a_killed_process_ends_the_run_which_then_goes_on(
    pair_config: Config, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    config = pair_config.replace(epochs=500, checkpoint_dir=str(run.folder))
    process = start(config)
    wait_for(run, "epoch")
    victim = next(pid for pid in children(process.pid) if rank_of(pid) == "1")
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    _out, said = process.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert process.returncode == 1
    assert "process 1 of 2 was killed (SIGKILL)" in said
    assert f"camoxpert resume {run.folder}" in said
    assert "Traceback" not in said
    assert run.load_json("failure")["message"] in said

    again = subprocess.Popen(
        [sys.executable, "-m", "camoxpert_nb", "resume", str(run.folder), "--parallel", "ddp"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(run, "start", 2)
    epochs = len(run.records("epoch"))
    wait_for(run, "epoch", epochs + 1)
    again.send_signal(signal.SIGINT)
    out, said = again.communicate(timeout=60)
    assert again.returncode == 130, said
    assert "everything is saved" in out
    assert run.records()[-1]["kind"] == "stop"
    assert run.load("last")["step"] == run.records()[-1]["step"]
    assert not run.load_json("failure")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_processes_whose_launcher_was_killed_save_and_end(
    pair_config: Config, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    process = start(pair_config.replace(epochs=500, checkpoint_dir=str(run.folder)))
    wait_for(run, "epoch")
    orphans = children(process.pid)
    process.kill()
    process.communicate(timeout=60)  # whoever still writes keeps these pipes open
    assert not any(map(alive, orphans))
    last = run.records()[-1]
    assert (last["kind"], last["why"]) == ("stop", "the launcher of these processes is gone")
    assert run.load("last")["step"] == last["step"]
    assert run.training_pid() is None
    assert "trainer" not in run.process()


def test_a_clean_stop_under_torchrun_says_that_all_is_well(
    pair_config: Config, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    pair_config.replace(epochs=500).save(tmp_path / "run.json")
    order = ["train", "--config", str(tmp_path / "run.json"), "--checkpoint-dir", str(run.folder)]
    command = [*TORCHRUN, "--standalone", "--nproc-per-node=2", "-m", "camoxpert_nb", *order]
    process = subprocess.Popen(
        [*command, "--parallel", "none"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(run, "epoch")
    run.request("stop")
    said, _errors = process.communicate(timeout=60)
    assert "--parallel none has no effect: torchrun started 2 processes" in said
    assert "torchrun calls each exit code but 0 FAILED" in said.splitlines()[-1]
    assert "The run is saved." in said.splitlines()[-1]
    assert run.records()[-1]["kind"] == "stop"


def test_epochs_are_fitted_to_the_time_by_all_processes(
    pair_config: Config, tmp_path: Path
) -> None:
    """They time their steps together, and then train in the same processes."""
    run = Run(tmp_path / "run")
    config = pair_config.replace(epochs=3, time_budget=60, checkpoint_dir=str(run.folder))
    process = start(config, "--fit-to-budget")
    _out, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert run.load_json("summary")["finished"]
    assert [record["epoch"] for record in run.records("epoch")] == [1, 2, 3]


def test_bad_input_is_said_once(pair_config: Config, tmp_path: Path) -> None:
    config = pair_config.replace(dataset_path=str(tmp_path), checkpoint_dir=str(tmp_path / "run"))
    out, said = start(config).communicate(timeout=60)
    assert said.count("camoxpert:") == 1
    assert "Traceback" not in said + out


def test_the_failure_that_matters_is_named() -> None:
    assert _failed({0: 3, 1: 2}, 2).exit_code == 2
    assert _failed({0: 130, 1: -signal.SIGTERM}, 2).exit_code == 130
    assert _failed({0: 2, 1: -signal.SIGABRT}, 2).silent
    lost = _failed({0: 1, 1: -signal.SIGKILL}, 2)
    assert "process 1 of 2 was killed (SIGKILL)" in str(lost)
    assert not lost.silent


def test_one_process_asks_nobody() -> None:
    assert ALONE.any(True, False) == [True, False]
    assert ALONE.gather("x") == ["x"]
    assert ALONE.total(torch.ones(2)).tolist() == [1.0, 1.0]
    assert ALONE.from_first(lambda: 3) == 3


def test_start_ranks_reports_the_exit_code(tmp_path: Path) -> None:
    with pytest.raises(RankFailed) as caught:
        start_ranks(["camoxpert_nb", "rank", str(tmp_path / "missing.json")], 1)
    assert caught.value.exit_code == 2
    assert caught.value.silent


# -- two machines: network namespaces, each with its own address -------------------------------


def network(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[str, str]]:
    """Make two hosts that a cable connects, 10.77.0.1 and 10.77.0.2."""
    names = [f"camo{os.getpid()}{side}" for side in "ab"]
    cables = [f"cx{os.getpid()}{side}" for side in "ab"]
    try:
        for name in names:
            network("netns", "add", name)
        network("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for number, (name, cable) in enumerate(zip(names, cables, strict=True), 1):
            network("link", "set", cable, "netns", name, "name", "wire")
            network("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "wire")
            network("-n", name, "link", "set", "wire", "up")
            network("-n", name, "link", "set", "lo", "up")
        yield names[0], names[1]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def can_make_networks() -> bool:
    if os.geteuid() != 0 or not shutil.which("ip"):
        return False
    try:
        with two_machines():
            return True
    except subprocess.CalledProcessError:
        return False


def on_two_machines(orders: list[list[str]], seconds: float = 120) -> list[tuple[int, str]]:
    """Run torchrun with these arguments on each; return exit codes and words."""
    with two_machines() as names:
        machines = []
        for number, (name, order) in enumerate(zip(names, orders, strict=True)):
            launcher = [*TORCHRUN, "--nnodes=2", "--nproc-per-node=1", f"--node-rank={number}"]
            launcher += ["--master-addr=10.77.0.1", "--master-port=29511", "-m", "camoxpert_nb"]
            machines.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", name, *launcher, *order],
                    env={**os.environ, "GLOO_SOCKET_IFNAME": "wire"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        said = [machine.communicate(timeout=seconds)[0] for machine in machines]
    return [(machine.returncode, text) for machine, text in zip(machines, said, strict=True)]


@pytest.fixture
def networks() -> None:
    if not can_make_networks():
        pytest.skip("needs root, iproute2 and the right to make network namespaces")


def test_two_machines_train_what_one_does(
    networks: None, pair_config: Config, alone: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "first" / "run"
    folder.parent.mkdir()
    pair_config.save(folder.with_suffix(".json"))
    settings = ["train", "--config", str(folder.with_suffix(".json"))]
    # The second has neither settings file nor run folder.
    absent = tmp_path / "second" / "run"
    orders = [
        [*settings, "--checkpoint-dir", str(folder)],
        ["train", "--config", str(absent.with_suffix(".json"))],
    ]
    ends = on_two_machines(orders)
    assert [code for code, _ in ends] == [0, 0], ends
    assert gap(alone, Run(folder)) < 2e-4
    assert not absent.parent.exists(), "the second machine writes nothing"

    resumed = [["resume", str(folder), "--epochs", "5"], ["resume", str(absent)]]
    ends = on_two_machines(resumed)
    assert [code for code, _ in ends] == [0, 0], ends
    assert len(Run(folder).records("epoch")) == 5
    assert not absent.parent.exists()


def test_the_first_machine_says_why_the_second_cannot_start(
    networks: None, pair_config: Config, tmp_path: Path
) -> None:
    pair_config.save(tmp_path / "run.json")
    order = ["train", "--config", str(tmp_path / "run.json"), "--checkpoint-dir"]
    order.append(str(tmp_path / "run"))
    none = str(tmp_path / "none")
    (_, first), (_, second) = on_two_machines([order, [*order, "--dataset-path", none]])
    assert "camoxpert: process 1 on " in first
    assert none in first
    assert none in second
    assert Run(tmp_path / "run").load_json("failure")["process"] == 1
