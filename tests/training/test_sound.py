"""A state that has lost its numbers is never saved as a good one, and the advice works."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from own_parts import dice, flips

from camoxpert_nb.cli import main
from camoxpert_nb.errors import InputError, TrainingError
from camoxpert_nb.network.build import build_net
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.own import Own
from camoxpert_nb.training.prepare import prepare
from camoxpert_nb.training.sound import _gentler, _named, diverged, why_spoiled, why_unsound

EXPLODES = {"lr": 1.0, "weight_decay": 100.0, "warmup_epochs": 0, "scheduler": "none"}


def lost(config: Config) -> torch.nn.Module:
    """The configured network, whose loss is never a number while it trains."""
    net = build_net(config)
    whole = net.forward

    def forward(image: Any) -> dict[str, Any]:
        found = whole(image)
        return found | ({"logits": found["logits"] * float("nan")} if net.training else {})

    net.forward = forward  # type: ignore[method-assign]
    return net


def checkpoints(run: Run) -> dict[str, dict[str, Any]]:
    return {name: run.load(name) for name in ("last", "best") if run.has(name)}


def is_finite(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return bool(value.isfinite().all())
    if isinstance(value, dict):
        return all(is_finite(each) for each in value.values())
    return all(is_finite(each) for each in value) if isinstance(value, list) else True


@pytest.mark.parametrize("break_it", ["weights", "averaged weights", "moments", "a statistic"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_each_number_of_a_state_counts(tiny: Config, break_it: str, number: float) -> None:
    state = prepare(tiny).state
    assert why_unsound(state) == ""
    parameter = next(state.net.parameters())
    if break_it == "moments":
        state.optimizer.state[parameter]["exp_avg"] = torch.full((2,), number)
    else:
        net = state.ema.module if state.ema and break_it == "averaged weights" else state.net
        ending = "running_mean" if break_it == "a statistic" else "weight"
        value = next(v for name, v in net.state_dict().items() if name.endswith(ending))
        value.view(-1)[0] = number  # it shares its memory with the network
    wanted = "weights" if break_it == "a statistic" else break_it
    assert why_unsound(state) == f"its {wanted} are not finite"


def test_steps_that_could_not_be_taken_count(tiny: Config) -> None:
    state = prepare(tiny).state
    for skipped, ends, wrong in ((1, True, True), (1, False, False), (3, False, True)):
        state.skipped_in_row = skipped
        assert bool(why_unsound(state, epoch_ends=ends)) == wrong


def follow(error: BaseException, which: int) -> list[str]:
    """The words of the advice's first or second command, after `camoxpert`."""
    commands = re.findall(r"`camoxpert ((?:resume|train) [^`]*)`", str(error))
    return shlex.split(commands[which])


@pytest.mark.parametrize("which", [0, 1])
def test_a_run_that_explodes_says_what_to_do_and_that_works(tiny: Config, which: int) -> None:
    with pytest.raises(TrainingError, match="cannot go on") as caught:
        fit(tiny.replace(epochs=8, **EXPLODES))
    run = Run(tiny.checkpoint_dir)
    assert all(is_finite(state) for state in checkpoints(run).values())
    assert "cannot go on" in run.load_json("failure")["message"]
    assert main.main(follow(caught.value, which)) == 0
    went_on = Run(run.folder if which == 0 else run.folder.with_name("run-2"))
    assert len(went_on.records("epoch")) == 8
    assert all(is_finite(state) and state for state in checkpoints(went_on).values())


@pytest.mark.parametrize(
    ("settings", "gentler"),
    [
        ({}, {"lr": 6.5e-5}),  # a tenth; the rest is known to work
        ({"lr": 1e-1, "min_lr": 1e-3}, {"lr": 6.5e-4, "min_lr": 6.5e-6}),
        (  # below the lower of the two
            {"lr": 1e-3, "stage2_lr": 1e-4, "min_lr": 2e-5},
            {"lr": 1e-4, "stage2_lr": 1e-5, "min_lr": 1e-7},
        ),
        ({"lr": 1e-3, "stage2_lr": 1e-1}, {"lr": 1e-4, "stage2_lr": 1.5e-4}),
        ({"clip": 5.0, "deep_weight": 3.0}, {"lr": 6.5e-5, "clip": 1.0, "deep_weight": 1.0}),
        ({"balance": 1.0, "uncertainty": 0.5}, {"lr": 6.5e-5, "balance": 0.1, "uncertainty": 0.0}),
        ({"weight_decay": 2.0}, {"lr": 6.5e-5, "weight_decay": 1e-4}),
        ({"weight_decay": 1.0, "clip": 0.5}, {"lr": 6.5e-5}),
    ],
)
def test_gentler_settings_are_those_that_are_known_to_work(
    settings: dict[str, float], gentler: dict[str, float]
) -> None:
    found = _gentler(Config(**settings))  # type: ignore[arg-type]
    assert found == pytest.approx(gentler)
    Config(**settings).replace(**found)  # and they fit together


