"""Published rows and the refusals to stand beside them."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pandas as pd
import pytest

from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation.metrics import MEASURES
from camoxpert_nb.evaluation.published import (
    COLUMNS,
    TEST_IMAGES,
    compared_with_published,
    published,
    why_not_comparable,
)
from camoxpert_nb.evaluation.scores import Scores, build_scores
from camoxpert_nb.figures.results import show_among_published


@cache
def scores(n: int = 76, s: float = 0.89, name: str = "animal", empty: int = 0) -> Scores:
    values = np.clip(np.random.default_rng(0).normal(s, 0.05, n), 0, 1)
    rows = pd.DataFrame(dict.fromkeys(MEASURES, values))
    rows.insert(0, "name", [f"{name}-{number}" for number in range(n)])
    rows["object_share"] = np.where(np.arange(n) < empty, 0.0, 0.1)
    rows = rows.assign(intersection=values, union=1.0, raw_mae=0.0, false_alarm=0.0)
    return build_scores(rows, dict.fromkeys(("e", "f", "iou"), values[:, None]))


@pytest.mark.parametrize("dataset", TEST_IMAGES)
def test_every_row_has_a_source_and_believable_numbers(dataset: str) -> None:
    rows = published(dataset)
    assert len(rows) > 20
    assert (rows["source"].str.len() > 10).all()
    assert rows["method"].str.len().min() > 0
    assert rows["s_measure"].between(0.7, 0.95).all()
    known = rows[list(COLUMNS)].stack().dropna()
    assert known.between(0.005, 0.98).all()
    assert (rows["mae"].dropna() < 0.12).all()
    assert (rows["s_measure"] > rows["weighted_f"].fillna(0)).all()
    assert not rows.duplicated(["method", "backbone", "source"]).any()


def test_better_methods_err_less() -> None:
    for dataset in TEST_IMAGES:
        rows = published(dataset)
        assert rows["s_measure"].corr(rows["mae"]) < -0.9  # a slipped digit would break it
        assert rows["s_measure"].corr(rows["weighted_f"]) > 0.85


def test_a_known_row_is_read_as_printed() -> None:
    rows = published("COD10K").set_index("method")
    row = rows.loc["CamoFormer-P"]
    assert (row["s_measure"], row["weighted_f"], row["mae"]) == (0.869, 0.786, 0.023)
    assert (row["adaptive_e"], row["mean_e"], row["max_e"]) == (0.931, 0.932, 0.939)
    assert row["backbone"] == "PVTv2-B4"


def test_the_run_stands_where_its_s_measure_puts_it() -> None:
    found = scores()
    table = compared_with_published(found, "CHAMELEON", backbone="edgenext_base", input_size="320")
    assert len(table) == len(published("CHAMELEON")) + 1
    assert table["s_measure"].is_monotonic_decreasing
    row = table[table["method"] == "this run"].iloc[0]
    assert row["s_measure"] == found.mean["s_measure"]
    assert (row["low"], row["high"]) == found.interval["s_measure"]
    assert table[table["method"] != "this run"]["low"].isna().all()


def test_the_figure_shows_the_rows_of_the_table() -> None:
    table = compared_with_published(scores(), "CHAMELEON")
    ax = show_among_published(table).axes[0]
    others, own = ax.lines[0].get_xdata(), ax.lines[1].get_xdata()
    place = int(table.index[table["method"] == "this run"][0])
    assert list(own) == [table["s_measure"][place]]
    assert sorted([*others, *own], reverse=True) == list(table["s_measure"])
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[place] == "this run"
    assert "n = 76" in ax.figure.get_suptitle()


@pytest.mark.parametrize(
    ("found", "dataset", "more", "words"),
    [
        (scores(75), "CHAMELEON", {}, "75 images were scored, but CHAMELEON's test set has 76"),
        (scores(2026), "NC4K", {}, "2026 images were scored, but NC4K's test set has 4,121"),
        (scores(), "CAMO-Train", {}, "'CAMO-Train' is no test set with published numbers"),
        (scores(), "CHAMELEON", {"split": "validation"}, "held out for validation"),
        (scores(), "CHAMELEON", {"trained": 3}, "3 of the 76 scored images trained this network"),
        (scores(empty=4), "CHAMELEON", {}, "4 images without object are among the 76"),
        (scores(4000, name="COD10K-NonCAM-1-Aquatic"), "COD10K", {}, "4000 NonCAM images are"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(
    found: Scores, dataset: str, more: dict, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        compared_with_published(found, dataset, **more)
    assert words in why_not_comparable(found, dataset, **more)


def test_the_fields_own_overlap_of_two_images_is_no_reason_to_refuse() -> None:
    found = dataclasses.replace(scores(), n=2026)
    assert why_not_comparable(found, "COD10K", trained=2) is None
    assert why_not_comparable(found, "COD10K", trained=3) is not None
    assert why_not_comparable(scores(), "CHAMELEON", split="all") is None


def test_an_unknown_set_has_no_rows() -> None:
    with pytest.raises(InputError, match=r"'MAS3K'.*CAMO, CHAMELEON"):
        published("MAS3K")


SAID = {
    "unknown": (
        {"dataset": "sea"},
        "'sea' is no test set with published numbers here (CAMO, CHAMELEON, COD10K, NC4K), so "
        "there is nothing to compare with.",
    ),
    "validation": (
        {"split": "validation"},
        "The scored images are those the run held out for validation, and it chose its best "
        "weights on them; published numbers are of CHAMELEON's test split. Score that with --split "
        "test.",
    ),
    "trained": (
        {"trained": 1},
        "1 of the 76 scored images trained this network, so its numbers are too good. Train "
        "without them.",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_a_reason_is_a_whole_sentence(case: str) -> None:
    how, said = SAID[case]
    assert why_not_comparable(scores(), **{"dataset": "CHAMELEON"} | how) == said


def test_reasons_about_the_images_count_them() -> None:
    assert why_not_comparable(scores(75), "CHAMELEON") == (
        "75 images were scored, but CHAMELEON's test set has 76: means over other images cannot be "
        "compared. Score all of the test set and nothing else."
    )
    assert why_not_comparable(scores(empty=4), "CHAMELEON") == (
        "4 images without object are among the 76 scored, but the field scores CHAMELEON without "
        "them: they change every mean. Score without --noncam."
    )
    found = scores(3, name="COD10K-NONCAM-1", empty=2)
    assert why_not_comparable(found, "COD10K") == (
        "3 NonCAM images are among the 3 scored, but the field scores COD10K without them: they "
        "change every mean. Score without --noncam."
    )
    assert why_not_comparable(scores(), "CHAMELEON", trained=0) is None


def test_the_run_is_a_row_under_its_own_name() -> None:
    found = scores()
    with_all = {"name": "mine", "backbone": "resnet50", "input_size": "352"}
    for how, said in ((with_all, ("mine", "resnet50", "352")), ({}, ("this run", "", ""))):
        table = compared_with_published(found, "CHAMELEON", **how)
        row = table[table["source"] == "this run"].iloc[0]
        assert (row["method"], row["backbone"], row["input_size"]) == said
        assert row["dataset"] == "CHAMELEON"
        assert [row[name] for name in COLUMNS] == [found.mean[name] for name in COLUMNS]
    assert table.index.tolist() == [*range(len(published("CHAMELEON")) + 1)]
    alone = dataclasses.replace(found, interval={"s_measure": None})
    table = compared_with_published(alone, "CHAMELEON")
    assert table["low"].isna().all() and table["high"].isna().all()


def test_published_rows_are_numbered_and_unknown_sizes_are_empty_texts() -> None:
    rows = published("CAMO")
    assert rows.index.tolist() == [*range(len(rows))] and {*rows["dataset"]} == {"CAMO"}
    assert all(isinstance(each, str) for each in rows["input_size"])
    assert {str(rows[name].dtype) for name in COLUMNS} == {"float64"}
    with pytest.raises(InputError) as caught:
        published("sea")
    said = "No published rows for 'sea'. Known: CAMO, CHAMELEON, COD10K, NC4K."
    assert str(caught.value) == said
