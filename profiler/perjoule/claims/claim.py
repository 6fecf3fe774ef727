"""A claim: what is held to be true, of what, by how much, and what would decide it. Data, read from TOML.

A claim is written and hashed before anything is measured. Results that are older than its registration do not test it:
they may be what it was made from.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec

from perjoule.errors import InputError, UsageError
from perjoule.records import Record
from perjoule.store.canonical import canonical_json

Kind = Literal["ratio", "front", "languages"]
Rigor = Literal["quick", "standard", "strict"]
Quant = Literal["faithful", "int8", "int4", "fp32"]

_PACKAGE, _FOLDER = "perjoule_scenarios", "claims"
_MAX_TOML_BYTES = 64 * 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HINT = "compare with `perjoule claim --show quantization-saves-energy`"
# Metrics that a claim may be about, as sentences call them.
SAID = {
    "energy_j_per_output_token": "energy per output token", "energy_j_per_request": "energy per request",
    "energy_j_per_correct_answer": "energy per right answer", "energy_j_per_passage": "energy to read the passage",
    "tokens_per_passage": "tokens of the passage", "ttft_s": "time to first token", "tpot_s": "time per output token",
    "decode_tokens_per_s": "decode rate", "prefill_tokens_per_s": "prefill rate",
    "output_tokens_per_s": "output rate", "peak_memory_bytes": "peak memory",
}  # fmt: skip
# Those whose ratio a claim may be about: energy and time of the same work.
RATIO_METRICS = frozenset({
    "energy_j_per_output_token", "energy_j_per_request", "ttft_s", "tpot_s", "decode_tokens_per_s",
    "prefill_tokens_per_s", "output_tokens_per_s", "peak_memory_bytes",
})  # fmt: skip
FRONT_METRICS = frozenset({"energy_j_per_correct_answer", "energy_j_per_request", "energy_j_per_output_token"})
LANGUAGE_METRICS = frozenset({"energy_j_per_passage", "tokens_per_passage"})
ALLOWED: dict[str, frozenset[str]] = {
    "ratio": RATIO_METRICS, "front": FRONT_METRICS, "languages": LANGUAGE_METRICS,
}  # fmt: skip


class Side(Record, frozen=True, kw_only=True):
    """One side of a claim: a configuration of ``perjoule run``. ``said`` is how sentences call it."""

    said: str
    model: str
    backend: str = "onnxruntime"
    quant: str = "faithful"
    threads: int | None = None


class Floor(Record, frozen=True, kw_only=True):
    """Quality that a side must have to count at all.

    ``accuracy``: least share of right answers. ``mean_kl_nats``: largest divergence from its own file. ``tolerance``:
    by how much less accurate a side may be and still count as no worse (a share, absolute).
    """

    accuracy: float | None = None
    mean_kl_nats: float | None = None
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.accuracy is None and self.mean_kl_nats is None:
            raise ValueError("quality needs accuracy or mean_kl_nats")
        if self.accuracy is not None and not 0 <= self.accuracy < 1:
            raise ValueError(f"quality.accuracy must lie from 0 to 1, got {self.accuracy}")
        if self.mean_kl_nats is not None and self.mean_kl_nats <= 0:
            raise ValueError(f"quality.mean_kl_nats must be above 0, got {self.mean_kl_nats}")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"quality.tolerance must lie from 0 to 1, got {self.tolerance}")


class Stopping(Record, frozen=True, kw_only=True):
    """When measuring ends: processes are added to the rigor's target, at most ``time_budget_s`` a configuration."""

    rigor: Rigor = "quick"
    time_budget_s: float
    quick_time_budget_s: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.time_budget_s, self.quick_time_budget_s) <= 0:
            raise ValueError("stopping.time_budget_s and quick_time_budget_s must be above 0")


