"""What README and the pages in docs promise: commands, flags, links, presets, the settings."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from camoxpert_nb import __version__
from camoxpert_nb.cli import main as cli
from camoxpert_nb.settings.config import PRESETS
from camoxpert_nb.settings.table import settings_table

ROOT = Path(__file__).parent.parent
SETTINGS = ROOT / "docs" / "settings.md"
PAGES = {str(p.relative_to(ROOT)): p.read_text("utf-8") for p in sorted(ROOT.glob("docs/*.md"))}
PAGES |= {name: (ROOT / name).read_text("utf-8") for name in ("README.md", "kaggle/README.md")}
TABLE = re.compile(r"(<!-- settings:begin -->\n).*?(\n<!-- settings:end -->)", re.DOTALL)
SCREEN = 60  # lines that a reader sees at once


def test_the_readme_is_two_screens() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 2 * SCREEN


def test_the_settings_table_is_the_one_in_the_code() -> None:
    page = PAGES["docs/settings.md"]
    assert TABLE.search(page) and renewed(page) == page, "run: python tests/test_pages.py"


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", "\n".join(PAGES.values()), re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = [line for line in joined.splitlines() if re.match(r"(\S*/)?camoxpert ", line)]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("line", commands())
def test_every_command_is_understood(line: str) -> None:
    cli._parser().parse_args(shlex.split(line)[1:])


def test_there_are_commands_to_test() -> None:
    assert len(commands()) >= 15


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", sorted(name for name in PAGES if name != "README.md"))
def test_every_page_is_found_from_the_readme(page: str) -> None:
    assert f"]({page})" in PAGES["README.md"]


def test_every_make_target_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make (\w+)|^make (\w+)", "\n".join(PAGES.values()), re.M)):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target


def test_every_preset_is_in_the_table() -> None:
    for preset in PRESETS:
        assert f"| `{preset}` |" in PAGES["docs/settings.md"]


def test_every_flag_named_on_a_page_is_one() -> None:
    known = {flag for command in _commands() for flag in command._option_string_actions}
    for name, page in PAGES.items():
        own = "\n".join(line for line in page.splitlines() if not OTHERS.search(line))
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", own)) <= known, name


OTHERS = re.compile(r"torchrun|rdzv|kaggle (datasets|kernels)|pip install|nproc|--logdir|^  -m ")


def _commands() -> list[argparse.ArgumentParser]:
    (commands,) = cli._parser()._subparsers._group_actions  # type: ignore[union-attr]
    return list(commands.choices.values())  # type: ignore[union-attr, arg-type]


def test_the_citation_is_of_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {__version__}\n" in text
    for key in ("cff-version: 1.2.0", "message:", "title:", "authors:", "license: MIT"):
        assert f"\n{key}" in f"\n{text}", key


def renewed(page: str) -> str:
    """Return the page of settings with the table of the code."""
    return TABLE.sub(lambda found: f"{found[1]}{settings_table()}{found[2]}", page)


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
    SETTINGS.write_text(renewed(SETTINGS.read_text("utf-8")), encoding="utf-8")
