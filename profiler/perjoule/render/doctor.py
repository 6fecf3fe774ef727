"""What `perjoule doctor` shows: what was found, and last whether joules can be measured and what to type.

The answer stands at the end, because that is what a terminal shows of a text that is longer than it.
"""

from __future__ import annotations

import shlex
import textwrap
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from perjoule.examine import QUIET_WAITING_SHARE
from perjoule.noise import MAX_FOREIGN_SHARE, MAX_STEAL_SHARE
from perjoule.render import format as fmt
from perjoule.render.plain import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import RenderableType

    from perjoule.examine import Examination, Sensor
    from perjoule.noise import Noise
    from perjoule.noise_floor import NoiseFloor
    from perjoule.own_cost import HarnessCost, ReadCost
    from perjoule.records import Peak

ACCENT = "bold cyan"
_INDENT = 2
_GOES_ON = 4  # how perjoule.meters.explain indents the rest of a long line
_INSIDE = "inside "  # how perjoule.meters.compose says that a domain is part of another
_MODELS = {"counter-modelled": "by what was calibrated here", "utilisation-modelled": "from CPU time"}
_ANSWERS = {"yes": "YES", "in part": "IN PART", "no": "NO"}


def report(found: Examination, *, width: int, explained: bool = False) -> RenderableType:
    """Return the report, laid out for ``width`` columns; ``explained`` adds the derivation of the energy model."""
    parts: list[RenderableType] = [_machine(found)]
    sections: list[tuple[str, Iterable[RenderableType]]] = [
        ("Sensors", _sensors(found)),
        ("Refused, and what would allow it", _refusals(found)),
        ("Idle power now", _idle(found)),
        (f"Roofline, {found.threads_default} threads", _roofline(found)),
        ("Noise, one second in which perjoule slept", _noise(found)),
        ("Noise floor, the same work in fresh processes", _noise_floor(found)),
        ("What measuring costs", _costs(found)),
        ("Engines", _engines(found)),
    ]
    if explained:
        sections.append(("How joules are modelled without a sensor", _explained(found.model_explained, width)))
    for title, body in sections:
        lines = list(body)
        if lines:
            parts += [Text(), Text(title, style=ACCENT), *(Padding(line, (0, 0, 0, _INDENT)) for line in lines)]
    hint = "" if explained or found.answer.label == "measured" else "--explain derives the modelled watts; "
    parts += [Text(), _text(f"{hint}--json - prints all of this and more", "dim")]
    parts += [Text(), *_answer(found)]
    return Group(*parts)


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)


def _rows(rows: Iterable[Sequence[str | Text]], *, right: Sequence[int] = ()) -> Table:
    """Return aligned text; the last column wraps."""
    table = Table.grid(padding=(0, 2))
    for index, cells in enumerate(rows):
        if not index:
            for number in range(len(cells)):
                last = number == len(cells) - 1
                table.add_column(justify="right" if number in right else "left", no_wrap=not last)
        table.add_row(*(cell if isinstance(cell, Text) else _text(cell) for cell in cells))
    return table


def _machine(found: Examination) -> Text:
    cpu, machine = found.host.cpu, found.host
    ids = "" if cpu.family is None else f" (family {cpu.family}, model {cpu.model})"
    where = f"virtual machine, {machine.virtualization}" if machine.virtualization else "bare metal"
    used = f"{cpu.threads} threads, {found.threads_default} used"
    return _text(f"{cpu.name}{ids} \u00b7 {where} \u00b7 {used}", "dim")


def _answer(found: Examination) -> Iterator[RenderableType]:
    answer = found.answer
    line = Text.assemble(("Can this machine measure joules?  ", "bold"), (_ANSWERS[answer.measured], ACCENT))
    yield line
    for said in _said(found):
        yield Padding(_text(said), (0, 0, 0, _INDENT))
    if any(s.fact.simulated for s in found.sensors) or found.host.simulated:
        yield Padding(_text("SIMULATED: the tree is made up; nothing from it can be published", "bold"), (0, 0, 0, 2))
    if answer.measured != "yes" and answer.to_allow:
        yield Text("To measure" if len(answer.to_allow) == 1 else "To measure, one of", style="bold")
        yield Padding(Group(*(_text(fix, ACCENT) for fix in answer.to_allow)), (0, 0, 0, _INDENT))
    yield Text("What to type" if not answer.to_allow or answer.measured == "yes" else "Or as it is", style="bold")
    rows = [(Text(command, style=ACCENT), _text(what)) for command, what in _commands(found)]
    yield Padding(_rows(rows), (0, 0, 0, _INDENT))


