"""Whatever files are called: each is paired at most once, and none is lost."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from properties import tried

from camoxpert_nb.data.audit import audit, report
from camoxpert_nb.data.layouts import look_through
from camoxpert_nb.data.pairing import pair_in_one_folder, pair_names

PARTS = ["a", "A", "b", "1", "01", "12", "_mask", "mask_", "-gt", "image_", " ", ".", "e\u0301"]
PARTS += ["\u00e9", "ß", "ss", "İ", "_", "label", "rgb-", "x.jpg", "\u202e", "\u017f", "\ufb01"]
STEMS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).map("".join)
NAMES = st.builds(lambda stem, end: stem + end, STEMS, st.sampled_from([".jpg", ".png", ".PNG"]))
FILES = st.lists(NAMES, max_size=12, unique=True)


@tried(200)
@given(FILES, FILES, st.sampled_from(["", "_mask", "-GT"]), st.randoms(use_true_random=False))
def test_each_name_is_paired_once_in_whatever_order(
    images: list[str], masks: list[str], suffix: str, rng: random.Random
) -> None:
    found = pair_names(images, masks, suffix)
    assert found.files.keys() <= {*images} and {*found.files.values()} <= {*masks}
    assert len({*found.files.values()}) == len(found.files)
    second = [each for names in found.second.values() for each in names]
    assert {*second}.isdisjoint(found.files.values()) and found.second.keys() <= found.files.keys()
    others = rng.sample(images, len(images)), rng.sample(masks, len(masks))
    again = pair_names(*others, suffix)
    assert again.files == found.files
    assert {k: {*v} for k, v in again.second.items()} == {k: {*v} for k, v in found.second.items()}


@tried(200)
@given(FILES, st.sampled_from(["", "_mask"]))
def test_in_one_folder_no_file_is_image_and_mask(names: list[str], suffix: str) -> None:
    found = pair_in_one_folder(names, suffix).files
    assert {*found}.isdisjoint(found.values())
    assert len({*found.values()}) == len(found)


@tried(60)
@given(FILES, FILES)
def test_each_file_of_a_data_set_is_used_or_named(images: list[str], masks: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for folder, files in (("Imgs", ["whole.jpg", *images]), ("GT", ["whole.png", *masks])):
            (root / folder).mkdir()
            for each in files:
                (root / folder / each).touch()
        found = look_through(root)
        (one,) = found.sets
        seen = [path for pair in one.pairs for path in (pair.image, pair.mask)]
        seen += [*one.images_without_mask, *one.masks_without_image]
        rest = {path for path in root.rglob("*") if path.is_file()} - {*seen}
        assert len({*seen}) == len(seen)
        said = report(audit(found), None)
        assert not [path.name for path in rest if path.name not in said and path.name[0] != "."]
