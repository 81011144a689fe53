"""Each kind of fault, tried a few times; `make faults` tries them often."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.kinds import FAULTS
from faults.tally import Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost(fault: Fault, tmp_path: Path) -> None:
    tally = fault.work(tmp_path, fault.few, 0)
    if tally.skipped:
        pytest.skip(tally.skipped)
    assert tally.tried >= fault.few
    assert tally.lost == []
