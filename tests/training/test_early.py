"""A training that ends before its last epoch, and what becomes of it when it is resumed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from equal_runs import stop_after

from camoxpert_nb.errors import InputError
from camoxpert_nb.machine.distributed import ALONE
from camoxpert_nb.runs.process import status
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training import score
from camoxpert_nb.training.best import last_better, update_best
from camoxpert_nb.training.early import Over, refuse_over, why_over
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.resume import as_saved, resumed_config
from camoxpert_nb.training.validate import Validation

NOISE = (-0.02, 0.01, 0.01)  # of images around their mean


def scored(iou: float) -> Validation:
    return Validation(iou, 0.1, tuple(iou + each for each in NOISE), 0, True, 1.0)


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the epochs score, in order; the last one for all that follow."""
    coming = [0.5]

    def validate(*args: Any, **how: Any) -> Validation:
        return scored(coming.pop(0) if len(coming) > 1 else coming[0])

    monkeypatch.setattr(score, "validate", validate)
    return coming


@pytest.fixture
def six(tiny: Config) -> Config:
    return tiny.replace(epochs=6, stage1_epochs=1, use_ema=False, progressive_unfreeze=False)


def epochs_of(run: Run) -> list[int]:
    return [record["epoch"] for record in run.records("epoch")]


def test_better_is_what_exceeds_all_before_by_more_than_chance() -> None:
    best: dict[str, Any] = {}
    for epoch, iou in enumerate((0.5, 0.49, 0.5, 0.501, 0.48, 0.6, 0.55), 1):
        spread = 0.01 * (epoch % 2)  # of the differences between two epochs
        ious = tuple(iou + spread * each for each in (-1.0, 0.0, 1.0))
        best, _ = update_best(best, epoch, "raw", Validation(iou, 0.1, ious, 0), "best")
    assert last_better(best)["epoch"] == 6
    assert last_better({}) == {}


def test_small_steps_add_up_to_a_better_score() -> None:
    best: dict[str, Any] = {}
    marks = []
    for epoch in range(1, 8):
        wobble = (0.01, -0.01, 0.0) if epoch % 2 else (-0.01, 0.01, 0.0)
        iou = 0.5 + 0.004 * epoch
        ious = tuple(iou + each for each in wobble)
        best, _ = update_best(best, epoch, "raw", Validation(iou, 0.1, ious, 0), "best")
        marks.append(last_better(best)["epoch"])
    assert marks[1] == 1  # 0.004 is within what two epochs differ by
    assert marks[-1] > 1


def test_an_older_run_counts_from_its_highest_epoch() -> None:
    old = {"epoch": 3, "iou": 0.5, "weights": "raw"}
    assert last_better(old) == {**old, "ious": []}
    old |= {"highest": {"epoch": 2, "iou": 0.51}, "ious": [0.5, 0.52]}
    assert last_better(old) == {"epoch": 2, "iou": 0.51, "ious": [0.5, 0.52]}
    best, _ = update_best(old, 4, "raw", scored(0.6))
    assert last_better(best)["epoch"] == 4


def test_patience_ends_a_training_whole(six: Config, scores: list[float]) -> None:
    scores[:] = [0.5, 0.6, 0.6]
    said: list[dict[str, Any]] = []
    run = fit(six.replace(patience=2), report=said.append)
    assert epochs_of(run) == [1, 2, 3, 4]
    end, note = run.newest(), said[-2]
    assert end["kind"] == "end"
    assert "none of the last 2 epochs was better than epoch 2 (IoU 0.600)" in end["why"]
    assert end["why"] in note["message"]
    summary = run.load_json("summary")
    assert summary["finished"]
    assert summary["ended_early"] == end["why"]
    assert run.load("last")["epoch"] == 4
    assert run.load("best")["epoch"] == 4  # as good as the second: within chance
    assert status(run).name == "finished"


