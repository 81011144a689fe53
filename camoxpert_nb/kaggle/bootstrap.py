"""Find the kit where it is not installed; the notebooks made for Kaggle begin with this file.

It stands in their first cell as it is, so it needs nothing but Python.
"""

from __future__ import annotations

import base64
import bz2
import hashlib
import io
import json
import os
import re
import sys
import tempfile
import zipfile
from pathlib import Path

NAME = "camoxpert_nb"
MARK = "# ===="
_VERSION = re.compile(
    r"v?(?:(?P<epoch>\d+)!)?(?P<release>\d+(?:\.\d+)*)"
    r"(?:[-_.]?(?P<pre>alpha|beta|preview|pre|rc|a|b|c)[-_.]?(?P<pre_n>\d*))?"
    r"(?P<post>-(?P<post_short>\d+)|[-_.]?(?:post|rev|r)[-_.]?(?P<post_n>\d*))?"
    r"(?P<dev>[-_.]?dev[-_.]?(?P<dev_n>\d*))?(?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?"
)


def find_kit(carried: str = "", built: str = "") -> str:
    """Make `import camoxpert_nb` work and say which kit it is.

    What travels with the notebook comes first: `carried`, the folder that `keep_packed` returned,
    then a kit among Kaggle's inputs (a folder or a wheel, at any depth up to four), then an
    installed one. `built` is the `print_of` the package that the notebook was made with.

    Raises ImportError when there is none.
    """
    root = Path(os.environ.get("CAMOXPERT_INPUT", "/kaggle/input"))
    depths = ["/".join(["*"] * depth) for depth in range(1, 5)]
    folders = [found for depth in depths for found in root.glob(f"{depth}/{NAME}/__init__.py")]
    wheels = [found for depth in depths for found in root.glob(f"{depth}/{NAME}-*.whl")]
    how, others = "installed", list[Path]()
    if carried:
        how = f"carried by this notebook, in {carried}"
        _use(carried)
    elif folders:
        packages = sorted({found.parent for found in folders}, key=lambda one: _rank(one, built))
        *others, package = [*wheels, *packages]
        how = f"attached, {package}"
        _use(str(package.parent))
    elif wheels:
        *others, wheel = sorted(wheels, key=lambda each: version_key(each.name.split("-")[1]))
        how = f"attached, {wheel}"
        _use(_unpack(io.BytesIO(wheel.read_bytes())))
    try:
        import camoxpert_nb
    except ImportError as error:
        raise ImportError(
            f"no kit found: nothing named {NAME} in {root} or among the installed packages. Attach "
            "the data set camoxpert-kit (Input > Add Input > Your Work), or use "
            "camoxpert_train.ipynb, which carries the kit."
        ) from error
    own = print_of(Path(camoxpert_nb.__file__).parent)
    kit = f"{NAME} {camoxpert_nb.__version__} ({own}), {how}, Python {sys.version.split()[0]}"
    kit += "".join(f"\nNOTE: passed over, as there are several kits: {each}" for each in others)
    if built in ("", own):
        return kit
    if carried:
        return f"{kit}\nNOTE: code in the cells above was changed since the notebook was made."
    return (
        f"{kit}\nNOTE: this notebook was made with kit {built}. Upload the newer one of both: the "
        "data set camoxpert-kit (a new version of it), or the notebooks."
    )


def keep_code(line: str, cell: str) -> None:
    """Write the files of a cell that begins with `%%kit`; each begins with a line `# ==== name`."""
    files = files_of(cell)
    for name, text in files.items():
        _write(_carried() / name, text)
    print(f"{line.strip()}, {sum(map(len, map(str.splitlines, files.values()))):,} lines in kit/")


def files_of(cell: str) -> dict[str, str]:
    """Return name and text of each file in the body of a `%%kit` cell."""
    _, *parts = re.split(rf"^{MARK} (\S+) =*\n", cell, flags=re.MULTILINE)
    return {
        name: text.strip("\n") + "\n" for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def keep_packed(rooms: dict[str, str]) -> str:
    """Write the packed files beside those of the `%%kit` cells; return the folder to import from.

    rooms: for each room the JSON of {name: text}, bz2, base64. The text of a file that stands in a
    cell is null: RuntimeError where that cell was not run. Other modules there are removed.
    """
    home, known = _carried(), set[Path]()
    for room, packed in rooms.items():
        files = json.loads(bz2.decompress(base64.b64decode(packed)))
        known |= {home / name for name in files}
        for name, text in files.items():
            if text is not None:
                _write(home / name, text)
            elif not (home / name).is_file():
                raise RuntimeError(
                    f"{name} is not there: the cell `%%kit {room}` above was not run. Run all "
                    "cells from the top."
                )
    for path in (home / NAME).rglob("*.py"):
        if path not in known:
            path.unlink()
    return str(home)


def _carried() -> Path:
    """Return the folder for the code that this notebook carries: beside it, to be looked at."""
    here = Path.cwd()
    return (here if os.access(here, os.W_OK) else Path(tempfile.gettempdir())) / "kit"


def _write(path: Path, text: str) -> None:
    """Write a file unless it is so already: a training may be reading it."""
    content = text.encode()
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def print_of(package: Path) -> str:
    """Return eight hex digits that follow from the package's source, whatever its version says.

    Line ends are not part of it: Git writes others on Windows.
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        digest.update(name.encode() + path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:8]


def version_key(version: str) -> tuple[object, ...]:
    """Return what orders versions as PEP 440 does; what is no version comes before all."""
    found = _VERSION.fullmatch(version.strip().lower())
    if not found:
        return ((-1,), (), (), (), (), version)
    part = found.groupdict()
    release = [int(digits) for digits in part["release"].split(".")]
    while len(release) > 1 and not release[-1]:
        release.pop()
    before = {"": 3, "alpha": 0, "beta": 1, "c": 2, "pre": 2, "preview": 2, "a": 0, "b": 1, "rc": 2}
    early = (before[part["pre"] or ""], int(part["pre_n"] or 0))
    if part["dev"] and not part["pre"] and not part["post"]:
        early = (-1, 0)  # a development version comes before alphas
    after = int(part["post_n"] or part["post_short"] or 0) if part["post"] else -1
    dev = (0, int(part["dev_n"] or 0)) if part["dev"] else (1, 0)
    local = re.split("[-_.]", part["local"] or "") if part["local"] else []
    names = tuple((1, int(x), "") if x.isdigit() else (0, 0, x) for x in local)
    return ((int(part["epoch"] or 0), *release), early, (after,), dev, names, "")


def _rank(package: Path, built: str) -> tuple[object, ...]:
    """Return what orders packages: the one this notebook was made with last, then by version."""
    text = (package / "__init__.py").read_text(encoding="utf-8")
    own = re.search(r"__version__ = [\"'](.+?)[\"']", text)
    return (print_of(package) == built, version_key(own[1] if own else ""))


def _use(home: str) -> None:
    """Import from `home` first, here and in every process that is started from here."""
    sys.path.insert(0, home)
    others = [path for path in [os.environ.get("PYTHONPATH")] if path]
    os.environ["PYTHONPATH"] = os.pathsep.join([home, *others])


def _unpack(archive: io.BytesIO) -> str:
    digest = hashlib.sha256(archive.getvalue()).hexdigest()[:8]
    folder = Path(tempfile.gettempdir()) / f"camoxpert-{digest}"
    with zipfile.ZipFile(archive) as files:
        files.extractall(folder)
    return str(folder)
