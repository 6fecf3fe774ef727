"""What is taken out of a result before it is published, and the search for what is left.

Prose is scrubbed: reasons, notes, sources, options and the command that repeats the run were written by drivers,
engines and people, and a word less does not change what was measured. Facts (names, versions, digests, numbers) are
never rewritten: one that looks private fails the publish.
"""

from __future__ import annotations

import re
import shlex
from functools import lru_cache
from itertools import pairwise
from typing import Any, get_args

import msgspec

from perjoule.publish.private import Found, Identity, private_parts
from perjoule.records import Record, RunResult
from perjoule.upgrade import made_again

_PROSE_KEYS = frozenset({"reproduce", "source", "note", "reason", "fix", "disturbed", "verdict", "ref"})
_PROSE_TREES = ("backend.requested_options", "backend.effective_options", "settings.meters", "processes.unwatched")
# Derived again from scrubbed raw parts, so that their words follow.
_DERIVED = ("metrics.", "energy.", "checks", "roofline", "overhead")
_DIGEST = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
_MACHINE_ID = re.compile(r"[0-9a-f]{12}")
_SHOWN = 40  # characters of what was found
_TEXTLESS = frozenset({int, float, bool, type(None), msgspec.UnsetType})
_NUMBERS = _TEXTLESS | {int | None, float | None, bool | None, int | msgspec.UnsetType, float | msgspec.UnsetType}
Texts = list[tuple[str, str]]  # key, with dots, and text


def scrub(result: RunResult, who: Identity, texts: Texts | None = None) -> tuple[RunResult, list[str]]:
    """Return the result without what looks private in its prose, and the keys that were changed.

    ``texts`` are its own, where they were taken before. Numbers, checks and ``id`` are derived again, by the statistics
    of this perjoule; a result that held nothing private comes back as it is. May raise what ``derive`` raises.
    """
    found = texts_of(result) if texts is None else texts
    if not any(_is_prose(at) and _without_private(at, text, who) != text for at, text in found):
        return result, []
    changed: list[str] = []
    clean = msgspec.convert(_scrubbed(msgspec.to_builtins(result), "", who, changed), RunResult)
    return made_again(clean), sorted(set(changed))


def scan(result: RunResult, who: Identity, texts: Texts | None = None) -> list[str]:
    """Return a line for everything in the result that looks private: which key, and what it looks like."""
    lines = []
    for at, text in texts_of(result) if texts is None else texts:
        if at == "samples.answer" and _asks_only_what_ships(result):
            continue
        lines += [f"{at}: {_quoted(f)} looks like {f.what}" for f in private_parts(text, who)]
    return list(dict.fromkeys(lines))


def _asks_only_what_ships(result: RunResult) -> bool:
    """Say whether no question is a user's own: then an address in an answer is a model's invention.

    What a model was asked from somebody's own file it may repeat.
    """
    tasks = result.scenario.spec.get("tasks") or []
    return bool(tasks) and not any(str(task).endswith(".jsonl") for task in tasks)


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
    cleaned = _without_private(at, value, who)
    if cleaned != value:
        changed.append(at)
    return cleaned


def _without_private(at: str, text: str, who: Identity) -> str:
    if at == "settings.meters":
        text = _without_argument(text)
    elif at == "reproduce":
        text = _without_arguments(text)
    return _cleaned(text, who, keep_names=at in ("model.ref", "reproduce"))


def _is_prose(at: str) -> bool:
    last = at.rpartition(".")[2]
    if at.startswith(_DERIVED):
        return False
    return last in _PROSE_KEYS or last.endswith("_missing") or at.startswith(_PROSE_TREES)


def _without_argument(meter: str) -> str:
    """Return a meter's name without its argument, which is a file, a program or an address of the machine's."""
    name, colon, _ = meter.partition(":")
    return f"{name}:..." if colon else name


def _without_arguments(command: str) -> str:
    """Return a command with the meters it names, but not with their arguments."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command  # no command of a shell: it is searched like any other text
    bare = [_without_argument(word) if before == "--meter" else word for before, word in pairwise(["", *words])]
    bare = [f"--meter={_without_argument(word[8:])}" if word.startswith("--meter=") else word for word in bare]
    return command if bare == words else shlex.join(bare)


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


def texts_of(result: Record) -> Texts:
    """Return every text of a record once with each key it stands at, the names of keys that are no record's too.

    Digests are left out where they belong. A result has the same few hundred texts thousands of times, and tens of
    thousands of numbers: nothing is done twice, and nothing with numbers.
    """
    found: dict[str, dict[str, None]] = {}
    _collect(result, "", found)
    return [(at, text) for at, texts in found.items() for text in texts if not _is_digest(at, text)]


def _collect(value: Any, at: str, found: dict[str, dict[str, None]]) -> None:
    """Add the texts inside a record, object or list to ``found``."""
    kind = type(value)
    if kind is str:
        found.setdefault(at, {})[value] = None
    elif kind is tuple or kind is list:
        if not set(map(type, value)) <= _TEXTLESS:
            for inside in value:
                _collect(inside, at, found)
    elif kind is dict:
        for key, inside in value.items():
            way = f"{at}.{key}" if at else key
            found.setdefault(way, {})[key] = None
            _collect(inside, way, found)
    elif isinstance(value, msgspec.Struct):
        for name, way in _may_hold_text(type(value), at):
            inside = getattr(value, name)
            if type(inside) not in _TEXTLESS:
                _collect(inside, way, found)


@lru_cache(maxsize=1024)
def _may_hold_text(record: type[msgspec.Struct], at: str) -> tuple[tuple[str, str], ...]:
    """Return the fields of a record that are not declared to hold numbers, truth values or nothing, and their keys."""
    return tuple(
        (field.name, f"{at}.{field.encode_name}" if at else field.encode_name)
        for field in msgspec.structs.fields(record)
        if not {field.type, *get_args(field.type)} <= _NUMBERS
    )


def _is_digest(at: str, text: str) -> bool:
    last = at.rpartition(".")[2]
    if at == "id" or last == "sha256" or last.endswith("_sha256"):
        return bool(_DIGEST.fullmatch(text))
    return at == "host.machine_id" and bool(_MACHINE_ID.fullmatch(text))
