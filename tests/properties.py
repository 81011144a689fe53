"""How properties are tried: the same examples each time, as many as take a second or two."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings


def tried(examples: int = 40) -> Any:
    """Return the settings of a property, with so many examples."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
