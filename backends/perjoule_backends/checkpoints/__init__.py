"""Checkpoints: where they come from, how they are checked, and how their files are read."""
