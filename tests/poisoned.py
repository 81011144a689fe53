"""A loss that is not finite, in one step or in all."""

from __future__ import annotations

import itertools
from collections.abc import Container
from typing import Any

import pytest

import camoxpert_nb.training.train as train


def poison_loss(
    monkeypatch: pytest.MonkeyPatch, by: float, *, at: int | Container[int] | None = None
) -> None:
    """Multiply the loss by infinity or NaN, in the passes `at` (from 0) or in each."""
    real, calls = train.total, itertools.count()
    at = (at,) if isinstance(at, int) else at

    def poisoned(parts: Any, **weights: Any) -> Any:
        loss, terms = real(parts, **weights)
        return (loss * by if at is None or next(calls) in at else loss), terms

    monkeypatch.setattr(train, "total", poisoned)
