"""Money and carbon of the measured joules: derived, never stored, with the interval that the joules have."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec

from perjoule.records import Energy, Missing, Record
from perjoule.render import format as fmt
from perjoule.render.plain import printable

if TYPE_CHECKING:
    from perjoule.records import RunResult

TOKENS = 1_000_000
J_PER_KWH = 3_600_000
DERIVED = "derived: energy only, no hardware, no cooling"
_METRIC = "energy_j_per_output_token"


class Grid(Record, frozen=True, kw_only=True):
    """Yearly carbon intensity of a country's electricity, over the life cycle of its power stations."""

    code: str
    name: str
    gco2_per_kwh: float
    year: int
    source: str

    @property
    def described(self) -> str:
        return f"{self.name} {self.year}, {self.source}"


class _Grids(Record, frozen=True, kw_only=True):
    grid: tuple[Grid, ...]


@cache
def grids() -> tuple[Grid, ...]:
    data = files("perjoule.render").joinpath("grid.toml").read_bytes()
    return msgspec.toml.decode(data, type=_Grids).grid


def find_grid(name: str) -> Grid | None:
    """Return the grid with this country code or name, in any case."""
    wanted = name.strip().casefold()
    return next((row for row in grids() if wanted in (row.code.casefold(), row.name.casefold())), None)


def cost_lines(
    result: RunResult, price: float | None, currency: str, gco2: float | None, *, source: str = ""
) -> list[str]:
    """Return what a million output tokens cost: a line for money at ``price`` per kWh, one for ``gco2`` g per kWh.

    ``source`` says where ``gco2`` is from. None leaves a line out; without joules a line says why there are none.
    """
    found: list[str] = []
    if price is not None:
        found.append(_line(result, price, currency, f"at {price:g} {currency}/kWh"))
    if gco2 is not None:
        found.append(_line(result, gco2, "gCO2e", f"at {gco2:g} gCO2e/kWh" + (f" ({source})" if source else "")))
    return [printable(f"{result.model.name}: {line}") for line in found]


def _line(result: RunResult, per_kwh: float, unit: str, rate: str) -> str:
    energy = result.metric(_METRIC) if _METRIC in result.metrics else Missing(reason="no output tokens in this load")
    if not isinstance(energy, Energy):
        reason = energy.reason if isinstance(energy, Missing) else "its joules have no label"
        return f"no {unit} per million output tokens: {reason}"
    factor = per_kwh * TOKENS / J_PER_KWH
    digits = fmt.MEASURED_DIGITS if energy.label == "measured" else fmt.MODELLED_DIGITS
    value, low, high = (
        "?" if x is None else fmt.significant(x * factor, digits) for x in (energy.value, energy.low, energy.high)
    )
    about = f"{low}-{high}, {energy.label}, {energy.scope}"
    return f"{value} {unit} per million output tokens ({about}) {rate}; {DERIVED}"
