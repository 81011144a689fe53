"""The notebooks in a real browser: buttons that are clicked, a page that is reloaded.

Skipped where there is no browser to drive; with CAMOXPERT_BROWSER set, as in CI, that is a failure.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Lab, lab, until, what_is_missing

from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config

START, FORM = "launch(plan", "ConfigPicker("  # what the cells of panel and form hold


@pytest.fixture(scope="module")
def page(camouflage: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    missing = what_is_missing()
    if missing and os.environ.get("CAMOXPERT_BROWSER"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    (folder / "runs").mkdir(parents=True)
    data = {"dataset_path": str(camouflage), "cache_dir": str(cache), "device": "cpu"}
    make_config("tiny", epochs=5000, **data).save(folder / "runs" / "next.json")
    with lab(folder) as opened:
        yield opened
        assert opened.errors == []  # what the page's own scripts complained about


def step(run: Run) -> int:
    return max((record.get("step", 0) for record in run.records()), default=0)


def until_it_moves(curve: Any) -> None:
    before = curve.get_attribute("src")
    until(lambda: curve.get_attribute("src") != before, "the curve to move")


def until_it_holds(run: Run) -> int:
    """Return the step at which a training stands still, which took several a second before."""

    def held() -> int:
        before = step(run)
        time.sleep(2)
        return before if step(run) == before else 0

    return int(until(held, "the training to hold"))


def test_a_training_is_watched_paused_reloaded_and_stopped(page: Lab) -> None:
    page.open("03_train")
    page.replace("LONG_ON_CPU = False", "LONG_ON_CPU = True")
    page.run_all()
    page.wait_for_cells(180)  # one step is measured first
    panel, run = page.cell(START), Run((page.folder / "runs" / "latest").resolve())
    curve = panel.get_by_role("img", name="Training and validation loss")
    until_it_moves(curve)

    page.press("Pause", START)
    panel.get_by_text("paused", exact=True).wait_for()
    held = until_it_holds(run)
    page.press("Resume", START)
    until(lambda: step(run) > held, "the training to go on")
    until_it_moves(curve)

    page.save()
    page.reload()
    until_it_moves(curve)
    page.press("Stop", START)
    panel.get_by_text("stopped", exact=True).first.wait_for()
    assert run.has("last") and run.training_pid() is None
    assert f"step {step(run)} of" in panel.inner_text()
    assert not panel.get_by_role("button", name="Resume").first.is_disabled()


def test_the_form_answers_while_one_types(page: Lab) -> None:
    page.open("02_configure")
    page.run_to(FORM)
    form = page.cell(FORM)
    form.get_by_label("preset", exact=True).select_option("tiny")
    terminal = form.get_by_label("in a terminal")
    until(lambda: terminal.input_value() == "camoxpert train --preset tiny", "the command line")

    def type_in(label: str, text: str) -> None:
        field = form.get_by_label(label, exact=True).first
        field.fill(text)
        field.press("Tab")

    type_in("epochs", "7")
    until(lambda: terminal.input_value().endswith("--epochs 7"), "the command line")
    assert "differs from tiny in: epochs 7" in form.inner_text()
    assert re.search(r"\d-7\s+", form.inner_text())  # stage two ends there

    type_in("image size", "9")
    complaint = form.get_by_text("Until then the last good settings stay")
    complaint.wait_for()
    assert "'image size'" in complaint.inner_text()
    assert "'image size' is 9" in form.inner_text() and "32" in form.inner_text()
    type_in("image size", "96")
    until(lambda: "--img-size 96" in terminal.input_value(), "the mended value")
    assert not complaint.is_visible()
    form.get_by_role("button", name="Save").click()
    form.get_by_text("saved to").wait_for()
    assert '"img_size": 96' in (page.folder / "runs" / "next.json").read_text()
