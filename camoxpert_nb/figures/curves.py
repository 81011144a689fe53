"""Curves from records, as SVG: text in, text out, a hundred times quicker than a plot.

Each panel is a picture with its data in its address: what shows untrusted notebooks takes inline
SVG apart, and lets pictures be. They have no ground; their ink reads on a light and a dark page.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..runs.history import kept_epoch
from ..settings.config import EXPERTS
from .stages import upright
from .style import BLACK, BLUE, COLOURS, GREEN, ORANGE, RED, TERMS

Records = Sequence[Mapping[str, Any]]
Values = NDArray[np.float64]

IOUS = {"iou": "raw weights", "iou_ema": "averaged (EMA)"}
SPEED, WAITS = "images_per_second", "data_wait_percent"
MOST = 300  # points a line: a panel is not much wider in pixels
WIDTH, HEIGHT = 440, 230
LEFT, RIGHT, BOTTOM = 46, 12, 34  # margins in pixels; title and legend make the one at the top
LETTER = 6.0  # mean width in pixels, at the legend's size
INK, RULE = "#757575", "rgba(128,128,128,0.3)"  # 4.6 to 1 on white, 4.1 to 1 on #111
NOTE = "font:12px sans-serif;padding:4px 8px"


class Line(NamedTuple):
    """One curve: its name, its points (NaN: a gap), and how it is drawn."""

    label: str
    x: Values
    y: Values
    colour: str
    dashed: bool = False
    ring: bool = False  # around single points instead


class Panel(NamedTuple):
    """What one panel shows, however it is drawn.

    top: the axis reaches at least there. log: a log axis, with gaps where a value is 0. stacked:
    lines lie on each other, each the sum of its share and all before it.
    """

    title: str
    unit: str
    lines: list[Line]
    top: float = 0.0
    log: bool = False
    stacked: bool = False


def panels_of(
    x: Values,
    records: Records,
    at: Values,
    epochs: Records,
    target: float | None,
    loss: str = "structure",
) -> list[Panel]:
    """Return the panels of a run; the live curves and the saved figure draw the same ones.

    `records` are of steps or of epochs, `x` is where each stands in epochs; `at` where each of
    `epochs` does. What was not recorded, as GPUs on a CPU, has no line; nor has a term that is off.
    `loss` is what the loss of the map is called. A validation curve that turns away from its
    training curve tells of over-fitting.
    """
    speed, waits = (_lines(at, epochs, {key: BLUE}, "last epoch") for key in (SPEED, WAITS))
    return [
        Panel(
            "Training and validation loss", "mean per image", _losses(x, records, at, epochs, loss)
        ),
        Panel("Validation and training IoU", "0 to 1", _iou(at, epochs, target)),
        rate_panel(x, records),
        Panel("Expert share", "% of the weight", _shares(at, epochs), stacked=True),
        Panel("Training speed", "images/s", speed),
        Panel("Waiting for data", "% of the time", waits, 10),
        Panel("GPU use", "%", _groups(at, epochs, "gpu_percent"), 100),
        Panel("GPU memory", "GiB", _groups(at, epochs, "gpu_memory_gib")),
    ]


def rate_panel(x: Values, records: Records) -> Panel:
    """Return the learning rates of records that stand at `x`, in epochs; they jump upright."""
    return Panel("Learning rate", "log scale", _groups(*upright(x, records), "lr"), log=True)


def panels(
    steps: Records, epochs: Records, *, total: int, target: float, loss: str = "structure"
) -> str:
    """Return the curves of a run as HTML, as many in a row as fit, epochs on each horizontal axis.

    `steps` and `epochs` are the records of these kinds, in order; `total` epochs are planned;
    `target` is the IoU to reach; `loss` is panels_of's.
    """
    at, few = column(epochs, "epoch"), steps[:: len(steps) // (10 * MOST) + 1]
    so_far = epochs_done(column(few, "step"), epochs, few[-1]["steps"] if few else 0, total)
    right = max([1.0, *at[-1:], *so_far[-1:]])  # one axis for all, so that panels can be compared
    drawn = [picture(panel, right) for panel in panels_of(so_far, few, at, epochs, target, loss)]
    later = "IoU, experts and speed follow after each epoch." if steps else "No step was taken yet."
    note = "" if epochs else f'<div style="{NOTE}">{later}</div>'
    return f"{note}<div>{''.join(drawn)}</div>"


def picture(panel: Panel, right: float) -> str:
    """Return `plot`'s panel as an <img> that carries it, with its values for screen readers."""
    svg = plot(panel, right)
    if not svg:
        return ""
    data = base64.b64encode(svg.encode()).decode()
    words = svg.partition('aria-label="')[2].partition('"')[0]
    return (
        f'<img role="img" alt="{words}" width="{WIDTH}" style="width:{WIDTH}px;max-width:100%" '
        f'src="data:image/svg+xml;base64,{data}"/>'
    )


