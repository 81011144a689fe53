"""A form's parts, made from the settings table: a widget for each setting, and text as HTML."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import re
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets

from ..errors import InputError
from ..figures.curves import Line, Panel, picture
from ..figures.style import BLUE, ORANGE, RED
from ..settings.checks import BOUNDS, NONE, flag_of
from ..settings.config import AUTO, OPEN, PATHS, Config, plain_type
from ..training.schedule import Plan
from .choice import BY_RECIPE, rates
from .usable import networks

ITEMS = {item.name: item for item in dataclasses.fields(Config) if item.name != "preset"}
LABEL = {"description_width": "160px"}
# What a field is called where its name is a code word; the flag stands in its tooltip.
LABELS = {
    "dataset_path": "data folder",
    "img_size": "image size",
    "noncam": "NonCAM images",
    "val_share": "validation share",
    "augment": "augmentation",
    "cache_dir": "cache folder",
    "num_workers": "loading processes",
    "num_experts": "experts",
    "top_k": "experts that count",
    "width": "decoder channels",
    "pretrained": "ImageNet weights",
    "weights": "file of weights",
    "init_from": "start from a run",
    "stage1_epochs": "epochs of stage one",
    "skip_stage1": "skip stage one",
    "lr": "learning rate",
    "stage2_lr": "rate of stage two",
    "lr_batch": "rate is for a batch of",
    "stage2_lr_batch": "same for stage two",
    "scale_lr": "scale rate with batch",
    "backbone_lr_factor": "backbone's rate",
    "scheduler": "fall of the rate",
    "min_lr": "lowest rate",
    "warmup_epochs": "epochs of warm-up",
    "t_mult": "growth of restarts",
    "progressive_unfreeze": "open step by step",
    "use_ema": "average weights",
    "ema_decay": "decay of the average",
    "target_iou": "target IoU",
    "stop_at_target": "stop at the target",
    "deep_weight": "deep heads' weight",
    "legacy_loss": "older loss",
    "clip": "largest gradient",
    "stage2_batch_size": "batch of stage two",
    "accumulation_steps": "batches in a step",
    "gradient_checkpointing": "recompute",
    "gpus": "GPUs",
    "amp": "mixed precision",
    "cuda_graph": "CUDA graph",
    "join_minutes": "wait for processes",
    "checkpoint_dir": "folder of the run",
    "keep": "best.pt holds",
    "save_minutes": "time between saves",
    "log": "loggers",
}


def names_of(group: str) -> list[str]:
    """Return the settings of a group, in their order."""
    return [name for name, item in ITEMS.items() if item.metadata["group"] == group]


def make_field(name: str) -> widgets.ValueWidget:
    """Return an empty widget for a setting, with its help as a tooltip."""
    item = ITEMS[name]
    kind, optional = plain_type(item)
    look: dict[str, Any] = {
        "description": label_of(name),
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
    elif name == "backbone":  # any part of a name lists those that hold it
        names = sorted(networks())
        field = widgets.Combobox(options=names, continuous_update=False, **look)
    else:  # a number field of the browser would make 965 of 96.5, and 12 of 1e2
        field = widgets.Text(continuous_update=False, **look)
    tip = "tooltip" if field.has_trait("tooltip") else "description_tooltip"  # ipywidgets 8, 7
    setattr(field, tip, f"{flag_of(name)}: {help_of(name)}")
    return field


def label_of(name: str) -> str:
    """Return what a setting is called beside its field."""
    return LABELS.get(name, name.replace("_", " "))


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
        return "" if name in PATHS and text.lower() == NONE else text
    if optional and text.lower() in ("", NONE, *([AUTO] if name in OPEN else [])):
        return None
    try:
        return kind(text)
    except ValueError:
        raise InputError(_no_number(name, text)) from None


def _no_number(name: str, text: str) -> str:
    """Return the sentence on a text that stands where a number must."""
    item, (kind, _) = ITEMS[name], plain_type(ITEMS[name])
    bounds = [(words, item.metadata[key]) for key, words, _ in BOUNDS if key in item.metadata]
    limits = " and ".join(f"{words} {bound}" for words, bound in bounds)
    example = item.default if item.default is not None else 8 if kind is int else 0.001
    found = f"is '{text}'" if text else "is empty"
    whole = "whole " * (kind is int)
    meant = ""
    with contextlib.suppress(ValueError, OverflowError):
        if kind is int and float(text) == int(float(text)):
            meant = f" Write {int(float(text))}."
    return (
        f"{flag_of(name)} {found}, but must be a {whole}number, {limits}, as {example} "
        f"({help_of(name)}).{meant}"
    )


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


def in_the_form(text: str, groups: bool = False) -> str:
    """Return a sentence that speaks of flags with what their fields are called.

    groups: also the page of the form on which each stands.
    """

    def called(found: re.Match[str]) -> str:
        name = found[1].replace("-", "_")
        page = f" ({ITEMS[name].metadata['group']})" if groups and name in ITEMS else ""
        return f"'{label_of(name)}'{page}" if name in ITEMS else found[0]

    return re.sub(r"(?<![\w-])--([a-z][a-z0-9-]*)", called, text)


def until_mended(problem: str, wrong: Sequence[str]) -> str:
    """Return what stands below the form: which fields are `wrong`, or a problem that is of none."""
    stay = "Until then the last good settings stay."
    if not wrong:
        return f"{problem}{'' if problem.endswith(('.', '!', '?')) else '.'} {stay}"
    named = " and ".join(f"'{label_of(name)}' ({ITEMS[name].metadata['group']})" for name in wrong)
    return f"To be mended: {named}. What is wrong stands beside it. {stay}"


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Return rows of text as an HTML table, whose first column is not broken."""
    lines = [("th", head)] * bool(head) + [("td", row) for row in rows]
    look, whole = "text-align:left;vertical-align:top", ";white-space:nowrap"
    body = "".join(
        "<tr>"
        + "".join(
            f'<{tag} style="{look}{whole * (not i)}">{html.escape(cell)}&emsp;</{tag}>'
            for i, cell in enumerate(cells)
        )
        + "</tr>"
        for tag, cells in lines
    )
    return f'<table style="line-height:1.5">{body}</table>'


def curve(plan: Plan) -> str:
    """Return the learning rates over the epochs, drawn."""
    epochs, lines = rates(plan)
    colours = (BLUE, ORANGE)
    drawn = [
        Line(f"{name}, in the end", epochs, rate, colours[i])  # its last value follows
        for i, (name, rate) in enumerate(lines.items())
    ]
    unit = "log scale, no line while it is 0"
    panel = picture(Panel("Learning rate", unit, drawn, log=True), plan.epochs)
    return f"<div>{panel}</div>"
