"""A form's parts, made from the settings table: a widget for each setting, and text as HTML."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets

from ..errors import InputError
from ..figures.curves import Line, Panel, picture
from ..figures.style import BLUE, ORANGE, RED
from ..settings.checks import flag_of
from ..settings.config import AUTO, NONE, OPEN, Config, plain_type
from ..training.schedule import Plan
from .choice import rates

ITEMS = {item.name: item for item in dataclasses.fields(Config) if item.name != "preset"}
LABEL = {"description_width": "160px"}
BY_RECIPE = "by the recipe"


def names_of(group: str) -> list[str]:
    """Return the settings of a group, in their order."""
    return [name for name, item in ITEMS.items() if item.metadata["group"] == group]


def make_field(name: str) -> widgets.ValueWidget:
    """Return an empty widget for a setting, with its help as a tooltip."""
    item = ITEMS[name]
    kind, optional = plain_type(item)
    look: dict[str, Any] = {
        "description": name.replace("_", " "),
        "style": LABEL,
        "layout": {"width": "420px" if kind in (str, bool) else "280px"},
    }
    if "choices" in item.metadata:
        field = widgets.Dropdown(options=list(item.metadata["choices"]), **look)
    elif kind is bool and optional:
        choices = [("on", True), ("off", False), (BY_RECIPE, None)]
        field = widgets.Dropdown(options=choices, **look)
    elif kind is bool:
        field = widgets.Checkbox(**look)
    elif kind is int and not optional:
        field = widgets.IntText(**look)
    else:  # a Text takes 1e-4 and, for what may be absent, nothing
        field = widgets.Text(continuous_update=False, **look)
    tip = "tooltip" if field.has_trait("tooltip") else "description_tooltip"  # ipywidgets 8, 7
    setattr(field, tip, help_of(name))
    return field


def shown(field: widgets.ValueWidget, value: Any) -> Any:
    """Return a setting as its widget holds it."""
    return as_text(value) if isinstance(field, widgets.Text) else value


def as_text(value: Any) -> str:
    """Return a setting as people write it; None is nothing."""
    return "" if value is None else str(value)


def value_of(name: str, shown: Any) -> Any:
    """Return what a field means; InputError for what is no number."""
    kind, optional = plain_type(ITEMS[name])
    if not isinstance(shown, str):
        return shown
    text = shown.strip()
    if kind is str:
        return text
    if optional and text.lower() in ("", NONE, *([AUTO] if name in OPEN else [])):
        return None
    try:
        return kind(text)
    except ValueError:
        example = 8 if kind is int else "0.001"
        raise InputError(
            f"{flag_of(name)} is '{text}', but must be a number, as {example} ({help_of(name)})."
        ) from None


def help_of(name: str) -> str:
    """Return a setting's help sentence, with its unit."""
    unit = ITEMS[name].metadata.get("unit")
    return ITEMS[name].metadata["help"] + (f" ({unit})" if unit else "")


def note(name: str, mark: str) -> str:
    """Return a setting's help and, set off from it, what the preset or the recipe has, as HTML."""
    return muted(help_of(name)) + (f" <b>{html.escape(mark)}</b>" if mark else "")


def muted(text: str) -> str:
    """Return text that stands back, as HTML."""
    return f'<span style="opacity:0.7">{html.escape(text)}</span>'


def alarm(text: str) -> str:
    """Return a sentence that must not be overlooked, as HTML."""
    return f'<div style="color:{RED}">{html.escape(text)}</div>'


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Return rows of text as an HTML table."""
    lines = [("th", head)] * bool(head) + [("td", row) for row in rows]
    body = "".join(
        "<tr>"
        + "".join(
            f'<{tag} style="text-align:left">{html.escape(cell)}&emsp;</{tag}>' for cell in cells
        )
        + "</tr>"
        for tag, cells in lines
    )
    return f'<table style="line-height:1.5">{body}</table>'


def curve(plan: Plan) -> str:
    """Return the learning rates over the epochs, drawn."""
    epochs, lines = rates(plan)
    colours = (BLUE, ORANGE)
    drawn = [Line(name, epochs, rate, colours[i]) for i, (name, rate) in enumerate(lines.items())]
    panel = picture(Panel("Learning rate", "no line while 0", drawn, log=True), plan.epochs)
    return f"<div>{panel}</div>"
