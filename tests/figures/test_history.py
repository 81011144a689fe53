from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from camoxpert_nb.data.images import image_size
from camoxpert_nb.errors import InputError
from camoxpert_nb.figures.canvas import Picture, draw_table, save
from camoxpert_nb.figures.experts import show_experts
from camoxpert_nb.figures.history import show_history
from camoxpert_nb.figures.style import TERMS, loss_name
from camoxpert_nb.settings.config import EXPERTS


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """No figure stays open in pyplot and no global style changes; each is checked after a test."""
    style = dict(mpl.rcParams)
    yield
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == style


def record(epoch: int, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "epoch",
        "epoch": epoch,
        "stage": "one" if epoch <= 2 else "two",
        "loss": 2 / epoch,
        "structure": 1.5 / epoch,
        "deep": 0.4 / epoch,
        "uncertainty": 0.5,
        "balance": 1 / epoch,
        "weighted": {
            "structure": 1.5 / epoch,
            "deep": 0.4 / epoch,
            "uncertainty": 0.0,
            "balance": 0.1 / epoch,
        },
        "val_loss": 1.6 / epoch,
        "train_iou": 0.15 * epoch,
        "iou": 0.1 * epoch,
        "iou_ema": 0.1 * epoch + 0.02,
        "lr": {"head": 1e-3 / epoch, "backbone": 0.0 if epoch <= 2 else 1e-4 / epoch},
        "images_per_second": 50.0 + epoch,
        "data_wait_percent": 2.0,
        "gates": [[0.5, 0.25, 0.25], [0.1, 0.6, 0.3]],
    } | changes


def panel(figure: Figure, title: str) -> Axes:
    return next(ax for ax in figure.axes if ax.get_title(loc="left").startswith(title))


def line(ax: Axes, label: str) -> tuple[list[float], list[float]]:
    found = next(each for each in ax.lines if str(each.get_label()).startswith(label))
    return list(found.get_xdata()), list(found.get_ydata())


def words(figure: Figure) -> str:
    texts = figure.findobj(Text)
    return "\n".join(text.get_text() for text in texts)


def draw(figure: Figure) -> None:
    """Render: layout and ticks are worked out only then, and warnings are errors here."""
    figure.savefig(io.BytesIO(), format="png", dpi=50)


def test_history_draws_what_was_recorded() -> None:
    records = [record(epoch) for epoch in range(1, 6)]
    figure = show_history(records, target=0.72, title="demo")
    draw(figure)
    losses = panel(figure, "Training and validation loss")
    assert line(losses, "loss, the sum") == ([1, 2, 3, 4, 5], [2 / epoch for epoch in range(1, 6)])
    terms = [*set(TERMS) - {"uncertainty"}]  # it weighs nothing
    labels = {str(each.get_label()) for each in losses.lines}
    assert labels == {"loss, the sum", "structure, validation", *terms}
    total = sum(np.array(next(y for x, y in [line(losses, term)])) for term in terms)
    np.testing.assert_allclose(total, line(losses, "loss, the sum")[1])
    assert line(losses, "structure, validation")[1] == [1.6 / epoch for epoch in range(1, 6)]
    score = panel(figure, "Validation and training IoU")
    assert line(score, "training")[1] == pytest.approx([0.15 * epoch for epoch in range(1, 6)])
    assert line(score, "raw")[1] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert line(score, "averaged")[1] == pytest.approx([0.12, 0.22, 0.32, 0.42, 0.52])
    assert line(score, "best") == ([5], pytest.approx([0.52]))
    assert line(score, "target 0.72")[1] == [0.72, 0.72]
    rates = panel(figure, "Learning rate")
    assert rates.get_yscale() == "log"
    assert np.isnan(line(rates, "backbone")[1]).tolist() == [True] * 3 + [False] * 4
    assert line(rates, "backbone")[0] == [1, 2, 2, 2, 3, 4, 5]  # upright where stage two begins
    assert "demo: 5 epochs" in words(figure)
    assert "mean over the validation images" in words(figure)
    for stage in ("stage one", "stage two"):
        assert stage in words(figure)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("dice", "dice"),
        ("loss", "your own loss"),
        ("_dice", "your own _dice"),
        ("deep", "your own deep"),
        ("<lambda in line 3 of a.py>", "<lambda in line 3 of a.py>"),
    ],
)
def test_an_own_loss_has_its_name_in_the_curves(name: str, label: str) -> None:
    figure = show_history([record(1), record(2)], loss=loss_name({"loss": name}))
    draw(figure)
    loss = figure.axes[0]
    shown = [text.get_text() for text in loss.get_legend().get_texts()]
    assert label in shown and f"{label}, validation" in shown
    assert not [text for text in shown if "structure" in text]
    assert loss_name({}) == loss_name({"augment": "flips"}) == "structure"


