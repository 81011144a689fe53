from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from camoxpert_nb.cli import machine, main
from camoxpert_nb.outside.refused import naming, sentence

NUMBERS = (
    "EACCES EPERM EROFS ENOENT ENOTDIR EISDIR ENOSPC EDQUOT ENAMETOOLONG ELOOP ESTALE EIO EMFILE"
)


@pytest.mark.parametrize("name", NUMBERS.split())
def test_whatever_the_system_refuses_is_a_sentence_with_the_flag(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    number, place = getattr(errno, name), tmp_path / "x.json"

    def refuse(options: Any) -> int:
        raise OSError(number, os.strerror(number), str(place))

    monkeypatch.setattr(machine, "doctor", refuse)
    assert main.main(["doctor", "--json", str(place)]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said and os.strerror(number) in said and "--json" in said


def test_an_error_without_a_file_still_reads(tmp_path: Path) -> None:
    assert sentence(OSError("odd")) == "odd."
    with pytest.raises(OSError) as caught, naming(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(tmp_path) in sentence(caught.value, {"--csv": str(tmp_path), "--json": ""})
    assert "--csv" in sentence(caught.value, {"--csv": str(tmp_path), "--json": ""})
    assert "--csv" not in sentence(caught.value, {"--csv": str(tmp_path / "deeper")})
