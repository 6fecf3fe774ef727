"""Where models and converted graphs are kept: ``PERJOULE_CACHE``, else the platform's cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    chosen = os.environ.get("PERJOULE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "perjoule"
