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
from msgspec import UnsetType

from perjoule.errors import InputError, UsageError
from perjoule.load.prompts import corpus_sha256
from perjoule.records import UNSET, Record, ScenarioFacts
from perjoule.store.canonical import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Rigor = Literal["quick", "standard", "strict"]
Shape = Literal["single-stream", "multi-stream", "offline", "server", "cold-start", "idle"]
Arrivals = Literal["poisson", "constant", "recorded"]
PageCache = Literal["warm", "dropped"]
Switch = Literal["on", "off"]
SweepKey = Literal["threads", "batch", "clients", "prompt_tokens", "new_tokens", "rate_per_s"]

_PACKAGE = "perjoule_scenarios"  # reached by name: perjoule does not import it
_MAX_TOML_BYTES = 64 * 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HINT = "compare with `perjoule scenarios show quickstart`"

# Fewest processes, half-width of the 95 % interval, seconds that may be spent, and that must be measured. Strict:
# MLPerf Inference's rules ask for 600 s of load a scenario (and early stopping at 0.99: perjoule.stats.early_stopping).
_RIGOR: dict[str, dict[str, float]] = {
    "quick": {"min_processes": 5, "target_half_width": 0.05, "time_budget_s": 60.0, "min_measured_s": 0.0},
    "standard": {"min_processes": 8, "target_half_width": 0.02, "time_budget_s": 600.0, "min_measured_s": 0.0},
    "strict": {"min_processes": 12, "target_half_width": 0.01, "time_budget_s": 3600.0, "min_measured_s": 600.0},
}
_FIXED = frozenset({"name", "version", "corpus_sha256", "questions_sha256"})  # not to be changed by --set
_AT_LEAST_ONE = (
    "version", "prompt_tokens", "new_tokens", "min_processes", "requests_per_process", "clients", "batch",
)  # fmt: skip
_OF_SPANS = frozenset({"multi-stream", "offline", "server"})
_LONGEST_S = 86_400.0  # of one process' load
_MAX_ARRIVALS = 1_000_000


