"""Generators of questions by name, imported when they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from perjoule.quality.generator import Generator

NAMES = (
    "address_fields", "arithmetic", "copying", "delay_reason", "order_fields", "order_total", "report_figure",
    "shortest_route",
)  # fmt: skip


def generator(name: str) -> Generator:
    """Return a generator by its name. Raises ``KeyError`` for an unknown one."""
    if name not in NAMES:
        raise KeyError(name)
    return cast("Generator", import_module(f"perjoule.quality.tasks.{name}").GENERATOR)
