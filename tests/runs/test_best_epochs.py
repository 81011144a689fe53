"""The checkpoints of the best epochs: which are kept, how they are named, what a kill leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from camoxpert_nb.errors import InputError, TrainingError
from camoxpert_nb.runs.best_epochs import (
    best_epochs,
    checkpoint_name,
    drop_epochs_after,
    is_among_the_best,
    keep_epoch,
)
from camoxpert_nb.runs.run import Run

IOUS = (0.1, 0.5, 0.3, 0.5, 0.45, 0.2, 0.61234, 0.0)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def keep(run: Run, count: int, first: int = 1, ious: tuple[float, ...] = IOUS) -> None:
    for epoch, iou in enumerate(ious, first):
        keep_epoch(run, count, epoch, iou, {"epoch": epoch})


def files(run: Run) -> list[str]:
    return sorted(path.name for path in run.folder.iterdir())


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_the_best_are_kept_under_names_that_say_epoch_and_score(run: Run, count: int) -> None:
    for epoch, iou in enumerate(IOUS, 1):
        keep_epoch(run, count, epoch, iou, {"epoch": epoch})
        assert len(files(run)) <= count
    ranked = sorted(((iou, epoch) for epoch, iou in enumerate(IOUS, 1)), reverse=True)
    assert [each.epoch for each in best_epochs(run.folder)] == [e for _, e in ranked[:count]]
    assert "best-epoch007-iou0.6123.pt" in files(run)
    for each in best_epochs(run.folder):
        assert torch.load(run.folder / f"{each.name}.pt") == {"epoch": each.epoch}


def test_an_epoch_that_is_trained_again_stands_once(run: Run) -> None:
    keep(run, 3)
    keep(run, 3, first=7, ious=(0.3, 0.7))
    found = {each.epoch: each.iou for each in best_epochs(run.folder)}
    assert found == {8: 0.7, 4: 0.5, 2: 0.5} and len(files(run)) == 3


def test_what_is_no_better_is_not_written(run: Run) -> None:
    keep(run, 2)
    before = files(run)
    assert not is_among_the_best(run, 2, 9, 0.4)
    assert not is_among_the_best(run, 20, 9, float("nan"))
    keep_epoch(run, 2, 9, 0.4, {})
    assert files(run) == before


def test_a_full_disk_and_a_kill_leave_what_was_there(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(run, 2)
    before = files(run)

    def full(state: dict, file: object) -> None:
        assert files(run) == sorted([*before, "best-epoch009-iou0.9000.pt.part"])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(TrainingError, match="disk is probably full"):
            keep_epoch(run, 2, 9, 0.9, {})
    assert files(run) == before

    class Killed(BaseException):
        pass

    def killed(self: Path, target: Path) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(Killed):
            keep_epoch(run, 2, 9, 0.9, {})
    assert [each.epoch for each in best_epochs(run.folder)] == [7]  # the worst was to go anyway
    drop_epochs_after(run, 8, 2)
    assert files(run) == ["best-epoch007-iou0.6123.pt"]
    keep_epoch(run, 2, 9, 0.9, {})
    assert [each.epoch for each in best_epochs(run.folder)] == [9, 7]


def test_epochs_after_the_last_save_and_too_many_are_dropped(run: Run) -> None:
    keep(run, 5)
    (run.folder / "best-epoch-notes.txt").write_text("mine")
    (run.folder / "best.pt").write_bytes(b"")
    drop_epochs_after(run, 6, 0)
    assert [each.epoch for each in best_epochs(run.folder)] == [4, 2, 5, 3]
    drop_epochs_after(run, 6, 2)
    assert [each.epoch for each in best_epochs(run.folder)] == [4, 2]
    assert {"best-epoch-notes.txt", "best.pt"} < set(files(run))


@pytest.mark.parametrize(
    "which",
    ["7", "007", "epoch7", "epoch 7", "best-epoch007-iou0.6123", "best-epoch007-iou0.6123.pt"],
)
def test_a_checkpoint_is_asked_for_by_its_epoch(run: Run, which: str) -> None:
    keep(run, 2)
    assert checkpoint_name(run.folder, which) == "best-epoch007-iou0.6123"
    assert checkpoint_name(run.folder, "best") == "best"
    assert checkpoint_name(run.folder, "last") == "last"


@pytest.mark.parametrize("which", ["8", "first", "", "../best", "7.5", "-7"])
def test_one_that_is_not_kept_is_refused_with_those_that_are(run: Run, which: str) -> None:
    with pytest.raises(InputError, match=r"keeps none \(train with --keep-best 3\)"):
        checkpoint_name(run.folder, which)
    keep(run, 2)
    with pytest.raises(InputError, match=r"It keeps epochs 4 and 7: --which takes best, last"):
        checkpoint_name(run.folder, which)


def test_of_scores_that_are_equal_to_four_places_the_later_is_kept(run: Run) -> None:
    keep_epoch(run, 1, 3, 0.81234, {"net": {}})
    assert is_among_the_best(run, 1, 5, 0.81226) and not is_among_the_best(run, 1, 2, 0.81234)
    keep_epoch(run, 1, 5, 0.81226, {"net": {}})
    assert [tuple(each) for each in best_epochs(run.folder)] == [(0.8123, 5)]
    assert is_among_the_best(run, 1, 9, 1.0)
    for odd in (float("nan"), 1.01, -0.01):
        assert not is_among_the_best(run, 9, 9, odd)
    assert is_among_the_best(run, 2, 9, 0.0)


def test_what_is_done_again_competes_with_others_alone(run: Run) -> None:
    """And after a kill those of the epoch that is done stay, in any number that is asked for."""
    for epoch, iou in ((1, 0.5), (2, 0.7), (3, 0.6)):
        keep_epoch(run, 3, epoch, iou, {"net": {}})
    keep_epoch(run, 3, 2, 0.1, {"net": {}})
    assert [each.epoch for each in best_epochs(run.folder)] == [3, 1, 2]
    drop_epochs_after(run, 3, 0)
    assert len(best_epochs(run.folder)) == 3  # no number: all stay
    drop_epochs_after(run, 2, 1)
    assert [each.epoch for each in best_epochs(run.folder)] == [1]
