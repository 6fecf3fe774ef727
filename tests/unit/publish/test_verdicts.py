"""Publishing verdicts: what is written, what is refused and why, and where the site shows them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from published_results import publishable

from perjoule import store
from perjoule.claims import judge_again
from perjoule.claims.choose import choose
from perjoule.claims.claim import load_claim
from perjoule.claims.judge import judge
from perjoule.claims.verdict_file import encode_verdict, is_verdict, load_verdict, verdict_id, verdict_name
from perjoule.errors import InputError
from perjoule.publish import verdicts
from perjoule.publish.batch import INDEX, Outcome, publish
from perjoule.publish.found import SITE, result_paths
from perjoule.publish.index import VerdictEntry, encode_index
from perjoule.publish.private import Identity
from perjoule.publish.site import write_site
from perjoule.render.site import pages
from perjoule.render.site.claims import stated
from perjoule.upgrade import made_again

if TYPE_CHECKING:
    from perjoule.claims.verdict import Verdict

NOBODY = Identity()
RESULTS = sorted(Path(__file__).parents[3].joinpath("results").glob("*/2*-tasks-quick-*.json"))
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m\"'&"


@pytest.fixture(scope="module")
def verdict() -> Verdict:
    claim = load_claim("qwen-low-power")
    return judge(claim, choose(claim, [store.load(path) for path in RESULTS], exploratory=True))


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """Return a published folder that holds the results, and the index of them."""
    folder = tmp_path / "to"
    for path in (*RESULTS, RESULTS[0].parent / "machine.json"):
        home = folder / path.parent.name
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, home)
    remember(folder, publish([], folder, NOBODY))
    return folder


def remember(folder: Path, outcome: Outcome) -> int:
    """Write the site as the command does, and return how many pages were rendered."""
    found = [(p.name, p.key, p.render) for p in pages(outcome.entries, outcome.verdicts)]
    return write_site(folder / SITE, found, {INDEX: encode_index(outcome.entries, outcome.verdicts)})


def saved(tmp_path: Path, verdict: Verdict, **changes: Any) -> Path:
    """Write the verdict with some keys changed, under a name that does not say what it is."""
    path = tmp_path / "some.json"
    path.write_bytes(encode_verdict(msgspec.structs.replace(verdict, **changes)))
    return path


def reasons(outcome: Outcome) -> str:
    assert (outcome.written, outcome.verdicts) == ((), ())
    [(_, against)] = outcome.refused
    return "\n".join(against)


def test_a_verdict_reads_as_it_was_written(tmp_path: Path, verdict: Verdict) -> None:
    path = saved(tmp_path, verdict)
    assert load_verdict(path) == verdict
    assert is_verdict(path)
    assert result_paths([tmp_path]) == ([], [f"{tmp_path}: this folder holds no results"])
    newer = msgspec.structs.replace(verdict.tool, version="9.9")
    assert verdict_id(msgspec.structs.replace(verdict, tool=newer)) == verdict_id(verdict)
    assert verdict_id(msgspec.structs.replace(verdict, scope="")) != verdict_id(verdict)


def test_a_result_is_no_verdict(tmp_path: Path) -> None:
    assert not is_verdict(store.save(publishable(), tmp_path))
    other = tmp_path / "other.json"
    other.write_text('{"note": "perjoule.verdict"}')
    assert not is_verdict(other)
    assert not is_verdict(tmp_path / "none.json")


def test_a_file_that_is_no_verdict_is_not_read(tmp_path: Path, to: Path, verdict: Verdict) -> None:
    path = tmp_path / "a.verdict.json"
    whole = encode_verdict(verdict).decode()
    odd = [
        whole.replace('"items_count": 60', f'"items_count": {2**60}'),
        whole.replace('"scope": "', r'"scope": "\ud800'),
        whole.replace('"answer":', '"answer": "fails", "answer":'),
    ]
    assert whole not in odd
    for text in (
        "{",
        '{"schema": "perjoule.verdict"}',
        "[" * 10_000,
        '{"schema_version": 2}',
        " " * 300_000,
        "NaN",
        *odd,
    ):
        path.write_text(text)
        with pytest.raises(InputError):
            load_verdict(path)
        assert publish([str(path)], to, NOBODY).unreadable != ()


def test_it_is_written_once_and_its_pages_follow(tmp_path: Path, to: Path, verdict: Verdict) -> None:
    path = saved(tmp_path, verdict)
    outcome = publish([str(path)], to, NOBODY)
    assert outcome.written == (f"claims/{verdict_name(verdict)}",)
    assert load_verdict(to / outcome.written[0]) == verdict
    rendered = remember(to, outcome)  # the front page, a page a model, and its own
    assert rendered == 4
    site = to / SITE
    front = (site / "index.html").read_text(encoding="utf-8")
    assert f"../{outcome.written[0]}" in front
    assert "exploratory</strong>" in front
    assert verdict.statement in front
    [own] = site.glob("claim-*.html")
    assert own.name in front
    assert all(f"../{RESULTS[0].parent.name}/{path.name}" in own.read_text(encoding="utf-8") for path in RESULTS)

    again = publish([str(path)], to, NOBODY)
    assert again.written == ()
    assert again.twice == ((str(path), outcome.written[0]),)
    assert remember(to, again) == 0


def test_what_did_not_change_is_not_judged_again(
    tmp_path: Path, to: Path, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(to, publish([str(saved(tmp_path, verdict))], to, NOBODY))
    monkeypatch.setattr(verdicts, "unlike", lambda *_: pytest.fail("it was judged again"))
    outcome = publish([], to, NOBODY)
    assert outcome.standing == ()
    assert len(outcome.verdicts) == 1


def test_a_verdict_may_come_with_its_results(tmp_path: Path, verdict: Verdict) -> None:
    named = [str(saved(tmp_path, verdict)), *map(str, RESULTS)]  # the verdict first: order does not matter
    assert len(publish(named, tmp_path / "new", NOBODY).written) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"answer": "fails"}, "answer: the file says 'fails', its results give 'holds'"),
        ({"statement": "Everything is better."}, "statement: the file says 'Everything is better.'"),
        ({"exploratory": False}, "measured with the quick scenario"),
        ({"claim_sha256": "0" * 64}, "claim_sha256: is not that of the claim qwen-low-power"),
        ({"claim": "../../mine"}, "claim '../../mine' does not ship"),
        ({"sides": ()}, "its results give no verdict"),
    ],
)
def test_what_was_edited_is_refused(
    tmp_path: Path, to: Path, verdict: Verdict, changes: dict[str, Any], said: str
) -> None:
    assert said in reasons(publish([str(saved(tmp_path, verdict, **changes))], to, NOBODY))
    assert not (to / "claims").exists()


def test_an_edited_ratio_is_refused_and_rounding_is_not(tmp_path: Path, to: Path, verdict: Verdict) -> None:
    def scaled(factor: float) -> Path:
        [effect] = verdict.effects
        assert effect.ratio is not None
        ratio = msgspec.structs.replace(effect.ratio, value=effect.ratio.value * factor)
        return saved(tmp_path, verdict, effects=(msgspec.structs.replace(effect, ratio=ratio),))

    assert "effects[0].ratio.value: the file says" in reasons(publish([str(scaled(1.001))], to, NOBODY))
    assert len(publish([str(scaled(1 + 1e-12))], to, NOBODY).written) == 1


def test_numbers_of_other_statistics_are_refused(tmp_path: Path, to: Path, verdict: Verdict) -> None:
    tool = msgspec.structs.replace(verdict.tool, statistics=verdict.tool.statistics + 1)
    assert "other statistics" in reasons(publish([str(saved(tmp_path, verdict, tool=tool))], to, NOBODY))


def test_a_missing_result_is_named_and_nothing_else_is_kept_back(tmp_path: Path, verdict: Verdict) -> None:
    path, to = saved(tmp_path, verdict), tmp_path / "new"
    outcome = publish([str(path), str(RESULTS[0])], to, NOBODY)
    missing = store.load(RESULTS[1]).id
    [(name, [reason])] = outcome.refused
    assert name == str(path)
    assert f"rests on {missing}, which is not published here" in reason
    assert "stands here under a new id" in reason
    assert len(outcome.written) == 1


def test_over_a_scrubbed_result_it_is_to_be_judged_again(tmp_path: Path, verdict: Verdict) -> None:
    mine, to, claim = tmp_path / "mine", tmp_path / "new", load_claim(verdict.claim)
    private = made_again(msgspec.structs.replace(store.load(RESULTS[0]), reproduce="perjoule run on 192.168.4.7"))
    store.save(private, mine)
    shutil.copy(RESULTS[1], mine)
    over_mine = judge(claim, choose(claim, [private, store.load(RESULTS[1])], exploratory=True))
    outcome = publish([str(mine), str(saved(tmp_path, over_mine))], to, NOBODY)
    assert len(outcome.scrubbed) == 1
    assert "judge again, from the published files" in outcome.refused[0][1][0]
    over_published = judge(claim, choose(claim, [store.load(to / e.path) for e in outcome.entries], exploratory=True))
    assert len(publish([str(saved(tmp_path, over_published))], to, NOBODY).written) == 1


def test_a_verdict_falls_with_its_result_and_stands_again_with_it(tmp_path: Path, to: Path, verdict: Verdict) -> None:
    remember(to, publish([str(saved(tmp_path, verdict))], to, NOBODY))
    lost = to / RESULTS[0].parent.name / RESULTS[0].name
    lost.unlink()
    outcome = publish([], to, NOBODY)
    remember(to, outcome)
    [(path, [reason])] = outcome.standing
    assert (path, "not published here" in reason) == (f"claims/{verdict_name(verdict)}", True)
    front = (to / SITE / "index.html").read_text(encoding="utf-8")
    assert "Left out" in front
    assert '<h2 id="cl">' not in front
    assert not list((to / SITE).glob("claim-*.html"))
    shutil.copy(RESULTS[0], lost)
    assert publish([], to, NOBODY).standing == ()


def test_a_verdict_edited_where_it_stands_is_shown_on_no_page(tmp_path: Path, to: Path, verdict: Verdict) -> None:
    remember(to, publish([str(saved(tmp_path, verdict))], to, NOBODY))
    [path] = (to / "claims").iterdir()
    path.write_text(path.read_text(encoding="utf-8").replace("is no less accurate", "is far more accurate"))
    outcome = publish([], to, NOBODY)
    assert "statement: the file says" in outcome.standing[0][1][0]
    assert not [p for p in pages(outcome.entries, outcome.verdicts) if p.name.startswith("claim-")]


def test_what_looks_private_is_refused(tmp_path: Path, to: Path, verdict: Verdict) -> None:
    tool = msgspec.structs.replace(verdict.tool, version="0.1.0 of 192.168.4.7")
    outcome = publish([str(saved(tmp_path, verdict, tool=tool))], to, NOBODY)
    assert "tool.version: '192.168.4.7' looks like an IP address" in reasons(outcome)
    assert "the name of this machine" in reasons(
        publish([str(saved(tmp_path, verdict))], to, Identity(words=("Qwen2",)))
    )


def test_no_link_is_written_through(tmp_path: Path, to: Path, verdict: Verdict) -> None:
    (tmp_path / "elsewhere").mkdir()
    (to / "claims").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in reasons(publish([str(saved(tmp_path, verdict))], to, NOBODY))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_accident_in_judging_keeps_back_no_other(
    tmp_path: Path, to: Path, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(judge_again, "judge", broken)
    assert "ZeroDivisionError: by accident" in reasons(publish([str(saved(tmp_path, verdict))], to, NOBODY))


def test_pages_escape_what_a_verdict_says(to: Path, verdict: Verdict) -> None:
    sides = tuple(msgspec.structs.replace(s, said=HOSTILE) for s in verdict.sides)
    hostile = msgspec.structs.replace(
        verdict, claim=HOSTILE, statement=HOSTILE, scope=HOSTILE, why=(HOSTILE,) * 2, sides=sides, caveats=(HOSTILE,),
        would_decide=HOSTILE, exploratory_why=HOSTILE, registered_utc=HOSTILE,
        tool=msgspec.structs.replace(verdict.tool, version=HOSTILE),
    )  # fmt: skip
    entry = VerdictEntry(path=f"claims/{HOSTILE}.json", stamp="1/1", id=f"sha256:{'0' * 64}", verdict=hostile)
    outcome = publish([], to, NOBODY)
    shown = [page.render() for page in pages(outcome.entries, [entry])]
    assert sum("alert(1)" in page for page in shown) == 4
    assert not [page for page in shown if "<script>alert" in page or "\u202e" in page or "\x1b" in page]


def test_many_verdicts_are_folded_and_none_makes_no_section(to: Path, verdict: Verdict) -> None:
    outcome = publish([], to, NOBODY)
    front = next(page for page in pages(outcome.entries) if page.name == "index.html").render()
    assert "Claims" not in front
    many = [
        VerdictEntry(path=f"claims/{n}.json", stamp="1/1", id=f"sha256:{n:064x}", verdict=verdict) for n in range(9)
    ]
    front = next(page for page in pages(outcome.entries, many) if page.name == "index.html").render()
    assert "<summary>3 more</summary>" in front
    assert front.count("JSON of the verdict on") == 9


def test_a_verdict_knows_its_models_and_machines(to: Path, verdict: Verdict) -> None:
    outcome = publish([], to, NOBODY)
    entry = VerdictEntry(path="claims/a.json", stamp="1/1", id=f"sha256:{'1' * 64}", verdict=verdict)
    [found] = stated([entry], outcome.entries)
    assert set(found.models) == {store.load(path).model.name for path in RESULTS}
    assert [page for page, _ in found.line.machines] == [f"machine-{RESULTS[0].parent.name}.html"]
    assert json.loads(msgspec.json.encode(found.files)) == {
        store.load(path).id: f"../{path.parent.name}/{path.name}" for path in RESULTS
    }
