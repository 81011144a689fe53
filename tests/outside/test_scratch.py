"""Scratch folders: whole while they are held, and gone however their process ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from camoxpert_nb.outside import scratch as module
from camoxpert_nb.outside.scratch import ENDING, LOCK, scratch, sweep

NAME = "images [1]"  # as a folder of a user may be called


def held_by_another(folder: Path) -> subprocess.Popen[bytes]:
    """Start a process that works in a scratch folder until it is killed."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from camoxpert_nb.outside.scratch import scratch\n"
        "with scratch(Path(sys.argv[1]), sys.argv[2]) as place:\n"
        "    (place / 'below').mkdir(); (place / 'below' / 'half').write_text('half')\n"
        "    print('there', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(folder), NAME]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"there\n"
    return process


def test_it_goes_at_the_end_and_after_an_error(tmp_path: Path) -> None:
    with scratch(tmp_path / "new", NAME) as place:
        (place / "file").write_text("whole")
        (place / "file").replace(tmp_path / "file")
    with pytest.raises(KeyError), scratch(tmp_path / "new", NAME) as place:
        (place / "below").mkdir()
        raise KeyError
    assert list((tmp_path / "new").iterdir()) == []
    assert (tmp_path / "file").read_text() == "whole"


def test_that_of_a_process_goes_when_it_was_killed_and_not_before(tmp_path: Path) -> None:
    (tmp_path / f".other.1{ENDING}").mkdir()  # of files of another name
    process = held_by_another(tmp_path)
    sweep(tmp_path, NAME)
    with scratch(tmp_path, NAME):
        assert len(list(tmp_path.glob("*/below/half"))) == 1
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(list(tmp_path.glob("*/below/half"))) == 1
    sweep(tmp_path, NAME)
    assert [each.name for each in tmp_path.iterdir()] == [f".other.1{ENDING}"]


def test_what_a_process_left_that_was_killed_while_it_made_or_removed_one_goes(
    tmp_path: Path,
) -> None:
    (tmp_path / f".{NAME}.1{ENDING}").mkdir()
    sweep(tmp_path, NAME)
    assert list(tmp_path.iterdir()) == []
    sweep(tmp_path / "missing", NAME)


def test_one_that_is_swept_before_it_is_held_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    mkdir = Path.mkdir

    def swept(self: Path, *rest: object, **named: object) -> None:
        mkdir(self, *rest, **named)  # type: ignore[arg-type]
        if self.name.startswith("."):
            made.append(self)
            if len(made) == 1:
                sweep(tmp_path, NAME)

    monkeypatch.setattr(Path, "mkdir", swept)
    with scratch(tmp_path, NAME) as place:
        assert place == made[1] and (place / LOCK).exists()


def test_where_there_are_no_locks_it_goes_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(module, "_lock", none)
    with scratch(tmp_path, NAME) as place:
        sweep(tmp_path, NAME)
        assert place.exists()
    left = tmp_path / f".{NAME}.1{ENDING}"
    left.mkdir()
    (left / LOCK).touch()
    os.utime(left, (time.time() - 25 * 3600,) * 2)
    sweep(tmp_path, NAME)
    assert not left.exists()
