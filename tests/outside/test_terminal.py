"""Outputs that are closed, lost, or of another encoding."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import camoxpert_nb
from camoxpert_nb.outside import terminal
from camoxpert_nb.outside.terminal import (
    Part,
    columns,
    fitted,
    folded,
    harmless,
    paged,
    room,
    tell,
    width,
)

HOME = str(Path(camoxpert_nb.__file__).parents[1])

CODE = """
import sys
from camoxpert_nb.outside.terminal import patient
with patient():
    for number in range(3):
        print("line \\u2192 \\udcff", number, flush=True)
    print("worked", file=sys.stderr)
    open("done", "w").close()
"""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8", "latin-1"])
def test_characters_that_an_encoding_lacks_are_spelled_out(encoding: str, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": HOME, "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, env=env, cwd=tmp_path, check=True
    )
    assert done.stdout.count(b"line") == 3 and b"udcff" in done.stdout


@pytest.mark.parametrize(
    "shell", ["| true", ">&-", "2>&-", ">&- 2>&- <&-", "> /dev/full", "| head -1"]
)
def test_an_output_that_nobody_takes_ends_nothing(shell: str, tmp_path: Path) -> None:
    line = f'set -o pipefail; "$0" -c "$1" {shell}'
    done = subprocess.run(
        ["bash", "-c", line, sys.executable, CODE],
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": HOME},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done").exists()
    assert b"Broken" not in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has a disk that is full")
def test_a_full_disk_behind_the_output_is_an_error(tmp_path: Path) -> None:
    """Of a pipe that nobody reads any more nothing is said."""
    for name in ("a.jpg", "a_mask.png"):
        Image.new("L", (32, 32)).save(tmp_path / name)
    command = [sys.executable, "-m", "camoxpert_nb", "data", str(tmp_path)]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode != 0 and "could not be written" in ended.stderr


PARTS = [
    Part("epoch 12", 7),
    Part("a longer name", 2),
    Part("[##########..........]", 1, "[#####.....]"),
    Part("loss 0.123", 5),
]


def test_every_width_gets_a_line_that_fits() -> None:
    before = 0
    for most in range(301):
        line = fitted(PARTS, most)
        assert before <= width(line) <= most
        before = width(line)
    assert fitted(PARTS, 300) == "epoch 12  a longer name  [##########..........]  loss 0.123"
    assert fitted(PARTS, 50) == "epoch 12  a longer name  [#####.....]  loss 0.123"
    assert fitted(PARTS, 47) == "epoch 12  a longer name  loss 0.123"
    assert fitted(PARTS, 20) == "epoch 12  loss 0.123"
    assert fitted(PARTS, 5) == "epoch"


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("epoch", 5),
        ("é", 1),
        ("e\u0301", 1),  # e and an accent of its own
        ("迷彩", 4),
        ("위장", 4),
        ("\uff57", 2),  # a full-width w
        ("ｶ", 1),
        ("🦎", 2),
        ("❤\ufe0f", 2),
        ("", 0),
    ],
)
def test_wide_characters_take_two_columns(text: str, cells: int) -> None:
    assert width(text) == cells
    line = fitted([Part(text * 10, 1), Part("x", 2)], 9)
    assert width(line) <= 9


def test_the_width_of_a_terminal_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([(40, 24), (0, 0), (0, 0)])
    monkeypatch.setattr("os.get_terminal_size", lambda file: os.terminal_size(next(sizes)))
    monkeypatch.setenv("COLUMNS", "33")
    with open(os.devnull) as stream:  # noqa: PTH123
        assert [columns(stream), columns(stream)] == [40, 33]
        monkeypatch.setenv("COLUMNS", "x")
        assert columns(stream) == 80
    assert columns(io.StringIO()) == 80


LINES = [
    "loading           0 workers: 2 CPUs and 1 training process; the decoded cache needs 2 at most",
    "epoch   1  stage decoder  loss 2.294  IoU 0.413 (EMA 0.412) best  20 s  14 img/s  lr 1e-05/0",
    "          experts %  texture 8  attention 14  hybrid 12  edge 20  context 11  frequency 11",
    "          Bound by the CPU's arithmetic (100 % of the time): train on a GPU, or resize.",
    "NOTE: the backbone starts from random weights. Expect a much lower IoU, and train for longer.",
]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("most", [40, 60, 79, 80, 200])
def test_a_line_is_folded_at_its_words(line: str, most: int) -> None:
    lines = folded(line, most).split("\n")
    assert max(map(width, lines)) <= most
    assert " ".join(" ".join(lines).split()) == " ".join(line.split())
    assert len(lines) == 1 or most < len(line)


def test_what_is_folded_goes_on_under_its_own_text() -> None:
    banner, epoch, experts, verdict, note = (folded(line, 60).split("\n") for line in LINES)
    assert banner[1].startswith(" " * 18) and banner[1][18] != " "
    assert epoch[1].startswith(" " * 10) and epoch[1][10] != " "
    assert experts[1].startswith(" " * 10) and experts[1][10] != " "
    assert verdict[1].startswith(" " * 10) and verdict[1][10] != " "
    assert note[1][0] != " "


def test_a_part_stays_whole() -> None:
    for most in range(30, 90):
        assert "IoU 0.413 (EMA 0.412) best" in folded(LINES[1], most)
        assert "lr 1e-05/0" in folded(LINES[1], most)


def test_a_page_gets_lines_of_a_hundred_columns_and_a_pipe_gets_them_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = "word " * 30 + "end"
    assert paged(line) == line
    monkeypatch.setattr(terminal, "kernel_shell", object)
    lines = paged(f"{line}\nshort").split("\n")
    assert lines == ["word " * 19 + "word", "word " * 10 + "end", "short"]  # 5 columns a word


def test_what_is_to_be_typed_stays_whole() -> None:
    line = "  camoxpert evaluate --run runs/20261127-092253 --dataset-path /data/of/somebody/COD10K"
    assert folded(line, 40) == line


@pytest.mark.parametrize(
    "line",
    [
        "  CAMOXPERT_CACHE=/a/b camoxpert train --dataset-path /data/of/somebody/COD10K",
        "  judge('runs/of/mine/a', '/data/of/somebody/else')",
        "  /some place/with blanks/in its name/figures/curves.png",
        "  torchrun --standalone --nproc-per-node 2 train_of_mine.py",
    ],
)
def test_commands_calls_and_files_stay_whole(line: str) -> None:
    assert folded(line, 40) == line


@pytest.mark.parametrize(
    "line",
    [
        "  probabilities differ from the network's by at most 1e-6 (allowed 1e-4) on 8 images",
        "  images/s on this CPU, one at a time: PyTorch 12.3, ONNX 14.5, and some more words",
        "  .: 3 JSON files, which are not read: make masks of them first, with labelme or so",
        "  seen as it is and mirrored: IoU 0.71 to 0.73, network 0.1 to 0.2 seconds per image",
    ],
)
def test_a_sentence_that_begins_small_is_folded(line: str) -> None:
    lines = folded(line, 40).split("\n")
    assert max(map(width, lines)) <= 40 and all(each.startswith("  ") for each in lines)


def test_a_command_within_a_sentence_is_not_broken() -> None:
    line = (
        "It was stopped: go on from the last save, with `camoxpert resume runs/mine --epochs 90`."
    )
    for most in range(45, 90):
        assert "`camoxpert resume runs/mine --epochs 90`" in folded(line, most)


def test_lines_take_the_place_of_one_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    stream = Watched()
    tell("a sentence of many words, too long for a terminal that is so narrow", stream)
    assert (
        stream.getvalue().startswith("\r\x1b[K")
        and max(map(len, stream.getvalue()[4:].split("\n"))) <= 40
    )
    monkeypatch.setenv("TERM", "dumb")
    assert room(stream) == 40 and room(io.StringIO()) == 0
    tell("a", stream := Watched())
    assert stream.getvalue() == "a\n"


def test_a_word_longer_than_the_terminal_is_not_cut() -> None:
    path = "/a/folder/" + "of_a_long_name_" * 8
    assert path in folded(f"run               {path}", 40)


@pytest.mark.parametrize(
    "text", ["\r\x1b[K 3 of 9", "\x1b[1;34mwandb\x1b[0m", "a\tb\n", "Ce\u0301 日 🦎", "\r 10%|#"]
)
def test_what_draws_lines_and_colours_stays(text: str) -> None:
    assert harmless(text) == text


@pytest.mark.parametrize(
    "steers",
    ["\x1b[2J", "\x1b]0;title\x07", "\x1bc", "\x9b2J", "\u202egnp.exe", "\x1b[A", "\x08", "\x7f"],
)
def test_a_name_steers_no_terminal(steers: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "camoxpert_nb", "data", str(tmp_path / f"x{steers}y")],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": HOME, "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 2
    assert steers not in done.stderr.decode() and "\\" in done.stderr.decode()