def test_a_scaler_may_skip_more_steps_to_find_its_scale(tiny: Config) -> None:
    state = prepare(tiny).state
    state.scaler = torch.amp.GradScaler("cpu")
    for skipped, ends, wrong in ((3, False, False), (11, True, False), (12, False, True)):
        state.skipped_in_row = skipped
        assert bool(why_unsound(state, epoch_ends=ends)) == wrong
    assert why_spoiled(state, all_skipped=True) == ""  # one more epoch tells
    state.scaler = torch.amp.GradScaler("cpu", enabled=False)
    assert "all steps" in why_spoiled(state, all_skipped=True)
    assert why_spoiled(state, all_skipped=False) == ""
    state.skipped_in_row = 0
    next(state.net.parameters()).data.fill_(float("nan"))
    assert "weights" in why_spoiled(state, all_skipped=False)


def test_a_good_run_that_is_lost_later_keeps_its_good_state(tiny: Config) -> None:
    run = fit(tiny)
    before = {name: (run.folder / f"{name}.pt").read_bytes() for name in ("last", "best")}
    with pytest.raises(TrainingError, match=r"last\.pt stays as it was") as caught:
        fit(tiny.replace(epochs=4), resume=True, net=lost(tiny))
    assert {n: (run.folder / f"{n}.pt").read_bytes() for n in before} == before
    assert main.main(follow(caught.value, 0)) == 0


def test_an_epoch_of_skipped_steps_is_no_epoch(
    tiny: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TrainingError, match=r"all steps of epoch 1 had gradients"):
        fit(tiny, net=lost(tiny))
    run = Run(tiny.checkpoint_dir)
    assert not run.has("last") and not run.has("best") and not run.records("epoch")


@pytest.mark.parametrize(
    "flags",
    [
        "--lr inf",
        "--lr nan",
        "--lr -1",
        "--lr 0",
        "--lr 1e6",
        "--clip inf",
        "--balance -1",
        "--weight-decay nan",
        "--epochs 0",
        "--epochs -3",
        "--epochs 999999999999",
        "--batch-size 0",
        "--img-size 99999999",
        "--num-workers 100000",
        "--deep-weight 1e30",
        "--seed -1",
        f"--seed {2**64}",
        "--save-minutes inf",
        "--time-budget nan",
        "--ema-decay 2",
        "--min-lr 1",
    ],
)
def test_absurd_values_are_refused(flags: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["train", "--preset", "tiny", *flags.split()]) == 2
    said = capsys.readouterr().err
    assert (flags.split()[0] in said and "must be" in said) or "rise instead" in said


# -- what a run goes on from ---------------------------------------------------------------------


