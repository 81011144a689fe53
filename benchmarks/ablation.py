"""Many short trainings on real photos, and what each change is worth, photo by photo.

A queue is a file of JSON lines, one training each:

    {"name": "constant", "network": "constant", "fold": 0, "seed": 1, "settings": {"augment": 0.25}}

`network` is one of NETWORKS, by default CamoXpert; `settings` are the command line's, and null
leaves one to the recipe (`queue --set epochs=20 augment=null lr=null`). The photos
are cut into folds by a hash of their names: a training is scored, mirrored images and all measures
too, on its fold's photos, which it never sees; the last weights count, so that nothing is chosen
by them. Each training leaves one JSON in the folder of results, and is not done twice. The loop is
the kit's own `fit`.

    python benchmarks/ablation.py queue  --names CamoXpert constant FPN --folds 4 > queue.jsonl
    python benchmarks/ablation.py run    queue.jsonl --data DIR --weights FILE --out results
    python benchmarks/ablation.py table  results --against CamoXpert
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from networks import NETWORKS

from camoxpert_nb.data.layouts import Pair, find_datasets
from camoxpert_nb.evaluation.predict import PLAIN, Predictor, Views
from camoxpert_nb.evaluation.scoring import evaluate
from camoxpert_nb.machine.devices import choose_precision, pick_devices
from camoxpert_nb.network.build import load_weights
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.fit import fit

MEASURES = {"iou": "IoU", "s_measure": "S", "weighted_f": "wF", "mae": "MAE"}
FOLDS = 4

# What a job does not say: a short training of a small backbone, as it goes best.
SHORT: dict[str, Any] = {
    "backbone": "tf_efficientnet_lite0",
    "img_size": 256,
    "epochs": 6,
    "stage1_epochs": 0,
    "warmup_epochs": 0,
    "progressive_unfreeze": False,
    "lr": 1e-3,
    "stage2_lr": None,
    "backbone_lr_factor": 0.4,
    "uncertainty": 0.5,
    "augment": 0.25,
}


def fold_of(name: str, folds: int) -> int:
    """Return the fold that a photo of this name belongs to, today and on every machine."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % folds


def photos(data: Path) -> list[Pair]:
    """Return all pairs of image and mask below a folder."""
    return [pair for each in find_datasets(data) for pair in (*each.train, *each.test)]


def cut(data: Path, folder: Path, fold: int, folds: int) -> Path:
    """Lay out `data`, as links, as a data set whose test photos are those of `fold`."""
    root = folder / f"fold-{fold}-of-{folds}"
    if root.exists():
        return root
    part = folder / f".fold-{fold}-{os.getpid()}"
    for pair in photos(data):
        side = "test" if fold_of(pair.name, folds) == fold else "train"
        for kind, path in (("images", pair.image), ("masks", pair.mask)):
            link = part / side / kind / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    try:
        part.rename(root)
    except OSError:  # another process was faster
        shutil.rmtree(part)
    return root


def recipe(job: dict[str, Any], data: Path, weights: Path | None, folder: Path) -> Config:
    """Return the settings of one training: the job's, over those every training here has."""
    given: dict[str, Any] = {
        "dataset_path": str(data),
        "weights": str(weights or ""),
        "pretrained": weights is not None,
        "cache_dir": str(folder.parent / "cache"),
        "checkpoint_dir": str(folder),
        "val_share": 0.02,  # nothing is chosen by it
        "keep": "last",
        "seed": job.get("seed", 1),
    }
    return make_config("single-gpu", **{**SHORT, **job.get("settings", {}), **given})


