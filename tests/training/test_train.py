"""The step: accumulation, skipping, sums; and the parallel contract of the real network."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from camoxpert_nb.data.augment import K
from camoxpert_nb.machine.distributed import ALONE, Ranks
from camoxpert_nb.network.losses import total
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.epoch import EpochSteps, end_epoch
from camoxpert_nb.training.prepare import prepare, step_settings
from camoxpert_nb.training.state import TrainState, backbone_blocks
from camoxpert_nb.training.train import Batch, loss_weights, ramp, train_step

WEIGHTS = {"deep": 1.0, "balance": 0.01, "uncertainty": 0.0}


def make_batch(count: int, seed: int = 0, size: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(count, 1, size, size, dtype=torch.uint8)
    mask[:, :, 8:20, 8:24] = 1
    return {
        "image": torch.randint(0, 256, (count, 3, size, size), generator=generator).to(torch.uint8),
        "mask": mask,
        "index": torch.arange(count),
        "uniform": torch.rand(count, K, generator=generator),
    }


def split(batch: Batch, *sizes: int) -> list[Batch]:
    return [
        dict(zip(batch, parts, strict=True))
        for parts in zip(*(value.split(sizes) for value in batch.values()), strict=True)
    ]


@pytest.fixture
def state(tiny: Config) -> TrainState:
    return prepare(tiny).state


@pytest.fixture
def settings(tiny: Config) -> Any:
    return step_settings(tiny)


def gradients(state: TrainState) -> list[Tensor]:
    return [p.grad.clone() for p in state.net.parameters() if p.grad is not None]


def freeze_statistics(state: TrainState) -> None:
    """Batch-norm is the one thing that a split batch may change; the contract leaves it out."""
    for module in state.net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def test_accumulated_batches_weigh_by_their_images(state: TrainState, settings: Any) -> None:
    """Five images as 2 + 2 + 1 give the gradient of the five at once, balance included."""
    weights = WEIGHTS | {"balance": 5.0}
    usage = torch.rand(2, 7, generator=torch.Generator().manual_seed(3)).softmax(1)
    state.usage = usage.clone()
    freeze_statistics(state)
    batch, twin = make_batch(5), copy.deepcopy(state)
    expected = train_step(state, [batch], settings, weights)
    found = train_step(twin, split(batch, 2, 2, 1), settings, weights)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    torch.testing.assert_close(state.usage, twin.usage)
    assert not torch.equal(state.usage, usage)
    for whole, parts in zip(gradients(state), gradients(twin), strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-5)


def test_batches_that_fill_no_step_are_left_out(tiny: Config) -> None:
    """Five batches accumulated by two are two steps: a third would have another batch."""
    training = prepare(tiny.replace(accumulation_steps=2, stage1_epochs=0))
    settings = step_settings(training.config)
    batches = [make_batch(4, seed) for seed in range(5)]
    records = list(EpochSteps(training.state, training.plan, batches, settings))
    assert [record["step"] for record in records] == [1, 2]
    assert training.state.seen == 16


def split_like_data_parallel(module: nn.Module, batch: tuple[Tensor, ...], parts: int) -> Any:
    """Run each chunk on a copy of its own and gather along the sample, as DataParallel does.

    The copies share their parameters, so that gradients add up where they belong.
    """
    gathered: list[dict[str, Tensor]] = []
    for chunk in zip(*(tensor.chunk(parts) for tensor in batch), strict=True):
        replica = copy.deepcopy(module, {id(p): p for p in module.parameters()})
        gathered.append(replica(*chunk))
    return {key: torch.cat([part[key] for part in gathered]) for key in gathered[0]}


@pytest.mark.parametrize(("count", "parts"), [(4, 2), (5, 2), (3, 2), (7, 3), (1, 2)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_split_like_data_parallel_equals_unsplit(
    tiny: Config, count: int, parts: int, checkpointing: bool
) -> None:
    state = prepare(tiny.replace(gradient_checkpointing=checkpointing)).state
    state.net.train()
    freeze_statistics(state)
    batch = make_batch(count)
    inputs = (batch["image"] / 255, batch["mask"].float())

    def run(outputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        for value in outputs.values():
            assert isinstance(value, Tensor)
            assert len(value) == count, "the first dimension is the sample"
        state.net.zero_grad()
        loss, terms = total(outputs, **WEIGHTS)
        loss.backward()
        return loss, terms, gradients(state)

    loss, terms, slopes = run(state.supervised(*inputs))
    split_loss, split_terms, split_slopes = run(
        split_like_data_parallel(state.supervised, inputs, parts)
    )
    torch.testing.assert_close(loss, split_loss)
    for name, value in terms.items():
        torch.testing.assert_close(value, split_terms[name], rtol=1e-4, atol=1e-6)
    for whole, chunks in zip(slopes, split_slopes, strict=True):
        torch.testing.assert_close(whole, chunks, rtol=1e-3, atol=1e-5)


class FakeParallel(nn.Module):
    """Stands in for DataParallel over two devices."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Any:
        return split_like_data_parallel(self.module, inputs, 2)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_steps_of_two_devices_equal_those_of_one(
    tiny: Config, settings: Any, checkpointing: bool
) -> None:
    """Accumulation over 5 images and a last one alone: losses, gradients and experts' shares."""
    state = prepare(tiny.replace(gradient_checkpointing=checkpointing)).state
    freeze_statistics(state)
    twin = copy.deepcopy(state)
    twin.supervised = FakeParallel(twin.supervised)
    batches = split(make_batch(6), 5, 1)
    values = [train_step(each, batches, settings, WEIGHTS) for each in (state, twin)]
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    assert state.shares is not None
    torch.testing.assert_close(state.shares, twin.shares)
    for whole, parts in zip(gradients(state), gradients(twin), strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-5)


