"""The check-up: what this machine is, what runs on it, how fast, and how to train on it.

Each way to train is tried in processes of its own, started as a training's are: one that hangs or
spoils its GPU cannot spoil the others, nor the process that asked.
"""

from __future__ import annotations

import dataclasses
import html
import json
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..errors import STOPPED, PeerLost, RankFailed
from ..machine.devices import bare, choose_precision, cpu_count, pick_devices
from ..machine.distributed import start_ranks
from ..network.build import build_net
from ..outside.terminal import room
from ..settings.config import Config, make_config
from ..settings.decide import decide, effective_batches
from ..training.cost import Steps, measure_step, noise, run_steps
from ..training.memory import Limit, estimate_limit, limits_text, measure_limit
from ..training.prepare import build_state, step_settings
from ..training.schedule import build_plan
from ..training.state import TrainState
from ..training.train import StepSettings
from ..training.validate import validate
from .facts import Facts, MachineFinding, list_findings, read_facts, read_ram
from .trial import PARTS, TIMEOUT, CheckResult, Trial, fix_for

MAX_BATCH = 256  # images; nobody needs more
PHOTOS = 4040  # of a training whose stages are tried: the field's usual ones
TRIED = 4  # images in a step that tells what a CPU needs
UNKNOWN_RAM = 4.0  # GiB, where the system does not tell


def check_machine(
    progress: Callable[[str], None] = lambda line: None, *, quick: bool = False
) -> MachineReport:
    """Read the machine, try every way to train on it, and return what came of it.

    `progress` is told what is tried next. `quick` takes smaller images and fewer steps, and on one
    GPU, which trains in one way, starts one process. Needs one to three minutes.
    """
    facts = read_facts(cpu_count(), Path.cwd())
    config = _config(gpu=bool(facts.cards), quick=quick)
    checks: list[CheckResult] = []
    speeds: dict[str, float] = {}
    for trial in trials([card.index for card in facts.cards], quick=quick):
        progress(f"trying {trial.name} ...")
        results, speed = run_trial(trial, config, steps=5 if quick else 20)
        checks += results
        if speed and all(check.ok for check in results):
            speeds[trial.mode] = speed
    if not facts.cards:
        why = "needs a GPU; with one it would run on that alone, with two it would split each batch"
        checks.append(CheckResult("DataParallel", None, 0.0, why))
    if len(facts.cards) == 1 and quick:
        why = "one GPU needs neither; without --quick both are tried on it"
        checks.append(CheckResult("DataParallel and DDP", None, 0.0, why))
    advice = recommend(speeds, len(facts.cards))
    return MachineReport(facts, list_findings(facts), checks, speeds, advice)


def trials(ids: Sequence[int], *, quick: bool = False) -> list[Trial]:
    """Return what is tried with these GPUs: each alone, then all together in both ways.

    On a slow host a process needs a quarter of a minute to load PyTorch: with `quick`, one GPU is
    tried alone.
    """
    parts, gpus = tuple(PARTS), f"{len(ids)} GPU{'s' * (len(ids) > 1)}"
    if not ids:
        ddp = Trial("DDP, 2 processes over gloo", "ddp", (), 2, parts[1:])
        return [Trial("CPU", "none", (), 1, parts), ddp]
    alone = [Trial(f"GPU {i}", "none", (i,), 1, parts[: None if i == ids[0] else 1]) for i in ids]
    if quick and len(ids) == 1:
        return alone
    return [
        *alone,
        Trial(f"DataParallel over {gpus}", "dp", tuple(ids), 1, parts[1:]),
        Trial(f"DDP over {gpus}", "ddp", tuple(ids), len(ids), parts[1:]),
    ]


def run_trial(trial: Trial, config: Config, steps: int) -> tuple[list[CheckResult], float]:
    """Run a trial in new processes; return a result for each part, and images per second or 0."""
    started, failure = time.monotonic(), ""
    order = {"trial": dataclasses.asdict(trial), "config": config.as_dict(), "steps": steps}
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "trial.json").write_text(json.dumps(order), encoding="utf-8")
        try:
            start_ranks(["camoxpert_nb.doctor.trial", name], trial.processes)
        except RankFailed as error:
            if error.exit_code == STOPPED:
                raise KeyboardInterrupt from error
            errors = _read_all(name, "error-*")
            causes = [text for text in errors if not text.startswith(PeerLost.__name__)]
            failure = "; ".join(causes or errors) or str(error)
        seconds = time.monotonic() - started
        outcomes = [json.loads(text) for text in _read_all(name, "part-*")]
    if failure and seconds > TIMEOUT:
        failure = f"it did not finish within {TIMEOUT} s"
    results = [CheckResult(**outcome["check"]) for outcome in outcomes]
    missing = [f"{trial.name}, {part}" for part in trial.parts[len(results) :]]
    if failure:
        name, *missing = missing or [f"{trial.name}, end"]
        results.append(CheckResult(name, False, round(seconds, 1), failure, fix_for(failure)))
    why = "not tried, as the part before broke off"
    results += [CheckResult(name, None, 0.0, why) for name in missing]
    return results, max((outcome["speed"] for outcome in outcomes), default=0.0)


def _read_all(folder: str, pattern: str) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(Path(folder).glob(pattern))]


