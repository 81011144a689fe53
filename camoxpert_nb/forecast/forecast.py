"""How long a training will take on cards that are not here, and whether it fits into their memory.

`count` says what its steps do, `on_card` what that takes on a card. Nothing is measured on this
machine and no image is opened, so the answer is the same everywhere; it comes with a range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..data.counting import count_images
from ..data.selection import share_of
from ..machine.cards import Card, find_card
from ..machine.devices import Precision, precision_of
from ..network.backbone import Start
from ..network.build import build_net
from ..outside.spelling import counted
from ..settings.config import Config
from ..settings.decide import begins_trained, decide
from ..training.budget import RESERVE, SESSION
from ..training.memory import MARGIN
from ..training.schedule import Plan, Stage, build_plan
from .count import Steps, Work, count_forward
from .on_card import Span, Step, as_plain, gib_on, largest_batch, step_on

DECODING = Span(4e-3, 10e-3, 25e-3)  # seconds for an image of about 1024 x 768, once
WRITING = (1e9, 3e8, 1e8)  # bytes a second to a disk, flushed: a fast, a usual, a slow one
NUMBERS = 9  # of four bytes a parameter, written each epoch: weights, average, moments, the best


@dataclass(frozen=True)
class Counted:
    """What a training does: steps by their stage's name, one of the hungriest `stage` with another
    batch, and a forward pass; `parameters` of the network.
    """

    steps: Mapping[str, Work]
    stage: Stage
    other: Work
    forward: Work
    parameters: int


def forecast_on(config: Config, on: str, images: int = 0) -> dict[str, Any]:
    """Return, as plain values, what the training will cost on the cards that `on` names.

    `images` to train and validate, of which `val_share` is held out; 0: those of the data set.
    "stages": a row each; "seconds" in all with "low" and "high"; "fits", "largest_batch"; "text":
    all of it in words. Raises InputError for an unknown card, and as `build_plan` does.
    """
    card, count = find_card(on)
    gpus = count if config.parallel != "none" else 1
    train, held_out = _images(config, images)
    config = decide(config, train, gpus)
    plan = build_plan(config, train, gpus)
    precision = precision_of(card.capability) if config.amp else Precision(None, "float32")
    counted = count_training(config, plan, precision)
    captured = gpus == 1 and config.cuda_graph
    replayed = captured and not config.gradient_checkpointing
    steps = {
        name: step_on(card, work, size=config.img_size, gpus=gpus, replayed=replayed)
        for name, work in counted.steps.items()
    }
    between = _between(config, card, counted, -(-held_out // gpus))
    found = _times(plan, steps, between, DECODING.times(train + held_out))
    found |= {"card": card.title, "gpus": gpus, "gib_of_card": card.gib, "tried": card.tried}
    found |= {"precision": precision.reason, "images": train, "validation": held_out}
    found |= _memory(card, counted, gpus)
    found["network"] = (
        f"{config.backbone}, {config.num_experts} experts, {config.img_size} px, "
        f"{config.epochs} epochs"
    )
    return found | {"text": _text(found)}


def count_training(config: Config, plan: Plan, precision: Precision) -> Counted:
    """Return what the steps of a plan do; takes seconds, on any machine."""
    net = build_net(config, empty=True)
    # Weights are not loaded, but norms are frozen where they will be.
    net.start = Start(begins_trained(config), "")
    taken = Steps(config, net, precision)
    works = {
        each.name: taken.count(each.open_blocks, each.batch, each.size) for each in plan.stages
    }
    stage = max(plan.stages, key=lambda each: works[each.name].peak_bytes)
    other = taken.count(stage.open_blocks, stage.batch // 2 or 2, stage.size)
    forward = count_forward(config, net, precision, plan.stages[-1].batch)
    return Counted(works, stage, other, forward, sum(p.numel() for p in net.parameters()))


def _images(config: Config, images: int) -> tuple[int, int]:
    if images:
        held_out = round(images * share_of(config))
        return images - held_out, held_out
    found = count_images(config)
    return found.train, found.validation


def _between(config: Config, card: Card, counted: Counted, held_out: int) -> Span:
    """Return the seconds from one epoch to the next: `held_out` images are scored, all is saved."""
    passes = (1 + config.use_ema) * -(-held_out // counted.forward.images)
    saving = Span(*(NUMBERS * 4 * counted.parameters / speed for speed in WRITING))
    return step_on(card, counted.forward).seconds.times(passes).plus(saving)


def _times(plan: Plan, steps: Mapping[str, Step], between: Span, decoding: Span) -> dict[str, Any]:
    whole, rows = decoding, []
    for stage in plan.stages:
        step = steps[stage.name]
        epoch = step.seconds.times(stage.steps).plus(between)
        whole = whole.plus(epoch.times(stage.epochs))
        rows.append(_row(stage, step, epoch))
    low, likely, high = whole
    return {
        "stages": rows,
        "between_epochs_seconds": between._asdict(),
        "decoding_seconds": decoding.likely,
        "seconds": likely,
        "low": low,
        "high": high,
    }


def _row(stage: Stage, step: Step, epoch: Span) -> dict[str, Any]:
    return {
        "name": stage.name,
        "epochs": stage.epochs,
        "steps": stage.steps,
        "batch": stage.batch,
        "seconds_per_epoch": epoch.likely,
        "seconds_per_epoch_low": epoch.low,
        "seconds_per_epoch_high": epoch.high,
        "seconds": epoch.likely * stage.epochs,
        "gib_per_device": step.gib,
        "step": as_plain(step),
    }


def _memory(card: Card, counted: Counted, gpus: int) -> dict[str, Any]:
    """Return whether all stages fit, and the largest batch of the hungriest one."""
    work, other, stage = counted.steps[counted.stage.name], counted.other, counted.stage
    steps = work.images // stage.batch  # that are accumulated
    gib = {each.images // steps: gib_on(each, gpus) for each in (work, other)}
    return {
        "hungriest": stage.name,
        "largest_batch": largest_batch(card, gib, MARGIN),
        "fits": gib[stage.batch] <= (1 - MARGIN) * card.gib,
    }


def _text(found: Mapping[str, Any]) -> str:
    card, gpus, gib = found["card"], found["gpus"], found["gib_of_card"]
    name = f"{gpus} x {card}" if gpus > 1 else card
    lines = [f"forecast for {name}, counted, not measured; {found['precision']}"]
    lines.append(f"  {found['network']}")
    lines += [_line(row, gib) for row in found["stages"]]
    row = max(found["stages"], key=lambda row: row["seconds"])
    step = row["step"]
    launches = f"{_ms(step['host'])} to launch them" if step["host"]["likely"] else "in one launch"
    lines.append(
        f"  a step of stage {row['name']}: {_ms(step['kernels'])} of kernels, "
        f"{launches}; bound by {step['bound']}"
    )
    if not found["tried"]:
        lines.append("  no step was ever compared on this card: the range is wide")
    lines.append(f"  {_fits(found)}")
    lines.append(f"  {found['images']:,} images to train, {found['validation']:,} to validate")
    lines.append(f"  in all {_about(found['low'], found['seconds'], found['high'])}")
    sessions = -(-found["seconds"] // (60 * (SESSION - RESERVE)))
    if sessions > 1 and "T4" in card:
        lines.append(f"  on Kaggle {sessions:.0f} sessions; a run goes on in the next one")
    return "\n".join(lines)


def _line(row: Mapping[str, Any], gib: float) -> str:
    epoch = _about(*(row[f"seconds_per_epoch{end}"] for end in ("_low", "", "_high")))
    return (
        f"  {'stage ' + row['name']:<22}  {epoch} an epoch, {counted(row['epochs'], 'epoch')}, "
        f"batch {row['batch']}, "
        f"{row['gib_per_device']:.1f} of {gib:.1f} GiB"
    )


def _fits(found: Mapping[str, Any]) -> str:
    largest, stage = found["largest_batch"], found["hungriest"]
    if not largest:
        return f"does NOT fit: not even one image in stage {stage}. Lower --img-size"
    if not found["fits"]:
        return (
            f"does NOT fit: in stage {stage} a batch of {largest} would; see --accumulation-steps"
        )
    return f"fits; in stage {stage} a batch of up to about {largest} would"


def _ms(span: Mapping[str, float]) -> str:
    return f"{1e3 * span['likely']:.0f} ms ({1e3 * span['low']:.0f} to {1e3 * span['high']:.0f})"


def _about(low: float, likely: float, high: float) -> str:
    """Return seconds in words: about 6 h 20 (5 to 8 h)."""
    if likely < 90:
        return f"about {likely:.0f} s ({low:.0f} to {high:.0f})"
    if likely < 90 * 60:
        return f"about {likely / 60:.0f} min ({low / 60:.0f} to {high / 60:.0f})"
    hours, minutes = divmod(round(likely / 600) * 10, 60)
    exact = f"{hours} h {minutes:02d}" if minutes else f"{hours} h"
    return f"about {exact} ({low / 3600:.1f} to {high / 3600:.1f} h)"
