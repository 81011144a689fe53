"""A run that goes on keeps its word: what may change, what is applied, refused, or stays."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from camoxpert_nb.data.identity import Split
from camoxpert_nb.errors import InputError
from camoxpert_nb.machine.distributed import ALONE
from camoxpert_nb.runs.records import Watch
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import ON_RESUME, Config
from camoxpert_nb.settings.recipe import DECIDED
from camoxpert_nb.training.banner import banner
from camoxpert_nb.training.estimate import estimate
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.prepare import Training, prepare
from camoxpert_nb.training.resume import SHAPE, as_saved, restore, resumed_config


def stop_at(config: Config, step: int, **how: Any) -> Run:
    """Train until so many steps were taken in all, and stop there, saved."""

    def report(record: dict[str, Any]) -> None:
        if record["kind"] == "step" and record["step"] == step:
            Run(config.checkpoint_dir).request("stop")

    return fit(config, report=report, **how)


def go_on(run: Run, **changes: Any) -> Run:
    return fit(resumed_config(run.folder, changes), resume=True)


def changes_of(run: Run) -> list[str]:
    return list(run.records("start")[-1]["changes"])


def test_the_table_knows_every_setting_once() -> None:
    listed = [name for names in ON_RESUME.values() for name in names.split()]
    assert sorted(listed) == sorted(item.name for item in dataclasses.fields(Config))


OTHER = {
    "mask_object": "nonzero",
    "mask_invert": True,
    "mask_exif": "stored",
    "ignore_label": 255,
    "backbone": "test_convnext",
    "num_experts": 3,
    "top_k": 2,
    "width": 32,
    "deep_supervision": False,
    "img_size": 32,
    "val_share": 0.4,
    "fold": "1/4",
    "noncam": True,
    "seed": 5,
}


@pytest.mark.parametrize("name", ON_RESUME["a new run"].split())
def test_what_needs_a_new_run_is_refused_and_leaves_all_as_it_was(tiny: Config, name: str) -> None:
    run = stop_at(tiny, 3)
    before = {p.name: p.read_bytes() for p in run.folder.iterdir() if p.suffix in (".json", ".pt")}
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} .* -> .*--init-from"):
        go_on(run, **{name: OTHER[name]})
    kept = {path: (run.folder / path).read_bytes() for path in before if path != "failure.json"}
    assert kept == {path: data for path, data in before.items() if path != "failure.json"}
    assert go_on(run).load_json("summary")["finished"]


def test_learning_rates_and_weight_decay_are_really_applied(tiny: Config) -> None:
    run = stop_at(tiny, 3)
    changes = {"weight_decay": 0.5, "lr": 2e-3, "clip": 0.5, "deep_weight": 0.25}
    config = resumed_config(run.folder, changes)
    training = prepare(config)
    restore(training, run, Split.load(run.load_json("split")))
    decays = {group["weight_decay"] for group in training.state.optimizer.param_groups}
    assert decays == {0.0, 0.5}
    assert training.plan.lr(0.9, None) == pytest.approx(2e-3 / tiny.lr * _factor(tiny))
    assert any(
        line.startswith("goes on with --weight-decay 0.0001 -> 0.5") for line in training.changes
    )
    moments = training.state.optimizer.state_dict()["state"]
    saved = run.load("last")["optimizer"]["state"]
    for key in saved:
        assert torch.equal(moments[key]["exp_avg"], saved[key]["exp_avg"])


def _factor(config: Config) -> float:
    return prepare(config).plan.lr(0.9, None)


@pytest.mark.parametrize(("changes", "rate"), [({}, 4e-3), ({"lr": 1e-3}, 1e-3)])
def test_a_new_rate_is_meant_for_the_batch_at_hand(
    tiny: Config, changes: dict[str, Any], rate: float
) -> None:
    """--scale-lr scales the run's own rate to the new batch, and leaves one given with it alone."""
    run = stop_at(tiny.replace(scale_lr=True), 3)
    config = resumed_config(run.folder, {"batch_size": 2 * tiny.batch_size, **changes})
    training = prepare(config)
    restore(training, run, Split.load(run.load_json("split")))
    assert tiny.lr == 2e-3
    assert training.plan.stages[0].lr == pytest.approx(rate)


