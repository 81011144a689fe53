"""Which kit a notebook takes where several are attached."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from camoxpert_nb.kaggle import bootstrap
from camoxpert_nb.kaggle.bootstrap import version_key

# By PEP 440, the lowest first.
ORDER = """no version|0.1|0.2.dev1|0.2a1.dev2|0.2a1|0.2a2|0.2b1|0.2rc1|0.2.0|0.2.0+local.2|
0.2.0+local.10|0.2.0.post1.dev3|0.2.0.post1|0.2.1|0.9.0|0.10.0|1.0|1!0.1""".replace("\n", "")


def test_versions_are_ordered_as_pep_440_says() -> None:
    packaging = pytest.importorskip("packaging.version")
    ordered = ORDER.split("|")
    mixed = random.Random(0).sample(ordered, len(ordered))
    assert sorted(mixed, key=version_key) == ordered
    assert sorted(ordered[1:], key=packaging.Version) == ordered[1:]
    for same in ("0.2", "v0.2.0", "0.2.0.0"):
        assert version_key(same) == version_key("0.2.0")
    assert version_key("1.0-1") == version_key("1.0.post1")
    assert version_key("1.0alpha1") == version_key("1.0a1")


def wheel(root: Path, version: str, name: str) -> Path:
    path = root / name / f"camoxpert_nb-{version}-py3-none-any.whl"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as files:
        files.writestr("camoxpert_nb/__init__.py", f'__version__ = "{version}"')
    return path


def found(root: Path, tmp_path: Path) -> str:
    script = tmp_path / "cell.py"
    shutil.copy(bootstrap.__file__, script)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import cell; print(cell.find_kit())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"CAMOXPERT_INPUT": str(root), "PATH": "", "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_of_several_wheels_the_highest_version_is_taken_and_the_others_named(
    tmp_path: Path,
) -> None:
    root = tmp_path / "input"
    low, high, middle = (
        wheel(root, version, name)
        for version, name in (("0.2.0", "z-kit"), ("0.10.0", "a-kit"), ("0.9.0", "m-kit"))
    )
    said = found(root, tmp_path)
    assert said.startswith("camoxpert_nb 0.10.0") and str(high) in said.splitlines()[0]
    for other in (low, middle):
        assert f"passed over, as there are several kits: {other}" in said


def test_of_several_folders_the_highest_version_is_taken(tmp_path: Path) -> None:
    root = tmp_path / "input"
    for version, name in (("0.10.0", "a"), ("0.9.0", "b")):
        package = root / name / "camoxpert_nb"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f'__version__ = "{version}"')
    said = found(root, tmp_path)
    assert said.startswith("camoxpert_nb 0.10.0") and f"kits: {root / 'b'}" in said
