"""The script for machines with a GPU goes through its phases on a CPU, small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

GPU = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def small(out: Path, *phases: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(GPU), "--small", "--out", str(out), *phases]
    return subprocess.run(words, capture_output=True, text=True, timeout=240)


def found(out: Path, phase: str) -> Any:
    return json.loads((out / f"{phase}.json").read_text())["found"]


def test_the_phases_for_a_gpu_write_what_they_found_once(tmp_path: Path) -> None:
    done = small(tmp_path, "steps", "half", "fit")
    assert done.returncode == 0, done.stderr
    steps, half, fit = (found(tmp_path, phase) for phase in ("steps", "half", "fit"))
    assert steps.keys() == {"FPN", "Unet", "CamoXpert", "CamoXpert, graph"}
    assert all(each["wall_ms"] > 0 and each["kernels"] > 100 for each in steps.values())
    assert all(each["first"] > each["last"] > 0 for each in half.values())
    assert [epoch["epoch"] for epoch in fit["epochs"]] == [1, 2, 3, 4, 5]
    before = (tmp_path / "half.json").read_bytes()
    assert "done before" in small(tmp_path, "half").stdout
    assert (tmp_path / "half.json").read_bytes() == before


def test_an_unknown_phase_and_no_gpu_are_said(tmp_path: Path) -> None:
    assert "there are steps, fit" in small(tmp_path, "step").stderr
