"""Fields of records that depend on where the engine runs: in the measured process, or in a server that it asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perjoule.records import UNSET, ServerFacts
from perjoule.server_process import ELSEWHERE

if TYPE_CHECKING:
    from msgspec import UnsetType

    from perjoule.messages import Loaded
    from perjoule.protocols import Whereabouts
    from perjoule.records import Sample


def cpu_fields(
    *, server: Whereabouts | None, server_ns: int | str, worker_ns: int, parent_ns: int, busy_s: float
) -> dict[str, Any]:
    """Return the fields of a window that tell the engine's CPU time, and that of others.

    ``server_ns`` is what a server's processes spent, or why that is not known; ``busy_s`` what the whole machine did.
    A client that asks a server is part of neither: it is perjoule's own cost.
    """
    spent_ns: int | str = worker_ns if server is None else ELSEWHERE if server == "elsewhere" else server_ns
    found = (
        {"cpu_s": None, "cpu_s_missing": spent_ns}
        if isinstance(spent_ns, str)
        else {"cpu_s": max(0, spent_ns) / 1e9, "cpu_s_missing": UNSET}
    )
    own_ns = worker_ns + parent_ns
    if server == "here":
        if isinstance(server_ns, str):
            why = f"it cannot be told from the server's: {server_ns}"
            return {**found, "foreign_cpu_s": None, "foreign_cpu_s_missing": why}
        own_ns += server_ns
    foreign_s = busy_s - own_ns / 1e9
    return {
        **found,
        "foreign_cpu_s": max(0.0, foreign_s),
        "cpu_undercount_s": -foreign_s if foreign_s < 0 else UNSET,
    }


def server_facts(place: Whereabouts | None, pid: int | None) -> ServerFacts | UnsetType:
    """Return what a result says of the server; unset where none was asked. ``pid``: the process that was named."""
    return UNSET if place is None else ServerFacts(place=place, processes_known=place == "here" and pid is not None)


def start_fields(loaded: Loaded, first: Sample | None, *, served: bool) -> dict[str, Any]:
    """Return how a process started: loading, and its first answer. A server did both before anybody looked."""
    if served:
        why = "the server was there before"
        return {"load_s": None, "load_s_missing": why, "cold_ttft_s": None, "cold_ttft_s_missing": why}
    return {
        "load_s": (loaded.end_ns - loaded.start_ns) / 1e9,
        "cold_ttft_s": None if first is None else first.first_token_s - first.start_s,
        "cold_ttft_s_missing": UNSET if first is not None else "no request was made",
    }


def token_fields(times_s: tuple[float, ...], missing: str) -> dict[str, Any]:
    """Return when tokens existed; those of pieces of text are times of no token."""
    return {"token_times_s": None, "token_times_s_missing": missing} if missing else {"token_times_s": times_s}
