"""What this machine is, read once into plain values, and what is wrong with it for training.

No GPU is touched but where the facts are read: a process that must not can still work with them.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..machine.devices import GIB

KAGGLE_FIX = (
    "In the notebook's right-hand panel choose Session options, Accelerator, 'GPU T4 x2' (it asks "
    "for a phone-verified account), and start the session again."
)


@dataclass(frozen=True)
class Card:
    """One CUDA GPU, as PyTorch sees it."""

    index: int
    name: str
    total_gib: float
    free_gib: float | None  # None: it cannot be opened
    capability: tuple[int, int]
    multiprocessors: int
    has_kernels: bool  # whether this build of PyTorch holds code for it

    @property
    def version(self) -> str:
        """The compute capability, as in "7.5"."""
        return "{}.{}".format(*self.capability)

    def describe(self) -> str:
        """Return the card's line."""
        half = "fp16 is fast" if self.capability >= (7, 0) else "no fast fp16"
        bf16 = "bf16 too" if self.capability >= (8, 0) else "bf16 at best emulated and slow"
        return (
            f"{self.name}, {self.total_gib:.1f} GiB, {_gib(self.free_gib)} free, compute "
            f"capability {self.version}, {self.multiprocessors} multiprocessors, {half}, {bf16}; "
            f"this PyTorch has {'' if self.has_kernels else 'NO '}kernels for it"
        )


@dataclass(frozen=True)
class Facts:
    """What the machine has; empty text or None where it is not there or could not be read."""

    system: str
    torch: str
    cuda: str  # version that PyTorch was built for; "" for a build without CUDA
    architectures: Sequence[str]  # that this build holds kernels for, as in "sm_75"
    driver: str
    driver_cuda: str  # newest CUDA version that the driver serves
    present: int  # GPUs that the driver lists, hidden ones included
    visible: str | None  # CUDA_VISIBLE_DEVICES
    cards: Sequence[Card]  # that PyTorch sees
    cuda_error: str
    cores: int
    ram_gib: float | None
    ram_free_gib: float | None
    shm_gib: float | None  # free in /dev/shm
    disk_gib: float  # free under `folder`
    folder: str
    kaggle: bool

    def rows(self) -> list[tuple[str, str]]:
        """Return the facts as names and sentences."""
        built = f"built for CUDA {self.cuda}" if self.cuda else "built without CUDA"
        driver = f"{self.driver}, serves CUDA up to {self.driver_cuda or 'an unknown version'}"
        gpus = [(f"GPU {card.index}", card.describe()) for card in self.cards]
        return [
            ("system", self.system),
            ("driver", driver if self.driver else "no NVIDIA driver was found"),
            ("PyTorch", f"{self.torch}, {built}"),
            ("kernels", " ".join(self.architectures) or "for the CPU alone"),
            *(gpus or [("GPU", "none that PyTorch can use")]),
            ("CPU", f"{self.cores} core{'s' * (self.cores > 1)} for this process"),
            ("RAM", f"{_gib(self.ram_gib)}, {_gib(self.ram_free_gib)} free"),
            ("/dev/shm", "not there" if self.shm_gib is None else f"{_gib(self.shm_gib)} free"),
            ("disk", f"{_gib(self.disk_gib)} free under {self.folder}"),
        ]


@dataclass(frozen=True)
class MachineFinding:
    """Something about the machine: "stop", "warn" or "note"; what it is, and what to do."""

    weight: str
    what: str
    fix: str


def read_facts(cores: int, folder: Path) -> Facts:
    """Read the machine; `cores` are the CPU cores this process may use, `folder` holds the runs.

    This opens every GPU, which takes some of its memory for as long as the process lives.
    """
    driver, driver_cuda, present = parse_driver(_query_driver())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        architectures = tuple(torch.cuda.get_arch_list())
        cards = tuple(_read_card(index, architectures) for index in range(count))
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    ram, ram_free = read_ram()
    return Facts(
        system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        torch=torch.__version__,
        cuda=torch.version.cuda or "",
        architectures=architectures,
        driver=driver,
        driver_cuda=driver_cuda,
        present=present,
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        cards=cards,
        cuda_error="; ".join(str(each.message).strip().partition("\n")[0] for each in caught),
        cores=cores,
        ram_gib=ram,
        ram_free_gib=ram_free,
        shm_gib=shutil.disk_usage("/dev/shm").free / GIB if Path("/dev/shm").exists() else None,
        disk_gib=shutil.disk_usage(existing).free / GIB,
        folder=str(existing.absolute()),
        kaggle="KAGGLE_KERNEL_RUN_TYPE" in os.environ,
    )


def read_ram(
    proc: Path = Path("/proc"), group: Path = Path("/sys/fs/cgroup")
) -> tuple[float | None, float | None]:
    """Return the RAM in GiB, all and available, a container's limit included; None: unknown."""
    try:
        found = dict(re.findall(r"(\w+):\s+(\d+) kB", (proc / "meminfo").read_text()))
        total, free = (int(found[key]) / 2**20 for key in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError):
        return None, None
    try:
        limit = int((group / "memory.max").read_text()) / GIB
        used = int((group / "memory.current").read_text())
        cached = re.search(r"^inactive_file (\d+)", (group / "memory.stat").read_text(), re.M)
        left = limit - (used - int(cached[1] if cached else 0)) / GIB
    except (OSError, ValueError):  # no container, or "max"
        return total, free
    return min(total, limit), min(free, left)


