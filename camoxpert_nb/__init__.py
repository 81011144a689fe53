"""Train, judge and understand networks that find camouflaged animals and people."""

from .version import __version__

__all__ = ["__version__"]
