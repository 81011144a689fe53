"""A training in a notebook's cell: one output, the last epochs, notes, and a log of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import IPython.display
import pytest
from jupyter_client.manager import start_new_kernel

from camoxpert_nb.cli.cell import EPOCHS, CellConsole
from camoxpert_nb.runs.run import Run


class Shown:
    """The output of a cell, and how often it was renewed."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def update(self, bundle: dict[str, str], raw: bool = False) -> None:
        self.texts.append(bundle["text/plain"])

    def display(self, bundle: dict[str, str], **how: Any) -> Shown:
        self.update(bundle)
        return self


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    output = Shown()
    monkeypatch.setattr(IPython.display, "display", output.display)
    return output


def test_a_long_training_stays_one_short_output(shown: Shown, tmp_path: Path) -> None:
    console = CellConsole(())
    console.log = tmp_path / "log.txt"
    console.say("CamoXpert\n" + "\n".join(f"row{n} value" for n in range(30)) + "\nNOTE: mind it.")
    for number in range(100):
        console.say(f"epoch {number:>3} all  loss 0.5")
        console.say("          experts %  texture 14")
    lines = shown.texts[-1].splitlines()
    assert lines[:3] == [
        "CamoXpert",
        "NOTE: mind it.",
        "... 92 epochs before: log.txt in the run's folder",
    ]
    assert lines[3:] == [f"epoch {number:>3} all  loss 0.5" for number in range(92, 100)]
    assert len(lines) == 3 + EPOCHS
    assert console.log.read_text().count("experts") == 100


def test_steps_move_one_line_and_seldom(shown: Shown) -> None:
    console = CellConsole(())
    record = {"kind": "step", "epoch": 1, "stage": "all", "steps": 500, "loss": 0.3}
    for step in range(1, 500):
        console.report(record | {"step": step, "images_per_second": 9.0})
    assert len(shown.texts) == 1
    assert "step 1/500" in shown.texts[0] and "\x1b" not in shown.texts[0]


CELL = """
from camoxpert_nb import fit, make_config
run = fit(make_config("tiny", epochs=5000, device="cpu", dataset_path={data!r}, cache_dir={cache!r},
          checkpoint_dir={run!r}))
"""


def test_a_kernels_interrupt_saves_and_says_how_to_go_on(
    camouflage: Path, cache: Path, tmp_path: Path
) -> None:
    where = {"data": str(camouflage), "cache": str(cache), "run": str(tmp_path / "run")}
    code, shown, interrupted = CELL.format(**where), "", False
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    try:
        asked = client.execute(code)
        while True:
            message = client.get_iopub_msg(timeout=120)
            if message["parent_header"].get("msg_id") != asked:
                continue
            data = message["content"].get("data", {})
            shown = data.get("text/plain", shown)
            if "epoch   2" in shown and not interrupted:
                interrupted = True  # a second one would not wait for the save
                manager.interrupt_kernel()
            if message["content"].get("execution_state") == "idle":
                break
        reply = client.get_shell_msg(timeout=60)
        assert reply["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert "Stopped as asked; everything is saved. Go on with:" in shown
    assert f"fit({str(tmp_path / 'run')!r}, resume=True)" in shown
    run = Run(tmp_path / "run")
    assert run.has("last") and run.records("stop") and not run.finished
