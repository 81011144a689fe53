"""How data are read, as the flags that say so."""

from __future__ import annotations

import pytest

from camoxpert_nb.data.reading import AUTOMATIC, PLAIN, MaskReading, Reading
from camoxpert_nb.settings.config import make_config


def test_settings_become_a_reading_each_in_its_place() -> None:
    assert Reading.of(make_config("tiny")) == AUTOMATIC == Reading("", "", "", PLAIN)
    config = make_config(
        "tiny",
        image_folder="a",
        mask_folder="b",
        mask_suffix="_m",
        mask_object="1,3",
        mask_invert=True,
        ignore_label=255,
        mask_exif="stored",
    )
    how = MaskReading("1,3", True, 255, "stored")
    assert Reading.of(config) == Reading("a", "b", "_m", how)
    assert Reading.of(config).in_words() == (
        "--image-folder a --mask-folder b --mask-suffix _m --mask-object 1,3 --mask-exif stored "
        "--ignore-label 255 --mask-invert"
    )


@pytest.mark.parametrize(
    ("reading", "said"),
    [
        (AUTOMATIC, ""),
        (Reading(masks="GT"), "--mask-folder GT"),
        (Reading(how=MaskReading("nonzero")), "--mask-object nonzero"),
        (Reading(how=MaskReading(ignore=0)), "--ignore-label 0"),
        (Reading(how=MaskReading(exif="shown")), "--mask-exif shown"),
        (Reading(how=MaskReading(invert=True)), "--mask-invert"),
    ],
)
def test_only_what_was_asked_for_is_said(reading: Reading, said: str) -> None:
    assert reading.in_words() == said


def test_values_are_those_that_are_named() -> None:
    assert MaskReading().values == MaskReading("nonzero").values == ()
    assert MaskReading("3").values == (3,) and MaskReading("1,3,0").values == (1, 3, 0)