class Claim(Record, frozen=True, kw_only=True):
    """A hypothesis with everything that its test depends on.

    ``ratio``: side a's ``metric`` is at least ``margin`` (a share) better than side b's. ``front``: side a costs at
    least ``margin`` less by ``metric`` and is no less accurate. ``languages``: reading the passage in each of
    ``languages`` costs at least ``margin`` more than in ``reference``, for side a. ``varying`` names the one thing that
    sides may differ in.
    """

    name: str
    version: int
    registered_utc: str
    statement: str
    scope: str
    kind: Kind
    scenario: str
    quick_scenario: str
    metric: str
    margin: float
    varying: Literal["model", "quant", "backend", "threads", "language"]
    a: Side
    b: Side | None = None
    quality: Floor | None = None
    languages: tuple[str, ...] = ()
    reference: str = "en"
    stopping: Stopping

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} must be lower case letters, digits, dots, dashes")
        if not 0 < self.margin < 10:  # noqa: PLR2004 - a tenfold change is stated as another claim
            raise ValueError(
                f"margin must be above 0 and below 10, got {self.margin}: without one nothing can be tested"
            )
        if self.metric not in ALLOWED[self.kind]:
            raise ValueError(
                f"metric {self.metric!r} does not go with kind {self.kind!r}: {_listed(ALLOWED[self.kind])}"
            )
        _ = self.registered
        for wrong in _impossible(self):
            raise ValueError(wrong)

    @property
    def registered(self) -> datetime:
        """When it was registered. Raises ``ValueError`` for a text that is no time of UTC."""
        wrong = f"registered_utc must be a time like 2026-11-25T00:00:00Z, got {self.registered_utc!r}"
        try:
            found = datetime.fromisoformat(self.registered_utc)
        except ValueError:
            raise ValueError(wrong) from None
        if found.tzinfo is None or found.utcoffset() != UTC.utcoffset(None):
            raise ValueError(wrong)
        return found

    @property
    def sha256(self) -> str:
        """Return the digest of all of it, over its RFC 8785 form."""
        return hashlib.sha256(canonical_json(msgspec.to_builtins(self))).hexdigest()

    @property
    def less(self) -> bool:
        """Say whether the claim is that side a takes less (joules, seconds, bytes), not that it does more."""
        return self.kind != "languages" and not self.metric.endswith("_per_s")

    @property
    def sides(self) -> tuple[Side, ...]:
        return (self.a,) if self.b is None else (self.a, self.b)


def _impossible(claim: Claim) -> list[str]:
    """Return what keeps a claim from being tested."""
    wrong = []
    if claim.kind == "languages":
        if claim.b is not None or claim.varying != "language":
            wrong.append('a claim about languages has one side, and varying = "language"')
        if not claim.languages or claim.reference in claim.languages:
            wrong.append("languages must name at least one, and not the reference")
        return wrong
    if claim.b is None:
        return ["a claim needs two sides, a and b"]
    if claim.languages:
        wrong.append('languages belongs to kind = "languages"')
    differing = [
        name for name in ("model", "backend", "quant", "threads") if getattr(claim.a, name) != getattr(claim.b, name)
    ]
    if differing != [claim.varying]:
        found = ", ".join(differing) or "nothing"
        wrong.append(f"sides must differ in {claim.varying} and in nothing else; they differ in {found}")
    if claim.less and claim.margin >= 1:
        wrong.append(f"margin {claim.margin:g}: nothing takes less than none; give a share below 1")
    if claim.kind == "front" and (claim.quality is None or claim.quality.accuracy is None):
        wrong.append("a front needs quality.accuracy: the least share of right answers that counts")
    return wrong


def list_claims() -> list[str]:
    """Return the names of the claims that ship."""
    folder = files(_PACKAGE).joinpath(_FOLDER)
    return sorted(e.name.removesuffix(".toml") for e in folder.iterdir() if e.name.endswith(".toml"))


def load_claim(name_or_path: str) -> Claim:
    """Return a shipped claim by name, or one from a ``.toml`` file.

    Raises ``UsageError`` for an unknown name (with the nearest), ``InputError`` for a file that cannot be read or whose
    claim cannot be tested.
    """
    if name_or_path.endswith(".toml"):
        return parse(_read(Path(name_or_path)), name_or_path)
    known = list_claims()
    if name_or_path not in known:
        near = difflib.get_close_matches(name_or_path, known, n=3) or known
        raise UsageError(f"unknown claim {name_or_path!r}", hint=f"known: {', '.join(near)}; or a path ending in .toml")
    text = files(_PACKAGE).joinpath(_FOLDER, f"{name_or_path}.toml").read_text(encoding="utf-8")
    return parse(text, name_or_path)


def parse(text: str, source: str) -> Claim:
    """Return the claim in a TOML text; ``source`` names it in errors. Raises ``InputError``."""
    try:
        spec: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{source}: not TOML: {error}", hint=_HINT) from None
    unknown = sorted(set(spec) - set(Claim.__struct_fields__))
    if unknown:
        near = difflib.get_close_matches(unknown[0], Claim.__struct_fields__, n=1)
        raise InputError(
            f"{source}: a claim has no key {unknown[0]!r}", hint=f"did you mean {near[0]!r}?" if near else _HINT
        )
    try:
        return msgspec.convert(spec, Claim)
    except msgspec.ValidationError as error:
        raise InputError(f"{source}: {error}", hint=_HINT) from None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_TOML_BYTES + 1)
        if len(data) > _MAX_TOML_BYTES:
            raise InputError(f"{path}: larger than {_MAX_TOML_BYTES} bytes", hint="a claim is a short TOML file")
        return data.decode("utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text", hint="a claim is a TOML file") from None


def _listed(names: frozenset[str]) -> str:
    return f"one of {', '.join(sorted(names))}"
