"""What a reader must know before believing a result: pure functions from a result to checks.

Each check says what was seen and what to do next. ``invalid`` keeps a result from being published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.checks import quality, sensors, server, service, spread
from perjoule.noise import checks as noise_checks

if TYPE_CHECKING:
    from perjoule.records import Check, RunResult

__all__ = ["run_checks"]

_RULES = (*spread.RULES, *noise_checks.RULES, *service.RULES, *server.RULES, *quality.RULES, *sensors.RULES)


def run_checks(result: RunResult) -> tuple[Check, ...]:
    """Return every check that applies; energy's own come from ``perjoule.meters.energy``.

    ``result.checks`` and ``result.publishable`` are not read. Raises ``InputError`` for a wrong scenario spec.
    """
    return tuple(check for rule in _RULES for check in rule(result))
