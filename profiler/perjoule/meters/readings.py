"""From counts at two edges to the readings of a window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from perjoule.records import Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perjoule.protocols import Count

_INT53 = 2**53  # above it JSON numbers are not exact everywhere, so counts are text


def readings_between(
    before: Mapping[str, Count], after: Mapping[str, Count], begin_ns: int, stop_ns: int
) -> tuple[Reading, ...]:
    """Return a reading per domain that was read at both edges; stamps are monotonic ns, like those of the counts."""
    return tuple(
        Reading(
            domain=domain,
            start_count=_json_int(start.count),
            end_count=_json_int(after[domain].count),
            skew_s=(_middle_ns(after[domain]) - stop_ns - (_middle_ns(start) - begin_ns)) / 1e9,
            polls=_polls(start, after[domain]),
            sampling_error_count=math.sqrt(max(0.0, after[domain].variance - start.variance)),
        )
        for domain, start in before.items()
        if domain in after
    )


def _polls(start: Count, end: Count) -> int | None:
    return None if start.polls is None or end.polls is None else end.polls - start.polls


def _middle_ns(count: Count) -> int:
    return (count.before_ns + count.after_ns) // 2


def _json_int(count: int) -> int | str:
    return count if abs(count) <= _INT53 else str(count)
