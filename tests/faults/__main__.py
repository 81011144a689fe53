"""Break the kit on purpose and print the table: `make faults`, or some kinds by their names."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .kinds import FAULTS
from .tally import Fault, Tally


def main() -> int:
    """Try each kind, print its row at once, then what was lost; return 1 if anything was."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("names", nargs="*", help="kinds to try, by part of their names; else all")
    parser.add_argument("--few", action="store_true", help="as often as the tests do")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wanted = [f for f in FAULTS if any(n in f.name for n in options.names or [""])]
    print("| broken | what holds | tried | survived | lost | minutes |\n|---|---|--:|--:|--:|--:|")
    found = [(fault, *_tried(fault, options)) for fault in wanted]
    lost = [f"{fault.name}: {each}" for fault, tally, _ in found for each in tally.lost]
    print("\n".join(["", *lost]))
    return bool(lost)


def _tried(fault: Fault, options: argparse.Namespace) -> tuple[Tally, float]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        tally = fault.work(Path(folder), fault.few if options.few else fault.many, options.seed)
    minutes = (time.monotonic() - began) / 60
    survived = tally.tried - len(tally.lost)
    promise = f"not tried: {tally.skipped}" if tally.skipped else fault.promise
    row = [fault.name, promise, tally.tried, survived, len(tally.lost), f"{minutes:.1f}"]
    print("|", " | ".join(map(str, row)), "|", flush=True)
    return tally, minutes


if __name__ == "__main__":
    sys.exit(main())
