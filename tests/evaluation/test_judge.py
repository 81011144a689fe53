"""Which images judge a run, what augmentation brings, and where a threshold may come from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from camoxpert_nb.data.pairs import Pair
from camoxpert_nb.data.reading import Reading
from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation import judge as judging
from camoxpert_nb.evaluation.judge import (
    Judged,
    Threshold,
    chosen_sets,
    data_of,
    judge,
    judge_maps,
    open_predictor,
    validation_threshold,
)
from camoxpert_nb.evaluation.metrics import MEASURES
from camoxpert_nb.evaluation.predict import PLAIN, Predictor, Views
from camoxpert_nb.evaluation.scores import Scores, build_scores
from camoxpert_nb.evaluation.which_images import Chosen, choose_pairs
from camoxpert_nb.figures.results import draw_test, show_published
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.fit import fit

BOTH = Views(flip=True, scales=(1.0, 1.5))


@pytest.fixture(scope="module")
def run(camouflage: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    places = {"dataset_path": str(camouflage), "cache_dir": str(cache), "device": "cpu"}
    folder = tmp_path_factory.mktemp("judge") / "run"
    return fit(make_config("tiny", checkpoint_dir=str(folder), **places))


@pytest.fixture
def copy(camouflage: Path, tmp_path: Path) -> Path:
    """Another data set, whose images have names that this run never saw."""
    shutil.copytree(camouflage / "Test", tmp_path / "pond" / "Test")
    for path in sorted((tmp_path / "pond").rglob("*.*")):
        path.rename(path.with_name("pond-" + path.name))
    return tmp_path / "pond"


def test_the_test_split_is_scored_and_named(
    run: Run, camouflage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = judge(run, camouflage, device="cpu")
    assert (one.split, one.trained, one.scores.n) == ("test", 0, 7)  # one of 8 is NonCAM
    assert one.plain is None and one.threshold is None and one.gain == ""
    values = json.loads(json.dumps(one.to_json(), allow_nan=False))
    assert set(values["mean"]) == set(MEASURES)
    said = " ".join(text.get_text() for text in show_published(one).axes[0].texts)
    assert "no test set with published numbers" in said.replace("\n", " ")
    shown: list[dict[str, str]] = []
    with monkeypatch.context() as patch:
        patch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
        assert DisplayFormatter().format(show_published(one)) == ({}, {})  # no picture
    assert shown[0].keys() == {"text/plain", "text/html"}
    assert "no test set with published numbers" in shown[0]["text/plain"].replace("\n", " ")
    assert sum(row["n"] for row in values["by_size"]) == values["n"] == len(values["per_image"])
    assert values["seconds_per_image"] > 0
    assert one.summary().startswith(f"{one.name}: test split")
    assert one.offer == (
        "  seen mirrored too (--flip, MIRRORED in 04): in trainings of ours IoU rose by .006 to "
        ".011, for twice the network's time"
    )
    assert one.offer.strip() in " ".join(one.summary().split())


def test_a_run_that_is_not_there_is_answered_with_the_name_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    with pytest.raises(InputError, match=rf"is not there.*Did you mean {tmp_path / 'latest'}\?"):
        data_of(Run(tmp_path / "lastest"))
    with pytest.raises(InputError, match=r"say where the images are\.$"):
        data_of(Run(tmp_path / "another"))


def test_validation_and_whole_folders_say_what_they_are(run: Run, camouflage: Path) -> None:
    (held,) = judge(run, camouflage, split="validation", device="cpu")
    known = run.load_json("split")
    assert (held.split, held.trained) == ("validation", 0)
    held_out = {Path(path).stem for path in known["validation"].values()}
    assert {pair.name for pair in held.pairs} == held_out
    (everything,) = judge(run, camouflage, split="all", device="cpu")
    assert (everything.split, everything.trained) == ("all", len(known["train"]))
    assert f"WARNING: {everything.trained} of these 39 trained the network" in everything.note
    (chosen,) = choose_pairs(run, camouflage, "all")
    assert chosen[:3] == ("camouflage", everything.pairs, everything.note)


def test_an_image_is_known_by_its_contents_not_by_its_name(
    run: Run, camouflage: Path, tmp_path: Path
) -> None:
    """Others of the same names are new; the same under other names trained the network."""
    strangers, renamed = tmp_path / "strangers", tmp_path / "renamed"
    for folder in (strangers, renamed):
        shutil.copytree(camouflage / "Train", folder)
    for number, path in enumerate(sorted((strangers / "Image").iterdir())):
        image = np.asarray(Image.open(path))
        Image.fromarray(255 - image).save(path)
        for kind in ("Image", "GT_Object"):
            suffix = {"Image": ".jpg", "GT_Object": ".png"}[kind]
            old = renamed / kind / f"{path.stem}{suffix}"
            old.rename(old.with_name(f"{number:04}{suffix}"))
    (found,) = judge(run, strangers, device="cpu")
    assert (found.split, found.trained) == ("all", 0)
    (found,) = judge(run, renamed, device="cpu")
    assert (found.split, found.trained) == ("validation", 0)
    (found,) = judge(run, renamed, split="all", device="cpu")
    assert found.trained == len(run.load_json("split")["train"])


def test_a_run_of_an_older_kit_knows_its_images_by_name(
    run: Run, camouflage: Path, tmp_path: Path
) -> None:
    old = Run(tmp_path / "old")
    run.copy_to(old.folder)
    split = run.load_json("split")
    sides = ("train", "validation")
    old.save_json("split", {s: [Path(p).stem for p in split[s].values()] for s in sides})
    for side in ("validation", "all"):
        (one,), (other,) = (judge(r, camouflage, split=side, device="cpu") for r in (run, old))
        assert (one.trained, one.pairs) == (other.trained, other.pairs)


def test_the_last_weights_can_be_judged_at_the_size_they_were_made_with(
    run: Run, camouflage: Path, tmp_path: Path
) -> None:
    other = Run(tmp_path / "other")
    run.copy_to(other.folder)
    state = other.load("last")
    for name, values in state["ema"].items():  # surely not the best
        state["ema"][name] = -values if name.endswith("weight") else values
    other.save("last", state)
    (best,), (last,) = (
        judge(other, camouflage, device="cpu", which=which) for which in ("best", "last")
    )
    assert best.scores.mean != last.scores.mean
    Config.load(run.config_path).replace(img_size=32).save(other.config_path)
    (same,) = judge(other, camouflage, device="cpu")
    assert same.scores.mean == best.scores.mean


def test_several_folders_are_scored_at_once_but_none_twice(
    run: Run, camouflage: Path, copy: Path
) -> None:
    names = [one.name for one in judge(run, [camouflage, copy], device="cpu")]
    assert len(names) == len(set(names)) == 2
    with pytest.raises(InputError, match="Two of the given folders hold a set called"):
        judge(run, [camouflage, camouflage], device="cpu")


def test_augmentation_shows_what_it_brings_and_costs(run: Run, camouflage: Path) -> None:
    (plain,) = judge(run, camouflage, device="cpu")
    (one,) = judge(run, camouflage, device="cpu", views=BOTH)
    assert one.plain is not None
    assert one.plain.mean == plain.scores.mean != one.scores.mean
    gain = one.scores.mean["iou"] - plain.scores.mean["iou"]
    assert f"({gain:+.4f}, 95 % interval" in one.gain
    assert "mirrored at scales 1, 1.5" in one.gain and "times as long" in one.gain
    assert one.scores.seconds_per_image > 1.5 * one.plain.seconds_per_image
    values = json.loads(json.dumps(one.to_json(), allow_nan=False))
    assert values["plain"]["mean"] == plain.scores.mean
    assert values["views"] == {"flip": True, "scales": [1.0, 1.5]} and one.offer == ""
    assert draw_test(run, one).stat().st_size > 1000


def test_the_threshold_is_the_best_on_validation_and_knows_no_test_image(
    run: Run, camouflage: Path, tmp_path: Path
) -> None:
    found = validation_threshold(run, device="cpu")
    (held,) = judge(run, camouflage, split="validation", device="cpu", threshold=True)
    every = [held.scores.iou_at(level / 255) for level in range(256)]
    assert found.iou == pytest.approx(max(every)) == pytest.approx(every[round(found.value * 255)])
    assert held.threshold == found and "so a bound" in held.summary()
    spoiled = tmp_path / "spoiled"
    shutil.copytree(camouflage, spoiled)
    for path in (spoiled / "Test").rglob("*.png"):
        with Image.open(path) as image:
            inverted = 255 - np.asarray(image.convert("L"))
        Image.fromarray(inverted).save(path)
    for given in (spoiled, [spoiled], [str(spoiled)]):
        assert validation_threshold(run, given, device="cpu") == found
    (test,) = judge(run, camouflage, device="cpu", threshold=True)
    values = test.to_json()
    assert values["validation_threshold"]["value"] == found.value
    assert values["iou_at_validation_threshold"] == test.scores.iou_at(found.value)
    assert values["iou_at_validation_threshold"] <= test.scores.other["best_threshold_iou"]


def test_a_threshold_needs_the_runs_own_images(run: Run, copy: Path) -> None:
    with pytest.raises(InputError, match="nothing to score as 'validation'"):
        validation_threshold(run, copy, device="cpu")
    own = validation_threshold(run, device="cpu")
    assert validation_threshold(run, [copy], device="cpu") == own  # where the run was trained


def test_a_threshold_is_looked_for_in_the_data_given(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(run.load_json("summary")["data"]["root"])
    shutil.copytree(root, tmp_path / "moved")
    looked: list[Path] = []

    def choose(run: Run, folder: Path, *how: Any, **more: Any) -> Any:
        looked.append(folder)
        return choose_pairs(run, folder, *how, **more)

    monkeypatch.setattr(judging, "choose_pairs", choose)
    validation_threshold(run, [tmp_path / "moved"], device="cpu")
    assert looked == [tmp_path / "moved"]
    with pytest.raises(InputError, match="Give the data it was trained on too"):
        gone = Run(tmp_path / "alone")
        run.copy_to(gone.folder)
        gone.save_json("summary", {"data": {"root": "/not/here"}})
        validation_threshold(gone, [], device="cpu")


# ---- what is told, by hand -----------------------------------------------------------------------


def scored(ious: list[float | None], seconds: float | None = None) -> Scores:
    """Scores of images with these IoU, at each threshold (None: an image without an object)."""
    values = np.array([0.0 if iou is None else iou for iou in ious])
    rows = pd.DataFrame(dict.fromkeys(MEASURES, values))
    rows.insert(0, "name", [f"image-{number}" for number in range(len(rows))])
    rows["object_share"] = [0.0 if iou is None else 0.1 for iou in ious]
    rows = rows.assign(intersection=values, union=1.0, raw_mae=0.5, false_alarm=0.25)
    curves = dict.fromkeys(("e", "f", "iou"), np.repeat(values[:, None], 256, 1))
    return build_scores(rows, curves, seconds)


def test_a_threshold_is_told_with_the_images_it_was_chosen_on() -> None:
    assert str(Threshold(0.456, 0.78912, 1)) == "0.46: mean IoU 0.789 on 1 validation image"
    assert str(Threshold(0.5, 0.25, 12, 0.1239)) == (
        "0.50: mean IoU 0.250 on 12 validation images; at 0.50 it is 0.124"
    )


def test_a_set_is_told_with_its_threshold_and_whether_that_was_chosen_on_it() -> None:
    scores = scored([0.25, 0.75])
    of_set = ("pond", [], "test split", "test", 0, scores)
    assert Judged(*of_set).summary() == f"pond: test split\n{scores.summary()}"
    chosen = Threshold(0.4567, 0.6543, 9)
    line = "  IoU 0.500 at threshold 0.457, chosen on 9 validation images (IoU 0.654 there)"
    assert Judged(*of_set, threshold=chosen).summary() == (
        f"pond: test split\n{scores.summary()}\n{line}"
    )
    held = ("pond", [], "held out", "validation", 0, scores)
    assert Judged(*held, threshold=chosen).summary() == (
        f"pond: held out\n{scores.summary()}\n{line}: these very images, so a bound"
    )


def test_what_augmentation_brought_is_paired_over_images_with_an_object() -> None:
    """Of 0.2 and 0.5 it makes 0.3 and 0.6: the difference is 0.1 in each image."""
    before, after = scored([0.2, None, 0.5], 0.5), scored([0.3, None, 0.6], 1.75)
    one = Judged("pond", [], "test split", "test", 0, after, views=BOTH, plain=before)
    said = (
        "seen as it is and mirrored at scales 1, 1.5: IoU 0.350 to 0.450 (+0.1000, 95 % interval "
        "+0.1000 to +0.1000), network 0.5000 to 1.7500 seconds per image (3.5 times as long)"
    )
    assert one.gain == f"  {said}"
    assert one.summary() == f"pond: test split\n{after.summary()}\n  {said}"
    values = one.to_json()
    assert values["gain"] == said and values["views"] == {"flip": True, "scales": (1.0, 1.5)}
    assert values["plain"] == {"mean": before.mean, "seconds_per_image": 0.5}
    assert (values["name"], values["note"], values["split"]) == ("pond", "test split", "test")
    assert values["mean"] == after.mean and "validation_threshold" not in values


def test_without_times_or_objects_a_gain_says_less() -> None:
    once = Judged("a", [], "", "test", 0, scored([0.3, 0.4]), views=BOTH, plain=scored([0.2, 0.3]))
    assert once.gain.endswith("network 0.0000 to 0.0000 seconds per image (1.0 times as long)")
    empty = scored([None, None])
    assert Judged("a", [], "", "test", 0, empty, views=BOTH, plain=empty).gain == ""
    plain = Judged("a", [], "", "test", 0, empty)
    assert plain.gain == "" and plain.views == PLAIN and plain.kept == {}
    assert "plain" not in plain.to_json() and plain.to_json()["gain"] == ""


def test_a_threshold_stands_among_the_values() -> None:
    one = Judged("a", [], "", "test", 0, scored([0.5]), threshold=Threshold(0.25, 0.75, 3, 0.5))
    values = one.to_json()
    assert values["iou_at_validation_threshold"] == 0.5
    assert values["validation_threshold"] == {"value": 0.25, "iou": 0.75, "n": 3, "at_half": 0.5}


# ---- any method's maps ---------------------------------------------------------------------------


def pictures(folder: Path, **values: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        Image.fromarray(np.asarray(value, np.uint8)).save(folder / f"{name}.png")


def test_maps_of_several_sets_lie_in_a_folder_each_or_all_in_one(tmp_path: Path) -> None:
    """In the pond's own folder they are right, beside it they are wrong."""
    mask = np.zeros((8, 10), np.uint8)
    mask[2:6, 1:5] = 255
    pictures(tmp_path / "GT", a=mask, b=mask)
    pictures(tmp_path / "Imgs", a=np.zeros((8, 10, 3)), b=np.zeros((8, 10, 3)))
    pairs = [
        Pair(name, tmp_path / "Imgs" / f"{name}.png", tmp_path / "GT" / f"{name}.png", "x")
        for name in "ab"
    ]
    like = [
        Judged("pond", pairs[:1], "test split", "test", 3, scored([0.5])),
        Judged("sea", pairs, "all images", "all", 4, scored([0.5, 0.5])),
    ]
    maps, told = tmp_path / "maps", []
    pictures(maps, a=255 - mask, b=mask)
    pictures(maps / "pond", a=mask)
    pond, sea = judge_maps(maps, like, progress=lambda *now: told.append(now))
    assert (pond.scores.mean["iou"], sea.scores.mean["iou"]) == (1.0, 0.5)
    assert told == [(1, 1), (1, 2), (2, 2)]
    note = "on the same images; what trained them is not known"
    assert (pond.name, pond.pairs, pond.note, pond.split, pond.trained) == (
        *("pond", pairs[:1], f"maps in {maps / 'pond'}, {note}", "test", 0),
    )
    assert (sea.name, sea.pairs, sea.note, sea.split, sea.trained) == (
        *("sea", pairs, f"maps in {maps}, {note}", "all", 0),
    )
    assert [one.scores.n for one in judge_maps(maps, like)] == [1, 2]


