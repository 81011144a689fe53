"""What follows from the kinds of masks that were found, counted by hand."""

from __future__ import annotations

import pytest

from camoxpert_nb.data.findings import KINDS, require_objects, sentences, settle
from camoxpert_nb.errors import InputError


def names(count: int, of: str = "m") -> list[str]:
    return [f"{of}{number}" for number in range(count)]


def test_kinds_stand_in_the_order_of_the_table_and_empty_ones_go() -> None:
    found = {"grey": names(1), "empty": names(2), "colour": [], "exif": names(3)}
    assert settle(found, 10) == {"empty": names(2), "exif": names(3), "grey": names(1)}
    assert list(settle(found, 10)) == ["empty", "exif", "grey"]
    assert settle({}, 10) == settle({}, 0) == {}


@pytest.mark.parametrize(
    ("border", "full", "total", "noncam", "inverted"),
    [
        (5, 0, 10, 0, False),  # half is not more than half
        (6, 0, 10, 0, True),
        (4, 2, 10, 0, True),  # a mask that is all object counts with them
        (0, 6, 10, 0, False),  # without a border nothing looks inverted
        (3, 0, 10, 5, True),  # of the five that are to show something
        (3, 0, 10, 4, False),
    ],
)
def test_masks_are_inverted_where_most_borders_are_object(
    border: int, full: int, total: int, noncam: int, inverted: bool
) -> None:
    found = settle({"border": names(border), "full": names(full)}, total, noncam)
    assert ("inverted" in found, "border" in found) == (inverted, bool(border) and not inverted)
    if inverted:
        assert found["inverted"] == names(border)


@pytest.mark.parametrize(
    ("kinds", "total", "noncam", "nothing"),
    [
        ({"empty": 2, "ids": 1, "unnamed": 1}, 4, 0, "none of the 4 masks shows an object"),
        ({"empty": 2, "ids": 1, "unnamed": 1}, 5, 0, None),
        ({"ids": 3}, 5, 2, "none of the 3 masks shows an object"),
        ({"empty": 2}, 2, 2, None),  # none is wanted
        ({"full": 3}, 3, 0, "each of the 3 masks is all object"),
        ({"full": 3}, 4, 1, "each of the 3 masks is all object"),
        ({"full": 2}, 3, 0, None),
    ],
)
def test_where_no_mask_or_every_mask_is_object_nothing_is_learned(
    kinds: dict[str, int], total: int, noncam: int, nothing: str | None
) -> None:
    found = settle({kind: names(count) for kind, count in kinds.items()}, total, noncam)
    assert found.get("nothing") == ([nothing] if nothing else None)
    if nothing is None:
        require_objects(found, total)
        return
    with pytest.raises(InputError) as error:
        require_objects(found, total)
    assert str(error.value).startswith(f"Nothing can be learned here: {nothing}. ")


def test_an_ignored_value_that_some_masks_hold_is_no_mistake() -> None:
    assert settle({"not ignored": names(3)}, 4) == {}
    assert settle({"not ignored": names(4)}, 4) == {"not ignored": names(4)}


def test_what_changes_numbers_is_a_sentence_and_what_does_not_only_where_it_is_often() -> None:
    kinds = {"empty": names(1), "zero_one": names(9), "alpha": names(1), "border": names(2)}
    empty = (
        "1 of 10 masks: empty masks (m0). Check that no object is meant; 'NonCAM' in the name "
        "marks images without one"
    )
    border = (
        "2 of 10 masks: masks whose border is mostly object (m0, m1). Look at them: camoxpert data "
        "DIR --picture FILE"
    )
    assert sentences(kinds, 10) == [empty, border]  # one in ten is no more than often
    alpha = "2 of 10 masks: masks in the alpha channel (m0, m1). Read from there"
    assert sentences({"alpha": names(2)}, 10) == [alpha]
    assert sentences({"unreadable": names(2), "grey": names(10)}, 10) == []


def test_the_refusal_names_each_kind_with_its_mend() -> None:
    kinds = settle({"ids": names(4), "colour": names(1)}, 4)
    with pytest.raises(InputError) as error:
        require_objects(kinds, 4)
    assert str(error.value) == (
        "Nothing can be learned here: none of the 4 masks shows an object. 4 of 4 masks: masks "
        "without a value above 128 (m0, m1, m2 and 1 more). Read as empty. Masks of ids, classes "
        "or dark colours: --mask-object nonzero, or the ids that are object, as --mask-object 1,3. "
        "1 of 4 masks: masks in colour (m0). Read as brightness: object where it is above 128. If "
        "every colour is object: --mask-object nonzero."
    )


def test_every_kind_has_one_of_three_weights_and_a_mend() -> None:
    assert {kind.weight for kind in KINDS.values()} == {"stop", "warn", "note"}
    assert all(kind.title and kind.advice.endswith(".") for kind in KINDS.values())
