"""Publishing verdicts: each rests on results that stand in the folder, and is judged again from them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from perjoule.claims.judge_again import foreign, rests_on, unlike
from perjoule.claims.verdict_file import encode_verdict, is_verdict, load_verdict, verdict_id, verdict_name
from perjoule.errors import InputError, PerjouleError
from perjoule.publish.found import SITE
from perjoule.publish.index import VerdictEntry, read_verdicts, stamp
from perjoule.publish.private import private_parts
from perjoule.publish.scrub import texts_of
from perjoule.records import Record
from perjoule.store.read import load
from perjoule.store.write import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from perjoule.claims.verdict import Verdict
    from perjoule.publish.index import Entry
    from perjoule.publish.private import Identity

CLAIMS = "claims"  # the folder of verdicts, in a published folder
_ID = re.compile(r"sha256:[0-9a-f]{64}")
_DIGESTS = ("claim_sha256", "sides.results")


class Told(Record, frozen=True, kw_only=True):
    """What became of the verdicts, with the same meaning as ``perjoule.publish.batch.Outcome``."""

    written: tuple[str, ...]
    twice: tuple[tuple[str, str], ...]
    refused: tuple[tuple[str, tuple[str, ...]], ...]
    unreadable: tuple[str, ...]
    entries: tuple[VerdictEntry, ...]


def apart(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files that are taken for results, and those that are verdicts."""
    results: list[Path] = []
    verdicts: list[Path] = []
    for path in paths:
        (verdicts if is_verdict(path) else results).append(path)
    return results, verdicts


def publish_verdicts(paths: Sequence[Path], folder: Path, results: Iterable[Entry], who: Identity) -> Told:
    """Judge the verdicts again and write those that hold into ``folder``, whose ``results`` are known by now."""
    held = {str(e.row["id"]): folder / e.path for e in results if e.row}
    entries = _standing(folder, held, who)
    by_id = {e.id: e.path for e in entries.values() if not e.against}
    written: list[str] = []
    twice: list[tuple[str, str]] = []
    refused: list[tuple[str, tuple[str, ...]]] = []
    unreadable: list[str] = []
    for path in paths:
        try:
            verdict = load_verdict(path)
        except InputError as error:
            unreadable.append(error.message)
            continue
        known = verdict_id(verdict)
        if known in by_id:
            twice.append((str(path), by_id[known]))
            continue
        against = reasons_against(verdict, held, who)
        if not against:
            try:
                entry = _place(verdict, folder)
            except PerjouleError as error:
                against = [f"{error.message} ({error.hint})"]
            else:
                entries[entry.path], by_id[known] = entry, entry.path
                written.append(entry.path)
        if against:
            refused.append((str(path), tuple(against)))
    return Told(
        written=tuple(written), twice=tuple(twice), refused=tuple(refused), unreadable=tuple(unreadable),
        entries=tuple(entries[path] for path in sorted(entries)),
    )  # fmt: skip


def reasons_against(verdict: Verdict, held: Mapping[str, Path], who: Identity) -> list[str]:
    """Return everything that speaks against a verdict; ``held`` are the results, by id, that it may rest on."""
    ids = rests_on(verdict)
    against = [foreign(verdict)]
    against += [
        f"rests on {id_[:80]}, which is not published here (hint: publish that result too; where something private was "
        "taken out of it, it stands here under a new id: judge again, from the published files)"
        for id_ in ids if id_ not in held
    ]  # fmt: skip
    against = [reason for reason in against if reason]
    if not against:
        try:
            against = [f"does not hold: {line}" for line in unlike(verdict, [load(held[id_]) for id_ in ids])]
        except PerjouleError as error:
            against = [f"cannot be judged again: {error.message}"]
        except Exception as error:  # noqa: BLE001 - anybody may have written the file, and it must keep back no other
            against = [f"cannot be judged again: {type(error).__name__}: {error}"]
    return [*against, *_private(verdict, who)]


def _private(verdict: Verdict, who: Identity) -> list[str]:
    lines = []
    for at, text in texts_of(verdict):
        if at not in _DIGESTS or not _ID.fullmatch(f"sha256:{text.removeprefix('sha256:')}"):
            lines += [f"{at}: {found.text[:40]!r} looks like {found.what}" for found in private_parts(text, who)]
    return list(dict.fromkeys(lines))


def _place(verdict: Verdict, folder: Path) -> VerdictEntry:
    """Write a verdict. Raises ``InputError`` for a link or a file of that name, ``HostError`` as the file system."""
    home = folder / CLAIMS
    if home.is_symlink() or (home.exists() and not home.is_dir()):
        raise InputError(f"{home} is a link or a file", hint="make it a folder; perjoule writes through no links")
    path = write_whole(home / verdict_name(verdict), encode_verdict(verdict))
    return VerdictEntry(
        path=path.relative_to(folder).as_posix(), stamp=stamp(path), id=verdict_id(verdict), verdict=verdict
    )


def _standing(folder: Path, held: Mapping[str, Path], who: Identity) -> dict[str, VerdictEntry]:
    """Return an entry for every verdict in the folder; one that held, and whose results stand, is not judged again."""
    from_index = read_verdicts(folder / SITE / "index.json")
    entries: dict[str, VerdictEntry] = {}
    seen: dict[str, str] = {}
    home = folder / CLAIMS
    for path in sorted(home.glob("*.json")) if not home.is_symlink() else []:
        if not path.is_file() or path.name.startswith("."):
            continue
        known = from_index.get(path.relative_to(folder).as_posix())
        unchanged = known is not None and known.verdict is not None and known.stamp == stamp(path)
        if known is None or not unchanged or known.against or not _stands(known, held):
            known = _judged(path, folder, held, who)
        first = seen.setdefault(known.id, known.path) if not known.against else known.path
        if first != known.path:
            known = msgspec.structs.replace(known, against=(f"says the same as {first}",))
        entries[known.path] = known
    return entries


def _stands(entry: VerdictEntry, held: Mapping[str, Path]) -> bool:
    return entry.verdict is not None and all(id_ in held for id_ in rests_on(entry.verdict))


def _judged(path: Path, folder: Path, held: Mapping[str, Path], who: Identity) -> VerdictEntry:
    at = path.relative_to(folder).as_posix()
    try:
        verdict = load_verdict(path)
    except InputError as error:
        return VerdictEntry(path=at, stamp=stamp(path), against=(error.message,))
    against = tuple(reasons_against(verdict, held, who))
    return VerdictEntry(
        path=at, stamp=stamp(path), id=verdict_id(verdict), verdict=None if against else verdict, against=against
    )