# ---- what is asked of whom -----------------------------------------------------------------------


def finished(folder: Path, **summary: Any) -> Run:
    run = Run(folder)
    folder.mkdir(parents=True)
    run.save_config(make_config("tiny"))
    run.save_json("summary", summary)
    return run


def test_each_set_is_scored_as_it_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, told = finished(tmp_path / "run"), []
    sets = [Chosen(name, [name], f"of {name}", "test", 2) for name in ("one", "two")]  # type: ignore[list-item]

    def chosen(*words: Any) -> Any:
        told.append(("sets", *words))
        return ["folder"], sets

    def evaluated(*words: Any, **how: Any) -> str:
        told.append(("scores", *words, how))
        return f"{words[1]} {how.get('views')}"

    def threshold(*words: Any, **how: Any) -> str:
        told.append(("threshold", *words, how))
        return "limit"

    monkeypatch.setattr(judging, "chosen_sets", chosen)
    monkeypatch.setattr(judging, "evaluate", evaluated)
    monkeypatch.setattr(judging, "validation_threshold", threshold)
    monkeypatch.setattr(judging, "open_predictor", lambda *of: ("net", *of))
    found = judge(run, "data")
    net, reading = ("net", run, "auto", "best"), Reading()
    once = {"views": PLAIN, "progress": None, "kept": {}}
    assert told == [
        ("sets", [run], "data", "auto", False, None),
        ("scores", net, ["one"], once),
        ("scores", net, ["two"], once),
    ]
    assert [(one.name, one.note, one.split, one.trained) for one in found] == [
        *[("one", "of one", "test", 2), ("two", "of two", "test", 2)]
    ]
    assert {(one.plain, one.threshold, one.views) for one in found} == {(None, None, PLAIN)}
    told.clear()
    how: dict[str, Any] = {"split": "all", "noncam": True, "reading": reading, "device": "cpu"}
    more: dict[str, Any] = {"which": "last", "views": BOTH, "threshold": True, "progress": print}
    one, _ = judge(str(run.folder), ["data"], **how, **more)
    (_, (own,), *asked), limit, first, plain, *_ = told
    assert own.folder == run.folder and asked == [["data"], "all", True, reading]
    net = ("net", own, "cpu", "last")
    assert limit == ("threshold", own, ["folder"], {"views": BOTH, "predictor": net})
    assert first == ("scores", net, ["one"], {"views": BOTH, "progress": print, "kept": {}})
    assert plain == ("scores", net, ["one"], {"progress": print})
    assert one.scores == f"['one'] {BOTH}" and one.plain == "['one'] None"
    assert (one.views, one.threshold) == (BOTH, "limit")


