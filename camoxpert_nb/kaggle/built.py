"""Which files a build made: it replaces those, and no others."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError, few

MARK = "built.json"  # beside the folders: each file that a build wrote, and what was in it


def refuse_foreign(output: Path, names: Iterable[str]) -> None:
    """Raise InputError when folders of these names hold what no build wrote, or what was edited."""
    known = _marked(output)
    foreign: list[str] = []
    for folder in (output / name for name in names):
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            foreign.append(folder.name)
        elif folder.is_dir():
            found = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
            for path in sorted(found):
                name = path.relative_to(output).as_posix()
                if path.is_symlink() or known.get(name) != _digest(path):
                    foreign.append(name)
    if foreign:
        raise InputError(
            f"{output}: {len(foreign)} files lie where the build would write, but no build made "
            f"them, or they were changed since: {few(foreign)}. Nothing was touched. Name another "
            "folder, or move them away."
        )


def replace_built(made: Path, target: Path) -> Path:
    """Put a folder that was built where it belongs, in place of an earlier build; return it."""
    shutil.rmtree(target, ignore_errors=True)  # `refuse_foreign` looked at it
    shutil.copytree(made, target)
    output = target.parent
    rest = {k: v for k, v in _marked(output).items() if not k.startswith(f"{target.name}/")}
    files = {path.relative_to(output).as_posix(): _digest(path) for path in _files(target)}
    (output / MARK).write_text(json.dumps(rest | files, indent=1) + "\n", encoding="utf-8")
    return target


def _marked(output: Path) -> dict[str, str]:
    try:
        known = json.loads((output / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
