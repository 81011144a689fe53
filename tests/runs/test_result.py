"""What a run says of itself to people in Python."""

from __future__ import annotations

from pathlib import Path

from equal_runs import stop_after

from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.fit import fit


def test_an_empty_folder_is_no_error(tmp_path: Path) -> None:
    run = Run(tmp_path / "none")
    assert repr(run) == f"Run({str(run.folder)!r})"
    assert "nothing is trained here yet" in run._repr_html_()
    assert run.best_iou is run.best_epoch is None and not run.finished and run.epochs == 0


def test_results_have_names(tiny: Config) -> None:
    run = fit(tiny, report=stop_after(8))
    assert (run.epochs, run.finished, run.config.epochs) == (1, False, 2)
    first = run.records("epoch")[0]
    assert run.best_iou == max(first["iou"], first["iou_ema"])
    assert "1 of 2, not finished: fit(run, resume=True) goes on" in run._repr_html_()
    run = fit(tiny, resume=True)
    assert run.best_iou == run.load_json("summary")["best"]["iou"]
    assert run.best_epoch == run.load_json("summary")["best"]["epoch"]
    assert repr(run).endswith(f", best_iou={run.best_iou:.3f}, epochs=2, finished=True)")
    assert "2 of 2, finished" in run._repr_html_()


def test_a_file_that_cannot_be_read_is_told(tiny: Config) -> None:
    run = fit(tiny)
    run.save_text("summary.json", "{")
    assert repr(Run(run.folder)) == f"Run({str(run.folder)!r}" + ")"
    assert "summary.json" in Run(run.folder)._repr_html_()
