from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camoxpert_nb.data.images import (
    Header,
    binary,
    grey_of,
    image_size,
    is_ours,
    read_grey,
    read_image,
    read_map,
    refuse_foreign,
    resize_image,
    resize_mask,
    same_shape,
    turned,
    write_map,
)
from camoxpert_nb.data.masks import read_mask
from camoxpert_nb.errors import InputError

OBJECT = np.zeros((10, 12), np.uint8)
OBJECT[2:6, 3:9] = 1


def save(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize(
    "stored",
    [
        OBJECT,
        OBJECT * np.uint8(255),
        np.stack([OBJECT * np.uint8(255)] * 3, -1),
        OBJECT.astype(np.uint16) * 65535,
        OBJECT.astype(np.uint16),
        OBJECT.astype(bool),
    ],
    ids=["0/1", "0/255", "RGB", "16 bit", "16 bit 0/1", "1 bit"],
)
def test_a_mask_reads_alike_however_it_is_stored(tmp_path: Path, stored: np.ndarray) -> None:
    mask = read_mask(save(tmp_path / "mask.png", stored))
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, OBJECT)


def test_the_fields_threshold_is_above_128(tmp_path: Path) -> None:
    grey = np.array([[0, 128, 129, 255]], np.uint8)
    assert read_mask(save(tmp_path / "mask.png", grey)).tolist() == [[0, 0, 1, 1]]


