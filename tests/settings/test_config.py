from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import (
    FORMAT,
    GROUPS,
    PRESETS,
    Config,
    as_flags,
    differences,
    flag_of,
    make_config,
    with_changes,
    with_rates,
)
from camoxpert_nb.settings.table import settings_table


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_survives_json(preset: str, tmp_path: Path) -> None:
    config = make_config(preset)
    config.save(tmp_path / "config.json")
    assert Config.load(tmp_path / "config.json") == config
    assert config.preset == preset


def test_a_preset_is_a_small_set_of_real_differences() -> None:
    for name, changes in PRESETS.items():
        assert set(changes) == set(differences(make_config(name), Config())) - {"preset"}, name


def test_every_setting_has_a_help_sentence_and_a_known_group() -> None:
    for item in dataclasses.fields(Config):
        assert item.metadata["help"]
        assert item.metadata["group"] in GROUPS


def test_the_guides_two_gpu_presets_have_its_numbers() -> None:
    balanced, fast, sharp = (
        make_config(name) for name in ("balanced-2gpu", "max-speed-2gpu", "high-res-2gpu")
    )
    assert (balanced.batch_size, balanced.stage2_batch_size) == (16, 12)
    assert (balanced.lr, balanced.stage2_lr) == (6.5e-4, 1.5e-4)
    assert (fast.batch_size, fast.stage2_batch_size, fast.lr, fast.stage2_lr) == (
        24,
        16,
        1e-3,
        2e-4,
    )
    assert (sharp.batch_size, sharp.stage2_batch_size, sharp.img_size) == (12, 8, 352)
    for config in (balanced, fast, sharp):
        assert (config.epochs, config.stage1_epochs, config.warmup_epochs) == (140, 30, 10)
        assert (config.backbone, config.num_experts, config.min_lr) == ("edgenext_base", 7, 1e-5)
        assert config.progressive_unfreeze
        assert config.deep_supervision
        assert config.scheduler == "cosine"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_experts": 0}, "--num-experts is 0, but must be at least 1 and at most 7"),
        ({"num_experts": 8}, "--num-experts is 8, but must be at least 1 and at most 7"),
        ({"scheduler": "linear"}, "one of cosine, onecycle, cosine_restart, none"),
        ({"lr": "fast"}, "must be of type float"),
        ({"lr": 0}, "--lr is 0.0, but must be above 0.0"),
        ({"use_ema": 1}, "must be of type bool"),
        ({"epochs": True}, "must be of type int"),
        ({"epochs": 5, "stage1_epochs": 6}, "Raise --epochs or lower --stage1-epochs"),
        ({"min_lr": 1e-3}, "would rise instead of fall"),
        ({"stage2_lr": 1e-6}, "not below --stage2-lr"),
        ({"stage1_epochs": 140, "skip_stage1": True}, "leaves nothing to train"),
        ({"batchsize": 3}, "unknown setting batchsize; did you mean batch_size"),
    ],
)
def test_a_bad_setting_gets_a_sentence_that_repairs(changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        Config().replace(**changes)


def test_an_unknown_preset_names_the_near_ones() -> None:
    with pytest.raises(InputError, match="did you mean balanced-2gpu"):
        make_config("balanced2gpu")


def test_a_config_file_of_a_newer_kit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    Config().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(InputError, match=r"newer camoxpert_nb .* Update the kit"):
        Config.load(path)


def test_a_missing_or_broken_config_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such settings file"):
        Config.load(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not a settings file"):
        Config.load(tmp_path / "config.json")


def test_a_config_is_frozen_and_whole_numbers_serve_as_floats() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().lr = 1.0  # type: ignore[misc]
    assert Config(clip=2).clip == 2.0
    assert isinstance(Config(clip=2).clip, float)


def test_the_settings_table_has_a_row_for_every_flag() -> None:
    table = settings_table()
    for item in dataclasses.fields(Config):
        assert (f"`{flag_of(item.name)}`" in table) == (item.name != "preset")


def test_two_paths_of_one_place_are_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    base = Config(dataset_path="photos", weights="")
    for same in ("./photos", f"{tmp_path}/photos", "link", "other/../photos"):
        assert differences(base.replace(dataset_path=same), base) == {}
    assert differences(base.replace(dataset_path="photo"), base) == {"dataset_path": "photo"}
    assert differences(base.replace(dataset_path=""), base) == {"dataset_path": ""}
    assert differences(base.replace(weights="."), base) == {"weights": "."}
    assert differences(base.replace(fold="1/2"), base) == {"fold": "1/2"}


@pytest.mark.parametrize(
    ("changes", "follows", "expected"),
    [
        ({"lr": 1e-3}, False, {"lr_batch": 0}),
        ({"lr": 1e-3}, True, {"lr_batch": 0, "stage2_lr_batch": 0}),
        ({"stage2_lr": 1e-4}, False, {"stage2_lr_batch": 0}),
        ({"stage2_lr": 1e-4}, True, {"stage2_lr_batch": 0}),
        ({"lr": 1e-3, "stage2_lr": 1e-4}, False, {"lr_batch": 0, "stage2_lr_batch": 0}),
        ({"lr": 1e-3, "lr_batch": 16}, False, {"lr_batch": 16}),  # the user tells it
        ({"epochs": 3}, True, {}),
    ],
)
def test_a_new_rate_is_for_the_batch_at_hand_unless_it_is_told(
    changes: dict[str, object], follows: bool, expected: dict[str, object]
) -> None:
    assert with_rates(changes, follows=follows) == changes | expected


def test_settings_for_a_new_run_follow_from_each_other() -> None:
    base = Config(epochs=100, stage1_epochs=20, warmup_epochs=10, lr_batch=32, stage2_lr_batch=24)
    found = with_changes(base, {"epochs": 50, "lr": 2e-3})
    assert differences(found, base) == {
        "epochs": 50,
        "stage1_epochs": 10,
        "warmup_epochs": 5,
        "lr": 2e-3,
        "lr_batch": 0,
    }
    given = with_changes(base, {"epochs": 50, "stage1_epochs": 3})
    assert (given.stage1_epochs, given.warmup_epochs) == (3, 5)
    assert differences(base, found)["epochs"] == 100


def test_settings_are_told_as_the_flags_that_give_them() -> None:
    """All digits of a number, and of what is not there the word for it."""
    assert as_flags({"lr": 1.23456789e-4, "epochs": 3}) == [
        "--lr",
        "0.000123456789",
        "--epochs",
        "3",
    ]
    assert as_flags({"use_ema": True, "amp": False}) == ["--use-ema", "--no-amp"]
    assert as_flags({"lr": None, "stage2_lr": None}) == ["--lr", "auto", "--stage2-lr", "none"]
    assert as_flags({"progressive_unfreeze": None}) == ["--auto-progressive-unfreeze"]
    assert as_flags({"cache_dir": "", "stage2_batch_size": None}) == [
        *("--cache-dir", "none", "--stage2-batch-size", "none")
    ]


def test_a_file_of_this_kit_is_read_and_a_missing_setting_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    Config(epochs=7, stage1_epochs=1).save(path)
    assert Config.load(path) == Config(epochs=7, stage1_epochs=1)
    path.write_text(json.dumps({"format": FORMAT, "preset": "demo", "epochs": 40}))
    assert Config.load(path) == Config(preset="demo", epochs=40)  # the preset tells, and sets not
    for written in (FORMAT, 0):
        path.write_text(json.dumps({"format": written}))
        assert Config.load(path) == Config()
