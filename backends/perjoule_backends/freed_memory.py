"""Memory that was freed and that the allocator still holds: it would stand in the peak of what is loaded next."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Hand what malloc holds unused back to the system: glibc's malloc_trim(3); other C libraries have none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