def _said(found: Examination) -> Iterator[str]:
    answer, why_not = found.answer, found.answer.why_not
    if why_not is None:
        yield f"perjoule run measures the joules of {answer.scope}."
        return
    yield f"{why_not[0].upper()}{why_not[1:]}."
    if answer.label == "none":
        yield f"perjoule run gives time and memory, but no joules: {answer.scope_missing}."
        return
    yield f"perjoule run models joules {_MODELS.get(answer.label, '')} ({answer.scope})."
    if answer.label == "utilisation-modelled" and found.model_power is not None:
        yield f"{found.threads_default} busy threads are {fmt.energy_short(found.model_power)}, DRAM not counted."


def _commands(found: Examination) -> Iterator[tuple[str, str]]:
    meters = "".join(f" --meter {shlex.quote(name)}" for name in found.meters_named)
    answer = found.answer
    what = {"measured": "measured joules", "none": "time and memory"}.get(answer.label, "modelled joules")
    tdp = " --tdp WATTS" if answer.label == "none" and "--tdp" in str(answer.scope_missing) else ""
    yield printable(f"perjoule run{meters}{tdp}"), "modelled joules" if tdp else what
    if answer.measured != "yes" and found.host.virtualization is None and not meters:
        yield "perjoule run --meter shelly:http://HOST", "measured, by a plug at the wall"


def _sensors(found: Examination) -> Iterator[RenderableType]:
    if not found.sensors:
        yield _text("none")
        return
    titles = ("domain", "sensor", "update", "step", "error", "window", "in total")
    head = [Text(title, style="dim") for title in titles]
    yield _rows([head, *(_sensor(sensor) for sensor in found.sensors)], right=(2, 3, 4, 5))
    for sensor in found.sensors:
        note = sensor.fact.note
        if sensor.not_in_total and not sensor.not_in_total.startswith(_INSIDE):
            note = sensor.not_in_total
        if note:
            yield _text(f"{sensor.fact.domain}: {note}", "dim")
    if any(s.fact.only_simulated for s in found.sensors):
        yield _text("perjoule's readers of these sensors have not met real hardware yet", "dim")


def _sensor(sensor: Sensor) -> tuple[str, ...]:
    fact = sensor.fact
    step = "?"
    if sensor.resolution_j is not None:
        step = _short(sensor.resolution_j, "J")
    elif sensor.resolution_w is not None:
        step = _short(sensor.resolution_w, "W")
    tick = "?" if fact.tick_s is None else _short(fact.tick_s, "s", digits=2)
    width = f"\u00b1{100 * sensor.tolerance:.2g} %"
    return fact.domain, fact.grade, tick, step, width, _short(fact.min_window_s, "s"), _in_total(sensor)


def _in_total(sensor: Sensor) -> str:
    why_not = sensor.not_in_total or "yes"
    return why_not if why_not == "yes" or why_not.startswith(_INSIDE) else "no"


def _short(value: float, unit: str, digits: int = fmt.MEASURED_DIGITS) -> str:
    """Return a number with its prefix and without zeros that say nothing: 1 ms, 15.3 \u00b5J."""
    number, _, scaled = fmt.si(value, unit, digits).partition(" ")
    return f"{float(number.replace(',', '')):g} {scaled}"


def _refusals(found: Examination) -> Iterator[RenderableType]:
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for refusal in found.refused:
        about = f"{refusal.domain or refusal.meter}: "
        key = (refusal.meter, refusal.reason.removeprefix(about), refusal.fix)
        grouped.setdefault(key, []).append(refusal.domain or "")
    rows: list[tuple[Text, Text]] = []
    for (meter, reason, fix), domains in grouped.items():
        named = ", ".join(name for name in domains if name and name != meter)
        why = _text(f"{named}: {reason}" if named else reason)
        rows.append((_text(meter, "bold"), why.append_text(_text(f"\n{fix}", "dim"))))
    if rows:
        yield _rows(rows)


def _idle(found: Examination) -> Iterator[RenderableType]:
    if found.idle_power is not None:
        yield _rows((domain, fmt.energy(watts)) for domain, watts in found.idle_power.items())
    elif found.sensors:
        yield _text(f"not read: {found.idle_power_missing}")


def _roofline(found: Examination) -> Iterator[RenderableType]:
    peaks = found.peaks
    if peaks is None:
        yield _text(f"not measured: {found.peaks_missing}")
        return
    yield _rows([
        ("memory, read once", *_peak(peaks.bandwidth, "B/s", str(peaks.bandwidth_missing))),
        ("int8", *_peak(peaks.int8, "op/s", str(peaks.int8_missing))),
        ("fp32", *_peak(peaks.fp32, "op/s", str(peaks.fp32_missing))),
        ("bf16", *_peak(peaks.bf16, "op/s", str(peaks.bf16_missing))),
    ], right=(1,))  # fmt: skip
    if peaks.disturbed:
        yield _text(f"too low to be used: {peaks.disturbed}", "bold")


