"""The reader's own pictures, uploaded or named by a path, and files that are none."""

from __future__ import annotations

import base64
import datetime
import io
import re
from pathlib import Path
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from camoxpert_nb.errors import InputError
from camoxpert_nb.figures import explore
from camoxpert_nb.notebook.own_picture import MOST, OwnPicture, own_picture, uploaded


def png(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def upload(own: OwnPicture, name: str, content: bytes) -> None:
    """Do what the front end does, in the form of the ipywidgets that is installed."""
    if ipywidgets.__version__.startswith("7."):
        own.upload.set_trait("value", {name: {"metadata": {"name": name}, "content": content}})
        return
    file = {"name": name, "type": "", "size": len(content), "content": memoryview(content)}
    file["last_modified"] = datetime.datetime.now()
    own.upload.set_trait("value", (file,))


def photo() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> OwnPicture:
    """A field whose network finds the upper half of everything."""
    probability = np.zeros((20, 30), np.uint8)
    probability[:10] = 200
    predictor = SimpleNamespace(predict_one=lambda path: SimpleNamespace(probability=probability))
    monkeypatch.setattr(explore, "open_predictor", lambda run, device: predictor)
    return own_picture("runs/latest")


def test_an_uploaded_picture_comes_back_with_files(own: OwnPicture) -> None:
    assert own.picture.value == b""
    upload(own, "a <b>.png", photo())
    links = re.findall(
        r'download="([^"]+)" href="data:image/png;base64,([^"]+)"', own.message.value
    )
    files = {name: png(base64.b64decode(data)) for name, data in links}
    assert list(files) == [f"a &lt;b&gt;_{kind}.png" for kind in ("overlay", "mask", "map")]
    overlay, mask, probability = files.values()
    assert overlay.shape == (20, 30, 3)
    assert (mask[:10] == 255).all() and (mask[10:] == 0).all()
    assert (probability[:10] == 200).all()
    np.testing.assert_array_equal(overlay[12:], png(photo())[12:])
    assert "50.0 % of the picture" in own.message.value
    assert len(own.picture.value) > 1000


def test_an_upload_that_is_no_picture_is_answered(own: OwnPicture) -> None:
    upload(own, "notes.png", b"no picture")
    said = own.message.value
    assert "notes.png: cannot be read as an image: it is text. Expected was a photo" in said
    assert "/tmp" not in said and "data set" not in said
    assert own.results == []
    for name in ("photo.png", "second.png"):  # each upload takes the place of the one before
        upload(own, name, photo())
        assert [result for result, _, _ in own.results] == [name]


def test_both_forms_of_an_upload_are_read() -> None:
    seven = {"a.png": {"metadata": {"name": "a.png"}, "content": b"x"}}
    eight = ({"name": "a.png", "content": memoryview(b"x")},)
    assert uploaded(seven) == uploaded(eight) == [("a.png", b"x")]


def test_a_file_can_be_looked_at_without_a_front_end(own: OwnPicture, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(photo())
    said = [text.get_text() for text in own.predict(tmp_path / "photo.png").findobj(Text)]
    assert any("photo.png" in text and "50.0 % of the image" in text for text in said)
    with pytest.raises(InputError, match="no such file"):
        own.predict(tmp_path / "missing.png")


ODD = {
    "text.jpg": (b"hello", "text.jpg: cannot be read as an image: it is text"),
    "page.png": (b"<!doctype html><p>", "page.png: cannot be read as an image: it is a web page"),
    "empty.jpg": (b"", "empty.jpg: cannot be read as an image: it is empty"),
    "phone.jpg": (b"\0\0\0\x18ftypheic" + bytes(40), "it is a HEIC photo or a film"),
    "cut.png": (photo()[:60], "cut.png: cannot be read as an image"),
    "noise.jpg": (bytes(range(1, 255)), "noise.jpg: cannot be read as an image"),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("by_path", [True, False])
def test_files_that_are_none_are_told_by_their_own_name(
    own: OwnPicture, tmp_path: Path, name: str, by_path: bool
) -> None:
    content, said = ODD[name]
    if by_path:
        (tmp_path / name).write_bytes(content)
        own.path.value = str(tmp_path / name)
    else:
        upload(own, name, content)
    answer = own.message.value
    assert said in answer and "choose another file" in answer
    assert str(tmp_path) not in answer and "data set" not in answer and "/tmp" not in answer


def test_a_path_can_be_a_file_or_a_folder(own: OwnPicture, tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(photo())
    own.path.value = f'"{tmp_path / "b.png"}" '  # as a file manager copies it
    assert [name for name, _, _ in own.results] == ["b.png"]
    assert own.which.layout.display == "none" and own.picture.layout.display == ""
    own.path.value = str(tmp_path)
    assert [name for name, _, _ in own.results] == ["a.PNG", "b.png"]
    assert [name for name, _ in own.which.options] == ["a.PNG", "b.png"]
    before = own.picture.value
    own.which.value = 1
    assert own.picture.value != before
    for number in range(MOST):
        (tmp_path / f"{number}.png").write_bytes(photo())
    own.path.value = f"{tmp_path}/"
    assert len(own.results) == MOST and f"The first {MOST} of {MOST + 2}" in own.message.value


def test_what_a_folder_holds_besides_pictures_is_named(own: OwnPicture, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo())
    own.path.value = str(tmp_path)
    assert "Not read" not in own.message.value
    for name in ("phone.HEIC", "notes.txt", ".hidden.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    own.path.value = f"{tmp_path}/"
    assert [name for name, _, _ in own.results] == ["a.png"]
    assert (
        "Not read as pictures: notes.txt, phone.HEIC, folder.jpg "
        "(save them as JPEG or PNG; folder.jpg is a folder).</p>" in own.message.value
    )
    (tmp_path / "a.png").unlink()
    own.path.value = str(tmp_path)
    assert "holds no picture" in own.message.value and "phone.HEIC" in own.message.value


def test_a_path_that_is_not_there_is_answered(own: OwnPicture, tmp_path: Path) -> None:
    own.path.value = str(tmp_path / "gone.jpg")
    assert "no such file or folder. Looked in" in own.message.value
    (tmp_path / "empty").mkdir()
    own.path.value = str(tmp_path / "empty")
    assert "holds no picture" in own.message.value and not own.results


def test_a_picture_can_be_named_from_the_start(own: OwnPicture, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(photo())
    named = own_picture("runs/latest", picture=str(tmp_path / "photo.png"))
    assert [name for name, _, _ in named.results] == ["photo.png"]
