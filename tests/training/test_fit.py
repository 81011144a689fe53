"""Whole trainings: the folder they leave, and that interrupted + resumed == uninterrupted."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from equal_runs import assert_equal_runs, same, stop_after
from PIL import Image
from poisoned import poison_loss

from camoxpert_nb.errors import InputError, TrainingError
from camoxpert_nb.network.build import load_net, load_run
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.prepare import Loaders, prepare
from camoxpert_nb.training.resume import resumed_config, take_over


@pytest.fixture
def four_epochs(tiny: Config) -> Config:
    return tiny.replace(epochs=4, accumulation_steps=2, uncertainty=0.2, progressive_unfreeze=True)


def test_a_training_leaves_a_whole_folder(tiny: Config) -> None:
    run = fit(tiny)
    assert Config.load(run.config_path) == tiny.replace(lr_batch=4, stage2_lr_batch=4)
    epochs = run.records("epoch")
    assert [record["epoch"] for record in epochs] == [1, 2]
    assert [record["stage"] for record in epochs] == ["one", "two (all)"]
    summary = run.load_json("summary")
    assert summary["finished"]
    assert summary["best"]["iou"] == max(max(r["iou"], r["iou_ema"]) for r in epochs)
    assert summary["weights_source"].startswith("none")
    assert summary["data"]["left_out"]
    assert summary["data"]["train"] + summary["data"]["validation"] < 40
    preview = run.load_preview()
    assert preview["image"].dtype == preview["probability"].dtype == np.uint8
    assert set(np.unique(preview["mask"])) <= {0, 1}
    assert len(preview["names"]) == len(preview["mask"]) == summary["data"]["validation"]
    np.testing.assert_allclose(preview["gates"].sum(-1), 1, atol=1e-5)
    assert run.training_pid() is None
    assert (run.folder.parent / "latest").resolve() == run.folder.resolve()


@pytest.mark.parametrize("steps", [2, 5, 8])
def test_interrupted_and_resumed_equals_uninterrupted(
    four_epochs: Config, tmp_path: Path, steps: int
) -> None:
    whole = fit(four_epochs)
    parts = four_epochs.replace(checkpoint_dir=str(tmp_path / "parts"))
    run = fit(parts, report=stop_after(steps))
    assert not run.load_json("summary")["finished"]
    assert run.load("last")["step"] == steps
    run = fit(parts, resume=True)
    assert run.load_json("summary")["finished"]
    assert_equal_runs(whole, run)


def test_resume_after_a_kill_equals_uninterrupted(four_epochs: Config, tmp_path: Path) -> None:
    """The child writes history past its last checkpoint, then dies without warning."""
    whole = fit(four_epochs)
    parts = four_epochs.replace(checkpoint_dir=str(tmp_path / "killed"))
    parts.save(tmp_path / "config.json")
    code = f"""
import os
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.epoch import TIMES
from camoxpert_nb.training.fit import fit
seen = []
def report(record):
    seen.append(record)
    if sum(r["kind"] == "step" for r in seen) == 6:
        os.kill(os.getpid(), 9)
fit(Config.load({str(tmp_path / "config.json")!r}), report=report)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    run = Run(parts.checkpoint_dir)
    assert run.load("last")["step"] < max(record["step"] for record in run.records("step"))
    assert_equal_runs(whole, fit(parts, resume=True))


def test_resume_takes_a_checkpoint_with_a_wrappers_keys(
    four_epochs: Config, tmp_path: Path
) -> None:
    whole = fit(four_epochs)
    parts = four_epochs.replace(checkpoint_dir=str(tmp_path / "wrapped"))
    run = fit(parts, report=stop_after(3))
    checkpoint = run.load("last")
    for key in ("net", "ema"):
        checkpoint[key] = {f"module.{name}": value for name, value in checkpoint[key].items()}
    run.save("last", checkpoint)
    assert_equal_runs(whole, fit(parts, resume=True))


