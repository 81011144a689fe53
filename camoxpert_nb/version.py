"""The one place that knows the version (read by the build, the log, run folders)."""

__version__ = "0.1.0"
