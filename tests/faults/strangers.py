"""Files from strangers: a run's folder, weights and data that somebody else prepared.

Each is refused with a sentence, or harmless: nothing in it is executed, nothing outside the run's
folder is written, no page is given its scripts and no terminal its orders.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from camoxpert_nb.cli import main
from camoxpert_nb.data.synthetic import make_synthetic
from camoxpert_nb.errors import KitError
from camoxpert_nb.figures.report import write_report
from camoxpert_nb.figures.results import draw_training
from camoxpert_nb.notebook.dashboard import Dashboard
from camoxpert_nb.runs.place import list_runs
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config
from camoxpert_nb.training.fit import fit

from .tally import Fault, Tally

TAG = "<img src=x onerror=alert(1)><script>alert(2)</script>"
HANGS = 60  # seconds
SWELLS = 8 * 10**8  # bytes: less than the bombs hold, more than a run needs
STEERS = "\x1b[2J\x1b]0;owned\x07"
ORDERS = re.compile("\x1b(?!\\[[0-9;]*[mK])|\x07|\x9b|\u202e")


class Evil:
    """What runs when it is unpickled: it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


class Place:
    """A finished run of a stranger's, the files around it that must stay, and a marker."""

    def __init__(self, folder: Path) -> None:
        self.home, self.run, self.data = folder, folder / "run", folder / "data"
        self.outside, self.marker = folder / "outside", folder / "executed"
        self.outside.mkdir(parents=True)
        for name in ("precious.txt", "precious.json", "best.pt"):
            (self.outside / name).write_text("precious")

    def harm(self) -> str:
        """Say what was done outside the run's folder, or ""."""
        if self.marker.exists():
            return "code was executed"
        found = {p.name: p.read_bytes()[:80] for p in self.outside.rglob("*") if p.is_file()}
        wanted = dict.fromkeys(("precious.txt", "precious.json", "best.pt"), b"precious")
        return "" if found == wanted else f"outside the run now lies {found}"


Plant = Callable[[Place, random.Random], None]


@lru_cache(maxsize=1)
def _trained() -> tuple[Path, tempfile.TemporaryDirectory[str]]:
    """Train a run once, from which each fault gets a copy; it is removed when Python ends."""
    kept = tempfile.TemporaryDirectory(prefix="stranger-")
    folder = Path(kept.name)
    make_synthetic(folder / "data", train=16, test=4, size=64)
    where = {"dataset_path": folder / "data", "cache_dir": folder / "cache"}
    how = {name: str(path) for name, path in where.items()}
    fit(make_config("tiny", epochs=1, device="cpu", checkpoint_dir=str(folder / "run"), **how))
    return folder, kept


def _copied(base: Path, folder: Path) -> Place:
    place = Place(folder)
    shutil.copytree(base / "run", place.run)
    place.data.symlink_to(base / "data")
    return place


# -- what a stranger may plant ---------------------------------------------------------------------


def _pickle(place: Place, rng: random.Random) -> None:
    name, evil = rng.choice(["last.pt", "best.pt"]), Evil(place.marker)
    way = rng.choice(["zip", "legacy", "raw", "in the state"])
    path = place.run / name
    if way == "raw":
        path.write_bytes(pickle.dumps({"net": evil}, protocol=rng.randint(0, 5)))
        return
    state = torch.load(path, weights_only=True) if way == "in the state" else {}
    state[rng.choice(["net", "config", "more"])] = evil
    torch.save(state, path, _use_new_zipfile_serialization=way != "legacy")


def _bomb(place: Place, rng: random.Random) -> None:
    """A checkpoint or pictures that would swell a thousandfold."""
    path = place.run / rng.choice(["last.pt", "best.pt", "preview.npz"])
    path.write_bytes(_swollen(path.suffix == ".npz"))


@lru_cache
def _swollen(pictures: bool) -> bytes:
    """Return an archive of a gigabyte of nothing: an array, or the data of a checkpoint."""
    head, packed = io.BytesIO(), io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (1100, 2**20)}
    np.lib.format.write_array_header_1_0(head, about)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        name = "mask.npy" if pictures else "archive/data/0"
        with archive.open(name, "w", force_zip64=True) as file:
            file.write(head.getvalue())
            for _ in range(1100 if pictures else 64):
                file.write(bytes(2**20))
    return packed.getvalue()


