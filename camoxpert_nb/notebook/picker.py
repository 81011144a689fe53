"""The settings as a form, made from the settings table, with what they will do beside it.

Every field is a core widget (ipywidgets 7.7 to 8.1). A value that cannot be used is answered with
the sentence of its InputError; the last good settings stay until it is mended. Measuring memory and
time needs PyTorch and the GPU, so a child process does it and the notebook's kernel stays light.
"""

from __future__ import annotations

import contextlib
import html
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from IPython.display import display

from ..data.counting import Images, count_images, forget_images
from ..data.selection import find_data
from ..errors import InputError
from ..runs.run import NEXT
from ..settings.checks import flag_of
from ..settings.config import GROUPS, PRESETS, Config, make_config
from ..settings.decide import lr_warnings, short_run, told
from ..settings.recipe import IN_PROPORTION
from ..training.schedule import Plan, build_plan
from . import choice
from .choice import command_line, count_devices, on_this_machine, propose, unsaved
from .measure import measure
from .picker_fields import (
    ITEMS,
    LABEL,
    alarm,
    as_text,
    curve,
    help_of,
    make_field,
    muted,
    names_of,
    note,
    shown,
    table,
    value_of,
)
from .shown import close_all, take_place, unattended, view_of

ESSENTIAL = ("dataset_path", "img_size", "backbone", "epochs", "batch_size", "lr")
STAGE_COLUMNS = {  # heading: width in plain text
    "stage": 7,
    "epochs": 9,
    "trains": 13,
    "batch x GPUs x accumulated": 28,
    "effective": 11,
    "steps an epoch": 16,
    "lr": 0,
}
HERE = "this machine"
# Where an estimate can be for; `camoxpert train --dry-run --on CARD` knows more.
CARDS = (HERE, "t4x2", "t4", "p100", "l4", "a100", "h100", "rtx3060", "rtx3090", "rtx4090")
# Where things are on this machine: choosing a preset leaves these alone.
PLACES = ("dataset_path", "weights", "cache_dir", "checkpoint_dir")


