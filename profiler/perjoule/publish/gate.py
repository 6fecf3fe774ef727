"""Whether one result may be published: everything that speaks against it, at once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from perjoule import store
from perjoule.errors import PerjouleError
from perjoule.plausibility import implausible
from perjoule.publish.scrub import scan, scrub
from perjoule.records import Record, RunResult
from perjoule.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.publish.private import Identity

_MOST_LINES = 10  # of what `perjoule verify` says: one changed sample moves a hundred numbers


class Candidate(Record, frozen=True, kw_only=True):
    """A file that somebody wants published.

    ``result`` is None if it cannot even be read (``unreadable``); ``against`` are the reasons why it must not be
    published, ``scrubbed`` the keys whose text was changed.
    """

    path: str
    result: RunResult | None
    unreadable: str | None = None
    against: tuple[str, ...] = ()
    scrubbed: tuple[str, ...] = ()


def examine(path: str | Path, who: Identity) -> Candidate:
    """Read, verify and scrub one file; nothing is raised for what is wrong with it."""
    try:
        result = store.load(path)
    except PerjouleError as error:
        return Candidate(path=str(path), result=None, unreadable=error.message)
    problems = verify(result)
    against = [f"does not hold: {problem}" for problem in problems[:_MOST_LINES]]
    if len(problems) > _MOST_LINES:
        against.append(f"does not hold: {len(problems) - _MOST_LINES} more lines, see `perjoule verify {path}`")
    against += [f"cannot be: {problem}" for problem in _implausible(result)]
    against += [f"{c.code}: {c.message} (hint: {c.hint})" for c in result.checks if c.severity == "invalid"]
    if against:  # what does not hold is not rewritten; what it gives away is told with the rest
        return Candidate(path=str(path), result=result, against=(*against, *scan(result, who)))
    try:
        clean, scrubbed = scrub(result, who)
        against += [f"after scrubbing it does not hold: {problem}" for problem in (verify(clean) if scrubbed else [])]
    except (PerjouleError, ValueError, ArithmeticError, LookupError) as error:
        return Candidate(path=str(path), result=result, against=(f"cannot be scrubbed: {error}", *scan(result, who)))
    against += scan(clean, who)
    return Candidate(path=str(path), result=clean, against=tuple(against), scrubbed=tuple(scrubbed))


def _implausible(result: RunResult) -> list[str]:
    try:
        return implausible(result)
    except (PerjouleError, ValueError, ArithmeticError, LookupError):
        return []  # a wrong scenario: ``verify`` says so


def fingerprint(result: RunResult) -> str:
    """Return a hash of what was observed alone: the same measurement under another id has the same one."""
    observed = msgspec.json.encode([result.processes, result.samples, result.windows], order="sorted")
    return hashlib.sha256(observed).hexdigest()
