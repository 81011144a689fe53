from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from camoxpert_nb.errors import InputError
from camoxpert_nb.kaggle import missing
from camoxpert_nb.notebook.set_up import set_up
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config


@pytest.fixture
def inputs(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /kaggle/input of a session without the internet."""
    monkeypatch.setattr(missing, "hub_answers", lambda: False)
    return inputs


def plant_set(folder: Path, count: int, masks: str = "GT") -> None:
    for part, end in (("Imgs", "jpg"), (masks, "png")):
        (folder / part).mkdir(parents=True)
        for number in range(count):
            (folder / part / f"{folder.name}{number}.{end}").touch()


def plant_run(source: Path, name: str, **settings: Any) -> Run:
    run = Run(source / "runs" / name)
    run.folder.mkdir(parents=True)
    make_config("tiny", **{"epochs": 6, "time_budget": 30.0, **settings}).save(run.config_path)
    run.log("epoch", epoch=3, step=9)
    shutil.make_archive(str(run.folder / "last"), "zip", run.folder)  # as torch writes: a zip
    (run.folder / "last.zip").rename(run.folder / "last.pt")
    return run


def test_with_nothing_attached_a_demo_is_proposed(inputs: Path) -> None:
    ready = set_up()
    assert (ready.config.preset, ready.config.epochs) == ("demo", 4)
    assert "no images with masks are attached" in ready.notes[0]
    longer = set_up(epochs=40).config
    assert (longer.epochs, longer.stage1_epochs) == (40, 10)


def test_what_the_cell_says_is_trained_and_saved(inputs: Path) -> None:
    plant_set(inputs / "zoo", 12)
    more = {"img_size": 96, "time_budget": 5.0}
    ready = set_up("zoo", "balanced-2gpu", 20, 1.5, more=more)
    config = ready.config
    assert (config.preset, config.epochs, config.img_size) == ("balanced-2gpu", 20, 96)
    assert config.time_budget == 90 and config.dataset_path == str(inputs / "zoo")
    assert Config.load(Path("runs/next.json")) == config
    assert any("no pretrained weights for edgenext_base" in note for note in ready.notes)
    assert "NOTE      no pretrained weights" in str(ready)
    assert "NOTE: no pretrained weights" in ready._repr_html_()


def test_all_that_is_attached_trains_where_none_is_named(inputs: Path) -> None:
    plant_set(inputs / "zoo", 12)
    plant_set(inputs / "farm", 5)
    ready = set_up(preset="tiny")
    assert Path(ready.config.dataset_path).name == "farm+zoo"
    assert any("2 image sets are attached and DATA is empty" in note for note in ready.notes)
    assert "together: " in str(ready) and "chosen" not in str(ready)
    one = set_up("farm", "tiny")
    assert not any("image sets" in note for note in one.notes)
    assert f"chosen    {inputs / 'farm'}; no other set is used" in str(one)
    assert "together" not in str(one) and "chosen" in one._repr_html_()


def test_masks_that_are_not_found_are_said_and_can_be_named(inputs: Path) -> None:
    plant_set(inputs / "zoo", 4, masks="Wolken")
    ready = set_up(preset="tiny")
    (note,) = [note for note in ready.notes if "no image has its mask" in note]
    assert str(inputs / "zoo") in note and "GT may be called" in note and "MORE" in note
    with pytest.raises(InputError, match=r"(?s)no image has its mask.*In the settings cell"):
        set_up("zoo", "tiny")
    more = {"image_folder": "Imgs", "mask_folder": "Wolken"}
    assert set_up("zoo", "tiny", more=more).config.mask_folder == "Wolken"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"data": 3}, "DATA = 3: expected a text in quotes"),
        ({"preset": None}, "PRESET = None"),
        ({"preset": "balanced"}, "no preset 'balanced'"),
        ({"epochs": "60"}, "EPOCHS = '60': expected a whole number"),
        ({"epochs": 2.5}, "EPOCHS = 2.5"),
        ({"epochs": True}, "EPOCHS = True"),
        ({"epochs": -1}, "EPOCHS = -1"),
        ({"hours": "11h"}, "HOURS = '11h': expected a number"),
        ({"hours": float("nan")}, "HOURS = nan"),
        ({"resume": True}, "RESUME = True"),
        ({"resume": "gone"}, "RESUME = 'gone': no attached run"),
        ({"more": ["img_size"]}, "MORE = \\['img_size'\\]: expected pairs"),
        ({"more": {"image_size": 96}}, "MORE names image_size, which is no setting.*img_size"),
        ({"more": {"img_size": 9}}, "--img-size"),
        ({"data": "gone"}, "'gone' is not attached"),
    ],
)
def test_what_cannot_be_meant_is_refused(inputs: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"(?s){said}"):
        set_up(**given)


class TestResume:
    def test_an_attached_run_goes_on_as_it_was_for_as_long_as_is_said_now(
        self, inputs: Path
    ) -> None:
        plant_set(inputs / "zoo", 12)
        plant_run(inputs / "out", "a", dataset_path=str(inputs / "zoo"))
        ready = set_up()
        assert ready.goes_on and ready.config.checkpoint_dir == "runs/a"
        assert (ready.config.epochs, ready.config.time_budget) == (6, 0)
        assert not any("keeps its own" in note for note in ready.notes)
        longer = set_up(preset="tiny", epochs=9, hours=2)
        assert (longer.config.epochs, longer.config.time_budget) == (9, 120)
        assert not any("keeps its own" in note for note in longer.notes)

    def test_other_settings_than_its_own_are_said(self, inputs: Path) -> None:
        plant_set(inputs / "zoo", 12)
        plant_run(inputs / "out", "a", dataset_path=str(inputs / "zoo"))
        (note,) = [each for each in set_up(more={"img_size": 96}).notes if "keeps its own" in each]
        assert "--img-size 64 (in the settings cell 96)" in note and 'RESUME = "none"' in note

    def test_one_of_several_can_be_named_and_none_too(self, inputs: Path) -> None:
        first = plant_run(inputs / "out", "a", time_budget=0.0)
        plant_run(inputs / "out", "b")
        for wanted in ("a", "runs/a", str(first.folder), str(first.folder / "last.pt")):
            shutil.rmtree("runs", ignore_errors=True)
            ready = set_up(resume=wanted)
            assert ready.config.checkpoint_dir == "runs/a"
            assert "b: passed over, another one was named" in str(ready)
        with pytest.raises(InputError, match="2 attached runs are meant"):
            set_up(resume=str(inputs / "out"))
        ready = set_up(resume="none")
        assert not ready.goes_on and ready.config.checkpoint_dir == ""
        assert "passed over, none is wanted" in str(ready)

    def test_one_that_ended_in_this_session_is_named_and_can_go_on(self, inputs: Path) -> None:
        plant_set(inputs / "zoo", 12)
        config = set_up(preset="tiny").config
        own = plant_run(Path(), "mine")
        config.save(own.config_path)
        (note,) = [each for each in set_up(preset="tiny").notes if "runs/mine" in each]
        assert "died with 1 of 2 epochs done" in note and 'RESUME = "runs/mine"' in note
        assert not any("runs/mine" in each for each in set_up(preset="tiny", resume="none").notes)
        ready = set_up(preset="tiny", resume="runs/mine")
        assert ready.goes_on and ready.config.checkpoint_dir == "runs/mine"


def test_elsewhere_it_says_that_nothing_is_attached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAMOXPERT_INPUT", str(tmp_path / "none"))
    assert "not on Kaggle" in str(set_up())
    assert "RESUME = 'a' names an attached run" in set_up(resume="a").notes[0]
