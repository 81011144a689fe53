"""A finished run that is resumed says so, and how it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_nb import fit as fit_in_python
from camoxpert_nb.cli.main import main
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.fit import fit


def test_a_finished_run_is_no_training_again(
    tiny: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(tiny)
    before = len(run.records("epoch"))
    assert main(["resume", str(run.folder)]) == 0
    said = capsys.readouterr().out
    assert "is finished already: all its epochs, 2, are trained" in said
    assert f"camoxpert resume {run.folder} --epochs N" in said
    assert "backbone " not in said
    assert "in 2 epochs before." in said
    fit_in_python(run, resume=True)
    said = capsys.readouterr().out
    assert f"fit(Config.load('{Path(run.folder) / 'config.json'}').replace(epochs=N)" in said
    assert len(run.records("epoch")) == before
    assert main(["resume", str(run.folder), "--epochs", "3"]) == 0
    said = capsys.readouterr().out
    assert "finished already" not in said and "in 3 epochs." in said