def _pictures(place: Place, rng: random.Random) -> None:
    evil = np.array([Evil(place.marker)] * 3, dtype=object)
    whole = dict(np.load(place.run / "preview.npz"))
    n = len(whole["names"])
    changes: list[dict[str, Any]] = [
        {rng.choice(["names", "mask", "extra", "gates"]): evil},
        {"names": np.array([TAG + STEERS] * n)},
        {"names": np.array([b"x"] * n)},
        {"mask": np.zeros((n, 0, 0), np.uint8)},
        {"image": whole["image"].astype(float) * np.nan},
        {"probability": whole["probability"][:1]},
        {"gates": np.full((n, 2, 7), np.nan, np.float32)},
        {"names": np.array(["$\\frac$ \udcff"] * n)},
    ]
    np.savez(place.run / "preview.npz", **{**whole, **rng.choice(changes)})


def _deep(rng: random.Random) -> str:
    many = rng.choice([1_000, 100_000])
    return rng.choice(["[" * many, '{"a":' * many + "1" + "}" * many, "[" * many + "]" * many])


def _settings(place: Place, rng: random.Random) -> None:
    path = place.run / "config.json"
    values, out = json.loads(path.read_text()), str(place.outside)
    changes: list[dict[str, Any]] = [
        {"checkpoint_dir": out},
        {"checkpoint_dir": "../outside"},
        {"cache_dir": f"{out}/precious.txt"},
        {"init_from": f"{out}/best.pt"},
        {"weights": f"{out}/best.pt"},
        {"backbone": TAG + STEERS},
        {"backbone": "hf-hub:stranger/model"},
        {"backbone": f"local-dir:{out}"},
        {"log": f"tensorboard,{TAG}"},
        {rng.choice([*values]): rng.choice([None, [], {}, "x", -1, 10**400, 1e308, float("nan")])},
        {"img_size": 8192, "batch_size": 1_000_000},
        {"format": 10**9},
        {f"{TAG}{STEERS}": 1},
        {"dataset_path": "/proc/self", "epochs": 3},
        {"dataset_path": f"{TAG}{STEERS}"},
    ]
    text = json.dumps({**values, **rng.choice(changes)})
    path.write_text(rng.choice([text, text, text, _deep(rng), text[:-9], "\ufeff" + text]))


def _other_json(place: Place, rng: random.Random) -> None:
    """summary, split, process, own, estimate, failure: any value in them is another."""
    names = ["summary", "split", "process", "own", "estimate", "failure", "lock"]
    path = place.run / f"{rng.choice(names)}.json"
    values = json.loads(path.read_text()) if path.exists() else {"message": "", "pid": 1}
    odd = [None, [], {}, TAG, -1, 10**400, [[]], {"a": None}, STEERS, "../../x", True]
    for key in rng.sample([*values], min(len(values), rng.randint(1, 3))):
        values[key] = rng.choice(odd)
    if path.stem == "failure":
        values["message"] = TAG + STEERS
    path.write_text(rng.choice([json.dumps(values), json.dumps(values), _deep(rng), "null", "\0"]))


def _history(place: Place, rng: random.Random) -> None:
    path = place.run / "history.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    odd = [None, TAG, [], {}, {"head": TAG}, [[[1]]], float("nan"), float("inf"), 10**400, 1e308]
    for _ in range(rng.randint(1, 4)):
        record = rng.choice(records)
        record[rng.choice([*record])] = rng.choice([*odd, STEERS, -1, True, [[1], [1, 2]]])
    lines = [json.dumps(each).encode() for each in records]
    junk = [b"\xff\xfe\0", b"x" * 3_000_000, _deep(rng).encode(), b'"' + b"\xc3" * 99, b"null"]
    lines.insert(rng.randrange(len(lines) + 1), rng.choice([*junk, b"{}"]))
    path.write_bytes(b"\n".join(lines) + rng.choice([b"\n", b"", b"\r\n"]))


def _links(place: Place, rng: random.Random) -> None:
    """Files that the kit writes in place are links to somebody's own."""
    files = ["stop", "pause", "save", "history.jsonl", "log.txt", "history.csv", "stderr.txt"]
    files += ["last.pt.part", "config.json.part", "report.html", "summary.json.part"]
    name = rng.choice([*files, "figures", "reports", "process.json", "split.json"])
    path, target = place.run / name, place.outside / "precious.txt"
    if name in ("figures", "reports"):
        shutil.rmtree(path, ignore_errors=True)
        target = place.outside
    elif rng.random() < 0.3:
        target = place.outside / "not there yet"
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _endless(place: Place, rng: random.Random) -> None:
    """Files of which reading never ends."""
    names = ["config.json", "history.jsonl", "last.pt", "best.pt", "preview.npz", "summary.json"]
    path = place.run / rng.choice([*names, "process.json", "log.txt", "split.json", "own.json"])
    path.unlink(missing_ok=True)
    if rng.random() < 0.5:
        os.mkfifo(path)
    else:
        path.symlink_to(rng.choice(["/dev/zero", path.name, "/dev/tty", "/proc/self/mem"]))


