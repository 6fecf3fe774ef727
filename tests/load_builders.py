"""Results of every load shape for tests: raw parts made by hand, numbers derived from them by the program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from builders import make_model, make_process, make_raw, make_sample

from perjoule.assemble import assemble
from perjoule.protocols import EngineOptions
from perjoule.records import RunResult, Sample, Span, Window
from perjoule.scenario import Scenario, load_scenario, sweep_points, with_overrides

if TYPE_CHECKING:
    from perjoule.measure import ProcessRun

PROCESSES = 5
SATURATED = (
    "saturated: 4 requests/s are offered, about 1.05 are answered; 48 wait after 16 s, so the load was ended early"
)


def served(process: int, index: int, *, sent_s: float, wait_s: float, span: str, **of_sample: Any) -> Sample:
    """Return a request that was due at ``sent_s`` and begun ``wait_s`` later."""
    sample = make_sample(process, index, start_s=sent_s + wait_s, **of_sample)
    # kept None for `scheduled_s_missing`: a time that is there has no reason why it is missing
    return msgspec.structs.replace(sample, scheduled_s=sent_s, scheduled_s_missing=msgspec.UNSET, span=span)


def serving(
    process: int, waits_s: list[float], *, every_s: float, offered: int | None = None, verdict: str = "",
    rate_per_s: float | None = None, planned_s: float | None = 60.0, **of_sample: Any,
) -> ProcessRun:  # fmt: skip
    """Return one process that served ``waits_s`` requests, one sent each ``every_s``, in one window."""
    bare = make_process(process, requests=0)
    begin_s, slow = 1000.0 * process + 100, 1 + 0.01 * process
    name = f"{process}.s0/serve"
    samples = tuple(
        served(process, i + 2, sent_s=begin_s + every_s * i, wait_s=w * slow, span=name,
               ttft_s=0.3 * slow, itl_s=0.02 * slow, **of_sample)
        for i, w in enumerate(waits_s)
    )  # fmt: skip
    end_s = max(s.end_s for s in samples)
    window = Window(
        id=name, process=process, phase="serve", start_s=begin_s, end_s=end_s, cpu_s=1.8 * (end_s - begin_s),
        steal_s=0.0, foreign_cpu_s=0.0, bytes_streamed=315_000_000 * 64 * len(samples),
    )  # fmt: skip
    span = Span(
        process=process, window=name, phase="measured", planned_s=planned_s,
        planned_s_missing=msgspec.UNSET if planned_s else "it ends with its last request",
        rate_per_s=rate_per_s, rate_per_s_missing=msgspec.UNSET if rate_per_s else "no request is scheduled",
        offered=offered or len(samples), finished=len(samples), saturated=bool(verdict),
        verdict=verdict or f"all {len(samples)} requests were answered",
        longest_wait_s=max(waits_s) if not verdict else 15.7,
    )  # fmt: skip
    return msgspec.structs.replace(
        bare, samples=(*bare.samples, *samples), windows=(*bare.windows, window), spans=(span,)
    )


def make_server(*, saturated: bool = False, **changes: Any) -> RunResult:
    """Return five processes under an open load of 1 request/s; saturated: 4/s, with a queue that grows."""
    scenario = with_overrides(load_scenario("server"), changes)
    if saturated:
        scenario = with_overrides(scenario, {"rate_per_s": 4})
    runs = tuple(
        serving(p, [0.7 * i for i in range(16)], every_s=0.25, offered=64, verdict=SATURATED, rate_per_s=4.0)
        if saturated
        else serving(p, [0.05 + (1.9 if i % 20 == 7 else 0.3 * (i % 3)) for i in range(60)], every_s=1.0,
                     rate_per_s=scenario.rate_per_s)
        for p in range(PROCESSES)
    )  # fmt: skip
    return assemble(make_raw(scenario=scenario, runs=runs, options=_options(batch=scenario.batch)))


def make_offline(*, batch: int = 8, speed: float = 1.0, **changes: Any) -> RunResult:
    """Return five processes that were given 16 requests at once."""
    scenario = with_overrides(load_scenario("offline"), {"batch": batch, **changes})
    runs = tuple(
        serving(p, [i / speed for i in range(16)], every_s=0.0, planned_s=None) for p in range(PROCESSES)
    )  # fmt: skip
    return assemble(make_raw(scenario=scenario, runs=runs, options=_options(batch=batch)))


def make_multi_stream() -> RunResult:
    scenario = load_scenario("multi-stream")
    runs = tuple(serving(p, [0.01 * (i % 4) for i in range(12)], every_s=0.5, planned_s=None) for p in range(PROCESSES))
    return assemble(make_raw(scenario=scenario, runs=runs, options=_options(batch=scenario.batch)))


def make_cold_start(*, read_bytes: int | None = 397_805_216) -> RunResult:
    """Return five processes that were asked once each, right after loading from the disk."""
    scenario = load_scenario("cold-start")
    runs = []
    for process in range(PROCESSES):
        run = make_process(process, requests=1)
        only = tuple(s for s in run.samples if s.phase == "measured")
        record = msgspec.structs.replace(
            run.record, load_read_bytes=read_bytes, warmup_requests=0,
            load_read_bytes_missing=msgspec.UNSET if read_bytes is not None else "/proc/self/io: Permission denied",
        )  # fmt: skip
        kept = {f"{s.window}/{phase}" for s in only for phase in ("prefill", "decode")}
        runs.append(msgspec.structs.replace(
            run, record=record, samples=only, windows=tuple(w for w in run.windows if w.id in kept)
        ))  # fmt: skip
    return assemble(make_raw(scenario=scenario, runs=tuple(runs)))


def make_sustained(*, last: float = 1.2) -> RunResult:
    """Return one process that gets slower all the time, in the end by a factor of ``last``."""
    scenario = load_scenario("sustained")
    run = make_process(0, requests=40)
    slowed = []
    for sample in run.samples:
        factor = 1 + (last - 1) * sample.index / 41
        slowed.append(make_sample(
            0, sample.index, start_s=sample.start_s, itl_s=0.02 * factor, phase=sample.phase
        ))  # fmt: skip
    return assemble(make_raw(scenario=scenario, runs=(msgspec.structs.replace(run, samples=tuple(slowed)),)))


def make_idle() -> RunResult:
    """Return five processes that waited for ten seconds each."""
    runs = []
    for process in range(PROCESSES):
        run = make_process(process, requests=0)
        start_s, name = 100.0 * process + 20, f"{process}.s0/serve"
        window = Window(
            id=name, process=process, phase="serve", start_s=start_s, end_s=start_s + 10, cpu_s=0.03 + 0.001 * process,
            steal_s=0.0, foreign_cpu_s=0.0, bytes_streamed=0,
        )  # fmt: skip
        span = Span(
            process=process, window=name, phase="measured", planned_s=10.0, rate_per_s=None,
            rate_per_s_missing="no request is scheduled", offered=0, finished=0, saturated=False,
            verdict="all 0 requests were answered", longest_wait_s=0.0,
        )  # fmt: skip
        runs.append(msgspec.structs.replace(run, windows=(*run.windows, window), spans=(span,)))
    return assemble(make_raw(scenario=load_scenario("idle"), runs=tuple(runs)))


def make_sweep(
    scenario_name: str = "thread-sweep", speeds: dict[float, float] | None = None, **model: Any
) -> list[RunResult]:
    """Return one result per point of a sweep that ships; ``speeds`` are decode rates as multiples of 50 tokens/s."""
    points = sweep_points(load_scenario(scenario_name))
    return [_point(value or 0, scenario, (speeds or {}).get(value or 0, 1.0), model) for value, scenario in points]


def _point(value: float, scenario: Scenario, speed: float, model: dict[str, Any]) -> RunResult:
    swept = scenario.sweep
    assert swept is not None
    threads = int(value) if swept.key == "threads" else 2
    if scenario.spans:
        runs = tuple(serving(p, [i / speed for i in range(16)], every_s=0.0, planned_s=None) for p in range(PROCESSES))
    else:
        runs = tuple(_at_speed(p, speed, scenario.requests_per_process) for p in range(PROCESSES))
    options = _options(batch=scenario.batch, threads=threads, context=scenario.prompt_tokens + scenario.new_tokens)
    return assemble(make_raw(scenario=scenario, runs=runs, options=options, model=make_model(**model)))


def _at_speed(process: int, speed: float, requests: int) -> ProcessRun:
    run = make_process(process, requests=requests)
    pace = (1 + 0.01 * process) / speed
    samples, windows = [], []
    for sample in run.samples:
        new = make_sample(
            process, sample.index, start_s=sample.start_s, ttft_s=0.5 * pace, itl_s=0.02 * pace, phase=sample.phase
        )
        samples.append(new)
        edges = {"prefill": (new.start_s, new.first_token_s), "decode": (new.first_token_s, new.end_s)}
        for window in run.windows:
            stem, _, phase = window.id.partition("/")
            if stem == new.window:
                start, end = edges[phase]
                windows.append(msgspec.structs.replace(
                    window, start_s=start, end_s=end, cpu_s=2 * (end - start)
                ))  # fmt: skip
    return msgspec.structs.replace(run, samples=tuple(samples), windows=tuple(windows))


def _options(*, batch: int = 1, threads: int = 2, context: int = 320) -> EngineOptions:
    return EngineOptions(threads=threads, context_tokens=context, batch=batch)
