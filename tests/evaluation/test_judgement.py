"""What `judge` returns, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_nb import judge
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
