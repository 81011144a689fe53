"""What chosen settings will do, below the form: images, stages, learning rates, warnings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..data.counting import Images, count_images
from ..errors import InputError
from ..outside.weights import find_weights, hub_cache
from ..settings.config import Config
from ..settings.decide import lr_warnings, short_run
from ..training.schedule import Plan, build_plan
from .picker_fields import alarm, curve, in_the_form, table
from .usable import unusable

COLUMNS = {  # heading: width in plain text
    "stage": 22,
    "epochs": 9,
    "batch x GPUs x accumulated": 28,
    "effective": 11,
    "steps an epoch": 16,
    "learning rate": 0,
}


class Outlook(NamedTuple):
    """Images and plan, None where they cannot be told, and warnings, which then say why."""

    images: Images | None
    plan: Plan | None
    warnings: list[str]
    gpus: int = 1
    accumulated: int = 1
    start: str = ""  # where the network's weights come from

    def stages(self) -> Iterator[Sequence[str]]:
        """Yield a row for each stage, below their headings; nothing without a plan."""
        if self.plan is None:
            return
        yield tuple(COLUMNS)
        for stage in self.plan.stages:
            batch = f"{stage.batch} x {self.gpus} x {self.accumulated}"
            effective = stage.batch * self.gpus * self.accumulated
            first, last = stage.first_epoch + 1, stage.last_epoch
            span = f"{first}-{last}" if last > first else f"{last}"
            row = (stage.name, span, batch, effective, stage.steps, f"{stage.lr:g}")
            yield tuple(map(str, row))

    def plain(self) -> list[str]:
        """Return the lines of it."""
        lines = ["".join(map(str.ljust, row, COLUMNS.values())).rstrip() for row in self.stages()]
        seen = [*([str(self.images)] if self.images else []), *lines, *self.warnings]
        return [*seen, f"starts from {self.start}"] if self.start else seen

    def as_html(self) -> str:
        """Return it for a page: the curve beside the images where there is room."""
        start = [("starts from", self.start)] if self.start else []
        parts = [table([*self.images.rows(), *start])] if self.images else []
        stages = ""
        if self.plan:
            head, *rows = self.stages()
            parts.append(curve(self.plan))
            stages = table(rows, head)
        look = "flex:0 1 auto;max-width:min(100%,38em)"
        parts = [f'<div style="{look}">{part}</div>' for part in parts]
        row = f'<div style="display:flex;flex-wrap:wrap;gap:24px">{"".join(parts)}</div>'
        warnings = "".join(alarm(in_the_form(text, groups=True)) for text in self.warnings)
        return row + stages + warnings


def starts_from(config: Config) -> str:
    """Say where the weights of the network come from, without asking the hub."""
    if config.init_from:
        return f"the weights of {config.init_from}"
    if config.weights:
        return f"the backbone's weights in {config.weights}"
    if not config.pretrained:
        return "random weights, as was chosen: a much lower IoU"
    if found := find_weights(config.backbone) or hub_cache(config.backbone):
        return f"the backbone's weights in {found}"
    return (
        "ImageNet weights of the hub, fetched at the start. Without internet from random weights, "
        "for a much lower IoU, unless a file of weights is named"
    )


def look_ahead(config: Config, gpus: int) -> Outlook:
    """Return what a training of these settings on so many devices will do."""
    images, about = None, (gpus, config.accumulation_steps, starts_from(config))
    told = [text for name, text in unusable(config).items() if name != "dataset_path"]
    try:
        images = count_images(config)
        plan = build_plan(config, images.train, gpus)
    except InputError as error:
        return Outlook(images, None, [*told, str(error)], *about)
    return Outlook(images, plan, [*told, *lr_warnings(config, gpus), *short_run(config)], *about)