def test_a_run_goes_on_in_another_folder_and_the_source_stays(
    four_epochs: Config, tmp_path: Path
) -> None:
    whole = fit(four_epochs)
    source = fit(four_epochs.replace(checkpoint_dir=str(tmp_path / "source")), report=stop_after(5))
    before = {path.name: path.stat().st_mtime_ns for path in source.folder.iterdir()}
    for start in (source.folder, source.folder / "last.pt"):
        target = str(tmp_path / f"on-{start.name}")
        config = resumed_config(start, {"checkpoint_dir": target})
        take_over(start, config)
        assert_equal_runs(whole, fit(config, resume=True))
    assert before == {path.name: path.stat().st_mtime_ns for path in source.folder.iterdir()}


def test_a_checkpoint_that_stands_alone_is_enough(four_epochs: Config, tmp_path: Path) -> None:
    whole = fit(four_epochs)
    source = fit(four_epochs.replace(checkpoint_dir=str(tmp_path / "source")), report=stop_after(5))
    alone = tmp_path / "alone" / "downloaded.pt"
    alone.parent.mkdir()
    shutil.copyfile(source.folder / "last.pt", alone)
    config = resumed_config(alone, {})
    assert Path(config.checkpoint_dir) == tmp_path / "alone" / "downloaded"
    take_over(alone, config)
    run = fit(config, resume=True)
    state, expected = run.load("last"), whole.load("last")
    assert same(state["net"], expected["net"])
    assert same(state["optimizer"], expected["optimizer"])


def test_the_latest_run_goes_on_by_its_link(four_epochs: Config, tmp_path: Path) -> None:
    run = fit(four_epochs, report=stop_after(4))
    latest = tmp_path / "latest"
    assert latest.resolve() == run.folder.resolve()
    for config in (resumed_config(latest, {}), four_epochs.replace(checkpoint_dir=str(latest))):
        fit(config, resume=True)
        assert latest.resolve() == run.folder.resolve()
    assert run.load_json("summary")["finished"]


def test_epochs_can_be_added_to_a_finished_run(tiny: Config) -> None:
    fit(tiny)
    run = fit(tiny.replace(epochs=3), resume=True)
    assert [record["epoch"] for record in run.records("epoch")] == [1, 2, 3]


def test_going_on_with_another_network_is_refused(tiny: Config) -> None:
    fit(tiny)
    with pytest.raises(InputError, match=r"--num-experts 7 -> 3.*--init-from"):
        fit(tiny.replace(num_experts=3), resume=True)


@pytest.mark.parametrize("wrapped", ["", "module."])
def test_runs_of_the_older_network_are_refused_with_the_version_that_reads_them(
    tiny: Config, wrapped: str
) -> None:
    run = fit(tiny)
    for which in ("last", "best"):
        state = torch.load(run.folder / f"{which}.pt", weights_only=True)
        key = f"{wrapped}stages.0.mixture.router.weight"
        state["net"] = {
            key: torch.zeros(7, 32),
            f"{wrapped}stages.0.settle.0.weight": torch.ones(1),
        }
        torch.save(state | {"ema": None}, run.folder / f"{which}.pt")
    older = r"\.pt was trained with camoxpert_nb 0\.1.*Install that version"
    with pytest.raises(InputError, match=older):
        fit(tiny, resume=True)
    with pytest.raises(InputError, match=older):
        load_run(run)
    with pytest.raises(InputError, match=older):
        prepare(tiny.replace(init_from=str(run.folder)))


def test_a_folder_with_a_run_is_not_overwritten(tiny: Config, tmp_path: Path) -> None:
    run = fit(tiny)
    with pytest.raises(InputError, match="already holds a run"):
        fit(tiny)
    other = fit(tiny.replace(checkpoint_dir=str(tmp_path / "other")))
    with pytest.raises(InputError, match="would overwrite the run"):
        take_over(run.folder, tiny.replace(checkpoint_dir=str(other.folder)))


def test_nothing_to_go_on_from_is_said(tmp_path: Path, tiny: Config) -> None:
    with pytest.raises(InputError, match="no run to go on from"):
        resumed_config(tmp_path / "nowhere", {})
    torch.save({"net": {}}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"weights only.*--init-from"):
        resumed_config(tmp_path / "weights.pt", {})


