"""A run's model card: one HTML file that holds all of it and opens without a network."""

from __future__ import annotations

import base64
import dataclasses
import io
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ..evaluation.compare import run_performance
from ..evaluation.judge import Judged
from ..evaluation.published import compared_with_published, why_not_comparable
from ..evaluation.scores import LABELS, Mean, number
from ..outside.paths import file_name
from ..outside.refused import naming
from ..runs.records import in_words
from ..runs.run import Run
from ..runs.whole import inside
from ..settings.config import Config
from .canvas import try_to_draw
from .results import show_among_published, show_test, training_figures
from .thresholds import show_curves

Say = Callable[[str], None]
_STYLE = """
body { max-width: 1000px; margin: 2em auto; padding: 0 1em; color: #111; background: #fff;
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7em; } h2 { margin-top: 2em; border-bottom: 2px solid #0072B2; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums;
  font-size: 0.9em; display: block; overflow-x: auto; }
th, td { padding: 0.2em 0.8em 0.2em 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #ddd; overflow-wrap: break-word; }
@media (min-width: 700px) { td:first-child { white-space: nowrap; } }
img { max-width: 100%; } figure { margin: 1em 0; } figcaption { color: #444; }
.warning { border-left: 4px solid #D55E00; padding-left: 0.8em; }
@media print { body { margin: 0; } h2, tr, figure { break-inside: avoid; } }
"""
_MEASURE = (
    "Each map is stretched to its mask's own size and its values to 0...1. IoU and Dice are taken "
    "at threshold 0.5, image by image, then averaged; the other measures are those of pysodmetrics "
    "1.6. Boundary IoU is the IoU of the outlines alone, 2 % of the diagonal broad (Cheng et al., "
    "CVPR 2021); published tables do not give it. In brackets: 95 % interval "
    "from resampling the images."
)


