"""What is about to be trained, told before it starts: data, settings, device, and how long."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..outside.spelling import brief
from ..outside.terminal import tell
from ..runs.place import unfinished
from ..runs.process import going_on, other_settings, status
from ..runs.run import NEXT, Run
from ..settings.config import Config
from .choice import count_devices, on_cpu, saved_at
from .measure import measure, measured
from .picker_fields import alarm, table

HOUR = 3600.0  # seconds on a CPU from which somebody has to say yes
PATIENCE = 120.0  # seconds for the measuring itself


class WhatTrains:
    """Data, preset, device and expected time of a training; `agreed` gives its settings away.

    `seconds`: what the training will take, None where that is not known.
    """

    def __init__(self, config: Config, rows: Sequence[tuple[str, str]], notes: Sequence[str]):
        self.config, self.rows, self.notes = config, list(rows), list(notes)
        self.seconds: float | None = None
        self.too_slow = False  # to be measured in two minutes
        self.busy: Run | None = None

    def __repr__(self) -> str:
        return "\n".join([*(f"{name:<10} {text}" for name, text in self.rows), *self.notes])

    def _repr_html_(self) -> str:
        return table(self.rows) + "".join(map(alarm, self.notes))

    def agreed(self, long_on_cpu: bool = False) -> Config:
        """Return the settings to train; InputError where that takes hours on a CPU, unasked.

        long_on_cpu: whether hours are fine.
        """
        hours = self.too_slow or (self.seconds or 0.0) > HOUR
        if long_on_cpu or not hours or self.busy or not on_cpu(self.config):
            return self.config
        how = "far longer than an hour" if self.too_slow else brief(self.seconds or 0.0)
        raise InputError(
            f"nothing was started: without a GPU this training takes {how}. Expected was at most "
            "an hour. Take a machine with a GPU, or choose fewer epochs, smaller images or the "
            "preset 'demo' in 02_configure and save; or set LONG_ON_CPU = True above and run this "
            "again."
        )


def what_trains(
    config: Config,
    settings: Path | str = NEXT,
    data: str = "",
    notes: Sequence[str] = (),
    go_on: bool | None = None,
) -> WhatTrains:
    """Tell what `launch(config)` would train, and measure how long it takes.

    settings: the file that `config` was read from (`chosen`). data: the folder that this notebook
    names itself. notes: sentences to be read with it. go_on: what becomes of a run of these very
    settings that died or was stopped: True: it goes on, False: it is named, and a new one begins;
    None: nothing is said of it. Where a training is going on already, that one is named and nothing
    is measured; neither is a run that is finished.
    """
    busy = going_on(config)
    if go_on is not None:
        config, said = _left(config, go_on, busy)
        notes = [*notes, *said]
    run = Run(config.checkpoint_dir) if config.checkpoint_dir else None
    lives = run is not None and run.exists()
    told = WhatTrains(
        config, _rows(config, settings, lives), [*notes, *_moved(config, settings, data)]
    )
    told.busy = busy
    if told.busy:
        other = other_settings(config, told.busy)
        differs = f", with other settings than these: {other}" if other else ""
        told.rows.append(("time", "is not measured while a training is going on"))
        told.notes.append(f"{told.busy.folder} is being trained already{differs}.")
        return told
    left = 1.0
    if run is not None and lives:
        done = len(run.records("epoch")) / max(config.epochs, 1)
        left = 0.0 if run.newest().get("kind") == "end" else max(1.0 - done, 0.0)
    told.rows.append(("time", _expect(told, left)))
    return told


def left_in_words(run: Run) -> str:
    """Say of a run of these settings that it ended before its end, and how far it came."""
    how = "was stopped" if status(run).name == "stopped" else "died"
    done = f"{run.epochs} of {run.config.epochs} epochs done"
    return f"{run.folder}, of these very settings, {how} with {done}, and is saved."


def _left(config: Config, go_on: bool, busy: Run | None) -> tuple[Config, list[str]]:
    """Return the settings with the folder of the run that goes on, and what to say of it."""
    run = unfinished(config)
    if run is None:
        none = "no run of these settings died or was stopped, so GO_ON = True changes nothing."
        return config, [none] * (go_on and not config.checkpoint_dir and busy is None)
    if go_on and busy is None:
        return config.replace(checkpoint_dir=str(run.folder)), []
    where = "Another training is going on" if busy else "A new run begins beside it"
    first = "stop what trains, " if busy else ""
    return config, [
        f"{left_in_words(run)} {where}. To go on with that one, {first}set GO_ON = True at the top "
        "and run all cells again."
    ]


def _rows(config: Config, settings: Path | str, lives: bool) -> list[tuple[str, str]]:
    path = Path(settings)
    source = f"proposed: nothing is saved in {path}"
    if lives:
        source = f"those of the run in {config.checkpoint_dir}, which goes on"
    elif path.exists():
        source = f"{path}, saved {saved_at(path)}"
    many = count_devices(config)
    device = "CPU" if on_cpu(config) else f"{many} GPU{'s' * (many > 1)}"
    size = f"{config.epochs} epochs at {config.img_size} px, {config.backbone}"
    return [
        ("data", config.dataset_path or "none: camouflage is generated"),
        ("settings", source),
        ("preset", f"{config.preset or 'none'}: {size}"),
        ("device", device),
    ]


def _moved(config: Config, settings: Path | str, data: str) -> list[str]:
    """Say where the data are other ones than those that were saved."""
    path = Path(settings)
    if not path.exists() or Path(config.checkpoint_dir or "/nowhere").exists():
        return []
    saved = Config.load(path).dataset_path
    if saved == config.dataset_path:
        return []
    if data:
        now = f"DATA names {config.dataset_path}, which is trained. Empty, what was saved holds."
    else:
        now = f"that is not here, so {config.dataset_path} is trained. Otherwise attach it again."
    return [f"{path} was saved with {saved or 'generated images'}; {now}"]


def _expect(told: WhatTrains, left: float) -> str:
    """Measure, and say how long it will take; `left` of it is still to be done."""
    config = told.config.replace(checkpoint_dir="")
    if not left:
        return "none: the run is finished"
    try:
        found = measured(config)
        if found is None:
            tell(f"measuring a real step of each stage, for {brief(PATIENCE)} at most ...")
            found = measure(config, limit=PATIENCE)
    except TimeoutError as error:
        told.too_slow = True
        return f"not known: {error}"
    except InputError as error:
        return f"not known: {error}"
    told.seconds = found["seconds"] * left
    end = time.strftime("%a %H:%M", time.localtime(time.time() + told.seconds))
    fits = f"; {found['fits']}" if found.get("fits") else ""
    return f"about {brief(told.seconds)}, until {end} if it starts now{fits}"
