"""Trainings with parts of the user's own: the same loop, resume, and what is said of failures."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from equal_runs import assert_equal_runs, stop_after
from own_parts import bce, dice, flips, sgd
from training.test_train import WEIGHTS, freeze_statistics, gradients, make_batch, split

from camoxpert_nb.cli.main import main
from camoxpert_nb.errors import InputError, TrainingError
from camoxpert_nb.machine.devices import Devices
from camoxpert_nb.network.losses import structure_loss
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.graph import make_graph
from camoxpert_nb.training.own import (
    Callbacks,
    Own,
    OwnLoss,
    is_own,
    parameters_of,
    require_own,
)
from camoxpert_nb.training.own_checks import check_own
from camoxpert_nb.training.prepare import prepare, step_settings
from camoxpert_nb.training.resume import resumed_config, take_over
from camoxpert_nb.training.train import train_step

OWN = Own(loss=dice, augment=flips, optimizer=sgd)


def as_it_is(images: Any, masks: Any, generator: Any) -> Any:
    return images, masks


@pytest.fixture
def two_parts(tiny: Config) -> Config:
    return tiny.replace(accumulation_steps=2, epochs=3)


def test_the_kits_own_parts_given_as_ones_own_give_the_same(tiny: Config, tmp_path: Path) -> None:
    tiny = tiny.replace(augment=0.0)
    own = Own(loss=structure_loss, augment=as_it_is, optimizer=torch.optim.AdamW)
    expected, found = (
        fit(tiny.replace(checkpoint_dir=str(tmp_path / name)), own=parts)
        for name, parts in (("kit", None), ("own", own))
    )
    for kit, ours in zip(expected.records("step"), found.records("step"), strict=True):
        assert ours["lr"] == kit["lr"]
    kit, ours = expected.records("epoch")[0], found.records("epoch")[0]
    for name in ("loss", "structure", "val_loss", "gradient_norm"):
        assert ours[name] == pytest.approx(kit[name], rel=1e-3), name


def test_interrupted_and_resumed_equals_uninterrupted(two_parts: Config, tmp_path: Path) -> None:
    whole = fit(two_parts, own=OWN)
    parts = two_parts.replace(checkpoint_dir=str(tmp_path / "parts"))
    fit(parts, report=stop_after(6), own=OWN)  # in the middle of an epoch
    run = fit(parts, resume=True, own=OWN)
    assert run.finished
    assert_equal_runs(whole, run)
    moments = run.load("last")["optimizer"]["state"]
    assert {name for each in moments.values() for name in each} == {"momentum_buffer"}
    assert run.own_parts == {"loss": "dice", "augment": "flips", "optimizer": "sgd"}


def test_a_run_with_own_parts_goes_on_with_them_alone(
    tiny: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(tiny, report=stop_after(3), own=OWN)
    call = f"fit({str(run.folder)!r}, resume=True, loss=dice, augment=flips, optimizer=sgd)"
    with pytest.raises(InputError) as caught:
        fit(tiny, resume=True)
    assert call in str(caught.value)
    assert main(["resume", str(run.folder)]) == 2
    assert call in capsys.readouterr().err
    alone = tmp_path / "alone" / "downloaded.pt"
    alone.parent.mkdir()
    alone.write_bytes((run.folder / "last.pt").read_bytes())
    config = resumed_config(alone, {})
    take_over(alone, config)
    with pytest.raises(InputError, match=r"\(loss=dice, augment=flips, optimizer=sgd\)"):
        fit(config, resume=True)
    with pytest.raises(InputError, match="optimizer sgd, and the optimizer Adam is given"):
        fit(tiny, resume=True, own=Own(dice, flips, torch.optim.Adam))
    assert run.load("last")["step"] == 3


def test_a_run_that_was_never_saved_asks_for_its_parts_too(tiny: Config) -> None:
    run = fit(tiny, report=stop_after(3), own=OWN)
    (run.folder / "last.pt").unlink()
    run.save_text("history.jsonl", "")
    with pytest.raises(InputError, match="resume=True, loss=dice"):
        fit(tiny, resume=True)


def test_another_loss_is_told_and_the_kits_can_be_had_again(tiny: Config) -> None:
    run = fit(tiny, report=stop_after(3), own=Own(loss=dice))
    changes: list[str] = []
    how: dict[str, Any] = {"announce": lambda training: changes.extend(training.changes)}
    fit(tiny, resume=True, report=stop_after(2), own=Own(loss=bce), **how)
    assert changes == ["goes on with loss bce, before loss dice"]
    fit(tiny, resume=True, own=Own(loss="built-in"), **how)
    assert changes[1] == "goes on with loss built-in, before loss bce"
    assert run.own_parts == {}
    assert run.finished


def test_records_come_as_they_are_logged(tiny: Config) -> None:
    steps: list[Any] = []
    epochs: list[Any] = []
    run = fit(tiny, own=Own(loss=bce, on_step=steps.append, on_epoch=epochs.append))
    assert [each["step"] for each in steps] == [*range(1, run.load("last")["step"] + 1)]
    assert epochs == run.records("epoch")
    assert epochs[0]["val_loss"] < 1 < fit_val_loss(tiny), "the user's loss validates too"


def test_a_part_called_as_what_it_is_is_not_named_twice() -> None:
    def loss(logits: Any, masks: Any) -> Any:
        return logits.nothing()

    own = Own(loss=loss, augment=flips)
    assert own.in_words == "loss, augment=flips"
    with pytest.raises(InputError, match=r"\(loss, augment=flips\), and loss is not given"):
        require_own(own.names, Own(augment=flips), "RUN")
    with pytest.raises(InputError, match=r"^your own loss failed: AttributeError"):
        check_own(own, torch.device("cpu"), 32)
    lines = require_own({"loss": "loss"}, Own(loss=dice), "RUN")
    assert lines == ["goes on with loss dice, before your own loss"]


def test_a_growing_weight_is_told_once(tiny: Config) -> None:
    told = [prepare(each).notes for each in (tiny, open_weight(tiny))]
    assert told[0] == [] and len(told[1]) == 1 and "weight grows to 2" in told[1][0]
    assert prepare(open_weight(tiny), own=Own(loss=dice)).notes == []


def open_weight(tiny: Config, **changes: Any) -> Config:
    return tiny.replace(**{"preset": "auto", "uncertainty": None, "augment": 0.0, **changes})


def weighted(run: Run) -> list[float]:
    """The uncertainty term of each epoch, as it entered the loss."""
    return [each["weighted"]["uncertainty"] for each in run.records("epoch")]


def test_an_own_loss_takes_the_place_of_the_whole_loss(tiny: Config) -> None:
    run = fit(open_weight(tiny), own=Own(loss=dice))
    assert weighted(run) == [0.0, 0.0]
    for each in run.records("epoch"):
        terms = each["structure"] + each["deep"] + 0.1 * each["balance"]
        assert each["loss"] == pytest.approx(terms, rel=1e-4)
    assert run.config.uncertainty is None  # trained anew without the loss, it is the recipe's
    kit = fit(open_weight(tiny, checkpoint_dir=tiny.checkpoint_dir + "-kit"))
    assert weighted(kit)[-1] > 0.1 and kit.config.uncertainty == 2.0


@pytest.mark.parametrize("changes", [{"uncertainty": 0.5}, {"uncertainty": 2.0}])
def test_a_weight_that_was_set_stays_with_an_own_loss(tiny: Config, changes: Any) -> None:
    run = fit(open_weight(tiny, **changes), report=stop_after(3), own=Own(loss=dice))
    run = fit(run.config, resume=True, own=Own(loss=dice))
    assert run.config.uncertainty == changes["uncertainty"] and weighted(run)[-1] > 0


def test_a_run_that_changes_its_loss_changes_the_uncertainty_term_too(tiny: Config) -> None:
    changes: list[str] = []
    how: dict[str, Any] = {"announce": lambda training: changes.extend(training.changes)}
    run = fit(open_weight(tiny, epochs=3), report=stop_after(3))
    assert run.config.uncertainty == 2.0
    run = fit(run.config, resume=True, report=stop_after(6), own=Own(loss=dice), **how)
    assert run.config.uncertainty is None and "goes on with --uncertainty 2 -> none" in changes
    run = fit(run.config, resume=True, own=Own(loss="built-in"), **how)
    assert run.config.uncertainty == 2.0 and "goes on with --uncertainty none -> 2" in changes
    given = Config.load(run.config_path).replace(checkpoint_dir=tiny.checkpoint_dir + "-set")
    other = fit(given.replace(uncertainty=0.7), report=stop_after(3))
    fit(other.config, resume=True, own=Own(loss=dice))
    assert other.config.uncertainty == 0.7


def fit_val_loss(tiny: Config) -> float:
    folder = tiny.checkpoint_dir + "-kit"
    loss: float = fit(tiny.replace(checkpoint_dir=folder)).records("epoch")[0]["val_loss"]
    return loss


def test_a_callback_may_stop_the_training(two_parts: Config, tmp_path: Path) -> None:
    whole = fit(two_parts)
    parts = two_parts.replace(checkpoint_dir=str(tmp_path / "parts"))
    own = Own(on_step=lambda record: "stop" if record["step"] == 2 else None)
    run = fit(parts, own=own)
    (stop,) = run.records("stop")
    assert stop["why"].startswith("on_step <lambda in line ")
    assert run.load("last")["step"] == 2
    run = fit(parts, resume=True, own=Own(on_epoch=lambda record: "stop"))
    assert run.epochs == 1 and not run.finished
    assert_equal_runs(whole, fit(parts, resume=True))


def test_what_else_a_callback_returns_is_told_once(tiny: Config) -> None:
    run = fit(tiny, own=Own(on_step=lambda record: True))
    (note,) = [each["message"] for each in run.records("note")]
    assert "returned True, which does nothing" in note


@pytest.mark.parametrize("at", [("step", 3), ("epoch", 1), ("epoch", 3)])
def test_a_callback_that_fails_is_named_and_the_run_saved(
    two_parts: Config, tmp_path: Path, at: tuple[str, int]
) -> None:
    whole = fit(two_parts)

    def picky(record: dict[str, Any]) -> None:
        if record[at[0]] == at[1]:
            raise KeyError("learning_rate")

    parts = two_parts.replace(checkpoint_dir=str(tmp_path / "parts"))
    with pytest.raises(TrainingError) as caught:
        fit(parts, own=Own(**{f"on_{at[0]}": picky}))
    said = str(caught.value)
    assert f"on_{at[0]} picky failed at step" in said
    assert "KeyError: 'learning_rate' (line " in said and "test_own.py" in said
    assert f"on_{at[0]}=picky)`" in said
    assert said == Run(parts.checkpoint_dir).load_json("failure")["message"]
    assert_equal_runs(whole, fit(parts, resume=True))


def test_a_loss_that_loses_its_numbers_is_named(two_parts: Config) -> None:
    taken: list[Any] = []

    def fading(logits: Any, masks: Any) -> Any:
        return dice(logits, masks) / (0 if len(taken) >= 2 else 1) * 1.0

    own = Own(loss=fading, on_step=taken.append)
    with pytest.raises(TrainingError, match="Your loss fading gave no number: guard its log") as e:
        fit(two_parts, own=own)
    assert "resume=True, loss=fading, on_step=append)" in str(e.value)


def test_a_part_that_fails_later_is_named(tiny: Config) -> None:
    taken: list[Any] = []

    def forgetful(images: Any, masks: Any, generator: Any) -> Any:
        if len(taken) == 4:
            raise LookupError("no more ideas")
        return images, masks

    expected = r"augment forgetful failed: LookupError: no more ideas \(line \d+ of test_own.py\)"
    with pytest.raises(TrainingError, match=expected):
        fit(tiny, own=Own(augment=forgetful, on_step=taken.append))


def test_parts_of_a_batch_add_up_with_an_own_loss(tiny: Config) -> None:
    state, settings = prepare(tiny, own=Own(loss=dice)).state, step_settings(tiny)
    freeze_statistics(state)
    batch, twin = make_batch(5), copy.deepcopy(state)
    expected = train_step(state, [batch], settings, WEIGHTS)
    found = train_step(twin, split(batch, 2, 2, 1), settings, WEIGHTS)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)  # balance is next to 0
    for whole, parts in zip(gradients(state), gradients(twin), strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-5)


def test_own_python_is_not_captured_and_that_is_told() -> None:
    devices = Devices("one", (0,), "")
    how: dict[str, Any] = {"wanted": True, "checkpointing": False, "recover": lambda: None}
    graph = make_graph(devices, own=OWN.in_words, **how)
    assert graph.recorder is None
    assert "your own loss=dice, augment=flips, optimizer=sgd is Python that runs anew" in graph.note


def test_ignored_pixels_do_not_count_in_an_own_loss(tiny: Config) -> None:
    asked: list[Any] = []

    def counting(logits: Any, masks: Any, counted: Any) -> Any:
        asked.append(counted.mean().item())
        return dice(logits * counted, masks * counted)

    state = prepare(tiny, own=Own(loss=counting)).state
    batch = make_batch(2)
    ignored = torch.zeros_like(batch["mask"])
    ignored[:, :, :16] = 1
    batch["mask"] = torch.cat([batch["mask"], ignored], 1)
    train_step(state, [batch], step_settings(tiny.replace(augment=0.0)), WEIGHTS)
    assert asked[-4:] == [0.5] * len(asked[-4:])


# --- whole sentences, and what a callback may do


def test_a_run_whose_part_is_missing_is_told_whole() -> None:
    recorded = {"loss": "dice", "augment": "flips"}
    with pytest.raises(InputError) as caught:
        require_own(recorded, Own(augment=flips), "a run")
    assert str(caught.value) == (
        "a run was trained with parts of its user's own (loss=dice, augment=flips), and loss=dice "
        "is not given here. A command cannot give it: go on in Python, where it is defined, with "
        "`fit('a run', resume=True, loss=dice, augment=flips)`. To go on with the kit's own "
        "instead, say so there: loss='built-in'."
    )
    with pytest.raises(InputError, match=r"there: loss='built-in', augment='built-in'\.$"):
        require_own(recorded, Own(), "a run")
    assert require_own(recorded, Own(loss="built-in", augment=dice), "a run") == [
        "goes on with loss built-in, before loss dice",
        "goes on with augment dice, before augment flips",
    ]
    assert require_own(recorded, Own(loss=dice, augment=flips), "a run") == []
    assert require_own({}, Own(), "a run") == []


@pytest.mark.parametrize(
    ("recorded", "given", "words"),
    [
        ({"optimizer": "sgd"}, "built-in", ("the optimizer sgd", "the kit's AdamW")),
        ({}, sgd, ("the kit's AdamW", "the optimizer sgd")),
    ],
)
def test_another_optimizer_is_told_whole(recorded: Any, given: Any, words: tuple[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        require_own(recorded, Own(optimizer=given), Path("a/run"))
    assert str(caught.value) == (
        f"a/run was trained with {words[0]}, and {words[1]} is given: what it remembers of the "
        "steps before does not fit another one. Give the same, or begin a new run from these "
        "weights: make_config(..., init_from='a/run')."
    )


def test_parts_have_names_and_a_call_that_goes_on() -> None:
    own = Own(loss=dice, augment="built-in", on_step=print, on_epoch=sgd)
    assert own.names == {"loss": "dice"} and own.in_words == "loss=dice"
    assert own.call(Path("a/run")) == (
        "fit('a/run', resume=True, loss=dice, on_step=print, on_epoch=sgd)"
    )
    assert (Own().names, Own().in_words, Own().call("r")) == ({}, "", "fit('r', resume=True)")
    assert [is_own(each) for each in (None, "built-in", "dice", dice)] == [False, False, True, True]


def test_a_loss_is_called_with_what_it_takes() -> None:
    """A number for all, or one for each image, in float32; what counts only where it is asked."""
    seen: list[Any] = []

    def with_counted(logits: Any, masks: Any, counted: Any) -> Any:
        seen.append(counted)
        return (logits * counted).mean((1, 2, 3)).double()

    logits, mask = torch.ones(2, 1, 2, 2, dtype=torch.float64), torch.zeros(2, 1, 2, 2)
    half = torch.zeros(2, 1, 2, 2)
    half[0] = 1
    loss = OwnLoss(with_counted)
    assert loss(logits, mask, half).tolist() == [1.0, 0.0] and seen[-1] is half
    found = loss(logits, mask)
    assert found.tolist() == [1.0, 1.0] and found.dtype == torch.float32
    assert torch.equal(seen[-1], torch.ones_like(mask))

    def plain(logits: Any, masks: Any) -> Any:
        assert logits.dtype == torch.float32
        return logits.sum()

    assert OwnLoss(plain)(logits, mask, half).tolist() == [8.0, 8.0]
    assert OwnLoss(torch.nn.BCEWithLogitsLoss()).takes_counted is False
    with pytest.raises(TrainingError, match=r"^loss <lambda in line \d+ of test_own.py> failed: T"):
        OwnLoss(lambda x: x)(logits, mask)
    with pytest.raises(
        InputError, match=r"^loss <lambda .*> returned a tensor of shape \(3,\) for"
    ):
        OwnLoss(lambda x, m: torch.ones(3))(logits, mask)


def test_what_a_function_takes_is_known_where_python_can_tell() -> None:
    assert list(parameters_of(plain_function)) == ["first", "second"]
    assert list(parameters_of(torch.nn.Linear(1, 1))) == ["input"]
    assert parameters_of(3) == {} and parameters_of(dict) == {}


def plain_function(first: int, second: int = 2) -> None:
    pass


STEP = {"kind": "step", "step": 3, "epoch": 2}


def callbacks(**functions: Any) -> tuple[Callbacks, list[str]]:
    said: list[str] = []
    found = Callbacks(Own(**functions), lambda: said.append("stopped"), said.append)
    assert (found.failure, found.asked) == (None, "")
    return found, said


def test_a_callback_gets_its_own_records_as_copies() -> None:
    got: list[Any] = []

    def noted(record: Any) -> None:
        got.append(dict(record))
        record.clear()

    calls, said = callbacks(on_step=noted)
    for kind in ("step", "epoch", "note", "end"):
        calls.report({**STEP, "kind": kind})
    whole = dict(STEP)
    calls.report(whole)
    assert got == [STEP, STEP] and whole == STEP and said == []


def test_what_a_callback_answers_is_told_or_obeyed() -> None:
    answers: list[Any] = [None, 0, 1.5, "", False, True, "more", "stop"]
    calls, said = callbacks(on_step=lambda record: answers.pop(0))
    for _ in range(5):
        calls.report(STEP)
    assert said == []
    calls.report(STEP)
    calls.report(STEP)
    assert [re.sub("<.*?>", "F", each) for each in said] == [
        'on_step F returned True, which does nothing; "stop" would end the training, saved'
    ]
    calls.report(STEP)
    assert (
        said[1:] == ["stopped"] and re.sub("<.*?>", "F", calls.asked) == "on_step F asked to stop"
    )
    assert calls.failure is None
    calls.raise_failure("")


def test_a_callback_that_fails_is_called_no_more() -> None:
    asked: list[Any] = []

    def odd(record: Any) -> None:
        asked.append(record)
        raise ValueError("why")

    calls, said = callbacks(on_step=odd, on_epoch=asked.append)
    calls.report(STEP)
    calls.report(STEP)
    calls.report({**STEP, "kind": "epoch"})
    assert asked == [STEP] and said == ["stopped"]
    with pytest.raises(TrainingError) as caught:
        calls.raise_failure("CALL")
    assert re.sub(r"line \d+", "line N", str(caught.value)) == (
        "on_step odd failed at step 3, epoch 2: ValueError: why (line N of test_own.py). The run "
        "was saved after that step: mend it and go on with `CALL`."
    )
    assert isinstance(caught.value.__cause__, ValueError)