def test_the_learning_rate_runs_within_the_epoch() -> None:
    records = [record(epoch, step=10 * epoch) for epoch in range(1, 4)]
    steps = [
        {"step": step, "steps": 30, "lr": {"head": step * 1e-4, "backbone": 0.0}}
        for step in range(1, 34, 2)  # the last were taken after the last epoch's end
    ]
    figure = show_history(records, steps=steps)
    draw(figure)
    x, y = line(panel(figure, "Learning rate"), "head")
    assert x == pytest.approx([step / 10 for step in range(1, 30, 2)])
    assert y == pytest.approx([step * 1e-4 for step in range(1, 30, 2)])


@pytest.mark.parametrize("within", [True, False])
def test_panels_have_one_axis_and_a_rate_jumps_where_its_stage_begins(within: bool) -> None:
    records = [record(epoch, step=2 * epoch) for epoch in range(1, 5)]
    steps = [
        {**records[(step - 1) // 2], "step": step, "steps": 8, "lr": {"head": rate}}
        for step, rate in enumerate([1e-3] * 4 + [1e-5, 2e-5, 3e-5, 4e-5], 1)
    ]
    for each, last in zip(records, steps[1::2], strict=True):
        each["lr"] = last["lr"]
    figure = show_history(records, steps=steps if within else ())
    draw(figure)
    assert len({ax.get_xlim() for ax in figure.axes}) == 1
    assert figure.axes[0].get_xlim()[0] == 0
    rates = panel(figure, "Learning rate")
    (band,) = rates.patches
    x, y = line(rates, "head")
    (jump,) = (i for i in range(len(y) - 1) if y[i] > 10 * y[i + 1])
    assert x[jump] == x[jump + 1] == band.get_x() == 2
    assert (y[jump], y[jump + 1]) == (1e-3, 1e-5 if within else 2e-5)


def test_names_of_stages_keep_apart() -> None:
    names = ["one", "two (block 4)", "two (block 3)", "two (block 2)", "two (all)"]
    ends = [2, 3, 4, 6, 60]
    records = [record(e, stage=names[[e <= end for end in ends].index(True)]) for e in range(1, 61)]
    figure = show_history(records)
    draw(figure)
    first = figure.axes[0]
    (top,) = (ax for ax in first.child_axes)
    labels = top.get_xticklabels()
    boxes = [label.get_window_extent() for label in labels]
    rows = [label.get_text().count("\n") for label in labels]
    for row in set(rows):
        line = [box for box, its in zip(boxes, rows, strict=True) if its == row]
        assert all(a.x1 + 3 < b.x0 for a, b in pairwise(line))
    assert rows[-1] == 0 and max(rows) > 0


def test_expert_shares_are_stacked_to_a_hundred_per_cent() -> None:
    figure = show_history([record(1), record(2)])
    steps = panel(figure, "Expert share").patches
    assert [each.get_label() for each in steps[:3]] == list(EXPERTS[:3])
    tops = np.array([each.get_data().values for each in steps[:3]])
    floors = np.array([each.get_data().baseline for each in steps[:3]])
    assert tops[:, 0] == pytest.approx([30, 72.5, 100])  # 30, 42.5, 27.5: mean of two stages
    np.testing.assert_allclose(floors[1:], tops[:-1])
    np.testing.assert_allclose(steps[0].get_data().edges, [0, 1, 2])


def test_stages_are_shaded_where_they_lie() -> None:
    figure = show_history([record(epoch) for epoch in range(1, 6)])
    (band,) = panel(figure, "Training speed").patches  # every second stage: "all", epochs 3 to 5
    assert (band.get_x(), band.get_x() + band.get_width()) == (2, 5)


@pytest.mark.parametrize("count", [0, 1, 140])
def test_history_copes_with_any_length(count: int) -> None:
    figure = show_history([record(epoch) for epoch in range(1, count + 1)], title="run")
    draw(figure)
    assert "run" in words(figure)
    assert ("No epoch has ended yet" in words(figure)) == (count == 0)


def test_records_of_an_older_kit_show_the_terms_that_stand_for_themselves() -> None:
    old = [record(1), record(2)]
    for each in old:
        for name in ("weighted", "val_loss", "train_iou"):
            del each[name]
    figure = show_history(old)
    draw(figure)
    assert [each.get_label() for each in panel(figure, "Training and validation loss").lines] == [
        "loss, the sum",
        "structure",
    ]
    assert "training, as augmented" not in words(figure)


def test_a_loss_that_ran_away_does_not_hide_the_rest() -> None:
    figure = show_history([record(1), record(2, loss=float("inf"), structure=float("nan"))])
    draw(figure)
    assert panel(figure, "Training and validation loss").get_ylim() == (0, pytest.approx(1.08 * 2))


def test_history_says_what_is_missing() -> None:
    bare = show_history([{"epoch": 1}, {"epoch": 2}])
    draw(bare)
    assert words(bare).count("not recorded") == 6
    first = {"epoch": 1, "iou": 0.0, "iou_ema": None, "lr": None, "gates": None}
    partly = show_history([first, record(2, iou_ema=None, train_iou=None)])
    draw(partly)
    labels = [each.get_label() for each in panel(partly, "Validation").lines]
    assert labels == ["raw weights", "best, epoch 2: 0.2"]
    assert np.isnan(line(panel(partly, "Training and validation loss"), "deep")[1][0])


def test_experts_are_averaged_over_images() -> None:
    gates = np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.7, 0.3]]])
    figure = show_experts(gates, ("left", "right"))
    draw(figure)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[50, 50], [60, 40]])
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), [[50, 50], [100, 0]])
    for text in ("left", "right", "stride 16", "n = 2", "60"):
        assert text in words(figure)
    with pytest.raises(InputError, match="one name per expert"):
        show_experts(gates)


