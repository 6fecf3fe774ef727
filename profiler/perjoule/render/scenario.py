"""A scenario in plain words: who sends when, what latency counts from, when measuring stops, what comes out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from perjoule.asking import questions_of
from perjoule.load.rate_search import MOST_TRIALS, RESOLUTION
from perjoule.records import UNSET
from perjoule.render.plain import printable
from perjoule.scenario import facts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from perjoule.scenario import Scenario, Slo

_MINUTE, _HOUR = 60.0, 3600.0
_PER_CENT = 100

# What each shape is judged by, in the words of the rows of the summary; held by a test against results of that shape.
JUDGED_BY: dict[str, tuple[tuple[str, str], ...]] = {
    "single-stream": (
        ("ttft_s", "time to first token (TTFT)"),
        ("prefill_tokens_per_s", "prefill tokens per second"),
        ("decode_tokens_per_s", "decode tokens per second"),
        ("tpot_s", "time per output token (TPOT)"),
    ),
    "multi-stream": (
        ("output_tokens_per_s", "output tokens per second of all clients together"),
        ("ttft_s", "time to first token (TTFT)"),
        ("ttft_p99_s", "its 99th percentile, from 100 requests"),
        ("tpot_s", "time per output token (TPOT)"),
        ("queue_delay_s", "time a request waits before the engine begins with it"),
    ),
    "offline": (
        ("output_tokens_per_s", "output tokens per second"),
        ("requests_per_s", "requests answered per second"),
    ),
    "server": (
        ("offered_requests_per_s", "requests offered per second"),
        ("requests_per_s", "requests answered per second"),
        ("ttft_s", "time to first token (TTFT)"),
        ("ttft_p99_s", "its 99th percentile, from 100 requests"),
        ("tpot_p99_s", "99th percentile of the time per output token (TPOT)"),
        ("queue_delay_s", "time a request waits before the engine begins with it"),
        ("output_tokens_per_s", "output tokens per second"),
    ),
    "cold-start": (
        ("load_s", "time to load the model"),
        ("cold_ttft_s", "time to the first token of the first request"),
    ),
    "idle": (
        ("idle_cpu_share", "cores that the loaded engine keeps busy while it waits"),
        ("power_w", "power while it waits"),
        ("peak_memory_bytes", "peak memory of the engine"),
    ),
}  # fmt: skip
_OF_SLO = (
    ("slo_met_share", "share of the offered requests that met the service level"),
    ("goodput_requests_per_s", "goodput: requests per second that met it"),
    ("goodput_requests_per_j", "goodput per joule"),
)
_OF_EVERY_ANSWER = (
    ("energy_j_per_output_token", "joules per output token"),
    ("peak_memory_bytes", "peak memory of the engine"),
    ("cpu_s_per_output_token", "CPU time per token"),
)


def explained(scenario: Scenario) -> dict[str, str]:
    """Return what matters of a scenario, title to sentences, in the order of reading."""
    parts = {
        "Load": _load(scenario),
        "Latency": _latency(scenario),
        "Prompts": _prompts(scenario),
        "Batch": _batch(scenario),
        "Service level": _service_level(scenario.slo),
        "Sweep": _sweep(scenario),
        "Each process": _process(scenario),
        "Rigor": _rigor(scenario),
        "Stops": _stops(scenario),
        "Takes": _takes(scenario),
        "You get": f"{'; '.join(_gives(scenario))}. Each with its interval, or why none.",
        "Hash": facts(scenario).sha256,
    }
    return {title: text for title, text in parts.items() if text}


def explanation(scenario: Scenario) -> Iterable[RenderableType]:
    """Yield what a terminal shows of one scenario."""
    yield Text(printable(f"{scenario.name} (version {scenario.version})"), style="bold")
    yield Text(printable(scenario.description))
    yield Text()
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for title, text in explained(scenario).items():
        table.add_row(title, Text(printable(text)))
    yield table


def listing(scenarios: Iterable[Scenario]) -> RenderableType:
    """Return scenarios as a table, grouped by shape: name, shape, what each is for."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for head in ("SCENARIO", "LOAD", "WHAT IT ASKS"):
        table.add_column(head, no_wrap=head != "WHAT IT ASKS", overflow="fold")
    table.add_row(*(Text(head, style="bold") for head in ("SCENARIO", "LOAD", "WHAT IT ASKS")))
    order = list(JUDGED_BY)
    for one in sorted(scenarios, key=lambda s: (order.index(s.shape), s.sweep is not None, s.name)):
        load = f"{one.shape}, sweep" if one.sweep else one.shape
        table.add_row(Text(printable(one.name), style="cyan"), Text(load), Text(printable(one.description)))
    return table


