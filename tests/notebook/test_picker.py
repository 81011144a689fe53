from __future__ import annotations

import html
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter

from camoxpert_nb.cli import main as cli
from camoxpert_nb.cli import train as cli_train
from camoxpert_nb.data.counting import count_images
from camoxpert_nb.errors import InputError
from camoxpert_nb.machine.cards import find_card
from camoxpert_nb.machine.devices import Devices
from camoxpert_nb.notebook import choice
from camoxpert_nb.notebook.choice import chosen, command_line, count_devices
from camoxpert_nb.notebook.picker import ConfigPicker
from camoxpert_nb.notebook.picker_fields import ITEMS, in_the_form, label_of, until_mended
from camoxpert_nb.notebook.usable import networks
from camoxpert_nb.settings.config import PRESETS, Config, make_config
from camoxpert_nb.settings.decide import decide
from camoxpert_nb.settings.recipe import DECIDED

ROOT = Path(__file__).parents[2]
OTHER = {  # a usable value for each setting that a rule below does not give
    "start_size": 64,
    "dataset_path": "elsewhere",
    "cache_dir": "elsewhere",
    "backbone": "resnet18",
    "weights": "weights.pth",
    "init_from": "runs/before",
    "checkpoint_dir": "runs/mine",
    "gpus": "0",
    "log": "tensorboard",
    "image_folder": "train/*",
    "mask_folder": "train masks",
    "mask_suffix": "_mask",
    "mask_object": "1,3",
    "stage2_lr": 3e-4,
    "stage2_batch_size": 3,
    "target_iou": 0.5,
    "fold": "2/5",
}


@pytest.fixture(autouse=True)
def no_kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(choice, "_listed_gpus", list)
    for folder in ("elsewhere", "runs/before"):  # the command line looks at paths first
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "weights.pth").touch()


