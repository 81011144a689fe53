"""The check-up: what is tried, what a failure becomes, what the report says; and a real DDP."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from camoxpert_nb.doctor import doctor, trial
from camoxpert_nb.doctor.doctor import (
    CheckResult,
    MachineReport,
    Trial,
    check_machine,
    find_limits,
    fix_for,
    recommend,
    run_trial,
    trials,
)
from camoxpert_nb.doctor.facts import MachineFinding, read_facts
from camoxpert_nb.errors import STOPPED, RankFailed
from camoxpert_nb.machine.devices import Devices, choose_precision, pick_devices
from camoxpert_nb.network.build import build_net
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.prepare import build_state, step_settings

ALL = tuple(trial.PARTS)
CPU = Trial("CPU", "none", (), 1, ALL)


@pytest.fixture
def settings() -> Config:
    return make_config("tiny", img_size=32)


def checkup(*checks: CheckResult, findings: tuple[MachineFinding, ...] = ()) -> MachineReport:
    facts = read_facts(2, Path("/"))
    return MachineReport(facts, findings, checks, {"none": 12.34, "ddp": 20.0}, "Use <ddp>.")


def test_the_report_holds_everything_in_words_and_in_json() -> None:
    failed = CheckResult("DDP, training", False, 1.5, "NCCL <error>", fix_for("NCCL <error>"))
    report = checkup(failed, findings=(MachineFinding("warn", "little disk", "Delete runs."),))
    text = report.text()
    for part in ("PyTorch", "little disk", "Delete runs.", "FAILED", "NCCL <error>", "Use <ddp>."):
        assert part in text
    assert "NCCL_P2P_DISABLE" in " ".join(text.split())
    assert "20.0 images per second" in text
    assert text.endswith("NOT healthy: 1 checks failed, 0 findings stop a training.")
    assert max(map(len, text.splitlines())) <= 100
    values = json.loads(json.dumps(report.as_dict()))
    assert values["healthy"] is False
    assert values["checks"][0]["detail"] == "NCCL <error>"
    assert values["speeds"]["none"] == 12.34
    assert "NCCL &lt;error&gt;" in report._repr_html_()


def test_in_a_narrow_terminal_rows_break_at_words_below_their_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("camoxpert_nb.doctor.doctor.room", lambda: 60)
    ran = CheckResult("CPU, training", True, 1.0, "five steps of a small network " * 4)
    lines = checkup(ran).text().splitlines()
    assert max(map(len, lines)) <= 60
    row = next(place for place, line in enumerate(lines) if "CPU, training" in line)
    assert lines[row].startswith("  ok         1.0 s  CPU, training: five steps")
    assert lines[row + 1].startswith(" " * 20) and lines[row + 1].split()[0] in ran.detail.split()


def test_what_was_not_run_is_no_failure_but_a_stopping_finding_is() -> None:
    ran, skipped = (
        CheckResult("CPU", True, 1.0, "fine"),
        CheckResult("DP", None, 0.0, "needs a GPU"),
    )
    assert checkup(ran, skipped).healthy
    assert checkup(ran).verdict == "Healthy: 1 checks passed."
    assert not checkup(ran, findings=(MachineFinding("stop", "old card", "Change it."),)).healthy


def test_each_gpu_is_tried_alone_and_all_together_in_both_ways() -> None:
    assert [(t.mode, t.processes) for t in trials([])] == [("none", 1), ("ddp", 2)]
    one = [(t.mode, t.ids, t.processes) for t in trials([0])]
    assert one == [("none", (0,), 1), ("dp", (0,), 1), ("ddp", (0,), 1)]
    (quick,) = trials([0], quick=True)
    assert (quick.mode, quick.ids, quick.processes, quick.parts) == ("none", (0,), 1, ALL)
    assert trials([0, 1], quick=True) == trials([0, 1])
    assert trials([], quick=True) == trials([])
    two = trials([0, 1])
    assert [(t.mode, t.ids, t.processes) for t in two] == [
        ("none", (0,), 1),
        ("none", (1,), 1),
        ("dp", (0, 1), 1),
        ("ddp", (0, 1), 2),
    ]
    assert two[0].parts == ALL
    assert two[1].parts == ("convolution",)


@pytest.mark.parametrize(
    ("speeds", "gpus", "advice"),
    [
        ({}, 2, "No way to train works"),
        ({"none": 10.0, "ddp": 6.0}, 0, "with two or more it would measure"),
        ({"none": 10.0, "dp": 9.0, "ddp": 11.0}, 1, "--parallel none: 11.0"),
        (
            {"none": 10.0, "dp": 11.0, "ddp": 18.0},
            2,
            "--parallel ddp: 18.0 images per second, 1.80",
        ),
        ({"none": 10.0, "dp": 9.0, "ddp": 8.0}, 2, "--parallel none: 10.0"),
        ({"ddp": 18.0}, 2, "--parallel ddp: 18.0"),
        ({"dp": 12.0, "ddp": 18.0}, 2, "dp reaches 12.0"),
    ],
)
def test_the_fastest_way_that_works_is_recommended(
    speeds: dict[str, float], gpus: int, advice: str
) -> None:
    assert advice in recommend(speeds, gpus)


@pytest.mark.parametrize(
    ("failure", "fix"),
    [
        ("CUDA error: no kernel image is available for execution", "newer card"),
        ("CUDA out of memory. Tried to allocate 2 GiB", "--batch-size"),
        ("process 1 of 2 was killed (SIGBUS)", "--shm-size"),
        ("CUDA error: misaligned address", "--parallel ddp"),
        ("DistBackendError: NCCL error in: ...", "NCCL_P2P_DISABLE"),
        ("something new", "CUDA_LAUNCH_BLOCKING"),
    ],
)
def test_a_known_failure_names_its_fix(failure: str, fix: str) -> None:
    assert fix in fix_for(failure)


def order(folder: Path, trial: Trial, config: Config) -> None:
    values = {"trial": dataclasses.asdict(trial), "config": config.as_dict(), "steps": 1}
    (folder / "trial.json").write_text(json.dumps(values))


def outcomes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text())["check"] for path in sorted(folder.glob("part-*"))]


def test_every_part_runs_on_the_cpu(tmp_path: Path, settings: Config) -> None:
    order(tmp_path, CPU, settings)
    assert trial.main([str(tmp_path)]) == 0
    checks = outcomes(tmp_path)
    assert [check["name"] for check in checks] == [f"CPU, {part}" for part in ALL]
    assert all(check["ok"] for check in checks), checks
    assert "images/s" in checks[-1]["detail"]


def test_a_wrong_gradient_and_a_crash_fail_alone(
    tmp_path: Path, settings: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrapper under test is not the reference: whoever drops a part of the batch is caught."""

    class Half(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, image: Any, mask: Any) -> Any:
            return self.module(image[:1], mask[:1])

    def wrap(module: nn.Module, devices: Any) -> nn.Module:
        return module if devices.kind == "one" else Half(module)

    def crash(share: Any) -> Any:
        raise RuntimeError("CUDA error: misaligned address\nmore lines")

    monkeypatch.setattr(trial, "parallel", wrap)
    monkeypatch.setitem(trial.PARTS, "convolution", crash)
    order(tmp_path, CPU, settings)
    assert trial.main([str(tmp_path)]) == 0
    crashed, differs, recomputed, training = outcomes(tmp_path)
    assert crashed["detail"] == "RuntimeError: CUDA error: misaligned address"
    assert "--parallel ddp" in crashed["fix"]
    assert not differs["ok"]
    assert "differ from" in differs["detail"]
    assert not recomputed["ok"]
    assert training["ok"]


