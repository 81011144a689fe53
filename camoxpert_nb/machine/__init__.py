"""Which devices, which processes, how busy."""
