"""Result files: written atomically and never over another, read as if a stranger had sent them."""

from __future__ import annotations

from perjoule.store.canonical import canonical_id
from perjoule.store.read import load
from perjoule.store.write import file_name, save, write_whole

__all__ = ["canonical_id", "file_name", "load", "save", "write_whole"]