def has_kernels(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Say whether code built for `architectures` runs on a card of this compute capability.

    Machine code (sm_75) runs on its own major version from its minor version on, code for one chip
    (sm_90a) there alone, portable code (compute_90) on everything newer (NVIDIA, CUDA C++
    Programming Guide, "Compute Capabilities"). An empty list says nothing, and counts as yes.
    """
    for kind, number, suffix in re.findall(r"(sm|compute)_(\d+)(\w?)", " ".join(architectures)):
        built = divmod(int(number), 10)
        same = built == capability or (built[0] == capability[0] and suffix != "a")
        portable = kind == "compute" and not suffix
        if built <= capability and (same or portable):
            return True
    return not architectures


def list_findings(facts: Facts) -> list[MachineFinding]:
    """Return what is wrong or worth knowing, gravest first."""
    rows = [row for rule in (_availability, _cards, _room) for row in rule(facts)]
    rows.sort(key=lambda row: ("stop", "warn", "note").index(row[0]))
    return [MachineFinding(*row) for row in rows]


Rows = Iterator[tuple[str, str, str]]


def _availability(facts: Facts) -> Rows:
    install = "https://pytorch.org/get-started/previous-versions"
    if facts.cuda and facts.visible is not None and facts.present > len(facts.cards):
        what = (
            f"the driver lists {facts.present} GPUs, but CUDA_VISIBLE_DEVICES={facts.visible!r} "
            f"leaves {len(facts.cards)} of them"
        )
        yield "warn", what, "Unset CUDA_VISIBLE_DEVICES before Python starts, or leave it so."
    if facts.cards or (facts.visible is not None and facts.present):
        return
    if facts.driver and not facts.cuda:
        what = f"this PyTorch is built without CUDA, so {facts.present} GPU(s) stay idle"
        yield "warn", what, f"Install a CUDA build of PyTorch: {install}."
    elif facts.driver_cuda and _major(facts.driver_cuda) < _major(facts.cuda):
        what = f"the driver serves CUDA {facts.driver_cuda}, this PyTorch needs {facts.cuda}"
        yield "stop", what, f"Update the driver, or install a PyTorch for an older CUDA: {install}."
    elif facts.present:
        why = facts.cuda_error or "it does not say why"
        what = f"the driver lists {facts.present} GPU(s), but PyTorch can use none ({why})"
        yield "stop", what, "Restart the session or machine; a container needs `--gpus all`."
    elif facts.kaggle:
        yield "warn", "this Kaggle session has no GPU", KAGGLE_FIX
    else:
        yield (
            "note",
            "there is no NVIDIA GPU here",
            "Training works on the CPU, many times slower.",
        )


def _cards(facts: Facts) -> Rows:
    for card in facts.cards:
        if not card.has_kernels:
            what = (
                f"GPU {card.index} ({card.name}) has compute capability {card.version};"
                f" this PyTorch has kernels for {' '.join(facts.architectures)} only"
            )
            fix = (
                "Use another card, a newer PyTorch if the card is newer than it, or a build for "
                "old cards: pip install torch --index-url https://download.pytorch.org/whl/cu126"
            )
            yield "stop", what, KAGGLE_FIX if facts.kaggle else fix
        if card.free_gib is not None and card.free_gib < 0.8 * card.total_gib:
            taken = card.total_gib - card.free_gib
            what = f"{taken:.1f} of {card.total_gib:.1f} GiB of GPU {card.index} are taken already"
            yield "warn", what, "`nvidia-smi` shows by whom; restart notebooks that used the GPU."
    if len({card.name for card in facts.cards}) > 1:
        fix = "Leave out the slow ones, with --gpus 0,1 for instance."
        yield "note", "the GPUs differ; each step waits for the slowest of them", fix


def _room(facts: Facts) -> Rows:
    if facts.shm_gib is not None and facts.shm_gib < 0.25:
        what = (
            f"/dev/shm has only {1024 * facts.shm_gib:.0f} MiB free; images pass through it from "
            "loading processes, which die with a bus error when it is full"
        )
        yield "warn", what, "Start the container with --shm-size=2g, or use --num-workers 0."
    if facts.ram_free_gib is not None and facts.ram_free_gib < 4:
        what = f"only {_gib(facts.ram_free_gib)} of RAM are free"
        yield "warn", what, "Close other programs and notebooks, or use --num-workers 0."
    if facts.disk_gib < 5:
        what = f"only {_gib(facts.disk_gib)} are free under {facts.folder}"
        yield "warn", what, "Delete old runs, or give --checkpoint-dir and --cache-dir elsewhere."


def _read_card(index: int, architectures: Sequence[str]) -> Card:
    info = torch.cuda.get_device_properties(index)
    capability, total = (info.major, info.minor), info.total_memory / GIB
    try:
        free = torch.cuda.mem_get_info(index)[0] / GIB
    except RuntimeError:  # a card that cannot be opened is still worth its line
        free = None
    runs = has_kernels(capability, architectures)
    return Card(index, info.name, total, free, capability, info.multi_processor_count, runs)


def _query_driver() -> str:
    """Return what `nvidia-smi -q` prints; nothing without a driver."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "-q"]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=True
        ).stdout
    return ""


def parse_driver(answer: str) -> tuple[str, str, int]:
    """Return driver, newest CUDA version and number of GPUs in the answer of `nvidia-smi -q`.

    PyTorch does not know them where it can use no GPU.
    """
    names = ("(?:Driver|KMD) Version", "CUDA (?:UMD )?Version", "Attached GPUs")
    found = [re.search(rf"{name}\s*:\s*([\d.]+)", answer) for name in names]
    driver, cuda, present = (match[1] if match else "" for match in found)
    return driver, cuda, int(present or 0)


def _major(version: str) -> int:
    return int(version.partition(".")[0] or 0)


def _gib(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f} GiB"
