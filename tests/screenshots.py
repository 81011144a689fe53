"""Run every notebook in JupyterLab and picture it: `make gallery`.

The telling part of each goes to docs/img/notebook-NN.png, the training as a moving picture to
docs/img/dashboard.gif; the whole of each, to look it over, to build/gallery. Images are generated,
so nothing of anyone's data is ever shown.
"""

from __future__ import annotations

import io
import re
import tempfile
import time
from pathlib import Path

from browser import Lab, lab, until, what_is_missing
from PIL import Image

ROOT = Path(__file__).parent.parent
IMAGES, WHOLE = ROOT / "docs" / "img", ROOT / "build" / "gallery"
LARGEST = 250_000  # bytes
FILM, FRAME = (900, 1225), 500  # px: to the end of the validation images; ms a frame
LONG = 1200  # seconds for the longest cell: the demo's 24 epochs on a busy machine
TELLING = {  # the first and the last cell of the part that is shown, by a piece of their source
    "00_start_here": ("draw_pairs(sets", "draw_pairs(sets"),
    "01_gpu_check": ("check_machine(", "print(report.advice"),
    "02_configure": ("ConfigPicker(", "ConfigPicker("),
    "03_train": ("launch(plan", "launch(plan"),
    "04_evaluate": ("judge(run, data", 'means.set_index("set")'),
    "05_visualize": ('"levels"', "seen.usage"),
    "06_python_api": ("own = fit(", "predict(own"),
}


def main() -> None:
    """Run all notebooks, one after the other, as a person would."""
    missing = what_is_missing()
    assert not missing, missing
    WHOLE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, lab(Path(scratch) / "notebooks") as page:
        for name, (first, last) in TELLING.items():
            started = time.monotonic()
            page.open(name)
            if name == "02_configure":
                page.replace('PRESET = ""', 'PRESET = "demo"')
            if name == "03_train":
                train_until_it_shows_something(page, first)
            page.run_all() if name != "03_train" else page.run_below(first)
            page.wait_for_cells(LONG)
            (WHOLE / f"{name}.png").write_bytes(page.picture())
            if name != "03_train":
                keep(page.picture(first, last), IMAGES / f"notebook-{name[:2]}.png")
            print(f"{name}: {time.monotonic() - started:.0f} s")


def train_until_it_shows_something(page: Lab, source: str) -> None:
    """Start the training, picture it while it lives, and return when it ended."""
    page.run_to(source)
    panel, film, seen = page.cell(source), [], {""}

    def filmed(text: str) -> bool:
        """Take a frame whenever another epoch is told; return whether `text` is."""
        told = panel.inner_text()
        if (epoch := "".join(re.findall(r"epoch \d+", told)[:1])) not in seen:
            seen.add(epoch)
            film.append(page.picture(source, source))
        return text in told

    until(lambda: filmed("epoch 18"), "two thirds of the training", LONG)
    keep(page.picture(source, source), IMAGES / "notebook-03.png")
    until(lambda: filmed("finished"), "the end of the training", LONG)
    keep_film([*film, page.picture(source, source)], IMAGES / "dashboard.gif")


def keep(picture: bytes, path: Path) -> None:
    """Write a screenshot with as many colours, then as large, as keep it below LARGEST."""
    with Image.open(io.BytesIO(picture)) as image:
        image = image.convert("RGB")
    for colours, scale in ((256, 1.0), (128, 1.0), (128, 0.8), (128, 0.6)):
        size = round(image.width * scale), round(image.height * scale)
        image.resize(size).quantize(colours).save(path, optimize=True)
        if path.stat().st_size <= LARGEST:
            return


def keep_film(frames: list[bytes], path: Path) -> None:
    """Write screenshots' upper parts as a moving picture of one palette; the last stays longest."""
    pictures = [Image.open(io.BytesIO(frame)).convert("RGB") for frame in frames]
    sheets = []
    for picture in pictures:
        sheet = Image.new("RGB", FILM, "white")
        sheet.paste(picture.resize((FILM[0], round(FILM[0] * picture.height / picture.width))))
        sheets.append(sheet)
    palette = sheets[-1].quantize(96)
    first, *others = (sheet.quantize(palette=palette, dither=Image.Dither.NONE) for sheet in sheets)
    times = [FRAME] * len(others) + [6 * FRAME]
    first.save(path, save_all=True, append_images=others, duration=times, loop=0, optimize=True)


if __name__ == "__main__":
    main()