def test_init_from_takes_weights_alone_and_strictly(tiny: Config, tmp_path: Path) -> None:
    run = fit(tiny)
    best = run.load("best")["net"]
    fresh = prepare(tiny.replace(init_from=str(run.folder)))
    assert fresh.state.step == 0
    assert same(dict(fresh.state.net.state_dict()), best)
    torch.save({f"module.{name}": value for name, value in best.items()}, tmp_path / "w.pth")
    assert same(
        dict(prepare(tiny.replace(init_from=str(tmp_path / "w.pth"))).state.net.state_dict()), best
    )
    with pytest.raises(
        InputError, match=r"belongs to another network \(\d+ other shape: .* there, .* here"
    ):
        prepare(tiny.replace(init_from=str(run.folder), width=32))


def test_going_on_needs_no_file_of_weights_any_more(tiny: Config, tmp_path: Path) -> None:
    """The network is in the checkpoint; where it came from stays known."""
    source = prepare(tiny).state.net.backbone.state_dict()  # type: ignore[union-attr, operator]
    torch.save(source, tmp_path / "backbone.pth")
    config = tiny.replace(weights=str(tmp_path / "backbone.pth"))
    run = fit(config, report=stop_after(2))
    (tmp_path / "backbone.pth").unlink()
    fit(config, resume=True)
    assert run.load_json("summary")["weights_source"].startswith("file backbone.pth")


def test_the_best_weights_are_the_ones_that_scored(tiny: Config) -> None:
    from camoxpert_nb.training.validate import validate

    run = fit(tiny)
    training = prepare(tiny)
    loaders = Loaders(training)
    scores = validate(load_net(run), loaders.validation(4))
    assert scores.iou == pytest.approx(run.load_json("summary")["best"]["iou"], abs=1e-6)


def test_pause_save_and_stop_are_obeyed_from_outside(tiny: Config, tmp_path: Path) -> None:
    config = tiny.replace(epochs=500, stage1_epochs=1)
    config.save(tmp_path / "config.json")
    code = f"""
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.epoch import TIMES
from camoxpert_nb.training.fit import fit
fit(Config.load({str(tmp_path / "config.json")!r}))
"""
    child = subprocess.Popen([sys.executable, "-c", code])
    run = Run(config.checkpoint_dir)

    def wait_for(what: Any) -> None:
        until = time.monotonic() + 60
        while not what():
            assert time.monotonic() < until and child.poll() is None
            time.sleep(0.05)

    wait_for(lambda: len(run.records("epoch")) > 1)
    with pytest.raises(InputError, match=f"trained by process {child.pid}"):
        fit(config, resume=True)
    run.request("pause")
    time.sleep(1.0)
    count = len(run.records())
    time.sleep(1.0)
    assert len(run.records()) == count
    run.request("pause", wanted=False)
    run.request("save")
    wait_for(lambda: not run.wants("save"))
    wait_for(lambda: len(run.records()) > count)
    run.request("stop")
    assert child.wait(60) == 0
    assert run.records()[-1]["kind"] == "stop"
    assert not run.load_json("summary")["finished"]


def test_skip_stage1_begins_with_stage_two(tiny: Config) -> None:
    run = fit(tiny.replace(skip_stage1=True))
    assert [(r["epoch"], r["stage"]) for r in run.records("epoch")] == [(2, "two (all)")]


