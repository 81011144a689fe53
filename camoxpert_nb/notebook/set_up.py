"""The settings cell of the Kaggle notebook, understood: what will train, and what is missing."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from ..data.reading import Reading
from ..data.selection import find_data, input_root
from ..errors import InputError
from ..kaggle.attached import attached_folder
from ..kaggle.missing import missing
from ..kaggle.session import Session, begin
from ..runs.place import unfinished
from ..runs.process import other_settings
from ..runs.run import NEXT, RUNS
from ..settings.config import Config
from .before import left_in_words
from .choice import count_devices, on_cpu, on_this_machine, propose
from .picker_fields import alarm

TOGETHER = "data      together:"  # how a session says what all sets come to


class Ready:
    """What was found and chosen. config: what trains; notes: what must not be overlooked."""

    def __init__(
        self, session: Session, config: Config, notes: list[str], chosen: str = ""
    ) -> None:
        self.session, self.config, self.notes = session, config, notes
        self._lines = [line for line in session.lines if not line.startswith("NOTE")]
        if chosen and len(session.sets) > 1:
            self._lines = [line for line in self._lines if not line.startswith(TOGETHER)]
            self._lines.append(f"chosen    {chosen}; no other set is used")

    @property
    def goes_on(self) -> bool:
        """Say whether an attached run goes on."""
        return self.session.goes_on

    def __repr__(self) -> str:
        return "\n".join([*self._lines, *(f"NOTE      {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        notes = "".join(alarm(f"NOTE: {note}").replace("\n", "<br>") for note in self.notes)
        return f"<pre>{html.escape(chr(10).join(self._lines))}</pre>{notes}"


def set_up(
    data: str = "",
    preset: str = "",
    epochs: int = 0,
    hours: float = 0.0,
    resume: str = "",
    more: Mapping[str, Any] | None = None,
) -> Ready:
    """Look at what is attached and return what will train, and what is missing for it.

    data: a folder, or the name of an attached data set; "" for all that is attached. preset: "" for
    the one that fits this machine. epochs, hours: 0 for the preset's, and for until the session
    ends. resume: as `kaggle.session.begin` takes it. more: other settings by name. An attached run
    keeps its own settings, but for hours, and for epochs where they are given. What was chosen is
    saved in runs/next.json. Raises InputError
    for what cannot be used.
    """
    _refuse_kinds(DATA=(data, str), PRESET=(preset, str), RESUME=(resume, str))
    _refuse_kinds(MORE=({} if more is None else more, Mapping))
    session = begin(resume, settings=False)
    more = {**(more or {}), **_numbers(epochs, hours)}
    folder = str(attached_folder(data)) if data.strip() else session.data
    wanted = _wanted(folder, preset.strip(), more)
    config = wanted
    if session.goes_on:
        own = session.settings(wanted, "")
        keep = {name: more[name] for name in ("epochs", "time_budget") if name in more}
        config = own.replace(**{"time_budget": 0.0, **keep})
        lasts = {"epochs": own.epochs, "time_budget": own.time_budget}
        if preset or more:
            _tell_kept(session, own, _wanted(folder, preset.strip(), {**more, **lasts}))
    RUNS.mkdir(exist_ok=True)
    config.replace(checkpoint_dir="").save(NEXT)  # as if 02 had saved it
    gpus = 0 if on_cpu(config) else count_devices(config)
    notes = [*session.notes, *missing(session, config, gpus, bool(data.strip()))]
    notes += [] if resume.strip() or not input_root().is_dir() else _left_here(config)
    chosen = config.dataset_path if data.strip() else ""
    return Ready(session, config, [_as_said_here(note) for note in notes], chosen)


def _left_here(config: Config) -> list[str]:
    """Say that a run of these settings ended in this session before its end, if one did."""
    run = unfinished(config)
    if run is None:
        return []
    return [
        f"{left_in_words(run)} A new run begins beside it. To go on with that one: "
        f'RESUME = "{run.folder}" in the settings cell, and run all cells again.'
    ]


def _as_said_here(text: str) -> str:
    """Return a sentence that speaks of flags with what stands for them in the settings cell."""
    if "--mask-folder" not in text:
        return text
    here = 'DATA = "..." and MORE = {"image_folder": "...", "mask_folder": "..."}'
    return f"{text}\nIn the settings cell these are {here}."


def _refuse_kinds(**given: tuple[object, type]) -> None:
    """Raise InputError for a value of the settings cell that is of another kind than meant."""
    for name, (value, kind) in given.items():
        if not isinstance(value, kind):
            what = 'a text in quotes, as ""' if kind is str else 'pairs, as {"img_size": 384}'
            raise InputError(
                f"{name} = {value!r}: expected {what}. Change it in the settings cell."
            )


def _numbers(epochs: int, hours: float) -> dict[str, Any]:
    """Return what EPOCHS and HOURS change; InputError where they are no such numbers."""
    for name, value, kinds in (("EPOCHS", epochs, int), ("HOURS", hours, (int, float))):
        if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value < 1e5:
            what = "a whole number, as 60" if kinds is int else "a number, as 11.5"
            raise InputError(f"{name} = {value!r}: expected {what}, or 0 to leave it open.")
    changes: dict[str, Any] = {"epochs": epochs} if epochs else {}
    return changes | ({"time_budget": 60.0 * hours} if hours else {})


def _wanted(folder: str, preset: str, more: Mapping[str, Any]) -> Config:
    """Return the settings that a new run would have."""
    unknown = [name for name in more if name not in Config.__dataclass_fields__]
    if unknown:
        raise InputError(
            f"MORE names {', '.join(unknown)}, which is no setting. Names are those of "
            "`camoxpert train --help`, with _ for -: image_size is img_size, for example."
        )
    if preset or folder:
        changes = {**more, "dataset_path": folder}
        config = on_this_machine(preset or "auto", None, **changes)
        try:
            found = find_data(folder, Reading.of(config)) if folder else ""
        except InputError as error:
            raise InputError(_as_said_here(str(error))) from None
        return config.replace(dataset_path=found)
    base = propose()
    return base.replace(**{**_in_bounds(base, more), **more})


def _in_bounds(base: Config, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the demo's shares of other epochs: a fourth of them is stage one."""
    if "epochs" not in more:
        return {}
    first = max(int(more["epochs"]) // base.epochs, 1)
    return {"stage1_epochs": first, "warmup_epochs": min(first, base.warmup_epochs)}


def _tell_kept(session: Session, own: Config, wanted: Config) -> None:
    """Say which of the settings that were given the attached run does not take over."""
    asked = wanted.replace(dataset_path=own.dataset_path, cache_dir=own.cache_dir)
    other = other_settings(asked, session.run, "in the settings cell") if session.run else ""
    if other:
        session.warn(
            f"the attached run keeps its own settings: {other}. To train those of the settings "
            'cell, begin anew: RESUME = "none".'
        )