def plot(panel: Panel, right: float) -> str:
    """Return a panel as an SVG element with axes, legend and a line for screen readers, or "".

    The horizontal axis runs from 0 to `right` epochs; the vertical one from 0 to the highest
    value, or with `log` from below the lowest positive one.
    """
    lines = _without_traces([_thin(_seen(line), panel.log) for line in panel.lines], panel.log)
    legend, above = _legend(lines, panel.stacked)
    frame = _frame(lines, above, right, panel.top, panel.log)
    if frame is None:
        return ""
    title = escape(panel.title)
    head = f'<tspan font-weight="600">{title}</tspan>, {escape(panel.unit)}'
    parts = [_text(8, 16, head, size=13), *legend, *_axes(frame)]
    ground = lines[0]._replace(y=np.zeros(len(lines[0].x)))
    for line, below in zip(lines, [ground, *lines], strict=False):
        wide = 2.6 if line is lines[0] else 1.4  # what lies exactly on the first stays visible
        parts.append(_area(line, below, frame) if panel.stacked else _curve(line, frame, wide))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{title}: '
        f'{escape(", ".join(map(with_value, lines)))}" viewBox="0 0 {WIDTH} {HEIGHT}" width="'
        f'{WIDTH}" height="{HEIGHT}" font-family="sans-serif">{"".join(parts)}</svg>'
    )


def epochs_done(step: Any, epochs: Records, steps: int, total: int) -> Values:
    """Return how many epochs are over at each step: exact at their ends, in proportion between."""
    at, done = [0, *column(epochs, "step"), steps], [0, *column(epochs, "epoch"), total]
    return np.asarray(np.interp(step, at, done))


def _lines(x: Values, records: Records, colours: Mapping[str, str], label: str = "") -> list[Line]:
    """A line for each key that was ever recorded."""
    lines = [Line(label or k, x, column(records, k), colour) for k, colour in colours.items()]
    return [line for line in lines if np.isfinite(line.y).any()]


