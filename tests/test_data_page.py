"""docs/data.md: its tables are those of the code, and what they promise is tried."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camoxpert_nb.data.findings import KINDS
from camoxpert_nb.data.folders import SUFFIXES
from camoxpert_nb.data.layouts import TABLE, find_datasets
from camoxpert_nb.data.matching import SPELLINGS
from camoxpert_nb.data.pairing import IMAGE_AFFIXES, MASK_AFFIXES, pair_names
from camoxpert_nb.data.spellings import IMAGES, MASKS, SPLITS, said

PAGE = Path(__file__).parent.parent / "docs" / "data.md"
ALIKE = (  # folders that belong together by their words
    ("images/cat", "masks/cat"),
    ("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask"),
    ("train_images", "train_labels"),
    ("JPEGImages", "SegmentationClassPNG"),
    ("Original", "Ground Truth"),
    ("leftImg8bit/train/a", "gtFine/train/a"),
    ("datasets/imgs/pascal", "datasets/masks/pascal"),
)
NAMES = (
    ("cat.jpg", "cat.png"),
    ("cat.jpg", "cat_mask.png"),
    ("image_1.jpg", "mask_1.png"),
    ("7_sat.jpg", "7_mask.png"),
    ("ISIC_1.jpg", "ISIC_1_segmentation.png"),
    ("cat.jpg", "cat.jpg.png"),
    ("a_leftImg8bit.png", "a_gtFine_labelIds.png"),
)
OF_MASKS = (
    "inverted",
    "full",
    "empty",
    "ids",
    "unnamed",
    "not ignored",
    "void",
    "levels",
    "colour",
    "alpha",
    "exif",
    "second",
)


def layouts() -> str:
    rows = [(row.name, row.images, row.masks) for row in TABLE]
    rows = [(a, b.replace("SPLIT", "Train"), c.replace("SPLIT", "Train")) for a, b, c in rows]
    rows += [("alike but for the word", *pair) for pair in ALIKE]
    lines = ["| layout | images | masks |", "|---|---|---|"]
    lines += [f"| {name} | `{images}` | `{masks}` |" for name, images, masks in rows]
    lines.append(
        f"\n`Imgs` may be called {_words(SPELLINGS['Imgs'])}; `GT` {_words(SPELLINGS['GT'])}."
    )
    lines.append(f"\nOther words for images: {_words(IMAGES)}. For masks: {_words(MASKS)}.")
    return "\n".join(lines)


def names() -> str:
    lines = ["| image | mask |", "|---|---|", *(f"| `{a}` | `{b}` |" for a, b in NAMES)]
    lines.append(f"\nWords of masks: {_words(MASK_AFFIXES)}. Of images: {_words(IMAGE_AFFIXES)}.")
    return "\n".join(lines)


def splits() -> str:
    lines = ["| split | words |", "|---|---|"]
    return "\n".join(
        [*lines, *(f"| {split} | {_words(words)} |" for split, words in SPLITS.items())]
    )


def masks() -> str:
    lines = ["| found | matters | what to do |", "|---|---|---|"]
    kinds = [KINDS[kind] for kind in OF_MASKS]
    return "\n".join([*lines, *(f"| {k.title} | {k.weight} | {k.advice} |" for k in kinds)])


def _words(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words)


PARTS = {
    "layouts": layouts,
    "names": names,
    "splits": splits,
    "masks": masks,
    "suffixes": lambda: " ".join(SUFFIXES),
}


def renewed(text: str) -> str:
    for name, make in PARTS.items():
        gap = "" if name == "suffixes" else "\n"
        text = re.sub(
            rf"(<!-- {name}:begin -->).*?(<!-- {name}:end -->)",
            lambda found, make=make, gap=gap: f"{found[1]}{gap}{make()}{gap}{found[2]}",
            text,
            flags=re.DOTALL,
        )
    return text


def test_the_tables_are_those_in_the_code() -> None:
    text = PAGE.read_text("utf-8")
    assert all(f"<!-- {name}:begin -->" in text for name in PARTS)
    assert text == renewed(text), "run: python tests/test_data_page.py"


def test_each_flag_of_the_page_is_one() -> None:
    from camoxpert_nb.cli import main as cli

    text = PAGE.read_text("utf-8")
    known = {
        option
        for action in cli._parser()._subparsers._group_actions[0].choices.values()  # type: ignore[union-attr]
        for option in action._option_string_actions
    }
    assert set(re.findall(r"`?(--[a-z][a-z-]+)", text)) <= known


@pytest.mark.parametrize(("images", "masks"), ALIKE)
def test_folders_alike_but_for_the_word_are_found(tmp_path, images, masks):
    for folder, name in ((images, "a.jpg"), (masks, "a.png")):
        (tmp_path / "set" / folder).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "set" / folder / name)
    (one,) = find_datasets(tmp_path / "set")
    assert len(one.train) == 1


@pytest.mark.parametrize(("image", "mask"), NAMES)
def test_names_that_belong_together_meet(image, mask):
    assert pair_names([image], [mask]).files == {image: mask}


@pytest.mark.parametrize("split", SPLITS)
def test_each_word_of_a_split_says_it(split):
    assert {said(word) for word in SPLITS[split]} == {split}
    assert {said(word.upper()) for word in SPLITS[split]} == {split}


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text("utf-8")), encoding="utf-8")