def train_and_score(job: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Do one job and return its record: the settings, and each photo's scores, mirrored too."""
    folder = options.out.resolve() / "runs" / title(job)
    data = cut(options.data, options.out.resolve(), job.get("fold", 0), options.folds)
    config = recipe(job, data, options.weights, folder)
    build = NETWORKS[job.get("network", "CamoXpert")]
    started = time.time()
    run = fit(config, resume=(folder / "last.pt").exists(), net=build(config))
    summary = run.load_json("summary")
    if not summary["finished"]:
        raise SystemExit(f"{title(job)}: stopped before its end; run it again to go on")
    minutes = (time.time() - started) / 60
    devices = pick_devices(config.device)
    checkpoint = run.load("last", devices.main)
    net = build(config).to(devices.main)
    load_weights(net, checkpoint.get("ema") or checkpoint["net"], str(run.folder))
    dtype = choose_precision(devices, config.amp).dtype
    predictor = Predictor(net, config.img_size, devices.main, config.batch_size, dtype)
    pairs = photos(data / "test")
    scores = {
        name: evaluate(predictor, pairs, views=views).per_image.set_index("name")
        for name, views in (("plain", PLAIN), ("mirrored", Views(flip=True)))
    }
    shutil.rmtree(folder)
    return {
        "job": job,
        "minutes": minutes,
        "parameters": summary["parameters"],
        "device": str(devices.main),
        "photos": {
            name: {measure: table[measure].round(6).to_dict() for measure in MEASURES}
            for name, table in scores.items()
        },
    }


def title(job: dict[str, Any]) -> str:
    """Return the name of a job's record."""
    return f"{job['name']}-fold{job.get('fold', 0)}-seed{job.get('seed', 1)}"


def run_queue(options: argparse.Namespace) -> None:
    """Do every job that has no record yet, so many at a time, each in a process of its own."""
    jobs = [json.loads(line) for line in options.queue.read_text().splitlines() if line.strip()]
    options.out.mkdir(parents=True, exist_ok=True)
    waiting = [job for job in jobs if not record(options.out, job).exists()]
    print(f"{len(jobs)} trainings, {len(waiting)} to do", flush=True)
    with ThreadPoolExecutor(options.workers) as pool:
        codes = list(pool.map(lambda job: _one(job, options), waiting))
    if failed := [title(job) for job, code in zip(waiting, codes, strict=True) if code]:
        raise SystemExit(f"{len(failed)} failed: {', '.join(failed)}; see their .log")


def record(out: Path, job: dict[str, Any]) -> Path:
    """Return where a job's record is written."""
    return out / f"{title(job)}.json"


def _one(job: dict[str, Any], options: argparse.Namespace) -> int:
    words = [sys.executable, __file__, "one", json.dumps(job), "--data", options.data]
    words += ["--out", options.out, "--folds", str(options.folds)]
    words += ["--weights", options.weights] if options.weights else []
    with record(options.out, job).with_suffix(".log").open("w") as log:
        code = subprocess.run(words, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    print(f"{time.strftime('%H:%M')} {title(job)} {'failed' if code else 'done'}", flush=True)
    return code


def run_one(options: argparse.Namespace) -> None:
    """Do the job given as JSON, and write its record."""
    job = json.loads(options.job)
    path = record(options.out, job)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(train_and_score(job, options)))
    part.rename(path)


def write_queue(options: argparse.Namespace) -> None:
    """Print a queue: each network, fold by fold, so that an early end leaves whole folds."""
    settings = dict(word.split("=", 1) for word in options.set)
    for fold in options.only or range(options.folds):
        for name in options.names:
            values = {key: json.loads(value) for key, value in settings.items()}
            job = {"name": name, "network": name, "fold": fold, "seed": options.seed + fold}
            print(json.dumps(job | {"settings": values}))


def show_table(options: argparse.Namespace) -> None:
    """Print each name's means, and its paired difference from `--against` with its error.

    The error is over photos (each photo's difference, averaged over what trained it twice); that
    of one training, which photos do not show, is what the folds' differences scatter beyond it.
    """
    records = [json.loads(path.read_text()) for path in sorted(options.results.glob("*.json"))]
    scores: dict[str, dict[tuple[int, str], dict[str, list[float]]]] = {}
    minutes = defaultdict(list)
    for each in records:
        job, name = each["job"], each["job"]["name"]
        minutes[name].append(each["minutes"])
        measured = each["photos"][options.views]
        rows = scores.setdefault(name, {})
        for measure, values in measured.items():
            for photo, value in values.items():
                key = (job.get("fold", 0), photo)
                rows.setdefault(key, {}).setdefault(measure, []).append(value)
    if options.against not in scores:
        raise SystemExit(f"no record of {options.against}; there are {', '.join(scores)}")
    base = scores[options.against]
    print(
        f"| | trainings | minutes | {' | '.join(MEASURES.values())} "
        f"| photos | IoU less {options.against} | wF less {options.against} | by fold (IoU) |"
    )
    print("|---|--:|--:|" + "--:|" * (len(MEASURES) + 3) + "---|")
    for name, rows in scores.items():
        shared = sorted(rows.keys() & base.keys())
        means = [np.mean([np.mean(rows[key][m]) for key in rows]) for m in MEASURES]
        cells = [f"{value:.4f}" for value in means]
        pairs = [_difference(rows, base, shared, m) for m in ("iou", "weighted_f")]
        folds = sorted({fold for fold, _ in shared})
        each = [
            _difference(rows, base, [key for key in shared if key[0] == fold], "iou")[0]
            for fold in folds
        ]
        print(
            f"| {name} | {len(minutes[name])} | {np.mean(minutes[name]):.1f} | {' | '.join(cells)} "
            f"| {len(shared)} | {' | '.join(f'{d:+.4f} +- {e:.4f}' for d, e in pairs)} "
            f"| {' '.join(f'{value:+.3f}' for value in each)} |"
        )


def _difference(
    rows: dict[Any, Any], base: dict[Any, Any], shared: list[Any], measure: str
) -> tuple[float, float]:
    """Return the mean difference over shared photos, and its standard error."""
    values = np.array([np.mean(rows[k][measure]) - np.mean(base[k][measure]) for k in shared])
    if len(values) < 2:
        return float("nan"), float("nan")
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    queue = commands.add_parser("queue", help="print a queue")
    queue.add_argument("--names", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    queue.add_argument("--folds", type=int, default=FOLDS)
    queue.add_argument("--only", type=int, nargs="+", help="these folds alone")
    queue.add_argument("--seed", type=int, default=1, help="of fold 0; fold 1 has the next one")
    queue.add_argument("--set", nargs="*", default=[], help="settings, as img_size=192")
    queue.set_defaults(do=write_queue)
    run = commands.add_parser("run", help="do the trainings of a queue")
    run.add_argument("queue", type=Path)
    run.add_argument("--workers", type=int, default=1, help="trainings side by side")
    run.set_defaults(do=run_queue)
    one = commands.add_parser("one", help="do one training")
    one.add_argument("job", help="as a line of the queue")
    one.set_defaults(do=run_one)
    for each in (run, one):
        each.add_argument("--data", type=Path, required=True)
        each.add_argument("--weights", type=Path)
        each.add_argument("--out", type=Path, default=Path("build/ablation"))
        each.add_argument("--folds", type=int, default=FOLDS)
    table = commands.add_parser("table", help="print what was found")
    table.add_argument("results", type=Path)
    table.add_argument("--against", default="CamoXpert")
    table.add_argument("--views", choices=("plain", "mirrored"), default="plain")
    table.set_defaults(do=show_table)
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()
