"""The commands that judge and use what was trained, and look at data.

Heavy imports happen inside each command, so `--help` is instant.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import InputError


def evaluate(options: dict[str, Any]) -> int:
    """Score a run on a data set, or a folder of maps on a folder of masks."""
    from .console import Console

    console = Console(())
    if options["predictions"] or options["ground_truth"]:
        results = [_score_folders(options, console)]
    else:
        results = _score_run(options, console)
    if options["json"]:
        path = Path(options["json"])
        path.parent.mkdir(parents=True, exist_ok=True)
        values = results[0] if len(results) == 1 else {"sets": results}
        path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        console.say(f"written to {path}")
    return 0


def predict(options: dict[str, Any]) -> int:
    """Write a map for each image."""
    from .console import Console
    from .judge import predict_files
    from .run import Run

    console = Console(())
    output = Path(options["output"])
    count = predict_files(
        Run(options["run"]),
        Path(options["input"]),
        output,
        device=options["device"],
        progress=console.progress,
    )
    console.say(f"{count} maps written to {output} (8-bit grey: 0 background, 255 object)")
    return 0


def data(options: dict[str, Any]) -> int:
    """Look through a data set and report what is in it; exit code 1 if it cannot be used so."""
    from .audit import audit, report
    from .console import Console
    from .layouts import find_datasets

    console = Console(())
    sets = find_datasets(Path(options["folder"]))
    found = audit(sets, progress=console.progress)
    console.say(report(found))
    if options["picture"]:
        from .judge import draw_pairs

        console.say(f"drawn: {draw_pairs(sets, Path(options['picture']))}")
    if options["json"]:
        Path(options["json"]).write_text(json.dumps(found.as_dict(), indent=1), encoding="utf-8")
    return 1 if found.count("stop") else 0


def _score_run(options: dict[str, Any], console: Any) -> list[dict[str, Any]]:
    from .judge import draw_test, judge
    from .run import Run

    if not options["run"] or not options["dataset_path"]:
        raise InputError(
            "evaluate needs --run RUN --dataset-path DIR, or --predictions DIR --ground-truth DIR."
        )
    run = Run(options["run"])
    results = []
    judged = judge(
        run,
        Path(options["dataset_path"]),
        split=options["split"],
        noncam=options["noncam"],
        device=options["device"],
        progress=console.progress,
    )
    for each in judged:
        console.say(f"{each.name}: {each.note}\n{each.scores.summary()}")
        console.say(f"  {draw_test(run, each)}")
        results.append({"name": each.name, "note": each.note, **each.scores.to_json()})
    return results


def _score_folders(options: dict[str, Any], console: Any) -> dict[str, Any]:
    from .evaluate import score_folder

    if not options["predictions"] or not options["ground_truth"]:
        raise InputError("--predictions DIR and --ground-truth DIR belong together: give both.")
    scores = score_folder(
        Path(options["predictions"]), Path(options["ground_truth"]), progress=console.progress
    )
    console.say(f"{options['predictions']}\n{scores.summary()}")
    return scores.to_json()
