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

import pytest

import camoxpert_nb
from camoxpert_nb.runs.pace import clock
from camoxpert_nb.training.console import Console, ending

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


def test_what_is_counted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    stream = Watched()
    Console((), stream).counting("scoring")(5, 5)
    assert "scoring" in stream.getvalue() and "5/5" in stream.getvalue()
