"""What the README promises: its settings table, its commands, its make targets."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from camoxpert_nb.cli import main as cli
from camoxpert_nb.settings.config import PRESETS
from camoxpert_nb.settings.table import settings_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_settings_table_is_the_one_in_the_code() -> None:
    table = re.search(r"<!-- settings:begin -->\n(.*?)\n<!-- settings:end -->", README, re.DOTALL)
    assert table
    assert table[1] == settings_table(), "run: python tests/test_readme.py"


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [line for line in joined.splitlines() if re.match(r"(\S*/)?camoxpert ", line)]


@pytest.mark.parametrize("line", commands())
def test_every_command_is_understood(line: str) -> None:
    cli._parser().parse_args(shlex.split(line)[1:])


def test_there_are_commands_to_test() -> None:
    assert len(commands()) >= 6


def test_every_make_target_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_preset_is_in_the_table() -> None:
    for preset in PRESETS:
        assert f"| `{preset}` |" in README


def test_conda_installs_what_pip_does() -> None:
    environment = (ROOT / "environment.yml").read_text()
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML by itself")
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    named = re.search(r"--editable \.\[(.*?)\]", environment)
    assert named
    assert set(named[1].split(",")) <= set(project["optional-dependencies"])
    python = re.search(r"python=3\.(\d+)", environment)
    assert python
    assert 10 <= int(python[1]) <= 13


if __name__ == "__main__":
    new = re.sub(
        r"(<!-- settings:begin -->\n).*?(<!-- settings:end -->)",
        lambda found: f"{found[1]}{settings_table()}\n{found[2]}",
        README,
        flags=re.DOTALL,
    )
    (ROOT / "README.md").write_text(new, encoding="utf-8")
