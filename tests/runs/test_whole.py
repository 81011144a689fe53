"""A file of a run is on the disk before it has its name."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO, Any

import pytest

from camoxpert_nb.errors import TrainingError
from camoxpert_nb.runs.whole import drop_parts, in_place, inside, write_whole


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


def failing(error: Exception) -> Any:
    def write(file: IO[bytes]) -> None:
        file.write(b"half")
        raise error

    return write


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("PytorchStreamWriter failed"),
    ],
)
def test_a_full_disk_is_said_with_how_to_go_on(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(b"before")
    with pytest.raises(TrainingError) as found:
        write_whole(path, failing(error), lambda: pytest.fail("nothing goes"))
    assert str(found.value) == (
        f"{path} could not be written ({error}): the disk is probably full. What was saved before "
        f"is untouched. Free some space, then go on with `camoxpert resume {tmp_path}`."
    )
    assert path.read_bytes() == b"before" and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EROFS, "Read-only"), RuntimeError("DataLoader worker (pid 3) is killed")],
)
def test_what_is_no_full_disk_is_not_said_to_be_one(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as found:
        write_whole(tmp_path / "last.pt", failing(error))
    assert found.value is error and not [*tmp_path.iterdir()]


def test_links_on_the_way_are_removed_and_what_they_name_stays(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "x").write_text("theirs")
    run = tmp_path / "run"
    (run / "maps").mkdir(parents=True)
    (run / "maps" / "set").symlink_to(tmp_path / "theirs")
    assert inside(run, "maps", "set", "x") == run / "maps" / "set" / "x"
    assert not (run / "maps" / "set").is_symlink() and (run / "maps").is_dir()
    assert (tmp_path / "theirs" / "x").read_text() == "theirs"


def test_what_is_no_file_is_removed_before_it_is_written_to(tmp_path: Path) -> None:
    """A pipe would wait for its reader for ever."""
    os.mkfifo(tmp_path / "log.txt")
    (tmp_path / "lost").symlink_to("nowhere")
    (tmp_path / "kept").write_text("ours")
    (tmp_path / "folder").mkdir()
    for name in ("log.txt", "lost", "kept", "folder", "new"):
        assert in_place(tmp_path / name) == tmp_path / name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "kept"]
    assert (tmp_path / "kept").read_text() == "ours"


def test_halves_of_our_files_alone_go(tmp_path: Path) -> None:
    ours = ["a.pt", "a.json", "history.jsonl", "history.csv", "preview.npz"]
    for name in (*ours, "mine.txt", "b.zip", "c"):
        (tmp_path / f"{name}.part").touch()
    (tmp_path / "a.pt").touch()
    drop_parts(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a.pt", "mine.txt.part", "b.zip.part", "c.part"}
