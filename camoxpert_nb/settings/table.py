"""The settings in words: the table of docs/settings.md, and the help of each flag."""

from __future__ import annotations

import dataclasses
from typing import Any

from .checks import flag_of
from .config import GROUPS, Config


def settings_table() -> str:
    """Return the table of settings, in Markdown."""
    lines = ["| flag | default | meaning |", "|---|---|---|"]
    for group in GROUPS:
        lines.append(f"| **{group}** | | |")
        for item in dataclasses.fields(Config):
            if item.metadata["group"] == group and item.name != "preset":
                lines.append(_settings_row(item))
    return "\n".join(lines)


def help_of(item: dataclasses.Field[Any], *, default: bool = True) -> str:
    """Return a setting's sentence with its choices, unit and, if wanted, its default."""
    known = [", ".join(item.metadata.get("choices", ()))]
    unit = item.metadata.get("unit", "")
    if default:
        told = default_of(item) or ("" if "empty:" in item.metadata["help"] else "empty")
        known.append(" ".join(filter(None, ["default" * bool(told), told, unit])))
    else:
        known.append(f"in {unit}" if unit else "")
    more = "; ".join(filter(None, known))
    return item.metadata["help"] + (f" ({more})" if more else "")


def default_of(item: dataclasses.Field[Any]) -> str:
    """Return a setting's default as people write it."""
    words = {"True": "on", "False": "off", "None": "none"}
    return words.get(str(item.default), str(item.default))


def _settings_row(item: dataclasses.Field[Any]) -> str:
    extra = [str(item.metadata["unit"])] if "unit" in item.metadata else []
    extra += ["one of " + ", ".join(item.metadata["choices"])] if "choices" in item.metadata else []
    tail = f" ({'; '.join(extra)})" if extra else ""
    return f"| `{flag_of(item.name)}` | {default_of(item)} | {item.metadata['help']}{tail} |"
