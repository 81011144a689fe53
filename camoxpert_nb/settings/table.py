"""The settings as the README's table."""

from __future__ import annotations

import dataclasses
from typing import Any

from .checks import flag_of
from .config import GROUPS, Config


def settings_table() -> str:
    """Return the README's table of settings in Markdown."""
    lines = ["| flag | default | meaning |", "|---|---|---|"]
    for group in GROUPS:
        lines.append(f"| **{group}** | | |")
        for item in dataclasses.fields(Config):
            if item.metadata["group"] == group and item.name != "preset":
                lines.append(_settings_row(item))
    return "\n".join(lines)


def _settings_row(item: dataclasses.Field[Any]) -> str:
    words = {"True": "on", "False": "off", "None": "none"}
    default = words.get(str(item.default), item.default)
    extra = [str(item.metadata["unit"])] if "unit" in item.metadata else []
    extra += ["one of " + ", ".join(item.metadata["choices"])] if "choices" in item.metadata else []
    tail = f" ({'; '.join(extra)})" if extra else ""
    return f"| `{flag_of(item.name)}` | {default} | {item.metadata['help']}{tail} |"
