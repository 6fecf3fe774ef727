"""Scenarios and corpora for perjoule: data, read with importlib.resources."""
