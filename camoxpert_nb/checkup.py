"""What a check-up found, and how it is said."""

from __future__ import annotations

import dataclasses
import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .machine import Facts, Finding

FIXES = {
    "no kernel image": "Use a newer card, or a PyTorch build that has kernels for this one.",
    "out of memory": "Free the GPU (`nvidia-smi` shows who uses it), or lower --batch-size.",
    "bus error": "/dev/shm is full: start the container with --shm-size=2g.",
    "sigbus": "/dev/shm is full: start the container with --shm-size=2g.",
    "nccl": "Set NCCL_P2P_DISABLE=1, make /dev/shm larger, or train with --parallel none.",
    "misaligned": "Train with --parallel ddp, or none: the GPUs disturb each other in one process.",
    "illegal memory": "Train with --parallel ddp, or none; update the driver.",
    "not finish": "Set NCCL_P2P_DISABLE=1 and try again; until then train with --parallel none.",
    "differ": "Do not train this way on this machine; update driver and PyTorch, try again.",
    "not finite": "Train with --no-amp; if that does not help, update driver and PyTorch.",
    "cudnn": "Update the driver, or install a PyTorch for an older CUDA.",
}


@dataclass(frozen=True)
class Check:
    """Something that was run: `ok` is None when it was not, and `detail` says why."""

    name: str
    ok: bool | None
    seconds: float
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Checkup:
    """The whole check-up; `speeds` are images per second by the value of --parallel."""

    facts: Facts
    findings: Sequence[Finding]
    checks: Sequence[Check]
    speeds: dict[str, float]
    recommendation: str

    @property
    def healthy(self) -> bool:
        """Say whether nothing failed and nothing stops a training."""
        failed = any(check.ok is False for check in self.checks)
        return not failed and all(finding.weight != "stop" for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One sentence: healthy or not."""
        if self.healthy:
            return f"Healthy: {sum(check.ok is True for check in self.checks)} checks passed."
        failed = sum(check.ok is False for check in self.checks)
        stops = sum(finding.weight == "stop" for finding in self.findings)
        return f"NOT healthy: {failed} checks failed, {stops} findings stop a training."

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, the report itself among them."""
        said = {"healthy": self.healthy, "verdict": self.verdict, "text": self.text()}
        return dataclasses.asdict(self) | said

    def text(self) -> str:
        """Return the report for a terminal."""
        words = {True: "ok", False: "FAILED", None: "not run"}
        sections = {
            "Machine": [(name, what, "") for name, what in self.facts.rows()],
            "Findings": [(each.weight, each.what, each.fix) for each in self.findings],
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
    return textwrap.fill(head + text, 100, subsequent_indent=" " * len(head))


def fix_for(failure: str) -> str:
    """Return what to do about an error message."""
    known = (fix for sign, fix in FIXES.items() if sign in failure.lower())
    return next(known, "Restart the session and try again; CUDA_LAUNCH_BLOCKING=1 tells more.")