def test_what_has_no_effect_is_said(tiny: Config) -> None:
    run = stop_at(tiny, 3)
    run = go_on(run, skip_stage1=True)
    assert changes_of(run) == ["--skip-stage1 False -> True has no effect: the run began long ago"]


@pytest.mark.parametrize("batches", list(itertools.permutations((2, 4, 8))))
def test_any_order_of_batches_loses_no_record_and_repeats_none(
    tiny: Config, batches: tuple[int, ...]
) -> None:
    config = tiny.replace(epochs=6, stage1_epochs=1, batch_size=batches[0])
    run = stop_at(config, 9)
    for batch in batches[1:]:
        step = run.load("last")["step"]
        config = resumed_config(run.folder, {"batch_size": batch})
        run = stop_at(config, step + 7, resume=True)
    run = go_on(run)
    epochs = run.records("epoch")
    assert [record["epoch"] for record in epochs] == [1, 2, 3, 4, 5, 6]
    steps = [record["step"] for record in run.records("step")]
    assert steps == sorted(set(steps))
    assert run.load_json("summary")["epochs"] == 6
    rates = [record["lr"]["head"] for record in epochs if record["epoch"] > 2]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("step", [3, 8, 13])
def test_more_epochs_make_no_jump_and_close_no_block(tiny: Config, step: int) -> None:
    config = tiny.replace(epochs=4, stage1_epochs=1, progressive_unfreeze=True)
    run = stop_at(config, step)
    plan, where = prepare(config).plan, run.load("last")
    expected = plan.lr(plan.time(where["epoch"], where["samples"]), None)
    rates: list[float] = []

    def note(record: dict[str, Any]) -> None:
        if record["kind"] == "step":
            rates.append(record["lr"]["head"])

    run = fit(resumed_config(run.folder, {"epochs": 6}), resume=True, report=note)
    assert rates[0] == pytest.approx(expected, rel=1e-6)
    order = ["one", "two (block 4)", "two (blocks 3-4)", "two (all)"]
    stages = [order.index(record["stage"]) for record in run.records("epoch")]
    assert stages == sorted(stages)
    assert [record["epoch"] for record in run.records("epoch")] == [1, 2, 3, 4, 5, 6]
    again = go_on(run, epochs=7)  # and once more, after its end
    assert again.records("epoch")[-1]["lr"]["head"] <= run.records("epoch")[-2]["lr"]["head"]


@pytest.fixture
def own(camouflage: Path, tiny: Config, tmp_path: Path) -> Config:
    """The settings on a copy of the images that a test may change."""
    shutil.copytree(camouflage, tmp_path / "own")
    return tiny.replace(dataset_path=str(tmp_path / "own"))


def images(config: Config) -> dict[str, Path]:
    found = (Path(config.dataset_path) / "Train" / "Image").iterdir()
    return {path.stem: path for path in found if "NonCAM" not in path.name}


def test_a_run_keeps_its_split_whatever_the_images_are_called(own: Config) -> None:
    run = stop_at(own, 3)
    split = run.load_json("split")
    for number, (stem, path) in enumerate(sorted(images(own).items())):
        mask = path.parent.parent / "GT_Object" / f"{stem}.png"
        for file in (path, mask):
            file.rename(file.with_name(f"COD10K-CAM-{number:04}{file.suffix}"))
    run = go_on(run)
    after = run.load_json("split")
    for side in ("train", "validation"):
        assert set(after[side]) == set(split[side])
    assert run.load_json("summary")["data"]["validation"] == len(split["validation"])
    assert changes_of(run) == []


