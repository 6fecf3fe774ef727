"""Which domains make up a host's total: nothing is counted twice, and what is left out is said.

Domains contain each other physically: wall > chassis > module > package > core. A total is made of the outermost
domains, those that no other metered domain contains. The platform domain (psys) is wired as each vendor likes and is
never part of a total.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
_NEEDED_WHOLE = frozenset({"package", "module"})
_ALL_OR_NONE = frozenset({"gpu", "dram"})


class Composition:
    """The domains of one host sorted into those that are summed and those that are not, with the reason.

    ``refused`` are the domains that are there and cannot be read: a part is never shown as the whole of its kind.
    """

    def __init__(self, facts: Sequence[MeterFact], refused: Sequence[MeterRefusal] = ()) -> None:
        facts = [fact for fact in facts if fact.kind != "model"]
        metered = {fact.domain for fact in facts}
        lost = {r.domain: r.reason for r in refused if r.domain is not None and r.domain not in metered}
        self._lost = lost
        self.left_out: dict[str, str] = {}
        for fact in facts:
            why = _inside(fact, facts) or _second_box(fact, facts) or _one_of_several(fact, lost)
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

    def incomplete(self) -> str | None:
        """Return why these domains are not all of a host that computes on its CPU; None where they are.

        A board alone, memory alone, one socket or one module of two is a part; a part is never shown as the total.
        """
        scopes = {fact.scope for fact in self.counted}
        for domain, reason in self._lost.items():
            if _scope_of(domain) in scopes & _NEEDED_WHOLE:
                return f"{domain} cannot be read, and the rest is not the whole: {reason}"
        return None if scopes & (_WHOLE_HOST | {"package"}) else "no sensor covers the processor"


def _inside(fact: MeterFact, facts: Sequence[MeterFact]) -> str:
    if fact.scope == "platform":
        return "the platform domain is wired as each vendor likes; it is in no sum"
    if fact.parent is not None and any(other.domain == fact.parent for other in facts):
        return f"inside {fact.parent}"
    around = (f for f in facts if f is not fact and fact.scope in CONTAINS.get(f.scope, frozenset()))
    inside = next((f.domain for f in around if not _elsewhere(fact, f)), None)
    return f"inside {inside}" if inside else ""


def _elsewhere(fact: MeterFact, around: MeterFact) -> bool:
    """Tell whether a part belongs to another package or module: numbers in names say which."""
    if around.scope == "package":
        return fact.domain.partition(":")[0] != around.domain
    numbers = (_number_of(fact.domain), _number_of(around.domain))
    return around.scope == "module" and None not in numbers and numbers[0] != numbers[1]


def _second_box(fact: MeterFact, facts: Sequence[MeterFact]) -> str:
    """Several supplies of one reader add up; two readers of the whole box see the same joules."""
    first = next((f for f in facts if f.scope == fact.scope and f.scope in WHOLE_BOX), fact)
    return "" if first.source == fact.source else f"the whole box is read through {first.source} already"


def _one_of_several(fact: MeterFact, lost: Mapping[str, str]) -> str:
    """Boards and memory are summed all or none: one of two would hide behind the name of the scope."""
    if fact.scope not in _ALL_OR_NONE:
        return ""
    missing = next((domain for domain in lost if _scope_of(domain) == fact.scope), None)
    return f"{missing} cannot be read, so no {fact.scope} is in the sum" if missing else ""


def _scope_of(domain: str) -> str:
    """Return the scope that a canonical name tells: ``package-1:dram`` is memory, ``package-1-die-0`` a package."""
    return domain.rpartition(":")[2].partition("-")[0]


def _number_of(domain: str) -> str | None:
    match = re.match(r"[a-z]+-(\d+)", domain)
    return match.group(1) if match else None
