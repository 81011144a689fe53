"""The whole step as one CUDA graph: a thousand launches become one.

On a GPU a small step is bound by its launches, not by its arithmetic: LOG.md has a step of 35 ms of
kernels that took 105 ms. A graph is captured after a few ordinary steps and replayed from then on.
It reads its images, learning rates and weights at the places it knew when it was captured, so these
are copied there before each replay.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ..machine.devices import Devices

WARM_UP = 3  # ordinary steps before the capture: libraries choose kernels, moments are made

T = TypeVar("T")
Batch = dict[str, Tensor]


class Recorder(Protocol):
    """What captures and replays: a GPU, or its stand-in in a test."""

    def warm_up(self, work: Callable[[], T]) -> T:
        """Return `work()`, done where the capture will be."""

    def record(self, work: Callable[[], T]) -> Callable[[], T]:
        """Capture `work`, which does nothing yet; return what replays it. RuntimeError: cannot."""


class StepGraph:
    """Runs steps by a graph where there is one, and captures it when it is due.

    It holds one graph, of one kind of step (open blocks and size) and of batches of one shape; a
    step of another shape runs as it is. `note` says why nothing is captured, if the user should
    know; without a `recorder` nothing is.
    """

    def __init__(
        self,
        recorder: Recorder | None = None,
        device: torch.device | None = None,
        *,
        note: str = "",
        recover: Callable[[], None] = lambda: None,
    ) -> None:
        self.recorder, self.device, self.note, self._recover = recorder, device, note, recover
        self.recording = False
        self.forget()

    @property
    def captured(self) -> bool:
        """Say whether there is a graph now."""
        return self._replay is not None

    @property
    def due(self) -> bool:
        """Say whether there will be a graph after some more steps of this kind."""
        return self.recorder is not None and not self.captured

    def forget(self) -> None:
        """Let the graph go: the tensors it knows are no longer those of the training."""
        self._kind: Hashable = None
        self._shapes, self._warm = list[Any](), 0
        self._inputs: list[Batch] = []
        self._replay: Callable[[], Any] | None = None

    def run(
        self, kind: Hashable, batches: Sequence[Batch], work: Callable[[Sequence[Batch]], T]
    ) -> T | None:
        """Return `work(batches)` by way of the graph, or None where the caller is to do it.

        `work` must wait for nothing on the device, and returns tensors that live there.
        """
        if self.recorder is None:
            return None
        shapes = [value.shape for batch in batches for value in batch.values()]
        if kind != self._kind or (self.due and shapes != self._shapes):
            self.forget()
            self._kind, self._shapes = kind, shapes
        if self.due and self._warm < WARM_UP:
            self._warm += 1
            return self.recorder.warm_up(lambda: work(batches))
        if self.due:
            self._capture(self.recorder, batches, work)
        return self._replayed(batches) if self.captured and shapes == self._shapes else None

    def _replayed(self, batches: Sequence[Batch]) -> Any:
        """Copy the batches to their places and replay."""
        assert self._replay is not None
        for place, batch in zip(self._inputs, batches, strict=True):
            for name, value in batch.items():
                place[name].copy_(value, non_blocking=True)
        return self._replay()

    def _capture(
        self,
        recorder: Recorder,
        batches: Sequence[Batch],
        work: Callable[[Sequence[Batch]], Any],
    ) -> None:
        """Capture the step on places of its own; where that fails, never try again."""
        self._inputs = [
            {name: torch.empty_like(value, device=self.device) for name, value in batch.items()}
            for batch in batches
        ]
        self.recording = True
        try:
            self._replay = recorder.record(lambda: work(self._inputs))
        except RuntimeError as error:
            self.forget()
            self.recorder = None
            self.note = (
                "the step could not be captured as a CUDA graph and runs as it is, launch by "
                f"launch ({_first_cause(error)})."
            )
            self._recover()
        finally:
            self.recording = False


def make_graph(
    devices: Devices,
    *,
    wanted: bool,
    checkpointing: bool,
    recover: Callable[[], None],
    own: str = "",
) -> StepGraph:
    """Return what captures the steps on these devices, or one that does not and says why.

    `own` names the user's own parts of the step: a capture would keep what their Python did once.
    """
    if not (wanted and devices.ids):
        return StepGraph()
    why = ""
    if devices.kind in ("dp", "ddp"):
        why = "its gradients are exchanged between processes or GPUs"
    elif checkpointing:
        why = "--gradient-checkpointing sets random numbers back within it"
    elif own:
        why = f"your own {own} is Python that runs anew in each"
    if why:
        return StepGraph(note=f"the step is not captured as a CUDA graph: {why}.")
    return StepGraph(GpuRecorder(devices.main), devices.main, recover=recover)


class GpuRecorder:
    """Captures work on a GPU, on a stream of its own, as torch.cuda.graph asks for."""

    def __init__(self, device: torch.device) -> None:
        self.device, self._stream = device, torch.cuda.Stream(device)

    def __deepcopy__(self, memo: dict[int, Any]) -> GpuRecorder:
        return GpuRecorder(self.device)

    def warm_up(self, work: Callable[[], T]) -> T:
        """Return `work()`, queued after what this thread's stream has to do and before the rest."""
        with torch.cuda.device(self.device):
            here = torch.cuda.current_stream()
            self._stream.wait_stream(here)
            with torch.cuda.stream(self._stream):
                result = work()
            here.wait_stream(self._stream)
        return result

    def record(self, work: Callable[[], T]) -> Callable[[], T]:
        """Capture `work`; a replay draws from the GPU's generator as an ordinary step would."""
        with torch.cuda.device(self.device):
            here, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
            try:
                # Other threads (the loader's that pins memory) may go on meanwhile: thread_local.
                mode = {"stream": self._stream, "capture_error_mode": "thread_local"}
                with torch.cuda.graph(graph, **mode):  # type: ignore[arg-type]
                    result = work()
            except RuntimeError:
                torch.cuda.set_stream(here)  # a capture that breaks off leaves its own
                self._renew_generator()
                raise

        def replay() -> T:
            with torch.cuda.device(self.device):
                graph.replay()
            return result

        return replay

    def _renew_generator(self) -> None:
        """Give the GPU's generator a new state: the old one still counts for the capture."""
        index = self.device.index or 0
        fresh = torch.Generator(self.device).graphsafe_get_state()
        torch.cuda.default_generators[index].graphsafe_set_state(fresh)


def _first_cause(error: BaseException) -> str:
    """Return the first line of what went wrong first: ending a capture fails too, afterwards."""
    while error.__context__:
        error = error.__context__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
