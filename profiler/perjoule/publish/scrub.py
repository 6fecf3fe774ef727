"""What is taken out of a result before it is published, and the search for what is left.

Prose is scrubbed: reasons, notes, sources, options and the command that repeats the run were written by drivers,
engines and people, and a word less does not change what was measured. Facts (names, versions, digests, numbers) are
never rewritten: one that looks private fails the publish.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from perjoule.assemble import derive
from perjoule.publish.private import Found, Identity, private_parts
from perjoule.records import RunResult

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROSE_KEYS = frozenset({"reproduce", "source", "note", "reason", "fix", "disturbed", "verdict", "ref"})
_PROSE_TREES = ("backend.requested_options", "backend.effective_options", "settings.meters", "processes.unwatched")
# Derived again from scrubbed raw parts, so that their words follow.
_DERIVED = ("metrics.", "energy.", "checks", "roofline", "overhead")
_DIGEST = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
_MACHINE_ID = re.compile(r"[0-9a-f]{12}")
_SHOWN = 40  # characters of what was found


def scrub(result: RunResult, who: Identity) -> tuple[RunResult, list[str]]:
    """Return the result without what looks private in its prose, and the keys that were changed.

    Numbers, checks and ``id`` are derived again; a result that held nothing private comes back as it is. May raise
    what ``derive`` raises.
    """
    changed: list[str] = []
    content = _scrubbed(msgspec.to_builtins(result), "", who, changed)
    if not changed:
        return result, []
    return derive(msgspec.convert(content, RunResult)), sorted(set(changed))


def scan(result: RunResult, who: Identity) -> list[str]:
    """Return a line for everything in the result that looks private: which key, and what it looks like."""
    lines = []
    for at, text in _texts(msgspec.to_builtins(result), ""):
        lines += [f"{at}: {_quoted(f)} looks like {f.what}" for f in private_parts(text, who)]
    return list(dict.fromkeys(lines))


def _quoted(found: Found) -> str:
    text = found.text if len(found.text) <= _SHOWN else f"{found.text[:_SHOWN]}..."
    return repr(text)


def _scrubbed(value: Any, at: str, who: Identity, changed: list[str]) -> Any:
    if isinstance(value, dict):
        return {k: _scrubbed(v, f"{at}.{k}" if at else k, who, changed) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed(v, at, who, changed) for v in value]
    if not isinstance(value, str) or not _is_prose(at):
        return value
    cleaned = _without_argument(value) if at == "settings.meters" else value
    cleaned = _cleaned(cleaned, who, keep_names=at in ("model.ref", "reproduce"))
    if cleaned != value:
        changed.append(at)
    return cleaned


def _is_prose(at: str) -> bool:
    last = at.rpartition(".")[2]
    if at.startswith(_DERIVED):
        return False
    return last in _PROSE_KEYS or last.endswith("_missing") or at.startswith(_PROSE_TREES)


def _without_argument(meter: str) -> str:
    """Return a meter's name without its argument, which is a file, a program or an address of the machine's."""
    name, colon, _ = meter.partition(":")
    return f"{name}:..." if colon else name


def _cleaned(text: str, who: Identity, *, keep_names: bool) -> str:
    """Replace what looks private by what it is; of a path the file's name stays where a model is named by it."""
    for _ in range(8):  # what is left of one stretch may look like another
        found = private_parts(text, who)
        if not found:
            break
        first = max(found, key=lambda f: f.end - f.start)
        text = text[: first.start] + _instead(first, keep_names=keep_names) + text[first.end :]
    return text


def _instead(found: Found, *, keep_names: bool) -> str:
    if found.what == "a path" and keep_names:
        return re.split(r"[/\\]", found.text.rstrip("/\\"))[-1]
    return f"<{found.what.partition(' ')[2]}>" if found.what.startswith(("a ", "an ")) else "<removed>"


def _texts(value: Any, at: str) -> Iterator[tuple[str, str]]:
    """Yield every text of a JSON value with its key, the names of keys too; digests are left out where they belong."""
    if isinstance(value, dict):
        for key, inside in value.items():
            below = f"{at}.{key}" if at else key
            yield below, key
            yield from _texts(inside, below)
    elif isinstance(value, list | tuple):
        for inside in value:
            yield from _texts(inside, at)
    elif isinstance(value, str) and not _is_digest(at, value):
        yield at, value


def _is_digest(at: str, text: str) -> bool:
    last = at.rpartition(".")[2]
    if at == "id" or last == "sha256" or last.endswith("_sha256"):
        return bool(_DIGEST.fullmatch(text))
    return at == "host.machine_id" and bool(_MACHINE_ID.fullmatch(text))
