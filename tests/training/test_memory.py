"""The cost of a step, the search for the largest batch, and the advice when memory is short."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

import camoxpert_nb.training.train as train
from camoxpert_nb.errors import TrainingError
from camoxpert_nb.machine.distributed import Ranks
from camoxpert_nb.network.losses import Supervised
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training import memory
from camoxpert_nb.training.cost import StepCost, Steps
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.memory import (
    Limit,
    advice,
    estimate_limit,
    fitting_batches,
    largest_batch,
    limits_text,
    measure_limit,
)
from camoxpert_nb.training.prepare import prepare, step_settings
from camoxpert_nb.training.schedule import Stage

GIB = 2**30
COST = StepCost(images=4, seconds=2.0, fixed_bytes=GIB, bytes_per_image=GIB // 4)
WHOLE = Stage("all", 2, 1, 1, 4, 1e-3, 8, 8, 5)


@pytest.mark.parametrize("limit", [*range(34), 255, 256, 1000])
def test_the_largest_batch_is_found_in_few_tries(limit: int) -> None:
    tried: list[int] = []

    def fits(batch: int) -> bool:
        tried.append(batch)
        return batch <= limit

    assert largest_batch(fits, most=256) == min(limit, 256)
    assert len(tried) == len(set(tried)) <= 2 * 8 + 1
    assert max(tried) <= 256


class FakeGpu:
    """A GPU of `total` bytes on which each image of a batch takes a GiB."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, total: int, taken: int = 0) -> None:
        self.total, self.taken = total, taken
        cuda = {
            "mem_get_info": lambda device: (total - taken, total),
            "memory_reserved": lambda device: 0,
        }
        for name, function in cuda.items():
            monkeypatch.setattr(torch.cuda, name, function)

    def step(self, batch: int) -> Steps:
        if batch * GIB > self.total - self.taken:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Steps(seconds=1.0, peak_bytes=batch * GIB, loss=1.0)


def test_a_tenth_of_the_free_memory_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch, total=50 * GIB, taken=10 * GIB)
    limit = measure_limit(gpu.step, WHOLE, torch.device("cuda"), most=256)
    assert (limit.batch, limit.gib, limit.measured) == (36, 36.0, True)
    assert limit.images_per_second == 36.0


def test_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch, total=GIB // 2)
    limit = measure_limit(gpu.step, WHOLE, torch.device("cuda"), most=256)
    assert limit.batch == 0
    assert "--img-size" in limits_text([limit], {2: 8})


def test_other_errors_of_a_step_are_not_taken_for_a_full_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FakeGpu(monkeypatch, total=GIB)

    def step(batch: int) -> Steps:
        raise RuntimeError("misaligned address")

    with pytest.raises(RuntimeError, match="misaligned"):
        measure_limit(step, WHOLE, torch.device("cuda"), most=256)


def test_a_cpus_limit_is_estimated_from_the_ram() -> None:
    limit = estimate_limit(COST, WHOLE, room_gib=20.0, most=256)
    assert not limit.measured
    assert COST.gib(limit.batch) <= 18.0 < COST.gib(limit.batch + 1)
    assert limit.images_per_second == 2.0


@pytest.mark.parametrize(
    ("wanted", "largest", "batches", "accumulation"),
    [
        ([16, 12], [40, 20], [16, 12], 1),
        ([16, 12], [10, 6], [8, 6], 2),
        ([16, 12], [10, 5], [4, 3], 4),
        ([16], [5], [4], 4),
        ([7], [4], [1], 7),
        ([16, 12], [3, 3], [2, 2], 6),  # no number divides both: rounded down
        ([16, 1], [1, 1], [1, 1], 16),
    ],
)
def test_the_effective_batch_is_kept_by_accumulation(
    wanted: list[int], largest: list[int], batches: list[int], accumulation: int
) -> None:
    assert fitting_batches(wanted, largest) == (batches, accumulation)
    assert all(batch <= most for batch, most in zip(batches, largest, strict=True))


def test_the_table_ends_in_flags() -> None:
    rows = [
        Limit("one", 1, 40, 9.0, 55.0, True),
        Limit("two (block 4)", 2, 14, 13.0, 30.0, True),
        Limit("two", 2, 6, 13.1, 22.0, True),
    ]
    text = limits_text(rows, {1: 16, 2: 12})
    assert "Train with: --batch-size 8 --stage2-batch-size 6 --accumulation-steps 2" in text
    assert "Stage one has room for --batch-size 40" in text
    assert "Estimated" not in text
    assert "Estimated" in limits_text([Limit("two", 2, 40, 9.0, 55.0, False)], {2: 12})
    odd = limits_text(
        [Limit("one", 1, 3, 9, 9, True), Limit("two", 2, 3, 9, 9, True)], {1: 16, 2: 12}
    )
    assert "12 images a step, not 16" in odd


