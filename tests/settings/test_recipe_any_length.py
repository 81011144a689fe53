"""Whatever the length: the recipe's values are usable, and move one way, as it promises."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from properties import tried

from camoxpert_nb.settings.config import Config
from camoxpert_nb.settings.recipe import in_proportion, recipe

FALL = ("lr", "stage2_lr", "backbone_lr_factor", "uncertainty")


@tried(150)
@given(st.integers(1, 5000), st.integers(1, 100_000), st.integers(1, 256), st.integers(0, 256))
def test_each_value_is_one_that_settings_take(
    epochs: int, photos: int, batch: int, later: int
) -> None:
    found = recipe(epochs, photos, batch, later)
    assert Config(epochs=epochs, **found).as_dict().items() >= found.items()
    assert 0 <= found["stage1_epochs"] < epochs


@tried(150)
@given(st.integers(1, 2000), st.integers(0, 2000), st.integers(1, 20_000), st.integers(1, 64))
def test_more_epochs_move_each_value_one_way(
    epochs: int, more: int, photos: int, batch: int
) -> None:
    short, long = recipe(epochs, photos, batch), recipe(epochs + more, photos, batch)
    for name, value in short.items():
        assert long[name] <= value if name in FALL else long[name] >= value, name


@tried(100)
@given(st.integers(1, 500), st.integers(0, 500), st.integers(1, 500))
def test_stages_in_proportion_leave_something_to_train(
    before: int, first: int, epochs: int
) -> None:
    values = {"epochs": before, "stage1_epochs": min(first, before - 1), "warmup_epochs": 0}
    changed = in_proportion(values, {"epochs": epochs})
    assert 0 <= changed["stage1_epochs"] < epochs
