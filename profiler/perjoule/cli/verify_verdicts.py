"""perjoule verify, for verdicts of claims: each is judged again, where its results are among the files or beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule import store
from perjoule.claims.judge_again import foreign, rests_on, unlike
from perjoule.claims.verdict_file import load_verdict, short_id
from perjoule.errors import PerjouleError
from perjoule.publish.verdicts import CLAIMS
from perjoule.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from perjoule.records import RunResult


def verdict_judged(path: Path, given: Sequence[Path]) -> tuple[list[str], str]:
    """Return what does not hold in the verdict, and why it could not be judged; both are empty where it holds.

    Its results are looked for among the files ``given``, and in its own folder (that of ``claims/`` where it is there).
    """
    try:
        verdict = load_verdict(path)
        if why := foreign(verdict):
            return ([why], "") if why.startswith("claim_sha256") else ([], why)
        ids = rests_on(verdict)
        results = results_of(ids, [*given, *_beside(path)])
        if missing := [id_ for id_ in ids if id_ not in results]:
            return [], f"needs {', '.join(missing)} to be judged again: give these results, or their folder, too"
        problems = [
            f"rests on {id_}, which does not hold: `perjoule verify` of it says why"
            for id_, result in results.items() if verify(result)
        ]  # fmt: skip
        return problems or unlike(verdict, [results[id_] for id_ in ids]), ""
    except PerjouleError as error:
        return [f"{error.message} ({error.hint})" if error.hint else error.message], ""
    except Exception as error:  # noqa: BLE001 - anybody may have written the file, and it must keep back no other
        return [f"cannot be judged: {type(error).__name__}: {error}"], ""


def _beside(path: Path) -> list[Path]:
    home = path.absolute().parent
    return sorted(home.parent.glob("*/*.json") if home.name == CLAIMS else home.glob("*.json"))


def results_of(ids: Iterable[str], paths: Iterable[Path]) -> dict[str, RunResult]:
    """Return the results of these ids that are among the files: by their names first, which end in a part of the id."""
    left = list(dict.fromkeys(paths))
    found: dict[str, RunResult] = {}
    for id_ in ids:
        named = [path for path in left if path.stem.endswith(short_id(id_))]
        for path in (*named, *(p for p in left if p not in named and _names(p, id_))):
            try:
                result = store.load(path)
            except PerjouleError:
                continue  # it is told of by itself, where it was given
            if result.id == id_:
                found[id_] = result
                break
    return found


def _names(path: Path, id_: str) -> bool:
    """Say whether a file holds an id at all: reading it as a result takes a hundred times longer."""
    try:
        return id_.encode() in path.read_bytes()
    except OSError:
        return False