def test_a_non_finite_step_is_skipped_and_counted(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_loss(monkeypatch, math.inf, at=1)
    run = fit(tiny)
    assert [record["skipped_steps"] for record in run.records("epoch")] == [1, 0]
    state = run.load("last")
    assert all(torch.isfinite(value).all() for value in state["net"].values())
    assert all(np.isfinite(record["loss"]) for record in run.records("epoch"))


def test_many_non_finite_steps_end_the_run_with_advice(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_loss(monkeypatch, math.nan)
    with pytest.raises(TrainingError, match=r"all steps of epoch 1 .*`camoxpert resume .* --lr"):
        fit(tiny.replace(epochs=20))
    assert not Run(tiny.checkpoint_dir).has("last")  # nothing says that it is any good
    monkeypatch.setattr("camoxpert_nb.training.train.MOST_SKIPPED", 3)  # as within a long epoch
    with pytest.raises(TrainingError, match=r"not finite in 3 steps in a row .*--lr"):
        fit(tiny.replace(epochs=20), resume=True)


def ids_for_masks(root: Path, step: int) -> list[Path]:
    """Give every `step`-th training mask ids of 2 and 3 instead of 255."""
    masks = sorted((root / "Train" / "GT_Object").glob("*-CAM-*"))[::step]
    for path in masks:
        grey = np.asarray(Image.open(path).convert("L")) > 128
        Image.fromarray((grey * 2 + (grey & (grey.cumsum(1) > 3))).astype(np.uint8)).save(path)
    return masks


def test_masks_of_ids_are_told_when_training_starts(
    tiny: Config, camouflage: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(camouflage, tmp_path / "own")
    count = len(ids_for_masks(root, 3))
    run = fit(tiny.replace(dataset_path=str(root), checkpoint_dir=str(tmp_path / "run")))
    said = [note["message"] for note in run.records("note") if "above 128" in note["message"]]
    assert len(said) == 1
    assert said[0].startswith(f"{count} of ")


def test_without_any_object_nothing_trains(tiny: Config, camouflage: Path, tmp_path: Path) -> None:
    root = shutil.copytree(camouflage, tmp_path / "own")
    ids_for_masks(root, 1)
    with pytest.raises(InputError, match="Nothing can be learned here: none of the 32 masks"):
        fit(tiny.replace(dataset_path=str(root), checkpoint_dir=str(tmp_path / "run")))


def test_a_batch_larger_than_the_data_is_refused(tiny: Config) -> None:
    with pytest.raises(InputError, match=r"batch of 512 images .* larger than .* at most"):
        prepare(tiny.replace(batch_size=512))


def test_running_out_of_gpu_memory_ends_with_ranked_advice(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    import camoxpert_nb.training.train as module

    def full(*parts: Any, **weights: float) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "total", full)
    with pytest.raises(TrainingError, match=r"-batch-size 2 --accumulation-steps 2 \(same"):
        fit(tiny)


def test_history_is_plain_json_lines(tiny: Config) -> None:
    run = fit(tiny)
    lines = run.history_path.read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert kinds.count("epoch") == 2


def test_the_end_of_the_session_stops_the_training_saved(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "camoxpert_nb.training.budget.minutes_to_train", lambda wished, used: 0.0001
    )
    run = fit(tiny)
    assert run.records("stop")[-1]["why"] == "the time budget is used up"
    assert run.has("last")


def test_the_time_budget_counts_from_when_the_command_was_given(tiny: Config) -> None:
    config = tiny.replace(time_budget=5)
    run = fit(config, began=time.time() - 6 * 60)
    assert run.records()[-1]["why"] == "the time budget is used up"
    assert run.load("last")["step"] == 1
    run = fit(config, resume=True, began=time.time() - 60)
    assert run.load_json("summary")["finished"]


def test_a_network_of_ones_own_counts_as_untrained(tiny: Config) -> None:
    """So its batch norms train, whatever `pretrained` asks for the configured one."""
    inner = prepare(tiny).state.net

    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, image: torch.Tensor) -> Any:
            return self.inner(image)

        def backbone_blocks(self) -> Any:
            return self.inner.backbone_blocks()  # type: ignore[operator]

    before = {name: value.clone() for name, value in inner.named_buffers()}
    run = fit(tiny.replace(pretrained=True), net=Own())
    summary = run.load_json("summary")
    assert (summary["pretrained"], summary["weights_source"]) == (False, "a network of your own")
    moved = [n for n, value in inner.named_buffers() if not torch.equal(value, before[n])]
    assert any("running_mean" in name for name in moved)


def test_after_an_epoch_it_says_how_far_this_session_comes(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camoxpert_nb.training.budget.minutes_to_train", lambda wished, used: 60.0)
    (note,) = fit(tiny).records("note")
    assert "fits all 2 epochs" in note["message"]
    monkeypatch.undo()
    assert fit(tiny.replace(checkpoint_dir=f"{tiny.checkpoint_dir}-2")).records("note") == []
