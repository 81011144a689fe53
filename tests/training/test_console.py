"""The progress line in terminals of any width, read as a terminal reads it."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

import camoxpert_nb
from camoxpert_nb.runs.pace import Pace, clock
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training import console as module
from camoxpert_nb.training.console import (
    Console,
    _bar,
    ending,
    epoch_line,
    experts_line,
    finished_already,
)

HOME = str(Path(camoxpert_nb.__file__).parents[1])

# Draws each step, whatever the clock says, and tells the other side when it may resize.
CODE = """
import sys
from camoxpert_nb.outside.terminal import patient
from camoxpert_nb.runs.pace import clock
from camoxpert_nb.training.console import Console
steps = {"kind": "step", "epoch": 140, "stage": "backbone 2/3", "steps": 123456, "loss": 12.345,
         "images_per_second": 1234.5}
with patient():
    console = Console(("texture",))
    console._due = lambda last=False: True
    for done in range(1, 41):
        if done == 20:
            print("half", file=sys.stderr, flush=True)
            sys.stdin.readline()
        console.report({**steps, "step": 3000 * done})
    for done in range(1, 5):
        console.progress(done, 4)
    console.say("done")
"""
# What an epoch brings, where the plan is known.
EPOCH = """
from camoxpert_nb.runs.pace import Pace
from camoxpert_nb.training.console import Console
names = "texture attention hybrid edge context frequency contrast".split()
console = Console(tuple(names))
console._due = lambda last=False: True
stage = {"open_blocks": 0, "first_epoch": 0, "epochs": 3, "steps": 4, "batch": 8}
console.pace = Pace([{"name": "decoder", **stage}])
step = {"kind": "step", "stage": "decoder", "steps": 12, "loss": 2.3, "images_per_second": 9.5}
for done in (1, 2, 3, 4):
    console.report({**step, "epoch": 1, "step": done})
