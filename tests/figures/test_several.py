"""Several runs in one figure: a line for each, told apart, and what cannot be compared."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from fabricated import fabricated
from matplotlib.text import Text

from camoxpert_nb.cli import main as cli
from camoxpert_nb.errors import InputError
from camoxpert_nb.figures.several import MOST, show_runs
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config


def make_run(folder: Path, epochs: int, validation: str = "same") -> Run:
    folder.mkdir(parents=True)
    run = Run(folder)
    run.save_config(make_config("tiny", epochs=max(epochs, 2)))
    for record in fabricated(epochs):
        kind = record.pop("kind")
        record.pop("time")
        run.log(kind, **record, **({"validation": validation} if kind == "epoch" else {}))
    return run


def words(figure) -> str:
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_each_run_has_a_line_and_its_best(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, epochs) for name, epochs in (("one", 3), ("two", 6))]
    figure = show_runs(runs)
    scores, losses = figure.axes
    assert [len(line.get_xdata()) for line in scores.lines] == [3, 6]
    assert scores.lines[1].get_ydata()[-1] == pytest.approx(0.72 * (1 - 1 / 6))
    assert losses.lines[0].get_ydata()[0] == pytest.approx(1.1)  # val_loss, not the sum
    assert "Validation structure loss" in words(figure)
    said = words(figure)
    assert "one, best IoU 0.480" in said and "two, best IoU 0.600" in said and "2 runs" in said
    assert "not to be compared" not in said


def test_runs_on_other_images_are_not_compared(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, 2, name) for name in ("one", "two")]
    assert "validated on 2 different sets of images" in words(show_runs(runs))


def test_another_loss_has_no_line_among_structure_losses(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, 3) for name in ("kit", "own", "legacy")]
    runs[1].save_json("own", {"loss": "dice"})
    runs[2].save_config(make_config("tiny", legacy_loss=True))
    figure = show_runs(runs)
    drawn = [bool(np.isfinite(line.get_ydata()).any()) for line in figure.axes[1].lines]
    assert drawn == [True, False, False]
    assert "(2 without)" in words(figure)


def test_folders_of_one_name_are_told_apart_and_many_are_counted(tmp_path: Path) -> None:
    for number in range(MOST + 2):
        make_run(tmp_path / f"{number}" / "run", 2)
    figure = show_runs([tmp_path / f"{number}" / "run" for number in range(MOST + 2)])
    lines = figure.axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == MOST
    assert len({line.get_label() for line in lines}) == MOST and "2 more not drawn" in words(figure)


def test_what_is_no_run_is_answered_and_no_epoch_is_said(tmp_path, monkeypatch) -> None:
    with pytest.raises(InputError, match="holds no run"):
        show_runs([tmp_path])
    assert "No run here has ended an epoch yet" in words(show_runs([make_run(tmp_path / "new", 0)]))
    monkeypatch.chdir(tmp_path)
    assert "No run here" in words(show_runs())


def test_the_terminal_draws_them_too(tmp_path, capsys) -> None:
    make_run(tmp_path / "runs" / "one", 3)
    file = tmp_path / "runs.png"
    assert cli.main(["runs", str(tmp_path / "runs"), "--figure", str(file)]) == 0
    assert (
        file.read_bytes().startswith(b"\x89PNG") and f"drawn in {file}" in capsys.readouterr().out
    )


def test_one_run_is_named_and_its_loss_keeps_off_the_border(tmp_path: Path) -> None:
    figure = show_runs([make_run(tmp_path / "one", 3)])
    loss = figure.axes[1]
    assert loss.get_ylim()[1] > 1.05 * loss.lines[0].get_ydata().max()
    title = figure.get_suptitle()
    assert "one" in title and "1 run" not in title
