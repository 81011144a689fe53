"""What this machine is, and what really runs on it."""
