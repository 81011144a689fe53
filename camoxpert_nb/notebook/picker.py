"""The settings as a form, made from the settings table, with what they will do beside it.

Every field is a core widget (ipywidgets 7.7 to 8.1). A value that cannot be used is answered with
the sentence of its InputError; the last good settings stay until it is mended. Measuring memory and
time needs PyTorch and the GPU, so a child process does it and the notebook's kernel stays light.
"""

from __future__ import annotations

import contextlib
import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from IPython.display import display

from ..data.counting import forget_images
from ..data.selection import find_data
from ..errors import InputError
from ..runs.run import NEXT
from ..settings.checks import flag_of
from ..settings.config import GROUPS, PRESETS, Config, make_config
from ..settings.decide import told
from ..settings.recipe import IN_PROPORTION
from . import choice
from .choice import command_line, count_devices, on_this_machine, propose, unsaved, words_of
from .estimating import Estimate
from .outlook import look_ahead
from .picker_fields import (
    ITEMS,
    LABEL,
    alarm,
    as_text,
    help_of,
    in_the_form,
    make_field,
    muted,
    names_of,
    note,
    shown,
    table,
    until_mended,
    value_of,
)
from .shown import close_all, take_place, unattended, view_of
from .usable import unusable

ESSENTIAL = ("dataset_path", "img_size", "backbone", "epochs", "batch_size", "lr")
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
        self.estimating = Estimate(lambda: self._config)
        self.save_button = widgets.Button(description="Save", button_style="primary")
        self.saved = widgets.HTML()
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
        time of each stage, or why they are not known. Raises InputError with the child's words when
        these settings or images cannot train, or no such card is known.
        """
        return self.estimating.text()

    def close(self) -> None:
        """Let go of the widgets; `config` stays."""
        close_all(self.box)

    def __repr__(self) -> str:
        return "\n".join([self._settings(), "", *self._seen.plain(), "", self.command_line()])

    def _settings(self) -> str:
        lines = [f"preset {self._config.preset}"]
        for name, value, about in self._rows():
            lines.append(f"  {name:<22} {value:<14} {about}" if about else f"\n{name}")
        return "\n".join(lines)

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        """Yield each group's name, then its settings: name, value, what it means."""
        found = self._marks()
        for group in GROUPS:
            yield group, "", ""
            for name in names_of(group):
                mark = f" ({found[name]})" if name in found else ""
                yield name, as_text(getattr(self._config, name)), f"{help_of(name)}{mark}"

    def _ipython_display_(self) -> None:
        # What a widget says of itself differs between ipywidgets 7 and 8, and is no table.
        rows = [("preset", self._config.preset, ""), *self._rows()]
        settings = table(rows)  # a page breaks long lines of plain text anywhere
        take_place(self)
        self._note_saved()
        bundle: dict[str, Any] = {
            "text/plain": repr(self),
            "text/html": settings + self._seen.as_html(),
        }
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
        buttons = widgets.HBox([self.estimating.row, self.save_button, self.saved])
        below = [self.changed, self.outlook, buttons, self.estimating.shown, self.command]
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
            self.fields[f"{name}_batch"].value = (
                "0" if own else as_text(getattr(usual, f"{name}_batch"))
            )

    def _keep_shares(self, epochs: str) -> None:
        """Let what nobody set keep its share of the epochs, as on the command line."""
        if self._quiet:  # what cannot be is answered by `_read`
            return
        own = told(self._config, self._usual_here())
        with self._silence(), contextlib.suppress(InputError):
            usual = make_config(self._config.preset, epochs=value_of("epochs", epochs))
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
            config = Config(preset=self.preset.value, **values)
            self._refuse_unusable(config)
            self._accept(config)
        except InputError as error:
            self.problem = str(error)
            self._note_changes()
            wrong = [name for name in self.helps if f"{flag_of(name)} " in self.problem]
            for name in wrong:  # said where it is wrong, and once
                self.helps[name].value = alarm(in_the_form(self.problem))
            self.message.value = alarm(until_mended(in_the_form(self.problem, True), wrong))
            self._note_saved()

    def _refuse_unusable(self, config: Config) -> None:
        """Raise InputError for what was typed and is not here; data may be, where it trains."""
        for name, text in unusable(config).items():
            if getattr(config, name) != getattr(self._config, name) and name != "dataset_path":
                raise InputError(text)

    def _accept(self, config: Config) -> None:
        self._config, self.problem = config, ""
        self._seen = look_ahead(config, self._count())
        self.message.value = self.estimating.shown.value = ""
        self._note_saved()
        changes = self._note_changes()
        named = ", ".join(f"<b>{name}</b> {html.escape(as_text(v))}" for name, v in changes.items())
        self.changed.value = f"differs from <b>{config.preset}</b> in: {named or 'nothing'}"
        self.outlook.value = self._seen.as_html()
        self.command.value = " ".join(words_of(config))  # the field breaks it itself

    def _note_changes(self) -> dict[str, Any]:
        """Say beside each field what it means and what holds without it; return what differs."""
        found = self._marks()
        for name, line in self.helps.items():
            line.value = note(name, found.get(name, ""))
            if self.fields[name].has_trait("placeholder"):
                self.fields[name].placeholder = found.get(name, "")  # seen where it is empty
        return told(self._config, self._usual_here())

    def _marks(self) -> dict[str, str]:
        images, here = self._seen.images, self._usual_here()
        return choice.marks(self._config, here, images.train if images else 0, self._count())

    def _count(self) -> int:
        return count_devices(self._config) if self._devices is None else self._devices
