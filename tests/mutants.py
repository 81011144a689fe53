"""Change the code a little, many times, and see whether the tests notice: `make mutants`.

mutmut makes the changes and runs, for each, the tests of its room that pass through it. A room has
thousands, so a sample is drawn. Mutants that change nothing anybody could see are set aside in
EQUIVALENT, by their names.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

HOME = Path(__file__).parents[1]
ROOMS = ("settings", "data", "network", "training", "evaluation", "runs")
EQUIVALENT: dict[str, str] = {}  # name: why
NOTICED = ("killed", "timeout", "suspicious", "caught by type check")

SETTINGS = """
[tool.mutmut]
source_paths = ["camoxpert_nb/"]
only_mutate = {files}
also_copy = {copied}
pytest_add_cli_args_test_selection = ["tests/{room}"]
pytest_add_cli_args = ["-p", "no:cacheprovider", "-x", "-m", "not gpu and not shared"]
"""


def main() -> int:
    """Print a row for each room, then the mutants that nothing noticed; return 1 below the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rooms", nargs="*", default=ROOMS, help="rooms, or files as training/best")
    parser.add_argument("--sample", type=int, default=50, help="mutants of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--goal", type=float, default=90, help="per cent to be noticed")
    options = parser.parse_args()
    print("| room | mutants | tried | noticed | not | equivalent |\n|---|--:|--:|--:|--:|--:|")
    whole, missed = Counter[str](), list[str]()
    for room in options.rooms:
        tree = _tree(room)
        names = _names(tree)
        chosen = random.Random(options.seed).sample(names, min(options.sample, len(names)))
        _mutmut(tree, *chosen)
        found = _outcomes(tree, chosen)
        row = Counter("equivalent" if name in EQUIVALENT else how for name, how in found.items())
        noticed = sum(row[how] for how in NOTICED)
        missed += [f"{n}: {how}" for n, how in found.items() if how not in NOTICED]
        left = len(chosen) - noticed - row["equivalent"]
        cells = [room, len(names), len(chosen), noticed, left, row["equivalent"]]
        print("|", " | ".join(map(str, cells)), "|", flush=True)
        whole += Counter(noticed=noticed, tried=noticed + left)
    share = 100 * whole["noticed"] / max(whole["tried"], 1)
    print("\n".join([f"\n{share:.1f} % noticed", *missed]))
    return share < options.goal


def _tree(room: str) -> Path:
    """Return a copy of the project in which mutmut changes this room, or this file of it."""
    tree = HOME / "build" / "mutants" / room.replace("/", "-")
    shutil.rmtree(tree, ignore_errors=True)
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=HOME, check=True, capture_output=True, text=True)
    files = [name for name in listed.stdout.splitlines() if (HOME / name).is_file()]
    for name in files:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(HOME / name, tree / name)
    copied = sorted({name.split("/")[0] for name in files})
    mutated = [f"camoxpert_nb/{room}.py" if "/" in room else f"camoxpert_nb/{room}/*.py"]
    settings = SETTINGS.format(files=json.dumps(mutated), copied=json.dumps(copied), room=room)
    with (tree / "pyproject.toml").open("a") as file:
        file.write(settings.replace(f"tests/{room}", f"tests/{room.split('/')[0]}"))
    return tree


def _names(tree: Path) -> list[str]:
    """Return the names of all mutants, once the tests that pass through each are known."""
    _mutmut(tree, "none of them")
    metas = sorted((tree / "mutants").rglob("*.meta"))
    return [name for meta in metas for name in json.loads(meta.read_text())["exit_code_by_key"]]


def _mutmut(tree: Path, *names: str) -> None:
    log = (tree / "mutmut.log").open("ab")
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "2", *names]
    subprocess.run(command, cwd=tree, stdout=log, stderr=log, check=False)


def _outcomes(tree: Path, names: list[str]) -> dict[str, str]:
    command = [sys.executable, "-m", "mutmut", "results", "--all", "true"]
    said = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True).stdout
    rows = (line.strip().rpartition(": ") for line in said.splitlines() if ": " in line)
    found = {name: how for name, _, how in rows}
    return {name: found.get(name, "not run") for name in names}


if __name__ == "__main__":
    sys.exit(main())
