"""From maps to honest numbers."""
