"""Where perjoule keeps what it would only compute again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return the folder of one kind of thing below ``PERJOULE_CACHE``, or the user's cache; it may not exist yet."""
    chosen = os.environ.get("PERJOULE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    root = Path(chosen).expanduser() if chosen else (Path(base) if base else Path.home() / ".cache") / "perjoule"
    return root / name
