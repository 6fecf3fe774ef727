"""Other tools' files: records imported from them, kept apart from results, and results exported in their forms."""

from __future__ import annotations

from perjoule.interchange.record import ImportedRecord, load_imported, save_imported

__all__ = ["ImportedRecord", "load_imported", "save_imported"]