def _groups(x: Values, records: Records, key: str) -> list[Line]:
    """A line for each name, or each GPU, that the values of a key belong to."""
    rows = [
        each if isinstance(each, Mapping) else {f"GPU {i}": value for i, value in enumerate(each)}
        for each in (record.get(key) or {} for record in records)
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return _lines(x, rows, dict(zip(names, (BLUE, RED, GREEN, *COLOURS), strict=False)))


def _losses(x: Values, records: Records, at: Values, epochs: Records, loss: str) -> list[Line]:
    """The loss, its terms as they add up to it, and the first term, `loss`, in validation.

    A term that weighs nothing has no line. Older records have their terms without weights, and of
    these only structure, whose weight is 1, can stand beside the sum.
    """
    weighted = [
        record.get("weighted") or {"structure": record.get("structure")} for record in records
    ]
    terms = [line for line in _lines(x, weighted, TERMS) if np.nan_to_num(line.y).any()]
    terms = [line._replace(label=loss) if line.label == "structure" else line for line in terms]
    validation = _lines(at, epochs, {"val_loss": RED}, f"{loss}, validation")
    return [*_lines(x, records, {"loss": BLACK}, "loss, the sum"), *terms, *validation]


def _iou(at: Values, epochs: Records, target: float | None) -> list[Line]:
    lines = _lines(at, epochs, {"iou": GREEN, "iou_ema": BLUE})
    if lines:
        lines = [line._replace(label=IOUS[line.label]) for line in lines]
        if kept := kept_epoch(epochs):
            place, y = at[[kept.place]], np.array([kept.iou])
            lines.append(Line(f"best, epoch {place[0]:g}:", place, y, BLACK, ring=True))
    lines += _lines(at, epochs, {"train_iou": ORANGE}, "training, as augmented")
    if lines and target is not None:
        lines.append(Line("target", np.array([0, at[-1]]), np.full(2, target), RED, dashed=True))
    return lines


def _shares(at: Values, epochs: Records) -> list[Line]:
    """Lines that lie on each other: each is its expert's share plus all before it."""
    known = [index for index, record in enumerate(epochs) if record.get("gates")]
    if not known:
        return []
    tops = np.cumsum([100 * np.mean(epochs[index]["gates"], 0) for index in known], 1)
    tops, x = np.vstack([tops[:1], tops]), np.append(at[known[0]] - 1, at[known])  # from its start
    named = zip(EXPERTS, tops.T, COLOURS, strict=False)
    return [Line(name, x, top, colour) for name, top, colour in named]


def column(records: Sequence[Mapping[Any, Any]], key: Any) -> Values:
    """Return the values of one key, NaN where a record lacks it or holds no number."""
    values = [record.get(key) for record in records]
    return np.array([x if isinstance(x, (int, float)) else np.nan for x in values], dtype=float)


def _seen(line: Line) -> Line:
    """Return a black line in the ink that a dark page shows, too."""
    return line._replace(colour=INK) if line.colour == BLACK else line


def _thin(line: Line, log: bool) -> Line:
    """Return the line without what cannot be drawn, at most MOST points, means of neighbours."""
    size = -(-len(line.x) // MOST) or 1
    whole = np.isfinite(line.y) & ((line.y > 0) | (not log))
    starts = np.arange(0, len(line.x), size)
    if not len(starts):
        return line
    weight = np.add.reduceat(whole.astype(float), starts)
    y = np.add.reduceat(np.where(whole, line.y, 0.0), starts)
    x = np.add.reduceat(line.x, starts) / np.diff([*starts, len(line.x)])
    return line._replace(x=x, y=np.divide(y, weight, out=np.full(len(y), np.nan), where=weight > 0))


class _Frame(NamedTuple):
    """The room inside the axes, and which values it stands for."""

    above: int  # pixels that title and legend take
    right: float
    low: float
    high: float
    ticks: list[float]
    log: bool

    def place(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return the pixels of points."""
        share = np.log(y / self.low) / np.log(self.high / self.low) if self.log else y / self.high
        bottom = HEIGHT - BOTTOM
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / self.right
        return np.round(across, 1), np.round(bottom - (bottom - self.above) * share, 1)


def _frame(lines: Sequence[Line], above: int, right: float, top: float, log: bool) -> _Frame | None:
    """Return a frame that holds every point, or None when there is none."""
    values = np.concatenate([np.zeros(0), *(line.y[np.isfinite(line.y)] for line in lines)])
    if not len(values):
        return None
    if not log:
        high = 1.04 * max(values.max(), top, 1e-9)
        return _Frame(above, right, 0.0, high, _ticks(high), log)
    lowest, highest = (math.floor(math.log10(each)) for each in (values.min(), values.max()))
    powers = range(max(lowest, -300), min(highest + 2, 300))
    marks = np.array([digit * 10.0**power for power in powers for digit in (1, 2, 5)])
    low, high = marks[marks <= values.min()][-1], marks[marks >= values.max()][0]
    inside = marks[(marks >= low) & (marks <= high)]
    few = [mark for mark in inside if len(inside) <= 6 or f"{mark:e}"[0] == "1"]
    return _Frame(above, right, 0.9 * low, 1.1 * high, few, log)


def _ticks(high: float, least: float = 0.0) -> list[float]:
    """Return four to eight round values from 0 to `high`, at least `least` apart."""
    ten = 10.0 ** math.floor(math.log10(high / 6))
    step = max(least, next(ten * digit for digit in (1, 2, 5, 10) if ten * digit >= high / 6))
    return [round(step * index, 10) for index in range(int(high / step + 1e-9) + 1)]


def _axes(frame: _Frame) -> list[str]:
    parts, right, bottom = [], WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in frame.ticks:
        y = frame.place(0, value)[1]
        parts.append(f'<path d="M{LEFT} {y}H{right}" stroke="{RULE}"/>')
        parts.append(_text(LEFT - 5, y + 4, f"{value:g}", "end"))
    for value in _ticks(frame.right, least=1.0):
        x = frame.place(value, frame.high)[0]
        parts.append(f'<path d="M{x} {bottom}v4" stroke="{INK}"/>')
        parts.append(_text(x, bottom + 16, f"{value:g}", "middle"))
    parts.append(f'<path d="M{LEFT} {bottom}H{right}" stroke="{INK}"/>')
    return [*parts, _text(right, HEIGHT - 5, "epoch", "end")]


def _curve(line: Line, frame: _Frame, wide: float) -> str:
    finite, (x, y) = np.isfinite(line.y), frame.place(line.x, line.y)
    shape = f'r="{6 if line.ring else 2.2}" fill="{"none" if line.ring else line.colour}"'
    dots = [
        f'<circle cx="{cx}" cy="{cy}" {shape} stroke="{line.colour}"/>'
        for cx, cy in zip(x[finite], y[finite], strict=True)
    ]
    dash = ' stroke-dasharray="5 3"' * line.dashed
    stroke = f'fill="none" stroke="{line.colour}" stroke-width="{wide}"{dash}'
    path = f'<path d="{_path(x, y)}" {stroke}/>' * (not line.ring)
    return path + "".join(dots) * (len(dots) <= 15 and not line.dashed)


def _area(line: Line, below: Line, frame: _Frame) -> str:
    x, y = frame.place(np.append(line.x, below.x[::-1]), np.append(line.y, below.y[::-1]))
    return f'<path d="{_path(x, y)}Z" fill="{line.colour}" />'


def _path(x: Values, y: Values) -> str:
    parts, pen = [], "M"
    for across, down in zip(x, y, strict=True):
        if math.isfinite(down):
            parts.append(f"{pen}{across:g} {down:g}")
        pen = "L" if math.isfinite(down) else "M"
    return "".join(parts)


def _legend(lines: Sequence[Line], stacked: bool) -> tuple[list[str], int]:
    """Return the legend's parts, and the height in pixels that it and the title take."""
    parts, x, y = [], LEFT, 34
    for line in lines:
        text = line.label if stacked else with_value(line)
        if x > LEFT and x + 14 + LETTER * len(text) > WIDTH:
            x, y = LEFT, y + 15
        pen = f'stroke="{line.colour}" stroke-width="4"' + ' stroke-dasharray="4 2"' * line.dashed
        ring = f'<circle cx="{x + 5}" cy="{y - 4}" r="4.5" stroke="{line.colour}" fill="none"/>'
        parts.append(ring if line.ring else f'<path d="M{x} {y - 4}h10" {pen}/>')
        parts.append(_text(x + 14, y, escape(text)))
        x += int(26 + LETTER * len(text))
    return parts, y + 10


def _without_traces(lines: list[Line], log: bool) -> list[Line]:
    """Return the lines with 0 for what is far less than a pixel: arithmetic left it over."""
    most = max((np.nanmax(np.abs(x.y), initial=0.0) for x in lines if not log), default=0.0)
    return [x._replace(y=np.where(np.abs(x.y) < 1e-5 * most, 0.0, x.y)) for x in lines]


def with_value(line: Line) -> str:
    """Return a line's label with its last value."""
    return " ".join([line.label, *(f"{y:.3g}" for y in line.y[np.isfinite(line.y)][-1:])])


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 11) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{INK}" text-anchor="{anchor}">'
        f"{text}</text>"
    )