def test_a_gradient_that_is_no_number_never_agrees() -> None:
    one, nan = torch.ones(2), torch.full((2,), torch.nan)
    assert trial._compare([(one, one)], 0.01, "loss", "the CPU")[0]
    for pairs in ([(one, one), (one, nan)], [(one, nan), (one, one)]):
        same, detail, _ = trial._compare(pairs, 0.01, "loss", "the CPU")
        assert not same
        assert "differ from" in detail


def test_data_parallels_split_agrees_with_one_device(
    tmp_path: Path, settings: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two made-up GPUs that live on the CPU: chunks of the batch, gathered as DataParallel does."""

    class Made(Devices):
        @property
        def main(self) -> torch.device:
            return torch.device("cpu")

    class Split(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, image: Any, mask: Any) -> Any:
            chunks = zip(image.chunk(2), mask.chunk(2), strict=True)
            parts = [self.module(*chunk) for chunk in chunks]
            return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def wrap(module: nn.Module, devices: Devices) -> nn.Module:
        assert devices.ids == ((0, 1) if devices.kind == "dp" else (0,))
        return Split(module) if devices.kind == "dp" else module

    monkeypatch.setattr(trial, "Devices", Made)
    monkeypatch.setattr(trial, "parallel", wrap)
    together = Trial("DataParallel", "dp", (0, 1), 1, ALL[1:3])
    order(tmp_path, together, settings)
    assert trial.main([str(tmp_path)]) == 0
    assert [check["ok"] for check in outcomes(tmp_path)] == [True, True]


def fake_ranks(error: RankFailed, **files: str) -> Callable[[list[str], int], None]:
    def start(arguments: list[str], processes: int) -> None:
        for name, text in files.items():
            (Path(arguments[1]) / name.replace("_", "-")).write_text(text)
        raise error

    return start


DONE = json.dumps({"check": {"name": "a", "ok": True, "seconds": 1, "detail": ""}, "speed": 0.0})
DIED = RankFailed("process 1 of 2 was killed (SIGKILL)", 1, silent=False)


def test_what_breaks_off_is_named_and_the_rest_is_said_to_be_untried(
    monkeypatch: pytest.MonkeyPatch, settings: Config
) -> None:
    monkeypatch.setattr(doctor, "start_ranks", fake_ranks(DIED, part_0=DONE))
    checks, speed = run_trial(CPU, settings, 1)
    assert [check.ok for check in checks] == [True, False, None, None]
    assert checks[1].name == "CPU, network"
    assert "SIGKILL" in checks[1].detail
    assert speed == 0.0


def test_the_cause_is_told_not_what_followed_from_it(
    monkeypatch: pytest.MonkeyPatch, settings: Config
) -> None:
    errors = {"error_0": "PeerLost: the connection broke", "error_1": "OutOfMemoryError: CUDA out"}
    monkeypatch.setattr(doctor, "start_ranks", fake_ranks(DIED, **errors))
    assert run_trial(CPU, settings, 1)[0][0].detail == errors["error_1"]


def test_a_failure_after_the_last_part_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, settings: Config
) -> None:
    done = {f"part_{number}": DONE for number in range(len(ALL))}
    monkeypatch.setattr(doctor, "start_ranks", fake_ranks(DIED, **done))
    assert [check.ok for check in run_trial(CPU, settings, 1)[0]] == [True] * len(ALL) + [False]


def test_what_hangs_is_said_to_hang(monkeypatch: pytest.MonkeyPatch, settings: Config) -> None:
    monkeypatch.setattr(doctor, "TIMEOUT", -1)
    monkeypatch.setattr(doctor, "start_ranks", fake_ranks(DIED, error_0="PeerLost: broke"))
    check = run_trial(CPU, settings, 1)[0][0]
    assert "did not finish" in check.detail
    assert "NCCL_P2P_DISABLE" in check.fix


def test_ctrl_c_ends_the_check_up(monkeypatch: pytest.MonkeyPatch, settings: Config) -> None:
    stopped = RankFailed("stopped on request", STOPPED, silent=True)
    monkeypatch.setattr(doctor, "start_ranks", fake_ranks(stopped))
    with pytest.raises(KeyboardInterrupt):
        run_trial(CPU, settings, 1)


def test_two_real_processes_agree_with_one(settings: Config) -> None:
    trial = Trial("DDP", "ddp", (), 2, ("network", "training"))
    checks, speed = run_trial(trial, settings, 1)
    assert [check.ok for check in checks] == [True, True], checks
    assert "agree with" in checks[0].detail
    assert speed > 0


def test_a_way_that_fails_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def run(trial: Trial, config: Config, steps: int) -> tuple[list[CheckResult], float]:
        return [CheckResult(trial.name, trial.mode == "none", 1.0, "")], 7.0

    monkeypatch.setattr(doctor, "run_trial", run)
    lines: list[str] = []
    report = check_machine(lines.append, quick=True)
    assert len(lines) == 2
    assert report.speeds == {"none": 7.0}
    assert not report.healthy
    assert "DataParallel" in report.text()
    assert "needs a GPU" in report.text()


def test_limits_on_a_cpu_are_estimates_with_flags(tiny: Config) -> None:
    limits, text = find_limits(tiny.replace(accumulation_steps=2))
    assert [(limit.stage, limit.part) for limit in limits] == [("one", 1), ("two (all)", 2)]
    assert not any(limit.measured for limit in limits)
    assert limits[0].batch >= limits[1].batch > 8
    assert "--batch-size 8 --stage2-batch-size 8 --accumulation-steps 1" in text


def test_a_batch_that_had_to_be_split_does_not_fit(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = pick_devices("cpu")
    state = build_state(tiny, build_net(tiny), devices, choose_precision(devices))
    settings = step_settings(tiny)
    state.open_blocks(4)
    doctor._whole_step(state, settings, 64, 2)
    before = {name: value.clone() for name, value in state.net.state_dict().items()}
    doctor._whole_step(state, settings, 64, 2)
    moved = [not torch.equal(before[name], value) for name, value in state.net.named_parameters()]
    assert any(moved), "the optimiser takes a step"
    monkeypatch.setattr(doctor, "run_steps", lambda state, *rest, steps: state.split_further())
    with pytest.raises(torch.OutOfMemoryError):
        doctor._whole_step(state, settings, 64, 2)