class Slo(Record, frozen=True, kw_only=True):
    """Service level: the share of requests that must meet both limits (MLPerf: 0.99). A limit may be left out."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    share: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ttft_s is None and self.tpot_s is None:
            msg = "slo needs ttft_s or tpot_s"
            raise ValueError(msg)
        for name in ("ttft_s", "tpot_s"):
            limit = getattr(self, name)
            if limit is not None and limit <= 0:
                msg = f"slo.{name} must be above 0, got {limit}"
                raise ValueError(msg)
        if not 0 < self.share < 1:
            msg = f"slo.share must lie between 0 and 1, got {self.share}"
            raise ValueError(msg)


class Sweep(Record, frozen=True, kw_only=True):
    """One key takes several values; each is a configuration of its own, measured interleaved with the others."""

    key: SweepKey
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.values)) < len(self.values) or len(self.values) < 2:  # noqa: PLR2004 - one value is no sweep
            msg = "sweep.values needs at least two values, all different"
            raise ValueError(msg)
        whole = self.key != "rate_per_s"
        if any(v <= 0 or (whole and v != int(v)) for v in self.values):
            msg = f"sweep.values must be {'whole numbers ' if whole else ''}above 0, got {list(self.values)}"
            raise ValueError(msg)


class Scenario(Record, frozen=True, kw_only=True):
    """One scenario, complete: everything that the numbers depend on beside model, engine and machine.

    ``target_half_width`` is relative; ``time_budget_s`` limits how long processes are added beyond
    ``min_processes``. ``corpus_sha256`` is filled in on loading. The first warm-up request is the cold one.
    ``requests_per_process`` are measured in each process, over all clients, and more until ``duration_s`` is over.
    """

    name: str
    version: int
    description: str
    shape: Shape
    prompt_tokens: int
    new_tokens: int
    corpus: str
    corpus_sha256: str = ""
    rigor: Rigor
    min_processes: int
    target_half_width: float
    time_budget_s: float
    min_measured_s: float = 0.0
    requests_per_process: int = 3
    max_warmup_requests: int = 6
    clients: int = 1  # multi-stream: so many send their next request when the last was answered
    batch: int = 1  # requests that the engine works on at a time; the others wait in a queue
    arrivals: Arrivals | None = None  # server
    rate_per_s: float | None = None  # server: offered load
    arrival_times_s: tuple[float, ...] = ()  # server, recorded: seconds from the start of the load
    duration_s: float | None = None  # of the load in each process
    find_rate: bool = False  # server: look for the highest rate that meets the SLO, then measure there
    slo: Slo | None = None
    tasks: tuple[str, ...] = ()  # asked in place of the corpus' prompts: names, or paths of JSON Lines
    levels: tuple[int, ...] = ()  # of difficulty
    languages: tuple[str, ...] = ()  # of the questions; with ``passages`` those that are read
    items: int = 0  # questions of each task, language and level
    thinking: Switch | UnsetType = UNSET  # of models whose chat template has a switch for it; left out: as it ships
    passages: bool = False  # the same text is read in every language
    questions_sha256: str = ""  # filled in on loading: of all questions and their answers, or of the passages
    page_cache: PageCache = "warm"  # dropped: the model's files are read from the disk again
    sweep: Sweep | None = None

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
        for field in ("time_budget_s", "rate_per_s", "duration_s"):
            value = getattr(self, field)
            if value is not None and value <= 0:
                msg = f"{field} must be above 0, got {value}"
                raise ValueError(msg)
        if self.duration_s is not None and self.duration_s > _LONGEST_S:
            msg = f"duration_s must be at most {_LONGEST_S:g}, got {self.duration_s}"
            raise ValueError(msg)
        for wrong in _impossible(self):
            raise ValueError(wrong)

    @property
    def spans(self) -> bool:
        """Whether requests are served beside or behind each other, so that they share a window."""
        return self.shape in _OF_SPANS

    @property
    def offered_rate_per_s(self) -> float | None:
        """Requests due a second, on average; None where nothing is scheduled or the rate is looked for."""
        if self.arrivals == "recorded" and self.duration_s:
            return len(self.arrival_times_s) / self.duration_s
        return self.rate_per_s


def _impossible(scenario: Scenario) -> Iterator[str]:
    """Yield what does not go together, each naming the key."""
    shape = scenario.shape
    if shape not in {"cold-start", "idle"} and scenario.max_warmup_requests < 1:
        yield f"max_warmup_requests must be at least 1, got {scenario.max_warmup_requests}"
    if shape == "cold-start" and (scenario.max_warmup_requests or scenario.requests_per_process != 1):
        yield "cold-start measures the first request: max_warmup_requests must be 0 and requests_per_process 1"
    if scenario.page_cache == "dropped" and shape != "cold-start":
        yield f"page_cache = 'dropped' belongs to cold-start, not to {shape}"
    if scenario.clients > 1 and shape != "multi-stream":
        yield f"clients belongs to multi-stream, not to {shape}"
    if scenario.batch > 1 and not scenario.spans:
        yield f"batch belongs to multi-stream, offline and server, not to {shape}"
    if shape == "multi-stream" and scenario.requests_per_process < scenario.clients:
        yield f"requests_per_process must be at least clients ({scenario.clients}), got {scenario.requests_per_process}"
    yield from _impossible_questions(scenario)
    if shape == "idle" and scenario.duration_s is None:
        yield "idle needs duration_s"
    if shape in {"offline", "idle"} and scenario.slo is not None:
        yield f"slo does not belong to {shape}: no latency is judged there"
    if shape in {"offline", "cold-start"} and scenario.duration_s is not None:
        yield f"duration_s does not belong to {shape}: it ends with its last request"
    yield from _impossible_server(scenario)


def _impossible_questions(scenario: Scenario) -> Iterator[str]:
    asks = {"tasks": scenario.tasks, "passages": scenario.passages}
    of_them = {"levels": scenario.levels, "languages": scenario.languages, "items": scenario.items}
    asked = [key for key, value in asks.items() if value]
    if len(asked) > 1:
        yield "tasks and passages are two scenarios: give one of them"
    if asked and (scenario.shape != "single-stream" or scenario.duration_s is not None):
        yield f"{asked[0]} belongs to single-stream, and ends with its last question"
    if not asked:
        yield from (f"{key} belongs to tasks or passages" for key, value in of_them.items() if value)
    if scenario.thinking is not UNSET and not scenario.tasks:
        yield "thinking belongs to tasks: nothing else is put in the model's chat template"
    if scenario.tasks and scenario.items < 1:
        yield "tasks needs items: how many questions of each task, language and level"
    if scenario.passages and (scenario.levels or scenario.items):
        yield "levels and items belong to tasks, not to passages"
    if scenario.passages and len(scenario.languages) < 2:  # noqa: PLR2004 - else nothing to hold it against
        yield "passages needs at least two languages"


def _impossible_server(scenario: Scenario) -> Iterator[str]:
    times, shape = scenario.arrival_times_s, scenario.shape
    if shape != "server":
        wrong = {
            "arrivals": scenario.arrivals, "rate_per_s": scenario.rate_per_s, "arrival_times_s": times,
            "find_rate": scenario.find_rate,
        }  # fmt: skip
        yield from (f"{key} belongs to server, not to {shape}" for key, value in wrong.items() if value)
        return
    if scenario.duration_s is None:
        yield "server needs duration_s"
        return
    if scenario.arrivals is None:
        yield "server needs arrivals: poisson, constant or recorded"
    if scenario.find_rate and scenario.slo is None:
        yield "find_rate needs slo: the limits to be met"
    if scenario.arrivals == "recorded":
        yield from _impossible_recording(scenario, scenario.duration_s)
    elif times:
        yield f"arrival_times_s belongs to recorded arrivals, not to {scenario.arrivals}"
    elif scenario.find_rate == (scenario.rate_per_s is not None):
        yield "server needs either rate_per_s or find_rate = true"
    elif scenario.rate_per_s is not None and not 1 <= scenario.rate_per_s * scenario.duration_s <= _MAX_ARRIVALS:
        yield f"rate_per_s times duration_s must be 1 to {_MAX_ARRIVALS} requests"


def _impossible_recording(scenario: Scenario, duration_s: float) -> Iterator[str]:
    times = scenario.arrival_times_s
    if not times or len(times) > _MAX_ARRIVALS or list(times) != sorted(times):
        yield f"arrival_times_s must be 1 to {_MAX_ARRIVALS} times in order, for recorded arrivals"
    elif times[-1] >= duration_s:
        yield f"arrival_times_s must lie within duration_s ({duration_s:g})"
    if scenario.rate_per_s is not None or scenario.find_rate:
        yield "rate_per_s and find_rate do not belong to recorded arrivals"


def sweep_points(scenario: Scenario) -> list[tuple[float | None, Scenario]]:
    """Return the scenario at each value of its sweep, or alone with None. ``threads`` is left to the engine's options.

    Raises ``UsageError`` where a value does not go with the rest.
    """
    sweep = scenario.sweep
    if sweep is None:
        return [(None, scenario)]
    if sweep.key == "threads":
        return [(value, scenario) for value in sweep.values]
    points: list[tuple[float | None, Scenario]] = []
    for value in sweep.values:
        change = value if sweep.key == "rate_per_s" else int(value)
        points.append((value, with_overrides(scenario, {sweep.key: change})))
    return points


_TABLES = {"slo": Slo.__struct_fields__, "sweep": Sweep.__struct_fields__}


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
    spec: dict[str, Any] = msgspec.to_builtins(scenario)
    rigor = changes.get("rigor", scenario.rigor)
    if rigor not in _RIGOR:
        raise UsageError(f"unknown rigor {rigor!r}", hint=f"known: {', '.join(_RIGOR)}")
    if "rigor" in changes:
        spec |= _RIGOR[rigor]
    for key, value in changes.items():
        table, dot, inner = key.partition(".")
        plain = set(Scenario.__struct_fields__) - _FIXED - set(_TABLES)
        known = sorted(plain | {f"{name}.{inside}" for name, keys in _TABLES.items() for inside in keys})
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3) or known
            raise UsageError(f"--set {key}: a scenario has no such key", hint=f"known: {', '.join(near)}")
        if key == "rate_per_s" and value is not None and "find_rate" not in changes:
            spec["find_rate"] = False  # a rate that is given need not be found
        if key == "find_rate" and value and "rate_per_s" not in changes:
            spec["rate_per_s"] = None
        if dot:
            spec[table] = {**(spec[table] or {}), inner: value}
        else:
            spec[key] = value
    try:
        spec["corpus_sha256"] = corpus_sha256(str(spec["corpus"]))
        return _with_questions(msgspec.convert(spec, Scenario, strict=False))
    except msgspec.ValidationError as error:
        raise UsageError(f"scenario {scenario.name}: {error}", hint=_HINT) from None


def _with_questions(scenario: Scenario) -> Scenario:
    """Fill in the digest of what is asked. Raises as ``quality.questions.asked``."""
    if not scenario.tasks and not scenario.passages:
        return scenario
    from perjoule.quality import questions  # noqa: PLC0415 - only where something is asked

    if scenario.tasks:
        found = questions.asked(scenario.tasks, scenario.languages, scenario.levels, scenario.items)
        digest = questions.questions_sha256(found)
    else:
        digest = questions.passages_sha256(questions.passages(scenario.languages))
    return msgspec.structs.replace(scenario, questions_sha256=digest)


def facts(scenario: Scenario) -> ScenarioFacts:
    """Return what a result records of the scenario; ``sha256`` is over the RFC 8785 form of ``spec``."""
    spec = msgspec.json.decode(msgspec.json.encode(scenario))  # as it is read back: lists, no tuples
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
    for computed in ("corpus_sha256", "questions_sha256"):
        if computed in spec:
            raise InputError(f"{source}: {computed} is computed, not set", hint="remove the line")
    try:
        spec["corpus_sha256"] = corpus_sha256(str(spec.get("corpus")))
        return _with_questions(msgspec.convert({**_RIGOR[rigor], **spec, "rigor": rigor}, Scenario))
    except msgspec.ValidationError as error:
        raise InputError(f"{source}: {error}", hint=_HINT) from None
