"""What the same passage costs in each language: from the requests that read it, one a process and language.

Each process reads every language once, so that a ratio is of two values of one process: what processes have in common,
and the coefficients of a model of power, cancel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec.structs import replace

from perjoule.meters.energy import assess, per_process
from perjoule.records import UNSET, Energy, Missing, Quantity
from perjoule.records.quality import LanguageCost
from perjoule.stats.intervals import half_width, t_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perjoule.meters.energy import Evidence
    from perjoule.records import Metric, Sample

PASSAGE = "passage/"
REFERENCE = "en"
_RATIO = "geometric mean of per-process ratios"
_INTERVAL = "95 % Student t over logs of per-process ratios, widened for stopping and for correlation"
_OWN_TEXT = "the text is the user's own: a result has its tokens and its digest"
ByProcess = dict[int, float]


def languages_of(samples: Sequence[Sample]) -> list[str]:
    """Return the languages whose passage was read, in the order of the first process."""
    asked = (s.question for s in samples)
    return list(dict.fromkeys(q.removeprefix(PASSAGE) for q in asked if isinstance(q, str) and q.startswith(PASSAGE)))


def language_costs(evidence: Evidence, characters: Mapping[str, int]) -> tuple[LanguageCost, ...]:
    """Return the cost of each language that was read, relative to English, or else to the first one.

    ``characters``: code points of each passage. ``evidence`` holds the requests that count.
    """
    languages = languages_of(evidence.samples)
    if not languages:
        return ()
    reference = REFERENCE if REFERENCE in languages else languages[0]
    parts = {language: of_language(evidence, language) for language in languages}
    joules = {language: energy_by_process(part) for language, part in parts.items()}
    first = {language: _ttft(part.samples) for language, part in parts.items()}
    tokens = {language: part.samples[0].prompt_tokens for language, part in parts.items()}
    return tuple(
        _cost(
            language, reference, parts[language], joules, first,
            tokens=tokens[language], reference_tokens=tokens[reference], characters=characters.get(language),
        )
        for language in languages
    )  # fmt: skip


def _cost(
    language: str, reference: str, part: Evidence, joules: Mapping[str, ByProcess | str],
    first: Mapping[str, ByProcess], *, tokens: int, reference_tokens: int, characters: int | None,
) -> LanguageCost:  # fmt: skip
    energy: Metric = assess(part).metrics["energy_j_per_request"]
    known = isinstance(energy, Energy)
    relative = _ratio_of(joules[language], joules[reference])
    whole = energy.value if isinstance(energy, Energy) else None
    missing = energy.reason if isinstance(energy, Missing) else UNSET
    per_thousand = 1000 * whole / characters if whole is not None and characters else None
    return LanguageCost(
        language=language, reference=reference, tokens_count=tokens, characters_count=characters,
        characters_count_missing=UNSET if characters is not None else _OWN_TEXT,
        relative_tokens=tokens / reference_tokens,
        ttft_s=t_interval(list(first[language].values()), unit="s", statistic="mean over processes"),
        relative_ttft=_quantity(first[language], first[reference]),
        energy_j_per_passage=energy if isinstance(energy, Energy) else None,
        energy_j_per_passage_missing=UNSET if known else missing,
        relative_energy=relative if isinstance(relative, Quantity) else None,
        relative_energy_missing=UNSET if isinstance(relative, Quantity) else relative,
        energy_j_per_1000_characters=per_thousand,
        energy_j_per_1000_characters_missing=UNSET if per_thousand is not None
        else missing if isinstance(missing, str) else _OWN_TEXT,
    )  # fmt: skip


def energy_by_process(part: Evidence) -> ByProcess | str:
    """Return joules a request of each process, or why there are none."""
    found = per_process(part)
    if isinstance(found, str):
        return found
    outputs: dict[int, list[int]] = {}
    for sample in part.samples:
        outputs.setdefault(sample.process, []).append(sample.output_tokens)
    return {p: one.joules.value * sum(outputs[p]) / len(outputs[p]) for p, one in found.items()}


def of_language(evidence: Evidence, language: str) -> Evidence:
    samples = tuple(s for s in evidence.samples if s.question == f"{PASSAGE}{language}")
    used = {s.window for s in samples}
    windows = tuple(w for w in evidence.windows if w.id.partition("/")[0] in used)
    return replace(evidence, samples=samples, windows=windows, blocks=(), good=None)


def _ttft(samples: Sequence[Sample]) -> ByProcess:
    return {s.process: s.first_token_s - s.start_s for s in samples}


def _ratio_of(values: ByProcess | str, reference: ByProcess | str) -> Quantity | str:
    if isinstance(values, str) or isinstance(reference, str):
        return values if isinstance(values, str) else str(reference)
    if not set(values) & set(reference):
        return "no process read both undisturbed"
    return _quantity(values, reference)


def log_ratios_of(values: ByProcess, reference: ByProcess) -> list[float]:
    """Return the logs of the ratios of processes that have both, in order."""
    both = sorted(p for p in set(values) & set(reference) if values[p] > 0 and reference[p] > 0)
    return [math.log(values[p] / reference[p]) for p in both]


def _quantity(values: ByProcess, reference: ByProcess) -> Quantity:
    logs = log_ratios_of(values, reference)
    middle = math.fsum(logs) / len(logs) if logs else 0.0
    half = half_width(logs)
    if half is None:
        reason = "one process: a spread between processes cannot be seen"
        return Quantity(
            value=math.exp(middle), low=None, high=None, low_missing=reason, high_missing=reason, unit="1",
            n=max(1, len(logs)), statistic=_RATIO, interval="none",
        )  # fmt: skip
    return Quantity(
        value=math.exp(middle), low=math.exp(middle - half), high=math.exp(middle + half), unit="1", n=len(logs),
        statistic=_RATIO, interval=_INTERVAL,
    )  # fmt: skip
