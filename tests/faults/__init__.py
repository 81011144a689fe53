"""The kit, broken on purpose: see `kinds`."""
