"""The commands that ask what the machine can do.

Heavy imports happen inside each command, so `--help` is instant.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from .cli_train import choose


def doctor(options: dict[str, Any]) -> int:
    """Check GPUs, memory and software by running on them; exit code 1 if something failed."""
    from .console import Console
    from .doctor import examine

    console = Console(())
    checkup = examine(console.say, quick=options["quick"])
    console.say("\n" + checkup.text())
    _write(options["json"], checkup.as_dict())
    return 0 if checkup.healthy else 1


def batch_size(options: dict[str, Any]) -> int:
    """Find the largest batch per GPU of each stage; exit code 1 if not one image fits."""
    from .console import Console
    from .doctor import find_limits

    console, path = Console(()), options.pop("json")
    order = choose(options)
    limits, text = find_limits(order.config, console.say)
    console.say("\n".join([order.reason, text]).strip())
    _write(path, [dataclasses.asdict(limit) for limit in limits])
    return 0 if all(limit.batch for limit in limits) else 1


def kaggle(options: dict[str, Any]) -> int:
    """Make the folders to upload to Kaggle, or check one of them."""
    from .bundle import DATA, build
    from .kaggle_rules import check

    folder = Path(options["folder"])
    if options["what"] == "check":
        check(folder)
        print(f"{folder}: nothing Kaggle would refuse")
        return 0
    data = DATA if options["data"] is None else options["data"]
    weights = [Path(path) for path in options["weights"]]
    for path in build(options["user"], folder, data=data, weights=weights):
        print(path)
    print("Next: kaggle/README.md")
    return 0


def _write(path: str, values: Any) -> None:
    if path:
        Path(path).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
