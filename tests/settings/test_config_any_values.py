"""Whatever the values: settings come back from a file and from a command line as they were."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from properties import tried

from camoxpert_nb.cli.flags import add_settings
from camoxpert_nb.cli.parser import Parser
from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import Config, as_flags, differences, plain_type

TEXTS = {"fold": ["", "2/5", "1/3"], "mask_object": ["auto", "nonzero", "1,3"], "preset": [""]}
TEXTS |= {"gpus": ["all", "0", "0,1"], "log": ["csv", "tensorboard", "tensorboard,wandb"]}
WORDS = st.text("aé/. _-$日'\"\\%=#", max_size=8).map(str.strip)


def values_of(item: Any) -> st.SearchStrategy[Any]:
    kind, may_be_none = plain_type(item)
    limits = item.metadata
    low = limits.get("low", limits.get("above", 0))
    high = limits.get("high", 1)
    if "choices" in limits or item.name in TEXTS:
        found: st.SearchStrategy[Any] = st.sampled_from(
            [*(limits.get("choices") or TEXTS[item.name])]
        )
    elif kind is bool:
        found = st.booleans()
    elif kind is int:
        found = st.integers(low, high)
    elif kind is float:
        found = st.floats(low, high, exclude_min="above" in limits)
    else:
        found = WORDS
    return st.one_of(found, st.none()) if may_be_none else found


CHANGES = st.fixed_dictionaries(
    {}, optional={f.name: values_of(f) for f in dataclasses.fields(Config)}
)


def config_of(changes: dict[str, Any]) -> Config | None:
    try:
        return Config(**changes)
    except InputError:  # values that do not go together
        return None


@tried(100)
@given(CHANGES)
def test_a_file_gives_them_back(changes: dict[str, Any]) -> None:
    if config := config_of(changes):
        with tempfile.TemporaryDirectory() as folder:
            config.save(Path(folder) / "config.json")
            assert Config.load(Path(folder) / "config.json") == config


@tried(60)
@given(CHANGES)
@example({"dataset_path": "--"})
def test_a_command_line_gives_them_back(changes: dict[str, Any]) -> None:
    if config := config_of(changes):
        changed = differences(config, Config())
        changed.pop("preset", None)
        parser = Parser()
        add_settings(parser)
        given_ones = vars(parser.parse_args(as_flags(changed)))
        given_ones.pop("paths", None)
        assert Config().replace(**given_ones) == config.replace(preset="")
