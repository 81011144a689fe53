"""Every kind of fault, in the order of the table."""

from __future__ import annotations

from .images import FUZZED
from .strangers import FOREIGN
from .tally import Fault

FAULTS: tuple[Fault, ...] = (*FUZZED, *FOREIGN)
