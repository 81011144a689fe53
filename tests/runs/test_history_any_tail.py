"""Wherever a history was torn: what was whole is read, and what is written later too."""

from __future__ import annotations

import json
import tempfile
from typing import Any

from fabricated import fabricated
from hypothesis import given
from hypothesis import strategies as st
from properties import tried

from camoxpert_nb.runs.history import parsed
from camoxpert_nb.runs.run import Run

RECORDS = [json.loads(json.dumps(each)) for each in fabricated(3, per_epoch=3)]
WHOLE = "".join(json.dumps(each) + "\n" for each in RECORDS).encode()
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@tried(80)
@given(st.integers(0, len(WHOLE)), st.integers(0, len(WHOLE)))
def test_a_torn_tail_is_read_up_to_its_last_whole_record(place: int, later: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        for end in sorted((place, later)):  # a reader that looks twice while it grows
            run.history_path.write_bytes(WHOLE[:end])
            assert run.records() == RECORDS[: WHOLE[:end].count(b"\n")]
        run.history_path.write_bytes(WHOLE)
        assert run.records() == RECORDS


@tried(80)
@given(st.binary(max_size=60).filter(lambda junk: b"{" not in junk), st.integers(0, len(RECORDS)))
def test_junk_between_lines_costs_no_other(junk: bytes, place: int) -> None:
    lines = WHOLE.splitlines(keepends=True)
    assert [*parsed(b"".join([*lines[:place], junk + b"\n", *lines[place:]]))] == RECORDS


@tried(150)
@given(st.sampled_from(sorted({key for each in RECORDS for key in each})), ANYTHING)
def test_a_record_with_any_value_is_read_or_left_out(key: str, value: Any) -> None:
    changed = {**RECORDS[-1], key: value}
    found = [*parsed(json.dumps(changed).encode())]
    assert len(found) <= 1
    for each in found:
        assert isinstance(each["kind"], str) and each["epoch"] < 1e15