class ConfigPicker:
    """A form for the settings of a training; `config` holds the last good ones.

    Begins with `config`, or with `preset`, or with a proposal for the images in `dataset_path` and
    this machine; without a `dataset_path` Kaggle's mount is tried, then images are generated.
    "Save" writes the settings to `path`. `devices` is the number of GPUs to reckon with; it is
    found out when not given. Printed, or where no widget can be shown, it is a table.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        preset: str = "",
        dataset_path: str = "",
        path: Path | str = NEXT,
        devices: int | None = None,
    ) -> None:
        forget_images()
        self.path, self._devices, self._quiet = Path(path), devices, False
        self.problem = ""
        if config is None:
            data = find_data(dataset_path)
            config = propose(data, devices)
            if preset:
                config = on_this_machine(preset, devices, dataset_path=data)
        self._config = config
        if not self._config.preset:
            self._config = self._config.replace(preset=next(iter(PRESETS)))
        self.fields = {name: make_field(name) for name in ITEMS}
        self.helps = {name: widgets.HTML() for name in ITEMS}
        self.preset = widgets.Dropdown(
            options=list(PRESETS), description="preset", style=LABEL, layout={"width": "420px"}
        )
        self.message, self.outlook, self.changed = (widgets.HTML() for _ in range(3))
        self.command = widgets.Textarea(
            description="in a terminal", rows=2, style=LABEL, layout={"width": "98%"}
        )
        wide = {"width": "220px"}
        self.estimate_button = widgets.Button(description="Estimate memory and time", layout=wide)
        self.card = widgets.Dropdown(options=CARDS, description="on", layout=wide)
        self.save_button = widgets.Button(description="Save", button_style="primary")
        self.estimated, self.saved = widgets.HTML(), widgets.HTML()
        self.box = self._build()
        self.config = self._config
        self._listen()

    @property
    def config(self) -> Config:
        """The last good settings; setting them fills the form."""
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        with self._silence():
            self.preset.value = config.preset
            for name, field in self.fields.items():
                field.value = shown(field, getattr(config, name))
        self._accept(config)

    def command_line(self) -> str:
        """Return the shell command that trains with these settings."""
        return command_line(self._config)

    def save(self, path: Path | str | None = None) -> Path:
        """Write the settings where the next training looks for them, or to `path`; return it."""
        target = Path(path or self.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._config.save(target)
        self._note_saved()
        stale = " The value marked above is not in it." if self.problem else ""
        self.saved.value = f"saved to {html.escape(str(target))}.{stale}"
        return target

    def _note_saved(self) -> None:
        """Say where 03 would train something else than the form shows."""
        said = unsaved(self._config, self.path, bool(self.problem))
        self.saved.value = alarm(said) if said else ""

    def estimate(self) -> str:
        """Measure one real training step on this machine, in a child process.

        With another card chosen, forecast the training there instead. Returns memory per device and
        time of each stage. Raises InputError with the child's words when these settings or images
        cannot train, or no such card is known.
        """
        return str(measure(self._config, self.card.value if self._elsewhere() else "")["text"])

    def close(self) -> None:
        """Let go of the widgets; `config` stays."""
        close_all(self.box)

    def __repr__(self) -> str:
        return "\n".join([self._settings(), "", *self._plain_outlook(), "", self.command_line()])

    def _settings(self) -> str:
        found, lines = self._marks(), [f"preset {self._config.preset}"]
        for group in GROUPS:
            lines.append(f"\n{group}")
            for name in names_of(group):
                value = as_text(getattr(self._config, name))
                mark = f" ({found[name]})" if name in found else ""
                lines.append(f"  {name:<22} {value:<14} {help_of(name)}{mark}")
        return "\n".join(lines)

    def _ipython_display_(self) -> None:
        # What a widget says of itself differs between ipywidgets 7 and 8, and is no table.
        settings = f"<pre>{html.escape(self._settings())}</pre>"
        take_place(self)
        self._note_saved()
        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": settings + self._outlook()}
        display(bundle if unattended() else bundle | view_of(self.box), raw=True)

    # -- building ----------------------------------------------------------------------------

    def _build(self) -> widgets.VBox:
        pages = [widgets.VBox([self._row(name) for name in names_of(group)]) for group in GROUPS]
        tabs = widgets.Tab(children=pages)
        every = widgets.Accordion(children=[tabs], selected_index=None)
        for place, group in enumerate(GROUPS):
            tabs.set_title(place, group)
        every.set_title(0, f"all {len(ITEMS)} settings")
        about = widgets.HTML(muted("where to begin; fills all fields below but the folders"))
        head = widgets.HBox([self.preset, about])
        first = widgets.VBox([head, *(self._row(name) for name in ESSENTIAL)])
        buttons = widgets.HBox([self.estimate_button, self.card, self.save_button, self.saved])
        below = [self.changed, self.outlook, buttons, self.estimated, self.command]
        return widgets.VBox([first, self.message, every, *below])

    def _row(self, name: str) -> widgets.HBox:
        return widgets.HBox([self.fields[name], self.helps[name]])

    def _listen(self) -> None:
        self.preset.observe(lambda change: self._take_preset(change["new"]), "value")
        for name in ("lr", "stage2_lr"):
            self.fields[name].observe(lambda change, name=name: self._settle_batch(name), "value")
        self.fields["epochs"].observe(lambda change: self._keep_shares(change["new"]), "value")
        for field in self.fields.values():
            field.observe(lambda change: self._read(), "value")
        self.save_button.on_click(lambda button: self.save())
        self.estimate_button.on_click(lambda button: self._start_estimate())

    @contextlib.contextmanager
    def _silence(self) -> Iterator[None]:
        """Change fields without an answer to each."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    # -- answering ---------------------------------------------------------------------------

    def _take_preset(self, preset: str) -> None:
        if not self._quiet:
            kept = {name: getattr(self._config, name) for name in PLACES}
            self.config = on_this_machine(preset, self._devices, **kept)

    def _settle_batch(self, name: str) -> None:
        """Let a new rate count for the batch at hand, as on the command line."""
        if self._quiet:
            return
        usual = make_config(self.preset.value)
        own = self.fields[name].value != as_text(getattr(usual, name))
        with self._silence():
            self.fields[f"{name}_batch"].value = 0 if own else getattr(usual, f"{name}_batch")

    def _keep_shares(self, epochs: int) -> None:
        """Let what nobody set keep its share of the epochs, as on the command line."""
        if self._quiet:  # what cannot be is answered by `_read`
            return
        own = told(self._config, self._usual_here())
        with self._silence(), contextlib.suppress(InputError):
            usual = make_config(self._config.preset, epochs=epochs)
            for name in IN_PROPORTION:
                if name not in own:
                    self.fields[name].value = as_text(getattr(usual, name))

    def _usual_here(self) -> dict[str, Any]:
        return choice.usual_here(self._config.preset, self._devices, self._config.device)

    def _read(self) -> None:
        """Take over what the form says, or say why it cannot be."""
        if self._quiet:
            return
        try:
            values = {name: value_of(name, field.value) for name, field in self.fields.items()}
            self._accept(Config(preset=self.preset.value, **values))
        except InputError as error:
            self.problem = str(error)
            self._note_changes()
            for name, line in self.helps.items():  # said where it is wrong, too
                if f"{flag_of(name)} " in self.problem:
                    line.value = alarm(self.problem)
            self.message.value = alarm(f"{error} Until then the last good settings stay.")
            self._note_saved()

    def _accept(self, config: Config) -> None:
        self._config, self.problem = config, ""
        self._seen = self._forecast()
        self.message.value = self.estimated.value = ""
        self._note_saved()
        changes = self._note_changes()
        named = ", ".join(f"<b>{name}</b> {html.escape(as_text(v))}" for name, v in changes.items())
        self.changed.value = f"differs from <b>{config.preset}</b> in: {named or 'nothing'}"
        self.outlook.value = self._outlook()
        self.command.value = self.command_line()

    def _note_changes(self) -> dict[str, Any]:
        """Say beside each field what it means and what holds without it; return what differs."""
        found = self._marks()
        for name, line in self.helps.items():
            line.value = note(name, found.get(name, ""))
            if self.fields[name].has_trait("placeholder"):
                self.fields[name].placeholder = found.get(name, "")  # seen where it is empty
        return told(self._config, self._usual_here())

    def _marks(self) -> dict[str, str]:
        images, here = self._seen[0], self._usual_here()
        return choice.marks(self._config, here, images.train if images else 0, self._count())

    def _start_estimate(self) -> None:
        self.estimate_button.disabled = True
        here = "One real step is measured in a process of its own ..."
        there = "The work of a step is counted in a process of its own ..."
        self.estimated.value = there if self._elsewhere() else here
        self.measuring = threading.Thread(target=self._show_estimate, daemon=True)
        self.measuring.start()

    def _elsewhere(self) -> bool:
        return bool(self.card.value != HERE)

    def _show_estimate(self) -> None:
        try:
            self.estimated.value = f"<pre>{html.escape(self.estimate())}</pre>"
        except InputError as error:
            self.estimated.value = alarm(str(error))
        finally:
            self.estimate_button.disabled = False

    # -- what it will do ---------------------------------------------------------------------

    def _count(self) -> int:
        return count_devices(self._config) if self._devices is None else self._devices

    def _forecast(self) -> tuple[Images | None, Plan | None, list[str]]:
        """Return the images, the plan, and warnings; or, of what cannot be told, the reason."""
        images, config, count = None, self._config, self._count()
        try:
            images = count_images(config)
            plan = build_plan(config, images.train, count)
        except InputError as error:
            return images, None, [str(error)]
        return images, plan, [*lr_warnings(config, count), *short_run(config)]

    def _stages(self, plan: Plan) -> Iterator[Sequence[str]]:
        count, parts = self._count(), self._config.accumulation_steps
        yield tuple(STAGE_COLUMNS)
        for number, stage in enumerate(plan.stages, start=1):
            batch = (f"{stage.batch} x {count} x {parts}", stage.batch * count * parts)
            span = f"{stage.first_epoch + 1}-{stage.last_epoch}"
            yield tuple(map(str, (number, span, stage.name, *batch, stage.steps, f"{stage.lr:g}")))

    def _plain_outlook(self) -> list[str]:
        images, plan, warnings = self._seen
        widths, rows = STAGE_COLUMNS.values(), self._stages(plan) if plan else ()
        lines = ["".join(map(str.ljust, cells, widths)).rstrip() for cells in rows]
        return [*([str(images)] if images else []), *lines, *warnings]

    def _outlook(self) -> str:
        images, plan, warnings = self._seen
        drawn, stages = f"<div>{table(images.rows())}</div>" if images else "", ""
        if plan:
            head, *rows = self._stages(plan)
            drawn, stages = drawn + curve(plan), table(rows, head)
        drawn = f'<div style="display:flex;flex-wrap:wrap;gap:24px">{drawn}</div>'
        return drawn + stages + "".join(map(alarm, warnings))
