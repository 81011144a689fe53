"""Tables whose numbers stay under their headings in any terminal."""

from __future__ import annotations

import pytest

from camoxpert_nb.outside.tables import table
from camoxpert_nb.outside.terminal import width

HEADS = ("run", "state", "epochs", "best IoU", "backbone", "weighted F-measure", "data")
ROWS = [
    dict(zip(HEADS, cells, strict=True))
    for cells in (
        ("runs/mine/seed-1", "finished", "60 of 60", "0.812", "pvt_v2_b2", "0.7", "/data/COD10K"),
        ("runs/日本", "training", "1 of 9", "", "swin", "0.1", "/a/very/long/way/to/the/data/here"),
    )
]


@pytest.mark.parametrize("most", [40, 60, 79, 80, 100, 200])
@pytest.mark.parametrize("cut", ["", "data"])
@pytest.mark.parametrize("right", [True, False])
def test_a_table_fits_and_keeps_every_number_under_its_heading(
    most: int, cut: str, right: bool
) -> None:
    parts = "\n".join(table(ROWS, cut=cut, most=most, right=right)).split("\n\n")
    found: dict[str, list[str]] = {}
    for part in parts:
        head, *lines = part.split("\n")
        assert head.startswith("run") and len(lines) == len(ROWS)
        assert cut == "" or max(map(width, part.split("\n"))) <= most
        for name in HEADS:
            if (place := head.find(name)) >= 0 and right and name != "run":
                end = place + len(name)
                found[name] = [
                    line[: end - (width(line) - len(line))].split("  ")[-1].strip()
                    for line in lines
                ]
            elif place >= 0:
                found[name] = [row[name] for row in ROWS]
    assert set(found) == set(HEADS)
    for name in HEADS[1:-1]:
        assert found[name] == [row[name] for row in ROWS]


def test_without_a_terminal_there_is_one_table_of_whole_texts() -> None:
    head, *lines = table(ROWS, cut="data")
    assert head.split()[0] == "run" and len(lines) == 2
    assert ROWS[1]["data"] in lines[1]


def test_of_a_text_that_is_cut_enough_is_left() -> None:
    text = "\n".join(table(ROWS, cut="data", most=80))
    assert "way/to/the/data/here" in text
