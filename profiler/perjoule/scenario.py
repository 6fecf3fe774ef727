"""Scenarios: what load is put on an engine, and how surely it is to be measured. Data, read from TOML."""

from __future__ import annotations

import difflib
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec

from perjoule.errors import InputError, UsageError
from perjoule.records import Record, ScenarioFacts
from perjoule.store.canonical import canonical_json

_PACKAGE = "perjoule_scenarios"  # reached by name: perjoule does not import it

Rigor = Literal["quick", "standard", "strict"]


class Effort(Record, frozen=True, kw_only=True):
    """What a rigor asks: fresh processes at least, relative 95 % half-width aimed at, and seconds allowed."""

    min_processes: int
    target_half_width: float
    time_budget_s: float


EFFORT: dict[Rigor, Effort] = {
    "quick": Effort(min_processes=5, target_half_width=0.05, time_budget_s=60),
    "standard": Effort(min_processes=8, target_half_width=0.02, time_budget_s=600),
    "strict": Effort(min_processes=12, target_half_width=0.01, time_budget_s=3600),
}


class Scenario(Record, frozen=True, kw_only=True):
    """One load. ``time_budget_s`` and ``min_processes`` follow from the rigor unless they are set."""

    name: str
    version: int
    description: str
    shape: Literal["single-stream"]
    corpus: str
    prompt_tokens: int
    new_tokens: int
    rigor: Rigor
    requests_per_process: int
    max_warmup_requests: int
    min_processes: int = 0
    time_budget_s: float = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("prompt_tokens", "new_tokens", "requests_per_process", "max_warmup_requests", "version"):
            if getattr(self, name) < 1:
                msg = f"{name} must be at least 1, got {getattr(self, name)}"
                raise ValueError(msg)
        if self.min_processes < 0:
            msg = "min_processes must not be negative"
            raise ValueError(msg)

    @property
    def effort(self) -> Effort:
        base = EFFORT[self.rigor]
        return Effort(
            min_processes=self.min_processes or base.min_processes,
            target_half_width=base.target_half_width,
            time_budget_s=self.time_budget_s or base.time_budget_s,
        )


def list_scenarios() -> list[str]:
    return sorted(p.name.removesuffix(".toml") for p in files(_PACKAGE).iterdir() if p.name.endswith(".toml"))


def load_scenario(name_or_path: str) -> Scenario:
    """Load a shipped scenario by name, or a TOML file by path. Raises ``InputError`` naming file and key."""
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        try:
            text = path.read_bytes()
        except OSError as error:
            raise InputError(f"{name_or_path}: {error.strerror}", hint="give the path of a scenario file") from error
        return _parse(text, name_or_path)
    known = list_scenarios()
    if name_or_path not in known:
        near = difflib.get_close_matches(name_or_path, known, n=3) or known
        raise InputError(f"unknown scenario {name_or_path!r}", hint=f"known: {', '.join(near)}; or a path ending in .toml")
    return _parse(files(_PACKAGE).joinpath(f"{name_or_path}.toml").read_bytes(), name_or_path)


def with_overrides(scenario: Scenario, changes: dict[str, Any]) -> Scenario:
    """Return the scenario with some keys changed, checked like a file. Raises ``UsageError`` naming the key."""
    fields = msgspec.structs.asdict(scenario)
    for key in changes:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=3) or sorted(fields)
            raise UsageError(f"--set {key}: a scenario has no such key", hint=f"nearest: {', '.join(near)}")
    try:
        return msgspec.convert(fields | changes, Scenario)
    except (msgspec.ValidationError, ValueError) as error:
        raise UsageError(f"scenario {scenario.name}: {error}", hint="see `perjoule scenarios show quickstart`") from error


def facts(scenario: Scenario) -> ScenarioFacts:
    """Return what a result keeps of a scenario; the hash is SHA-256 over the RFC 8785 form of ``spec``."""
    spec = msgspec.to_builtins(scenario)
    digest = hashlib.sha256(canonical_json(spec)).hexdigest()
    return ScenarioFacts(name=scenario.name, version=scenario.version, sha256=digest, spec=spec)


def _parse(text: bytes, source: str) -> Scenario:
    try:
        return msgspec.toml.decode(text, type=Scenario)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InputError(f"{source}: {error}", hint="see `perjoule scenarios show quickstart` for the keys") from error
