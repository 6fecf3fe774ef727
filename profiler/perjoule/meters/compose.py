"""Which domains make up a host's total: nothing is counted twice, and what is left out is said.

Domains contain each other physically: wall > chassis > module > package > core. A total is made of the outermost
domains, those that no other metered domain contains. The platform domain (psys) is wired as each vendor likes and is
never part of a total.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.records import MeterFact, MeterRefusal

_PARTS = frozenset({"package", "core", "uncore", "igpu", "dram", "gpu", "rail"})
# scope: what it contains when both are metered
CONTAINS: dict[str, frozenset[str]] = {
    "wall": _PARTS | {"chassis", "battery", "module"},
    "chassis": _PARTS | {"battery", "module"},
    "battery": _PARTS | {"module"},
    "module": _PARTS,
    "package": frozenset({"core", "uncore", "igpu"}),
    "core": frozenset(),
    "uncore": frozenset(),
    "igpu": frozenset(),
    "dram": frozenset(),
    "gpu": frozenset(),
    "rail": frozenset(),
    "platform": frozenset(),
}
SCOPES = tuple(CONTAINS)
WHOLE_BOX = frozenset({"wall", "chassis", "battery"})
_WHOLE_HOST = WHOLE_BOX | {"module"}


class Composition:
    """The domains of one host sorted into those that are summed and those that are not, with the reason."""

    def __init__(self, facts: Sequence[MeterFact]) -> None:
        facts = [fact for fact in facts if fact.kind != "model"]
        self.left_out: dict[str, str] = {}
        for fact in facts:
            why = _left_out(fact, facts)
            if why:
                self.left_out[fact.domain] = why
        self.counted = [fact for fact in facts if fact.domain not in self.left_out]
        self.others = [fact for fact in facts if fact.domain in self.left_out]

    @property
    def scope(self) -> str:
        """Spell out what the total covers: ``package+dram``; never "system"."""
        return "+".join(dict.fromkeys(fact.scope for fact in self.counted))

    @property
    def grade(self) -> str:
        return "+".join(dict.fromkeys(fact.grade for fact in self.counted))

    @property
    def min_window_s(self) -> float:
        return max((fact.min_window_s for fact in self.counted), default=0.0)

    @property
    def whole_box(self) -> bool:
        return any(fact.scope in WHOLE_BOX for fact in self.counted)

    def incomplete(self, refused: Sequence[MeterRefusal]) -> str | None:
        """Return why these domains are not all of a host that computes on its CPU; None where they are.

        A board alone, memory alone, or one socket of two is a part; a part is never shown as the total.
        """
        scopes = {fact.scope for fact in self.counted}
        if scopes & _WHOLE_HOST:
            return None
        metered = {fact.domain for fact in (*self.counted, *self.others)}
        # memory that no domain shows is left out by name; one of two sockets' memory would hide behind the name
        lost = [
            r
            for r in refused
            if r.domain is not None and r.domain not in metered and _scope_of(r.domain) in scopes & {"package", "dram"}
        ]
        if lost:
            return f"{lost[0].domain} cannot be read, and the rest is not the whole: {lost[0].reason}"
        return None if "package" in scopes else "no sensor covers the processor"


def _left_out(fact: MeterFact, facts: Sequence[MeterFact]) -> str:
    if fact.scope == "platform":
        return "the platform domain is wired as each vendor likes; it is in no sum"
    if fact.parent is not None and any(other.domain == fact.parent for other in facts):
        return f"inside {fact.parent}"
    around = (f for f in facts if f is not fact and fact.scope in CONTAINS.get(f.scope, frozenset()))
    inside = next((f.domain for f in around if not _other_package(fact, f)), None)
    return f"inside {inside}" if inside else ""


def _other_package(fact: MeterFact, around: MeterFact) -> bool:
    """A core belongs to the package its name starts with, not to every package."""
    return around.scope == "package" and fact.domain.partition(":")[0] != around.domain


def _scope_of(domain: str) -> str:
    """Return the scope that a canonical name tells: ``package-1:dram`` is memory, ``package-1-die-0`` a package."""
    return domain.rpartition(":")[2].partition("-")[0]