console.report({"kind": "validating", "epoch": 1, "images": 40})
console.report({
    "kind": "epoch", "epoch": 1, "stage": "decoder", "step": 4, "steps": 12, "loss": 2.294,
    "iou": 0.413, "iou_ema": 0.412, "best": True, "seconds": 20.4, "images_per_second": 14.2,
    "data_wait_percent": 0.3, "lr": {"head": 1.5e-5, "backbone": 0.0}, "skipped_steps": 2,
    "gates": [[0.1, 0.2, 0.1, 0.2, 0.1, 0.1, 0.2]],
    "verdict": "Bound by the CPU's arithmetic (100 % of the time): train on a GPU, or lower "
    "--img-size.",
})
"""


def sized(file: int, columns: int) -> None:
    fcntl.ioctl(file, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def shown(columns: int, later: int, code: str = CODE, **environment: str) -> list[str]:
    """Return what was drawn on each row of a pseudo-terminal that is resized half way."""
    ours, theirs = pty.openpty()
    sized(theirs, columns)
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": HOME, "TERM": "xterm", **environment},
    )
    assert child.stdin and child.stderr
    if later != columns:
        assert child.stderr.readline() == b"half\n"
        sized(theirs, later)
    child.stdin.write(b"\n")
    child.stdin.close()
    os.close(theirs)
    text = b""
    try:
        while piece := os.read(ours, 65536):
            text += piece
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(ours)
    child.stderr.close()
    assert child.wait(timeout=30) == 0
    return text.decode().split("\r\n")


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 130, 300])
@pytest.mark.parametrize("later", [20, 47, 80, 300])
def test_the_progress_line_stays_on_one_row(columns: int, later: int) -> None:
    moving, *rest = shown(columns, later)
    assert rest == [""]  # one row and what was said for good: no line was left behind
    *drawn, last = re.split("\r\x1b\\[K", moving)[1:]
    assert last == "done" and len(drawn) == 44
    before, after = drawn[:19], drawn[19:]
    assert max(map(len, before)) < columns and max(map(len, after)) < later
    assert all(line.startswith("epoch 140") for line in drawn[:40])
    assert all(line.endswith("4/4") for line in drawn[-1:])


def test_what_matters_least_goes_first() -> None:
    said = {columns: shown(columns, columns)[0].split("\r\x1b[K")[40] for columns in (130, 80, 40)}
    assert [word in said[130] for word in ("##.]", "step 1", "loss", "img/s", "left")] == [True] * 5
    assert "img/s" in said[80] and "step" in said[80]
    assert "loss" in said[40] and "left" in said[40] and "img/s" not in said[40]


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_an_epoch_fits_the_terminal_and_loses_nothing(columns: int) -> None:
    first, *rest = shown(columns, columns, EPOCH)
    *drawn, last = re.split("\r\x1b\\[K", first)[1:]
    assert drawn[-1] == "epoch 1/3  validating 40 images"
    rows = [last, *(re.sub("\r\x1b\\[K", "", row) for row in rest)]
    assert max(map(len, rows)) <= columns
    text = " ".join(" ".join(rows).split())
    assert "IoU 0.413 (EMA 0.412) kept 20 s 14 img/s data-wait 0 % lr 1.5e-05/0.0e+00" in text
    assert "2 steps skipped" in text and "contrast 20" in text and "lower --img-size." in text


def test_nothing_moves_when_the_time_left_is_known() -> None:
    first, *_rest = shown(80, 80, EPOCH)
    drawn = re.split("\r\x1b\\[K", first)[1:5]
    assert "-:--:-- left" in drawn[0] and "0:00:0" in drawn[-1]
    assert len({line.index("loss") for line in drawn}) == len({*map(len, drawn)}) == 1
    assert all(line.startswith("epoch 1/3  ") for line in drawn)


@pytest.mark.parametrize("name", ["dumb", "xterm"])
def test_a_terminal_that_only_types_gets_lines_for_good(name: str) -> None:
    lines = shown(80, 80, TERM=name)
    assert ("\x1b" in lines[0]) == (name == "xterm")
    assert lines[0].endswith("done")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (59.7, "0:01:00"), (3599, "0:59:59"), (111600, "31:00:00")],
)
def test_time_left_knows_more_than_a_day(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("test", "wanted"),
    [
        (9, "  camoxpert evaluate --run 'runs/a b' --dataset-path '/my data/set'"),
        (0, "  camoxpert evaluate --run 'runs/a b' --dataset-path DIR"),
    ],
)
def test_the_advice_at_the_end_names_the_runs_own_data_where_they_can_judge(
    test: int, wanted: str
) -> None:
    best = {"iou": 0.5, "epoch": 1, "weights": "plain"}
    summary = {"best": best, "seconds": 2.4, "epochs": 1, "finished": True, "target_iou": 0.6}
    summary |= {"target_reached_at_epoch": None, "data": {"root": "/my data/set", "test": test}}
    lines = ending(summary, "runs/a b").split("\n")
    assert lines[-1] == wanted and ("DIR, a folder" in lines[-2]) == (not test)
    assert lines[1] == "2 seconds of training in 1 epoch."
    call = ending(summary, "runs/a", judge="judge(run, DIR)").split("\n")[-1]
    assert call == ("  judge(run, '/my data/set')" if test else "  judge(run, DIR)")


class Watched(io.StringIO):
    """A terminal of as many columns as COLUMNS says."""

    def isatty(self) -> bool:
        return True

    def drawn(self) -> list[str]:
        """What was drawn or said since the last look, in order."""
        found = re.split("\r\x1b\\[K", self.getvalue())
        self.seek(0)
        self.truncate()
        return [line for line in found if line]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "121")
    return Watched()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock, in its only place; it began long ago."""
    moment = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: moment[0])
    return moment


def test_what_is_counted_is_named(watched: Watched) -> None:
    console = Console((), watched)
    console.counting("scoring")(5, 5)
    console.progress(1, 4)
    assert watched.drawn() == ["scoring  [####################]  5/5"]  # the other came at once
    console.progress(4, 4)
    assert watched.drawn() == ["preparing images  [####################]  4/4"]
    assert console.stream is watched and console.experts == () and console.log is None


STEP = {
    "kind": "step", "epoch": 2, "stage": "one", "step": 10, "steps": 40, "loss": 2.3456,
    "images_per_second": 9.6,
}  # fmt: skip
PLAN = [
    {"name": "one", "open_blocks": 0, "first_epoch": 0, "epochs": 3, "steps": 8, "batch": 8},
    {"name": "two (all)", "open_blocks": 4, "first_epoch": 3, "epochs": 2, "steps": 8, "batch": 8},
]


