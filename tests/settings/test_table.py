"""What the table and the help say of settings."""

from __future__ import annotations

import dataclasses
from typing import Any

from camoxpert_nb.settings.config import Config
from camoxpert_nb.settings.table import default_of, help_of, settings_table

FIELDS: dict[str, dataclasses.Field[Any]] = {each.name: each for each in dataclasses.fields(Config)}
ROWS = {line.split("`")[1]: line for line in settings_table().splitlines() if "`--" in line}


def test_help_tells_choices_default_and_unit() -> None:
    said = {name: help_of(item) for name, item in FIELDS.items()}
    assert said["img_size"].endswith(" (default 320 px)")
    assert said["mask_exif"].endswith(" (auto, shown, stored; default auto)")
    assert said["use_ema"].endswith(" (default on)")
    assert said["weights"].endswith(" (default empty)")
    # Its sentence says what empty means, so the default is not told again.
    assert said["cache_dir"] == FIELDS["cache_dir"].metadata["help"]


def test_help_without_defaults_keeps_choices_and_unit() -> None:
    said = {name: help_of(item, default=False) for name, item in FIELDS.items()}
    assert said["img_size"].endswith(" (in px)")
    assert said["mask_exif"].endswith(" (auto, shown, stored)")
    assert said["use_ema"] == FIELDS["use_ema"].metadata["help"]


def test_defaults_are_told_as_people_write_them() -> None:
    told = {name: default_of(item) for name, item in FIELDS.items()}
    assert (told["use_ema"], told["scale_lr"], told["stage2_lr"]) == ("on", "off", "none")
    assert (told["lr"], told["weights"]) == ("0.00065", "")


def test_a_row_of_the_table_has_flag_default_and_meaning() -> None:
    assert settings_table().splitlines()[:2] == ["| flag | default | meaning |", "|---|---|---|"]
    size, exif = FIELDS["img_size"].metadata["help"], FIELDS["mask_exif"].metadata["help"]
    assert ROWS["--img-size"] == f"| `--img-size` | 320 | {size} (px) |"
    assert ROWS["--mask-exif"] == f"| `--mask-exif` | auto | {exif} (one of auto, shown, stored) |"
    assert "| **network** | | |" in settings_table()


def test_each_setting_stands_once_below_its_group() -> None:
    found: dict[str, list[str]] = {}
    for line in settings_table().splitlines()[2:]:
        if line.startswith("| **"):
            rows = found.setdefault(line.split("**")[1], [])
        else:
            rows.append(line.split("`")[1])
    wanted: dict[str, list[str]] = {group: [] for group in found}
    for name, item in FIELDS.items():
        if name != "preset":
            wanted[item.metadata["group"]].append("--" + name.replace("_", "-"))
    assert found == wanted
    assert [*found] == ["data", "network", "schedule", "loss", "memory", "devices", "saving"]
