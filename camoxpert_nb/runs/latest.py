"""The name `latest` beside the runs: a link where there can be one, else the newest run serves."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

LATEST = "latest"


def place_of(folder: Path) -> Path:
    """Return the folder of a run; for a `latest` that is none, that of the newest run beside it.

    File systems without links have no `latest`, and what is called so may be somebody else's.
    """
    if folder.name != LATEST or is_run(folder):
        return folder
    with suppress(OSError, ValueError):
        beside = [each for each in folder.parent.iterdir() if each.name != LATEST and is_run(each)]
        return max(beside, key=_written)
    return folder


def point_latest(folder: Path) -> str:
    """Let `latest` beside a run's folder name it; say why not, or "" if it does.

    What is not our link stays: a file, a folder, a link that leads elsewhere.
    """
    newest = folder.resolve()  # `folder` may be the link itself: "resume runs/latest"
    link = newest.parent / LATEST
    if newest.name == LATEST:
        return ""
    try:
        if link.is_symlink():
            if not _ours(link):
                return (
                    f"{link} is left as it is: it leads to {link.readlink()}, which is no run here"
                )
        elif link.exists():
            return f"{link} is left as it is: it is no link of ours. Name this run: {folder}"
        link.unlink(missing_ok=True)
        link.symlink_to(newest.name, target_is_directory=True)
    except OSError:
        return ""  # no links here: `place_of` finds the newest run
    return ""


def drop_latest(folder: Path) -> None:
    """Remove a `latest` that names this folder, which is gone: the newest run beside serves."""
    link = folder.parent / LATEST
    with suppress(OSError):
        if link.is_symlink() and not link.exists() and link.readlink() == Path(folder.name):
            link.unlink()


def is_run(folder: Path) -> bool:
    """Say whether a folder holds the settings and the history of a run."""
    with suppress(OSError):
        return (folder / "config.json").is_file() and (
            (folder / "history.jsonl").is_file() or (folder / "last.pt").is_file()
        )
    return False


def _ours(link: Path) -> bool:
    """Say whether it names a run beside it, or one that was there."""
    target = link.readlink()
    if len(target.parts) != 1 or target.name in ("", ".", ".."):
        return False
    there = link.parent / target
    return is_run(there) or not there.exists()


def _written(folder: Path) -> float:
    names = ("history.jsonl", "last.pt")
    files = [folder / name for name in names if (folder / name).exists()]
    return max(path.stat().st_mtime for path in files)
