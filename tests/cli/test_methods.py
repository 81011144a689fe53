"""A picture of curves says whose they are, and on which data."""

from __future__ import annotations

from pathlib import Path

from camoxpert_nb.cli.methods import title_of


def test_a_picture_is_named_by_its_runs_and_sets() -> None:
    assert title_of([Path("runs/a")], {"CAMO": None, "COD10K": None}) == "a on CAMO, COD10K"  # type: ignore[dict-item]
    assert title_of([Path("a"), Path("b")], {"CAMO": None}) == "mean of a, b on CAMO"  # type: ignore[dict-item]
    assert title_of([], {"maps": None}) == "maps in a folder"  # type: ignore[dict-item]
