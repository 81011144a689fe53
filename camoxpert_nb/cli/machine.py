"""The commands that ask what the machine can do.

Heavy imports happen inside each command, so `--help` is instant.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ..outside.paths import readable, writable_folder
from ..outside.terminal import tell
from .flags import add_command, add_json, add_preset, add_settings, write_json
from .parser import FILE, Options
from .train import choose


def add_commands(commands: Any) -> None:
    """Add doctor, batch-size and kaggle."""
    sub = add_command(commands, "doctor", doctor)
    sub.add_argument("--quick", action="store_true", help="a smaller network, fewer steps")
    add_json(sub, "the findings")
    sub = add_command(commands, "batch-size", batch_size)
    add_preset(sub)
    add_json(sub, "the limits")
    add_settings(sub)
    sub = add_command(commands, "kaggle", kaggle)
    help = "make the folders, check one (or a notebook), or renew the code in kaggle/*.ipynb"
    sub.add_argument("what", choices=("build", "check", "renew"), help=help)
    sub.add_argument("folder", nargs="?", default="kaggle/build", help="default kaggle/build")
    sub.add_argument(
        "--user", default="", help="your name on Kaggle, as in addresses; build needs it"
    )
    sub.add_argument("--data", nargs="*", metavar="OWNER/NAME", help="data sets to attach")
    sub.add_argument(
        "--weights", type=FILE, nargs="*", default=[], help="files of backbone weights to add"
    )


def doctor(options: Options) -> int:
    """Check GPUs, memory and software by running on them; exit code 1 if something failed."""
    from ..doctor.doctor import check_machine
    from ..training.console import Console

    console = Console(())
    report = check_machine(console.say, quick=options["quick"])
    console.say("\n" + report.text())
    write_json(options["json"], report.as_dict())
    return 0 if report.healthy else 1


def batch_size(options: Options) -> int:
    """Find the largest batch per GPU of each stage; exit code 1 if not one image fits."""
    from ..doctor.doctor import find_limits
    from ..training.console import Console

    console, path = Console(()), options.pop("json")
    order = choose(options)
    limits, text = find_limits(order.config, console.say)
    console.say("\n".join([order.reason, text]).strip())
    write_json(path, [dataclasses.asdict(limit) for limit in limits])
    return 0 if all(limit.batch for limit in limits) else 1


def kaggle(options: Options) -> int:
    """Make the folders to upload to Kaggle, check one of them, or renew the ready notebooks."""
    from ..kaggle.bundle import DATA, build
    from ..kaggle.carried import renew_all
    from ..kaggle.rules import check

    if options["what"] == "renew":
        for path, changed in renew_all():
            tell(f"{path}: {'renewed' if changed else 'current'}")
        return 0
    if options["what"] == "check":
        folder = readable(options["folder"], "the folder", "file or folder")
        if folder.is_file():
            return _compare(folder)
        check(folder)
        tell(f"{folder}: nothing Kaggle would refuse")
        return 0
    folder = writable_folder(options["folder"], "the folder")
    data = DATA if options["data"] is None else options["data"]
    weights = [Path(path) for path in options["weights"]]
    for path in build(options["user"], folder, data=data, weights=weights):
        tell(str(path))
    if not weights:
        tell(
            "NOTE: no pretrained weights travel along, and pushed notebooks have the internet off: "
            "a backbone would start from scratch. --weights FILE adds them (kaggle/README.md)."
        )
    tell("Next: kaggle/README.md")
    return 0


def _compare(notebook: Path) -> int:
    """Say how the code that a notebook carries differs from this package; 1 if it does."""
    from ..kaggle.carried import differences

    found = differences(notebook)
    same = "carries this package's code, file for file"
    tell("\n".join(f"{notebook}: {each}" for each in found or [same]))
    return int(bool(found))
