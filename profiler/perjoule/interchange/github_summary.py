"""Results as Markdown for a workflow's summary: primary metrics with intervals, joules with their label, checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.errors import UsageError
from perjoule.records import Energy, Missing
from perjoule.render import format as fmt
from perjoule.render import rows
from perjoule.render.plain import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.records import RunResult

MOST_BYTES = 1 << 20  # of one step's summary, docs.github.com, "Workflow commands for GitHub Actions"
PRIMARY = {
    "ttft_s": "Time to first token",
    "decode_tokens_per_s": "Decode",
    "energy_j_per_output_token": "Energy per output token",
    "peak_memory_bytes": "Peak memory",
}
_ESCAPED = {ord(c): f"&#{ord(c)};" for c in "&<>|`*_[]()#!~\\@:$"}


def summary(results: Sequence[RunResult]) -> str:
    """Return GitHub-flavoured Markdown; what comes from files is escaped. Raises ``UsageError`` above 1 MiB."""
    names = rows.names(results)
    titles = [*PRIMARY.values(), "May be published"]
    lines = ["### perjoule", "", _row(["", *titles]), _row(["---"] * (len(titles) + 1))]
    for result, name in zip(results, names, strict=True):
        cells = [plain(_cell(result, metric)) for metric in PRIMARY]
        lines.append(_row([plain(name), *cells, "yes" if result.publishable else "**no**"]))
    lines.append("")
    for result, name in zip(results, names, strict=True):
        lines += [f"- {plain(line)}" for line in _remarks(result, name)]
    text = "\n".join(lines) + "\n"
    if len(text.encode()) > MOST_BYTES:
        raise UsageError("the summary is larger than the 1 MiB that GitHub takes of a step", hint="give fewer results")
    return text


def _cell(result: RunResult, name: str) -> str:
    return fmt.metric(result.metric(name)) if name in result.metrics else fmt.DASH


def _remarks(result: RunResult, name: str) -> list[str]:
    headline = result.energy.headline
    told = [f"{name}: {_behind(headline)}" if headline else f"{name}: no energy: {result.energy.headline_missing}"]
    for metric, title in PRIMARY.items():
        found = result.metric(metric) if metric in result.metrics else None
        if isinstance(found, Missing) and not (metric.startswith("energy") and headline is None):
            told.append(f"{name}: no {title.lower()}: {found.reason}")
    return told + [f"{name}: {c.severity} {c.code}: {c.message}. {c.hint}" for c in result.checks]


def _behind(headline: Energy) -> str:
    warning = "" if headline.label == "measured" else " These joules are not measured."
    return f"{fmt.energy(headline)} for all measured requests.{warning}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def plain(text: str) -> str:
    """Escape all that Markdown, HTML or GitHub's mentions and links would act on."""
    return printable(text).replace("\n", " ").translate(_ESCAPED)