def judged_by(scenario: Scenario) -> list[tuple[str, str]]:
    """Return the metrics that the scenario is about, each in words; a result has more."""
    found = list(JUDGED_BY[scenario.shape])
    if scenario.shape == "single-stream" and scenario.duration_s is not None:
        found.append(("last_fifth_decode_ratio", "speed of the last fifth of the load as a share of the first"))
    if scenario.slo is not None:
        found += _OF_SLO
    return found if scenario.shape == "idle" else [*found, *_OF_EVERY_ANSWER]


def _gives(scenario: Scenario) -> list[str]:
    """Return what comes out of it in words, what the scenario is for first."""
    first = []
    if scenario.tasks:
        first = ["right answers; joules and tokens a right answer takes"]
    if scenario.passages:
        first = ["tokens, joules and seconds that each language takes, and how many times English"]
    return [*first, *(words for _, words in judged_by(scenario))]


def _one_client(scenario: Scenario, requests: str) -> str:
    if scenario.passages:
        return f"each process reads {len(scenario.languages)} passages one by one, in an order of its own"
    if scenario.tasks:
        count = sum(len(questions_of(scenario, process)) for process in range(scenario.min_processes))
        return f"one client asks {count} questions one by one; each process has its share of them"
    return f"one client sends its next request when the last was answered; {requests}"


def _load(scenario: Scenario) -> str:
    count, lasts = scenario.requests_per_process, scenario.duration_s
    more = "" if lasts is None else f", and more until {seconds(lasts)} are over"
    if scenario.shape == "single-stream":
        return f"single-stream: {_one_client(scenario, f'{count} requests{more}')}."
    if scenario.shape == "multi-stream":
        return (
            f"multi-stream: {scenario.clients} clients at once, each sends its next request when its last was "
            f"answered; {count} requests over all clients{more}."
        )
    if scenario.shape == "offline":
        return f"offline: all {count} requests are there from the start; the engine takes them as fast as it can."
    if scenario.shape == "cold-start":
        files = (
            "the model's files are dropped from the page cache, so that they come from the disk again; then the model"
            if scenario.page_cache == "dropped"
            else "the files stay in the page cache; the model"
        )
        return f"cold-start: in every fresh process {files} is loaded and asked once, without warm-up."
    if scenario.shape == "idle":
        return f"idle: the model is loaded and asked once, then nobody asks for {seconds(lasts or 0.0)}."
    return _served(scenario, lasts or 0.0)


def _served(scenario: Scenario, lasts_s: float) -> str:
    how = {
        "poisson": "at random (Poisson arrivals, seeded)", "constant": "at equal distances",
        "recorded": f"at {len(scenario.arrival_times_s)} recorded times",
    }[scenario.arrivals or "poisson"]  # fmt: skip
    begins = f"server: requests come {how} for {seconds(lasts_s)}, whether or not the engine keeps up; "
    if scenario.find_rate:
        return (
            f"{begins}the first process looks for the highest rate that meets the service level (at most "
            f"{MOST_TRIALS} trials, until met and missed rates are within {RESOLUTION - 1:.0%}), all processes are "
            "then measured at that rate."
        )
    rate = scenario.offered_rate_per_s
    return f"{begins}{'' if rate is None else f'{rate:g} a second on average.'}"


def _latency(scenario: Scenario) -> str:
    return {
        "single-stream": "counts from when a request is sent; nothing waits in a queue.",
        "multi-stream": "counts from when a client sends, so waiting for a place in the batch is part of it.",
        "offline": "is not given: all requests wait from the start, so only throughput means something.",
        "server": "counts from when a request was due, so time in the queue is part of it. If the engine cannot keep "
        "up, the load is ended early, and the result says so and gives no latency.",
        "cold-start": "time to first token is that of the first request; loading is given beside it, and the sum.",
        "idle": "",
    }[scenario.shape]