def test_under_a_scaler_an_infinite_step_is_skipped_and_the_scale_halves(
    state: TrainState, settings: Any
) -> None:
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)  # overflows float32
    before = copy.deepcopy(state.net.state_dict())
    values = train_step(state, [make_batch(4)], settings, WEIGHTS)
    assert values["skipped"] == 1
    assert math.isinf(values["gradient_norm"]) or math.isnan(values["gradient_norm"])
    assert state.scaler.get_scale() == 2.0**126
    assert all(
        torch.equal(before[k], v)
        for k, v in state.net.state_dict().items()
        if "num" not in k and "running" not in k
    )
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    values = train_step(state, [make_batch(4)], settings, WEIGHTS)
    assert values["skipped"] == 0
    assert state.skipped_in_row == 0


def test_scaled_and_plain_steps_move_the_weights_alike(state: TrainState, settings: Any) -> None:
    twin = copy.deepcopy(state)
    twin.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    for each in (state, twin):
        train_step(each, [make_batch(4)], settings, WEIGHTS)
    for a, b in zip(state.net.parameters(), twin.net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_average_forgets_its_random_start(state: TrainState, settings: Any) -> None:
    assert state.ema is not None
    state.step = 3000  # the average counts its own updates
    for _ in range(30):
        train_step(state, [make_batch(4)], settings, WEIGHTS)
    assert 0 < state.ema.get_decay(30) < 0.9
    gap = max(
        (a - b).abs().max().item()
        for a, b in zip(state.net.parameters(), state.ema.module.parameters(), strict=True)
    )
    assert 0 < gap < 0.1
    assert state.averaged == 30


def test_an_epoch_record_holds_means(tiny: Config) -> None:
    training = prepare(tiny.replace(stage1_epochs=0))
    state, plan, settings = training.state, training.plan, step_settings(tiny)
    count = plan.steps_left(0)
    batches = (make_batch(4, seed) for seed in range(count))
    steps = list(EpochSteps(state, plan, batches, settings))
    assert (state.epoch, state.seen) == (0, 4 * count)
    record = end_epoch(state, plan)
    assert record["loss"] == pytest.approx(sum(s["loss"] for s in steps) / len(steps))
    assert record["step"] == len(steps) == count
    for shares in record["gates"]:
        assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert state.sums == {} and state.shares is not None and not state.shares.any()
    assert (record["epoch"], state.epoch, state.seen) == (1, 1, 0)


@pytest.mark.parametrize("broken", [{0}, {1, 2}, {0, 1, 2, 3}])
def test_skipped_steps_neither_count_nor_write_nan(
    tiny: Config, broken: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    import camoxpert_nb.training.train as module

    state, plan = prepare(tiny).state, prepare(tiny).plan
    calls = iter(range(99))

    def sometimes_infinite(*args: Any, **weights: Any) -> Any:
        loss, terms = total(*args, **weights)
        wrong = next(calls) in broken
        return (
            (loss * math.inf, {k: v * math.nan for k, v in terms.items()})
            if wrong
            else (
                loss,
                terms,
            )
        )

    monkeypatch.setattr(module, "total", sometimes_infinite)
    batches = (make_batch(4, seed) for seed in range(4))
    steps = list(EpochSteps(state, plan, batches, step_settings(tiny)))
    record = end_epoch(state, plan)
    finite = [s["loss"] for number, s in enumerate(steps) if number not in broken]
    assert record["skipped_steps"] == len(broken)
    if finite:
        assert record["loss"] == pytest.approx(sum(finite) / len(finite))
        assert all(sum(shares) == pytest.approx(1, abs=1e-3) for shares in record["gates"])
    else:
        assert record["loss"] is None and record["gates"] is None
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert state.averaged == len(finite)


def test_a_finite_gradient_of_infinite_norm_is_skipped_for_good(
    state: TrainState, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    before = copy.deepcopy(state.net.state_dict())
    monkeypatch.setattr(
        nn.utils, "clip_grad_norm_", lambda parameters, most: torch.tensor(math.inf)
    )
    assert train_step(state, [make_batch(4)], settings, WEIGHTS)["skipped"] == 1
    moved = [name for name, p in state.net.named_parameters() if not torch.equal(before[name], p)]
    assert moved == []


def test_ramp_is_flat_then_rises_to_one() -> None:
    assert [ramp(0.0), ramp(0.3)] == [0, 0]
    assert ramp(0.65) == pytest.approx(0.5)
    assert ramp(1.0) == pytest.approx(1)


def test_the_router_gets_a_gradient_from_the_structure_loss_alone(
    state: TrainState, settings: Any
) -> None:
    train_step(state, [make_batch(4)], settings, {"deep": 0.0, "balance": 0.0, "uncertainty": 0.0})
    routers = [p for name, p in state.net.named_parameters() if "router" in name]
    assert routers
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in routers if p.ndim > 1)
    assert len(backbone_blocks(state.net)) == 4


def test_a_step_draws_from_its_seed_its_number_and_its_process(
    state: TrainState, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each pass anew, so that one that is taken again in parts draws the same."""
    import camoxpert_nb.training.train as module

    seeded: list[tuple[int, ...]] = []
    monkeypatch.setattr(module, "seed_step", lambda *place: seeded.append(place))
    state.ranks = dataclasses.replace(ALONE, rank=2)
    for number in (7, 8):
        state.step = number
        train_step(state, [make_batch(2)], settings, WEIGHTS)
    assert {*seeded} == {(settings.seed, 7, 2), (settings.seed, 8, 2)}


def test_dropout_is_the_same_for_the_same_step_whatever_was_drawn_before(
    state: TrainState, settings: Any
) -> None:
    state.net.reduce[0] = nn.Sequential(state.net.reduce[0], nn.Dropout(0.5))  # type: ignore[index, operator]
    losses = []
    for drawn, number in ((1, 5), (2, 5), (1, 6)):
        twin = copy.deepcopy(state)
        twin.step = number
        torch.manual_seed(drawn)
        losses.append(train_step(twin, [make_batch(4)], settings, WEIGHTS)["structure"])
    assert losses[0] == losses[1] != losses[2]


def test_gradients_are_exchanged_with_the_last_part_of_the_last_batch(
    state: TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    import camoxpert_nb.training.train as module

    state.parts[state.opened] = 2
    parts = [*module._parts(state, [make_batch(4), make_batch(3, 1)], 0.0, None)]
    assert [len(image) for image, _, _ in parts] == [2, 2, 2, 1]
    assert [last for *_, last in parts] == [False, False, False, True]
    waited: list[str] = []

    class Wrapped(nn.Module):
        def no_sync(self) -> Any:
            waited.append("waits")
            return contextlib.nullcontext()

    monkeypatch.setattr(module, "DistributedDataParallel", Wrapped)
    for last in (False, True):
        with module._in_step(Wrapped(), last), module._in_step(nn.Linear(1, 1), last):
            pass
    assert waited == ["waits"]


class Alike(Ranks):
    """One of three processes that all have the same images."""

    def total(self, values: Tensor) -> Tensor:
        return 3 * values


def test_what_is_told_of_a_step_is_the_mean_over_processes(
    state: TrainState, settings: Any
) -> None:
    """Losses, usage and shares are those of one; counts are those of three."""
    twin = copy.deepcopy(state)
    twin.ranks = Alike(0, 3)
    one, three = (train_step(each, [make_batch(4)], settings, WEIGHTS) for each in (state, twin))
    assert one == pytest.approx(three, rel=1e-5)
    torch.testing.assert_close(state.usage, twin.usage)
    torch.testing.assert_close(3 * state.shares, twin.shares)  # type: ignore[operator]


def test_usage_follows_a_tenth_of_the_way_after_its_first_step(
    state: TrainState, settings: Any
) -> None:
    """And the balance looks at what it was before the step."""
    seen: list[Tensor] = []
    usage, shares = [], []
    for seed in range(3):
        before = None if state.shares is None else state.shares.clone()
        train_step(state, [make_batch(4, seed)], settings, WEIGHTS)
        assert state.usage is not None and state.shares is not None
        usage.append(state.usage.clone())
        gates = state.shares - (0 if before is None else before)  # all seven are chosen
        shares.append(gates / 4)
        seen.append(state.counted.clone())
    torch.testing.assert_close(usage[0], shares[0])
    torch.testing.assert_close(usage[1], 0.9 * usage[0] + 0.1 * shares[1])
    torch.testing.assert_close(usage[2], 0.9 * usage[1] + 0.1 * shares[2])
    assert [int(each) for each in seen] == [1, 2, 3]


@pytest.mark.parametrize("clip", [1e-3, 1e6])
def test_gradients_are_clipped_at_the_settings_norm(
    state: TrainState, settings: Any, clip: float
) -> None:
    """After they were divided by the scale; what is told is the norm before."""
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    twin = copy.deepcopy(state)
    twin.scaler = torch.amp.GradScaler("cpu", enabled=False)
    settings = dataclasses.replace(settings, clip=clip)
    told = [train_step(each, [make_batch(4)], settings, WEIGHTS) for each in (state, twin)]
    assert told[0]["gradient_norm"] == pytest.approx(told[1]["gradient_norm"], rel=1e-4)
    for each in (state, twin):
        norm = torch.stack([gradient.norm() for gradient in gradients(each)]).norm().item()
        assert norm == pytest.approx(min(clip, told[0]["gradient_norm"]), rel=1e-3)


def test_skipped_steps_in_a_row_are_counted_anew_after_a_good_one(
    state: TrainState, settings: Any
) -> None:
    bad = WEIGHTS | {"deep": math.inf}
    counts = []
    for weights in (bad, bad, WEIGHTS, bad):
        train_step(state, [make_batch(2)], settings, weights)
        counts.append((state.skipped_in_row, state.averaged, int(state.counted)))
    assert counts == [(1, 0, 0), (2, 0, 0), (0, 1, 1), (1, 1, 1)]


def test_weights_of_the_losses_are_those_of_the_settings(settings: Any) -> None:
    own = dataclasses.replace(settings, deep=0.3, balance=0.2, uncertainty=0.8)
    assert loss_weights(own, 0.2) == {"deep": 0.3, "balance": 0.2, "uncertainty": 0.0}
    assert loss_weights(own, 0.65)["uncertainty"] == pytest.approx(0.4)
    assert loss_weights(own, 1.0)["uncertainty"] == pytest.approx(0.8)
