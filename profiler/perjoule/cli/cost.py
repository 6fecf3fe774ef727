"""Options of `run` and `show` that add what the joules cost in money and carbon to the summary."""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING

from perjoule.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from perjoule.records import RunResult

_DEFAULT_CURRENCY = "EUR"
_CURRENCY = re.compile(r"[A-Z]{3}")


def add_cost_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--price-per-kwh", type=float, metavar="X", help="also print what the energy of tokens costs")
    parser.add_argument("--currency", metavar="CODE", help=f"of the price ({_DEFAULT_CURRENCY})")
    parser.add_argument("--gco2-per-kwh", type=float, metavar="X", help="also print gCO2e, at this carbon intensity")
    parser.add_argument("--grid", metavar="NAME", help="also print gCO2e, for the grid of a country (DE, world)")


class CostOptions:
    """The options, checked. Raises ``UsageError`` for one that makes no sense."""

    def __init__(self, args: argparse.Namespace, *, summary: bool) -> None:
        self.price: float | None = args.price_per_kwh
        self.currency: str = args.currency or _DEFAULT_CURRENCY
        self.gco2: float | None = args.gco2_per_kwh
        self.source = ""
        for option, value in (("--price-per-kwh", self.price), ("--gco2-per-kwh", self.gco2)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{option} must be above 0", hint=f"e.g. {option} 0.3")
        if args.currency and self.price is None:
            raise UsageError("--currency says of what --price-per-kwh is", hint="e.g. --price-per-kwh 0.3")
        if not _CURRENCY.fullmatch(self.currency):
            raise UsageError(f"--currency {self.currency!r} is not a code", hint="three capitals, e.g. --currency USD")
        if args.grid is not None:
            self._use_grid(args.grid)
        if self and not summary:
            raise UsageError(
                "cost and carbon stand under the summary, which is not printed here",
                hint="leave out --json -, or --html of `perjoule show`",
            )

    def __bool__(self) -> bool:
        return self.price is not None or self.gco2 is not None

    def lines(self, result: RunResult) -> list[str]:
        if not self:
            return []
        from perjoule.render.cost import cost_lines  # noqa: PLC0415 - only where asked for

        return cost_lines(result, self.price, self.currency, self.gco2, source=self.source)

    def _use_grid(self, name: str) -> None:
        from perjoule.render.cost import find_grid, grids  # noqa: PLC0415

        if self.gco2 is not None:
            raise UsageError("--grid and --gco2-per-kwh both give a carbon intensity", hint="leave one out")
        row = find_grid(name)
        if row is None:
            near = difflib.get_close_matches(name.title(), [r.name for r in grids()]) or [r.code for r in grids()]
            raise UsageError(f"unknown grid {name!r}", hint=f"known: {', '.join(near)}; or give --gco2-per-kwh X")
        self.gco2, self.source = row.gco2_per_kwh, row.described
