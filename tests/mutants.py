"""Change the code a little, many times, and see whether the tests notice: `make mutants`.

mutmut makes the changes and runs, for each, those tests of its room and of the rooms in ALSO that
pass through it. A room has thousands, so a sample is drawn. Two kinds are set aside and counted:
other letters in a sentence that people read, and mutants that nobody could see a difference in,
which stand in EQUIVALENT by their names.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

HOME = Path(__file__).parents[1]
ROOMS = ("settings", "data", "network", "training", "evaluation", "runs")
EQUIVALENT = {  # a mutant's name, or a function's: why nobody could see a difference
    "camoxpert_nb.settings.presets.x__rates_for": "done at import, before mutmut changes anything",
}
# Tests of other rooms that are about a room's code too.
ALSO = {
    "settings": ["tests/cli/test_flags.py", "tests/notebook/test_picker.py"],
    "data": ["tests/cli/test_main.py"],
    "runs": ["tests/training/test_resume.py"],
}
NOTICED = ("killed", "timeout", "suspicious", "caught by type check")
RUN = ("run", "--max-children", str(len(os.sched_getaffinity(0))))
TEXT = re.compile(r'"([^"]*)"')
ASIDE = ("wording", "equivalent")
TRUTH = ("bias", "persistent", "index")

SETTINGS = """
[tool.mutmut]
source_paths = ["camoxpert_nb/"]
only_mutate = {files}
also_copy = {copied}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-p", "no:cacheprovider", "-x", "-m", "not gpu and not shared", {own}]
"""
# What one run leaves is never another's to remove: a quarrel over it would look like a failed test.
OWN = ["-o", "tmp_path_retention_policy=none", "-o", "tmp_path_retention_count=1000000"]


def main() -> int:
    """Print a row for each room, then the mutants that nothing noticed; return 1 below the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rooms", nargs="*", default=ROOMS, help="rooms, or files as training/best")
    parser.add_argument("--sample", type=int, default=50, help="mutants of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--goal", type=float, default=90, help="per cent to be noticed")
    options = parser.parse_args()
    print("| room | mutants | tried | noticed | not | wording | equivalent |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    whole, missed = Counter[str](), list[str]()
    for room in options.rooms:
        tree = _tree(room)
        names = _names(tree)
        chosen = random.Random(options.seed).sample(names, min(options.sample, len(names)))
        _mutmut(tree, *RUN, *chosen)
        found = _outcomes(tree, chosen)
        row = Counter("noticed" if how in NOTICED else how for how in found.values())
        missed += [f"{n}: {how}" for n, how in found.items() if how not in (*NOTICED, *ASIDE)]
        left = len(chosen) - row["noticed"] - sum(row[how] for how in ASIDE)
        cells = [room, len(names), len(chosen), row["noticed"], left, *(row[how] for how in ASIDE)]
        print("|", " | ".join(map(str, cells)), "|", flush=True)
        whole += Counter(noticed=row["noticed"], tried=row["noticed"] + left)
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
    tests = [f"tests/{room.split('/')[0]}", *ALSO.get(room.split("/")[0], [])]
    lists = {"files": mutated, "copied": copied, "tests": tests}
    words = {name: json.dumps(each) for name, each in lists.items()}
    with (tree / "pyproject.toml").open("a") as file:
        file.write(SETTINGS.format(**words, own=json.dumps(OWN)[1:-1]))
    return tree


def _names(tree: Path) -> list[str]:
    """Return the names of all mutants, once the tests that pass through each are known."""
    _mutmut(tree, *RUN, "none of them")
    metas = sorted((tree / "mutants").rglob("*.meta"))
    return [name for meta in metas for name in json.loads(meta.read_text())["exit_code_by_key"]]


def _outcomes(tree: Path, names: list[str]) -> dict[str, str]:
    """Return what became of each mutant, in mutmut's word or one of ASIDE."""
    said = _mutmut(tree, "results", "--all", "true")
    rows = (line.strip().rpartition(": ") for line in said.splitlines() if ": " in line)
    found = {name: how for name, _, how in rows}
    if "not checked" in map(found.get, names):
        log = (tree / "mutmut.log").read_text().splitlines()
        failed = [line for line in log if line.startswith(("FAILED", "ERROR"))]
        raise SystemExit(f"the tests fail without any mutant: {failed or tree / 'mutmut.log'}")
    return {name: _set_aside(tree, name, found.get(name, "not run")) for name in names}


def _set_aside(tree: Path, name: str, how: str) -> str:
    if how in NOTICED:
        return how
    lines = [line for line in _mutmut(tree, "show", name).splitlines() if line[:1] in ("-", "+")]
    if {name, name.rpartition("__mutmut_")[0]} & {*EQUIVALENT} or _is_a_guard(lines[2:]):
        return "equivalent"
    before, after = ({*TEXT.findall(line[1:])} for line in lines[2:4])
    changed = before - after
    same = {each.casefold() for each in changed} == {
        each.casefold().replace("xx", "") for each in after - before
    }
    return "wording" if changed and same and all(" " in each for each in changed) else how


def _is_a_guard(lines: list[str]) -> bool:
    """Return whether all that differs is one of these, which nobody can see.

    `strict` of a zip, where lists are of one length; `align_corners` of torch, by itself False; and
    None in place of a False of which torch or pandas ask the truth alone.
    """
    sides = ["".join(each[1:].strip() for each in lines if each[0] == sign) for sign in "-+"]
    plain = [re.sub(rf"({'|'.join(TRUTH)})=None", r"\1=False", side) for side in sides]
    bare = [re.sub(r"strict=\w+|align_corners=(False|None)|[\s,]", "", side) for side in plain]
    flags = ("strict", "align_corners", *TRUTH)
    return any(f"{flag}=" in side for side in sides for flag in flags) and bare[0] == bare[1]


def _mutmut(tree: Path, *words: str) -> str:
    command = [sys.executable, "-m", "mutmut", *words]
    scratch = tree / "scratch"
    scratch.mkdir(exist_ok=True)
    how: dict[str, Any] = {"cwd": tree, "env": {**os.environ, "TMPDIR": str(scratch)}}
    with (tree / "mutmut.log").open("a") as log:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, check=False, **how)
        said = done.stdout.decode(errors="replace")
        log.write(said)
    return said


if __name__ == "__main__":
    sys.exit(main())