def test_best_is_no_state_to_go_on_from(tiny: Config, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(tiny)
    before = (run.folder / "history.jsonl").read_text()
    for words in (["resume"], ["train", "--resume-from"]):
        assert main.main([*words, str(run.folder / "best.pt")]) == 2
        said = capsys.readouterr().err
        assert "weights only" in said and "--init-from" in said
    assert (run.folder / "history.jsonl").read_text() == before


def test_another_whole_state_goes_on_in_a_folder_of_its_own(tiny: Config) -> None:
    run = fit(tiny.replace(epochs=3))
    early = fit(tiny.replace(epochs=1, stage1_epochs=0, checkpoint_dir=f"{tiny.checkpoint_dir}-a"))
    kept = run.folder / "kept.pt"
    kept.write_bytes((early.folder / "last.pt").read_bytes())
    assert main.main(["resume", str(kept), "--epochs", "2", "--stage1-epochs", "0"]) == 0
    assert len(run.records("epoch")) == 3
    assert len(Run(run.folder / "kept").records("epoch")) == 2


@pytest.mark.parametrize("how", ["gone", "empty", "a pointer", "cut"])
def test_without_a_last_state_nothing_is_replaced_or_doubled(
    tiny: Config, how: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = fit(tiny)
    last = run.folder / "last.pt"
    changes: dict[str, Callable[[], Any]] = {
        "gone": last.unlink,
        "empty": lambda: last.write_bytes(b""),
        "a pointer": lambda: last.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "cut": lambda: last.write_bytes(last.read_bytes()[:3000]),
    }
    changes[how]()
    files = {path: path.read_bytes() for path in run.folder.rglob("*.*") if path.is_file()}
    for words in (["resume", str(run.folder)], ["train", "--resume-from", str(run.folder)]):
        assert main.main(words) == 2
        said = capsys.readouterr().err
        assert "Put last.pt back" in said
    (way_on,) = re.findall(r"`camoxpert (train [^`]*)`", said)
    for path, content in files.items():
        assert path.read_bytes() == content or path.name in ("failure.json", "process.json")
    assert main.main(shlex.split(way_on.replace("NEW", str(tmp_path / "new")))) == 0


def test_a_run_that_died_before_its_first_save_begins_anew(tiny: Config) -> None:
    run = Run(tiny.checkpoint_dir)
    run.folder.mkdir()
    run.save_config(tiny)
    run.log("start", step=0, epoch=0)
    run.log("step", epoch=1, step=2, steps=8)
    fit(tiny, resume=True)
    assert [record["epoch"] for record in run.records("epoch")] == [1, 2]
    assert json.loads(run.config_path.read_text())["preset"] == "tiny"
    with pytest.raises(InputError, match="already holds a run"):
        fit(make_config("tiny", checkpoint_dir=tiny.checkpoint_dir))


# -- whole sentences -----------------------------------------------------------------------------


@pytest.fixture
def calm(tiny: Config) -> Any:
    return prepare(tiny).state


def test_the_end_is_told_whole_with_two_ways_on(tiny: Config, tmp_path: Path, calm: Any) -> None:
    run = Run(tmp_path / "my run")
    config = tiny.replace(lr=0.5, clip=3.0, checkpoint_dir=str(run.folder))
    flags = shlex.join(["--clip", "1.0", "--lr", "0.00065"])
    (tmp_path / "my run-2").mkdir()
    said = str(diverged(run, config, "the weights are gone", calm))
    assert said == (
        "the weights are gone, so training cannot go on; nothing was saved. The steps are too "
        f"large: go on with `camoxpert resume {run.folder} {flags}`. If it ends so again, the "
        "weights were spoiled before they were saved: begin anew with `camoxpert train --config "
        f"{run.config_path} {flags} --checkpoint-dir {tmp_path / 'my run-3'}`. `camoxpert data` "
        "finds damaged images; --no-amp computes in float32."
    )
    run.folder.mkdir()
    (run.folder / "last.pt").write_bytes(b"state")
    assert "cannot go on; last.pt stays as it was before. The" in str(
        diverged(run, config, "", calm)
    )


@pytest.mark.parametrize(
    ("own", "unsound", "blame"),
    [
        (Own(loss=dice), True, "Your loss dice gave no number: guard its log, sqrt and divisions"),
        (
            Own(loss=dice),
            False,
            "The gradient of your loss dice may be infinite, as that of sqrt at 0",
        ),
        (
            Own(augment=flips),
            True,
            "Your own augment=flips may be to blame, or a learning rate too large",
        ),
    ],
)  # fmt: skip
def test_parts_of_ones_own_are_blamed_by_name(
    tmp_path: Path, tiny: Config, calm: Any, own: Own, unsound: bool, blame: str
) -> None:
    run = Run(tmp_path / "run")
    calm.own, calm.unsound_loss = own, unsound
    ((name, part),) = own.names.items()
    said = str(diverged(run, tiny, "all is lost", calm))
    assert said == (
        f"all is lost, so training cannot go on; nothing was saved. {blame}. Mend it and go on "
        f"with `fit({str(run.folder)!r}, resume=True, {name}={part})`, or begin anew with a lower "
        "lr in make_config."
    )
    run.folder.mkdir()
    (run.folder / "last.pt").write_bytes(b"state")
    assert "last.pt stays as it was before. " in str(diverged(run, tiny, "", calm))


def test_a_loss_that_is_called_loss_is_named_once() -> None:
    assert _named({"loss": "loss"}) == "" and _named({"loss": "dice"}) == " dice"


def test_why_a_state_is_not_kept_is_told_whole(calm: Any) -> None:
    calm.skipped_in_row = 3
    assert why_unsound(calm) == "the last 3 steps had gradients that are not finite"
    calm.skipped_in_row = 2
    assert why_unsound(calm) == ""
    assert why_unsound(calm, epoch_ends=True) == "the last step had gradients that are not finite"
    calm.epoch = 4
    assert why_spoiled(calm, all_skipped=True) == (
        "all steps of epoch 4 had gradients that are not finite"
    )
    calm.scaler = torch.amp.GradScaler("cpu")
    calm.skipped_in_row = 13
    assert why_unsound(calm) == "the last 13 steps had gradients that are not finite"