def test_an_early_end_is_gone_over_only_when_told(six: Config, scores: list[float]) -> None:
    run = fit(six.replace(patience=2))
    assert epochs_of(run) == [1, 2, 3]  # stage two's first epoch is the second
    before = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    for changes in ({}, {"patience": 1}):
        config = resumed_config(run.folder, changes)
        with pytest.raises(
            InputError, match=r"over since epoch 3 of 6.*--patience 0, or more than 2"
        ):
            fit(config, resume=True)
    after = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    assert before == after
    assert status(run).name == "finished"
    fit(resumed_config(run.folder, {"patience": 3}), resume=True)
    assert epochs_of(run) == [1, 2, 3, 4]
    fit(resumed_config(run.folder, {"patience": 0}), resume=True)
    assert epochs_of(run) == [1, 2, 3, 4, 5, 6]
    assert run.load_json("summary")["ended_early"] == ""
    fit(resumed_config(run.folder, {"patience": 1}), resume=True)  # all epochs are done anyway


def test_the_count_survives_an_interruption(six: Config, scores: list[float]) -> None:
    per_epoch = fit(six.replace(checkpoint_dir=six.checkpoint_dir + "-whole")).newest()["step"] // 6
    config = six.replace(patience=2)
    run = fit(config, report=stop_after(2 * per_epoch + 1))
    assert epochs_of(run) == [1, 2]
    assert not run.load_json("summary")["finished"]
    fit(config, resume=True)
    assert epochs_of(run) == [1, 2, 3]


def test_stage_one_ends_no_training_that_has_a_stage_two(tiny: Config, scores: list[float]) -> None:
    two = tiny.replace(epochs=5, stage1_epochs=3, use_ema=False)
    run = fit(two.replace(patience=1))
    assert epochs_of(run) == [1, 2, 3, 4]
    one = tiny.replace(epochs=5, stage1_epochs=5, checkpoint_dir=tiny.checkpoint_dir + "-one")
    assert epochs_of(fit(one.replace(patience=1, use_ema=False))) == [1, 2]


def test_a_training_stops_at_its_target(six: Config, scores: list[float]) -> None:
    scores[:] = [0.5, 0.7, 0.9]
    run = fit(six.replace(stop_at_target=True, target_iou=0.7))
    assert epochs_of(run) == [1, 2]
    assert "the target is reached: IoU 0.700 at epoch 2" in run.load_json("summary")["ended_early"]
    assert run.load("best")["iou"] >= 0.7
    with pytest.raises(InputError, match="--no-stop-at-target, or a higher --target-iou"):
        as_saved(resumed_config(run.folder, {}), str(run.folder), ALONE)
    fit(resumed_config(run.folder, {"target_iou": 0.8}), resume=True)
    assert epochs_of(run) == [1, 2, 3]
    fit(resumed_config(run.folder, {"stop_at_target": False}), resume=True)
    assert epochs_of(run) == [1, 2, 3, 4, 5, 6]


def test_without_either_every_epoch_is_trained(six: Config, scores: list[float]) -> None:
    assert epochs_of(fit(six.replace(target_iou=0.1))) == [1, 2, 3, 4, 5, 6]


def over(config: Config, epoch: int, best: dict[str, Any], stages: str = "1112222222") -> str:
    """Say why a training would end after an epoch; `stages` has the part of each epoch."""
    parts = [(part, stages.index(part), stages.count(part)) for part in sorted({*stages})]
    rows = [SimpleNamespace(part=int(p), first_epoch=first) for p, first, _ in parts]
    plan, state = (
        SimpleNamespace(stages=rows, epochs=len(stages)),
        SimpleNamespace(epoch=epoch, best=best),
    )
    return why_over(config, plan, state)  # type: ignore[arg-type]


def known(epoch: int, iou: float, better: int) -> dict[str, Any]:
    held = {"epoch": epoch, "iou": iou, "ious": [iou]}
    return {**held, "highest": held, "better": {"epoch": better, "iou": 0.4, "ious": [0.4]}}


@pytest.mark.parametrize(
    ("epoch", "better", "ends"),
    [
        (4, 4, False),  # this one was
        (6, 4, False),
        (7, 4, True),  # three since
        (5, 1, False),  # stage two has its own count, from its begin after three epochs
        (6, 1, True),
        (3, 1, False),
        (10, 4, False),  # it is at its end anyway
    ],
)
def test_patience_counts_the_epochs_of_stage_two_since_a_better_one(
    tiny: Config, epoch: int, better: int, ends: bool
) -> None:
    """The weights that are kept may be of a later epoch, within the error."""
    found = over(tiny.replace(patience=3), epoch, known(epoch, 0.41, better))
    assert bool(found) == ends
    assert over(tiny, epoch, known(epoch, 0.41, better)) == ""  # without patience