def _prompts(scenario: Scenario) -> str:
    tokens = f"{scenario.prompt_tokens:,} tokens from the corpus {scenario.corpus!r}, no two alike at their beginning"
    if scenario.shape == "idle":
        return ""
    if scenario.tasks:
        switch = "" if scenario.thinking is UNSET else f", with thinking {scenario.thinking}"
        levels = f", levels {', '.join(map(str, scenario.levels))}" if scenario.levels else ""
        return (
            f"{', '.join(scenario.tasks)}, in {', '.join(scenario.languages) or 'the language of the file'}{levels}; "
            f"{scenario.items} of each, put as the model's chat template has it{switch}. An answer ends where the "
            f"model ends it, or is wrong after at most {scenario.new_tokens:,} tokens."
        )
    if scenario.passages:
        return f"the same passage in {', '.join(scenario.languages)}; one new token each, so that reading is measured."
    return f"{tokens}; {scenario.new_tokens:,} new token{_s(scenario.new_tokens)} each, end of sequence ignored."


def _batch(scenario: Scenario) -> str:
    if not scenario.spans:
        return ""
    if scenario.batch == 1:
        return "1: the engine works on one request at a time; the others wait."
    return f"up to {scenario.batch} requests are worked on together; a place that falls free is taken at once."


def _service_level(slo: Slo | None) -> str:
    if slo is None:
        return ""
    limits = [
        f"{name} at most {seconds(limit)}"
        for name, limit in (("TTFT", slo.ttft_s), ("TPOT", slo.tpot_s))
        if limit is not None
    ]
    return f"{' and '.join(limits)}, for {_percent(slo.share)} of all offered requests, answered or not."


def _sweep(scenario: Scenario) -> str:
    sweep = scenario.sweep
    if sweep is None:
        return ""
    values = ", ".join(f"{v:,.0f}" if v == int(v) else f"{v:g}" for v in sweep.values)
    return (
        f"{sweep.key} = {values}. Each value is a configuration with processes and a result file of its own; "
        "they are measured interleaved and shown as one curve."
    )


def _process(scenario: Scenario) -> str:
    if scenario.shape in ("cold-start", "idle"):
        return ""
    most = scenario.max_warmup_requests
    return f"is fresh, and warms up with at most {most} request{_s(most)}, until two agree; what follows is measured."


def _rigor(scenario: Scenario) -> str:
    text = f"{scenario.rigor}: at least {scenario.min_processes} fresh process{'es' * (scenario.min_processes > 1)}"
    if scenario.min_measured_s:
        text += f" and {seconds(scenario.min_measured_s)} of load"
    return f"{text}."


def _stops(scenario: Scenario) -> str:
    what = {
        "single-stream": "time to first token and time per token",
        "multi-stream": "time to first token, time per token and output tokens per second",
        "offline": "output tokens per second",
        "server": "time to first token and time per token",
        "cold-start": "time to first token and loading",
        "idle": "",
    }[scenario.shape]
    if not what:
        return f"after {scenario.min_processes} processes."
    return (
        f"when the 95 % half-width of {what} is at most {_percent(scenario.target_half_width)}, or when another "
        f"process would not fit into {seconds(scenario.time_budget_s)}. A missed target is stated in the result."
    )


def _takes(scenario: Scenario) -> str:
    """Say how long it takes, as far as the scenario alone tells; the rest depends on engine and machine."""
    each = " for each value" if scenario.sweep else ""
    beside = "Loading, warm-up and idle power come on top."
    budget = seconds(scenario.time_budget_s)
    lasts_s = scenario.duration_s
    if lasts_s is None:
        processes, requests = scenario.min_processes, scenario.requests_per_process
        if scenario.tasks or scenario.passages:
            return f"as long as {processes} processes take for it, and more only within {budget}. {beside}"
        return (
            f"as long as {processes * requests} requests ({processes} processes with {requests}) take on this "
            f"machine{each}, and more only within {budget}. {beside}"
        )
    least = f"at least {seconds(lasts_s * scenario.min_processes)} of load{each}"
    search = f" and up to {seconds(MOST_TRIALS * lasts_s)} for the search" if scenario.find_rate else ""
    more = "" if scenario.shape == "idle" else f"; more only within {budget}"
    return f"{least} ({scenario.min_processes} x {seconds(lasts_s)}){search}{more}. {beside}"


def seconds(value: float) -> str:
    """Return a duration as people say it: ``0.5 s``, ``90 s``, ``10 min``, ``2 h``."""
    if value >= 2 * _HOUR and value % _HOUR == 0:
        return f"{value / _HOUR:,.0f} h"
    if value >= 2 * _MINUTE and value % _MINUTE == 0:
        return f"{value / _MINUTE:,.0f} min"
    return f"{value * 1000:g} ms" if value < 1 else f"{value:,g} s"


def _percent(share: float) -> str:
    return f"{_PER_CENT * share:g} %"


def _s(count: int) -> str:
    return "s" * (count != 1)
