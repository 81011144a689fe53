"""What masks mean: each habit of storing them is read right, or said to be doubtful."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from camoxpert_nb.data.audit import audit, report
from camoxpert_nb.data.findings import KINDS, require_objects, sentences, settle
from camoxpert_nb.data.images import read_image, read_map, turned
from camoxpert_nb.data.layouts import find_datasets
from camoxpert_nb.data.masks import (
    IGNORED,
    Mask,
    labels_of,
    look,
    mask_size,
    object_share,
    read_labels,
    read_objects,
    read_stored,
    resize_labels,
)
from camoxpert_nb.data.pairs import Pair
from camoxpert_nb.data.reading import PLAIN, MaskReading, Reading
from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import Config

SIZE = (30, 44)


def disc() -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return ((y - 12) ** 2 + (x - 15) ** 2 < 64).astype(np.uint8)


def outline(object_: np.ndarray) -> np.ndarray:
    return cv2.dilate(object_, np.ones((3, 3), np.uint8)) - object_


def palette(values: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(values).convert("P")
    image.putdata(values.ravel().tolist())
    image.putpalette(colours + [0] * (768 - len(colours)))
    return image


def rgba(colour: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([colour, alpha]))


def white() -> np.ndarray:
    return np.full((*SIZE, 3), 255, np.uint8)


def photo() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)


def red() -> np.ndarray:
    values = np.zeros((*SIZE, 3), np.uint8)
    values[disc() > 0] = (255, 0, 0)
    return values


def void() -> np.ndarray:
    values = disc()
    values[outline(disc()) > 0] = 255
    return values


def ids(*values: int) -> np.ndarray:
    found = disc() * np.uint8(values[0])
    for place, value in enumerate(values[1:]):
        found[22:28, 5 * place : 5 * place + 5] = value
    return found


VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0]
NONZERO, VOID = MaskReading("nonzero"), MaskReading(ignore=255)
# What is stored, how it is read, which kinds are said, and whether the object comes out.
STORED = {
    "255": (disc() * np.uint8(255), PLAIN, set(), True),
    "0 and 1": (disc(), PLAIN, {"zero_one"}, True),
    "1 bit": (Image.fromarray(disc() * np.uint8(255)).convert("1"), PLAIN, set(), True),
    "RGB": (np.stack([disc() * np.uint8(255)] * 3, 2), PLAIN, set(), True),
    "16 bits": (disc().astype(np.uint16) * 65535, PLAIN, set(), True),
    "palette": (palette(disc(), [0, 0, 0, 255, 255, 255]), PLAIN, set(), True),
    "alpha of white": (rgba(white(), disc() * np.uint8(255)), PLAIN, {"alpha"}, True),
    "alpha of black": (rgba(white() * 0, disc() * np.uint8(255)), PLAIN, {"alpha"}, True),
    "cut-out photo": (rgba(photo(), disc() * np.uint8(255)), PLAIN, {"alpha"}, True),
    "grey and opaque": (rgba(white() * disc()[..., None], white()[..., 0]), PLAIN, set(), True),
    "black object": (255 - disc() * np.uint8(255), PLAIN, {"border"}, False),
    "black object, inverted": (255 - disc() * np.uint8(255), MaskReading(invert=True), set(), True),
    "ids": (ids(3), PLAIN, {"ids"}, False),
    "ids, nonzero": (ids(3), NONZERO, set(), True),
    "ids, one of them": (ids(3, 1, 2), MaskReading("3"), set(), True),
    "red": (red(), PLAIN, {"empty", "colour"}, False),
    "red, nonzero": (red(), NONZERO, set(), True),
    "palette of VOC": (palette(disc(), VOC), PLAIN, {"empty", "colour"}, False),
    "palette of VOC, nonzero": (palette(disc(), VOC), NONZERO, set(), True),
    "palette of VOC, by number": (
        palette(disc() * np.uint8(2), VOC),
        MaskReading("2"),
        set(),
        True,
    ),
    "void": (void(), PLAIN, {"void"}, False),
    "void, ignored": (void(), VOID, {"zero_one"}, True),
    "ids and void": (
        np.where(void() == 1, 7, void()),
        MaskReading("nonzero", ignore=255),
        set(),
        True,
    ),
    "ids around 128": (ids(200, 90), PLAIN, {"levels"}, True),
    "nothing": (disc() * np.uint8(0), PLAIN, {"empty"}, False),
    "everything": (disc() * np.uint8(0) + np.uint8(255), PLAIN, {"full"}, False),
}


def pair_of(folder: Path, stored: np.ndarray | Image.Image, how: MaskReading = PLAIN) -> Pair:
    for name in ("Imgs", "GT"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo()).save(folder / "Imgs" / "a.jpg")
    image = stored if isinstance(stored, Image.Image) else Image.fromarray(stored)
    image.save(folder / "GT" / "a.png")
    return Pair("a", folder / "Imgs" / "a.jpg", folder / "GT" / "a.png", "d", how)


@pytest.mark.parametrize("name", STORED)
def test_habits_of_storing_a_mask(tmp_path, name):
    stored, how, kinds, right = STORED[name]
    found = look(pair_of(tmp_path, stored, how))
    assert {kind for kind, _ in found.problems} == kinds
    assert np.array_equal(found.labels == 1, disc() == 1) == right


def test_ignored_pixels_are_neither_object_nor_background(tmp_path):
    pair = pair_of(tmp_path, void(), VOID)
    labels = read_labels(pair)
    assert np.array_equal(labels == IGNORED, outline(disc()) == 1)
    assert np.array_equal(labels == 1, disc() == 1)
    assert np.array_equal(read_objects(pair), disc())


def test_soft_edges_and_jpeg_are_no_ids(tmp_path):
    """Antialiased, blurred and JPEG masks hold many greys, but not in whole areas."""
    large = cv2.resize(disc() * np.uint8(255), (440, 300), interpolation=cv2.INTER_CUBIC)
    for number, blur in enumerate((1, 3, 9, 31)):
        soft = cv2.GaussianBlur(large, (blur, blur), 0)
        for suffix in ("png", "jpg"):
            folder = tmp_path / f"{number}{suffix}"
            pair = pair_of(folder, soft)
            path = pair.mask.with_suffix(f".{suffix}")
            Image.fromarray(soft).save(path)
            kinds = {kind for kind, _ in look(pair._replace(mask=path)).problems}
            assert not kinds & {"levels", "void", "ids", "empty"}, (blur, suffix, kinds)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_arrays_turn_as_pillow_turns_photos(orientation):
    image = Image.fromarray(photo())
    exif = image.getexif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(turned(photo(), orientation), expected)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("drawn", ["stored", "shown"])
def test_masks_of_photos_that_exif_turns(tmp_path, orientation, drawn):
    pair = pair_of(tmp_path, disc() * np.uint8(255))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(photo()).save(pair.image, exif=exif)
    shown = turned(disc(), orientation)
    mask = disc() if drawn == "stored" else shown
    Image.fromarray(mask * np.uint8(255)).save(pair.mask)
    told = pair._replace(how=MaskReading(exif=drawn))
    assert np.array_equal(read_objects(told), shown)
    assert mask_size(told) == shown.shape == read_image(pair.image).shape[:2]
    assert not look(told).problems
    kinds = {kind for kind, _ in look(pair).problems}
    if orientation >= 5:  # the shape tells
        assert np.array_equal(read_objects(pair), shown)
        assert kinds == ({"exif"} if drawn == "stored" else set())
    else:
        assert kinds == {"exif"}


def make(root: Path, stored: list[np.ndarray]) -> Path:
    for number, values in enumerate(stored):
        for folder in ("Imgs", "GT"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)
        Image.fromarray(image).save(root / "Imgs" / f"{number}.png")
        Image.fromarray(values).save(root / "GT" / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("stored", "kind", "flag"),
    [
        (255 - disc() * np.uint8(255), "inverted", "--mask-invert"),
        (ids(2), "nothing", "--mask-object nonzero"),
        (red(), "nothing", "--mask-object nonzero"),
        (void(), "void", "--ignore-label 255"),
        (disc() * np.uint8(0) + np.uint8(255), "nothing", "--mask-invert"),
        (ids(210, 100), "levels", "--mask-object nonzero"),
    ],
)
def test_a_set_that_is_read_wrong_is_not_called_clean(tmp_path, stored, kind, flag):
    found = audit(find_datasets(make(tmp_path / "set", [stored] * 4)))
    assert kind in {finding.kind for finding in found.findings}
    assert not found.verdict.startswith("Clean")
    assert flag in report(found)
    assert (found.count("stop") > 0) == (kind == "nothing")
    if kind != "nothing":
        return
    kinds = settle({f.kind: f.items for f in found.findings if f.kind != "nothing"}, 4)
    with pytest.raises(InputError, match=f"Nothing can be learned here.*{flag}"):
        require_objects(kinds, 4)


def test_the_flag_that_is_named_mends_it(tmp_path):
    root = make(tmp_path / "set", [255 - disc() * np.uint8(255)] * 4)
    reading = Reading(how=MaskReading(invert=True))
    assert audit(find_datasets(root, reading)).verdict.startswith("Clean")


def test_one_object_at_the_border_is_not_an_inverted_set():
    kinds = settle({"border": ["a"]}, 10)
    assert "inverted" not in kinds and sentences(kinds, 10) == []
    assert "inverted" in settle({"border": list("abcdef")}, 10)
    assert "nothing" not in settle({"empty": list("abc")}, 5, noncam=1)
    assert "nothing" in settle({"empty": list("abcd")}, 5, noncam=1)


def test_every_kind_says_what_to_do():
    for kind in KINDS.values():
        assert kind.weight in ("stop", "warn", "note") and kind.advice.endswith(".")


def test_values_that_are_no_numbers_are_refused():
    for value in ("all", "1,", "-1", "1;3", ""):
        with pytest.raises(InputError, match=f"--mask-object is '{value}'"):
            Config(mask_object=value)
    assert MaskReading(Config(mask_object="1,30").mask_object).values == (1, 30)


@pytest.mark.parametrize("ignore", [200, 254, 255])
def test_few_exact_values_are_labels_not_grey(tmp_path, ignore):
    values = np.where(void() == 255, np.uint8(ignore), void())
    (problem,) = look(pair_of(tmp_path, values)).problems
    assert problem[0] == "void" and f"{ignore} may mean 'ignore'" in problem[1]


@pytest.mark.parametrize("frame", [1, 2])
def test_inverted_masks_in_a_black_frame_are_not_clean(tmp_path, frame):
    values = 255 - disc() * np.uint8(255)
    for edge in (values[:frame], values[-frame:], values[:, :frame], values[:, -frame:]):
        edge[...] = 0
    found = audit(find_datasets(make(tmp_path / "set", [values] * 4)))
    assert "inverted" in {finding.kind for finding in found.findings}


def test_a_map_in_the_alpha_channel_is_read_from_there(tmp_path):
    path = tmp_path / "a.png"
    rgba(white(), disc() * np.uint8(200)).save(path)
    assert np.array_equal(read_map(path), disc() * np.uint8(200))
    rgba(photo(), disc() * np.uint8(200)).save(path)
    with pytest.raises(InputError, match="alpha channel"):
        read_map(path)


def test_floating_point_values_are_not_called_damaged(tmp_path):
    pair = pair_of(tmp_path, disc() * np.uint8(255))
    path = pair.mask.with_suffix(".tif")
    Image.fromarray(disc().astype(np.float32)).save(path)
    with pytest.raises(InputError) as caught:
        look(pair._replace(mask=path))
    assert "save it as 8-bit PNG" in str(caught.value) and "damaged" not in str(caught.value)


def test_values_that_no_mask_has_are_said(tmp_path):
    """Of a rare value that some masks have nothing is said."""
    root = make(tmp_path / "set", [ids(1), ids(2), void(), ids(1)])

    def kinds(**how):
        sets = find_datasets(root, Reading(how=MaskReading(**how)))
        return {finding.kind: finding.items for finding in audit(sets).findings}

    found = kinds(object="nonzero", ignore=999)
    assert len(found["not ignored"]) == 4
    assert "no pixel is 999; values 0, 1" in found["not ignored"][0]
    assert "not ignored" not in kinds(object="nonzero", ignore=255)
    assert "values 0, 1; none of 2,7" in kinds(object="2,7")["unnamed"][0]
    assert "nothing" in kinds(object="300") and len(kinds(object="300")["unnamed"]) == 4


def test_a_share_is_of_the_pixels_that_count() -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[:, :2], labels[:, 8:] = 1, IGNORED
    assert object_share(labels) == 20 / 80
    assert object_share(np.full((4, 4), IGNORED, np.uint8)) == 0
    assert object_share(np.ones((4, 4), np.uint8)) == 1


def test_where_half_of_a_place_counts_nowhere_it_is_no_object() -> None:
    """Two of its four pixels are object, two ignored: both round up, and one of them must give."""
    labels = np.array([[1, IGNORED], [1, IGNORED]], np.uint8).repeat(2, 0).repeat(2, 1)
    found, ignored = resize_labels(labels, 1)
    assert ignored.item() == 1 and found.item() == 0
    found, ignored = resize_labels(labels, 2)
    assert found.tolist() == [[1, 0], [1, 0]] and ignored.tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (MaskReading(object="nonzero"), [0, 1, 1, 1]),
        (MaskReading(object="1"), [0, 1, 0, 0]),
        (MaskReading(object="1", invert=True), [1, 0, 1, 1]),
        (MaskReading(object="1", invert=True, ignore=255), [1, 0, 1, IGNORED]),  # nor inverted
        (MaskReading(object="nonzero", ignore=255), [0, 1, 1, IGNORED]),
    ],
)
def test_values_mean_what_is_said_of_them(
    tmp_path: Path, how: MaskReading, expected: list[int]
) -> None:
    values = np.array([[0, 1, 60, 255]], np.uint8)
    assert labels_of(Mask(values, values), how).tolist() == [expected]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 1, 1], [0, 1, 1]), ([0, 128, 129], [0, 0, 1]), ([0, 1, 200], [0, 0, 1])],
)
def test_bright_is_object_and_one_where_nothing_is_brighter(
    values: list[int], expected: list[int]
) -> None:
    """With a value that counts nowhere as without one."""
    for how in (PLAIN, MaskReading(ignore=255)):
        row = np.array([values], np.uint8)
        assert labels_of(Mask(row, row), how).tolist() == [expected]


@pytest.mark.parametrize(("rows", "said"), [(60, True), (40, False)])
def test_a_mask_with_more_object_than_background_at_its_border_is_doubted(
    tmp_path: Path, rows: int, said: bool
) -> None:
    """The upper 60 of 100 rows are 55 % of the border, the upper 40 are 45 %."""
    mask = np.zeros((100, 100), np.uint8)
    mask[:rows] = 255
    kinds = [kind for kind, _ in look(pair_of(tmp_path, mask)).problems]
    assert ("border" in kinds) == said
    turned_kinds = [kind for kind, _ in look(pair_of(tmp_path, mask.T.copy())).problems]
    assert ("border" in turned_kinds) == said


def test_brightness_and_values_of_a_mask_are_turned_together(tmp_path: Path) -> None:
    """Its own EXIF tag says that it lies on its side."""
    tag = Image.Exif()
    tag[0x0112] = 6
    values = np.arange(24, dtype=np.uint8).reshape(4, 6)
    Image.fromarray(values).save(tmp_path / "m.png", exif=tag)
    found = read_stored(tmp_path / "m.png")
    expected = np.rot90(values, -1)
    assert found.values.tolist() == found.grey.tolist() == expected.tolist()
