"""Cards that are not here: names, and figures that fit each other."""

from __future__ import annotations

import pytest

from camoxpert_nb.errors import InputError
from camoxpert_nb.machine.cards import CARDS, Card, find_card


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("t4", "t4", 1),
        ("t4x2", "t4", 2),
        ("Tesla T4 x2", "t4", 2),
        ("rtx3090", "rtx3090", 1),  # its own x is no number of cards
        ("NVIDIA GeForce RTX 4090x8", "rtx4090", 8),
        ("a100-80x4", "a100-80", 4),
        ("NVIDIA H100 80GB HBM3", "h100", 1),  # as drivers tell them
        ("NVIDIA H200", "h200", 1),
        ("NVIDIA A100-SXM4-40GB", "a100", 1),
        ("NVIDIA A100-SXM4-80GB x4", "a100-80", 4),
        ("Tesla P100-PCIE-16GB", "p100", 1),
        ("Tesla V100-SXM2-16GB x2", "v100", 2),
    ],
)
def test_a_card_is_found_as_people_write_it(text: str, name: str, count: int) -> None:
    assert find_card(text) == (CARDS[name], count)


def test_an_unknown_card_gets_the_near_names_and_all() -> None:
    with pytest.raises(InputError, match="Near: rtx3090") as raised:
        find_card("rtx309")
    assert all(name in str(raised.value) for name in CARDS)
    for text in ("t4x0", "t4x99"):
        with pytest.raises(InputError, match="a machine has 1 to 16"):
            find_card(text)
    for text in ("", "x2", "t4y2", "RTX 3060 Ti", "t4-", "l40", "H100 80 GB NVLx"):
        with pytest.raises(InputError, match="no such card"):
            find_card(text)


@pytest.mark.parametrize("card", CARDS.values(), ids=lambda card: card.name)
def test_figures_fit_each_other(card: Card) -> None:
    assert card.half >= card.tf32 >= card.full > 0
    if card.capability < (8, 0):
        assert card.tf32 == card.full  # tensor cores knew no float32 yet
    assert card.bandwidth > card.link and card.gib > 5 and card.multiprocessors > 20
