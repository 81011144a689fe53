"""Why a training ended is said as it was: a folder that never was is not one that was removed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from camoxpert_nb.runs.run import Run
from camoxpert_nb.training.failure import refused


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_could_not_be_made_is_not_called_removed(tmp_path: Path, code: int) -> None:
    run = Run(tmp_path / "run")
    said = str(refused(run, OSError(code, os.strerror(code), str(run.folder))))
    assert said.startswith(f"{run.folder}: ") and os.strerror(code) in said
    assert "--checkpoint-dir" in said and "not there any more" not in said


def test_other_files_that_are_missing_are_named_before_there_is_a_folder(tmp_path: Path) -> None:
    run, image = Run(tmp_path / "run"), str(tmp_path / "data" / "1.jpg")
    said = str(refused(run, FileNotFoundError(errno.ENOENT, "No such file or directory", image)))
    assert said.startswith(f"{image}: it is not there")
    gone = FileNotFoundError(errno.ENOENT, "No such file", str(run.folder / "last.pt.part"))
    assert "removed or moved while it was trained" in str(refused(run, gone))
