"""Comparisons find what was planted, and nothing where nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation.compare import (
    PAIRED,
    Comparison,
    _several,
    _statement,
    ablation,
    ablation_text,
    aligned,
    compare,
    fewest,
    paired_differences,
    performance_table,
    run_performance,
)
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config

HARD = np.random.default_rng(9).beta(3, 1.5, 200)  # how easy each image is, for every network


def table(seed: int, gain: float = 0.0, n: int = 200) -> pd.DataFrame:
    noise = np.random.default_rng(seed).normal(gain, 0.05, n)
    rows = pd.DataFrame(dict.fromkeys((*PAIRED, "max_e", "max_f"), HARD[:n] + noise))
    rows["mae"] = 0.2 - 0.1 * (HARD[:n] + noise)
    rows.insert(0, "name", [f"image-{number:03}" for number in range(n)])
    return rows.assign(object_share=0.1)


def test_a_planted_difference_is_found() -> None:
    found = compare({"plain": table(1), "wide": table(2, gain=0.02)})
    row = found.differences.set_index("measure").loc["iou"]
    means = found.means["iou"]
    assert row["difference"] == pytest.approx(means["wide"] - means["plain"])
    assert 0 < row["low"] < row["difference"] < row["high"]
    assert "wide is better" in found.statements[0]
    assert "Another seed" in found.statements[0]
    worse = compare({"wide": table(2, gain=0.02), "plain": table(1)})
    assert "plain is worse" in worse.statements[0]


def test_a_difference_in_mae_has_the_sign_of_mae() -> None:
    rows = paired_differences(table(1), table(1, gain=0.1))
    assert {row["measure"]: np.sign(row["difference"]) for row in rows} == {
        name: -1 if name == "mae" else 1 for name in PAIRED
    }


def test_noise_is_called_a_difference_once_in_twenty_times() -> None:
    cried = 0
    for seed in range(60):
        row = paired_differences(table(seed), table(seed + 1000))[0]
        cried += not row["low"] <= 0 <= row["high"]
    assert cried <= 8
    assert "do not tell" in compare({"a": table(1), "b": table(1)}).statements[0]


def test_pairs_see_what_the_spread_between_images_would_hide() -> None:
    before, after = table(1), table(2, gain=0.02)
    row = paired_differences(before, after)[0]
    unpaired = np.hypot(before["iou"].sem(), after["iou"].sem())
    assert row["high"] - row["low"] < 2 * 1.96 * unpaired / 2


def test_three_runs_need_wider_intervals_than_two() -> None:
    runs = {"a": table(1), "b": table(2, 0.02), "c": table(3, 0.02)}
    three, two = compare(runs), compare({key: runs[key] for key in "ab"})
    width = [
        each.differences.iloc[0]["high"] - each.differences.iloc[0]["low"] for each in (three, two)
    ]
    assert width[0] > width[1]
    assert "97.5 % interval" in three.statements[0] and "95 % interval" in two.statements[0]
    assert len(three.statements) == 2


def test_order_does_not_matter_and_what_is_left_out_is_counted() -> None:
    a, b = table(1), table(2, gain=0.02).sample(frac=1, random_state=0)
    b = b[b["name"] != "image-007"]
    a.loc[a["name"].isin(["image-001", "image-002"]), "object_share"] = 0.0
    found = compare({"a": a, "b": b})
    assert found.n == 197
    reasons = {name: list(counts.values()) for name, counts in found.left_out.items()}
    assert reasons == {"a": [1, 2], "b": [0, 2]}
    assert "left out of a: 1 images that another run was not scored on" in found.summary()
    kept = b.set_index("name").drop(["image-001", "image-002"])["iou"].mean()
    assert found.means["iou"]["b"] == pytest.approx(kept)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="1 run to compare"):
        compare({"a": table(1)})
    with pytest.raises(InputError, match=r"b has 1 image names twice \(image-000\)"):
        compare({"a": table(1), "b": pd.concat([table(2), table(2)[:1]])})
    other = table(2).assign(name=lambda rows: "other-" + rows["name"])
    with pytest.raises(InputError, match=r"share 0 images.*image-000.*other-image-000"):
        compare({"a": table(1), "b": other})


def test_an_ablation_groups_runs_that_differ_in_their_seed_alone() -> None:
    base = {"width": 64, "num_experts": 7, "seed": 1, "checkpoint_dir": "a"}
    settings = {
        "a": base,
        "b": {**base, "seed": 2, "checkpoint_dir": "b"},
        "c": {**base, "num_experts": 1},
        "d": {**base, "seed": 3},
    }
    rows = ablation(settings, {"a": 0.5, "b": 0.6, "c": 0.4, "d": None}).set_index("settings")
    seven, one = rows.loc["num_experts 7"], rows.loc["num_experts 1"]
    assert (seven["runs"], seven["without a score"], seven["seeds"]) == (3, 1, "1, 2, 3")
    assert seven["mean"] == pytest.approx(0.55)
    assert seven["sd"] == pytest.approx(np.std([0.5, 0.6], ddof=1))
    assert (seven["lowest"], seven["highest"]) == (0.5, 0.6)
    assert one["mean"] == 0.4 and np.isnan(one["sd"])


@pytest.mark.parametrize("fold", ["", "2/5"])
def test_one_run_alone_is_a_group_of_one(fold: str) -> None:
    (row,) = ablation({"a": {"lr": 1, "seed": 3, "fold": fold}}, {"a": 0.5}).to_dict("records")
    assert (row["settings"], row["runs"], row["seeds"]) == ("all settings alike", 1, "3")
    assert row["mean"] == 0.5 and np.isnan(row["sd"])


def test_folds_of_as_many_parts_share_a_group() -> None:
    base = {"lr": 1, "seed": 1}
    folds = {name: {**base, "fold": name} for name in ("1/5", "2/5", "1/3", "")}
    rows = ablation(folds, dict.fromkeys(folds, 0.5)).set_index("settings")
    assert rows["runs"].to_dict() == {"fold 5": 2, "fold 3": 1, "fold ": 1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keep_best", 3),
        ("log", "tensorboard"),
        ("patience", 5),
        ("stop_at_target", True),
        ("join_minutes", 3.0),
        ("save_minutes", 1.0),
        ("gradient_checkpointing", True),
    ],
)
def test_what_a_run_keeps_and_when_it_ends_makes_no_other_training(name: str, value: Any) -> None:
    plain = Config()
    settings = {"a": plain.as_dict(), "b": plain.replace(**{name: value, "seed": 2}).as_dict()}
    assert settings["a"][name] != value
    assert ablation(settings, {"a": 0.5, "b": 0.6})["runs"].tolist() == [2]


def test_the_performance_table_is_measured_from_the_folders(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    with pytest.raises(InputError, match="no training has begun"):
        performance_table([run])
    run.save_json("config", {"batch_size": 8, "accumulation_steps": 1, "target_iou": 0.5})
    run.log("start", step=0, devices=["CPU"])
    speeds = {"images_per_second": 3.0, "data_wait_percent": 1.0}
    run.log("epoch", epoch=1, seconds=90.0, iou=0.6, iou_ema=None, **speeds)
    row = performance_table([run]).iloc[0]
    assert (row["run"], row["minutes per epoch"], row["effective batch"]) == (
        str(run.folder),
        "1.50",
        "8",
    )
    assert row["training time to IoU 0.5"] == "1.5 min (epoch 1)"


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_few_images_tell_nothing(n: int) -> None:
    (said,) = compare({"a": table(1, n=n), "b": table(1, gain=0.3, n=n)}).statements
    assert f"{n} images are too few to tell" in said and "6 images or more" in said
    assert "clear of 0" not in said


def test_six_images_that_agree_may_tell_but_seven_are_needed_for_two_comparisons() -> None:
    runs = {"a": table(1, n=6), "b": table(1, gain=0.3, n=6)}
    assert "clear of 0" in compare(runs).statements[0]
    three = compare({**runs, "c": table(1, gain=0.3, n=6)}).statements
    assert all("7 images or more" in said for said in three)


def test_images_that_trained_a_run_tell_nothing_about_it() -> None:
    runs = {"a": table(1), "b": table(2, gain=0.1)}
    (said,) = compare(runs, {"a": 0, "b": 12}).statements
    assert "WARNING: of these images 12 trained b" in said and "clear of 0" not in said
    assert "clear of 0" in compare(runs, {"a": 0, "b": 0}).statements[0]


def test_what_one_run_cannot_have_is_said_in_words() -> None:
    settings = {name: {"lr": lr, "seed": seed} for name, lr, seed in (("a", 1, 1), ("b", 1, 2))}
    settings |= {"c": {"lr": 2, "seed": 1}, "d": {"lr": 3, "seed": 1}}
    text = ablation_text(ablation(settings, {"a": 0.5, "b": 0.6, "c": 0.4, "d": None}))
    assert "NaN" not in text and "sd" not in text.split()
    assert text.count("one run") == 2 and "0.0707" in text and "none yet" in text
    full = ablation_text(ablation(settings, {"a": 0.5, "b": 0.6, "c": 0.4, "d": 0.1}))
    assert "without a score" not in full


def test_a_comparison_has_the_fields_names_and_no_code_words() -> None:
    said = compare({"a": table(1), "b": table(1, 0.05)}).summary()
    assert "S-measure (S_alpha)" in said and "weighted F" in said
    assert "_measure" not in said and "ablation" not in said and "--seed" in said


def test_an_interval_wider_than_95_percent_says_why() -> None:
    assert _several(0.95) == ""
    assert "all 2 comparisons hold at once" in _several(0.975)
    assert "all 9 comparisons" in _several(1 - 0.05 / 9)


def test_a_table_of_many_runs_is_broken_into_several(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({f"runs/{place}/seed-1": [0.5, 0.25] for place in "abcdefgh"})
    frame.index = pd.Index(["IoU", "MAE"])
    monkeypatch.setattr("camoxpert_nb.evaluation.compare.room", lambda: 60)
    text = aligned(frame)
    assert (
        max(map(len, text.split("\n"))) <= 60 and text.count("IoU") == len(text.split("\n\n")) > 1
    )
    assert text.count("0.5000") == 8


def test_the_devices_are_those_of_the_last_stretch(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.save_json("config", Config().as_dict())
    for devices in (["CPU"], ["GPU 0", "GPU 1"]):
        run.log("start", step=0, devices=devices)
    assert run_performance(run)["devices"] == ["GPU 0", "GPU 1"]


def test_how_many_must_agree_before_chance_is_out() -> None:
    """Five of five agree once in 16 times, six of six once in 32: that is under 5 %."""
    assert [fewest(each) for each in (0.95, 0.9375, 0.975, 0.99)] == [6, 5, 7, 8]


def test_statements_name_the_images_that_were_compared() -> None:
    few = {"a": table(1, n=5), "b": table(2, gain=0.5, n=5)}
    (said,) = compare(few).statements
    assert "5 images are too few" in said and "once in 16 times" in said and "6 images" in said
    shared = {"a": table(1, n=30), "b": table(2, gain=0.5, n=20)}
    assert "on average over 20 images in pairs" in compare(shared).statements[0]
    four = {name: table(place, n=30) for place, name in enumerate("abcd")}
    assert "98.3 % interval" in compare(four).statements[0]  # 1 - .05 / 3


# ---- sentences, by hand --------------------------------------------------------------------------


def row(run: str, gain: float, low: float, high: float) -> dict[str, Any]:
    return {"run": run, "measure": "iou", "difference": gain, "low": low, "high": high}


START = "b against a: IoU +0.0500 on average over 40 images in pairs (95 % interval "


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            row("b", 0.05, 0.0, 0.1),
            f"{START}+0.0000 to +0.1000, paired bootstrap). The interval holds 0: these images do "
            "not tell which of the two is better.",
        ),
        (
            row("b", 0.05, -0.1, 0.0),
            f"{START}-0.1000 to +0.0000, paired bootstrap). The interval holds 0: these images do "
            "not tell which of the two is better.",
        ),
        (
            row("b", 0.05, 0.01, 0.1),
            f"{START}+0.0100 to +0.1000, paired bootstrap). The interval is clear of 0: b is "
            "better on images of this kind. Another seed can still move a mean as much: train both "
            "again with --seed 1 and 2, and compare all.",
        ),
    ],
)
def test_a_statement_says_what_the_interval_tells(found: dict[str, Any], said: str) -> None:
    assert _statement("a", found, 40, 0.95, {}) == said


def test_a_statement_says_worse_of_what_is_worse_and_why_it_is_wider() -> None:
    assert _statement("a", row("b", -0.05, -0.1, -0.01), 40, 0.975, {"c": 7}) == (
        "b against a: IoU -0.0500 on average over 40 images in pairs (97.5 % interval -0.1000 to "
        "-0.0100, paired bootstrap; wider than 95 %, so that all 2 comparisons hold at once in 95 "
        "% of cases). The interval is clear of 0: b is worse on images of this kind. Another seed "
        "can still move a mean as much: train both again with --seed 1 and 2, and compare all."
    )


def test_a_statement_warns_before_it_says_anything_else() -> None:
    trained = {"a": 3, "b": 12, "c": 5}
    start = "b against a: IoU +0.0500 on average over 5 images in pairs (95 % interval +0.0100 to "
    assert _statement("a", row("b", 0.05, 0.01, 0.1), 5, 0.95, trained) == (
        f"{start}+0.1000, paired bootstrap). WARNING: of these images 3 trained a, 12 trained b: "
        "this says nothing about new ones."
    )
    assert _statement("a", row("b", 0.05, 0.01, 0.1), 5, 0.95, {"b": 0}) == (
        f"{start}+0.1000, paired bootstrap). 5 images are too few to tell: even if all of them "
        "agree, chance alone does so once in 16 times. Compare on 6 images or more."
    )


def test_a_comparison_is_told_with_its_means_and_what_was_left_out() -> None:
    means = pd.DataFrame({"iou": {"a": 0.5, "b": 0.25}, "mae": {"a": 0.125, "b": 0.0}})
    gone = {"a": {"new": 0, "empty": 2}, "b": {"new": 1, "empty": 2}}
    found = Comparison(1, means, pd.DataFrame(), ["b is worse."], gone)
    assert found.summary().split("\n") == [
        "1 shared image",
        "          a       b",
        "IoU  0.5000  0.2500",
        "MAE  0.1250  0.0000",
        "b is worse.",
        "left out of a: 2 empty",
        "left out of b: 1 new",
        "left out of b: 2 empty",
    ]
    assert found._replace(n=1234).summary().startswith("1,234 shared images\n")


def test_what_was_left_out_is_counted_by_its_reason() -> None:
    a, b = table(1, n=30), table(2, n=40)
    a.loc[:2, "object_share"] = 0.0
    found = compare({"a": a, "b": b})
    new, empty = "images that another run was not scored on", "images without an object"
    assert found.left_out == {"a": {new: 0, empty: 3}, "b": {new: 10, empty: 3}}
    assert found.n == 27 and [*found.means.index] == ["a", "b"]
    assert [*found.differences] == ["run", "measure", "difference", "low", "high"]
    assert found.differences["run"].tolist() == ["b"] * len(PAIRED)
    assert found.differences["measure"].tolist() == [*PAIRED]


def test_two_shared_images_are_enough_to_be_compared_and_one_is_not() -> None:
    one, two = table(1, n=1), table(1, n=2)
    assert compare({"a": two, "b": two}).n == 2
    with pytest.raises(InputError) as caught:
        compare({"a": two, "b": one})
    assert str(caught.value) == (
        "The runs share 1 images with an object (a: image-000, image-001; b: image-000). Score "
        "them on the same data set, and on images that none of them trained on."
    )
    with pytest.raises(InputError) as caught:
        compare({"a": two})
    assert str(caught.value) == "1 run to compare. Give two or more, by different names."
    with pytest.raises(InputError) as caught:
        compare({"a": pd.concat([two, two, two]), "b": two})
    assert str(caught.value) == (
        "a has 2 image names twice (image-000, image-001): compare one set at a time."
    )


def test_a_difference_is_after_less_before_with_bounds_as_wide_as_asked() -> None:
    """Half of 100 images gain 0.2, half lose 0.1: the error of the mean 0.05 is 0.15 / 10."""
    before = table(1, n=100)
    after = before.copy()
    after["iou"] += np.where(np.arange(100) % 2, 0.2, -0.1)
    iou, *others = paired_differences(before, after)
    assert iou["measure"] == "iou" and iou["difference"] == pytest.approx(0.05)
    assert (iou["low"], iou["high"]) == pytest.approx((0.05 - 0.0294, 0.05 + 0.0294), abs=0.004)
    assert {each["difference"] for each in others} == {0.0} and len(others) == len(PAIRED) - 1
    wide = paired_differences(before, after, 0.99)[0]
    assert (wide["low"], wide["high"]) == pytest.approx((0.05 - 0.0386, 0.05 + 0.0386), abs=0.006)


def test_paths_of_one_place_are_one_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = {"dataset_path": "data", "seed": 1, "lr": 1, "fold": ""}
    other = {**base, "dataset_path": str(tmp_path / "data"), "seed": 2}
    third = {**base, "dataset_path": "", "lr": 2}
    rows = ablation({"a": base, "b": other, "c": third}, {"a": 0.5, "b": 0.25, "c": None})
    assert rows["settings"].tolist() == [
        f"dataset_path {tmp_path / 'data'}, lr 1",
        "dataset_path , lr 2",
    ]
    assert [*rows] == [
        *("settings", "runs", "without a score", "seeds", "mean", "sd", "lowest", "highest")
    ]
    assert rows.iloc[0].tolist()[1:5] == [2, 0, "1, 2", 0.375]
    assert rows.iloc[1].tolist()[1:4] == [1, 1, "1"]


def groups() -> pd.DataFrame:
    known = {"runs": [2, 1], "without a score": [0, 1], "seeds": ["1, 2", "1"]}
    nothing = float("nan")
    numbers = {"mean": [0.375, nothing], "sd": [0.125, nothing]}
    return pd.DataFrame(
        {"settings": ["lr 1", "lr 2"], **known, **numbers}
        | {"lowest": [0.25, nothing], "highest": [0.5, nothing]}
    )


def test_groups_are_told_in_words() -> None:
    assert ablation_text(groups()).split("\n") == [
        "settings  runs  without a score  seeds      mean  standard deviation    lowest   highest",
        "lr 1         2                0   1, 2    0.3750              0.1250    0.2500    0.5000",
        "lr 2         1                1      1  none yet             one run  none yet  none yet",
    ]
    assert ablation_text(groups()[:1]).split("\n") == [
        "settings  runs  seeds    mean  standard deviation  lowest  highest",
        "lr 1         2   1, 2  0.3750              0.1250  0.2500   0.5000",
    ]


@pytest.mark.parametrize(("most", "listed"), [(0, False), (9, False), (8, True)])
def test_settings_that_take_half_of_the_terminal_are_listed_above(
    most: int, listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camoxpert_nb.evaluation.compare.room", lambda: most)
    lines = ablation_text(groups()).split("\n")
    assert (lines[:2] == ["1: lr 1", "2: lr 2"]) is listed
    if listed:
        assert lines[2].startswith("settings") and lines[3].startswith("1 ")


def test_a_table_has_four_digits_and_texts_as_they_are() -> None:
    frame = pd.DataFrame({"x": [0.5, 2.0], "y": ["many", 3]}, index=pd.Index(["a", "b"], name="n"))
    assert aligned(frame).split("\n") == ["n       x     y", "a  0.5000  many", "b  2.0000     3"]


def test_a_run_that_never_began_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run_performance(Run(tmp_path))
    assert str(caught.value) == f"{tmp_path}: no training has begun here. Give a run folder."
