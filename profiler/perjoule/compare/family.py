"""Which metrics a comparison is judged by: few that are fixed before anybody looks, and those that are named."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from perjoule.by_process import WORSE_IS_MORE
from perjoule.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ENERGY, _MEMORY = "energy_j_per_output_token", "peak_memory_bytes"
_LATENCY = ("ttft_s", "decode_tokens_per_s", _ENERGY, _MEMORY)
# What each load is about. Offline has no latency; under a load that is offered (server) throughput is not a merit.
PRIMARY: dict[str, tuple[str, ...]] = {
    "single-stream": _LATENCY,
    "server": _LATENCY,
    "multi-stream": ("ttft_s", "output_tokens_per_s", _ENERGY, _MEMORY),
    "offline": ("output_tokens_per_s", _ENERGY, _MEMORY),
    "cold-start": ("load_s", "ttft_s", _ENERGY, _MEMORY),
    "idle": ("power_w", _MEMORY),
}
_FOUND_RATE = ("requests_per_s", "ttft_s", "decode_tokens_per_s", _ENERGY, _MEMORY)


def primary(shape: str, *, find_rate: bool = False) -> tuple[str, ...]:
    """Return the primary family of a shape of load; where a rate was looked for, it is what was looked for."""
    return _FOUND_RATE if find_rate else PRIMARY.get(shape, _LATENCY)


def named(metrics: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics that a user named, each once. Raises ``UsageError`` for one without a value in each process.

    Percentiles over all requests and shares of requests have none, so that nothing could judge them.
    """
    for name in metrics:
        if name not in WORSE_IS_MORE:
            near = difflib.get_close_matches(name, WORSE_IS_MORE, n=3) or sorted(WORSE_IS_MORE)
            raise UsageError(f"--metric {name}: not a metric that can be judged", hint=f"known: {', '.join(near)}")
    return tuple(dict.fromkeys(metrics))