def test_folders_are_chosen_from_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = finished(tmp_path / "run"), []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    def choose(*words: Any) -> list[Chosen]:
        asked.append(words)
        return [Chosen(f"{words[1].name}{n}", [], "", words[2], 0) for n in (1, 2)]

    monkeypatch.setattr(judging, "choose_pairs", choose)
    a, b = tmp_path / "a", tmp_path / "b"
    folders, found = chosen_sets([run], [str(a), b], "all", True, Reading())
    assert folders == [a, b] and [one.name for one in found] == ["a1", "a2", "b1", "b2"]
    assert asked == [([run], a, "all", True, Reading()), ([run], b, "all", True, Reading())]
    asked.clear()
    assert chosen_sets([run], str(a))[0] == chosen_sets([run], a)[0] == [a]
    assert asked == [([run], a, "auto", False, None)] * 2
    with pytest.raises(InputError) as caught:
        chosen_sets([run], [a, a])
    assert str(caught.value) == (
        "Two of the given folders hold a set called a1, a2: score them one at a time, so that no "
        "result stands under the other's name."
    )
    asked.clear()
    with pytest.raises(InputError):  # before any folder is looked through
        chosen_sets([run, Run(tmp_path / "none")], a)
    assert asked == []
    with pytest.raises(InputError, match="the data folder"):
        chosen_sets([run], "")


