"""Train, judge and understand networks that find camouflaged animals and people.

`from camoxpert_nb import ...` is all that notebooks and scripts need. A name is fetched when it is
first used (PEP 562), so that importing the package costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "data.layouts": "find_datasets",
    "data.counting": "count_images",
    "data.selection": "find_data",
    "data.synthetic": "make_synthetic",
    "doctor.doctor": "check_machine find_limits",
    "evaluation.judge": "data_of judge validation_threshold",
    "evaluation.predict": "Views",
    "evaluation.scores": "labelled",
    "figures.batch": "show_batch",
    "figures.explore": "explore",
    "figures.found": "predict",
    "figures.found_files": "predict_pictures",
    "figures.history": "show_history",
    "figures.predictions": "show_predictions",
    "figures.report": "write_report",
    "figures.results": "draw_pairs show_published show_test",
    "kaggle.attached": "attached_pictures attached_run",
    "figures.several": "show_runs",
    "figures.thresholds": "show_curves",
    "kaggle.earlier": "how_to_go_on",
    "kaggle.session": "begin",
    "network.build": "load_net",
    "notebook.before": "what_trains",
    "notebook.choice": "chosen command_line presets_table propose",
    "notebook.dashboard": "Dashboard",
    "notebook.here": "make_config",
    "notebook.gallery": "gallery threshold_slider",
    "notebook.launch": "launch",
    "notebook.own_picture": "own_picture",
    "notebook.picker": "ConfigPicker",
    "notebook.set_up": "set_up",
    "notebook.run_choice": "choose_run",
    "notebook.viewer": "image_viewer",
    "runs.process": "tail",
    "runs.run": "Run",
    "settings.config": "Config differences",
    "settings.presets": "PRESETS",
    "settings.table": "settings_table",
    "cli.script": "fit",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted([*_HOME_OF, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