def test_advice_is_ranked_and_says_what_each_saves() -> None:
    batches = {"--batch-size": 16, "--stage2-batch-size": 12}
    tips = advice(COST, batches, accumulation=1, size=320, checkpointing=False)
    assert [tip.split()[0] for tip in tips] == [
        "--batch-size", "--img-size", "--gradient-checkpointing"
    ]  # fmt: skip
    assert "--batch-size 8 --stage2-batch-size 6 --accumulation-steps 2" in tips[0]
    assert f"{COST.gib(16) - COST.gib(8):.1f} GiB" in tips[0]
    activations = COST.gib(16) - COST.gib(0)
    assert f"--img-size 256 (fine parts are lost; saves about {activations * 0.36:.1f}" in tips[1]
    assert f"saves about {activations * 0.3:.1f} GiB" in tips[2]


def test_advice_leaves_out_what_is_done_already() -> None:
    tips = advice(COST, {"--batch-size": 1}, accumulation=8, size=32, checkpointing=True)
    assert tips == []


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
    settings = step_settings(training.config)
    split, costs = memory.rehearse(training.state, training.plan, settings, tiny.img_size)
    assert set(costs) == {0, split[0].open_blocks}
    assert all(cost.seconds_per_image > 0 for cost in costs.values())
    assert [stage.part for stage in split] == [2]
    training.state.open_blocks(0)
    assert training.state.parts_per_batch == 1
    training.state.open_blocks(split[0].open_blocks)
    assert training.state.parts_per_batch == 4
    after = training.state.net.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(p.grad is None for p in training.state.net.parameters())


