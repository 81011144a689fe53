"""Several runs as one: the mean of maps, on images that no member trained on."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from camoxpert_nb.cli import main as cli
from camoxpert_nb.data.identity import Split
from camoxpert_nb.data.images import read_map
from camoxpert_nb.data.layouts import find_datasets
from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation.ensemble import MEAN, Ensemble, judge_together, open_ensemble
from camoxpert_nb.evaluation.judge import judge, open_predictor
from camoxpert_nb.evaluation.repeated import held_out_pairs
from camoxpert_nb.runs.repeat import Repeat
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config
from camoxpert_nb.training.fit import fit

Runs = dict[str, Run]


@pytest.fixture(scope="module")
def runs(camouflage: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    places = {"dataset_path": str(camouflage), "cache_dir": str(cache), "device": "cpu"}
    root = tmp_path_factory.mktemp("ensemble")
    other = {"backbone": "test_convnext", "img_size": 96}
    ways = {"one": {}, "two": {"seed": 7, **other}, "f1": {"fold": "1/2"}, "f2": {"fold": "2/2"}}
    made = {}
    for name, way in ways.items():
        config = make_config("tiny", epochs=1, checkpoint_dir=str(root / name), **places, **way)
        made[name] = fit(config)
    return made


def test_the_mean_of_maps_is_taken_at_the_masks_size(runs: Runs, camouflage: Path) -> None:
    (test,) = (found.test for found in find_datasets(camouflage))
    each = [open_predictor(runs[name], "cpu") for name in ("one", "two")]
    assert each[0].size != each[1].size
    maps = [[one.probability for one in predictor.predict(test)] for predictor in each]
    for mean, *alone in zip(Ensemble(each).predict(test), *maps, strict=True):
        np.testing.assert_allclose(mean.probability, (alone[0] + alone[1]) / 2, atol=1e-6)
        assert 0 <= mean.uncertainty <= 1


def test_members_score_as_alone_and_the_gain_is_paired(runs: Runs, camouflage: Path) -> None:
    pair = [runs["one"], runs["two"]]
    (found,) = judge_together(pair, camouflage, device="cpu")
    assert found.split == "test" and found.trained == 0
    for run in pair:
        (alone,) = judge(run, camouflage, device="cpu")
        own = found.members[str(run.folder)]
        assert own.mean == alone.scores.mean and own.n == found.scores.n
    rows = {row["against"]: row for row in found.gains()}
    means = [one.mean["iou"] for one in found.members.values()]
    gain = found.scores.mean["iou"] - sum(means) / 2
    assert rows[MEAN]["difference"] == pytest.approx(gain)
    assert rows[MEAN]["low"] <= gain <= rows[MEAN]["high"]
    assert sum(found.seconds.values()) == pytest.approx(found.scores.seconds_per_image)
    assert "hold together in 95 %" in found.summary()


def test_images_that_any_member_trained_on_do_not_judge(runs: Runs, camouflage: Path) -> None:
    (found,) = judge_together(
        [runs["one"], runs["f1"]], camouflage, split="validation", device="cpu"
    )
    splits = [Split.load(runs[name].load_json("split")) for name in ("one", "f1")]
    allowed = {*splits[0].validation, *splits[1].validation}
    allowed -= {*splits[0].train, *splits[1].train}
    assert found.scores.n == len(allowed) > 0 and found.trained == 0
    (whole,) = judge_together([runs["one"], runs["f1"]], camouflage, split="all", device="cpu")
    assert whole.trained == len({*splits[0].train, *splits[1].train})
    assert "WARNING" in whole.note and "no gain is proved" in whole.summary()


def test_of_folds_each_image_is_scored_by_who_held_it_out(runs: Runs, camouflage: Path) -> None:
    folds = [runs["f1"], runs["f2"]]
    (found,) = judge_together(folds, camouflage, split="validation", device="cpu")
    assert found.split == "out-of-fold" and not found.members and not found.gains()
    assert "no ensemble is scored" in found.summary()
    values = found.scores.per_image.set_index("name")["iou"]
    alone: dict[str, float] = {}
    for run in folds:
        (one,) = judge(run, camouflage, split="validation", device="cpu")
        alone |= dict(zip(one.scores.per_image["name"], one.scores.per_image["iou"], strict=True))
        assert {pair.name for pair in held_out_pairs(run)} == {pair.name for pair in one.pairs}
    assert dict(values) == pytest.approx(alone) and len(values) == len(alone)


def test_a_run_given_twice_is_refused(runs: Runs) -> None:
    with pytest.raises(InputError, match="given twice"):
        open_ensemble([runs["one"], runs["two"], runs["one"].folder], "cpu")


def test_commands_take_several_runs_and_the_folder_of_a_repeat(
    runs: Runs, camouflage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two, images = f"{runs['one'].folder} {runs['two'].folder}", camouflage / "Test" / "Image"
    files = f"--json {tmp_path / 'a.json'} --csv {tmp_path / 'a.csv'}"
    line = f"evaluate --run {two} --dataset-path {camouflage} --device cpu {files}"
    assert cli.main(shlex.split(line)) == 0
    assert len(json.loads((tmp_path / "a.json").read_text())["members"]) == 2
    assert "gain over the mean of its members" in capsys.readouterr().out
    assert cli.main(shlex.split(f"{line} --report")) == 2
    assert "--report is about one run" in capsys.readouterr().err
    line = f"predict --run {two} --input {images} --output {tmp_path / 'maps'} --device cpu"
    assert cli.main(shlex.split(line)) == 0
    maps = sorted((tmp_path / "maps").glob("*.png"))
    assert len(maps) == len([*images.iterdir()]) and read_map(maps[0]).max() > 0

    config, folder = make_config("tiny"), tmp_path / "all"
    Repeat(folder, "fold", (1, 2), config).save()
    for number in (1, 2):
        runs[f"f{number}"].copy_to(folder / f"fold-{number}-of-2")
    line = f"evaluate --run {folder} --dataset-path {camouflage} --device cpu"
    assert cli.main(shlex.split(line)) == 0 and "alone" in capsys.readouterr().out
    line = f"compare {folder} --dataset-path {camouflage} --device cpu"
    assert cli.main(shlex.split(line)) == 0
    said = capsys.readouterr().out
    assert "fold-2-of-2 against" in said and "1, 1" not in said.split("standard")[0]
    assert cli.main(shlex.split(f"export {folder}")) == 2
    assert "holds several runs: name one of them" in capsys.readouterr().err