def test_new_images_train_and_gone_ones_are_named_and_remembered(own: Config) -> None:
    run = stop_at(own, 3)
    split = run.load_json("split")
    trained = {Path(path).stem for path in split["train"].values()}
    gone = sorted(trained)[0]
    path = images(own)[gone]
    mask = path.parent.parent / "GT_Object" / f"{gone}.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path.with_name("COD10K-CAM-new.jpg"))
    shutil.copy(mask, mask.with_name("COD10K-CAM-new.png"))
    path.unlink()
    mask.unlink()
    run = go_on(run)
    said = " ".join(changes_of(run))
    assert "1 new images train from now on: COD10K-CAM-new" in said
    assert "1 of the run's training images are not here any more" in said and gone in said
    assert "epoch 1 begins anew" in said
    after = run.load_json("split")
    assert set(split["train"]) < set(after["train"])
    assert set(after["validation"]) == set(split["validation"])


def test_scores_over_other_validation_images_are_not_compared(own: Config) -> None:
    run = stop_at(own.replace(epochs=3), 10)
    best = run.load("last")["best"]
    assert best
    held = {Path(p).stem for p in run.load_json("split")["validation"].values()}
    path = images(own)[sorted(held)[0]]
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    run = go_on(run)
    assert any("the best epoch is looked for anew" in line for line in changes_of(run))
    assert run.load_json("summary")["best"]["epoch"] > best["epoch"]


def test_another_data_set_is_refused(own: Config, camouflage: Path) -> None:
    run = stop_at(own, 3)
    for path in images(own).values():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    with pytest.raises(InputError, match=r"0 of those that the run held out.*--init-from"):
        go_on(run)


def test_the_same_images_elsewhere_are_the_same(own: Config, camouflage: Path) -> None:
    run = stop_at(own, 3)
    run = go_on(run, dataset_path=str(camouflage))
    (line,) = changes_of(run)
    assert line.startswith("goes on with --dataset-path")
    assert run.load_json("summary")["finished"]


def test_a_run_of_an_older_kit_goes_on(tiny: Config) -> None:
    """Its checkpoint has no counts of averages, no usage and no origin; its split has names."""
    run = stop_at(tiny.replace(epochs=3), 14)
    checkpoint, split = run.load("last"), run.load_json("split")
    for name in ("averaged", "usage", "origin", "pretrained"):
        del checkpoint[name]
    checkpoint["best"] = {key: checkpoint["best"][key] for key in ("epoch", "iou", "weights")}
    run.save("last", checkpoint)
    sides = ("train", "validation")
    run.save_json("split", {s: [Path(p).stem for p in split[s].values()] for s in sides})
    config = json.loads(run.config_path.read_text())
    del config["keep"]
    run.config_path.write_text(json.dumps(config))
    run = go_on(run)
    assert [record["epoch"] for record in run.records("epoch")] == [1, 2, 3]
    assert set(run.load_json("split")["train"]) == set(split["train"])
    assert changes_of(run) == []


def taken_up(run: Run, **changes: Any) -> Training:
    """Return the training as it would go on with these changes."""
    return as_saved(resumed_config(run.folder, changes), str(run.folder), ALONE)


@pytest.mark.parametrize("step", [2, 6])
def test_a_schedule_changed_before_its_peak_still_reaches_it(tiny: Config, step: int) -> None:
    """In the middle of a warm-up, and where stage two has not begun."""
    config = tiny.replace(epochs=8, stage1_epochs=1 if step == 6 else 4, warmup_epochs=2)
    run = stop_at(config, step)
    before = taken_up(run).plan
    plan = taken_up(run, epochs=10).plan
    place = before.time(*((1, 0) if step == 6 else (0, 2 * config.batch_size)))
    assert plan.lr(place, None) == pytest.approx(before.lr(place, None), rel=0.05)
    for part in (plan.stage_at(place).part, 2):
        times = [t for s in plan.stages if s.part == part for t in plan.times(s) if t >= place]
        rates = [plan.lr(time, None) for time in times]
        top = rates.index(max(rates))
        assert max(rates) == pytest.approx(plan.stages[-1].lr, rel=0.1)
        assert rates[:top] == sorted(rates[:top])
        assert rates[top:] == sorted(rates[top:], reverse=True)