def test_experts_by_group_are_means_over_its_images_and_stages() -> None:
    gates = np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.6, 0.4]], [[0.0, 1.0], [0.0, 1.0]]])
    figure = show_experts(gates, ("left", "right"), groups={"small": [0], "large": [1, 2]})
    draw(figure)
    weight, leads = (ax.images[0].get_array() for ax in figure.axes)
    np.testing.assert_allclose(weight, [[75, 25], [15, 85]])
    np.testing.assert_allclose(leads, [[100, 0], [25, 75]])
    assert "large (n = 2)" in words(figure)


def test_a_table_leaves_out_what_is_not_a_number() -> None:
    figure = Picture()
    draw_table(figure.subplots(), np.array([[np.nan, -0.2], [41.0, 3.0]]), "ab", "cd")
    assert [text.get_text() for text in figure.axes[0].texts] == ["-0", "41", "3"]


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_save_makes_the_folder_and_the_file(tmp_path: Path, suffix: str) -> None:
    figure = show_experts(np.full((1, 4, 7), 1 / 7))
    path = save(figure, tmp_path / "figures" / f"experts.{suffix}")
    assert path.stat().st_size > 1000
    if suffix == "png":
        assert image_size(path)[1] == 1300


def test_a_notebook_shows_the_figure_without_pyplot() -> None:
    code = """
import sys, numpy
from IPython.core.formatters import DisplayFormatter
from camoxpert_nb.figures.experts import show_experts
data, _ = DisplayFormatter().format(show_experts(numpy.full((1, 4, 7), 1 / 7)))
assert data["image/png"][1:4] == b"PNG"
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
