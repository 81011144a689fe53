"""What is going on in a run, read from its folder as it grows, and said in words."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from .process import Status, status
from .run import Run

Record = dict[str, Any]
WAITING = {"starting": "loading PyTorch", "running": "reading images and building the network"}
LOOK_BACK = 40  # step records from which the time left is reckoned: two epochs


class Follower:
    """Read a growing text file of one JSON record a line, each line once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._tail = b""  # the last bytes read: where they are gone, the file was written anew

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """Return the new records, and whether those returned before no longer hold."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset - len(self._tail))
                text = file.read()
                anew = not text.startswith(self._tail)
                if anew:
                    file.seek(0)
                    text, self._offset, self._tail = file.read(), 0, b""
        except FileNotFoundError:
            anew, text = self._offset > 0, b""
            self._offset, self._tail = 0, b""
        whole = text[len(self._tail) : text.rfind(b"\n") + 1]  # a torn last line is read later
        self._offset += len(whole)
        self._tail = (self._tail + whole)[-200:]
        return [json.loads(line) for line in whole.splitlines() if line.endswith(b"}")], anew


class Watch:
    """The records of a run so far, its settings and its status; `look` brings them up to date."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.status = Status("empty")
        self.settings: Record = {}
        self.forget()

    def forget(self) -> None:
        """Read everything anew at the next look."""
        self._follower = Follower(self.run.history_path)
        self._clear()

    def _clear(self) -> None:
        self.steps: list[Record] = []
        self.epochs: list[Record] = []
        self._last: Record = {}
        self._since = 0  # index of the first step record of the process that trains now

    def look(self) -> bool:
        """Read what was written since the last look; say whether the records changed."""
        records, anew = self._follower.read()
        if anew:
            self._clear()
        for record in records:
            self._last = record
            if record["kind"] == "start":
                self._since = len(self.steps)
            elif record["kind"] in ("step", "epoch"):
                (self.steps if record["kind"] == "step" else self.epochs).append(record)
        self.settings = self.run.load_json("config") or self.run.load_json("launch")
        self.status = status(self.run, self._last)
        return bool(records) or anew

    @property
    def folder(self) -> str:
        """The run's folder, as short as it can be written here."""
        with contextlib.suppress(ValueError):
            return str(self.run.folder.relative_to(Path.cwd()))
        return str(self.run.folder)

    @property
    def total_epochs(self) -> int:
        """The epochs that are planned."""
        return int(self.settings.get("epochs", 1))

    @property
    def target(self) -> float:
        """The validation IoU to reach."""
        return float(self.settings.get("target_iou", 0.0))

    def share_done(self) -> float:
        """Return how much of the training is over, 0 to 1."""
        newest = self._newest()
        return newest["step"] / max(self.steps[-1]["steps"], 1) if self.steps and newest else 0.0

    def place(self) -> str:
        """Say where the training is, how fast, and how long it will take."""
        newest = self._newest()
        if not newest:
            return WAITING.get(self.status.name, "")
        words = [f"epoch {newest['epoch']} of {self.total_epochs}, stage {newest['stage']}"]
        if self.steps:
            speeds = sorted(record["images_per_second"] for record in self.steps[-5:])
            words.append(f"step {newest['step']} of {self.steps[-1]['steps']}")
            words.append(f"{speeds[len(speeds) // 2]:.3g} images/s")
        loading = [WAITING["starting"]] if self.status.name == "starting" else []
        return ", ".join([*loading, *words, *self._time_left()])

    def best(self) -> str:
        """Say the best validation IoU so far, or nothing."""
        scores = [
            (record[key], record["epoch"])
            for record in self.epochs
            for key in ("iou", "iou_ema")
            if record.get(key) is not None
        ]
        if not scores:
            return ""
        iou, epoch = max(scores, key=lambda score: score[0])
        return f"best validation IoU {iou:.3f} (epoch {epoch}), target {self.target:g}"

    def saved(self) -> str:
        """Say when the state was saved last, or that it is about to be."""
        if self.status.pid is not None and self.run.wants("save"):
            return "about to save"
        with contextlib.suppress(FileNotFoundError):
            moment = time.localtime((self.run.folder / "last.pt").stat().st_mtime)
            return time.strftime("saved %Y-%m-%d %H:%M:%S", moment)
        return ""

    def advice(self) -> str:
        """Say how to go on from here; nothing while the training goes on by itself."""
        folder, saved = self.folder, self.run.has("last")
        go_on = f"press Resume, or type `camoxpert resume {folder}`"
        return {
            "empty": f"No run here yet: {folder}. It is shown as soon as one begins.",
            "paused": "Nothing is lost; press Resume to go on.",
            "stopped": f"Everything is saved. To go on: {go_on}."
            if saved
            else "It ended before anything was trained. Press Resume to start it again.",
            "finished": f"Best weights: `{folder}/best.pt`. Score them: notebook 04_evaluate, or "
            f"`camoxpert evaluate --run {folder} --dataset-path DIR`.",
            "died": f"What was saved last is whole. To go on from there: {go_on}."
            if saved
            else "Nothing was trained yet. Mend the cause, then press Resume or launch again.",
        }.get(self.status.name, "")

    def line(self) -> str:
        """Return the run in one line of plain text, with the cause below it when it died."""
        process = f" (process {self.status.pid})" if self.status.pid else ""
        known = [self.place(), self.best()]
        text = f"{self.folder}: {self.status.name}{process}"
        text = "; ".join([text, *filter(None, known)])
        return "\n".join(filter(None, [text, self.status.cause, self.advice()]))

    def _newest(self) -> Record:
        return max([*self.steps[-1:], *self.epochs[-1:]], key=lambda r: r["step"], default={})

    def _time_left(self) -> list[str]:
        recent = self.steps[self._since :][-LOOK_BACK:]
        if self.status.name != "running" or len(recent) < 2:
            return []
        first, last = recent[0], recent[-1]
        pace = (last["time"] - first["time"]) / max(last["step"] - first["step"], 1)
        seconds = round(pace * (last["steps"] - last["step"]))
        return [f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"]
