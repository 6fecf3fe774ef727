"""What a comparison came to: one record, which terminal, JSON, Markdown and HTML all print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from perjoule import __version__
from perjoule.compare.caveats import caveats
from perjoule.compare.family import primary as primary_of
from perjoule.compare.gate import Gate, judge
from perjoule.compare.pareto import Front, front
from perjoule.compare.quality import Known, known_of
from perjoule.compare.ranking import Ranking, rank
from perjoule.compare.runs import split_controls
from perjoule.compare.verdicts import Pair, Values, judge_pairs, noise_floor
from perjoule.errors import EXIT_DONE, EXIT_UNDECIDED, EXIT_WORSE, NotComparableError
from perjoule.records import UNSET, Energy, Quantity, Reason, Record, RunResult, ToolFacts
from perjoule.stats.paired import Control

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.compare.fields import Question

# History of the file format
#   1  first release
COMPARISON_VERSION = 1
_X = "energy_j_per_output_token"
_AXES = ("decode_tokens_per_s", "output_tokens_per_s", "ttft_s", "peak_memory_bytes")  # against joules per token


class Entry(Record, frozen=True, kw_only=True):
    """A result that was compared: how it is called, which file it is, and its own values of the metrics judged."""

    name: str
    id: str
    created_utc: str
    machine_id: str
    publishable: bool
    processes: int
    control: bool  # an A' half: it gives the noise floor and is judged by nothing
    values: dict[str, Quantity | Energy | str | None]


class Outcome(Record, frozen=True, kw_only=True):
    """Everything that is said. Numbers of results are their places in ``results``; the baseline is the first.

    ``quality`` holds those whose fidelity is known. ``rankings`` and ``fronts`` are of three and more.
    """

    schema: Literal["perjoule.comparison"] = "perjoule.comparison"
    schema_version: int = COMPARISON_VERSION
    tool: ToolFacts
    gate: Gate
    threshold: float
    primary: tuple[str, ...]
    named: tuple[str, ...]
    results: tuple[Entry, ...]
    pairs: tuple[Pair, ...]
    noise_floor: dict[str, Control]
    noise_floor_missing: Reason = UNSET
    rankings: tuple[Ranking, ...] = ()
    fronts: tuple[Front, ...] = ()
    quality: tuple[Known, ...] = ()
    caveats: tuple[str, ...]
    exit_code: int


def compare(
    results: Sequence[RunResult],
    names: Sequence[str],
    *,
    varying: Question | None = None,
    named: Sequence[str] = (),
    threshold: float = 0.0,
    allow_invalid: bool = False,
) -> Outcome:
    """Compare candidates with the first result, and each with each where there are three or more.

    ``threshold`` is a share. Raises ``NotComparableError`` for what must not be compared, naming every reason.
    """
    kept, controls = split_controls(results)
    everyone = [*kept, *(j for _, j in controls)]
    gate = judge([results[i] for i in kept], varying, allow_invalid=allow_invalid)
    gate.refuse()
    judge([results[i] for i in everyone], gate.question, allow_invalid=allow_invalid).refuse()
    names = _told_apart(names, kept, gate)
    spec = results[kept[0]].scenario.spec
    metrics = primary_of(str(spec.get("shape", "")), find_rate=bool(spec.get("find_rate")))
    known, judged = Values(results), tuple(dict.fromkeys((*metrics, *named)))
    floor = noise_floor(known, controls, judged)

    def judged_pairs(pairs: list[tuple[int, int]]) -> list[Pair]:
        return judge_pairs(
            results, pairs, primary=metrics, named=named, threshold=threshold, controls=floor, known=known
        )

    pairs = judged_pairs([(kept[0], i) for i in kept[1:]])
    each = judged_pairs([(a, b) for n, a in enumerate(kept) for b in kept[n + 1 :]]) if len(kept) > 2 else []  # noqa: PLR2004
    _refuse_nothing(pairs, metrics)
    return Outcome(
        tool=ToolFacts(name="perjoule", version=__version__),
        gate=gate, threshold=threshold, primary=metrics, named=tuple(named),
        results=tuple(_entry(r, n, judged, control=i not in kept)
                      for i, (r, n) in enumerate(zip(results, names, strict=True))),
        pairs=tuple(pairs), noise_floor=floor,
        rankings=tuple(rank(m, each, kept) for m in judged) if each else (),
        fronts=tuple(front(_X, y, each, results, kept) for y in _AXES if y in judged and _X in judged) if each else (),
        caveats=tuple(caveats([results[i] for i in kept], [names[i] for i in kept], gate, pairs, floor)),
        exit_code=exit_code(pairs), quality=known_of(results),
    )  # fmt: skip


def _told_apart(names: Sequence[str], kept: Sequence[int], gate: Gate) -> list[str]:
    """Return names that say what is asked about, where they were told apart by a number only."""
    asked = gate.of("question")
    told = list(names)
    for n, place in enumerate(kept if asked else ()):
        stem, mark, number = told[place].rpartition(" #")
        if mark and number.isdecimal():
            told[place] = f"{stem}, {asked[0].said}: {asked[0].values[n]}"
    return told if len(set(told)) == len(told) else list(names)


def exit_code(pairs: Sequence[Pair]) -> int:
    """Return 3 if a primary metric could not be compared, else 1 if one is worse, else 0.

    What neither side has was not measured, and is not what was compared.
    """
    verdicts = {j.verdict for pair in pairs for j in pair.judgements if j.primary}
    if "not comparable" in verdicts:
        return EXIT_UNDECIDED
    return EXIT_WORSE if "worse" in verdicts else EXIT_DONE


def encode(outcome: Outcome) -> str:
    """Return the outcome as JSON, two spaces deep, with a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(outcome, order="sorted"), indent=2).decode() + "\n"


def _refuse_nothing(pairs: Sequence[Pair], metrics: Sequence[str]) -> None:
    for pair in pairs:
        told = [j for j in pair.judgements if j.metric in metrics]
        if all(j.ratio is None for j in told):
            why = "; ".join(dict.fromkeys(f"{j.metric}: {j.why}" for j in told))
            raise NotComparableError(f"not comparable: no metric can be compared: {why}", hint="measure both again")


def _entry(result: RunResult, name: str, metrics: Sequence[str], *, control: bool) -> Entry:
    values = {key: result.metrics[key] for m in metrics for key in (m, f"{m}_missing") if key in result.metrics}
    return Entry(
        name=name, id=result.id, created_utc=result.created_utc, machine_id=result.host.machine_id,
        publishable=result.publishable, processes=len(result.processes), control=control, values=values,
    )  # fmt: skip
