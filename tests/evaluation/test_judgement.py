"""What `judge` returns, by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from camoxpert_nb import judge
from camoxpert_nb.evaluation.judgement import Judgement, Scored
from camoxpert_nb.evaluation.metrics import MEASURES
from camoxpert_nb.evaluation.scores import Scores, build_scores
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.fit import fit


def test_scores_have_names_and_tables(tiny: Config, camouflage: Path) -> None:
    run = fit(tiny)
    scores = judge(str(run.folder), str(camouflage), device="cpu")
    (one,) = scores
    assert scores[0] is scores[one.name] is one
    assert scores.iou == one.iou == one.mean["iou"] == one.scores.mean["iou"]
    low, high = one.interval
    assert low <= one.iou <= high
    assert len(one.per_image) == one.scores.n == len(scores.per_image)
    assert set(scores.per_image["dataset"]) == {one.name}
    row = scores.table.loc[one.name]
    assert row["IoU"] == one.iou and row["IoU, 95 % from"] == low and row["to"] == high
    assert {"S-measure (S_alpha)", "MAE"} <= {*scores.table.columns}
    assert repr(scores) == f"{one.name}: IoU {one.iou:.3f} ({low:.3f} to {high:.3f}), {one.note}"
    shown = scores._repr_html_()
    assert f"{one.iou:.3f}" in shown and "test split; left out: 1 NonCAM test image" in shown
    with pytest.raises(KeyError, match=f"no set 'CAMO': {one.name}"):
        scores["CAMO"]


def scored(ious: list[float | None]) -> Scores:
    """Scores of images with these IoU (None: without an object); MAE is a tenth of it."""
    values = np.array([0.0 if iou is None else iou for iou in ious])
    rows = pd.DataFrame(dict.fromkeys(MEASURES, values)).assign(mae=values / 10)
    rows.insert(0, "name", [f"image-{number}" for number in range(len(rows))])
    rows["object_share"] = [0.0 if iou is None else 0.1 for iou in ious]
    rows = rows.assign(intersection=values, union=1.0, raw_mae=0.5, false_alarm=0.25)
    return build_scores(rows, dict.fromkeys(("e", "f", "iou"), np.repeat(values[:, None], 256, 1)))


class OneSet(Scored):
    def __init__(self, name: str, *ious: float | None) -> None:
        self.name, self.note, self.scores = name, f"of <{name}>", scored([*ious])


def test_sets_are_found_by_place_and_name_and_shown_as_a_table() -> None:
    pond, sea = OneSet("pond", 0.5, 0.5), OneSet("sea", 0.25, None)
    found = Judgement([pond, sea])
    assert found["sea"] is found[1] is found[-1] is sea and found[:1] == [pond]
    with pytest.raises(KeyError) as caught:
        found["lake"]
    assert caught.value.args == ("no set 'lake': pond, sea",)
    assert (found.iou, Judgement([]).iou) == (0.5, None)
    assert (pond.interval, sea.interval) == (pytest.approx((0.5, 0.5)), None)
    assert repr(found) == ("pond: IoU 0.500 (0.500 to 0.500), of <pond>\nsea: IoU 0.250, of <sea>")
    table = found.table
    assert table.index.name == "set" and table.index.tolist() == ["pond", "sea"]
    assert [*table][:6] == [
        *("images", "IoU", "IoU, 95 % from", "to", "Dice", "S-measure (S_alpha)")
    ]
    assert len([*table]) == 1 + 3 + 11 and table["images"].tolist() == [2, 2]
    assert table["IoU"].tolist() == [0.5, 0.25] and table["MAE"].tolist() == [0.05, 0.025]
    assert table["to"].isna().tolist() == [False, True]
    rows = found.per_image
    assert [*rows][:2] == ["dataset", "name"] and rows.index.tolist() == [0, 1, 2, 3]
    assert rows["dataset"].tolist() == ["pond", "pond", "sea", "sea"]
    assert rows["name"].tolist() == ["image-0", "image-1"] * 2


def test_a_notebook_shows_three_digits_and_the_notes_below() -> None:
    shown = Judgement([OneSet("pond", 0.5, 0.5), OneSet("sea", 0.25, None)])._repr_html_()
    assert shown.endswith("</table><p>pond: of &lt;pond&gt;</p><p>sea: of &lt;sea&gt;</p>")
    assert "<td>0.250</td>" in shown and "<td>0.025</td>" in shown and "<td>2</td>" in shown
    assert "<th>set</th>" not in shown
