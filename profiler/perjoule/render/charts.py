"""The pictures of a report: which ones fit the loads that were run, and what is said below each."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from perjoule.records import Energy, Missing, Quantity, Record, RunResult
from perjoule.render import format as fmt
from perjoule.render import svg, sweep
from perjoule.render.rows import shape
from perjoule.stats.steering import tpot_s, ttft_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perjoule.records import Metric, Sample, Span

    _Named = Sequence[tuple[int, RunResult, str]]  # colour, result, name

_PHASES, _PHASES_TOGETHER = ("load", "prefill", "decode"), ("load", "requests")
_MILLI, _MEBI, _PER_CENT = 1e3, 2**20, 100
_LEAST_GAP_S = 1e-9  # shorter than a clock can tell: no rate
_MOST_DOTS = 600  # of one result: more cannot be told apart, and the page stays small
_SPANS_THREE_DOUBLINGS = 8  # values of a sweep from which doublings are drawn equally far
_UNITS = {"bytes": ("MiB", 1 / _MEBI), "s": ("ms", _MILLI)}


class Chart(Record, frozen=True, kw_only=True):
    """A picture, what it shows, and colours with names where it shows more than one thing."""

    title: str
    svg: str
    note: str
    legend: tuple[tuple[int, str], ...] = ()


def charts(results: Sequence[RunResult], names: Sequence[str]) -> list[Chart]:
    """Return the pictures of results that stand side by side; a result is in those that mean something for its load."""
    named = list(enumerate(zip(results, names, strict=True)))
    known = [(g, r, n) for g, (r, n) in named if shape(r) not in ("offline", "idle") and not sweep.saturated(r)]
    every = [(g, r, n) for g, (r, n) in named]
    found = [
        _ttft_of_each(known),
        _over_time(every),
        *_within(known),
        _speed_over_time(every),
        _gap_distribution(known),
        _rate_over_tokens(known),
        _memory(every),
        _energy(every),
    ]
    return [c for c in found if c is not None]


def measured(result: RunResult) -> list[Sample]:
    return [s for s in result.samples if s.phase == "measured"]


def _thinned(samples: Sequence[Sample]) -> tuple[Sequence[Sample], str]:
    """Return at most so many requests, evenly chosen, and what the note must say of that."""
    step = -(-len(samples) // _MOST_DOTS)
    return (samples, "") if step <= 1 else (samples[::step], f" Of {len(samples):,} requests every {step}th is drawn.")


def _legend(named: _Named) -> tuple[tuple[int, str], ...]:
    return tuple((group % svg.COLOURS, name) for group, _, name in named) if len(named) > 1 else ()


def _ttft_of_each(named: _Named) -> Chart | None:
    series, groups, notes = [], [], ""
    for group, result, name in named:
        samples, note = _thinned(measured(result))
        notes += note
        if samples:
            xs, lanes = tuple(_MILLI * ttft_s(s) for s in samples), tuple(s.process for s in samples)
            series.append(svg.Series(name=name, xs=xs, lanes=lanes))
            groups.append(group)
    if not series:
        return None
    title = "Time to first token"
    note = "A dot is one request, a row of dots one fresh process, the tick their median. Warm-ups are left out."
    return Chart(title=title, svg=svg.dots(series, title, "ms, every measured request", groups), note=note + notes)


def _over_time(named: _Named) -> Chart | None:
    """Draw TTFT over the instant that a request was due, of open loads: a queue that grows is a slope."""
    served = [(g, r, n) for g, r, n in named if shape(r) == "server" and measured(r)]
    clouds, notes = [], ""
    for group, result, name in served:
        begin_s = {w.id: w.start_s for w in result.windows}
        samples, note = _thinned(sorted(measured(result), key=lambda s: s.sent_s))
        notes += note
        pairs = sorted((s.sent_s - begin_s.get(str(s.span), s.sent_s), ttft_s(s)) for s in samples)
        xs, ys = (tuple(values) for values in zip(*pairs, strict=True))
        clouds.append(svg.Points(name=name, group=group, xs=xs, ys=ys))
    if not clouds:
        return None
    title, limit = "Time to first token as the load goes on", _slo_limit(served, "ttft_s", "TTFT")
    drawn = svg.plot(clouds, title, "s from the start of the load to when it was due", "s, every answered request",
                     limit=limit)  # fmt: skip
    note = (
        "A dot is one request, counted from when it was due. A level band is an engine that keeps up; a slope is a "
        "queue that grows. Requests that were never answered have no dot."
    )
    return Chart(title=title, svg=drawn, note=note + notes, legend=_legend(served))


def _slo_limit(named: _Named, key: str, word: str, factor: float = 1.0) -> tuple[float, str] | None:
    """Return the limit that all of them were to meet, and its name; None if there is none, or if they differ."""
    levels = [r.scenario.spec.get("slo") for _, r, _ in named]
    found = [level.get(key) if isinstance(level, dict) else None for level in levels]
    limit = found[0] if found and all(one == found[0] for one in found) else None
    if not isinstance(limit, int | float):
        return None
    return limit * factor, f"limit of {word}: {fmt.si(limit, 's')}"


def _within(named: _Named) -> Iterator[Chart]:
    """Yield the share of requests within a latency, for loads in which requests meet: TTFT, and TPOT with a limit."""
    served = [(g, r, n) for g, r, n in named if shape(r) in ("server", "multi-stream") and measured(r)]
    for word, key, of in (("TTFT", "ttft_s", ttft_s), ("TPOT", "tpot_s", tpot_s)):
        limit = _slo_limit(served, key, word, _MILLI)
        chart = _distribution(served, word, of, limit) if served and (limit or key == "ttft_s") else None
        if chart:
            yield chart


def _distribution(
    named: _Named, word: str, of: Callable[[Sample], float | None], limit: tuple[float, str] | None
) -> Chart | None:
    series, groups = [], []
    for group, result, name in named:
        values = sorted(_MILLI * v for v in map(of, measured(result)) if v is not None)
        offered = sum(s.offered for s in _measured_spans(result)) or len(values)
        step = max(1, len(values) // _MOST_DOTS)
        kept = [*range(0, len(values), step), *([len(values) - 1] if values else [])]
        if values:
            ys = tuple(_PER_CENT * (i + 1) / offered for i in kept)
            series.append(svg.Series(name=name, xs=tuple(values[i] for i in kept), ys=ys))
            groups.append(group)
    if not series:
        return None
    title = f"{'Time to first token' if word == 'TTFT' else 'Time per output token'}: how many are within"
    drawn = svg.lines(series, groups, title, f"{word}, ms", "% of the offered requests", limit, y_least=_PER_CENT)
    note = "The line says which share of all offered requests was at most that slow" + (
        "; left of the dashed one they met the limit." if limit else "."
    )
    return Chart(title=title, svg=drawn, note=note, legend=_legend(named))


def _measured_spans(result: RunResult) -> list[Span]:
    return [s for s in result.spans if s.phase == "measured"]


def _speed_over_time(named: _Named) -> Chart | None:
    """Draw the decode rate of each request over the time since its process' first, of long loads of one client."""
    long = [
        (g, r, n)
        for g, r, n in named
        if shape(r) == "single-stream" and r.scenario.spec.get("duration_s") and measured(r)
    ]
    clouds, notes = [], ""
    for group, result, name in long:
        samples, note = _thinned(measured(result))
        notes += note
        begin_s: dict[int, float] = {}
        for sample in samples:
            begin_s.setdefault(sample.process, sample.start_s)
        pairs = [(s.start_s - begin_s[s.process], 1 / t) for s in samples if (t := tpot_s(s))]
        if pairs:
            xs, ys = (tuple(values) for values in zip(*sorted(pairs), strict=True))
            clouds.append(svg.Points(name=name, group=group, xs=xs, ys=ys))
    if not clouds:
        return None
    title = "Decode speed as the load goes on"
    drawn = svg.plot(clouds, title, "s since the first request", "tokens/s, every measured request")
    note = f"A dot is one request; a fall is a machine that does not hold its speed.{notes}"
    return Chart(title=title, svg=drawn, note=note, legend=_legend(long))


