"""What `train` and `resume` make of the length of a run, from the words to config.json."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from camoxpert_nb.cli import main as cli
from camoxpert_nb.cli import train as module
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.settings.recipe import recipe

SMALL = "--backbone test_resnet --no-pretrained --img-size 32 --width 16 --num-workers 0"


def run(line: str) -> int:
    return cli.main(shlex.split(line))


@pytest.fixture
def auto(camouflage: Path, cache: Path) -> str:
    data = f"--dataset-path {camouflage} --cache-dir {cache}"
    return f"train {data} --device cpu {SMALL} --batch-size 4 --val-share 0.2"


def asked(line: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Return the settings that a command line asks for."""
    taken: list[Config] = []
    monkeypatch.setattr(module, "_train", lambda order, options: taken.append(order().config) or 0)
    assert run(line) == 0
    return taken[0]


@pytest.mark.parametrize(
    ("words", "lengths"),
    [
        ("", (140, 30, 10)),
        ("--epochs 6", (6, 1, 0)),
        ("--epochs 1", (1, 0, 0)),
        ("--epochs 6 --stage1-epochs 4", (6, 4, 0)),
        ("--epochs 20 --warmup-epochs 7", (20, 4, 7)),
        ("--stage1-epochs 5", (140, 5, 10)),
    ],
)
def test_other_epochs_alone_keep_the_meaning_of_a_preset(
    words: str, lengths: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_config("balanced-2gpu").save(tmp_path / "mine.json")
    for start in ("--preset balanced-2gpu", f"--config {tmp_path / 'mine.json'}"):
        config = asked(f"train {start} {words}", monkeypatch)
        assert (config.epochs, config.stage1_epochs, config.warmup_epochs) == lengths


def test_both_numbers_given_and_in_contradiction_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("train --preset balanced-2gpu --epochs 6 --stage1-epochs 7") == 2
    assert "--stage1-epochs 7 is more than --epochs 6" in capsys.readouterr().err


def test_own_photos_are_trained_by_the_recipe_and_no_photos_by_the_demo(
    auto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked("train --device cpu", monkeypatch).preset == "demo"
    for line in ("train --device cpu --preset auto", auto, f"{auto} --preset auto"):
        config = asked(line, monkeypatch)
        assert config.preset == "auto" and config.augment is config.lr is None
    config = asked("train --device cpu --preset auto --progressive-unfreeze", monkeypatch)
    assert config.progressive_unfreeze is True
    config = asked("train --preset single-gpu --auto-progressive-unfreeze", monkeypatch)
    assert config.progressive_unfreeze is None


@pytest.mark.parametrize("words", ["--progressive-unfreeze", "--no-progressive-unfreeze"])
def test_a_switch_that_is_given_in_two_ways_is_refused(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(f"train {words} --auto-progressive-unfreeze")
    assert "leave one out" in capsys.readouterr().err


def test_config_json_holds_what_was_decided_and_a_resume_keeps_it(
    auto: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    line = f"{auto} --epochs 2 --uncertainty 0.7 --checkpoint-dir {folder}"
    assert run(f"{line} --dry-run") == 0
    planned = capsys.readouterr().out
    assert run(line) == 0
    said = capsys.readouterr().out
    config, images = Config.load(folder / "config.json"), Run(folder).load_json("summary")["data"]
    values = recipe(2, images["train"], 4) | {"uncertainty": 0.7}
    assert {name: getattr(config, name) for name in values} == values
    for text in (planned, said):
        assert f"recipe            for 2 epochs of {images['train']} photos, 4 in a step:" in text
        assert f"augment {values['augment']:g}, lr {values['lr']:g}, stage2_lr" in text
        assert "uncertainty 0.7" not in text.partition("differ from")[0]
    chosen, _, changed = planned.partition("chose for this machine")[2].partition("differ from")
    assert "img_size" not in changed or "--img-size" in line
    assert "epochs" in changed and "uncertainty" not in chosen  # 2 were given
    assert "uncertainty = 0.7" in planned and "augment =" not in planned
    assert "preset auto chosen: no GPU" in said

    assert run(f"resume {folder} --epochs 4") == 0
    said, now = capsys.readouterr().out, Config.load(folder / "config.json")
    assert now == config.replace(epochs=4)
    assert "--stage1-epochs 0 and --warmup-epochs 0 stay as the run began" in said
    assert "the recipe's numbers stay those of 2 epochs" in said
    assert "recipe            for" not in said


def test_a_resume_can_have_one_number_decided_anew(auto: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(f"{auto} --epochs 1 --checkpoint-dir {folder}") == 0
    before = Config.load(folder / "config.json")
    assert run(f"resume {folder} --epochs 8 --augment auto") == 0
    now = Config.load(folder / "config.json")
    assert now.augment == recipe(8, 100, 4)["augment"] > before.augment
    assert now == before.replace(epochs=8, augment=now.augment)


def test_a_run_that_gets_too_short_for_its_stage_one_keeps_the_share(tmp_path: Path) -> None:
    from camoxpert_nb.training.resume import resumed_config

    config = make_config("balanced-2gpu", checkpoint_dir=str(tmp_path / "run"))
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.save_config(config)
    run.log("start")
    for epochs, lengths in ((60, (30, 10)), (30, (30, 10)), (20, (4, 1)), (300, (30, 10))):
        now = resumed_config(run.folder, {"epochs": epochs})
        assert (now.stage1_epochs, now.warmup_epochs) == lengths
    assert resumed_config(run.folder, {"epochs": 20, "stage1_epochs": 3}).stage1_epochs == 3


def test_epochs_that_fit_into_the_time_have_their_own_recipe(
    auto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from camoxpert_nb.training import estimate

    folder = tmp_path / "run"
    monkeypatch.setattr(estimate, "fit_to_budget", lambda config, *rest: config.replace(epochs=3))
    assert run(f"{auto} --epochs 140 --fit-to-budget --checkpoint-dir {folder}") == 0
    config = Config.load(folder / "config.json")
    assert config.epochs == 3 and config.augment == recipe(3, 100, 4)["augment"] < 1


def test_a_forecast_for_other_gpus_decides_for_their_batch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = f"train --dry-run --preset auto --on t4x2 --images 400 --epochs 30 {SMALL}"
    line = line.replace("--img-size 32", "--img-size 64")
    assert run(line) == 0
    assert "forecast for 2 x Tesla T4" in capsys.readouterr().out


def test_the_largest_batch_is_found_for_open_settings_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(f"batch-size --preset auto --device cpu {SMALL}") == 0
    assert "Train with: --stage2-batch-size 8" in capsys.readouterr().out  # there is no stage one