def test_without_stage_two_patience_counts_from_the_first_epoch(tiny: Config) -> None:
    assert over(tiny.replace(patience=3), 4, known(4, 0.41, 1), "1111111111")
    assert not over(tiny.replace(patience=3), 3, known(3, 0.41, 1), "1111111111")


@pytest.mark.parametrize(("iou", "ends"), [(0.69, False), (0.7, True), (0.71, True)])
def test_a_target_that_is_met_is_reached(tiny: Config, iou: float, ends: bool) -> None:
    config = tiny.replace(target_iou=0.7)
    assert bool(over(config.replace(stop_at_target=True), 4, known(4, iou, 4))) == ends
    assert over(config, 4, known(4, iou, 4)) == ""


@pytest.mark.parametrize(
    ("iou", "way_on"),
    [(0.8, "--no-stop-at-target, or a higher --target-iou"), (0.5, "--patience 0, or more than 4")],
)
def test_a_run_that_is_over_names_the_flag_that_lets_it_go_on(
    tiny: Config, iou: float, way_on: str
) -> None:
    config = tiny.replace(target_iou=0.7, stop_at_target=True, patience=3)
    rows = [SimpleNamespace(part=2, first_epoch=0)]
    plan = SimpleNamespace(stages=rows, epochs=9)
    state = SimpleNamespace(epoch=6, best=known(6, iou, 2))
    with pytest.raises(Over, match=way_on):
        refuse_over(config, plan, state)  # type: ignore[arg-type]


# --- whole sentences

BETTER = "better than epoch {} (IoU 0.400) by more than chance"


@pytest.mark.parametrize(
    ("patience", "epoch", "begun", "said"),
    [
        (1, 5, 4, f"epoch 5 is not {BETTER.format(4)}"),
        (2, 5, 4, ""),
        (1, 6, 4, f"none of the last 2 epochs was {BETTER.format(4)}"),
        (3, 7, 4, f"none of the last 3 epochs was {BETTER.format(4)}"),
        (4, 7, 1, f"none of the last 4 epochs was {BETTER.format(1)}"),
        (0, 9, 4, ""),
    ],
)  # fmt: skip
def test_the_wait_is_told_as_it_was(
    tiny: Config, patience: int, epoch: int, begun: int, said: str
) -> None:
    assert over(tiny.replace(patience=patience), epoch, known(epoch, 0.41, begun)) == said


def refusal(config: Config, epoch: int, best: dict[str, Any]) -> str:
    rows = [SimpleNamespace(part=2, first_epoch=0)]
    plan = SimpleNamespace(stages=rows, epochs=9)
    with pytest.raises(Over) as caught:
        refuse_over(config, plan, SimpleNamespace(epoch=epoch, best=best))  # type: ignore[arg-type]
    return str(caught.value)


def test_a_run_that_is_over_says_since_when_and_why(tiny: Config) -> None:
    config = tiny.replace(target_iou=0.7, stop_at_target=True, patience=3)
    assert refusal(config, 6, known(5, 0.7, 2)) == (
        "this run is over since epoch 6 of 9: the target is reached: IoU 0.700 at epoch 5, to "
        "reach 0.7. To go on all the same, give --no-stop-at-target, or a higher --target-iou."
    )
    assert refusal(config, 6, known(5, 0.69, 2)) == (
        "this run is over since epoch 6 of 9: none of the last 4 epochs was better than epoch 2 "
        "(IoU 0.400) by more than chance. To go on all the same, give --patience 0, or more than 4."
    )
    going = SimpleNamespace(epoch=6, best=known(6, 0.5, 5))
    plan = SimpleNamespace(stages=[], epochs=9)
    refuse_over(config, plan, going)  # type: ignore[arg-type]


def test_without_stage_two_the_first_epoch_counts(tiny: Config) -> None:
    """That which was better may be none at all, as in a run of an older kit: 0."""
    held = known(1, 0.41, 0)
    assert over(tiny.replace(patience=1), 1, held, "1111").startswith("epoch 1 is not better than")