def _gaps(sample: Sample) -> list[float]:
    times = sample.token_times_s or ()
    return [b - a for a, b in itertools.pairwise(times)]


def _by_process(result: RunResult) -> dict[int, list[Sample]]:
    found: dict[int, list[Sample]] = {}
    for sample in measured(result):
        found.setdefault(sample.process, []).append(sample)
    return found


def _gap_distribution(named: _Named) -> Chart | None:
    """Share of gaps up to a length, one line a process; the longest hundredth is left out of the picture."""
    series, groups = [], []
    for group, result, name in named:
        for process, samples in _by_process(result).items():
            gaps = sorted(g for s in samples for g in _gaps(s))
            if not gaps:
                continue
            at = [round((len(gaps) - 1) * percent / _PER_CENT) for percent in range(_PER_CENT)]
            xs, ys = tuple(_MILLI * gaps[i] for i in at), tuple(float(percent) for percent in range(_PER_CENT))
            series.append(svg.Series(name=f"{name}, process {process}", xs=xs, ys=ys))
            groups.append(group)
    if not series:
        return None
    title = "Gap between tokens"
    note = (
        "A line is one fresh process: steep is steady, a tail to the right is tokens that came late (99 % are shown)."
    )
    drawn = svg.lines(series, groups, title, "gap, ms", "% of gaps at most this long")
    return Chart(title=title, svg=drawn, note=note, legend=_legend(named))


