"""What came of testing a claim, with everything that the verdict rests on."""

from __future__ import annotations

from typing import Literal

from perjoule.records import UNSET, Reason, Record
from perjoule.records.facts import ToolFacts

CLAIM_VERSION = 1  # of the verdict's JSON; history: 1 first release

Answer = Literal["holds", "fails", "undecided"]


class Interval(Record, frozen=True, kw_only=True):
    """A value with its 95 % interval; a bound that does not exist is null with its reason."""

    value: float
    low: float | None
    high: float | None
    low_missing: Reason = UNSET
    high_missing: Reason = UNSET


class Effect(Record, frozen=True, kw_only=True):
    """One comparison of a claim: ``ratio`` of side a to side b (or of a language to the reference).

    The claim says that the ratio lies beyond ``bound``, ``below`` or above it. ``answer`` is what the interval says of
    that; ``note`` what it holds beyond the spread of processes.
    """

    said: str
    metric: str
    ratio: Interval | None
    ratio_missing: Reason = UNSET
    bound: float
    below: bool
    answer: Answer
    method: str
    note: str = ""


class SideFacts(Record, frozen=True, kw_only=True):
    """One side as it was measured. ``cost`` is the claim's metric in its unit, ``cost_label`` how joules were had."""

    said: str
    results: tuple[str, ...]
    cost: Interval | None
    cost_missing: Reason = UNSET
    cost_unit: str
    cost_label: str = ""
    accuracy: Interval | None
    accuracy_missing: Reason = UNSET
    items_count: int = 0
    mean_kl_nats: Interval | None
    mean_kl_nats_missing: Reason = UNSET
    tokens_per_answer: float | None
    tokens_per_answer_missing: Reason = UNSET
    energy_j_per_output_token: Interval | None
    energy_j_per_output_token_missing: Reason = UNSET


class Verdict(Record, frozen=True, kw_only=True):
    """``why`` in plain sentences, the weightiest first; ``would_decide`` what is to be done where it is undecided."""

    schema: Literal["perjoule.verdict"] = "perjoule.verdict"
    schema_version: int = CLAIM_VERSION
    tool: ToolFacts
    claim: str
    claim_version: int
    claim_sha256: str
    registered_utc: str
    statement: str
    scope: str
    exploratory: bool
    exploratory_why: str = ""
    answer: Answer
    why: tuple[str, ...]
    would_decide: str
    energy_says: str
    effects: tuple[Effect, ...]
    accuracy_difference: Interval | None
    accuracy_difference_missing: Reason = UNSET
    sides: tuple[SideFacts, ...]
    caveats: tuple[str, ...] = ()
