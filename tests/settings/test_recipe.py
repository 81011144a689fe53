"""The recipe: what is known at its anchors, and nothing that jumps or turns between them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from camoxpert_nb.settings import recipe as module
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.settings.recipe import DECIDED, advice, in_proportion, recipe

EPOCHS = (1, 6, 20, 60, 140, 1000)
PHOTOS = (20, 800, 4040, 40_000)
BATCHES = (1, 8, 12, 32, 256)
FALLING = ("lr", "stage2_lr", "backbone_lr_factor", "uncertainty")
COUNTED = ("stage1_epochs", "warmup_epochs")


def test_the_short_run_that_was_measured_is_met() -> None:
    found = recipe(6, 797, 8)
    known: dict[str, Any] = {"augment": 0.25, "uncertainty": 8.0, "lr": 1e-3, "stage2_lr": 1e-3}
    known |= {"backbone_lr_factor": 0.4, "stage1_epochs": 0, "warmup_epochs": 0}
    assert known.items() <= found.items() and found["progressive_unfreeze"] is False
    # The average's warm-up n / (n + 9) had reached this at the end of the 594 steps.
    assert found["ema_decay"] == pytest.approx(594 / 603, abs=0.003)


def test_the_guides_length_gets_its_augmentation_rates_and_stages() -> None:
    found = recipe(140, 4040, 32, 24)
    assert (found["augment"], found["lr"], found["stage2_lr"]) == (1.0, 6.5e-4, 1.5e-4)
    assert found["backbone_lr_factor"] == 0.1 and found["progressive_unfreeze"]
    assert 0 < found["stage1_epochs"] <= 30 and 0 < found["warmup_epochs"] <= 10
    assert 0.999 <= found["ema_decay"] <= 0.9998  # the guide's, and the field's longest


def test_between_the_anchors_every_value_is_read_off_over_the_logarithm() -> None:
    # 10,100 steps are ln(10100 / 600) / ln(70700 / 600) = .592 of the way, 20 passes
    # ln(20 / 6) / ln(140 / 6) = .3822; what falls goes in equal factors, what rises in equal steps.
    assert recipe(20, 4040, 8) == {
        "augment": 0.537,  # .25 + .75 x .3822
        "uncertainty": 3.613,  # 8 x .125 ** .3822
        "lr": 5.14e-4,  # 1e-3 x .325 ** .592
        "stage2_lr": 2.35e-4,  # 1e-3 x .0866 ** .592
        "backbone_lr_factor": 0.176,  # .4 x .25 ** .592
        "ema_decay": 0.99901,  # 1 - 1 / (.1 x 10,100)
        "stage1_epochs": 1,  # .0592 x 20 and a half, downwards
        "warmup_epochs": 0,
        "progressive_unfreeze": False,
    }


def test_random_weights_are_not_pressed_to_be_certain() -> None:
    for epochs, usual, random in ((6, 8.0, 2.0), (20, 3.613, 2.0), (140, 1.0, 1.0)):
        known = recipe(epochs, 4040, 8)
        assert (known["uncertainty"], recipe(epochs, 4040, 8, pretrained=False)) == (
            usual,
            known | {"uncertainty": random},
        )


def test_blocks_open_in_thirds_from_thirty_thousand_steps_on() -> None:
    assert recipe(60, 4000, 8)["progressive_unfreeze"] is True  # 30,000
    assert recipe(60, 3999, 8)["progressive_unfreeze"] is False


@pytest.mark.parametrize(
    ("epochs", "photos", "first", "warm", "thirds"),
    [
        # At the anchor 70,700 steps of eight, a tenth and a fiftieth of the epochs.
        (140, 4040, 14, 3, True),
        # Twice as many photos: the same steps of stage one and warm-up, half the epochs.
        (140, 8080, 7, 1, True),
        # Between the anchors, by the logarithm: 30,300 steps are .822 of the way.
        (60, 4040, 5, 1, True),
        # 10,100 steps: stage one, but no thirds below 30,000.
        (20, 4040, 1, 0, False),
        (6, 797, 0, 0, False),
    ],
)
def test_stages_are_shares_of_steps(
    epochs: int, photos: int, first: int, warm: int, thirds: bool
) -> None:
    found = recipe(epochs, photos, 8)
    assert (found["stage1_epochs"], found["warmup_epochs"]) == (first, warm)
    assert found["progressive_unfreeze"] is thirds


@pytest.mark.parametrize("photos", PHOTOS)
@pytest.mark.parametrize("batch", BATCHES)
def test_every_value_is_one_that_settings_may_have(photos: int, batch: int) -> None:
    for epochs in EPOCHS:
        found = recipe(epochs, photos, batch)
        config = Config().replace(epochs=epochs, **found)
        assert {*DECIDED, "stage2_lr"} == {*found}
        assert 0.25 <= config.augment <= 1 and 1 <= config.uncertainty <= 8
        assert 2e-5 < found["stage2_lr"] <= config.lr <= module.MOST_LR
        assert 0.9 <= config.ema_decay <= 0.9998
        assert config.stage1_epochs + config.warmup_epochs <= max(0.2 * epochs, 0)


@pytest.mark.parametrize("photos", PHOTOS)
def test_with_more_epochs_nothing_turns_back_and_nothing_jumps(photos: int) -> None:
    rows = [recipe(epochs, photos, 8) for epochs in range(1, 1001)]
    for epochs, (less, more) in enumerate(itertools.pairwise(rows), start=1):
        for name, value in less.items():
            change = more[name] - value
            assert change <= 0 if name in FALLING else change >= 0, (name, epochs)
        for name in COUNTED:
            assert more[name] - less[name] <= 1, (name, epochs)
        grown = (epochs + 1) / epochs  # the longer by that factor, the less may change
        for name in FALLING:
            assert less[name] / more[name] < 1.02 * grown, (name, epochs)
        assert more["augment"] - less["augment"] < 0.75 * (grown - 1), epochs


def test_with_more_photos_rates_fall_and_the_average_looks_back_further() -> None:
    for epochs in EPOCHS:
        rows = [recipe(epochs, photos, 8) for photos in PHOTOS]
        for less, more in itertools.pairwise(rows):
            assert all(more[name] <= less[name] for name in FALLING)
            assert more["ema_decay"] >= less["ema_decay"]
            assert more["augment"] == less["augment"]  # which hangs on passes


def test_the_batch_changes_rates_by_its_root_and_no_length() -> None:
    small, large = recipe(140, 4040, 8), recipe(140, 4040, 32)
    assert large["lr"] == pytest.approx(2 * small["lr"], rel=0.01)
    same = [name for name in DECIDED if name not in ("lr", "ema_decay")]
    assert [small[name] for name in same] == [large[name] for name in same]
    assert recipe(1, 20, 512)["lr"] == module.MOST_LR
    assert recipe(140, 4040, 32, 8)["stage2_lr"] == recipe(140, 4040, 8)["stage2_lr"]


def test_a_row_more_is_a_point_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.PASSES, 20, module.ByPasses(augment=0.3, uncertainty=1.5))
    assert recipe(20, 800, 8)["augment"] == 0.3
    assert 0.25 < recipe(12, 800, 8)["augment"] < 0.3 < recipe(30, 800, 8)["augment"] < 1


def test_stages_keep_their_share_of_any_number_of_epochs() -> None:
    values = {"epochs": 140, "stage1_epochs": 30, "warmup_epochs": 10}
    expected = {1: (0, 0), 2: (0, 0), 6: (1, 0), 7: (1, 0), 14: (3, 1), 140: (30, 10)}
    for epochs, lengths in (expected | {280: (60, 20), 139: (30, 10)}).items():
        found = in_proportion(values, {"epochs": epochs})
        assert (found["stage1_epochs"], found["warmup_epochs"]) == lengths, epochs
    assert in_proportion(values, {"lr": 1.0}) == {"lr": 1.0}
    given = {"epochs": 6, "stage1_epochs": 4}
    assert in_proportion(values, given) == {**given, "warmup_epochs": 0}
    nothing_left = {**values, "stage1_epochs": 140}
    assert in_proportion(nothing_left, {"epochs": 6})["stage1_epochs"] == 6
    still_open = {**values, "stage1_epochs": None}
    assert in_proportion(still_open, {"epochs": 6}) == {"epochs": 6, "warmup_epochs": 0}


@pytest.mark.parametrize("preset", ["balanced-2gpu", "single-gpu", "accurate", "demo", "tiny"])
def test_any_number_of_epochs_works_alone(preset: str) -> None:
    usual = make_config(preset)
    assert make_config(preset, epochs=usual.epochs) == usual
    for epochs in (*range(1, 60), 139, 141, 1000):
        config = make_config(preset, epochs=epochs)
        assert config.stage1_epochs < config.epochs
        share = usual.stage1_epochs / usual.epochs
        assert abs(config.stage1_epochs - share * epochs) <= 0.5
        assert config.replace(stage1_epochs=0, warmup_epochs=0) == usual.replace(
            epochs=epochs, stage1_epochs=0, warmup_epochs=0
        )


@pytest.mark.parametrize("epochs", [0, -1, True, 2.5, "6", None])
def test_what_is_no_number_of_epochs_is_refused_by_its_name(epochs: Any) -> None:
    with pytest.raises(Exception, match="epochs"):
        make_config("balanced-2gpu", epochs=epochs)


def test_only_a_short_run_with_strong_augmentation_is_advised() -> None:
    assert "--preset auto would augment by 0.25 instead of 1" in advice(1.0, 6)
    assert advice(0.25, 6) == advice(1.0, 140) == advice(1.0, 60) == ""


def test_stage_two_and_the_average_go_by_its_own_batch() -> None:
    """Of 6 epochs of 797 photos: 4782 seen, a tenth of them in steps of the second batch."""
    found = recipe(6, 797, 8, 32)
    assert (found["lr"], found["stage2_lr"]) == (1e-3, 1.5e-3)  # twice as high, but for the limit
    assert found["ema_decay"] == pytest.approx(1 - 32 / 478.2, abs=1e-6)
    assert recipe(6, 797, 32, 8)["stage2_lr"] == 1e-3
    assert recipe(1, 8, 8)["ema_decay"] == 0.9  # ten steps at the least
    assert recipe(2000, 4040, 8)["ema_decay"] == 0.9998  # 5000 at the most
    assert recipe(6, 797, 2)["lr"] == pytest.approx(5e-4)


@pytest.mark.parametrize(
    ("epochs", "photos", "expected"),
    [
        (140, 4040, {"stage1_epochs": 14, "warmup_epochs": 3, "progressive_unfreeze": True}),
        (
            1,
            300_000,
            {"stage1_epochs": 0, "progressive_unfreeze": False},
        ),  # long, without stage one
        (280, 4040, {"stage1_epochs": 14, "warmup_epochs": 3}),  # no more steps than in the guide's
    ],
)
def test_stages_take_shares_and_no_more_steps_than_the_guides(
    epochs: int, photos: int, expected: dict[str, object]
) -> None:
    found = recipe(epochs, photos, 8)
    assert {name: found[name] for name in expected} == expected


def test_shares_are_kept_with_halves_rounded_down() -> None:
    values = {"epochs": 10, "stage1_epochs": 5, "warmup_epochs": 3}
    assert in_proportion(values, {"epochs": 5})["stage1_epochs"] == 2  # 2.5
    assert in_proportion(values, {"epochs": 5})["warmup_epochs"] == 1  # 1.5
    assert in_proportion(values, {"epochs": 6})["warmup_epochs"] == 2  # 1.8
    assert in_proportion(values, {"epochs": 5, "warmup_epochs": 4})["warmup_epochs"] == 4
