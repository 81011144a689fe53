"""Outputs that are closed, lost, or of another encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import camoxpert_nb

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