def test_a_threshold_is_that_of_the_best_mean_and_told_beside_one_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three images one has no object; at 51 / 255 the others have 0.5 on average."""
    run, told = finished(tmp_path / "run", data={"root": str(tmp_path)}), []
    scores = scored([0.2, 0.4, None])
    scores.curves["iou"][51] = 0.5
    scores.other.update(best_threshold=51 / 255, best_threshold_iou=0.5)

    def evaluated(*words: Any, **how: Any) -> Scores:
        told.append((*words, how))
        return scores

    def choose(*words: Any, **how: Any) -> list[Chosen]:
        told.append((*words, how))
        return [Chosen("x", ["pairs"], "", "validation", 0)]  # type: ignore[list-item]

    monkeypatch.setattr(judging, "evaluate", evaluated)
    monkeypatch.setattr(judging, "choose_pairs", choose)
    monkeypatch.setattr(judging, "open_predictor", lambda *of: ("net", *of))
    found = validation_threshold(run, str(tmp_path), device="cpu", views=BOTH, progress=print)
    assert found == (51 / 255, 0.5, 2, pytest.approx(0.3))
    assert told == [
        (run, tmp_path, "validation", {}),
        (("net", run, "cpu"), ["pairs"], {"views": BOTH, "progress": print}),
    ]
    told.clear()
    validation_threshold(run)
    assert told == [
        (run, tmp_path, "validation", {"noncam": False}),
        (("net", run, "auto"), ["pairs"], {"views": PLAIN, "progress": None}),
    ]
    told.clear()
    validation_threshold(run, predictor="mine")  # type: ignore[arg-type]
    assert told[1][0] == "mine"
    scores.other["best_threshold"] = None
    for other in ({"best_threshold_iou": 0.5}, {"best_threshold": 0.5, "best_threshold_iou": None}):
        scores.other.clear()
        scores.other.update(other)
        with pytest.raises(InputError) as caught:
            validation_threshold(run)
        assert str(caught.value) == (
            f"No validation image of {run.folder} has an object: no threshold is best."
        )


def test_where_held_out_images_are_nowhere_all_places_are_named_once(tmp_path: Path) -> None:
    def said(run: Run, *folders: str) -> str:
        with pytest.raises(InputError) as caught:
            validation_threshold(run, folders, device="cpu")
        start, listed, end = str(caught.value).partition("("), "", ""
        assert start[0] == (
            f"A threshold is chosen on the images that {run.folder} held out, and none of them is "
            "here "
        )
        listed, _, end = start[2].partition(")")
        assert end == (
            ". Give the data it was trained on too (--dataset-path), or leave out "
            "--validation-threshold."
        )
        return listed

    known = finished(tmp_path / "run", data={"root": "/not/here"})
    assert said(known, "/nor/there", "/not/here") == "/nor/there, /not/here"
    assert said(known) == "/not/here"
    assert said(known, "~/nothing") == f"{Path.home() / 'nothing'}, /not/here"
    assert said(finished(tmp_path / "other")) == "no folder was given"
    assert said(finished(tmp_path / "third", data={}), "", "/x") == "/x"


@pytest.mark.parametrize("amp", [False, True])
def test_a_network_is_opened_as_it_was_trained(
    amp: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = finished(tmp_path / "run"), []
    config = make_config("tiny").replace(img_size=96, batch_size=5, amp=amp)
    net, cpu = torch.nn.Identity(), torch.device("cpu")

    def load(run: Run, *words: Any) -> tuple[torch.nn.Module, Config]:
        asked.append((run.folder, *words))
        return net, config

    def precision(devices: Any, amp: bool) -> Any:
        return SimpleNamespace(dtype=(devices.main, amp))

    monkeypatch.setattr(judging, "load_run", load)
    monkeypatch.setattr(judging, "choose_precision", precision)
    for way in (run, run.folder, str(run.folder)):
        found = open_predictor(way, "cpu", "last")
        assert found == Predictor(net, 96, cpu, 5, (cpu, amp))  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert open_predictor(run).device == cpu
    assert asked == [(run.folder, "last", cpu)] * 3 + [(run.folder, "best", cpu)]
    with pytest.raises(InputError):
        open_predictor(tmp_path / "none", "cpu")
    assert len(asked) == 4


def test_the_data_to_look_at_are_those_wanted_those_trained_on_or_those_attached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []

    def find(folder: str, reading: Any = None) -> str:
        found.append((folder, reading))
        return f"found {folder}"

    monkeypatch.setattr(judging, "find_data", find)
    here = finished(tmp_path / "here", data={"root": str(tmp_path)})
    gone = finished(tmp_path / "gone", data={"root": str(tmp_path / "gone away")})
    new = finished(tmp_path / "new")
    assert data_of(here) == data_of(here, "", "attached") == str(tmp_path) and found == []
    assert data_of(gone) == str(tmp_path / "gone away") and found == []
    assert data_of(gone, attached="attached") == data_of(new, "", "attached") == "found attached"
    assert data_of(here, "wanted", "attached") == "found wanted"
    assert found == [("attached", None)] * 2 + [("wanted", Reading())]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "still",
            "has no summary.json: nothing was trained there, or it is still going on. Wait until "
            "it ends, name another run, or say where the images are.",
        ),
        (
            "another",
            "is not there: nothing was trained there, or it was deleted or moved. Train, name "
            "another run, or say where the images are.",
        ),
    ],
)
def test_a_run_that_does_not_know_its_images_says_what_to_do(
    name: str, why: str, tmp_path: Path
) -> None:
    (tmp_path / "still").mkdir()
    with pytest.raises(InputError) as caught:
        data_of(Run(tmp_path / name))
    assert str(caught.value) == f"{tmp_path / name} {why}"