def test_a_rehearsal_tells_what_an_image_costs(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all batches that a step adds up, on all GPUs of the process."""
    training = prepare(tiny.replace(batch_size=3, stage2_batch_size=2, accumulation_steps=2))
    training.state.devices = replace(training.state.devices, ids=(0, 1))
    tried = []

    def steps(state: Any, settings: Any, size: int, batch: int, steps: int = 9) -> Steps:
        tried.append((state.opened, batch))
        return Steps(seconds=24.0, peak_bytes=GIB, loss=1.0)

    monkeypatch.setattr(memory, "run_steps", steps)
    monkeypatch.setattr(type(training.state), "device", torch.device("cpu"))
    settings = step_settings(training.config)
    _, costs = memory.rehearse(training.state, training.plan, settings, 64)
    last = training.plan.stages[-1].open_blocks
    assert {*tried} == {(0, 6), (last, 4)}
    assert costs[0].seconds_per_image == 24 / (6 * 2)
    assert costs[last].seconds_per_image == 24 / (4 * 2)


def test_images_that_grow_are_rehearsed_at_their_largest(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = prepare(tiny.replace(epochs=6, stage1_epochs=3, start_size=32))
    assert len(training.plan.stages) > len(training.plan.of_whole_images())
    tried = []

    def steps(state: Any, settings: Any, size: int, batch: int, steps: int = 9) -> Steps:
        tried.append((state.opened, state.size, size))
        return Steps(seconds=24.0, peak_bytes=GIB, loss=1.0)

    monkeypatch.setattr(memory, "run_steps", steps)
    settings = step_settings(training.config)
    memory.rehearse(training.state, training.plan, settings, 64)
    assert tried == [(blocks, 0, 64) for blocks in (0, 1, 2, 4) for _ in range(2)]
    training.state.size = 32
    assert memory._alone(training.state).size == 0


def test_all_processes_split_as_the_one_that_needs_the_most_parts(tiny: Config) -> None:
    """And a stage fits where it does in all of them."""
    training = prepare(tiny)

    class Two(Ranks):
        answer: tuple[bool, int] = (True, 8)

        def gather(self, value: Any) -> list[Any]:
            return [value, self.answer]

    state, settings = training.state, step_settings(training.config)
    state.open_blocks(4)
    state.ranks = Two()
    assert memory._fit(state, settings, 64, 2)
    assert state.parts_per_batch == 8
    Two.answer = (False, 1)
    assert not memory._fit(state, settings, 64, 2)


def test_what_pytorch_keeps_for_itself_is_free_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 GiB are free and 30 of the 50 taken are PyTorch's own: nine tenths of 50 fit."""
    gpu = FakeGpu(monkeypatch, total=70 * GIB, taken=20 * GIB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 * GIB, 70 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 30 * GIB)
    assert measure_limit(gpu.step, WHOLE, torch.device("cuda"), most=64).batch == 45


def test_a_rehearsal_says_when_nothing_fits(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    training = prepare(tiny)
    room_for(monkeypatch, {False: 4, True: 0})
    with pytest.raises(TrainingError, match="not even one image of 64 px"):
        memory.rehearse(
            training.state, training.plan, step_settings(training.config), tiny.img_size
        )


def test_a_batch_in_parts_is_the_same_step(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without batch norm and balance, which look at a part as a whole."""
    config = tiny.replace(backbone="test_convnext", balance=0.0, clip=1e6)
    whole, parted = prepare(config), prepare(config)
    batch = next(iter(_batches(whole)))
    weights = {"deep": 1.0, "balance": 0.0, "uncertainty": 0.0}
    settings = step_settings(config)
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
    from camoxpert_nb.training.prepare import Loaders

    return Loaders(training).epoch(training.plan.stages[0], 0)


def test_advice_halves_the_batch_and_keeps_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 images, added up twice: 4 images four times."""
    (first, *_) = advice(COST, {"--batch-size": 8}, accumulation=2, size=320, checkpointing=True)
    assert first.startswith("--batch-size 4 --accumulation-steps 4 (same effective batch; ")
    unknown = advice(None, {"--batch-size": 8}, accumulation=1, size=320, checkpointing=False)
    assert len(unknown) == 3 and not any("saves" in tip for tip in unknown)


@pytest.mark.parametrize(
    ("epoch", "stage", "flags"),
    [
        (0, "one with 6", "--batch-size 3 --stage2-batch-size 2 --accumulation-steps 2"),
        (1, "two (all) with 4", "--stage2-batch-size 2 --batch-size 3 --accumulation-steps 2"),
    ],
)
def test_the_stage_that_is_short_is_advised_first(
    tiny: Config, monkeypatch: pytest.MonkeyPatch, epoch: int, stage: str, flags: str
) -> None:
    monkeypatch.setattr(memory, "measure_step", lambda *how: COST)
    training = prepare(tiny.replace(batch_size=6, stage2_batch_size=4))
    training.state.epoch = epoch
    said = memory.memory_advice(training)
    assert f"out of memory in stage {stage} images per device at 64 px" in said
    assert f"try: {flags} (same effective batch" in said
    assert f"`camoxpert resume {training.config.checkpoint_dir}`" in said


# --- whole tables and sentences


def test_the_table_of_limits_is_whole() -> None:
    rows = [
        Limit("one", 1, 40, 9.04, 55.0, True),
        Limit("two (block 4)", 2, 14, 13.0, 30.25, True),
        Limit("two", 2, 6, 13.16, 22.0, True),
    ]
    table = [
        "stage                largest batch      memory             speed",
        "one                             40     9.0 GiB     55.0 images/s",
        "two (block 4)                   14    13.0 GiB     30.2 images/s",
        "two                              6    13.2 GiB     22.0 images/s",
    ]
    assert limits_text(rows, {1: 16, 2: 12}).split("\n") == [
        *table,
        "Train with: --batch-size 8 --stage2-batch-size 6 --accumulation-steps 2",
        "Stage one has room for --batch-size 40.",
    ]
    estimated = [replace(row, measured=row.part == 1) for row in rows]
    assert limits_text(estimated, {1: 40, 2: 5}).split("\n") == [
        *table,
        "Estimated from one real step: a CPU gives no warning before its RAM is full.",
        "Train with: --batch-size 40 --stage2-batch-size 5 --accumulation-steps 1",
        "Stage two has room for --stage2-batch-size 6.",
    ]
    assert limits_text([*rows, replace(rows[2], batch=0)], {1: 16, 2: 12}).split("\n")[4:] == [
        "two                              0    13.2 GiB     22.0 images/s",
        "Not even one image fits: lower --img-size.",
    ]
    few = [replace(rows[0], batch=3), replace(rows[2], batch=4)]
    assert limits_text(few, {1: 16, 2: 13}).split("\n")[3:] == [
        "Train with: --batch-size 2 --stage2-batch-size 2 --accumulation-steps 6",
        "Stage one: 12 images a step, not 16.",
        "Stage two: 12 images a step, not 13.",
    ]
    assert limits_text([replace(rows[0], batch=16)], {1: 16}).split("\n")[2:] == [
        "Train with: --batch-size 16 --accumulation-steps 1"
    ]


def test_advice_is_told_whole() -> None:
    """4 GiB for 16 images beside one that is fixed; (256 / 320)^2 = .64 of the pixels."""
    batches = {"--batch-size": 16, "--stage2-batch-size": 12}
    assert advice(COST, batches, accumulation=1, size=320, checkpointing=False) == [
        "--batch-size 8 --stage2-batch-size 6 --accumulation-steps 2 "
        "(same effective batch; saves about 2.0 GiB)",
        "--img-size 256 (fine parts are lost; saves about 1.4 GiB)",
        "--gradient-checkpointing (about a third slower; saves about 1.2 GiB)",
    ]
    assert advice(COST, {"--batch-size": 3}, accumulation=2, size=64, checkpointing=True) == [
        "--batch-size 1 --accumulation-steps 6 (same effective batch; saves about 0.5 GiB)",
        "--img-size 32 (fine parts are lost; saves about 0.6 GiB)",
    ]
    assert advice(None, {"--batch-size": 2}, accumulation=1, size=33, checkpointing=False) == [
        "--batch-size 1 --accumulation-steps 2 (same effective batch)",
        "--img-size 32 (fine parts are lost)",
        "--gradient-checkpointing (about a third slower)",
    ]
    assert advice(COST, {"-b": 1, "-c": 4}, accumulation=1, size=65, checkpointing=True) == [
        "--img-size 32 (fine parts are lost; saves about 0.2 GiB)"
    ]


def test_what_ran_out_is_told_whole(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def measured(*how: Any) -> StepCost:
        asked.append(how)
        return COST

    monkeypatch.setattr(memory, "measure_step", measured)
    training = prepare(tiny.replace(batch_size=6, stage2_batch_size=4, img_size=96))
    training.state.epoch = 1
    assert memory.memory_advice(training) == (
        "out of memory in stage two (all) with 4 images per device at 96 px. In this order, try: "
        "--stage2-batch-size 2 --batch-size 3 --accumulation-steps 2 (same effective batch; saves "
        "about 0.5 GiB); or --img-size 64 (fine parts are lost; saves about 0.6 GiB); or "
        "--gradient-checkpointing (about a third slower; saves about 0.3 GiB). Go on with "
        f"`camoxpert resume {training.config.checkpoint_dir}` and one of these."
    )
    ((state, settings, size, batch),) = asked
    assert (settings, size, batch) == (step_settings(training.config), 96, 1)
    assert state.net is training.state.net and state.ranks.world == 1

    def too_large(*how: Any) -> StepCost:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(memory, "measure_step", too_large)
    assert "saves" not in memory.memory_advice(training)


def test_the_state_is_measured_without_its_other_processes(tiny: Config) -> None:
    state = prepare(tiny).state
    state.ranks = Ranks(1, 3)
    alone = memory._alone(state)
    assert alone.ranks.world == 1 and alone.net is state.net and alone.graph is not state.graph
    assert alone.supervised is state.supervised and alone.parts is state.parts


def test_nothing_that_fits_is_told_whole(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    training = prepare(tiny)
    room_for(monkeypatch, {False: 4, True: 0})
    with pytest.raises(TrainingError) as caught:
        memory.rehearse(training.state, training.plan, step_settings(training.config), 32)
    assert str(caught.value) == (
        "not even one image of 32 px fits into the GPU's memory in stage two (all). Use a smaller "
        "--img-size, --gradient-checkpointing or a smaller --backbone; close other programs on the "
        "GPU (`nvidia-smi` lists them)."
    )


def test_a_limit_names_its_stage_and_how_it_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch, total=10 * GIB)
    assert measure_limit(gpu.step, WHOLE, torch.device("cuda"), most=5) == Limit(
        "all", 2, 5, 5.0, 5.0, measured=True
    )
    FakeGpu(monkeypatch, total=GIB // 2)
    assert measure_limit(FakeGpu(monkeypatch, total=1).step, WHOLE, torch.device("cuda"), 9) == (
        Limit("all", 2, 0, 0.0, 0.0, measured=True)
    )
    # 0.9 x 20 GiB less one that is fixed, a quarter for each image
    assert estimate_limit(COST, WHOLE, 20.0, 256) == Limit("all", 2, 68, 18.0, 2.0, measured=False)
    assert estimate_limit(COST, WHOLE, 20.0, 9) == Limit("all", 2, 9, 3.25, 2.0, measured=False)
