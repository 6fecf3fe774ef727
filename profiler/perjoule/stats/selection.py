"""Which measured requests count: clean ones, unless the host was too noisy to leave enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.records import Record, Sample, Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perjoule.scenario import Scenario


class Selection(Record, frozen=True, kw_only=True):
    """``samples`` are the requests that statistics use; ``rejected`` how many measured ones were noisy.

    ``kept_rejected`` is true where too few clean ones remained, so that ``samples`` holds all of them.
    """

    samples: tuple[Sample, ...]
    rejected: int
    measured: int
    kept_rejected: bool

    @property
    def by_process(self) -> list[list[Sample]]:
        return group_by_process(self.samples)


def select(samples: Sequence[Sample], windows: Iterable[Window], scenario: Scenario) -> Selection:
    """Leave out requests with a rejected window, unless fewer clean processes than needed would remain."""
    rejected = [w for w in windows if w.rejected is not None]
    noisy, spans = {stem(w) for w in rejected}, {w.id for w in rejected}
    measured = [s for s in samples if s.phase == "measured"]
    clean = [s for s in measured if s.window not in noisy and s.span not in spans]
    processes = len({s.process for s in measured})
    enough = len({s.process for s in clean}) >= min(scenario.min_processes, processes) and bool(clean)
    return Selection(
        samples=tuple(clean if enough else measured),
        rejected=len(measured) - len(clean),
        measured=len(measured),
        kept_rejected=not enough and len(clean) < len(measured),
    )


def stem(window: Window) -> str:
    """Return the id of the request a window belongs to: ``"3.5"`` of ``"3.5/prefill"``."""
    return stem_of(window.id)


def stem_of(window_id: str) -> str:
    return window_id.partition("/")[0]


def group_by_process(samples: Iterable[Sample]) -> list[list[Sample]]:
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.process, []).append(sample)
    return [groups[p] for p in sorted(groups)]
