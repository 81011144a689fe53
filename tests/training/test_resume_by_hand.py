"""What begins and goes on, from runs that are made by hand: no step is trained here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from own_parts import dice

from camoxpert_nb import __version__
from camoxpert_nb.data.identity import Split
from camoxpert_nb.errors import InputError
from camoxpert_nb.machine.distributed import ALONE
from camoxpert_nb.runs.run import Onlooker, Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training import resume as module
from camoxpert_nb.training.early import Over
from camoxpert_nb.training.own import Own
from camoxpert_nb.training.prepare import Training, prepare
from camoxpert_nb.training.resume import (
    as_saved,
    begin,
    folder_for,
    prepare_for,
    resumed_config,
    take_over,
)
from camoxpert_nb.training.saving import made_by
from camoxpert_nb.training.schedule import Origin


def save(run: Run, training: Training, **state: Any) -> Run:
    """Save a state of these values, as a training would."""
    for name, value in state.items():
        setattr(training.state, name, value)
    run.save("last", training.state.state_dict() | made_by(training.config))
    return run


def made(config: Config, **state: Any) -> Run:
    """Return a run that began and was saved so far."""
    training, run = prepare(config), Run(config.checkpoint_dir)
    run.folder.mkdir(exist_ok=True)
    begin(training, run, None)
    return save(run, training, **state)


def refused(work: Any) -> str:
    with pytest.raises(InputError) as caught:
        work()
    return str(caught.value)


BEST = {
    "epoch": 2,
    "iou": 0.5,
    "weights": "raw",
    "ious": [0.5],
    "highest": {"epoch": 2, "iou": 0.5},
}


@pytest.fixture
def six(tiny: Config) -> Config:
    return tiny.replace(epochs=6, stage1_epochs=2, progressive_unfreeze=False, stage2_batch_size=3)


# --- what begins


def test_what_starts_is_written_down(six: Config) -> None:
    training, run = prepare(six), Run(six.checkpoint_dir)
    run.folder.mkdir()
    run.log("step", step=9, epoch=1)  # of a process that died
    run.request("stop")
    training.changes = ["changed before"]
    begin(training, run, None)
    (start,) = run.records()
    assert not run.wants("stop") and not (run.folder / "own.json").exists()
    assert start.pop("time") > 0
    assert start.pop("versions").keys() == {"camoxpert_nb", "torch", "timm", "python"}
    rows = {"first_epoch": 0, "epochs": 2, "steps": 6, "open_blocks": 0, "batch": 4, "area": 1.0}
    later = {"first_epoch": 2, "epochs": 4, "steps": 8, "open_blocks": 4, "batch": 3, "area": 1.0}
    assert start == {
        "kind": "start",
        "step": 0,
        "epoch": 0,
        "stages": [{"name": "one", **rows}, {"name": "two", **later}],
        "devices": list(training.device_lines),
        "changes": ["changed before"],
    }
    assert run.config == training.config
    split = run.load_json("split")
    assert [len(split[side]) for side in ("train", "validation")] == [26, 6]
    assert (run.folder.parent / "latest").resolve() == run.folder.resolve()


def test_the_names_of_own_parts_are_kept_and_let_go(
    six: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, training = Run(six.checkpoint_dir), prepare(six, own=Own(loss=dice))
    run.folder.mkdir()
    monkeypatch.setattr(Run, "point_latest", lambda self: "no link can be made")
    begin(training, run, None)
    assert run.load_json("own") == {"loss": "dice"}
    assert list(training.changes) == ["no link can be made"]
    begin(prepare(six), run, None)
    assert (run.folder / "own.json").exists() and run.load_json("own") == {}


def test_a_begun_run_goes_on_where_it_was(six: Config) -> None:
    """In its records too: what comes after the saved state is of a process that died."""
    run = made(six, epoch=1, seen=8, step=8)
    for epoch, step in ((1, 6), (2, 8), (2, 9)):
        run.log("step", step=step, epoch=epoch)
    training = prepare(six)
    begin(training, run, Split.load(run.load_json("split")))
    state = training.state
    assert (state.epoch, state.seen, state.step) == (1, 8, 8) and state.origin is None
    assert [each["step"] for each in run.records("step")] == [6, 8]
    assert [each["step"] for each in run.records("start")] == [0, 8]
    assert list(training.changes) == []


# --- where it goes on


def test_nothing_to_go_on_from_is_told(tmp_path: Path) -> None:
    for place in (tmp_path / "none", tmp_path):
        assert refused(lambda place=place: resumed_config(place, {})) == (
            f"{place}: no run to go on from. Give the folder of a run (it holds config.json and "
            "last.pt) or its last.pt. To take only weights, use --init-from."
        )


def test_a_run_goes_on_in_place_and_another_checkpoint_beside_it(six: Config) -> None:
    run = made(six)
    for source in (run.folder, run.folder / "last.pt"):
        assert resumed_config(source, {}).checkpoint_dir == str(run.folder)
        assert resumed_config(source, {"checkpoint_dir": "b"}).checkpoint_dir == "b"
    other = run.folder / "kept.pt"
    other.write_bytes((run.folder / "last.pt").read_bytes())
    assert resumed_config(other, {}).checkpoint_dir == str(run.folder / "kept")
    assert resumed_config(other, {"checkpoint_dir": "b"}).checkpoint_dir == "b"
    alone = run.folder.parent / "last.pt"  # no run lives there
    alone.write_bytes(other.read_bytes())
    assert resumed_config(alone, {}).checkpoint_dir == str(run.folder.parent / "last")
    link = run.folder.parent / "link"
    link.symlink_to(run.folder)
    assert resumed_config(link, {}).checkpoint_dir == str(run.folder.resolve())


def test_shorter_trainings_keep_their_stages_in_proportion(six: Config) -> None:
    run = made(six.replace(epochs=8, stage1_epochs=4, warmup_epochs=2))
    assert resumed_config(run.folder, {"epochs": 4}).stage1_epochs == 4  # it can be kept
    shorter = resumed_config(run.folder, {"epochs": 2})
    assert (shorter.epochs, shorter.stage1_epochs) == (2, 1)
    (run.folder / "last.pt").unlink()
    assert resumed_config(run.folder, {"width": 32}).width == 32  # nothing was trained
    save(run, prepare(run.config))
    assert refused(lambda: resumed_config(run.folder, {"width": 32})).startswith(
        f"{run.folder} was"
    )


def test_a_checkpoint_without_its_settings_is_refused(six: Config) -> None:
    run = made(six)
    best, lone = run.folder / "best.pt", run.folder.parent / "lone.pt"
    start = (
        "holds weights only, without optimiser and settings, so a run cannot go on from it. Start "
        "a new one from its weights: --init-from"
    )
    for path in (best, lone):
        torch.save({"net": {}, "config": six.as_dict()}, path)
    assert refused(lambda: resumed_config(best, {})) == (
        f"{best} {start} {best}, or go on with `camoxpert resume {run.folder}`."
    )
    assert refused(lambda: resumed_config(lone, {})) == f"{lone} {start} {lone}."
    torch.save({"net": {}, "optimizer": {}}, lone)
    assert refused(lambda: resumed_config(lone, {})) == f"{lone} {start} {lone}."


def test_a_run_is_copied_where_it_goes_on(six: Config, tmp_path: Path) -> None:
    run, here = made(six), tmp_path / "here"
    before = sorted(path.name for path in run.folder.iterdir())
    take_over(run.folder, six)
    assert sorted(path.name for path in run.folder.iterdir()) == before
    take_over(run.folder, six.replace(checkpoint_dir=str(here / "b")))
    copied = {path.name for path in (here / "b").iterdir()}
    assert {"config.json", "last.pt", "split.json", "history.jsonl"} <= copied
    kept = run.folder / "kept.pt"
    kept.write_bytes((run.folder / "last.pt").read_bytes())
    take_over(kept, six.replace(checkpoint_dir=str(here / "c")))
    alone = {path.name: path.read_bytes() for path in (here / "c").iterdir()}
    assert alone.keys() == {"last.pt", "split.json", "history.jsonl"}
    assert all(data == (run.folder / name).read_bytes() for name, data in alone.items())
    (tmp_path / "lone.pt").write_bytes(b"state")
    take_over(tmp_path / "lone.pt", six.replace(checkpoint_dir=str(here / "d")))
    assert [path.name for path in (here / "d").iterdir()] == ["last.pt"]
    place = here / "b"
    said = refused(lambda: take_over(kept, six.replace(checkpoint_dir=str(place))))
    assert said == (
        f"going on from {kept} would overwrite the run in {place}. Choose another "
        f"--checkpoint-dir, or go on with that one: `camoxpert resume {place}`."
    )


def test_a_folder_holds_one_run(six: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(six.checkpoint_dir)
    assert folder_for(six, False) == folder
    made(six)
    assert refused(lambda: folder_for(six, False)) == (
        f"{folder} already holds a run. Go on with `camoxpert resume {folder}`, or choose another "
        "--checkpoint-dir."
    )
    assert folder_for(six, True) == folder
    monkeypatch.setattr(module, "new_folder", lambda: "runs/new")
    assert folder_for(six.replace(checkpoint_dir=""), False) == Path("runs/new")


# --- what is missing


WAY_ON = "`camoxpert train --config {0.config_path}{1} --checkpoint-dir NEW`."


def test_a_last_state_that_is_gone_is_told_whole(six: Config) -> None:
    run = made(six)
    assert module._can_go_on(run)
    (run.folder / "last.pt").unlink()
    assert not module._can_go_on(run)  # it died before it was first saved
    run.log("step", step=3, epoch=1)
    run.log("note", step=3, message="without an epoch")
    run.log("epoch", step=6, epoch=1)
    (run.folder / "best.pt").write_bytes(b"weights")
    assert not module._can_go_on(run)
    run.log("step", step=7, epoch=2)
    start = (
        f"{run.folder} has no last.pt any more, so this run (1 epochs are done) cannot go on where "
        "it was. Put last.pt back, or begin a new run"
    )
    best = f" --init-from {run.folder / 'best.pt'}"
    assert refused(lambda: module._can_go_on(run)) == (
        f"{start} from its best weights: {WAY_ON.format(run, best)}"
    )
    (run.folder / "best.pt").unlink()
    assert refused(lambda: module._can_go_on(run)) == f"{start}: {WAY_ON.format(run, '')}"


@pytest.mark.parametrize("kind", ["stop", "end"])
def test_a_run_that_ended_without_its_last_state_does_not_begin_anew(
    six: Config, kind: str
) -> None:
    run = Run(six.checkpoint_dir)
    run.folder.mkdir()
    (run.folder / "best.pt").write_bytes(b"weights")
    assert "(0 epochs are done)" in refused(lambda: module._can_go_on(run))  # no record is left
    (run.folder / "best.pt").unlink()
    assert not module._can_go_on(run)
    run.log(kind, step=3)
    assert "(0 epochs are done)" in refused(lambda: module._can_go_on(run))


def test_a_split_that_is_gone_is_told_whole(six: Config) -> None:
    run = made(six)
    (run.folder / "split.json").unlink()
    assert refused(lambda: module._split_of(run)) == (
        f"{run.folder} has no split.json any more: which images trained it and which it held out "
        "is not known, and its scores would not be true. Put the file back, or begin a new run "
        f"from its weights: `camoxpert train --init-from {run.folder / 'last.pt'}`."
    )
    (run.folder / "history.jsonl").unlink()  # a checkpoint that stands alone
    assert module._split_of(run) == {}


def test_a_damaged_last_state_names_the_way_on(six: Config) -> None:
    run = made(six)
    (run.folder / "last.pt").write_bytes(b"")
    said = refused(lambda: as_saved(six, str(run.folder), ALONE))
    assert said.endswith(f" Put last.pt back, or begin a new run: {WAY_ON.format(run, '')}")


def test_a_state_of_another_network_is_told_whole(six: Config) -> None:
    run = made(six)
    checkpoint = run.load("last")
    del checkpoint["step"]
    run.save("last", checkpoint)
    assert refused(lambda: as_saved(six, str(run.folder), ALONE)) == (
        f"{run.folder / 'last.pt'} does not fit this network or kit ('step'). Use the kit version "
        "named in its summary, or take its weights alone with --init-from."
    )


# --- what is taken up


def going_on(run: Run, config: Config) -> Training:
    return as_saved(config, str(run.folder), ALONE)


def test_as_saved_is_a_new_one_without_a_source_and_writes_nothing(six: Config) -> None:
    assert as_saved(six, "", ALONE).state.step == 0
    assert not Path(six.checkpoint_dir).exists()
    run = made(six, epoch=3, step=20, best={})
    before = {path: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    assert going_on(run, six).state.step == 20
    assert {path: path.read_bytes() for path in run.folder.iterdir() if path.is_file()} == before


def test_what_a_run_is_prepared_with_is_handed_on(
    six: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = made(six), list[Any]()
    monkeypatch.setattr(module, "prepare", lambda *how, **more: asked.append((how, more)))
    own = Own(loss=dice)
    for resume in (True, False):
        _, known = prepare_for(run, six, resume, ALONE, "progress", "net", own)  # type: ignore[arg-type]
        (how, more) = asked.pop()
        assert how == (six, "progress", "net")
        split = more.pop("known")
        assert more == {"ranks": ALONE, "empty": resume, "own": own}
        assert len(split.train) == (26 if resume else 0) and (known is not None) == resume


def test_a_run_that_was_never_saved_needs_its_parts(six: Config) -> None:
    run = made(six)
    (run.folder / "last.pt").unlink()
    run.save_json("own", {"loss": "dice"})
    assert refused(lambda: prepare_for(run, six, True, ALONE)).startswith(
        f"{run.folder} was trained"
    )
    assert prepare_for(run, six, False, ALONE)[1] is None  # begun anew on purpose
    training, known = prepare_for(run, six, True, ALONE, own=Own(loss=dice))
    assert known is None and training.state.own.names == {"loss": "dice"}


@pytest.mark.parametrize(
    ("epoch", "seen", "asked", "counts", "line"),
    [
        (2, 0, 4, 4, ""),  # stage two has not begun: it may last longer
        (2, 0, 1, 2, "lasts until the end of epoch 2, so it counts 2"),
        (1, 0, 1, 1, ""),
        (1, 4, 1, 2, "lasts until the end of epoch 2, so it counts 2"),
        (0, 4, 1, 1, ""),
        (2, 3, 4, 2, "is over, so it counts 2"),
        (3, 0, 1, 2, "is over, so it counts 2"),
        (3, 0, 2, 2, ""),
    ],
)
def test_a_stage_that_is_over_stays_as_it_was(
    six: Config, epoch: int, seen: int, asked: int, counts: int, line: str
) -> None:
    run = made(six, epoch=epoch, seen=seen, step=7)
    training = going_on(run, six.replace(stage1_epochs=asked))
    assert training.config.stage1_epochs == counts
    said = [f"--stage1-epochs {asked}: stage one {line}"] if line else []
    assert [each for each in training.changes if ": stage one" in each] == said


def test_fewer_epochs_than_are_begun_are_told_whole(six: Config) -> None:
    run = made(six, epoch=3, seen=3, step=25)
    said = refused(lambda: going_on(run, six.replace(epochs=3, stage1_epochs=1)))
    assert said == (
        "--epochs 3, but this run is in epoch 4 already: give at least 4, or look at it as it is "
        "with `camoxpert evaluate`."
    )
    assert going_on(run, six.replace(epochs=4)).plan.epochs == 4


def test_a_best_epoch_whose_weights_are_gone_is_looked_for_anew(six: Config) -> None:
    run = made(six, epoch=3, step=20, best=dict(BEST))
    training = going_on(run, six)
    assert training.state.best == {}
    assert list(training.changes) == ["the best epoch is looked for anew, as best.pt is not here"]
    (run.folder / "best.pt").write_bytes(b"weights")
    training = going_on(run, six)
    assert training.state.best == BEST and list(training.changes) == []


def test_a_run_that_is_over_is_refused(six: Config) -> None:
    over = six.replace(stop_at_target=True, target_iou=0.4)
    run = made(over, epoch=3, step=20, best=dict(BEST))
    (run.folder / "best.pt").write_bytes(b"weights")
    with pytest.raises(Over, match="the target is reached"):
        going_on(run, over)


@pytest.mark.parametrize(("others", "kept"), [(False, [2, 3]), (True, [])])
def test_epochs_that_a_killed_process_kept_go(six: Config, others: bool, kept: list[int]) -> None:
    """And the worse of three; where other images validate, no score can be compared."""
    run = made(six.replace(keep_best=2), epoch=3, step=20, best=dict(BEST))
    (run.folder / "best.pt").write_bytes(b"weights")
    for epoch, iou in ((1, 3), (2, 5), (3, 4), (4, 9)):
        (run.folder / f"best-epoch00{epoch}-iou0.{iou}000.pt").write_bytes(b"weights")
    split = run.load_json("split")
    if others:
        split["validation"]["0" * len(next(iter(split["validation"])))] = "another.jpg"
    training = prepare(run.config)
    begin(training, run, Split.load(split))
    left = sorted(path.name for path in run.folder.glob("best-epoch*.pt"))
    assert [int(name[10:13]) for name in left] == kept
    assert training.state.best == ({} if others else BEST)
    assert list(training.changes) == others * [
        "the best epoch is looked for anew, as other images validate: scores over other images "
        "cannot be compared, and epochs kept by --keep-best go"
    ]


def test_a_schedule_is_taken_up_where_it_changes(six: Config) -> None:
    """A cosine over the 4 epochs of stage two, of which one and a half are over."""
    config = six.replace(min_lr=1e-9, warmup_epochs=0)
    run = made(config, epoch=3, seen=12, step=24)
    assert going_on(run, config).state.origin is None
    training = going_on(run, config.replace(epochs=9))
    now = 3 + (12 + 1.5) / 24
    factor = 0.5 * (1 + torch.cos(torch.tensor((now - 2) / 4 * torch.pi)).item())
    found = training.state.origin
    assert found is not None
    assert found == Origin(now, pytest.approx(factor, abs=1e-5), 4, rising=False)  # type: ignore[arg-type]
    assert training.plan.origin == found and training.plan.epochs == 9
    rising = made(
        config.replace(warmup_epochs=2, checkpoint_dir=f"{six.checkpoint_dir}-b"),
        epoch=3, seen=12, step=24,
    )  # fmt: skip
    origin = going_on(rising, rising.config.replace(epochs=9)).state.origin
    assert origin is not None and origin.rising and origin.factor == pytest.approx((now - 2) / 2)
    begins = made(
        config.replace(checkpoint_dir=f"{six.checkpoint_dir}-c"), epoch=2, seen=0, step=12
    )
    assert going_on(begins, begins.config.replace(epochs=9)).state.origin is None


def test_only_the_first_process_writes(six: Config) -> None:
    run = made(six)
    before = run.history_path.read_bytes()
    begin(prepare(six), Onlooker(run.folder), Split.load(run.load_json("split")))
    assert run.history_path.read_bytes() == before


def test_checkpoints_say_how_they_were_made(six: Config) -> None:
    assert made_by(six) == {"config": dataclasses.asdict(six), "version": __version__}
