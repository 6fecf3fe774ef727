"""Engines and checkpoints for perjoule."""
