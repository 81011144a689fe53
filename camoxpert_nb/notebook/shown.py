"""What cells show: whether somebody sits there, outputs that change later, and what is let go."""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol

from ..outside.terminal import kernel_shell

# By cell: the count of its last execution, and what that showed.
_shown: dict[str, tuple[int, list[weakref.ref[Any]]]] = {}


class Closable(Protocol):
    """What can be taken off the page."""

    def close(self) -> None:
        """Let go of all widgets and threads."""


def unattended() -> bool:
    """Say whether nobody sits in front of this notebook: then a training cell has to wait.

    The environment decides where it says so: CAMOXPERT_BATCH (1 or 0), or Kaggle's
    KAGGLE_KERNEL_RUN_TYPE. Otherwise the front end does: one that takes no answer to `input()`
    (nbclient, nbconvert, papermill, nbval) has nobody in front of it. A script is attended.
    """
    if batch := os.environ.get("CAMOXPERT_BATCH", ""):
        return batch != "0"
    if os.environ.get("KAGGLE_KERNEL_RUN_TYPE") == "Batch":
        return True
    return _request("content").get("allow_stdin", True) is False


def view_of(widget: Any) -> dict[str, Any]:
    """Return what shows a widget, as a part of a cell's output."""
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return {"application/vnd.jupyter.widget-view+json": view}


def take_place(owner: Closable) -> None:
    """Note that this cell shows `owner`, and close what an earlier execution of it showed.

    What another cell shows too stays. Front ends that do not name their cells close nothing.
    """
    shell, cell = kernel_shell(), cell_name()
    if not cell:
        return
    count, before = _shown.get(cell, (-1, []))
    if count == shell.execution_count:
        before.append(weakref.ref(owner))
        return
    _shown[cell] = shell.execution_count, [weakref.ref(owner)]
    kept = {id(ref()) for _, refs in _shown.values() for ref in refs}
    for old in filter(None, (ref() for ref in before)):
        if id(old) not in kept:
            old.close()


def cell_name() -> str:
    """Return the front end's own name of the cell that runs, or ""."""
    return str(_request("metadata").get("cellId") or "")


def close_all(widget: Any) -> None:
    """Close a widget with all that belongs to it: the page and the kernel forget them."""
    for child in getattr(widget, "children", ()):
        close_all(child)
    for part in (getattr(widget, "layout", None), getattr(widget, "style", None), widget):
        if part is not None:
            part.close()


def _request(part: str) -> dict[str, Any]:
    """Return a part of the message that asked for what runs now; empty outside of a kernel."""
    shell = kernel_shell()
    request = shell.kernel.get_parent("shell") if shell is not None else None
    return dict((request or {}).get(part) or {})
