"""Whether results may be compared at all: every difference is the question, harmless, or fatal.

Pure functions. Energy has rules of its own (``perjoule.compare.joules``), since it may fail alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from perjoule.compare.fields import FIELDS, KEYS, Field, Question, scenario_fields
from perjoule.errors import NotComparableError
from perjoule.records import UNSET, Reason, Record, RunResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_OTHER_IDS = {
    "model": "each cuts the same texts into tokens of its own",
    "backend": "each cuts the same texts into tokens of its own",
    "thinking": "the chat template puts the same questions in another way",
}
_NAME = 80  # characters of a value that are shown
_DIGITS = 12  # of a digest
_HEX = frozenset("0123456789abcdef")
_SHA256_DIGITS = 64


class Difference(Record, frozen=True, kw_only=True):
    """Something that is not the same in all results: ``values`` in the order of the results.

    ``why``: what makes it harmless or fatal; of a fatal one ``hint`` says what to do.
    """

    field: str
    said: str
    values: tuple[str, ...]
    role: Literal["question", "harmless", "fatal"]
    why: str = ""
    hint: str = ""


class Gate(Record, frozen=True, kw_only=True):
    """What the comparison asks, and every difference. ``question`` null: nothing that matters differs (A-A)."""

    question: Question | None
    question_missing: Reason = UNSET
    declared: bool
    differences: tuple[Difference, ...]

    def of(self, role: str) -> list[Difference]:
        return [d for d in self.differences if d.role == role]

    def refuse(self) -> None:
        """Raise ``NotComparableError`` naming everything that is fatal, with the first thing to do."""
        fatal = self.of("fatal")
        if not fatal:
            return
        told = "; ".join(f"{d.said}: {' / '.join(dict.fromkeys(d.values))}{f' ({d.why})' if d.why else ''}"
                         for d in fatal)  # fmt: skip
        asked = f" (the question is {self.question})" if self.question else ""
        raise NotComparableError(f"not comparable{asked}: {told}", hint=_advice(fatal))


def judge(
    results: Sequence[RunResult], varying: Question | None = None, *, allow_invalid: bool = False
) -> Gate:  # fmt: skip
    """Return what differs between two or more results and what it means.

    ``varying`` declares the question; without it, it is found where exactly one thing differs. With
    ``allow_invalid``, results that may not be published are compared, and the difference says so.
    """
    everyone = tuple(results)
    different = [f for f in (*scenario_fields(everyone), *FIELDS) if _differs(f, everyone)]
    different = _without_renamed(different)
    question = varying or _found([f for f in different if not f.harmless])
    found = [_difference(field, everyone, question, different) for field in different]
    found += [*_prompts(everyone, question), *_counts(everyone, question), *_invalid(everyone, allow=allow_invalid)]
    return Gate(
        question=question,
        question_missing=UNSET if question else "nothing that matters differs: the same configuration, measured again",
        declared=varying is not None,
        differences=tuple(sorted(found, key=lambda d: ("question", "fatal", "harmless").index(d.role))),
    )


def _differs(field: Field, results: Sequence[RunResult]) -> bool:
    first = field.of(results[0])
    return any(field.of(r) != first for r in results[1:])


def _without_renamed(different: list[Field]) -> list[Field]:
    """Leave out what only names the same file differently: the file is what runs."""
    names = {f.name for f in different}
    return [f for f in different if f.name != "model.identity" or "model.file_sha256" in names]


def _found(different: Sequence[Field]) -> Question | None:
    """Return the narrowest question that all of these belong to, leaving out those that belong to none."""
    owned = [f for f in different if f.questions]
    names = {f.name for f in owned}
    fitting = (q for q, keys in KEYS.items() if names & set(keys) and all(q in f.questions for f in owned))
    return next(fitting, None)


def _difference(
    field: Field, results: Sequence[RunResult], question: Question | None, different: Sequence[Field]
) -> Difference:  # fmt: skip
    values = tuple(_shown(field, r, results) for r in results)
    if question in field.questions:
        return Difference(field=field.name, said=field.said, values=values, role="question")
    if field.harmless:
        return Difference(field=field.name, said=field.said, values=values, role="harmless", why=field.harmless)
    others = [f.said for f in different if f is not field and f.questions and not f.harmless]
    why = f"differs at the same time as {', '.join(others)}" if question is None and others and field.questions else ""
    return Difference(field=field.name, said=field.said, values=values, role="fatal", why=why, hint=field.hint)


def _prompts(results: Sequence[RunResult], question: Question | None) -> Iterator[Difference]:
    """Compare the texts of prompts that both have (the same place in the same process), and the ids made of them."""
    first = {(s.process, s.index): s for s in results[0].samples}
    for other in results[1:]:
        both = [(first[k], s) for s in other.samples if (k := (s.process, s.index)) in first]
        texts = [(a.prompt_text_sha256, b.prompt_text_sha256) for a, b in both]
        if unlike := next(((a, b) for a, b in texts if a != b), None) or _none_shared(results[0], other, both):
            yield Difference(
                field="samples.prompt_text_sha256", said="texts of the prompts", values=tuple(map(_digest, unlike)),
                role="fatal", hint="give the same --seed",
            )  # fmt: skip
            return
        ids = next(((a, b) for a, b in both if a.prompt_ids_sha256 != b.prompt_ids_sha256), None)
        if ids:
            part = question in ("model", "backend", "thinking")
            yield Difference(
                field="samples.prompt_ids_sha256", said="token ids of the same texts",
                values=tuple(_digest(s.prompt_ids_sha256) for s in ids), role="question" if part else "fatal",
                why=_OTHER_IDS.get(question or "", ""),
                hint="" if part else "the tokenizer is not the same: measure all with one version of perjoule and file",
            )  # fmt: skip
            return


def _none_shared(a: RunResult, b: RunResult, both: Sequence[object]) -> tuple[str, str] | None:
    return ("no request", "in common") if a.samples and b.samples and not both else None


def _counts(results: Sequence[RunResult], question: Question | None) -> Iterator[Difference]:
    """Compare how many tokens went in and came out, over all measured requests."""
    seen = [sorted({(s.prompt_tokens, s.output_tokens) for s in r.samples if s.phase == "measured"}) for r in results]
    if any(s != seen[0] for s in seen[1:]):
        part = question in ("model", "thinking")
        yield Difference(
            field="samples.tokens", said="tokens in and out", values=tuple(map(_told_counts, seen)),
            role="question" if part else "fatal",
            why="answers end where each model ends them" if part else "",
            hint="" if part else "answers of equal length are needed: lower --set new_tokens=N so that all fit",
        )  # fmt: skip


def _told_counts(counts: Sequence[tuple[int, int]]) -> str:
    if not counts:
        return "none"
    return " to ".join(f"{prompt}+{output}" for prompt, output in dict.fromkeys((counts[0], counts[-1])))


def _invalid(results: Sequence[RunResult], *, allow: bool) -> Iterator[Difference]:
    values = tuple(
        "valid" if r.publishable else "; ".join(c.message for c in r.checks if c.severity == "invalid") or "invalid"
        for r in results
    )
    if all(r.publishable for r in results):
        return
    hints = [c.hint for r in results for c in r.checks if c.severity == "invalid"]
    yield Difference(
        field="publishable", said="INVALID result" if allow else "invalid result", values=values,
        role="harmless" if allow else "fatal",
        why="compared because --allow-invalid asks for it: nothing below may be relied on" if allow else "",
        hint="" if allow else f"{hints[0] if hints else 'run again'}; --allow-invalid compares all the same",
    )  # fmt: skip


def _advice(fatal: Sequence[Difference]) -> str:
    hints = list(dict.fromkeys(d.hint for d in fatal if d.hint))
    if len(fatal) > 1 and any(d.why for d in fatal):
        return f"let one thing differ at a time: {hints[0]}"
    return "; ".join(hints[:3])


def _shown(field: Field, result: RunResult, results: Sequence[RunResult]) -> str:
    value = field.of(result)
    if isinstance(value, dict):  # only what differs
        others = [found for r in results if isinstance(found := field.of(r), dict)]
        value = {k: v for k, v in value.items() if any(o.get(k) != v for o in others)}
        return ", ".join(f"{k} {v}" for k, v in value.items())[:_NAME] or "none of these"
    if value is None:
        return "none"
    if isinstance(value, str):
        return _digest(value)[:_NAME]
    return (f"{value:g}" if isinstance(value, int | float) else json.dumps(value, default=str))[:_NAME]


def _digest(text: str) -> str:
    """Return the beginning of a SHA-256 digest, other text as it is."""
    if len(text) == _SHA256_DIGITS and set(text) <= _HEX:
        return text[:_DIGITS]
    return text
