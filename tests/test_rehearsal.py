"""Memory that runs out: before the first epoch, and in the middle of one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import camoxpert_nb.rehearsal as rehearsal
import camoxpert_nb.train as train
from camoxpert_nb.config import Config
from camoxpert_nb.errors import TrainingError
from camoxpert_nb.fit import fit
from camoxpert_nb.losses import Supervised
from camoxpert_nb.recipe import prepare


def room_for(monkeypatch: pytest.MonkeyPatch, most: dict[bool, int]) -> None:
    """Let the network run out of memory above so many images, by whether the backbone trains."""
    forward = Supervised.forward

    def limited(self: Any, image: torch.Tensor, mask: torch.Tensor) -> Any:
        trains = any(p.requires_grad for p in self.net.backbone.parameters())
        if len(image) > most[trains]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, image, mask)

    monkeypatch.setattr(Supervised, "forward", limited)


def test_a_rehearsal_splits_the_stages_that_do_not_fit(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = prepare(tiny.replace(batch_size=8))
    before = copy.deepcopy(training.state.net.state_dict())
    room_for(monkeypatch, {False: 8, True: 3})
    split, pace = rehearsal.rehearse(training.state, training.plan, tiny.img_size)
    assert set(pace) == {0, split[0].open_blocks}
    assert all(seconds > 0 for seconds in pace.values())
    assert [stage.part for stage in split] == [2]
    training.state.open_blocks(0)
    assert training.state.parts_per_batch == 1
    training.state.open_blocks(split[0].open_blocks)
    assert training.state.parts_per_batch == 4
    after = training.state.net.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(p.grad is None for p in training.state.net.parameters())


def test_a_rehearsal_says_when_nothing_fits(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    training = prepare(tiny)
    room_for(monkeypatch, {False: 4, True: 0})
    with pytest.raises(TrainingError, match="not even one image of 64 px"):
        rehearsal.rehearse(training.state, training.plan, tiny.img_size)


def test_a_batch_in_parts_is_the_same_step(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without batch norm and balance, which look at a part as a whole."""
    config = tiny.replace(backbone="test_convnext", balance=0.0, clip=1e9)
    whole, parted = prepare(config), prepare(config)
    batch = next(iter(_batches(whole)))
    weights = {"deep": 1.0, "balance": 0.0, "uncertainty": 0.0}
    settings = _settings(config)
    for training in (whole, parted):
        training.state.open_blocks(4)
    expected = train.train_step(whole.state, [batch], settings, weights)
    room_for(monkeypatch, {True: 1})
    found = train.train_step(parted.state, [batch], settings, weights)
    assert parted.state.parts_per_batch == 4
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert found["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-4)
    assert torch.allclose(whole.state.shares, parted.state.shares)
    for a, b in zip(whole.state.net.parameters(), parted.state.net.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


def test_a_run_that_is_short_of_memory_goes_on_and_says_so(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_for(monkeypatch, {False: 4, True: 2})
    run = fit(tiny)
    (note,) = run.records("note")
    assert "each batch of 4 per device is computed in 2 parts" in note["message"]
    assert run.load_json("summary")["finished"]
    assert [record["skipped_steps"] for record in run.records("epoch")] == [0, 0]


def _batches(training: Any) -> Any:
    from camoxpert_nb.recipe import Loaders

    return Loaders(training).epoch(training.plan.at(0))


def _settings(config: Config) -> Any:
    from camoxpert_nb.recipe import step_settings

    return step_settings(config)
