"""Scenarios: what load is put on an engine, and how surely it is to be measured. Data, read from TOML.

Imported by ``perjoule --help``: nothing heavy may be imported here.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from perjoule.errors import InputError, UsageError
from perjoule.load.prompts import corpus_sha256
from perjoule.records import Record, ScenarioFacts
from perjoule.store.canonical import canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

Rigor = Literal["quick", "standard", "strict"]

_PACKAGE = "perjoule_scenarios"  # reached by name: perjoule does not import it
_MAX_TOML_BYTES = 64 * 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HINT = "compare with `perjoule scenarios show quickstart`"

# docs/method.md, "Repeats and statistics": fewest processes, half-width of the 95 % interval, seconds.
_RIGOR: dict[str, dict[str, float]] = {
    "quick": {"min_processes": 5, "target_half_width": 0.05, "time_budget_s": 60.0},
    "standard": {"min_processes": 8, "target_half_width": 0.02, "time_budget_s": 600.0},
    "strict": {"min_processes": 12, "target_half_width": 0.01, "time_budget_s": 3600.0},
}
_FIXED = frozenset({"name", "version", "corpus_sha256"})  # not to be changed by --set
_AT_LEAST_ONE = (
    "version", "prompt_tokens", "new_tokens", "min_processes", "requests_per_process", "max_warmup_requests",
)  # fmt: skip


class Scenario(Record, frozen=True, kw_only=True):
    """One scenario, complete: everything that the numbers depend on beside model, engine and machine.

    ``target_half_width`` is relative; ``time_budget_s`` limits how long processes are added beyond
    ``min_processes``. ``corpus_sha256`` is filled in on loading. The first warm-up request is the cold one.
    """

    name: str
    version: int
    description: str
    shape: Literal["single-stream"]
    prompt_tokens: int
    new_tokens: int
    corpus: str
    corpus_sha256: str = ""
    rigor: Rigor
    min_processes: int
    target_half_width: float
    time_budget_s: float
    requests_per_process: int = 3
    max_warmup_requests: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _NAME.fullmatch(self.name):
            msg = f"name {self.name!r} must be lower case letters, digits, dots, dashes"
            raise ValueError(msg)
        for field in _AT_LEAST_ONE:
            if getattr(self, field) < 1:
                msg = f"{field} must be at least 1, got {getattr(self, field)}"
                raise ValueError(msg)
        if not 0 < self.target_half_width < 1:
            msg = f"target_half_width must lie between 0 and 1, got {self.target_half_width}"
            raise ValueError(msg)


def list_scenarios() -> list[str]:
    """Return the names of the scenarios that ship."""
    return sorted(e.name.removesuffix(".toml") for e in files(_PACKAGE).iterdir() if e.name.endswith(".toml"))


def load_scenario(name_or_path: str) -> Scenario:
    """Return a shipped scenario by name, or one from a ``.toml`` file.

    Raises ``UsageError`` for an unknown name (with the nearest), ``InputError`` for a file that cannot be
    read or says something wrong.
    """
    if name_or_path.endswith(".toml"):
        return _parse(_read(Path(name_or_path)), name_or_path)
    known = list_scenarios()
    if name_or_path not in known:
        near = difflib.get_close_matches(name_or_path, known, n=3) or known
        raise UsageError(
            f"unknown scenario {name_or_path!r}", hint=f"known: {', '.join(near)}; or a path ending in .toml"
        )
    text = files(_PACKAGE).joinpath(f"{name_or_path}.toml").read_text(encoding="utf-8")
    return _parse(text, name_or_path)


def with_overrides(scenario: Scenario, changes: Mapping[str, Any]) -> Scenario:
    """Return the scenario with some keys changed, checked like a file; values may be strings.

    A new rigor brings its own processes, target and budget, unless they are changed too. Raises ``UsageError``.
    """
    spec: dict[str, Any] = msgspec.structs.asdict(scenario)
    rigor = changes.get("rigor", scenario.rigor)
    if rigor not in _RIGOR:
        raise UsageError(f"unknown rigor {rigor!r}", hint=f"known: {', '.join(_RIGOR)}")
    if "rigor" in changes:
        spec |= _RIGOR[rigor]
    for key in changes:
        if key not in spec or key in _FIXED:
            known = sorted(set(spec) - _FIXED)
            near = difflib.get_close_matches(key, known, n=3) or known
            raise UsageError(f"--set {key}: a scenario has no such key", hint=f"known: {', '.join(near)}")
    spec |= changes
    try:
        spec["corpus_sha256"] = corpus_sha256(str(spec["corpus"]))
        return msgspec.convert(spec, Scenario, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"scenario {scenario.name}: {error}", hint=_HINT) from None


def facts(scenario: Scenario) -> ScenarioFacts:
    """Return what a result records of the scenario; ``sha256`` is over the RFC 8785 form of ``spec``."""
    spec = msgspec.to_builtins(scenario)
    return ScenarioFacts(name=scenario.name, version=scenario.version, sha256=spec_sha256(spec), spec=spec)


def spec_sha256(spec: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(spec)).hexdigest()


def from_facts(recorded: ScenarioFacts) -> Scenario:
    """Return the scenario a result was made with. Raises ``InputError`` if its spec is not one."""
    try:
        return msgspec.convert(recorded.spec, Scenario)
    except msgspec.ValidationError as error:
        raise InputError(f"scenario {recorded.name}: {error}", hint="the file was changed by hand") from None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_TOML_BYTES + 1)
        if len(data) > _MAX_TOML_BYTES:
            raise InputError(f"{path}: larger than {_MAX_TOML_BYTES} bytes", hint="a scenario is a short TOML file")
        return data.decode("utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="`perjoule scenarios list` shows what ships") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text", hint="a scenario is a short TOML file") from None


def _parse(text: str, source: str) -> Scenario:
    try:
        spec = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{source}: not TOML: {error}", hint=_HINT) from None
    rigor = spec.get("rigor", "quick")
    if not isinstance(rigor, str) or rigor not in _RIGOR:
        raise InputError(f"{source}: unknown rigor {rigor!r}", hint=f"known: {', '.join(_RIGOR)}")
    if "corpus_sha256" in spec:
        raise InputError(f"{source}: corpus_sha256 is computed, not set", hint="remove the line")
    try:
        spec["corpus_sha256"] = corpus_sha256(str(spec.get("corpus")))
        return msgspec.convert({**_RIGOR[rigor], **spec, "rigor": rigor}, Scenario)
    except msgspec.ValidationError as error:
        raise InputError(f"{source}: {error}", hint=_HINT) from None
