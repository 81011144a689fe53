"""A run's panel as HTML that reads on light and dark grounds: status, log, table of epochs.

Nothing has a ground of its own: text takes the page's colour, rules are half transparent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ..figures.style import BLUE, GREEN, ORANGE, RED
from ..outside.terminal import PAGE, folded
from ..runs.process import tail
from ..runs.records import Watch
from ..runs.run import Run
from .picker_fields import table

LOG_LINES, ROWS = 8, 12
GREY = "#666666"  # dark enough for white text
COLOUR = {"running": BLUE, "paused": ORANGE, "stopping": ORANGE}
COLOUR |= {"finished": GREEN, "died": RED, "gone": RED}
BOX = "font:13px/1.5 sans-serif;padding:4px 8px"
# Keys of epoch records, and how the field calls them.
COLUMNS = ("epoch", "stage", "loss", "iou", "iou_ema", "mae", "images_per_second")
HEADS = {"iou": "IoU", "iou_ema": "IoU, averaged (EMA)", "mae": "MAE"}
HEADS["images_per_second"] = "images/s"


def head_of(watch: Watch, notes: Sequence[str], buttons: bool = True) -> str:
    """The status in a word, the bar, where it is, what to know and what to do.

    buttons: whether they stand beside it.
    """
    now, done = watch.status, round(100 * watch.share_done(), 1)
    colour = COLOUR.get(now.name, GREY)
    ink = "#000" if colour == ORANGE else "#fff"
    process = f", process {now.pid}" if now.pid else ""
    folder = f'<span title="{escape(str(watch.run.folder))}">{escape(watch.name)}</span>'
    advice = re.sub("`(.+?)`", r"<code>\1</code>", escape(watch.advice(buttons)))
    facts = ", ".join(filter(None, [watch.place(), watch.best(), watch.saved()]))
    warnings = [
        f'<div style="color:{RED};white-space:pre-wrap">{escape(text)}</div>'
        for text in (now.cause, *notes)
        if text
    ]
    return (
        f'<div style="{BOX}"><span style="background:{colour};color:{ink};padding:1px 8px;'
        f'border-radius:3px;font-weight:600">{now.name}</span> {folder}{process}'
        f'<div role="progressbar" aria-valuenow="{done:g}" aria-valuemin="0" aria-valuemax="100" '
        f'style="background:rgba(128,128,128,0.3);height:8px;margin:5px 0"><div style="'
        f'background:{colour};height:8px;width:{done:g}%"></div></div>{escape(facts)}'
        f"{''.join(warnings)}<div>{advice}</div></div>"
    )


def log_of(run: Run) -> str:
    """The last lines of the log."""
    lines = [folded(line, PAGE) for line in tail(run.folder / "log.txt", LOG_LINES)]
    text = escape("\n".join(lines))
    shape = "margin:0;font:11px/1.4 monospace;white-space:pre;overflow-x:auto;background:none"
    return f'<div style="{BOX}"><b>Log</b><pre style="{shape}">{text}</pre></div>' if lines else ""


def table_of(epochs: Sequence[Mapping[str, Any]]) -> str:
    """The last epochs in numbers."""
    names = [name for name in COLUMNS if any(record.get(name) is not None for record in epochs)]
    rows = [[_cell(record.get(name)) for name in names] for record in epochs[-ROWS:]]
    head = [HEADS.get(name, name) for name in names]
    return f'<div style="{BOX}"><b>Epochs</b>{table(rows, head)}</div>' if rows else ""


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str("" if value is None else value)
