"""Steps on cards that are not here, against steps that were measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from camoxpert_nb.forecast.as_cuda import META
from camoxpert_nb.forecast.count import Work, count
from camoxpert_nb.forecast.on_card import gib_on, kernel_seconds, largest_batch, step_on
from camoxpert_nb.machine.cards import CARDS

FILE = Path(__file__).parents[2] / "benchmarks" / "measured_steps.json"
ROWS = json.loads(FILE.read_text(encoding="utf-8"))["rows"]
NAMES = [f"{row['name']} at {row['size']}" for row in ROWS]


def row_of(name: str) -> dict[str, Any]:
    return next(row for row in ROWS if row["name"] == name)


def work(**changes: Any) -> Work:
    return Work(16, **{"launches": 1000.0, "moved": {"plain": 20e9}, "flops": {}, **changes})


def test_more_steps_are_compared_than_fitted() -> None:
    assert 0 < sum(row["fitted"] for row in ROWS) < len(ROWS) / 2


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_measured_steps_are_met(row: dict[str, Any]) -> None:
    counted = Work(**row["work"])
    seconds = sum(kernel_seconds(CARDS[row["card"]], counted))
    assert 0.77 < 1e3 * seconds / row["ms"] < 1.3
    low, _, high = step_on(CARDS[row["card"]], counted).kernels
    assert 1e3 * low < row["ms"] < 1e3 * high
    if row["gib"]:
        assert gib_on(counted, context=0) == pytest.approx(row["gib"], rel=0.15)
    if row["kernels"]:
        assert counted.launches == pytest.approx(row["kernels"], rel=0.15)


def test_todays_counter_counts_what_the_constants_were_fitted_to() -> None:
    row = row_of("edgenext_base, features alone")
    net = timm.create_model("edgenext_base", features_only=True).train().to(META)
    image = torch.empty(16, 3, 320, 320, device=META)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            features = net(image)
        torch.stack([feature.float().mean() for feature in features]).sum().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)

    counted, known = count(step, 16, [*net.parameters(), *net.buffers()]), Work(**row["work"])
    assert counted.flops["half"] == pytest.approx(known.flops["half"], rel=0.02)
    assert counted.moved["plain"] == pytest.approx(known.moved["plain"], rel=0.08)  # no optimiser
    assert counted.launches == pytest.approx(known.launches, rel=0.15)


def test_an_eager_step_takes_what_its_launches_take() -> None:
    """Measured with the same network: 104.9 ms eager, 34.5 ms as a graph, on a slow host."""
    counted = Work(**row_of("CamoXpert, tf_efficientnet_lite0")["work"])
    eager = step_on(CARDS["h100"], counted)
    assert eager.bound == "launches on the host"
    assert eager.seconds.low < 0.1049 < eager.seconds.high
    graph = step_on(CARDS["h100"], counted, replayed=True)
    assert graph.bound != eager.bound and graph.seconds.low < 0.0345 < graph.seconds.high


def test_what_bounds_a_step_is_named() -> None:
    card = CARDS["t4"]
    assert step_on(card, work()).bound == "memory bandwidth"
    assert step_on(card, work(flops={"full": 5e12})).bound == "arithmetic"
    assert step_on(card, work(moved={"plain": 1e6}), replayed=True).bound == "many small kernels"
    assert step_on(card, work(moved={"plain": 1e6}), size=4000).bound == "loading of images"


def test_several_cards_exchange_gradients_and_hold_them_twice() -> None:
    counted = work(gradient_bytes=6 * 10**8, peak_bytes=10**9)
    alone, two, eight = (step_on(CARDS["t4"], counted, gpus=gpus) for gpus in (1, 2, 8))
    assert alone.exchange == (0, 0, 0)
    assert two.exchange.high == pytest.approx(0.1) and two.exchange.low == 0  # 0.6 GB at 6 GB/s
    assert eight.exchange.high == pytest.approx(0.175)
    assert two.gib - alone.gib == pytest.approx(1.05 * 6e8 / 2**30)


def test_a_card_that_was_never_tried_gets_a_wider_range() -> None:
    tried, unseen = (step_on(CARDS[name], work()).kernels for name in ("rtx3090", "t4"))
    assert unseen.high / unseen.low > tried.high / tried.low


def test_the_largest_batch_lies_on_the_line_through_two() -> None:
    card = CARDS["t4"]  # 14.6 GiB
    assert largest_batch(card, {4: 2.0, 8: 3.0}, 0.1) == 48
    assert largest_batch(card, {1: 20.0, 2: 30.0}, 0.1) == 0