def other_value(name: str, value: Any) -> Any:
    if name in OTHER:
        return OTHER[name]
    if choices := ITEMS[name].metadata.get("choices"):
        return next(choice for choice in choices if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1 if value < ITEMS[name].metadata.get("high", 1e9) else value - 1
    return value / 2 or 0.25


def typed_in(value: Any) -> str:
    return "" if value is None else str(value)


def from_command(line: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Return the settings that the command line would train."""
    program, *words = shlex.split(line)
    assert program == "camoxpert"
    taken: list[Config] = []
    monkeypatch.setattr(
        cli_train, "_train", lambda order, options: taken.append(order().config) or 0
    )
    assert cli.main(words) == 0
    return taken[0]


@pytest.mark.parametrize("name", ITEMS)
def test_every_field_changes_the_settings_and_back(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = make_config("balanced-2gpu")
    picker, before = ConfigPicker(start), getattr(start, name)
    value, field = other_value(name, before), picker.fields[name]
    field.value = value if not isinstance(field.value, str) else typed_in(value)
    assert picker.problem == ""
    assert getattr(picker.config, name) == value != before
    assert f"<b>{name}</b>" in picker.changed.value
    assert from_command(picker.command_line(), monkeypatch) == picker.config

    picker.config = start
    assert picker.config == start == ConfigPicker(picker.config).config
    picker.config = start.replace(**{name: value})
    assert field.value == (value if not isinstance(field.value, str) else typed_in(value))
    assert command_line(start) == "camoxpert train --preset balanced-2gpu"


def test_form_and_command_line_make_the_same_settings_of_a_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picker = ConfigPicker(preset="balanced-2gpu")
    picker.fields["lr"].value = "1e-3"
    assert picker.config == make_config("balanced-2gpu", lr=1e-3)
    assert picker.command_line() == "camoxpert train --preset balanced-2gpu --lr 0.001"
    picker.fields["lr"].value = "0.00065"
    assert picker.config == make_config("balanced-2gpu")


def values_of(picker: ConfigPicker, *names: str) -> list[str]:
    return [picker.fields[name].value for name in names]


def test_stages_move_with_the_epochs_until_somebody_sets_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picker = ConfigPicker(preset="balanced-2gpu")
    lengths = ("stage1_epochs", "warmup_epochs")
    assert values_of(picker, *lengths) == ["30", "10"]
    picker.fields["epochs"].value = "6"
    assert values_of(picker, *lengths) == ["1", "0"] and picker.problem == ""
    assert picker.config == make_config("balanced-2gpu", epochs=6)
    assert picker.command_line() == "camoxpert train --preset balanced-2gpu --epochs 6"
    assert "<b>stage1_epochs</b>" not in picker.changed.value
    assert "would augment by 0.25" in picker.outlook.value

    picker.fields["stage1_epochs"].value = "2"
    for epochs in ("20", "0", "1000000000", "140"):  # on the way stand numbers that cannot be
        picker.fields["epochs"].value = str(epochs)
    assert values_of(picker, *lengths) == ["2", "10"]
    assert picker.config == make_config("balanced-2gpu", stage1_epochs=2)
    assert from_command(picker.command_line(), monkeypatch) == picker.config
    picker.fields["epochs"].value = "1"
    assert "--stage1-epochs 2 is more than --epochs 1" in picker.problem
    picker.fields["stage1_epochs"].value = "0"
    assert picker.problem == "" and picker.config.epochs == 1


def test_the_form_shows_what_the_recipe_will_decide(
    camouflage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picker = ConfigPicker(dataset_path=str(camouflage))
    assert picker.config.preset == "auto" and picker.fields["augment"].value == ""
    for epochs in (6, 60):
        picker.fields["epochs"].value = str(epochs)
        found = decide(picker.config, count_images(picker.config).train, 1)
        for name in DECIDED:
            said = f"recipe: {getattr(found, name)}"
            assert said in picker.helps[name].value and f"({said})" in str(picker)
            if name != "progressive_unfreeze":
                assert picker.fields[name].placeholder == said
    assert from_command(picker.command_line(), monkeypatch) == picker.config

    picker.fields["augment"].value = "0.5"
    picker.fields["progressive_unfreeze"].value = True
    picker.fields["epochs"].value = "6"
    assert picker.config.augment == 0.5 and picker.config.progressive_unfreeze
    assert "recipe: " not in picker.helps["augment"].value
    assert "preset: by the recipe" in picker.helps["augment"].value
    assert "<b>augment</b> 0.5" in picker.changed.value
    assert from_command(picker.command_line(), monkeypatch) == picker.config
    picker.save_button.click()
    assert chosen(picker.path) == picker.config
    for text in ("", "auto", "none"):
        picker.fields["augment"].value = "0.5"
        picker.fields["augment"].value = text
        assert picker.config.augment is None


def test_a_preset_of_the_guide_can_leave_a_setting_to_the_recipe(
    camouflage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picker = ConfigPicker(preset="single-gpu", dataset_path=str(camouflage))
    picker.fields["augment"].value = ""
    picker.fields["progressive_unfreeze"].value = None
    assert "recipe: 1.0" in picker.helps["augment"].value
    line = picker.command_line()
    assert "--augment auto" in line and "--auto-progressive-unfreeze" in line
    assert from_command(line, monkeypatch) == picker.config


@pytest.mark.parametrize("gib", [[], [11.0], [14.6], [14.6, 14.6]])
def test_auto_in_the_form_is_auto_on_the_command_line(
    gib: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(choice, "_listed_gpus", lambda: gib)
    monkeypatch.setattr(Devices, "memory", lambda self: gib)
    picker = ConfigPicker(preset="tiny")
    picker.preset.value = "auto"
    assert picker.command_line() == "camoxpert train --preset auto"
    assert picker.changed.value.endswith("nothing")
    assert from_command(picker.command_line(), monkeypatch) == picker.config
    picker.fields["batch_size"].value = "5"
    assert picker.command_line() == "camoxpert train --preset auto --batch-size 5"


def test_many_changes_at_once_reach_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {name: other_value(name, getattr(Config(), name)) for name in ITEMS}
    config = make_config("high-res-2gpu").replace(**changes | {"cache_dir": "with 'quotes' in it"})
    assert from_command(command_line(config), monkeypatch) == config


def test_nothing_means_as_in_stage_one(monkeypatch: pytest.MonkeyPatch) -> None:
    picker = ConfigPicker(preset="balanced-2gpu")
    picker.fields["stage2_lr"].value = picker.fields["stage2_batch_size"].value = ""
    assert picker.config.stage2_lr is picker.config.stage2_batch_size is None
    assert from_command(picker.command_line(), monkeypatch) == picker.config


@pytest.mark.parametrize(
    ("name", "typed", "said"),
    [
        ("epochs", "0", "--epochs is 0, but must be at least 1"),
        ("stage1_epochs", "150", "--stage1-epochs 150 is more than --epochs 140"),
        ("lr", "fast", "--lr is 'fast', but must be a number"),
        ("img_size", "8", "--img-size is 8, but must be at least 32"),
        ("stage2_batch_size", "1.5", "--stage2-batch-size is '1.5', but must be a whole number"),
    ],
)
def test_a_bad_value_is_answered_and_the_last_good_settings_stay(
    name: str, typed: Any, said: str
) -> None:
    picker = ConfigPicker(preset="balanced-2gpu")
    good, shown = picker.config, picker.fields[name].value
    picker.fields[name].value = typed
    called = f"'{label_of(name)}'"
    beside = said.split(" ", 1)[1].split("'")[0]  # what follows the flag, up to a value
    assert said in picker.problem and f"--{name}".replace("_", "-") not in picker.helps[name].value
    assert html.unescape(picker.helps[name].value).partition(">")[2].startswith(called)
    below = html.unescape(picker.message.value)  # which field, and not the same sentence again
    assert called in below and f"{called} {beside}" not in below
    assert ". Until then the last good settings stay." in below
    assert picker.config == good
    picker.fields[name].value = shown
    assert picker.problem == picker.message.value == ""


def test_a_preset_fills_the_form_and_leaves_the_folders() -> None:
    picker = ConfigPicker(preset="tiny")
    picker.fields["checkpoint_dir"].value = "runs/mine"
    picker.preset.value = "high-res-2gpu"
    assert picker.config == make_config("high-res-2gpu", checkpoint_dir="runs/mine")
    assert picker.fields["img_size"].value == "352"
    assert list(PRESETS)[:3] == list(picker.preset.options)[:3]
    assert all("2gpu" in name for name in picker.preset.options[:3])


def test_the_outlook_tells_steps_and_images_as_training_will(camouflage: Path) -> None:
    picker = ConfigPicker(
        preset="tiny", dataset_path=str(camouflage), devices=2, path="chosen.json"
    )
    picker.fields["accumulation_steps"].value = "2"
    images = count_images(picker.config)
    # 40 training and 8 test images were made, a fifth of them without an object
    assert images.train + images.validation == 32 and images.noncam == 0
    assert dict(images.left_out) == {"NonCAM training images": 8, "NonCAM test images": 1}
    assert list(images.test.values()) == [7]
    steps = images.train // (4 * 2 * 2)
    seen = re.sub("<[^>]*>", "", picker.outlook.value)
    assert f"4 x 2 x 2&emsp;16&emsp;{steps}&emsp;" in seen
    assert f"{images.train} images" in picker.outlook.value
    assert "data:image/svg+xml" in picker.outlook.value
    picker.fields["noncam"].value = True
    assert "32 CAM" in picker.outlook.value and "8 NonCAM" in picker.outlook.value
    picker.fields["batch_size"].value = "200"
    assert "larger than the" in picker.outlook.value and "left out" not in picker.outlook.value


def test_a_folder_without_images_is_told_in_the_outlook(tmp_path: Path) -> None:
    picker = ConfigPicker(preset="tiny")
    picker.fields["dataset_path"].value = str(tmp_path / "nothing")
    assert "no such folder" in picker.outlook.value
    assert picker.config.dataset_path.endswith("nothing")  # it may be there where it trains


def test_what_is_saved_is_what_the_next_training_takes(camouflage: Path, tmp_path: Path) -> None:
    assert chosen("next.json").preset == "demo"
    picker = ConfigPicker(preset="tiny", path="runs/next.json")
    picker.save_button.click()
    assert chosen("runs/next.json") == picker.config
    assert "saved to runs/next.json" in picker.saved.value
    assert chosen("runs/next.json", str(camouflage)).dataset_path == str(camouflage)
    picker.fields["epochs"].value = "3"
    assert "not saved: 03 would train the values saved at" in picker.saved.value
    picker.fields["epochs"].value = str(chosen("runs/next.json").epochs)
    assert picker.saved.value == ""
    picker.fields["epochs"].value = "0"
    assert "not saved" in picker.saved.value
    (tmp_path / "runs/next.json").unlink()
    assert "03 would train a proposal" in ConfigPicker(path="runs/next.json").saved.value
    (tmp_path / "runs/next.json").write_text("{")
    assert "not saved:" in ConfigPicker(path="runs/next.json").saved.value


def test_what_was_saved_holds_whatever_is_attached(camouflage: Path, tmp_path: Path) -> None:
    assert chosen("next.json", "", str(camouflage)).dataset_path == str(camouflage)
    make_config("tiny", dataset_path=str(tmp_path / "elsewhere")).save(Path("next.json"))
    assert chosen("next.json", "", str(camouflage)).dataset_path == str(tmp_path / "elsewhere")
    assert chosen("next.json", str(camouflage)).dataset_path == str(camouflage)
    make_config("tiny", dataset_path="/gone").save(Path("next.json"))
    assert chosen("next.json", "", str(camouflage)).dataset_path == str(camouflage)
    make_config("tiny").save(Path("next.json"))  # generated images were chosen
    assert chosen("next.json", "", str(camouflage)).dataset_path == ""


def test_estimate_measures_in_a_process_of_its_own(camouflage: Path, cache: Path) -> None:
    picker = ConfigPicker(
        make_config("tiny", dataset_path=str(camouflage), cache_dir=str(cache), device="cpu")
    )
    picker.estimating.button.click()
    assert picker.estimating.button.disabled
    picker.estimating.thread.join(120)
    assert (
        "GiB per device" in picker.estimating.shown.value
        and "in all about" in picker.estimating.shown.value
    )
    assert not picker.estimating.button.disabled


def test_estimate_tells_of_another_card_too(camouflage: Path) -> None:
    picker = ConfigPicker(make_config("tiny", dataset_path=str(camouflage)))
    assert picker.estimating.card.value == "this machine"
    assert all(find_card(name) for name in picker.estimating.card.options[1:])
    picker.estimating.card.value = "t4x2"
    text = picker.estimate()
    assert "forecast for 2 x Tesla T4" in text and "in all about" in text


def test_estimate_says_why_it_cannot(camouflage: Path) -> None:
    picker = ConfigPicker(make_config("tiny", dataset_path=str(camouflage), batch_size=500))
    with pytest.raises(InputError, match="a batch of 500 images"):
        picker.estimate()


def test_without_a_front_end_it_is_a_table() -> None:
    picker = ConfigPicker(preset="max-speed-2gpu")
    picker.fields["epochs"].value = "99"
    text = str(picker)
    assert all(f"  {name} " in text for name in ITEMS)
    assert "(preset: 140)" in text and "camoxpert train --preset max-speed-2gpu --epochs 99" in text
    assert DisplayFormatter().format(picker) == ({}, {})  # it shows itself, once


def test_devices_are_those_that_the_settings_and_the_machine_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(choice, "_listed_gpus", lambda: [14.6, 14.6])
    assert count_devices(Config()) == 2
    assert count_devices(Config(device="cpu")) == count_devices(Config(parallel="none")) == 1
    assert count_devices(Config(gpus="1")) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert count_devices(Config()) == 1
    one, two = choice.propose("some/images"), choice.propose("some/images", devices=2)
    assert one.preset == two.preset == "auto"
    assert (one.batch_size, two.batch_size, two.stage2_batch_size) == (12, 16, 12)


@pytest.mark.parametrize(
    ("name", "typed", "said"),
    [
        ("lr", "1e10", "--lr is 10000000000.0, but must be above 0.0 and at most 1.0"),
        ("lr", "inf", "--lr is inf, but must be a finite number"),
        ("img_size", "1e5", "--img-size is '1e5', but must be a whole number, at least 32 and at"),
        ("img_size", "100000", "--img-size is 100000, but must be at least 32 and at most 8192"),
        ("img_size", "96.5", "--img-size is '96.5', but must be a whole number"),
        ("img_size", "", "--img-size is empty, but must be a whole number"),
        ("epochs", "1e2", "Write 100."),
        ("epochs", "100000000", "but must be at least 1 and at most 1000000"),
        ("backbone", "", "--backbone is empty"),
        ("backbone", "resnet5", "timm has no network of that name; did you mean resnet50"),
        ("weights", "gone.pth", "--weights gone.pth: no such file. Looked in"),
        ("weights", "runs", "--weights runs is a folder, expected a file"),
        ("init_from", "runs/gone", "--init-from runs/gone: no such file or folder"),
        ("cache_dir", "weights.pth/x", "--cache-dir"),
        ("gpus", "x", "--gpus is 'x'; it must be all, or the numbers of GPUs"),
        ("gpus", "0,0", "--gpus is '0,0'"),
        ("gpus", "", "--gpus is ''"),
        ("checkpoint_dir", "runs/old", "--checkpoint-dir runs/old holds a run already"),
    ],
)
def test_what_cannot_be_used_here_is_answered_beside_its_field(
    name: str, typed: str, said: str
) -> None:
    Path("runs/old").mkdir()
    make_config("tiny").save(Path("runs/old/config.json"))
    picker = ConfigPicker(preset="tiny")
    good = picker.config
    picker.fields[name].value = typed
    assert said in picker.problem
    assert f"'{label_of(name)}' " in html.unescape(picker.helps[name].value)
    assert picker.config == good and "not saved" in picker.saved.value


@pytest.mark.parametrize("preset", ["balanced-2gpu", "tiny", "single-gpu", "auto"])
def test_a_value_out_of_bounds_names_what_the_preset_has(preset: str) -> None:
    for name, typed in (("lr", "-1"), ("batch_size", "0"), ("stage1_epochs", "-2")):
        usual = PRESETS[preset].get(name, ITEMS[name].default)
        with pytest.raises(InputError) as refused:
            make_config(preset, **{name: float(typed) if name == "lr" else int(typed)})
        assert "says nothing" not in str(refused.value)
        assert (f"; preset {preset}: {usual})" in str(refused.value)) == (usual is not None)


def test_the_form_speaks_of_its_fields_and_not_of_flags() -> None:
    text = "--lr 0.1 is meant for 8; --scale-lr applies it, --no-ema too; `run --out x`"
    assert in_the_form(text) == (
        "'learning rate' 0.1 is meant for 8; 'scale rate with batch' applies it, --no-ema too; "
        "`run --out x`"
    )
    assert in_the_form("give --lr.", groups=True) == "give 'learning rate' (schedule)."
    picker = ConfigPicker(preset="balanced-2gpu", devices=1)
    shown = html.unescape(picker.outlook.value)
    assert "'scale rate with batch' (schedule) applies it" in shown and "--" not in shown
    assert "head, in the end " in shown  # the legend's number is the last one


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "starts from ImageNet weights of the hub, fetched at the start. Without internet"),
        ({"pretrained": False}, "starts from random weights"),
        ({"weights": "a.pth"}, "starts from the backbone's weights in a.pth"),
        ({"init_from": "runs/a"}, "starts from the weights of runs/a"),
        ({"backbone": "resnet18"}, "starts from the backbone's weights in /in/resnet18.pth"),
    ],
)
def test_where_the_weights_come_from_is_told(
    settings: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("CAMOXPERT_WEIGHTS", "/in/resnet18.pth")
    picker = ConfigPicker(make_config("balanced-2gpu", **settings))
    assert said in repr(picker)
    assert said.removeprefix("starts from ") in html.unescape(picker.outlook.value)


def test_a_problem_of_no_field_is_said_whole_and_ends_before_the_next_sentence() -> None:
    assert until_mended("No data", []) == "No data. Until then the last good settings stay."
    assert until_mended("No data.", []).startswith("No data. Until")


def test_gpus_are_those_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_listed_gpus", lambda: [16.0, 16.0])
    picker = ConfigPicker(preset="tiny")
    picker.fields["gpus"].value = "0,2"
    assert "--gpus is '0,2', but GPUs 0 to 1 are here" in picker.problem
    picker.fields["gpus"].value = "1"
    assert not picker.problem and picker.config.gpus == "1"


def test_settings_that_came_with_the_form_are_told_and_do_not_lock_it() -> None:
    picker = ConfigPicker(make_config("tiny", weights="gone.pth"))
    assert "(network) gone.pth: no such file" in picker.outlook.value and not picker.problem
    picker.fields["epochs"].value = "3"
    assert picker.config.epochs == 3 and "no such file" in picker.outlook.value
    picker.fields["weights"].value = "none"
    assert picker.config.weights == "" and "no such file" not in picker.outlook.value


def test_every_network_of_timm_is_known_without_loading_it() -> None:
    timm = pytest.importorskip("timm")
    assert set(timm.list_models()) <= networks()
    loaded = "import sys; from camoxpert_nb.notebook.usable import networks; networks();"
    loaded += "sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], cwd=ROOT).returncode == 0


def test_an_estimate_has_a_clock_a_limit_and_can_be_cancelled(camouflage: Path) -> None:
    picker = ConfigPicker(make_config("tiny", dataset_path=str(camouflage), device="cpu"))
    estimate = picker.estimating
    estimate.button.click()
    until(lambda: " s of at most 300 s" in estimate.shown.value)
    assert estimate.stop.layout.display == "" and estimate.button.disabled
    estimate.stop.click()
    estimate.thread.join(20)
    assert not estimate.thread.is_alive() and "cancelled" in estimate.shown.value
    assert estimate.stop.layout.display == "none" and not estimate.button.disabled
    estimate.limit = 0.2
    assert "no step was measured within 0 s" in picker.estimate()


def until(true: Callable[[], bool], patience: float = 20.0) -> None:
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_backbone_is_found_by_any_part_of_its_name() -> None:
    field = ConfigPicker(dataset_path="").fields["backbone"]
    assert {"edgenext_base", "tf_efficientnet_lite0", "pvt_v2_b2"} <= {*field.options}
    assert field.ensure_option is False  # a name with its weights' tag may be typed, too
