"""Every kind of fault, in the order of the table."""

from __future__ import annotations

from .clocks import CLOCKS
from .disks import DISKS
from .images import FUZZED
from .kills import KILLS
from .long import LONG
from .numbers import NO_NUMBERS
from .strangers import FOREIGN
from .tally import Fault

FAULTS: tuple[Fault, ...] = (*KILLS, *CLOCKS, *DISKS, *FUZZED, *FOREIGN, *NO_NUMBERS, *LONG)
