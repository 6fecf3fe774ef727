"""Numbers for people: SI scaling, digits that the interval supports, and joules that say what they are."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from perjoule.records import Energy, Missing, Quantity

if TYPE_CHECKING:
    from collections.abc import Callable

    from perjoule.records import Metric

DASH = "\u2014"
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "\u00b5"), (1e-9, "n"))
LABELS = {
    "measured": "measured",
    "counter-modelled": "modelled from counters",
    "utilisation-modelled": "modelled from CPU time",
    "analytic": "bounds only",
    "imported": "imported",
    "none": "none",
}
_KIB = 1024.0
_SCALED = frozenset({"s", "s/token", "J", "W", "bytes", "1"})
_LEAST_SPREAD = 5e-5  # less is lost in the digits of the value
_MOST_SPREAD = 0.5  # beyond it "+-120 %" would hide that the lower bound is above zero: both bounds are named
MODELLED_DIGITS, MEASURED_DIGITS = 2, 3


def significant(value: float, digits: int) -> str:
    """Format with ``digits`` significant digits and no exponent."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")  # before counting places: 0.9999 has as many as 1.00
    places = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, places)}f}"


def si(value: float, unit: str, digits: int = MEASURED_DIGITS) -> str:
    """Format with the prefix that leaves one to three digits before the point: 0.0123 s -> 12.3 ms."""
    scale, prefix = next(((s, p) for s, p in _PREFIXES if abs(value) >= s * 0.9995), _PREFIXES[-1])
    if value == 0:
        return f"0 {unit}"
    return f"{significant(value / scale, digits)} {prefix}{unit}"


def size(value: float) -> str:
    """Format bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < _KIB or unit == "GiB":
            return f"{significant(value, MEASURED_DIGITS)} {unit}"
        value /= _KIB
    return f"{value} B"


def hyphenated(name: str, width: int = 20) -> str:
    """Break a name that is wider than a column behind a hyphen, as a reader would: ``SmolLM2-135M-`` / ``Instruct``."""
    lines = [""]
    for part in re.findall(r"[^-]*-+|[^-]+", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def metric(value: Metric) -> str:
    """Format a metric with its interval; a missing one as a dash (its reason is listed elsewhere)."""
    if isinstance(value, Missing):
        return DASH
    if isinstance(value, Energy):
        return energy(value)
    if value.unit == "bytes":
        return f"{size(value.value)}{_spread(value, size)}"
    if value.unit == "1":
        return _share(value)
    return f"{_plain(value.value, value.unit)}{_spread(value, lambda bound: _plain(bound, value.unit))}"


def bare(value: Metric) -> str:
    """Format a metric for a column whose head names the unit, which is never scaled: number and interval alone."""
    if not isinstance(value, Quantity) or value.unit in _SCALED:
        return energy_short(value) if isinstance(value, Energy) else metric(value)
    return f"{_digits(value.value)}{_spread(value, _digits)}"


def _share(value: Quantity) -> str:
    """Format a share or ratio in per cent; near 0 and 1 its interval is lopsided, so both ends are named."""
    number = f"{significant(100 * value.value, MEASURED_DIGITS)} %"
    if value.low is None or value.high is None or value.interval == "exact":
        return number
    bounds = (significant(100 * bound, MEASURED_DIGITS) for bound in (value.low, value.high))
    return f"{number} ({'-'.join(bounds)})"


def _plain(value: float, unit: str) -> str:
    if unit == "s/token":
        return si(value, "s")
    if unit in ("s", "J", "W"):
        return si(value, unit)
    return f"{significant(value, MEASURED_DIGITS)} {unit}"


def _digits(value: float) -> str:
    return significant(value, MEASURED_DIGITS)


def _spread(value: Quantity, told: Callable[[float], str]) -> str:
    """Return the interval as one number where that says it all, else both bounds, each as ``told``."""
    if value.low is None or value.high is None or not value.value or value.interval == "exact":
        return ""
    half = max(value.value - value.low, value.high - value.value) / value.value
    if half > _MOST_SPREAD:
        return f" ({told(value.low)} to {told(value.high)})"
    return f" \u00b1{significant(100 * half, 2)} %" if half > _LEAST_SPREAD else ""


def energy(value: Energy, unit: str | None = None) -> str:
    """Format joules so that nobody takes a model for a reading: value, interval, label, scope."""
    number, bounds = _energy_numbers(value, unit)
    return f"{number} ({bounds}, {kind(value)})"


def kind(value: Energy) -> str:
    """Say how joules were obtained and what they cover."""
    return f"{LABELS[value.label]}, {value.scope}"


def energy_short(value: Energy, unit: str | None = None) -> str:
    """Format for a table whose note carries label and scope: value and interval alone."""
    number, bounds = _energy_numbers(value, unit)
    return f"{number} ({bounds})"


def _energy_numbers(value: Energy, unit: str | None) -> tuple[str, str]:
    """Return the value with its unit, and its bounds in the same scale."""
    digits = MEASURED_DIGITS if value.label == "measured" else MODELLED_DIGITS
    scale, prefix = next(((s, p) for s, p in _PREFIXES if abs(value.value) >= s * 0.9995), _PREFIXES[-1])
    if not (unit or value.unit).startswith(("J", "W")):
        scale, prefix = 1.0, ""  # there are no millirequests

    def scaled(number: float | None) -> str:
        return "?" if number is None else significant(number / scale, digits)

    return f"{scaled(value.value)} {prefix}{unit or value.unit}", f"{scaled(value.low)}-{scaled(value.high)}"
