"""Canonical JSON (RFC 8785), over which hashes are taken."""

from __future__ import annotations

import hashlib
import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from perjoule.records import RunResult

# Numbers with an exponent that ECMAScript writes in another way than msgspec: 1e21 and 1e-6; 1e-7 is the same in both.
_EXPONENT = re.compile(rb"e(?:\d|-6(?!\d))")
_WHOLE, _MINUS_ZERO = re.compile(rb"\.0(?=[,\]}])"), re.compile(rb"-0(?=[,\]}])")
_LONGEST_NUMBER = 32  # characters before the exponent, and more
_LONG_INTEGER = re.compile(rb"[,:\[]-?(\d{16,})(?![\d.e])")
_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONG_ZEROS = tuple(before + b"0" * 16 for before in (b",", b":", b"[", b"-"))
_MOST_DEPTH = 64  # of a value that is looked through here; deeper ones are left to the slow way
_LARGEST = 2**53 - 1


def canonical_json(value: Any) -> bytes:
    """Return the RFC 8785 form. Raises ``ValueError`` for NaN, infinities and integers beyond 2^53."""
    if _is_plain(value, _MOST_DEPTH):
        fast = _rewritten(msgspec.json.encode(value, order="sorted"))
        if fast is not None:
            return fast
    import rfc8785  # noqa: PLC0415 - needed only where the fast way is not sure

    return bytes(rfc8785.dumps(value))


def canonical_id(result: RunResult) -> str:
    """Return ``sha256:...`` over the canonical form of the result without its ``id``.

    It shows that a file is whole, not who wrote it. Raises as ``canonical_json`` does.
    """
    content = {name: getattr(result, name) for name in result.__struct_fields__ if name != "id"}
    content = {name: value for name, value in content.items() if value is not msgspec.UNSET}
    # records refuse NaN and have keys that are names; what they hold as it came has to be looked at
    if all(_is_plain(value, _MOST_DEPTH) for value in _as_it_came(result)):
        found = _digest(msgspec.json.encode(content, order="sorted"))
        if found is not None:
            return found
    return f"sha256:{hashlib.sha256(canonical_json(msgspec.to_builtins(content))).hexdigest()}"


def _as_it_came(result: RunResult) -> list[Any]:
    """Return the parts of a result that are JSON of any kind, or numbers that no record holds."""
    backend, peaks = result.backend, result.peaks
    kept = [result.scenario.spec, backend.requested_options, backend.effective_options]
    if peaks:
        kept += [peak.slower for peak in (peaks.bandwidth, peaks.int8, peaks.fp32, peaks.bf16) if peak]
    return [*kept, *(check.data for check in result.checks)]


@lru_cache(maxsize=4)  # the file's own content, the same derived again, and once more after scrubbing
def _digest(encoded: bytes) -> str | None:
    canonical = _rewritten(encoded)
    return None if canonical is None else f"sha256:{hashlib.sha256(canonical).hexdigest()}"


def _is_plain(value: Any, depth: int) -> bool:
    """Tell whether msgspec writes the value as RFC 8785 does, but for the look of some numbers."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if kind is dict:
        return depth > 0 and all(type(key) is str and _is_plain(inside, depth - 1) for key, inside in value.items())
    if kind is list or kind is tuple:
        return depth > 0 and all(_is_plain(inside, depth - 1) for inside in value)
    return value is None or kind is str or kind is bool or kind is int


def _rewritten(encoded: bytes) -> bytes | None:
    """Return the RFC 8785 form of JSON that msgspec wrote without spaces, its keys sorted; None where that is not sure.

    Strings are written alike (RFC 8785, 3.2.2.2), and keys sorted by UTF-8 are sorted by UTF-16 too unless a character
    beyond the Basic Multilingual Plane is among them. Numbers differ in a few forms; they are found outside of strings.
    Raises ``ValueError`` for integers beyond 2^53.
    """
    if not encoded.isascii() and re.search(rb"[\xf0-\xf4]", encoded):
        return None
    # no control byte stands in JSON as it is, so that they can stand for what is escaped
    escaped = b"\\" in encoded
    if escaped:
        encoded = encoded.replace(b"\\\\", b"\x00").replace(b'\\"', b"\x01")
    parts = encoded.split(b'"')  # in turn outside and inside of strings
    outside = _as_ecmascript(b'"'.join(parts[::2]))
    parts[::2] = outside.split(b'"')
    canonical = b'"'.join(parts)
    return canonical.replace(b"\x01", b'\\"').replace(b"\x00", b"\\\\") if escaped else canonical


def _as_ecmascript(numbers: bytes) -> bytes:
    """Return JSON without its strings, its numbers as ECMAScript writes them: 2 for 2.0, 0 for -0.0, 1e-7, 1e+21."""
    numbers = b"," + numbers + b","  # so that a number is never the first or last
    _refuse_long_integers(numbers)
    numbers = _MINUS_ZERO.sub(b"0", _WHOLE.sub(b"", numbers))
    return _with_exponents(numbers)[1:-1]


def _refuse_long_integers(numbers: bytes) -> None:
    digits = numbers.translate(_AS_ZEROS)
    if any(zeros in digits for zeros in _LONG_ZEROS) and any(  # the first finds the few files that have one, sooner
        int(match[1]) > _LARGEST for match in _LONG_INTEGER.finditer(numbers)
    ):
        msg = "an integer is beyond what a JSON number holds exactly"
        raise ValueError(msg)


def _with_exponents(numbers: bytes) -> bytes:
    """Write the few numbers again that have an exponent here or in ECMAScript, but not in both."""
    if _EXPONENT.search(numbers) is None:
        return numbers
    import rfc8785  # noqa: PLC0415 - numbers this small or large are rare

    pieces, done = [], 0
    for match in _EXPONENT.finditer(numbers):
        at = match.start()
        begin = 1 + max(numbers.rfind(before, max(0, at - _LONGEST_NUMBER), at) for before in (b",", b":", b"["))
        end = min(e for e in (numbers.find(after, at, at + 8) for after in (b",", b"]", b"}")) if e > 0)
        pieces += [numbers[done:begin], rfc8785.dumps(float(numbers[begin:end]))]
        done = end
    return b"".join([*pieces, numbers[done:]])
