"""Taking a run up again: whether what it was begun with is still the same, and where its stamps go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule import __version__, host
from perjoule.errors import HostError, InputError
from perjoule.records import MeterFact, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.journal import Story
    from perjoule.measure import ProcessRun
    from perjoule.protocols import Clock, Prepared
    from perjoule.records import HostFacts

_STEP_S = 1.0  # by less than this two clocks may drift apart, or be slewed by NTP
_GAP_S = 1.0  # between the last stamp and the next, where the wall clock says that there was less than nothing
_NEW_RUN = "begin a new run"


class Zero(Record, frozen=True, kw_only=True):
    """Second 0 of a run by this boot's monotonic clock; ``at_s`` is now, ``note`` what is odd about it."""

    epoch_ns: int  # below 0 after a reboot: the run is older than the clock
    at_s: float
    note: str | None


def boot_id() -> str | None:
    """Return what tells this boot from others, or None where the kernel does not say."""
    try:
        return (host.procfs_root() / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def zero_again(story: Story, clock: Clock, boot: str | None) -> Zero:
    """Return where stamps go on: by the wall clock, which runs through a reboot; always later than the last.

    A wall clock that was set meanwhile is noted: one set back shows in the stamps, one set at all in the same boot
    shows against the monotonic clock.
    """
    begun, now_ns = story.begun, clock.now_ns()
    wall_s = (clock.utc_now() - begun.created).total_seconds()
    at_s, note = wall_s, None
    if wall_s <= story.last_s:
        at_s = story.last_s + _GAP_S
        note = f"the clock was set back since this run was begun: stamps from here on are {at_s - wall_s:.0f} s late"
    elif boot is not None and boot == begun.boot:
        step_s = wall_s - (now_ns - begun.epoch_ns) / 1e9
        if abs(step_s) > _STEP_S:
            note = f"the clock was moved by {step_s:+.0f} s since this run was begun, or the machine slept"
    return Zero(epoch_ns=now_ns - round(at_s * 1e9), at_s=at_s, note=note)


def refuse_another_machine(story: Story, facts: HostFacts) -> None:
    """Raise ``InputError`` if the run was begun on another machine or by another release of perjoule."""
    if facts.machine_id != story.begun.machine_id:
        raise InputError(
            f"the run was begun on machine {story.begun.machine_id}; this is {facts.machine_id}", hint=_NEW_RUN
        )
    if story.begun.tool_version != __version__:
        raise InputError(
            f"the run was begun by perjoule {story.begun.tool_version}; this is {__version__}",
            hint=f"resume it with that version, or {_NEW_RUN}",
        )


def refuse_another_model(before: Prepared, now: Prepared, ref: str) -> None:
    """Raise ``InputError`` if the model is not the one that was measured; where it is cached may have changed."""
    if (before.model, before.context_tokens, before.stop_ids) != (now.model, now.context_tokens, now.stop_ids):
        changed = [f for f in now.model.__struct_fields__ if getattr(now.model, f) != getattr(before.model, f)]
        what = ", ".join(changed) or "its context or stop tokens"
        raise InputError(f"{ref} has changed since the run was begun: {what}", hint=_NEW_RUN)


def refuse_another_engine(before: ProcessRun, now: ProcessRun) -> None:
    """Raise ``HostError`` if a process was measured with other software than those before it."""
    for name, old, new in (
        ("engine", before.engine_version, now.engine_version),
        *((library, before.libraries.get(library), now.libraries.get(library)) for library in now.libraries),
    ):
        if old != new:
            raise HostError(f"{name} was {old} when the run was begun and is {new} now", hint=_NEW_RUN)


def refuse_other_sensors(before: Sequence[MeterFact], now: Sequence[MeterFact]) -> None:
    """Raise ``HostError`` if other domains are read than before; periods and windows found at probe may differ."""
    old, new = ({f.domain: _identity(f) for f in facts} for facts in (before, now))
    if old != new:
        names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        raise HostError(
            f"the sensors have changed since the run was begun: {', '.join(names)}",
            hint=f"`perjoule doctor` lists them; make them readable again, or {_NEW_RUN}",
        )


def _identity(fact: MeterFact) -> tuple[object, ...]:
    return (fact.scope, fact.kind, fact.label, fact.grade, fact.source, fact.unit_j, fact.wrap_count, fact.simulated)
