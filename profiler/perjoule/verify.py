"""Whether a result holds: its id, its raw parts among themselves, and every number derived from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from perjoule.asking import judged, same_questions
from perjoule.assemble import derived_parts
from perjoule.errors import PerjouleError
from perjoule.noise import rejection
from perjoule.records.facts import STATISTICS_VERSION
from perjoule.scenario import from_facts, spec_sha256
from perjoule.stats.selection import stem
from perjoule.store.canonical import canonical_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perjoule.records import RunResult, Sample, Window

# The last digits of a t quantile or a sum may differ between versions of the libraries.
_RELATIVE_TOLERANCE = 1e-9
_TICK_S = 1e-6  # what differences of stamps lose to rounding
_DERIVED = ("idle", "metrics", "energy", "roofline", "quality", "languages", "overhead", "checks", "publishable")


def verify(result: RunResult) -> list[str]:
    """Return what does not hold, one line each; empty if the result is whole and says what its samples say.

    Numbers made by older statistics are not computed again: ``statistics_note`` says so.
    """
    problems = [*_integrity(result), *_raw_parts(result), *_answers(result), *_noise(result)]
    if result.tool.statistics != STATISTICS_VERSION:
        return [*problems, *_statistics(result)]
    try:
        again = derived_parts(result)
    except (PerjouleError, ValueError, ArithmeticError, LookupError) as error:
        return [*problems, f"its numbers cannot be computed again: {error}"]
    for name in _DERIVED:
        if getattr(result, name) == getattr(again, name):
            continue  # the common case, and quick to see
        told, found = msgspec.to_builtins(getattr(result, name)), msgspec.to_builtins(getattr(again, name))
        problems += [f"{at}: the file says {a}, its samples give {b}" for at, a, b in differences(name, told, found)]
    return problems


def statistics_note(result: RunResult) -> str | None:
    """Return what to say of numbers that were made by older rules than this perjoule's; None where they were not."""
    made_by = result.tool.statistics
    if made_by >= STATISTICS_VERSION:
        return None
    return (
        f"its numbers and intervals were made by statistics {made_by}, where this perjoule has {STATISTICS_VERSION}, "
        "and were not computed again (`perjoule upgrade` does)"
    )


def _statistics(result: RunResult) -> Iterator[str]:
    made_by = result.tool.statistics
    if made_by > STATISTICS_VERSION:
        yield f"tool.statistics: {made_by} is newer than this perjoule knows ({STATISTICS_VERSION}): update perjoule"
    elif made_by < 1:
        yield f"tool.statistics: {made_by} is no version"


def _integrity(result: RunResult) -> Iterator[str]:
    try:
        if result.id != canonical_id(result):
            yield "id: the content was changed after it was written"
        if result.scenario.sha256 != spec_sha256(result.scenario.spec):
            yield "scenario.sha256: does not fit the spec"
    except ValueError as error:
        yield f"id: the content has no canonical form: {error}"


def _answers(result: RunResult) -> Iterator[str]:
    """Judge every answer again, where this perjoule makes the questions that were asked."""
    if not any(isinstance(s.question, str) for s in result.samples):
        return
    try:
        scenario = from_facts(result.scenario)
        if not scenario.tasks or not same_questions(scenario):
            return  # a task of the user's own, or of another version: its questions are not here
        for told, found in zip(result.samples, judged(result.samples, scenario), strict=True):
            if told.correct != found.correct:
                yield f"sample {told.window}: the file says correct {told.correct}, its answer is {found.correct}"
    except (PerjouleError, LookupError) as error:
        yield f"its answers cannot be judged again: {error}"


