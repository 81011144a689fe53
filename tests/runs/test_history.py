"""Which lines are records, value by value: what readers rely on is checked at the door."""

from __future__ import annotations

import json
from typing import Any

import pytest

from camoxpert_nb.runs.history import comparable_epochs, finite, parsed, score_of


def read(**values: Any) -> list[dict[str, Any]]:
    return list(parsed(json.dumps({"kind": "epoch", **values}).encode() + b"\n"))


@pytest.mark.parametrize(
    "values",
    [
        {"time": 1.5, "epoch": 3, "step": 20, "steps": 60, "seconds": 0.5},
        {"images_per_second": 0, "data_wait_percent": 99.5},
        {"iou": None, "iou_ema": None, "train_iou": 0.5, "val_loss": None},
        {"loss": None, "structure": 1, "gradient_norm": 2.5, "skipped": 0, "mae": 0.1},
        {"lr": {"head": 1e-3, "backbone": 0.0}, "weighted": {"deep": None}, "gpu_percent": []},
        {"gpu_memory_gib": [1.5, None], "gates": [[0.5, 0.5], [1.0, 0.0]]},
        {"stage": "all", "validation": "a1", "weights": "ema", "why": "", "verdict": None},
        {"message": "text", "best": True, "stages": [], "more": {"of": ["anything"]}},
        {"best": {"epoch": 3, "iou": None, "weights": "ema"}},
        {
            "stages": [
                {"name": "one", "first_epoch": 0, "epochs": 2, "steps": 9, "batch": 4, "more": ""}
            ]
        },
        {"time": 9.99e14},
    ],
)
def test_records_with_what_the_kit_writes_are_read(values: dict[str, Any]) -> None:
    assert read(**values) == [{"kind": "epoch", **values}]


STAGE = {"name": "one", "first_epoch": 0, "epochs": 2, "steps": 9, "batch": 4}


@pytest.mark.parametrize(
    "values",
    [
        *({name: "1"} for name in ("time", "epoch", "step", "steps", "seconds")),
        *({name: None} for name in ("time", "epoch", "images_per_second", "data_wait_percent")),
        *({name: 1e15} for name in ("time", "step")),
        {"epoch": -1e15},
        *({name: "0.5"} for name in ("iou", "iou_ema", "train_iou", "val_loss", "loss", "mae")),
        *({name: [1]} for name in ("structure", "gradient_norm", "skipped")),
        *({name: 0.5} for name in ("lr", "weighted", "gpu_percent", "gpu_memory_gib")),
        *({name: {"a": "x"}} for name in ("lr", "weighted")),
        {"gpu_percent": [90, "x"]},
        *({"gates": value} for value in ([1, 2], [[]], [[1], [1, 2]], [["x"]], {"a": [1]}, "x")),
        *({name: 3} for name in ("stage", "validation", "weights", "why", "verdict", "message")),
        {"best": 1},
        {"best": {"epoch": "3"}},
        {"best": {"iou": [0.5]}},
        {"stages": {"one": STAGE}},
        {"stages": ["one"]},
        {"stages": [STAGE, {**STAGE, "name": 3}]},
        *({"stages": [{**STAGE, key: None}]} for key in ("first_epoch", "epochs")),
        *({"stages": [{**STAGE, key: "9"}]} for key in ("steps", "batch")),
    ],
)
def test_a_record_with_another_kind_of_value_is_left_out(values: dict[str, Any]) -> None:
    assert read(**values) == []


def test_lines_that_are_no_records_are_left_out_and_others_stay() -> None:
    lines = [b'{"kind": "a"}', b"", b"[1]", b"{", b'{"kind": 3}', b'{"no": "kind"}', b"\xff\xfe"]
    lines += [b"[" * 100_000, b'{"kind": "b", "loss": NaN, "deep": {"x": Infinity}}', b"null"]
    found = list(parsed(b"\r\n".join(lines)))
    assert found == [{"kind": "a"}, {"kind": "b", "loss": None, "deep": {"x": None}}]


def test_a_number_is_finite_or_none() -> None:
    assert finite(float("-inf")) is None and finite(1.5) == 1.5 and finite(3) == 3
    assert finite([float("inf")]) == [float("inf")]  # lists hold none
    assert finite("nan") == "nan" and finite(None) is None


def test_an_epoch_is_judged_by_the_weights_it_names() -> None:
    assert score_of({"iou": 0.4, "iou_ema": None}) == 0.4
    assert score_of({"iou": 0.4, "iou_ema": None, "weights": "ema"}) is None
    assert score_of({"iou": 0.4, "iou_ema": 0.3, "weights": "other"}) == 0.4
    assert score_of({}) is None


def test_epochs_are_compared_over_the_images_of_the_last() -> None:
    assert comparable_epochs([]) == []
    of = [{"validation": "a"}, {"validation": "b"}, {}, {"validation": "b"}]
    assert comparable_epochs(of) == [False, True, True, True]
    assert comparable_epochs([{"validation": "a"}, {}]) == [False, True]
