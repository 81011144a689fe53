"""Which process holds a run: a number alone may belong to another program by now.

A process is known by its number, the moment it started, and the machine's boot; numbers are given
again after a while, and all of them after a reboot.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError

FRESH = 120  # seconds: a run of another machine that wrote something so lately is alive
MARKS = ("boot", "pid_began", "trainer_began")
SLACK = 5.0  # seconds by which clocks and file times may be off


def this_machine() -> dict[str, Any]:
    """Return what tells this machine, since its last start, from all others."""
    return {"host": platform.node(), "boot": boot_id()}


def noted_as(name: str, pid: int) -> dict[str, Any]:
    """Return what is written of a process: its number by `name`, and what tells it from others."""
    return {name: pid, f"{name}_began": f"{pid} {began(pid)}"}


def boot_id() -> str:
    """Return what is another one after each start of this machine, "" where nothing says it."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def began(pid: int) -> str:
    """Return when a process started, in the system's own words, "" if nothing says it."""
    if Path("/proc/self/stat").exists():
        with suppress(OSError, IndexError):
            return _stat(pid)[19]
        return ""
    with suppress(OSError, subprocess.SubprocessError):  # macOS, BSD
        done = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=5
        )
        return done.stdout.strip()
    return ""


def _stat(pid: int) -> list[str]:
    """Return what Linux says of a process, from its state on: its name may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def is_here(known: dict[str, Any]) -> bool:
    """Say whether what was noted of a process was noted on this machine."""
    return known.get("host") == platform.node()


def holds(known: dict[str, Any], name: str, noted: float) -> bool:
    """Say whether the process that was noted by `name` lives on this machine.

    known: "host", and where newer kits wrote it what `this_machine` and `noted_as` say; noted: when
    it was written, as time.time() tells it. Whoever started after that is another one.
    """
    pid = known[name]
    if not is_here(known) or not alive(pid):
        return False
    if known.get("boot") and boot_id() and known["boot"] != boot_id():
        return False
    number, _, when = str(known.get(f"{name}_began", "")).partition(" ")
    if when and number == str(pid):
        return when == began(pid)
    if name == "pid" and not _is_ours(pid):
        return False
    return _started_at(pid) <= noted + SLACK


def _is_ours(pid: int) -> bool:
    """Say whether a process is one that we start; True where the system does not tell."""
    try:
        return b"camoxpert_nb" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def _started_at(pid: int) -> float:
    """Return when a process started, as time.time() tells it; 0 if that is unknown."""
    with suppress(OSError, ValueError, StopIteration):
        ticks = float(began(pid)) / os.sysconf("SC_CLK_TCK")
        lines = Path("/proc/stat").read_text().splitlines()
        boot = next(line for line in lines if line.startswith("btime"))
        return min(float(boot.split()[1]) + ticks, time.time())
    return 0.0


def alive(pid: int) -> bool:
    """Say whether a process lives on this machine; one that ended unnoticed (a zombie) does not.

    Raises InputError on Windows, where the question itself would end the process.
    """
    if os.name == "nt":
        raise InputError(
            "Windows is not supported: a training cannot be watched there without interrupting "
            "it. Use the Windows Subsystem for Linux (`wsl --install`)."
        )
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    with suppress(OSError, IndexError):  # a system without /proc
        return pid > 0 and _stat(pid)[0] not in "ZX"
    return pid > 0