def test_a_step_is_drawn_at_most_five_times_a_second(watched: Watched, now: list[float]) -> None:
    console = Console((), watched)
    console.report(STEP)
    assert watched.drawn() == [
        "epoch 2  stage one  [#####...............]  step 10/40  loss 2.346  10 img/s  -:--:-- left"
    ]
    now[0] += 0.19
    console.report({**STEP, "step": 11})
    assert watched.drawn() == []
    now[0] += 0.01
    console.report({**STEP, "step": 12})  # a stretch of 0.19 and one of 0.01 seconds
    assert watched.drawn() == [
        "epoch 2  stage one  [######..............]  step 12/40  loss 2.346  10 img/s  0:00:03 left"
    ]
    now[0] += 0.3
    console.pace = Pace(PLAN)
    console.report({"kind": "validating", "epoch": 2, "images": 40})
    assert watched.drawn() == ["epoch 2/5  validating 40 images"]


def test_a_narrow_terminal_gets_short_parts(
    watched: Watched, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order in which they matter least: bar, stage, img/s, step, loss, time left."""
    said = {}
    for columns in (91, 90, 76, 70, 66, 60, 55, 46, 41, 34, 20):
        monkeypatch.setenv("COLUMNS", str(columns))
        now[0] += 1
        Console((), watched).report(STEP)
        said[columns] = watched.drawn()[0]
    whole = "epoch 2  stage one  [#####...............]  step 10/40  loss 2.346  10 img/s"
    assert said == {
        91: f"{whole}  -:--:-- left",
        90: "epoch 2  stage one  [#.....]  step 10/40  loss 2.346  10 img/s  -:--:-- left",
        76: "epoch 2  stage one  step 10/40  loss 2.346  10 img/s  -:--:-- left",
        70: "epoch 2  stage one  step 10/40  loss 2.346  10 img/s  -:--:-- left",
        66: "epoch 2  one  step 10/40  loss 2.346  10 img/s  -:--:-- left",
        60: "epoch 2  step 10/40  loss 2.346  10 img/s  -:--:-- left",
        55: "epoch 2  step 10/40  loss 2.346  -:--:-- left",
        46: "epoch 2  step 10/40  loss 2.346  -:--:-- left",
        41: "epoch 2  10/40  loss 2.346  -:--:-- left",
        34: "epoch 2  loss 2.346  -:--:-- left",
        20: "epoch 2  -:--:--",
    }


EPOCH_RECORD = {
    "kind": "epoch", "epoch": 7, "stage": "one", "step": 4, "steps": 12, "loss": 2.2946,
    "iou": 0.4135, "iou_ema": 0.4126, "best": True, "seconds": 20.6, "images_per_second": 14.2,
    "data_wait_percent": 0.6, "lr": {"head": 1.5e-5, "backbone": 2e-6}, "skipped_steps": 2,
    "gates": [[0.1, 0.9], [0.3, 0.7]], "verdict": "Bound by compute (100 % of the time): fine.",
}  # fmt: skip


def test_an_epoch_is_told_whole() -> None:
    assert epoch_line(EPOCH_RECORD) == (
        "epoch   7  stage one  loss 2.295  IoU 0.413 (EMA 0.413) kept  21 s  14 img/s  "
        "data-wait 1 %  lr 1.5e-05/2.0e-06  2 steps skipped"
    )
    other = {**EPOCH_RECORD, "epoch": 107, "loss": None, "iou_ema": None, "best": False}
    assert epoch_line({**other, "skipped_steps": 0}, widest=6) == (
        "epoch 107  stage one     loss none  IoU 0.413       21 s  14 img/s  "
        "data-wait 1 %  lr 1.5e-05/2.0e-06"
    )
    assert experts_line([[0.1, 0.9], [0.3, 0.7]], ("texture", "edge", "none")) == (
        "          experts %  texture 20  edge 80"
    )


def test_nobody_watches_and_all_but_what_moves_is_written_and_logged(
    tmp_path: Path, now: list[float]
) -> None:
    stream = io.StringIO()
    console = Console(("texture", "edge"), stream)
    console.log, console.pace = tmp_path / "log.txt", Pace(PLAN)
    console.report(STEP)
    console.report({"kind": "validating", "epoch": 2, "images": 40})
    console.progress(4, 4)
    assert stream.getvalue() == ""
    console.report({"kind": "note", "message": "a note"})
    console.report({"kind": "stop", "why": "unheard"})
    console.report(EPOCH_RECORD)
    console.report({**EPOCH_RECORD, "gates": None, "verdict": "Bound by compute (99 %): fine."})
    console.report({**EPOCH_RECORD, "gates": None, "verdict": "Starved (1 %)"})
    line = epoch_line(EPOCH_RECORD, len("two (all)"))
    said = [
        "a note",
        line,
        "          experts %  texture 20  edge 80",
        "          Bound by compute (100 % of the time): fine.",
        line,  # what bounds the speed is the same as before, and said once
        line,
        "          Starved (1 %)",
        "",
    ]
    assert stream.getvalue().split("\n") == said
    assert console.log.read_text().split("\n") == said


def test_what_moves_is_wiped_by_what_stays(watched: Watched, now: list[float]) -> None:
    console = Console((), watched)
    console.say("for good")
    assert watched.getvalue() == "\r\x1b[Kfor good\n"


@pytest.mark.parametrize(
    ("done", "total", "long", "short"),
    [
        (0, 4, "[....................]", "[......]"),
        (1, 4, "[#####...............]", "[#.....]"),
        (4, 4, "[####################]", "[######]"),
        (5, 4, "[####################]", "[######]"),
        (-1, 4, "[....................]", "[......]"),
        (1, 0, "[####################]", "[######]"),
        (0, 0, "[....................]", "[......]"),
        (1, 2, "[##########..........]", "[###...]"),
    ],
)
def test_a_bar_is_as_long_as_its_share(done: int, total: int, long: str, short: str) -> None:
    assert _bar(done, total) == (long, 1, short)


def test_a_finished_run_says_how_to_train_on() -> None:
    config = Config(checkpoint_dir="runs/a", epochs=7, stage1_epochs=2, warmup_epochs=1)
    start = (
        "runs/a is finished already: all its epochs, 7, are trained, and nothing is trained now. "
        "To go on, give more of them, N above 7:\n  "
    )
    assert finished_already(config, in_python=False) == (
        f"{start}camoxpert resume runs/a --epochs N"
    )
    assert finished_already(config, in_python=True) == (
        f"{start}fit(Config.load('runs/a/config.json').replace(epochs=N), resume=True)"
    )


SUMMARY: dict[str, Any] = {
    "best": {
        "iou": 0.5, "epoch": 3, "weights": "ema", "highest": {"iou": 0.5124, "epoch": 2},
    },
    "seconds": 2.4, "epochs": 4, "finished": True, "target_iou": 0.65,
    "target_reached_at_epoch": None,
}  # fmt: skip


def test_an_ending_is_told_whole() -> None:
    assert ending(SUMMARY, "runs/a b") == (
        "\n2 seconds of training in 4 epochs.\n"
        "best validation IoU 0.500 at epoch 3 (ema weights, within 0.012 of the highest, "
        "epoch 2); target 0.65 not reached\n"
        "best weights: runs/a b/best.pt. Score them on DIR, a folder of other images and masks:\n"
        "  camoxpert evaluate --run 'runs/a b' --dataset-path DIR"
    )
    before = {
        **SUMMARY, "target_reached_at_epoch": 3, "ended_early": "no more",
        "data": {"root": "my set", "test": 4},
    }  # fmt: skip
    assert ending(before, "run", trained=False) == (
        "\n2 seconds of training in 4 epochs before.\n"
        "best validation IoU 0.500 at epoch 3 (ema weights, within 0.012 of the highest, "
        "epoch 2); target 0.65 reached at epoch 3\n"
        "ended early: no more\n"
        "best weights: run/best.pt. Score them on its data's test split:\n"
        "  camoxpert evaluate --run run --dataset-path 'my set'"
    )
    stopped = {**SUMMARY, "best": {}, "finished": False, "seconds": 0.5}
    start = (
        "\n0.5 seconds of training in 4 epochs.\nStopped as asked; everything is saved. Go on with:"
    )
    assert ending(stopped, "a b") == f"{start}\n  camoxpert resume 'a b'"
    assert ending(stopped, "a b", resume="fit(...)") == f"{start}\n  fit(...)"
    alone = {**SUMMARY, "best": {"iou": 0.25, "epoch": 1, "weights": "raw"}, "data": {"test": 3}}
    assert ending(alone, "run", judge="judge(DIR)").split("\n")[2:] == [
        "best validation IoU 0.250 at epoch 1 (raw weights); target 0.65 not reached",
        "best weights: run/best.pt. Score them on DIR, a folder of other images and masks:",
        "  judge(DIR)",
    ]
