"""A seeded attacker changes one field of a plausible result; what passes stands on the list of docs/publish.md.

With the id left alone every change is found. With the id made again, whatever numbers or other fields follow from is
found; what nothing can check (who would know the kernel?) is published as such, and nothing else may pass.
"""

from __future__ import annotations

import json
import random
import re
from functools import cache
from typing import Any

import msgspec
from published_results import process, publishable
from regenerate import ROOT

from perjoule.errors import InputError
from perjoule.plausibility import implausible
from perjoule.publish.gate import examine
from perjoule.publish.private import Identity
from perjoule.records import MeterRefusal, Peak, Peaks, RunResult
from perjoule.store.canonical import canonical_id
from perjoule.store.read import decode
from perjoule.store.write import encode
from perjoule.verify import verify

EDITS = 1000
Way = tuple[str | int, ...]


@cache
def plausible() -> RunResult:
    """Return a result with every optional part that a CPU run has."""
    peak = Peak(
        unit="bytes/s", best=2e11, median=1.9e11, spread_share=0.01, repeats=5, way="sum", slower={"copy": 1e11}
    )
    ops = msgspec.structs.replace(peak, unit="ops/s", best=2e13, median=1.9e13)
    peaks = Peaks(
        measured_utc="2026-01-02T03:04:05Z", threads=2, runtime="numpy 2.0.0", kernels=1, cache_bytes=2**25,
        bandwidth=peak, int8=ops, fp32=ops, bf16=None, bf16_missing="the processor has none",
    )  # fmt: skip
    runs = []
    for number in range(5):
        made = process(number, requests=4)
        windows = tuple(
            msgspec.structs.replace(
                w, cpu_tick_s=0.01, throttle_count=0, swap_pages=0, pressure_cpu_s=0.001, pressure_memory_s=0.0,
                pressure_io_s=0.0, freq_hz=3e9, clock_jump_s=-1.5e-8, cpu_undercount_s=0.001,
            )
            for w in made.windows
        )  # fmt: skip
        record = msgspec.structs.replace(
            made.record, load_read_bytes=0, unwatched={"freq_hz": "one look in ten"}, others_count=1,
            others_cpu_share=0.001,
        )  # fmt: skip
        runs.append(msgspec.structs.replace(made, record=record, windows=windows))
    refused = MeterRefusal(meter="rapl", reason="it is not there", fix="look elsewhere", domain="package-0")
    return publishable(runs=tuple(runs), roofline_peaks=peaks, meters_refused=(refused,))


def leaves(value: Any, at: Way = ()) -> list[tuple[Way, Any]]:
    if isinstance(value, dict):
        return [found for key, inside in value.items() for found in leaves(inside, (*at, key))]
    if isinstance(value, list):
        return [found for n, inside in enumerate(value) for found in leaves(inside, (*at, n))]
    return [(at, value)]


def key_of(at: Way) -> str:
    return ".".join("[]" if isinstance(part, int) else part for part in at).replace(".[]", "[]")


def edited(value: Any, rng: random.Random) -> Any:
    """Return another value of the same kind, beyond what rounding forgives."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + max(1, round(abs(value) * rng.choice([1e-3, 0.1, 1.0]))) * rng.choice([1, 1, -1])
    if isinstance(value, float):
        return value * (1 + rng.choice([1e-5, -1e-5, 1e-2, -1e-2, 1.0])) + (1e-3 if value == 0 else 0.0)
    if value is None:
        return rng.choice([1, 0.5, "none"])
    if re.fullmatch(r"(sha256:)?[0-9a-f]{12,}", value):
        return value[:-1] + rng.choice([c for c in "0123456789abcdef" if c != value[-1]])
    return rng.choice([f"{value}x", value[:-1] or "y", value.swapcase() if value.swapcase() != value else f"{value} "])


def attacks(seed: int, *, but: str) -> list[tuple[str, Any]]:
    """Return ``EDITS`` contents with one field changed, every key in turn, and which key that is."""
    rng = random.Random(seed)
    whole = encode(plausible())
    content = json.loads(whole)
    by_key: dict[str, list[tuple[Way, Any]]] = {}
    for at, value in leaves(content):
        if key_of(at) != but:
            by_key.setdefault(key_of(at), []).append((at, value))
    keys = sorted(by_key)
    rng.shuffle(keys)
    made = []
    for n in range(EDITS):
        key = keys[n % len(keys)]
        at, value = rng.choice(by_key[key])
        other = edited(value, rng)
        assert other != value
        made.append((key, with_edit(whole, at, other)))
    return made


def with_edit(whole: bytes, at: Way, value: Any) -> Any:
    content = json.loads(whole)
    inside = content
    for part in at[:-1]:
        inside = inside[part]
    inside[at[-1]] = value
    return content


def read(content: Any) -> RunResult | None:
    try:
        return decode(json.dumps(content, sort_keys=True, indent=1).encode() + b"\n", "x.json")
    except InputError:
        return None


def listed() -> set[str]:
    """Return the keys that docs/publish.md says nothing can check."""
    page = (ROOT / "docs" / "publish.md").read_text(encoding="utf-8")
    table = page.split("<!-- unchecked: begin -->")[1].split("<!-- unchecked: end -->")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_there_is_nothing_against_the_result_itself(tmp_path):
    path = tmp_path / "r.json"
    path.write_bytes(encode(plausible()))
    assert examine(path, Identity()).against == ()


def test_every_change_is_found_where_the_id_is_left_alone():
    passed = []
    for key, content in attacks(1, but=""):
        result = read(content)
        if result is not None and not any(line.startswith("id:") for line in verify(result)):
            passed.append(key)
    assert passed == []


def test_with_the_id_made_again_only_what_is_listed_passes():
    passed, found = set(), set()
    for key, content in attacks(2, but="id"):
        result = read(content)
        if result is not None:
            result = msgspec.structs.replace(result, id=canonical_id(result))
        if result is None or verify(result) or implausible(result):
            found.add(key)
        else:
            passed.add(key)
    assert sorted(passed - listed()) == [], "check it, or list it in docs/publish.md"
    assert not {key for key in passed if key.startswith(("metrics", "energy", "checks", "publishable"))}
    assert len(found) > 300


def test_whatever_is_listed_can_pass():
    rng = random.Random(3)
    whole = encode(plausible())
    ways: dict[str, list[tuple[Way, Any]]] = {key: [] for key in listed()}
    for at, value in leaves(json.loads(whole)):
        ways.get(key_of(at), []).append((at, value))
    checked = [key for key, found in ways.items() if not any(passes(whole, *rng.choice(found), rng) for _ in range(40))]
    assert sorted(checked) == [], "it is checked: take it off the list in docs/publish.md"


def passes(whole: bytes, at: Way, value: Any, rng: random.Random) -> bool:
    result = read(with_edit(whole, at, edited(value, rng)))
    if result is None:
        return False
    result = msgspec.structs.replace(result, id=canonical_id(result))
    return not implausible(result) and not verify(result)