def write_report(
    run: Run,
    judged: Sequence[Judged] = (),
    path: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Write the run's report as one HTML file (default RUN/report.html) and return its path.

    judged: the results of `judge.judge`, as many as are to be shown. By default the report is also
    kept as `kept_as` says, where a report on other sets does not replace it. `say` is told what
    picture could not be drawn. Raises InputError for a folder that is no run.
    """
    config, summary = Config.load(run.config_path), run.load_json("summary")
    title = f"{run.folder.resolve().name}: {config.backbone}, {config.img_size} px"
    body = [
        _tag("h1", title),
        *_opening(config, summary),
        *_results(judged),
        *(part for one in judged for part in _one_set(run, one, say)),
        *_training(run, say),
        *_data(run, summary),
        *_limits(config, summary, judged),
        *_settings(config),
    ]
    paths = [Path(path)] if path else [inside(run.folder, "report.html"), *kept_as(run, judged)]
    sized = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{sized}<title>{escape(title)}</title><style>{_STYLE}</style>'
    text = "\n".join(["<!doctype html>", '<html lang="en">', head, *body, "</html>", ""])
    for each in paths:
        with naming(each):
            each.parent.mkdir(parents=True, exist_ok=True)
            each.write_text(text, encoding="utf-8", errors="backslashreplace")
    return paths[0]


def kept_as(run: Run, judged: Sequence[Judged]) -> list[Path]:
    """Return where a report on these sets is kept beside RUN/report.html, the newest of all.

    RUN/reports/CAMO.html, or the names of several sets with + between; nowhere without a set.
    """
    parts = sorted(one.name + ("" if one.split != "all" else " all") for one in judged)
    return [inside(run.folder, "reports", f"{file_name('+'.join(parts))}.html")] if parts else []


def _opening(config: Config, summary: Mapping[str, Any]) -> Iterable[str]:
    best = summary.get("best") or {}
    yield _tag(
        "p",
        f"A network that finds camouflaged objects: {config.backbone} with {config.num_experts} "
        f"experts; starting weights: {summary.get('weights_source', 'an unknown source')}. "
        + (f"Best validation IoU {best['iou']:.3f} at epoch {best['epoch']}. " if best else "")
        + f"Written {time.strftime('%Y-%m-%d %H:%M')}.",
    )
    if not summary.get("finished"):
        yield _tag("p", "This training has not ended; all numbers are of its state so far.", True)
    if str(summary.get("weights_source", "")).startswith("none"):
        yield _tag(
            "p",
            "The backbone began with random weights, and scores are much lower for it.",
            True,
        )


def _results(judged: Sequence[Judged]) -> Iterable[str]:
    yield _tag("h2", "Results")
    if not judged:
        yield _tag("p", "No test set has been scored; the validation IoU below is all there is.")
        return
    rows = {f"{one.name} (n = {one.scores.n})": _means(one) for one in judged}
    yield _table(pd.DataFrame(rows).reset_index(names="measure"))
    yield _tag("p", _MEASURE)
    for one in judged:
        yield _tag("p", f"{one.name}: {one.note}. {one.scores.note}", one.trained > 0)


def _means(one: Judged) -> dict[str, str]:
    scores, interval = one.scores, one.scores.interval
    rows = {LABELS[name]: number(scores.mean[name], 3, interval.get(name)) for name in scores.mean}
    rows["pooled IoU"] = number(scores.other["pooled_iou"])
    if one.threshold:
        at = number(scores.iou_at(one.threshold.value))
        rows["IoU at validation's threshold"] = f"{at} at {one.threshold.value:.3f}"
    rows["images without object"] = str(scores.n_empty)
    rows["network, seconds per image"] = number(scores.seconds_per_image, 4)
    return rows


def _one_set(run: Run, one: Judged, say: Say) -> Iterable[str]:
    yield _tag("h2", one.name)
    for title, groups in (
        ("size of the object, share of the image", one.scores.by_size),
        ("super-class", one.scores.by_class),
    ):
        if groups:
            yield _table(pd.DataFrame([_group(title, row) for row in groups]))
    if views := one.gain or one.offer:
        yield _tag("p", f"Test-time augmentation: {views.strip()}.")
    yield _figure(
        lambda: show_test(one), say, f"Images of {one.name}, from the best to the worst IoU."
    )
    yield _figure(
        lambda: show_curves({one.name: one.scores}, one.name),
        say,
        f"{one.name}: precision over recall, F and E over the thresholds.",
    )
    reason = why_not_comparable(one.scores, one.name, split=one.split, trained=one.trained)
    if reason:
        yield _tag("p", f"Not set beside published results. {reason}")
        return
    config = Config.load(run.config_path)
    table = compared_with_published(
        one.scores,
        one.name,
        split=one.split,
        trained=one.trained,
        name=f"this run, {one.views.in_words()}" if one.plain else "this run",
        backbone=config.backbone,
        input_size=str(config.img_size),
    )
    yield _figure(
        lambda: show_among_published(table), say, f"{one.name}: this run among published results."
    )
    shown = table.drop(columns=["dataset", "low", "high"]).rename(columns=LABELS)
    yield _table(shown)


def _group(title: str, row: Mapping[str, Any]) -> dict[str, str]:
    mean: Mean = row["mean"]
    others = {LABELS[name]: number(mean[name]) for name in ("s_measure", "weighted_f", "mae")}
    iou = number(mean["iou"], 3, row["interval"])
    return {title: row["group"], "images": str(row["n"]), "IoU": iou, **others}


def _training(run: Run, say: Say) -> Iterable[str]:
    yield _tag("h2", "Training")
    rows = in_words(run_performance(run)).items()
    yield _table(pd.DataFrame(rows, columns=["figure", "measured"]))
    captions = {
        "curves": "The training, epoch by epoch.",
        "validation": "Validation images as the last epoch predicted them.",
        "experts": "How much each expert was used on the validation images shown.",
    }
    figures = try_to_draw(lambda: training_figures(run), say, "the figures of the training") or {}
    for name in figures:
        yield _figure(partial(figures.__getitem__, name), say, captions[name])


def _data(run: Run, summary: Mapping[str, Any]) -> Iterable[str]:
    data, split = summary.get("data", {}), run.load_json("split")
    rows = {
        "folder": data.get("root", ""),
        "training images": len(split.get("train", [])),
        "validation images": len(split.get("validation", [])),
        "fingerprint (sha256 over names, sizes and times of the files)": data.get("fingerprint"),
        "test images found among the training images": len(data.get("leaks", [])),
    }
    rows |= {f"left out: {why}": len(names) for why, names in data.get("left_out", {}).items()}
    rows |= {f"version of {name}": each for name, each in summary.get("versions", {}).items()}
    parameters = summary.get("parameters") or 0
    rows |= {"precision": summary.get("precision"), "parameters": f"{parameters:,}"}
    yield _tag("h2", "Data and versions")
    yield _table(pd.DataFrame(rows.items(), columns=["what", "value"]))


def _limits(config: Config, summary: Mapping[str, Any], judged: Sequence[Judged]) -> Iterable[str]:
    yield _tag("h2", "What these numbers mean, and what not")
    notes = [
        "IoU is the mean over images at threshold 0.5. Pooling all pixels of a set, counting the "
        "background as a second class, or scoring empty images as 1 gives higher numbers that "
        "cannot be compared with it.",
        f"Validation IoU is measured at the network's {config.img_size} px, and the best epoch was "
        "chosen by it, so it flatters a little. No choice here is made on a test set.",
        "The intervals say what other images of the same kind would change. Training again with "
        "another seed may change as much; this is one training.",
        "Results hold for images like those scored. Small objects and rare classes rest on few "
        "images: look at n beside every number.",
    ]
    left_out = (summary.get("data") or {}).get("left_out") or {}
    if any("NonCAM" in why for why in left_out):
        notes.append(
            "COD10K's NonCAM images, which have no object, were not trained on: the network may "
            "show an object where none is, and stretching makes a faint answer a full one."
        )
    if leaks := len((summary.get("data") or {}).get("leaks", [])):
        notes.append(f"{leaks} training images are test images too, byte for byte.")
    for one in judged:
        if one.scores.n_empty:
            notes.append(f"{one.name}: {one.scores.note}")
    yield "<ul>" + "".join(_tag("li", each) for each in notes) + "</ul>"


def _settings(config: Config) -> Iterable[str]:
    yield _tag("h2", "Settings")
    rows = [
        (item.name, str(getattr(config, item.name)), item.metadata["help"])
        for item in dataclasses.fields(config)
    ]
    yield _table(pd.DataFrame(rows, columns=["setting", "value", "meaning"]))


def _tag(tag: str, text: str, warning: bool = False) -> str:
    mark = ' class="warning"' if warning else ""
    return f"<{tag}{mark}>{escape(text)}</{tag}>"


def _table(table: pd.DataFrame) -> str:
    with pd.option_context("display.max_colwidth", None):
        return table.to_html(index=False, border=0, na_rep="", float_format="{:.3f}".format)


def _figure(draw: Callable[[], Figure], say: Say, caption: str) -> str:
    text = escape(caption)
    data = try_to_draw(lambda: _webp(draw()), say, caption)
    if data is None:
        return _tag("p", f"Not drawn: {caption}", True)
    image = f'<img alt="{text}" src="data:image/webp;base64,{data}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def _webp(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=130, pil_kwargs={"quality": 88})
    return base64.b64encode(buffer.getvalue()).decode()
