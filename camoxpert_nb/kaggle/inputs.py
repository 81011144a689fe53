"""Where a Kaggle session keeps what is attached, and what need not be kept."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ..data.selection import input_root

GROUPS = ("competitions", "datasets", "models", "notebooks")  # folders of the new style


def sources() -> list[Path]:
    """Return the folder of each thing that is attached, mounted in the old or the new style."""
    root = input_root()
    mounted = [path for path in root.glob("*") if path.is_dir() and path.name not in GROUPS]
    return sorted(mounted + [path for name in GROUPS for path in root.glob(f"{name}/*/*/")])


def scratch() -> Path:
    """Return a folder for what need not be kept."""
    beside = input_root().parent  # /kaggle, on Kaggle
    base = beside / "temp" if os.access(beside, os.W_OK) else Path(tempfile.gettempdir())
    return base / "camoxpert"