def _peak(peak: Peak | None, unit: str, missing: str) -> tuple[str, str]:
    if peak is None:
        return "none", missing
    return fmt.si(peak.best, unit), f"best of {peak.repeats}, spread {_percent(peak.spread_share)}; {peak.way}"


def _noise_floor(found: Examination) -> Iterator[RenderableType]:
    floor = found.noise_floor
    if floor is None:
        yield _text(f"not measured: {found.noise_floor_missing}")
        return
    yield _text(f"{_percent(floor.half_width_share)}: {_cannot(floor)}")
    yield _text(f"{len(floor.round_s)} processes differ by {_percent(floor.spread_share)} (standard deviation)", "dim")


def _cannot(floor: NoiseFloor) -> str:
    return f"a difference below it cannot be told apart in a quick run ({floor.processes_compared} processes each)"


def _noise(found: Examination) -> Iterator[RenderableType]:
    noise = found.noise
    if noise is None:
        yield _text(f"not heard: {found.noise_missing}")
        return
    rows = [
        _against("other processes", noise.foreign_cpu_share, MAX_FOREIGN_SHARE),
        _against("stolen by the hypervisor", noise.steal_share, MAX_STEAL_SHARE),
    ]
    if noise.waiting_share is not None and noise.waiting_minute_share is not None:
        rows.append((_text("waiting for a CPU"), _text(_percent(noise.waiting_share)), _minute(found, noise)))
    yield _rows(rows, right=(1,))
    if noise.waiting_share is None:
        yield _text(f"waiting for a CPU is not known: {noise.waiting_share_missing}", "dim")


def _minute(found: Examination, noise: Noise) -> Text:
    """Judge the last minute: in a single second a task that waits is as likely perjoule's own."""
    share = f"of the time; {_percent(noise.waiting_minute_share or 0.0)} in the last minute: "
    busy = found.waiting_verdict == "busy"
    verdict = (found.waiting_verdict or "", "bold" if busy else "")
    return Text.assemble(_text(share), verdict, f" (quiet is up to {100 * QUIET_WAITING_SHARE:g} %)")


def _against(what: str, share: float, limit: float) -> tuple[Text, Text, Text]:
    verdict = _text(f"of all cores; {100 * limit:g} % is allowed")
    if share > limit:
        verdict.append(": a run now would be disturbed", style="bold")
    return _text(what), _text(_percent(share)), verdict


def _percent(share: float) -> str:
    return f"{fmt.significant(100 * share, 2)} %"


def _costs(found: Examination) -> Iterator[RenderableType]:
    rows = list(_harness(found.harness)) if found.harness is not None else []
    rows += list(_reading(found.reading)) if found.reading is not None else []
    if rows:
        yield _rows(rows, right=(1,))
    if found.harness is None:
        yield _text(f"not tried: {found.harness_missing}")


def _harness(cost: HarnessCost) -> Iterator[tuple[str, str, str]]:
    pace = f"at {_short(cost.pace_s, 's')} a token"
    yield "harness", fmt.si(cost.token_cpu_s, "s"), f"of CPU a token: {_percent(cost.harness_share)} of a core {pace}"
    floor_s = cost.floor_share * cost.pace_s
    yield (
        "bare sleep loop",
        fmt.si(floor_s, "s"),
        f"of CPU: {_percent(cost.floor_share)} of a core, for waking up alone",
    )


def _reading(cost: ReadCost) -> Iterator[tuple[str, str, str]]:
    what = f"to read once; the null meter {fmt.si(cost.null_read_s, 's')}"
    yield f"{cost.domains} {'domain' if cost.domains == 1 else 'domains'}", fmt.si(cost.read_s, "s"), what
    if cost.watching_share is not None:
        yield "meters at rest", _percent(cost.watching_share), "of a core"


def _engines(found: Examination) -> Iterator[RenderableType]:
    yield _rows((b.name, "available" if b.available else f"missing: {b.install}") for b in found.backends)


def _explained(lines: Sequence[str], width: int) -> Iterator[RenderableType]:
    """Yield the derivation, wrapped anew: a line that goes on is indented by ``_GOES_ON`` more than its beginning."""
    whole: list[str] = []
    for line in lines:
        if whole and _indent(line) >= _indent(whole[-1]) + _GOES_ON:
            whole[-1] += f" {line.strip()}"
        else:
            whole.append(line)
    for line in whole:
        deeper = " " * (_indent(line) + _GOES_ON)
        for part in textwrap.wrap(line, max(20, width - _INDENT), subsequent_indent=deeper, break_on_hyphens=False):
            yield _text(part)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
