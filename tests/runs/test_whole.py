"""A file of a run is on the disk before it has its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from camoxpert_nb.runs.whole import write_whole


def test_a_file_is_flushed_then_others_go_then_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contents without fsync may be lost in a power cut, though the name is there."""
    order: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(number: int) -> None:
        place = Path(f"/proc/self/fd/{number}").readlink()
        order.append(f"flushed {place.name} with {place.read_text()}")
        sync(number)

    def renamed(self: Path, target: Path) -> Path:
        order.append(f"renamed {self.name} to {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    path = tmp_path / "last.pt"
    write_whole(path, lambda file: file.write(b"new"), lambda: order.append("others go"))
    assert order == [
        "flushed last.pt.part with new",
        "others go",
        "renamed last.pt.part to last.pt",
    ]
    assert path.read_bytes() == b"new" and [*tmp_path.iterdir()] == [path]
