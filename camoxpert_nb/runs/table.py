"""The epochs of a run as a flat table, for spreadsheets and for pandas."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from .run import Run

TABLE = "history.csv"
WORDS = ("stage",)  # that stand among the numbers


def write_table(run: Run) -> None:
    """Renew the run's history.csv: a row an epoch, in order, as its history knows them now.

    Whole or not at all, as all files of a run. Raises OSError where the file cannot be replaced.
    """
    run.save_text(TABLE, as_csv(run.records("epoch")))


def as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Return records as comma-separated lines below their names; what one lacks is empty."""
    rows = [flat(record) for record in records]
    names = list(dict.fromkeys(["epoch", *(name for row in rows for name in row)]))
    text = io.StringIO()
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's numbers, and its WORDS, by name; nested ones as "lr/head", "gates/0/3".

    Yes and no are 1 and 0. None, and any other text, is left out.
    """
    found: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, (list, tuple)):
            value = {str(place): each for place, each in enumerate(value)}
        if isinstance(value, Mapping):
            found |= {f"{name}/{below}": each for below, each in flat(value).items()}
        elif isinstance(value, (int, float)):
            found[name] = int(value) if isinstance(value, bool) else value
        elif name in WORDS:
            found[name] = value
    return found
