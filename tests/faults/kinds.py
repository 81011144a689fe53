"""Every kind of fault, in the order of the table."""

from __future__ import annotations

from .images import FUZZED
from .tally import Fault

FAULTS: tuple[Fault, ...] = (*FUZZED,)
