"""Find the kit where it is not installed; the notebooks made for Kaggle begin with this file.

It stands in their first cell as it is, so it needs nothing but Python.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import sys
import tempfile
import zipfile
from pathlib import Path

NAME = "camoxpert_nb"


def find_kit(archive: str = "", built: str = "") -> str:
    """Make `import camoxpert_nb` work and say which kit it is.

    What travels with the notebook comes first: `archive`, a zip in base64, then a kit among
    Kaggle's inputs (a folder or a wheel, at any depth up to four), then an installed one. `built`
    is the `print_of` the package that the notebook was made with.

    Raises ImportError when there is none.
    """
    root = Path(os.environ.get("CAMOXPERT_INPUT", "/kaggle/input"))
    depths = ["/".join(["*"] * depth) for depth in range(1, 5)]
    folders = [found for depth in depths for found in root.glob(f"{depth}/{NAME}/__init__.py")]
    wheels = [found for depth in depths for found in root.glob(f"{depth}/{NAME}-*.whl")]
    how = "installed"
    if archive:
        how = "carried by this notebook"
        _use(_unpack(io.BytesIO(base64.b64decode(archive))))
    elif folders:
        package = max((found.parent for found in folders), key=lambda each: print_of(each) == built)
        how = f"attached, {package}"
        _use(str(package.parent))
    elif wheels:
        how = f"attached, {wheels[-1]}"
        _use(_unpack(io.BytesIO(wheels[-1].read_bytes())))
    try:
        import camoxpert_nb
    except ImportError as error:
        raise ImportError(
            f"no kit found: nothing named {NAME} in {root} or among the installed packages. Attach "
            "the data set camoxpert-kit (Input > Add Input > Your Work), or use "
            "camoxpert_kaggle.ipynb, which carries the kit."
        ) from error
    own = print_of(Path(camoxpert_nb.__file__).parent)
    kit = f"{NAME} {camoxpert_nb.__version__} ({own}), {how}, Python {sys.version.split()[0]}"
    if built in ("", own):
        return kit
    return (
        f"{kit}\nNOTE: this notebook was made with kit {built}. Upload the newer one of both: the "
        "data set camoxpert-kit (a new version of it), or the notebooks."
    )


def print_of(package: Path) -> str:
    """Return eight hex digits that follow from the package's source, whatever its version says.

    Line ends are not part of it: Git writes others on Windows.
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        digest.update(name.encode() + path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:8]


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
