"""Every kind of fault, in the order of the table."""

from __future__ import annotations

from . import disks, kills, long
from .tally import Fault

FAULTS: tuple[Fault, ...] = (*kills.FAULTS, *disks.FAULTS, *long.FAULTS)
