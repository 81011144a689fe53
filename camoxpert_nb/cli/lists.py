"""The commands that list what there is: runs, and backbones.

Heavy imports happen inside each command, so `--help` is instant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..outside.tables import table
from ..outside.terminal import GAP, room, tell
from ..runs.place import in_words, list_runs, usual_places
from ..runs.run import RUNS
from .flags import STDOUT, add_command, add_list_json, write_json
from .parser import FOLDER, NEW_PICTURE, Options

if TYPE_CHECKING:
    from ..network.choices import Choice

LICENCE = 12  # columns kept for a licence

Row = Mapping[str, Any]


def add_commands(commands: Any) -> None:
    """Add runs and backbones."""
    sub = add_command(commands, "runs", runs)
    help = "folder to look through; default: where runs lie, runs/"
    sub.add_argument("folder", type=FOLDER, nargs="?", help=help)
    help = "draw their IoU and loss over the epochs into this file"
    sub.add_argument("--figure", type=NEW_PICTURE, default="", metavar="FILE", help=help)
    add_list_json(sub)
    sub = add_command(commands, "backbones", backbones)
    help = "part of a name, as convnext, or with * and ?; default: a dozen that people choose"
    sub.add_argument("pattern", nargs="?", default="", help=help)
    add_list_json(sub)


def runs(options: Options) -> int:
    """List the runs in a folder and below it, the newest first."""
    given = options["folder"]
    folders = [Path(given)] if given else usual_places()
    rows = list_runs(folders)
    if _as_json(options["json"], rows):
        return 0
    if not rows:
        place = given or f"{RUNS}/ (the usual place)"
        tell(
            f"No runs in {place}. Look elsewhere: `camoxpert runs FOLDER`. Make one: "
            "`camoxpert train`."
        )
        return 0
    shown = [in_words(row) for row in rows]
    tell("\n".join(table(shown, cut="data", most=room())))
    for row in rows:
        if "note" in row:
            tell(f"{row['folder']}: {row['note']}")
    return _draw(options["figure"], rows)


def _draw(path: str, rows: Sequence[Row]) -> int:
    """Draw runs into a picture, if one was asked for; return the command's exit code."""
    if not path:
        return 0
    from ..figures.canvas import save, try_to_draw
    from ..figures.several import show_runs

    readable = [row["folder"] for row in rows if "note" not in row]
    figure = try_to_draw(lambda: show_runs(readable), tell, path)
    drawn = figure and try_to_draw(lambda: save(figure, Path(path)), tell, path)
    tell(f"drawn in {path}" if drawn else f"not drawn: {path}")
    return 0 if drawn else 1


def backbones(options: Options) -> int:
    """List timm's networks that can be a backbone, with what they cost; asks no network."""
    from ..network.choices import SIDE, Choice, matching, measured

    names = matching(options["pattern"])
    headings = ["backbone", "parameters", "multiply-adds", "trained at", "weights", "licence"]
    wide = [max(map(len, [*names, headings[0]])), *map(len, headings[1:5]), LICENCE]
    if room():  # a longer name has a line of its own
        wide[0] = max(min(wide[0], room() - sum(wide[1:]) - len(GAP) * 5), len(headings[0]))
    rows, no_backbone = [], 0
    if not options["json"]:
        tell(_columns(headings, wide))
    for found in measured(names):
        if not isinstance(found, Choice):
            no_backbone += 1
            continue
        rows.append(found._asdict())
        if not options["json"]:
            tell(_columns(_choice_in_words(found), wide))
    if _as_json(options["json"], rows):
        return 0
    tell(
        f"Parameters in millions; multiply-adds in thousand millions, for an image of {SIDE} px; "
        "weights: here, or on the hub. Train with --backbone NAME."
    )
    if no_backbone:
        tell(
            f"{no_backbone} more match and cannot be used: a backbone needs features at strides 4, "
            "8, 16 and 32, and takes images of any size."
        )
    return 0


def _choice_in_words(found: Choice) -> list[str]:
    side = f"{found.trained_at} px" if found.trained_at else ""
    numbers = [f"{found.parameters:.1f}", f"{found.multiply_adds:.1f}"]
    return [found.name, *numbers, side, found.weights, found.licence]


def _columns(texts: Sequence[str], wide: Sequence[int]) -> str:
    """Return a row, numbers to the right, which is printed before the next one is known."""
    if len(texts[0]) > wide[0]:
        return f"{texts[0]}\n{_columns(['', *texts[1:]], wide)}"
    padded = [
        text.rjust(size) if 0 < number < 4 else text.ljust(size)
        for number, (text, size) in enumerate(zip(texts, wide, strict=True))
    ]
    return GAP.join(padded).rstrip()


def _as_json(path: str, rows: Sequence[Row]) -> bool:
    """Write the rows to the file that was asked for, or print them; say whether that was wanted."""
    if path == STDOUT:
        print(json.dumps(rows, indent=1))
    else:
        write_json(path, rows)
        if path:
            tell(f"written to {path}")
    return bool(path)
