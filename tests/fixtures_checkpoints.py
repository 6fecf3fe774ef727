"""Real checkpoints for tests: taken from the cache, fetched only when asked to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perjoule_backends.checkpoints import catalogue
from perjoule_backends.checkpoints.resolve import cached_path, resolve


def checkpoint_path(name: str) -> Path:
    """Return the verified file of a catalogue row; skip the test where it is neither cached nor to be fetched."""
    row = catalogue.find(name)
    if not cached_path(row).exists() and not os.environ.get("PERJOULE_TEST_FETCH"):
        pytest.skip(f"{row.name} is not in the cache: `perjoule models pull {row.name}` or PERJOULE_TEST_FETCH=1")
    return Path(resolve(row.name, lambda _text, _share: None).path)
