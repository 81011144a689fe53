"""A training in a notebook's cell: one output, the last epochs, notes, and a log of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import IPython.display
import pytest

from camoxpert_nb.cli.cell import EPOCHS, CellConsole


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