def test_what_changes_nothing_from_now_on_leaves_the_schedule(tiny: Config) -> None:
    run = stop_at(tiny.replace(epochs=4, stage1_epochs=1, warmup_epochs=0), 14)
    before, after = taken_up(run).plan, taken_up(run, t_mult=3).plan
    times = [time for stage in after.stages for time in after.times(stage)]
    assert [after.lr(t, None) for t in times] == [before.lr(t, None) for t in times]


SHAPES = {
    "epochs": 12,
    "stage1_epochs": 7,
    "scheduler": "onecycle",
    "warmup_epochs": 3,
    "t_mult": 3,
    "min_lr": 1e-3,
    "progressive_unfreeze": True,
}


def test_whatever_shapes_the_rate_is_taken_up_where_the_run_stands(tiny: Config) -> None:
    """Without a jump, whichever setting is changed, and with what was open then."""
    config = tiny.replace(epochs=8, stage1_epochs=0, scheduler="cosine_restart", min_lr=1e-6)
    config = config.replace(warmup_epochs=1, progressive_unfreeze=False)
    run = stop_at(config.replace(batch_size=8, stage2_batch_size=4), 11)
    state, before = run.load("last"), taken_up(run)
    assert before.state.origin is None and {*SHAPES} == SHAPE
    now = before.plan.time(state["epoch"], state["samples"])
    for name, value in SHAPES.items():
        if name == "stage1_epochs":  # it is over
            continue
        after = taken_up(run, **{name: value})
        assert after.state.origin is not None, name
        assert after.state.origin.time == now and after.state.origin.open_blocks == 4
        assert after.plan.lr(now, None) == pytest.approx(before.plan.lr(now, None)), name


def test_a_stage_that_is_over_keeps_its_length(tiny: Config) -> None:
    run = stop_at(tiny.replace(epochs=4, stage1_epochs=1), 14)
    training = taken_up(run, stage1_epochs=3)
    assert training.config.stage1_epochs == 1
    assert any("stage one is over, so it counts 1" in line for line in training.changes)


def test_fewer_epochs_than_are_done_are_refused(tiny: Config) -> None:
    run = stop_at(tiny.replace(epochs=4), 14)
    with pytest.raises(
        InputError, match=r"--epochs 1, but this run is in epoch 3 already: give at least 3"
    ):
        taken_up(run, epochs=1)


def test_a_missing_image_is_told_once(own: Config) -> None:
    run = stop_at(own.replace(epochs=4), 8)
    held = {Path(p).stem for p in run.load_json("split")["validation"].values()}
    images(own)[sorted(held)[0]].unlink()
    run = stop_at(resumed_config(run.folder, {}), 15, resume=True)
    assert any("are not here any more" in line for line in changes_of(run))
    assert taken_up(run).changes == []


def test_edited_masks_are_other_images_to_the_scores(own: Config) -> None:
    run = stop_at(own.replace(epochs=4), 9)
    held = {Path(p).stem for p in run.load_json("split")["validation"].values()}
    mask = next(Path(own.dataset_path).rglob(f"GT_Object/{sorted(held)[0]}.png"))
    Image.fromarray(255 - np.asarray(Image.open(mask).convert("L"))).save(mask)
    training = taken_up(run)
    assert any("1 validation images have other masks now" in line for line in training.changes)
    assert training.state.best == {} and training.state.seen > 0


def test_images_keep_their_order_and_held_out_ones_their_side(own: Config) -> None:
    """Renamed files, and a held-out photo that was saved anew where it was."""
    run = stop_at(own.replace(epochs=3), 3)
    before = [*run.load_json("split")["train"]]
    path = images(own)[Path(run.load_json("split")["train"][before[0]]).stem]
    mask = next(Path(own.dataset_path).rglob(f"GT_Object/{path.stem}.png"))
    path.rename(path.with_name("zzz" + path.suffix))
    mask.rename(mask.with_name("zzz.png"))
    held = sorted(Path(p).stem for p in run.load_json("split")["validation"].values())
    anew = images(own)[held[0]]
    Image.open(anew).save(anew, quality=50)
    data = taken_up(run).data
    assert Split.of(data.train, (), data.root).keys(data.train) == before
    assert sorted(pair.name for pair in data.validation) == held
    assert any("stay so" in line for line in data.changes)


