"""Whether an engine kept up with its load and met its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.records import Check, Quantity
from perjoule.scenario import from_facts
from perjoule.stats.early_stopping import judge_server
from perjoule.stats.selection import select
from perjoule.stats.service import good_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perjoule.records import RunResult

# Tokens that two prompts of a process may share at their start: a beginning-of-sequence token and one word.
MAX_SHARED_PREFIX = 8


def _saturated(result: RunResult) -> Iterator[Check]:
    full = [s for s in result.spans if s.saturated and s.phase == "measured"]
    if full:
        yield Check(
            code="saturated",
            severity="warning",
            message=f"the engine cannot sustain the offered load: {full[0].verdict}",
            hint="lower it with --set rate_per_s=N, or let --set find_rate=true look for the highest rate",
            data={"spans": len(full), "longest_wait_s": round(max(s.longest_wait_s for s in full), 3)},
        )


def _slo_missed(result: RunResult) -> Iterator[Check]:
    scenario, share = from_facts(result.scenario), result.metrics.get("slo_met_share")
    if scenario.slo is not None and isinstance(share, Quantity) and share.value < scenario.slo.share:
        yield Check(
            code="slo_missed",
            severity="warning",
            message=f"{share.value:.1%} of the requests met the service level; {scenario.slo.share:.0%} were to",
            hint="offer a lower rate, or allow more with --set slo.ttft_s=S and slo.tpot_s=S",
            data={"share": round(share.value, 4)},
        )


def _slo_not_shown(result: RunResult) -> Iterator[Check]:
    """Judge a strict server run as MLPerf does: enough requests must show that the limits are met."""
    scenario = from_facts(result.scenario)
    if scenario.rigor != "strict" or scenario.shape != "server" or scenario.slo is None:
        return
    samples = select(result.samples, result.windows, scenario).samples
    offered = sum(s.offered for s in result.spans if s.phase == "measured" and s.window in {x.span for x in samples})
    over = offered - len(good_requests(samples, scenario.slo))
    verdict = judge_server(over, offered, scenario.slo.share) if offered else None
    if verdict is not None and not verdict.passed:
        yield Check(
            code="slo_not_shown",
            severity="warning",
            message=f"early stopping does not pass: {verdict.reason}",
            hint="measure longer with --time-budget, or offer a lower rate",
            data={"over": over, "requests": offered, "more": verdict.more},
        )


def _short_answers(result: RunResult) -> Iterator[Check]:
    wanted = from_facts(result.scenario).new_tokens
    asked = (s for s in result.samples if s.phase == "measured" and not isinstance(s.question, str))
    short = sum(s.output_tokens < wanted for s in asked)  # a question's answer ends where the model ends it
    if short:
        yield Check(
            code="short_answers",
            severity="warning",
            message=f"{short} requests gave fewer than the {wanted} tokens asked for",
            hint="use a longer context, or a model that holds it",
            data={"requests": short},
        )


def _shared_prefix(result: RunResult) -> Iterator[Check]:
    longest = max((p.shared_prefix_tokens for p in result.processes), default=0)
    if longest > MAX_SHARED_PREFIX:
        yield Check(
            code="shared_prefix",
            severity="warning",
            message=f"two prompts of one process begin with the same {longest} tokens: a prefix cache could help",
            hint="use a corpus whose prompts begin differently",
            data={"tokens": longest},
        )


RULES: tuple[Callable[[RunResult], Iterator[Check]], ...] = (
    _saturated,
    _slo_missed,
    _slo_not_shown,
    _short_answers,
    _shared_prefix,
)
