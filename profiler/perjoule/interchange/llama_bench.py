"""Files of llama.cpp's llama-bench: JSON, JSON Lines and CSV, one record for each test in them.

What the fields mean is in ``tools/llama-bench/llama-bench.cpp`` of ggml-org/llama.cpp: ``avg_ts`` is the mean over
repetitions of (n_prompt + n_gen) / seconds, ``stddev_ts`` their deviation (divisor n - 1); a repetition runs in the
same process on random tokens, without tokenizing and sampling; ``n_depth`` tokens are cached before the clock starts.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from perjoule import __version__
from perjoule.errors import InputError
from perjoule.interchange.record import (
    Figure,
    Imported,
    ImportedRecord,
    OtherModel,
    OtherTool,
    Source,
    figure,
    flattened,
    with_id,
)
from perjoule.interchange.strict import MAX_EXACT, fact, read_bytes, text_of
from perjoule.records import UNSET, Missing, ToolFacts
from perjoule.store.strict_json import strict_json

NAME = "llama-bench"
MOST_TESTS = 1000  # each becomes a file
_HINT = "give what `llama-bench -o json` (or jsonl, csv) printed"
_REPEATS = "repetitions share one process, and the process is what varies from run to run"
_NO_ENERGY = "llama-bench reads no energy"
_NO_MEMORY = "llama-bench records no memory use"
_TEST_KEYS = ("n_prompt", "n_gen", "n_depth", "test_time")
_TIMES = ("avg_ns", "stddev_ns", "avg_ts", "stddev_ts", "samples_ns", "samples_ts")
_OFF = 1e-3  # of samples: they are printed with six digits
_RATE = "mean over repetitions of tokens over seconds"


def read_llama_bench(path: str | Path) -> list[ImportedRecord]:
    """Return a record of every test in the file. Raises ``InputError`` naming file and test."""
    source = str(path)
    data = read_bytes(Path(path), _HINT)
    text = text_of(data, source, _HINT).strip()
    form = _form(text, source)
    tests = {"json": _from_json, "jsonl": _from_lines, "csv": _from_csv}[form](text, source)
    if not tests:
        raise InputError(f"{source}: there is no test in it", hint=_HINT)
    if len(tests) > MOST_TESTS:
        raise InputError(f"{source}: {len(tests)} tests, at most {MOST_TESTS} are imported at once", hint="split it")
    digest = hashlib.sha256(data).hexdigest()
    return [
        _record(test, Source(form=form, sha256=digest, file_bytes=len(data), position=i), f"{source}: test {i + 1}")
        for i, test in enumerate(tests)
    ]


def _form(text: str, source: str) -> str:
    first = text.splitlines()[0].strip()
    if first.startswith("["):
        return "json"
    if first.startswith("{"):
        return "jsonl" if '"build_commit"' in first or '"avg_ts"' in first else "json"
    if first.startswith("|"):
        raise InputError(
            f"{source}: this is llama-bench's Markdown table, whose numbers are rounded",
            hint="use `llama-bench -o json`",
        )
    if first.upper().startswith(("CREATE TABLE", "INSERT INTO", "BEGIN")):
        raise InputError(f"{source}: this is llama-bench's SQL, which is not read", hint="use `llama-bench -o json`")
    if "avg_ts" in first.split(",") or '"avg_ts"' in first.split(","):
        return "csv"
    raise InputError(f"{source}: not a file of llama-bench", hint=_HINT)


def _from_json(text: str, source: str) -> list[dict[str, Any]]:
    content = strict_json(text, source, f"{_HINT}; a run that was cut short leaves a whole file only as jsonl")
    tests = content if isinstance(content, list) else [content]
    if not all(isinstance(test, dict) for test in tests):
        raise InputError(f"{source}: not a list of tests", hint=_HINT)
    return tests


def _from_lines(text: str, source: str) -> list[dict[str, Any]]:
    numbered = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    tests = [strict_json(line, f"{source}: line {n}", _HINT) for n, line in numbered]
    if not all(isinstance(test, dict) for test in tests):
        raise InputError(f"{source}: a line that is no test", hint=_HINT)
    return tests


def _from_csv(text: str, source: str) -> list[dict[str, Any]]:
    try:
        head, *rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except csv.Error as error:
        raise InputError(f"{source}: not CSV: {error}", hint=_HINT) from None
    if len(set(head)) != len(head):
        raise InputError(f"{source}: a column is named twice", hint=_HINT)
    for number, row in enumerate(rows, 1):
        if len(row) != len(head):
            raise InputError(f"{source}: test {number}: {len(row)} cells under {len(head)} columns", hint=_HINT)
    return [dict(zip(head, row, strict=True)) for row in rows]


def _number(test: dict[str, Any], key: str, source: str) -> float | None:
    """Return a number that is not negative, None where the file has no such key; text of a CSV is read as one."""
    value = test.get(key)
    if value is None:
        return None
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            number = float(value)
    if not math.isfinite(number) or number < 0:
        raise InputError(f"{source}: {key} is {str(value)[:32]!r}, not a number from 0 up", hint=_HINT)
    return number


def _needed(test: dict[str, Any], key: str, source: str) -> float:
    value = _number(test, key, source)
    if value is None:
        raise InputError(f"{source}: there is no {key}", hint=_HINT)
    return value


def _count(test: dict[str, Any], key: str, source: str, default: int | None = None) -> int:
    value = _number(test, key, source) if default is not None else _needed(test, key, source)
    number = float(default or 0) if value is None else value
    if not number.is_integer() or number > MAX_EXACT:
        raise InputError(f"{source}: {key} is {number:g}, not a count", hint=_HINT)
    return int(number)


def _text(test: dict[str, Any], key: str) -> str | None:
    value = fact(test.get(key))
    return value.strip() if isinstance(value, str) and value.strip() else None


def _record(test: dict[str, Any], origin: Source, source: str) -> ImportedRecord:
    prompt, gen = _count(test, "n_prompt", source), _count(test, "n_gen", source)
    depth = _count(test, "n_depth", source, 0)  # absent before llama.cpp had it
    if prompt + gen == 0:
        raise InputError(f"{source}: it has neither prompt nor generated tokens", hint=_HINT)
    name = "+".join(part for part in (f"pp{prompt}" * (prompt > 0), f"tg{gen}" * (gen > 0)) if part)
    rate, remarks = _rate(test, source)
    metrics, other = _metrics(prompt, gen, depth, rate)
    file, build = _text(test, "model_filename"), _text(test, "build_number") or test.get("build_number")
    commit, measured = _text(test, "build_commit"), _text(test, "test_time")
    return with_id(
        ImportedRecord(
            tool=OtherTool(
                name=NAME, version=None if build is None else f"b{str(build)[:32]}",
                version_missing="the file has no build_number" if build is None else UNSET,
                commit=commit, commit_missing=UNSET if commit else "the file has no build_commit",
            ),
            imported_by=ToolFacts(name="perjoule", version=__version__),
            source=origin, measured_utc=measured,
            measured_utc_missing=UNSET if measured else "the file has no test_time",
            test=name + (f" @ d{depth}" if depth else ""),
            load={"prompt_tokens": prompt, "output_tokens": gen, "depth_tokens": depth},
            model=_model(test, file, source),
            device=_text(test, "backends") or "not said",
            facts={key: fact(value) for key, value in test.items() if key not in (*_TEST_KEYS, *_TIMES)},
            metrics=flattened(metrics), other=other, intervals_missing=_REPEATS, remarks=remarks,
        )
    )  # fmt: skip


def _model(test: dict[str, Any], file: str | None, source: str) -> OtherModel:
    kind = _text(test, "model_type")
    size, parameters = (
        None if test.get(k) is None else _count(test, k, source) for k in ("model_size", "model_n_params")
    )
    return OtherModel(
        name=file or kind or "not named", description=kind,
        description_missing=UNSET if kind else "the file has no model_type",
        parameters=parameters, parameters_missing="the file has no model_n_params" if parameters is None else UNSET,
        weights_bytes=size, weights_bytes_missing="the file has no model_size" if size is None else UNSET,
    )  # fmt: skip


def _rate(test: dict[str, Any], source: str) -> tuple[Figure, tuple[str, ...]]:
    """Return tokens per second as the file gives them, with what does not fit in it."""
    mean = _needed(test, "avg_ts", source)
    if mean <= 0:
        raise InputError(f"{source}: avg_ts is {mean:g}, nothing was measured", hint=_HINT)
    samples = test.get("samples_ts")
    if not isinstance(samples, list):
        samples = []
    values = [_needed({"samples_ts": v}, "samples_ts", source) for v in samples]
    remarks: tuple[str, ...] = ()
    if values and abs(math.fsum(values) / len(values) - mean) > _OFF * mean:
        remarks = ("avg_ts is not the mean of samples_ts",)
    missing = "a CSV does not say how often a test was repeated" if not values else ""
    made = figure(mean, "tokens/s", _RATE, spread=_number(test, "stddev_ts", source), values=values, n_missing=missing)
    return made, remarks


def _metrics(prompt: int, gen: int, depth: int, rate: Figure) -> tuple[dict[str, Imported], dict[str, Any]]:
    mixed = bool(prompt and gen)
    own = "prefill_tokens_per_s" if prompt else "decode_tokens_per_s"
    metrics: dict[str, Imported] = {
        "prefill_tokens_per_s": Missing(reason="the test generates and reads no prompt"),
        "decode_tokens_per_s": Missing(reason="the test reads a prompt and generates nothing"),
        "ttft_s": Missing(reason="llama-bench stops no clock at a first token"),
        "peak_memory_bytes": Missing(reason=_NO_MEMORY),
        "energy_j_per_output_token": Missing(reason=_NO_ENERGY),
    }
    if mixed:
        why = "prompt and generated tokens are counted together, over one time"
        return metrics | {n: Missing(reason=why) for n in ("prefill_tokens_per_s", "decode_tokens_per_s")}, {
            "prompt_and_generated_tokens_per_s": rate
        }
    if prompt and depth:
        why = f"{depth} tokens were in the cache before: it is no prefill of a whole prompt"
        return metrics | {own: Missing(reason=why)}, {f"prefill_at_depth_{depth}_tokens_per_s": rate}
    return metrics | {own: rate}, {}
