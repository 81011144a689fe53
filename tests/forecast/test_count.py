"""What a step does, counted without its numbers: against sums by hand and PyTorch's own counter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from camoxpert_nb.forecast.as_cuda import META, as_cuda
from camoxpert_nb.forecast.count import MORE, ROUND, Steps, Work, count, count_forward
from camoxpert_nb.machine.devices import Precision, pick_devices
from camoxpert_nb.network.build import build_net
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.cost import run_steps
from camoxpert_nb.training.prepare import build_state, step_settings

FULL, HALF = Precision(None, ""), Precision(torch.float16, "")


@pytest.fixture
def steps(tiny: Config) -> Steps:
    return Steps(tiny, build_net(tiny, empty=True), FULL)


def counted(step: Callable[[], object], *kept: torch.Tensor) -> Work:
    return count(step, 1, kept)


def test_bytes_and_arithmetic_are_those_by_hand() -> None:
    conv = nn.Conv2d(3, 8, 3, padding=1, bias=False).to(META)
    x = torch.empty(2, 3, 16, 16, device=META)
    work = counted(lambda: conv(x).relu_().view(2, -1).t(), conv.weight, x)
    image, weight, out = 2 * 3 * 256 * 4, 8 * 27 * 4, 2 * 8 * 256 * 4
    assert work.flops == {"tf32": 2 * 2 * 256 * 8 * 27}
    assert work.moved == {"plain": image + weight + out + 2 * out}  # read, written; views are free
    assert work.launches == pytest.approx(MORE * (2 + 1))


def test_a_backward_pass_counts_the_gradients_that_are_wanted() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1, bias=False).to(META)
    forward = 2 * 64 * 4 * 36
    for wanted in (False, True):
        x = torch.empty(1, 4, 8, 8, device=META, requires_grad=wanted)
        work = counted(lambda x=x: conv(x).sum().backward())  # type: ignore[misc]
        assert work.flops == {"tf32": forward * (2 + wanted)}


def test_memory_is_the_most_that_is_alive_at_once() -> None:
    x, size = torch.empty(1000, 1000, device=META), 4_000_000
    size = -(-size // ROUND) * ROUND

    def chain() -> None:
        y = x.exp()
        y = y.exp()  # the first is let go only now
        y = y.exp()
        del y
        x.exp()

    work = counted(chain, x)
    assert (work.kept_bytes, work.peak_bytes) == (size, 3 * size)
    assert counted(lambda: x.view(-1)[:7].t(), x).peak_bytes == size


def test_autocast_casts_as_on_a_gpu() -> None:
    conv, norm = nn.Conv2d(8, 8, 1).to(META), nn.GroupNorm(2, 8).to(META)
    x, seen = torch.empty(1, 8, 4, 4, device=META), []

    def step() -> None:
        with torch.autocast("cuda", torch.float16):
            for _ in range(2):
                y = conv(x)
                seen.append(y.dtype)
                seen.append(norm(y).dtype)
            with torch.autocast("cuda", enabled=False):
                seen.append(conv(x).dtype)

    before = torch.autocast
    work = counted(step)
    assert seen == [torch.float16, torch.float32] * 2 + [torch.float32]
    assert {*work.flops} == {"half", "tf32"} and torch.autocast is before


def test_reads_of_numbers_wait_for_nobody() -> None:
    x = torch.ones(3, device=META)
    with as_cuda():
        assert x.tolist() == [0.0, 0.0, 0.0] and x.sum().item() == 0.0
        assert x.cpu().device.type == x.to("cpu", non_blocking=True).device.type == "cpu"
        assert not bool(x[0].isfinite())


def test_arithmetic_is_what_pytorch_counts_in_real_steps(tiny: Config) -> None:
    state = build_state(tiny, build_net(tiny, empty=True), pick_devices("cpu"), FULL)
    state.open_blocks(4)
    with FlopCounterMode(display=False) as reference:
        state.net(torch.rand(4, 3, 64, 64))
    forward = count_forward(tiny, build_net(tiny, empty=True), FULL, 4)
    assert sum(forward.flops.values()) == reference.get_total_flops()
    with FlopCounterMode(display=False) as reference:
        run_steps(state, step_settings(tiny), tiny.img_size, 4, 0)
    step = Steps(tiny, build_net(tiny, empty=True), FULL).count(4, 4)
    # PyTorch takes the weights' gradients of grouped convolutions for those of whole ones.
    assert 0.95 < sum(step.flops.values()) / reference.get_total_flops() <= 1


def test_a_batch_costs_in_proportion(steps: Steps) -> None:
    few, more, most = (steps.count(4, batch) for batch in (4, 8, 12))
    assert few.launches == more.launches
    for kind in few.moved:
        gain = more.moved[kind] - few.moved[kind]
        assert most.moved[kind] - more.moved[kind] == pytest.approx(gain, rel=0.02)
    assert most.peak_bytes > more.peak_bytes > few.peak_bytes > few.kept_bytes


def test_frozen_blocks_cost_less(steps: Steps) -> None:
    frozen, all_open = steps.count(0, 4), steps.count(4, 4)
    assert sum(frozen.flops.values()) < sum(all_open.flops.values())
    assert frozen.gradients < all_open.gradients and frozen.launches < all_open.launches
    parameters = list(steps.state.net.parameters())
    assert all_open.gradient_bytes == sum(4 * p.numel() for p in parameters)
    assert frozen.kept_bytes < all_open.kept_bytes  # no moments for what does not train


def test_accumulated_batches_are_all_in_the_step(tiny: Config) -> None:
    once = Steps(tiny, build_net(tiny, empty=True), FULL).count(4, 4)
    config = tiny.replace(accumulation_steps=3)
    thrice = Steps(config, build_net(config, empty=True), FULL).count(4, 4)
    assert (once.images, thrice.images) == (4, 12)
    assert sum(thrice.flops.values()) == pytest.approx(3 * sum(once.flops.values()), rel=0.01)


@pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"use_ema": False}])
def test_every_way_to_train_can_be_counted(tiny: Config, changes: dict[str, bool]) -> None:
    config = tiny.replace(**changes)
    work = Steps(config, build_net(config, empty=True), HALF).count(4, 4)
    assert work.flops["half"] > 0


def test_checkpointing_saves_memory_and_computes_more(tiny: Config) -> None:
    plain, saving = (
        Steps(config, build_net(config, empty=True), HALF).count(4, 16)
        for config in (tiny, tiny.replace(gradient_checkpointing=True))
    )
    assert saving.peak_bytes < plain.peak_bytes
    assert saving.flops["half"] > 1.1 * plain.flops["half"]
    assert saving.flops["tf32"] > plain.flops["tf32"]  # computed again as before
    assert saving.flops["half"] + saving.flops["tf32"] < 1.5 * sum(plain.flops.values())


def test_a_forward_pass_is_about_a_third(tiny: Config, steps: Steps) -> None:
    whole = sum(steps.count(4, 4).flops.values())
    forward = sum(count_forward(tiny, build_net(tiny, empty=True), FULL, 4).flops.values())
    assert 0.25 * whole < forward < 0.4 * whole


def test_fused_attention_keeps_no_table_of_pairs() -> None:
    query = torch.empty(1, 2, 4096, 16, device=META, requires_grad=True)

    def step() -> None:
        F.scaled_dot_product_attention(query, query, query).sum().backward()

    work = counted(step, query)
    assert work.peak_bytes < 4096 * 4096
    assert sum(work.flops.values()) == (4 + 10) * 2 * 4096 * 4096 * 16
