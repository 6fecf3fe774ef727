"""The null meter: measures nothing, to find what reading meters costs."""

from __future__ import annotations

from perjoule.protocols import Count, Probe


class NullMeter:
    def probe(self) -> Probe:
        return Probe()

    def open(self) -> None:
        """Nothing to open."""

    def read(self) -> list[Count]:
        return []

    def close(self) -> None:
        """Nothing to close."""