def _raw_parts(result: RunResult) -> Iterator[str]:
    processes = {p.process for p in result.processes}
    if len(processes) != len(result.processes):
        yield "processes: a number is used twice"
    stems = [s.window for s in result.samples]
    if len(set(stems)) != len(stems):
        yield "samples: a window is used twice"
    ids = {w.id for w in result.windows}
    if len(ids) != len(result.windows):
        yield "windows: an id is used twice"
    yield from _windows(result, set(stems))
    yield from _spans(result)
    for sample in result.samples:
        if sample.process not in processes:
            yield f"sample {sample.window}: belongs to no process"
        own = {f"{sample.window}/prefill", f"{sample.window}/decode"}
        if not ({sample.span} if isinstance(sample.span, str) else own) <= ids:
            yield f"sample {sample.window}: lacks a window"
        if not _tokens_in_order(sample):
            yield f"sample {sample.window}: its token times do not fit its stamps and count"


def _noise(result: RunResult) -> Iterator[str]:
    """Judge the disturbance of every request and block again, from the CPU times in its windows."""
    together: dict[str, list[Window]] = {}
    shared = {s.window for s in result.spans}
    for window in result.windows:
        if window.id in shared:
            together[window.id] = [window]
        elif window.phase in {"prefill", "decode"}:
            together.setdefault(stem(window), []).append(window)
    for name, windows in together.items():
        found = rejection(windows, result.host.cpu.threads)
        if any((w.rejected is None) != (found is None) for w in windows):
            yield f"windows of {name}: the file says rejected: {windows[0].rejected}; its CPU times give: {found}"


def _spans(result: RunResult) -> Iterator[str]:
    windows = {w.id: w for w in result.windows}
    samples: dict[str, list[Sample]] = {}
    for sample in result.samples:
        if isinstance(sample.span, str):
            samples.setdefault(sample.span, []).append(sample)
    if not set(samples) <= {s.window for s in result.spans}:
        yield "spans: a sample belongs to one that is not there"
    for span in result.spans:
        window, inside = windows.get(span.window), samples.get(span.window, [])
        if window is None:
            yield f"span {span.window}: has no window"
            continue
        if span.finished != len(inside) or span.offered < span.finished:
            yield f"span {span.window}: {span.finished} of {span.offered} answered, {len(inside)} samples"
        if any(s.sent_s < window.start_s or s.end_s > window.end_s or s.phase != span.phase for s in inside):
            yield f"span {span.window}: a sample lies outside its window"
        if any(s.start_s - s.sent_s > span.longest_wait_s + _TICK_S for s in inside):
            yield f"span {span.window}: a request waited longer than the longest wait"


def _windows(result: RunResult, known: set[str]) -> Iterator[str]:
    domains = {m.domain for m in result.meters}
    blocks = {b.window for b in result.blocks}
    if not blocks <= {w.id for w in result.windows}:
        yield "blocks: one has no window"
    for window in result.windows:
        if window.end_s < window.start_s:
            yield f"window {window.id}: ends before it starts"
        if window.phase in {"prefill", "decode"} and stem(window) not in known and window.id not in blocks:
            yield f"window {window.id}: belongs to no sample"
        if any(reading.domain not in domains for reading in window.readings):
            yield f"window {window.id}: has a reading of a domain that is not among the meters"


def _tokens_in_order(sample: Sample) -> bool:
    times = sample.token_times_s
    if times is None:
        return True
    return (
        len(times) == sample.output_tokens
        and list(times) == sorted(times)
        and times[0] == sample.first_token_s
        and times[-1] <= sample.end_s
    )


def differences(at: str, told: Any, found: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the leaves in which two JSON values differ beyond rounding."""
    if isinstance(told, dict) and isinstance(found, dict):
        for key in sorted(set(told) | set(found)):
            yield from differences(f"{at}.{key}", told.get(key), found.get(key))
    elif isinstance(told, list | tuple) and isinstance(found, list | tuple) and len(told) == len(found):
        for index, (a, b) in enumerate(zip(told, found, strict=True)):
            yield from differences(f"{at}[{index}]", a, b)
    elif not _same(told, found):
        yield at, told, found


def _same(told: object, found: object) -> bool:
    if isinstance(told, bool) or isinstance(found, bool):
        return told is found
    if isinstance(told, int | float) and isinstance(found, int | float):
        return math.isclose(told, found, rel_tol=_RELATIVE_TOLERANCE, abs_tol=1e-15)
    return told == found
