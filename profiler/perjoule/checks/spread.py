"""Whether the numbers are sure enough, steady enough, and of an undisturbed machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.noise import checks as noise_checks
from perjoule.records import Check, Quantity
from perjoule.scenario import from_facts
from perjoule.stats.selection import select
from perjoule.stats.steering import STEERING, half_widths, steering_values, too_much, tpot_s, ttft_s
from perjoule.stats.trend import leftover_ramp, trend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perjoule.records import RunResult

_SLOWER = 0.95  # of the first fifth's rate: beyond what neighbouring requests differ by


def _no_requests(result: RunResult) -> Iterator[Check]:
    if from_facts(result.scenario).shape != "idle" and not any(s.phase == "measured" for s in result.samples):
        yield Check(
            code="no_requests",
            severity="invalid",
            message="no request was measured",
            hint="run again and let it finish",
        )


def _few_processes(result: RunResult) -> Iterator[Check]:
    least, there = from_facts(result.scenario).min_processes, len(result.processes)
    if there < least:
        yield Check(
            code="few_processes",
            severity="invalid",
            message=f"{there} fresh processes were measured; the scenario asks for at least {least}",
            hint="run again and let it finish",
            data={"processes": there, "min_processes": least},
        )


def _target_missed(result: RunResult) -> Iterator[Check]:
    scenario = from_facts(result.scenario)
    if too_much(result.spans):
        return  # more time would only say again that it was
    widths = half_widths(steering_values(result.samples, result.windows, result.processes, scenario, result.spans))
    wide = {n: round(w, 4) for n, w in widths.items() if w > scenario.target_half_width}
    if wide:
        name, width = max(wide.items(), key=lambda item: item[1])
        yield Check(
            code="target_missed",
            severity="warning",
            message=f"{STEERING[name]} is known to +-{width:.1%} only; the target is {scenario.target_half_width:.0%}",
            hint="give more time with --time-budget, or quieten the machine",
            data=wide,
        )


def _not_steady(result: RunResult) -> Iterator[Check]:
    restless = [p.process for p in result.processes if not p.steady]
    if restless:
        yield Check(
            code="not_steady",
            severity="warning",
            message=f"{len(restless)} of {len(result.processes)} processes had not settled when warm-up ended",
            hint="raise --set max_warmup_requests=N, or quieten the machine",
            data={"processes": restless},
        )


def _noisy_host(result: RunResult) -> Iterator[Check]:
    selection = select(result.samples, result.windows, from_facts(result.scenario))
    reasons = sorted({w.rejected for w in result.windows if w.rejected})
    data = {"rejected": selection.rejected, "measured": selection.measured, "example": reasons[:1]}
    if selection.kept_rejected:
        yield Check(
            code="noisy_host",
            severity="invalid",
            message=f"{selection.rejected} of {selection.measured} requests were disturbed and too few clean ones "
            f"remain, so all are used; for example {reasons[0]}{noise_checks.others_found(result)}",
            hint="stop other work on this machine and run again",
            data=data,
        )
    elif selection.rejected:
        yield Check(
            code="requests_rejected",
            severity="note",
            message=f"{selection.rejected} of {selection.measured} requests were disturbed and left out; "
            f"for example {reasons[0]}{noise_checks.others_found(result)}",
            hint="stop other work on this machine for more requests that count",
            data=data,
        )


def _noisy_blocks(result: RunResult) -> Iterator[Check]:
    windows = {w.id: w for w in result.windows}
    reasons = [windows[b.window].rejected for b in result.blocks if b.window in windows]
    disturbed = [r for r in reasons if r is not None]
    if disturbed and len(reasons) - len(disturbed) < len({s.process for s in result.samples}):
        yield Check(
            code="noisy_blocks",
            severity="invalid",
            message=f"{len(disturbed)} of {len(reasons)} blocks of prefills were disturbed and too few clean ones "
            f"remain, so all are used; for example {disturbed[0]}",
            hint="stop other work on this machine and run again",
            data={"disturbed": len(disturbed), "blocks": len(reasons)},
        )


def _slowed_down(result: RunResult) -> Iterator[Check]:
    ratio = result.metrics.get("last_fifth_decode_ratio")
    if isinstance(ratio, Quantity) and ratio.value < _SLOWER:
        yield Check(
            code="slowed_down",
            severity="warning",
            message=f"the last fifth of the load was decoded at {ratio.value:.0%} of the rate of the first",
            hint="the machine may be throttled or shared: see the windows, and cool it or stop other work",
            data={"ratio": round(ratio.value, 4)},
        )


def _resumed(result: RunResult) -> Iterator[Check]:
    if result.settings.resumed_at_s:
        yield Check(
            code="resumed",
            severity="note",
            message=f"the run ended early and was taken up again {len(result.settings.resumed_at_s)} time(s)",
            hint="processes before and after were not interleaved as planned: compare them with care",
            data={"resumed_at_s": [round(t, 1) for t in result.settings.resumed_at_s]},
        )


def _drifted(result: RunResult) -> Iterator[Check]:
    """Look for a trend over processes, in the order in which they were run: the level moved, and the mean with it."""
    values = steering_values(
        result.samples, result.windows, result.processes, from_facts(result.scenario), result.spans
    )
    found = {name: t for name, v in values.items() if (t := trend(v)) is not None and t.drifts}
    if found:
        name, worst = max(found.items(), key=lambda item: abs(item[1].change))
        yield Check(
            code="drifted",
            severity="warning",
            message=f"{STEERING[name]} changed by {worst.change:+.1%} from the first process to the last",
            hint="the machine did not stay the same: see throttling and other load, and run again",
            data={n: {"change": round(t.change, 4), "p": round(t.p, 5)} for n, t in found.items()},
        )


def _still_warming_up(result: RunResult) -> Iterator[Check]:
    """Look for a fall from each process' first measured request to its last: no interval knows of that bias."""
    groups = select(result.samples, result.windows, from_facts(result.scenario)).by_process
    for name, of in (("ttft_s", ttft_s), ("tpot_s", tpot_s)):
        found = leftover_ramp([[v for s in group if (v := of(s)) is not None] for group in groups])
        if found is not None and found.warming_up:
            yield Check(
                code="still_warming_up",
                severity="warning",
                message=f"{STEERING[name]} still fell by {found.fall:.1%} from the first measured request to the last",
                hint="raise --set max_warmup_requests=N",
                data={"metric": name, "fall": round(found.fall, 4), "p": round(found.p, 6)},
            )
            return


RULES: tuple[Callable[[RunResult], Iterator[Check]], ...] = (
    _no_requests,
    _few_processes,
    _target_missed,
    _not_steady,
    _noisy_host,
    _noisy_blocks,
    _slowed_down,
    _resumed,
    _drifted,
    _still_warming_up,
)
