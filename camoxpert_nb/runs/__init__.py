"""A run is one folder: read, watched, started, stopped from anywhere."""