def _rate_over_tokens(named: _Named) -> Chart | None:
    """Median decode rate at each position, one line a process."""
    series, groups = [], []
    for group, result, name in named:
        for process, samples in _by_process(result).items():
            gaps = [_gaps(s) for s in samples]
            length = min((len(g) for g in gaps), default=0)
            if not length:
                continue
            middle = [sorted(g[i] for g in gaps)[len(gaps) // 2] for i in range(length)]
            rates = tuple(1 / g if g > _LEAST_GAP_S else 0.0 for g in middle)
            xs = tuple(float(i + 2) for i in range(length))
            series.append(svg.Series(name=f"{name}, process {process}", xs=xs, ys=rates))
            groups.append(group)
    if not series:
        return None
    title = "Tokens per second while decoding"
    drawn = svg.lines(series, groups, title, "position of the token in the answer", "tokens/s of one request")
    note = "A line is one fresh process; lines far apart are the machine's noise."
    return Chart(title=title, svg=drawn, note=note, legend=_legend(named))


def _memory(named: _Named) -> Chart | None:
    items = []
    for group, result, name in named:
        phases = {m.phase for m in result.memory}
        for phase in _PHASES if "prefill" in phases else _PHASES_TOGETHER:
            peaks = [m.rss_peak_bytes for m in result.memory if m.phase == phase and m.rss_peak_bytes is not None]
            if peaks:
                low, high = min(peaks) / _MEBI, max(peaks) / _MEBI
                middle = sorted(peaks)[len(peaks) // 2] / _MEBI
                label = f"{name}, {phase}"
                items.append(svg.Bar(name=label, group=group, value=middle, inner=(low, high), outer=(low, high)))
    if not items:
        return None
    title = "Peak resident memory by phase"
    note = "The kernel's own high-water mark of the engine's process: median, lowest and highest process." + _narrow(
        svg.hidden_bars(items), len(items), "row", "span"
    )
    return Chart(title=title, svg=svg.bars(items, title, "MiB"), note=note)


def _energy(named: _Named) -> Chart | None:
    items = []
    for group, result, name in named:
        value = result.metrics.get("energy_j_per_output_token")
        if isinstance(value, Energy):
            outer = (value.low or 0.0, value.high or value.value)
            items.append(svg.Bar(
                name=name, group=group, value=value.value, inner=value.random, outer=outer,
                limits=_limits(result, value),
            ))  # fmt: skip
    if not items:
        return None
    title = "Energy per output token"
    note = (
        "Thick: what more repeats would narrow. Thin: all uncertainty, the sensor's tolerance or the model's "
        "coefficients included. On one machine these are common to all rows, so ratios are surer than values. "
        "Ticks: what moving the bytes alone must cost, and the most that the machine could draw, where known."
        + _narrow(svg.hidden_bars(items), len(items), "row", "thick bar")
    )
    return Chart(title=title, svg=svg.bars(items, title, "J per output token"), note=note)


def _narrow(hidden: int, count: int, where: str, what: str) -> str:
    """Say that a bar cannot be seen where it is narrower than what marks the value."""
    if not hidden:
        return ""
    which = f"each {where}" if hidden == count else f"{hidden} of {count} {where}s"
    places = f"{'At' if where == 'point' else 'In'} {which}"
    return f" {places} the {what} is narrower than the mark of the value, which hides it."


def _limits(result: RunResult, per_token: Energy) -> tuple[float, ...]:
    """Return floor and ceiling per output token: those of all requests, scaled as the headline is."""
    headline, report = result.energy.headline, result.energy
    if headline is None or not headline.value:
        return ()
    scale = per_token.value / headline.value
    return tuple(limit * scale for limit in (report.floor_j, report.ceiling_j) if limit is not None)


def sweep_charts(swept: sweep.Swept) -> list[Chart]:
    """Return one picture for each number of a sweep that is a curve over the swept key."""
    return [c for column in sweep.columns(swept) if column.drawn and (c := _sweep_chart(swept, column)) is not None]


def _sweep_chart(swept: sweep.Swept, column: sweep.Column) -> Chart | None:
    curves, unit = [], ""
    for group, curve in enumerate(swept.curves):
        there = [
            (p.value, m) for p in curve.points if not isinstance(m := sweep.metric(p.result, column.name), Missing)
        ]
        if there:
            unit, factor = _unit_of(there[0][1])
            curves.append(_points(group, curve.name, there, factor))
    if not curves:
        return None
    values = sorted({x for c in curves for x in c.xs})
    doublings = values[0] > 0 and values[-1] / values[0] >= _SPANS_THREE_DOUBLINGS
    head, title = sweep.head(swept), f"{column.head} against {sweep.head(swept).lower()}"
    head = f"{head}, on a scale of doublings" if doublings else head
    count = sum(len(c.xs) for c in curves)
    known = [sweep.metric(r, column.name) for r in swept.results]
    bare = sum(not isinstance(m, Missing) and (m.low is None or m.high is None) for m in known)
    kinds = dict.fromkeys(fmt.kind(m) for m in known if isinstance(m, Energy))
    note = (
        "Bars are 95 % intervals over fresh processes"
        + ("; thin ones hold all uncertainty, which is common to all points of one machine, thick ones what more "
           "repeats would narrow." if kinds else ".")
        + _narrow(svg.hidden_intervals(curves) - bare, count, "point", "bar")
        + (f" {bare} of {count} points have no interval." if bare else "")
        + (f" Joules: {'; '.join(kinds)}." if kinds else "")
        + " Lines only guide the eye: nothing was measured between the points."
    )  # fmt: skip
    legend = tuple((c.group % svg.COLOURS, c.name) for c in curves) if len(curves) > 1 else ()
    return Chart(title=title, svg=svg.plot(curves, title, head, unit, log2=doublings), note=note, legend=legend)


def _unit_of(value: Metric) -> tuple[str, float]:
    """Return the unit of an axis, and what a number is to be multiplied by to be in it."""
    if isinstance(value, Energy):
        return "J/token", 1.0
    unit = value.unit if isinstance(value, Quantity) else ""
    return _UNITS.get(unit, (unit, 1.0))


def _points(group: int, name: str, there: Sequence[tuple[float, Metric]], factor: float) -> svg.Points:
    known = [(x, m) for x, m in there if isinstance(m, Quantity | Energy)]
    outer = tuple(
        (factor * (m.value if m.low is None else m.low), factor * (m.value if m.high is None else m.high))
        for _, m in known
    )
    return svg.Points(
        name=name, group=group, xs=tuple(x for x, _ in known), ys=tuple(factor * m.value for _, m in known),
        outer=outer, inner=tuple(m.random for _, m in known if isinstance(m, Energy)), joined=True,
    )  # fmt: skip
