"""The script for machines with a GPU goes through its phases on a CPU, small."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GPU = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def small(out: Path, *phases: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(GPU), "--small", "--out", str(out), *phases]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # other tests want the other cores
    return subprocess.run(words, capture_output=True, text=True, timeout=240, env=env)


def found(out: Path, phase: str) -> Any:
    return json.loads((out / f"{phase}.json").read_text())["found"]


def test_the_phases_for_a_gpu_write_what_they_found_once(tmp_path: Path) -> None:
    done = small(tmp_path, "steps", "half", "fit")
    assert done.returncode == 0, done.stderr
    steps, half, fit = (found(tmp_path, phase) for phase in ("steps", "half", "fit"))
    for each in (steps["heavy"], steps["light"]):
        assert each.keys() == {"FPN", "Unet", "CamoXpert", "CamoXpert, graph"}
        assert all(step["wall_ms"] > 0 and step["kernels"] > 100 for step in each.values())
    assert all(each["first"] > each["last"] > 0 for each in half.values())
    for each in (fit["heavy"], fit["light"]):
        assert [epoch["epoch"] for epoch in each["epochs"]] == [1, 2, 3, 4, 5]
        assert all(sum(epoch["time_percent"].values()) > 99 for epoch in each["epochs"])
    before = (tmp_path / "half.json").read_bytes()
    assert "done before" in small(tmp_path, "half").stdout
    assert (tmp_path / "half.json").read_bytes() == before


def test_steps_of_a_card_are_compared_with_their_forecast(tmp_path: Path) -> None:
    """The file is as `gpu.py` writes it; the kernel times are made up."""
    measured = {"kernel_ms": 10.0, "peak_gib": 0.5}
    steps = {"test_resnet, 64 px x 4": measured, "test_convnext, 96 px x 2": measured}
    result = {"machine": {"card": "NVIDIA H100 80GB HBM3"}, "found": steps}
    (tmp_path / "unseen.json").write_text(json.dumps(result))
    words = [sys.executable, str(GPU.with_name("fit_forecast.py")), "--unseen"]
    done = subprocess.run([*words, str(tmp_path / "unseen.json")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [row[:4] for row in rows] == [name.split()[:4] for name in steps]
    for row in rows:
        ms, forecast, ratio, gib, likely, share = map(float, row[5:])
        assert (ms, gib) == (10.0, 0.5) and forecast > 0.1 and likely > 0.05
        assert (ratio, share) == (
            pytest.approx(forecast / 10, abs=0.01),
            pytest.approx(likely / 0.5, abs=0.02),
        )


def test_an_unknown_phase_and_no_gpu_are_said(tmp_path: Path) -> None:
    assert (
        "there are steps, unseen, fit, start, half, doctor, tests" in small(tmp_path, "step").stderr
    )


@pytest.fixture
def ablation(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module; its trainings are processes of their own in any case."""
    monkeypatch.syspath_prepend(str(GPU.parent))
    return importlib.import_module("ablation")


TINY = ('backbone="test_resnet"', "img_size=64", "epochs=1", "batch_size=4", "width=16")


def test_an_ablation_is_a_queue_whose_jobs_are_done_once(
    ablation: Any,
    camouflage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def ablate(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["ablation.py", *map(str, words)])
        ablation.main()
        return capfd.readouterr().out

    names, out = ("constant", "none"), tmp_path / "out"
    queue = ablate("queue", "--names", *names, "--folds", 2, "--only", 1, "--set", *TINY)
    (tmp_path / "queue.jsonl").write_text(queue)
    words = (tmp_path / "queue.jsonl", "--data", camouflage, "--out", out, "--folds", 2)
    assert "2 trainings, 2 to do" in ablate("run", *words)
    assert "2 trainings, 0 to do" in ablate("run", *words)
    records = [json.loads(path.read_text()) for path in out.glob("*.json")]
    photos = {
        name: set(each["photos"]["plain"]["iou"])
        for each in records
        for name in [each["job"]["name"]]
    }
    assert photos.keys() == set(names) and len({frozenset(each) for each in photos.values()}) == 1
    assert len(photos["none"]) > 5
    assert records[0]["photos"]["plain"] != records[0]["photos"]["mirrored"]
    table = ablate("table", out, "--against", "constant").splitlines()
    rows = {line.split("|")[1].strip(): line for line in table[2:]}
    assert "+0.0000 +- 0.0000" in rows["constant"] and "+0.0000 +- 0.0000" not in rows["none"]
    with pytest.raises(SystemExit, match="no record of FPN"):
        ablate("table", out, "--against", "FPN")


def test_the_folds_part_all_photos(ablation: Any) -> None:
    names = [f"photo{number}" for number in range(400)]
    folds = [ablation.fold_of(name, 4) for name in names]
    assert folds == [ablation.fold_of(name, 4) for name in names]
    assert all(70 < folds.count(fold) < 130 for fold in range(4))


def test_a_steps_operations_are_counted() -> None:
    command = [sys.executable, str(GPU.with_name("bench_step.py")), "--backbone", "test_convnext"]
    command += ["--size", "64", "--batch", "2", "--names", "CamoXpert", "FPN"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    cells = {row.split("|")[1].strip(): row.split("|")[2:] for row in done.stdout.splitlines()[2:]}
    operations = {name: int(values[0].replace(",", "")) for name, values in cells.items()}
    assert operations["CamoXpert"] > operations["FPN"] + 200 > 400
    assert float(cells["CamoXpert"][1]) > 0 and float(cells["FPN"][2]) > 0