def test_the_best_of_other_validation_images_is_not_shown(own: Config) -> None:
    run = stop_at(own.replace(epochs=4), 14)
    held = {Path(p).stem for p in run.load_json("split")["validation"].values()}
    path = images(own)[sorted(held)[0]]
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    run = go_on(run)
    first, *_, last = run.records("epoch")
    assert first["validation"] != last["validation"]
    assert run.load_json("summary")["performance"]["best_epoch"] > 2
    assert int(Watch(run).best().partition("(epoch ")[2].partition(",")[0].rstrip(")")) > 2


def test_a_new_rate_counts_for_both_stages_where_one_follows_the_other(tiny: Config) -> None:
    run = stop_at(tiny.replace(stage2_lr=None, stage1_epochs=1), 3)
    plan = taken_up(run, lr=1e-3, batch_size=2 * tiny.batch_size, scale_lr=True).plan
    assert {stage.lr for stage in plan.stages} == {1e-3}


def test_the_dry_run_of_a_resume_refuses_as_it_would_and_costs_what_is_left(tiny: Config) -> None:
    run = stop_at(tiny.replace(epochs=4, stage1_epochs=1), 14)
    history = (run.folder / "history.jsonl").read_bytes()
    with pytest.raises(InputError, match="--img-size 64 -> 32"):
        resumed_config(run.folder, {"img_size": 32})  # before anything is read
    goes_on = taken_up(run)
    assert "goes on           in epoch 3, 8 of its images done; 14 steps in all" in banner(goes_on)
    told = estimate(goes_on)
    left = sum(row["epochs"] for row in told["stages"])
    assert 1 < left < 2 and "one" not in [row["name"] for row in told["stages"]]
    assert told["decoding_seconds"] == 0
    assert (run.folder / "history.jsonl").read_bytes() == history


def test_stage_one_that_is_skipped_costs_nothing(tiny: Config) -> None:
    training = prepare(tiny.replace(epochs=5, stage1_epochs=4, skip_stage1=True))
    assert [row["epochs"] for row in estimate(training)["stages"]] == [1]


def test_a_run_by_the_recipe_goes_on_with_the_very_numbers_it_began_with(
    tiny: Config, tmp_path: Path
) -> None:
    config = tiny.replace(**dict.fromkeys(DECIDED), epochs=3, checkpoint_dir=str(tmp_path / "one"))
    whole = fit(config)
    cut = stop_at(config.replace(checkpoint_dir=str(tmp_path / "two")), 4)
    begun = Config.load(cut.config_path)
    assert None not in [getattr(begun, name) for name in DECIDED]
    go_on(cut)
    assert Config.load(cut.config_path) == begun and changes_of(cut) == []
    weights = [run.load("last")["net"] for run in (whole, cut)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_without_its_split_a_run_does_not_go_on(own: Config) -> None:
    """Which images it held out is then known to nobody."""
    run = stop_at(own, 3)
    (run.folder / "split.json").unlink()
    with pytest.raises(InputError, match=r"no split.json any more.*--init-from"):
        go_on(run)
    assert not (run.folder / "split.json").exists()


def test_epochs_after_the_end_of_the_schedule_are_told_to_change_little(tiny: Config) -> None:
    run = fit(tiny)
    training = taken_up(run, epochs=6)
    told = [each for each in training.changes if "had fallen to" in each]
    assert told and "of 0.002, in the 2 epochs" in told[0] and "4 more change little" in told[0]
    assert f"--init-from {run.folder}" in told[0]
    assert "learning rate 0.002, from now on at most 1e-05" in banner(training)


def test_epochs_added_while_the_rate_is_high_are_told_nothing(tiny: Config) -> None:
    training = taken_up(stop_at(tiny.replace(epochs=4, stage1_epochs=1), 14), epochs=8)
    assert not [each for each in training.changes if "had fallen to" in each]
    names = [stage.name for stage in training.plan.stages]
    assert len(names) == len({*names})  # no stage twice
