"""Every kind of fault, in the order of the table."""

from __future__ import annotations

from .images import FUZZED
from .numbers import NO_NUMBERS
from .strangers import FOREIGN
from .tally import Fault

FAULTS: tuple[Fault, ...] = (*FUZZED, *FOREIGN, *NO_NUMBERS)