def test_a_truncated_jpeg_is_refused_not_filled_with_grey(tmp_path: Path) -> None:
    path = save(
        tmp_path / "photo.jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    )
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(InputError, match=r"photo\.jpg: cannot be read .* download it again"):
        read_image(path)


def test_a_float_map_is_refused_not_read_as_black(tmp_path: Path) -> None:
    path = save(tmp_path / "map.tiff", OBJECT.astype(np.float32))
    with pytest.raises(InputError, match="8-bit PNG"):
        read_grey(path)


def test_no_file_and_no_image_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("not an image")
    for read in (read_image, image_size):
        with pytest.raises(InputError, match="cannot be read as an image"):
            read(tmp_path / "text.jpg")  # type: ignore[operator]


def test_a_photo_is_turned_upright_and_its_size_says_so(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(path, exif=exif)
    assert read_image(path).shape == (20, 10, 3)
    assert image_size(path) == (20, 10)


@pytest.mark.parametrize(
    ("mask", "same"),
    [((100, 200), True), ((200, 100), False), ((50, 100), True), ((100, 203), True)],
)
def test_sizes_of_one_shape_may_be_off_by_two_per_cent(mask: tuple[int, int], same: bool) -> None:
    assert same_shape((100, 200, 3), mask) is same


@pytest.mark.parametrize("size", [5, 8, 24, 33])
def test_a_resized_mask_is_binary_and_keeps_its_area(size: int) -> None:
    mask = resize_mask(OBJECT, size)
    assert set(np.unique(mask)) <= {0, 1}
    assert mask.mean() == pytest.approx(OBJECT.mean(), abs=0.08)
    assert resize_image(np.stack([OBJECT] * 3, -1), size).shape == (size, size, 3)


def test_a_map_is_rounded_not_cut(tmp_path: Path) -> None:
    write_map(tmp_path / "new" / "map.png", np.array([[0.0, 0.5, 0.999, 1.0]]))
    assert read_grey(tmp_path / "new" / "map.png").tolist() == [[0, 128, 255, 255]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid x\n", "pointer of Git LFS"),
        (b"<!DOCTYPE html><html>denied</html>", "web page"),
        (b"", "it is empty"),
        (b"no image at all", "it is text"),
    ],
)
def test_a_file_that_is_no_picture_is_told_by_what_it_is(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_image(tmp_path / "x.jpg")
    assert "damaged" not in str(caught.value)


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(InputError, match="expected an ordinary file"):
        read_image(tmp_path / "x.jpg")


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0MM\xe6*\0\0\0\x08", b"Exif\0\0", b"\xff" * 40, b"Exif\0\0II*\0"]
)
def test_a_photo_whose_exif_is_broken_is_read_as_it_is_stored(exif: bytes, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    assert (read_image(tmp_path / "x.png") == pixels).all()
    assert image_size(tmp_path / "x.png") == (8, 12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_that_its_tag_turns_has_the_size_it_is_shown_in(
    orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.zeros((8, 12, 3), np.uint8))
    for name in ("x.tif", "x.png", "x.jpg"):
        image.save(tmp_path / name, exif=exif)
        assert image_size(tmp_path / name) == read_image(tmp_path / name).shape[:2]


@pytest.mark.parametrize("error", [KeyError("x"), IndexError(), MemoryError(), TypeError("t")])
def test_whatever_a_decoder_raises_names_the_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")

    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", broken)
    with pytest.raises(InputError, match=r"x\.png: cannot be read as an image \(.+\)"):
        read_image(tmp_path / "x.png")


def test_a_map_with_colours_and_alpha_is_not_called_damaged(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8)
    Image.fromarray(rgba, "RGBA").save(tmp_path / "map.png")
    with pytest.raises(InputError, match="Save it without alpha") as caught:
        read_map(tmp_path / "map.png")
    assert "damaged" not in str(caught.value)


# 1 2 3
# 4 5 6, turned as each orientation of EXIF says (TIFF 6.0: where row 0 and column 0 are shown).
TURNED = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
}


@pytest.mark.parametrize("orientation", TURNED)
def test_each_orientation_turns_pixels_and_sizes(orientation: int) -> None:
    stored, wanted = np.array(TURNED[1]), np.array(TURNED[orientation])
    assert np.array_equal(turned(stored, orientation), wanted)
    colours = np.stack([stored, 10 * stored], -1)
    assert np.array_equal(turned(colours, orientation), np.stack([wanted, 10 * wanted], -1))
    assert Header((2, 3), orientation).shown == wanted.shape


def test_a_mask_of_zero_and_one_and_one_of_grey_have_their_own_thresholds() -> None:
    def read(*values: int) -> list[int]:
        return binary(np.array([values], np.uint8))[0].tolist()

    assert read(0, 1, 1) == [0, 1, 1] and read(0, 0) == [0, 0]
    assert read(1, 2, 128) == [0, 0, 0] and read(0, 128, 129) == [0, 0, 1]
    assert binary(np.zeros((0, 3), np.uint8)).shape == (0, 3)


def test_what_this_kit_did_not_write_is_not_replaced(tmp_path: Path) -> None:
    ours, theirs, text = (tmp_path / name for name in ("ours.png", "theirs.png", "text.png"))
    write_map(ours, np.full((2, 3), 0.5))
    write_map(theirs, np.full((2, 3), 0.5), ours=False)
    text.write_text("no picture")
    assert [is_ours(path) for path in (ours, theirs, text, tmp_path / "none")] == [
        *(True, False, False, False)
    ]
    refuse_foreign([ours, tmp_path / "none"], "Elsewhere.")
    with pytest.raises(InputError) as error:
        refuse_foreign([ours, theirs, text], "Elsewhere.")
    assert str(error.value) == (
        f"2 files that this kit did not write would be replaced by maps: {theirs}, {text}. "
        "Elsewhere."
    )


def test_sixteen_bits_become_eight_and_a_map_in_alpha_is_read_from_there(tmp_path: Path) -> None:
    wide = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    assert grey_of(wide).tolist() == [[0, 1, 255]]
    narrow = Image.fromarray(np.array([[0, 5, 255]], np.uint16))
    assert grey_of(narrow).tolist() == [[0, 5, 255]]
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[..., 3] = [[0, 7, 255]]
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    assert read_map(tmp_path / "alpha.png").tolist() == [[0, 7, 255]]
    rgba[0, 1, :3] = 9
    Image.fromarray(rgba).save(tmp_path / "both.png")
    with pytest.raises(InputError) as error:
        read_map(tmp_path / "both.png")
    assert str(error.value) == (
        f"{tmp_path}/both.png has values in its colours and in its alpha channel. A map is grey: "
        "0 background, 255 object. Save it without alpha."
    )
    grey = np.repeat(np.array([[0, 7, 255]], np.uint8)[..., None], 3, 2)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert read_map(tmp_path / "grey.png").tolist() == [[0, 7, 255]]
    grey[0, 2, 1] = 254
    Image.fromarray(grey).save(tmp_path / "colour.png")
    with pytest.raises(InputError, match=r"colour\.png is coloured\. A map is grey: 0 background"):
        read_map(tmp_path / "colour.png")


def test_a_broken_tag_that_nobody_reads_is_no_noise_on_the_terminal(tmp_path: Path) -> None:
    broken = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=broken)
    code = "from camoxpert_nb.data.images import *; print(read_photo(Path('a.jpg'))[1])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Header(stored=(6, 8), orientation=1)\n"