def _names(place: Place, rng: random.Random) -> None:
    """The folder's own name is a page, a formula or an order to the terminal."""
    name = rng.choice([TAG.replace("/", "|"), f"run{STEERS}", "$\\frac{$", "a\nb", "-rf", "\udcff"])
    place.run = place.run.rename(place.home / name)


PLANTS: dict[str, Plant] = {
    "pickle that runs code": _pickle,
    "bomb": _bomb,
    "foreign pictures": _pictures,
    "settings": _settings,
    "other JSON": _other_json,
    "history": _history,
    "links": _links,
    "endless files": _endless,
    "names": _names,
}


# -- through which doors it comes in ---------------------------------------------------------------


def _commands(place: Place, rng: random.Random) -> Iterator[list[str]]:
    run, data, out = str(place.run), str(place.data), str(place.home / "out")
    new = ["train", "--preset", "tiny", "--checkpoint-dir", out, "--device", "cpu"]
    new += ["--epochs", "1", "--dataset-path", data]
    yield ["runs", str(place.home), *rng.choice([[], ["--json", f"{out}.json"]])]
    yield rng.choice(
        [
            ["evaluate", "--run", run, "--dataset-path", data, "--report"],
            ["resume", run, "--epochs", "2", "--cache-dir", out],
            [*new, "--init-from", run],
            [*new, "--weights", f"{run}/best.pt"],
            ["predict", "--run", run, "--input", data, "--output", out],
        ]
    )


def _looked_at(place: Place, rng: random.Random) -> str:
    """Return the pages that show the run; one time in four the report too, which takes longest."""
    run = Run(place.run)
    pages = [run._repr_html_(), str(list_runs([place.home]) and "")]
    with contextlib.suppress(KitError):
        board = Dashboard(run)
        pages.append(board._page())
        board.save()
        run.request("pause")
        run.request("pause", wanted=False)
    how = rng.choice(["report", "figures", "", "", "", "", "", ""])
    with contextlib.suppress(KitError):
        if how == "figures":
            draw_training(run, lambda line: None)
        if how == "report":
            pages.append(write_report(run, say=lambda line: None).read_text(errors="replace"))
    return "".join(pages)


def _met(place: Place, rng: random.Random) -> str:
    """Bring what was planted through the doors; say what harm it did, or ""."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        pages = _looked_at(place, rng)
        codes = [(main.main(words), words) for words in _commands(place, rng)]
    if wrong := [(code, words) for code, words in codes if code not in (0, 1, 2)]:
        return f"ended with {wrong}"
    if "<script>" in pages or "<img src=x" in pages:
        return "a page holds its tags"
    if order := ORDERS.search(said.getvalue()):
        return f"the terminal was given {said.getvalue()[order.start() - 60 : order.end() + 20]!r}"
    if "Traceback" in said.getvalue():
        return f"a traceback: {said.getvalue()[-600:]}"
    return place.harm()


def planted(plant: Plant) -> Callable[[Path, int, int], Tally]:
    """Return the work of a fault that plants this."""

    def work(folder: Path, times: int, seed: int) -> Tally:
        rng, tally, base = random.Random(seed), Tally(), _trained()[0]
        for number in range(times):
            place = _copied(base, folder / "place")
            plant(place, rng)
            try:
                before = _peak()
                with _in_time():
                    harm = _met(place, rng)
                harm = harm or "its memory swelled" * (_peak() - before > SWELLS)
            except BaseException as error:
                harm = f"{type(error).__name__}: {error} ({_where(error)})"
            tally.count(not harm, f"number {number} of seed {seed}: {harm}")
            shutil.rmtree(folder / "place")
        return tally

    return work


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    """Raise TimeoutError in here after HANGS seconds: what waits for ever would end no test."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"it hung for {HANGS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(HANGS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _peak() -> int:
    """Return the most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _where(error: BaseException) -> str:
    """Return the line of the kit in which an error arose."""
    lines = traceback.extract_tb(error.__traceback__)
    ours = [each for each in lines if "camoxpert_nb" in each.filename] or lines
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"


OFTEN = (_pickle, _history, _links)  # of these CI tries two, of the others one
FOREIGN = tuple(
    Fault(
        f"a stranger's {name}",
        "refused or harmless; nothing is executed",
        planted(plant),
        2 if plant in OFTEN else 1,
        40,
    )
    for name, plant in PLANTS.items()
)
