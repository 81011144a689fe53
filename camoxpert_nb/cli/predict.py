"""The commands that use what was trained: maps of images, and one file without this package."""

from __future__ import annotations

import sys
from pathlib import Path

from ..outside.paths import with_ending
from ..outside.spelling import counted
from ..outside.terminal import tell
from ..runs.repeat import members_of
from .methods import views_of
from .parser import NEW_ONNX, Options


def predict(options: Options) -> int:
    """Write a map for each image, and the object found drawn on it if asked to.

    Of a folder what cannot be read is named; the exit code is then 1.
    """
    from ..data.folders import named, not_taken
    from ..evaluation.ensemble import open_ensemble
    from ..evaluation.judge import open_predictor
    from ..evaluation.predict import images_to_predict, predict_folder
    from ..figures.canvas import try_to_draw
    from ..figures.predictions import write_overlays
    from ..training.console import Console

    console, output = Console(()), Path(options["output"])
    source = Path(options["input"])
    images = images_to_predict(source, output, overlays=options["overlay"])  # before the network
    runs, how = members_of(options["run"]), (options["device"], options["which"])
    unread: dict[Path, str] = {}
    count = predict_folder(
        open_predictor(runs[0], *how) if len(runs) == 1 else open_ensemble(runs, *how),
        source,
        output,
        views=views_of(options),
        progress=console.counting("predicting"),
        unread=unread,
    )
    console.say(
        f"{counted(count, 'map')} written to {output} (8-bit grey: 0 background, 255 object)"
    )
    if options["overlay"]:
        place = output / "overlays"
        readable = [path for path in images if path not in unread]
        drawn = try_to_draw(lambda: write_overlays(readable, output), console.say, str(place))
        if drawn:
            console.say(f"{counted(drawn, 'overlay')} written to {place}")
    if source.is_dir() and (rest := not_taken(source)):
        files = counted(len(rest), "file")
        console.say(f"NOTE: {files} of {source} not read as pictures: {named(rest)}")
    if unread:
        names = "\n".join(f"  {unread[path]}" for path in images if path in unread)
        tell(f"camoxpert: {counted(len(unread), 'image')} left out:\n{names}", sys.stderr)
    return 1 if unread else 0


def export(options: Options) -> int:
    """Write the network as one file that runs without this package, and test the file."""
    from ..network.build import load_run
    from ..network.export import eager, images_per_second, load_exported
    from ..network.export import export as write
    from ..runs.run import Run
    from ..training.console import Console

    run = Run(options["run"])
    path = with_ending(Path(options["output"] or run.folder / "model"), ".onnx")
    path = Path(NEW_ONNX.checked(str(path), "--output"))
    net, config = load_run(run, options["which"])
    images = run.load_preview().get("image")
    written = write(net, path, size=config.img_size, images=images)
    Console(()).say(written.summary())
    ways = {"PyTorch": eager(net), "ONNX": load_exported(written.path)}
    speeds = images_per_second(ways, config.img_size)
    said = ", ".join(f"{name} {speed:.1f}" for name, speed in speeds.items())
    Console(()).say(f"  images/s on this CPU, one at a time: {said}")
    return 0