def recommend(speeds: dict[str, float], gpus: int) -> str:
    """Return which --parallel to use and by how much, from images per second of what works."""
    if not speeds:
        return "No way to train works here yet. Mend the first thing that failed, and try again."
    best = max(speeds, key=lambda mode: speeds[mode])
    if not gpus:
        return (
            "Train on the CPU, your own photos with the preset 'auto'; DDP works here too, but "
            "shares the same cores. With one GPU this check would try that one, with two or more "
            "it would measure DataParallel and DDP on them and name the faster."
        )
    rate = f"{speeds[best]:.1f} images per second"
    if gpus == 1 or len(speeds) == 1 or best == "none":
        return f"Use --parallel {best if gpus > 1 else 'none'}: {rate}."
    others = ", ".join(f"{way} reaches {speed:.1f}" for way, speed in speeds.items() if way != best)
    times = f", {speeds[best] / speeds['none']:.2f} times one GPU" if "none" in speeds else ""
    return f"Use --parallel {best}: {rate}{times} ({others})."


def find_limits(
    config: Config, progress: Callable[[str], None] = lambda line: None
) -> tuple[list[Limit], str]:
    """Return the largest batch per device of each stage, and a table with the flags to use.

    On a GPU whole steps are taken, validation included; on a CPU one step is measured and the rest
    estimated. One GPU is tried: DDP needs the same on each, DataParallel more on the first.
    """
    devices = pick_devices(config.device, parallel="none", gpus=config.gpus)
    precision = choose_precision(devices, config.amp)
    config = decide(config, PHOTOS, 1)
    state = build_state(config, build_net(config, empty=True), devices, precision)
    settings = replace(step_settings(config), accumulation=1)
    effective, limits = effective_batches(config, 1), list[Limit]()
    stages = build_plan(config, max(MAX_BATCH, *effective), 1).of_whole_images()
    for stage in stages:
        progress(f"looking for the largest batch of stage {stage.name} ...")
        state.open_blocks(stage.open_blocks)
        if devices.ids:
            step = partial(_whole_step, state, settings, config.img_size)
            limits.append(measure_limit(step, stage, devices.main, MAX_BATCH))
        else:
            cost, free = measure_step(state, settings, config.img_size, TRIED), read_ram()[1]
            limits.append(estimate_limit(cost, stage, free or UNKNOWN_RAM, MAX_BATCH))
    return limits, limits_text(limits, {stage.part: effective[stage.part - 1] for stage in stages})


def _whole_step(state: TrainState, settings: StepSettings, size: int, batch: int) -> Steps:
    """Take training steps and a validation; OutOfMemoryError where one fits in parts only."""
    state.parts.clear()
    steps = run_steps(state, settings, size, batch, steps=1)
    if state.parts_per_batch > 1:
        raise torch.OutOfMemoryError(f"{batch} images had to be split")
    dtype: Any = bare(state.supervised).dtype
    validate(state.net, [noise(batch, size)], dtype=dtype, device=state.device)
    return steps


def _config(*, gpu: bool, quick: bool) -> Config:
    if gpu:
        size = 128 if quick else 320
        return make_config("balanced-2gpu", pretrained=False, batch_size=8, img_size=size)
    return make_config("tiny") if quick else make_config("demo", batch_size=4, img_size=64)


@dataclass(frozen=True)
class MachineReport:
    """The whole check-up; `speeds` are images per second by the value of --parallel."""

    facts: Facts
    findings: Sequence[MachineFinding]
    checks: Sequence[CheckResult]
    speeds: dict[str, float]
    recommendation: str

    @property
    def healthy(self) -> bool:
        """Say whether nothing failed and nothing stops a training."""
        return not any(self._count_faults())

    @property
    def verdict(self) -> str:
        """One sentence: healthy or not."""
        if self.healthy:
            return f"Healthy: {sum(check.ok is True for check in self.checks)} checks passed."
        failed, stops = self._count_faults()
        return f"NOT healthy: {failed} checks failed, {stops} findings stop a training."

    def _count_faults(self) -> tuple[int, int]:
        stops = sum(finding.weight == "stop" for finding in self.findings)
        return sum(check.ok is False for check in self.checks), stops

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, the report itself among them."""
        derived = {"healthy": self.healthy, "verdict": self.verdict, "text": self.text()}
        return dataclasses.asdict(self) | derived

    @property
    def advice(self) -> str:
        """The recommendation in lines that a page shows whole."""
        return _wrapped("", self.recommendation)

    def text(self) -> str:
        """Return the report for a terminal."""
        words = {True: "ok", False: "FAILED", None: "not run"}
        sections: dict[str, list[tuple[str, str, str]]] = {
            "Machine": [(*row, "") for row in self.facts.rows()],
            "Findings": [dataclasses.astuple(finding) for finding in self.findings],
            "What was run": [
                (f"{words[c.ok]:<8} {c.seconds:>5.1f} s", f"{c.name}: {c.detail}", c.fix)
                for c in self.checks
            ],
            "Speed": [
                (f"--parallel {mode}", f"{speed:.1f} images per second", "")
                for mode, speed in self.speeds.items()
            ],
            "Advice": [("", self.recommendation, "")],
        }
        lines = []
        for title, rows in sections.items():
            lines += ["", title] if rows else []
            width = max((len(head) for head, _, _ in rows), default=0)
            for head, what, fix in rows:
                margin = f"  {head:<{width}}  " if width else "  "
                lines.append(_wrapped(margin, what))
                lines += [_wrapped(" " * len(margin), f"What to do: {fix}")] if fix else []
        return "\n".join([*lines[1:], "", self.verdict])

    def _repr_html_(self) -> str:
        return f"<b>{html.escape(self.verdict)}</b><pre>{html.escape(self.text())}</pre>"


def _wrapped(head: str, text: str) -> str:
    wide = min(room() or 100, 100)  # of the terminal, else of a page
    return textwrap.fill(head + text, wide, subsequent_indent=" " * len(head))
