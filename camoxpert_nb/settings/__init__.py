"""One table of settings, and its presets."""
