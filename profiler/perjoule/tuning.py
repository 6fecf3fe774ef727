"""What a race between configurations came to, as a file that says how it was judged."""

from __future__ import annotations

import math
import statistics
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from perjoule import __version__
from perjoule.errors import InputError
from perjoule.race import OBJECTIVES, Objective, Race, Score, Standing, meets
from perjoule.records import UNSET, Quantity, Reason, Record, ScenarioFacts, ToolFacts
from perjoule.scenario import Slo
from perjoule.stats.intervals import t_interval
from perjoule.stats.paired import Comparison

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from perjoule.contest import Contest
    from perjoule.progress import Progress

# History of the file format
#   1  first release
TUNE_VERSION = 1


class Candidate(Record, frozen=True, kw_only=True):
    """One configuration of the race. ``objective`` is in the unit of the file; ``out`` says why it left, if it did."""

    label: str
    backend: str
    model: str
    options: dict[str, object]
    processes: int
    objective: Quantity | None
    objective_missing: Reason = UNSET
    ttft_s: float | None
    ttft_s_missing: Reason = UNSET
    tpot_s: float | None
    tpot_s_missing: Reason = UNSET
    meets_slo: bool
    out: str | None
    result: str | None  # file name of its result, in the same folder
    result_missing: Reason = UNSET


class Tuning(Record, frozen=True, kw_only=True):
    """The race: candidates best first, and whether the best can be told from the second."""

    schema: Literal["perjoule.tune"] = "perjoule.tune"
    schema_version: int = TUNE_VERSION
    created_utc: str
    tool: ToolFacts
    scenario: ScenarioFacts
    objective: Objective
    unit: str
    slo: Slo | None
    budget_s: float
    rounds: int
    ended: str
    candidates: tuple[Candidate, ...]
    pair: Comparison | None  # second over best
    pair_missing: Reason = UNSET
    verdict: str


def candidate(
    label: str, backend: str, model: str, options: object, found: Score, race: Race, out: str | None, result: str | None
) -> Candidate:
    """Return how a configuration fared; its interval is Student's over processes, as in any result."""
    unit = OBJECTIVES[race.objective][1]
    values = list(found.objective.values())
    ttft, tpot = (statistics.fmean(v) if v else None for v in (found.ttft_s, found.tpot_s))
    return Candidate(
        label=label,
        backend=backend,
        model=model,
        options=msgspec.to_builtins(options),
        processes=len(values),
        objective=t_interval(values, unit=unit, statistic="mean over processes") if values else None,
        objective_missing=UNSET if values else found.out or "no process was measured",
        ttft_s=ttft,
        ttft_s_missing=UNSET if ttft is not None else "no process was measured",
        tpot_s=tpot,
        tpot_s_missing=UNSET if tpot is not None else "no answer had a second token",
        meets_slo=not found.out and meets(found, race.slo),
        out=out,
        result=result,
        result_missing=UNSET if result is not None else "no process was measured",
    )


def tuned(
    contest: Contest, states: Sequence[Progress], files: Mapping[int, str], scenario: ScenarioFacts, created: datetime
) -> Tuning:
    """Return the race as a record; ``files``: the result files by index of the configuration."""
    race, standing = contest.race, contest.standing
    known = {s.index: s for s in states}
    last = sorted(set(known) - set(standing.order), key=lambda i: -len(known[i].runs))
    ranked = [
        candidate(
            known[i].label, known[i].configuration.backend, Path(known[i].configuration.model_ref).name,
            known[i].configuration.options, contest.scores.get(i, Score(objective={}, out="it failed")), race,
            contest.dropped.get(i) or (None if known[i].failed is None else "its process failed"), files.get(i),
        )
        for i in (*standing.order, *last)
    ]  # fmt: skip
    return Tuning(
        created_utc=created.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        tool=ToolFacts(name="perjoule", version=__version__),
        scenario=scenario,
        objective=race.objective,
        unit=OBJECTIVES[race.objective][1],
        slo=race.slo,
        budget_s=race.budget_s,
        rounds=contest.rounds,
        ended=standing.why or "it was interrupted",
        candidates=tuple(ranked),
        pair=standing.pair,
        pair_missing=UNSET if standing.pair is not None else "more or fewer than two were left",
        verdict=verdict(standing, ranked, race),
    )


def tuning_bytes(found: Tuning) -> bytes:
    return msgspec.json.format(msgspec.json.encode(found, order="sorted"), indent=1) + b"\n"


def read_tuning(path: Path) -> Tuning:
    """Return the race in a file. Raises ``InputError`` if it holds none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Tuning)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="give a .tune.json that `perjoule tune` wrote") from None
    except msgspec.MsgspecError as error:
        raise InputError(f"{path}: not a race: {error}", hint="give a .tune.json that `perjoule tune` wrote") from None


def verdict(standing: Standing, ranked: list[Candidate], race: Race) -> str:
    """Say in a sentence or two which configuration to use, and how surely."""
    unit = OBJECTIVES[race.objective][1]
    if not standing.order or not ranked[0].meets_slo:
        return "No configuration meets the limits." if race.slo is not None else "No configuration could be judged."
    best = ranked[0]
    figure = "" if best.objective is None else f" ({best.objective.value:.3g} {unit})"
    said = f"Least {unit}{' within the limits' if race.slo is not None else ''}: {best.label}{figure}."
    if len(standing.order) == 1:
        return f"{said} It is the only one left."
    if len(standing.order) > 2:  # noqa: PLR2004 - the best two are compared only once they are alone
        return (
            f"{said} {len(standing.order)} were still in the race when it ended ({standing.why}), so that is not sure."
        )
    second, pair = ranked[1], standing.pair
    if not second.meets_slo:
        return f"{said} The next, {second.label}, misses the limits."
    if pair is None or pair.verdict not in {"better", "worse"}:
        bounds = (
            ""
            if pair is None or pair.low is None or pair.high is None
            else (f": {second.label} takes {_percent(pair.low)} to {_percent(pair.high)} of it")
        )
        return f"{said} It cannot be told apart from the second{bounds}."
    more = math.expm1(math.log(pair.ratio))
    return f"{said} The second, {second.label}, takes {more:.1%} more ({_percent(pair.low)} to {_percent(pair.high)})."


def _percent(ratio: float | None) -> str:
    return "?" if ratio is None else f"{ratio:.1%}"
