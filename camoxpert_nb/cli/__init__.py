"""The commands: each file holds its flags and what they do."""
