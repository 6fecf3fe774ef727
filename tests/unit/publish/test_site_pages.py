"""The site's pages: whole without anything else, light, escaped, and honest about joules."""

from __future__ import annotations

import random
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from published_results import publishable

from perjoule.publish.index import Entry
from perjoule.render.site import pages
from perjoule.render.site.pages import MOST_ROWS
from perjoule.render.site.pareto import pareto_front
from perjoule.store.flat import flat

if TYPE_CHECKING:
    from perjoule.store.flat import Cell

BASE = flat(publishable())
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m\"'&"


def entry(n: int, **changes: Cell) -> Entry:
    row = {**BASE, "id": f"sha256:{n:012x}", "created_utc": f"2026-01-{1 + n % 28:02d}T00:00:00Z", **changes}
    return Entry(path=f"{row['machine_id']}/{n:08x}.json", stamp="1/1", fingerprint=str(n), row=row)


def rendered(entries: list[Entry]) -> dict[str, str]:
    return {page.name: page.render() for page in pages(entries)}


class Structure(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def structure(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Structure()
    parser.feed(page)
    return parser.tags


def test_there_is_a_front_page_one_page_a_model_and_one_a_machine():
    found = rendered([entry(1), entry(2, model="Other-1B"), entry(3, machine_id="0" * 12)])
    assert sorted(name.split("-")[0] for name in found) == ["index.html", "machine", "machine", "model", "model"]
    links = {a.get("href") for _, a in structure(found["index.html"])}
    assert set(found) - {"index.html"} <= links
    assert f"../{BASE['machine_id']}/00000001.json" in links


def test_every_joule_has_interval_label_and_scope():
    page = rendered([entry(1)])["index.html"]
    cells = re.findall(r'<td data-v="[^"]*">([^<]*J [^<]*)<small>([^<]*)</small>', page)
    assert len(cells) == 1
    assert re.search(r"\(\S+-\S+\)", cells[0][0])
    assert cells[0][1].startswith("modelled from CPU time, share of a server")


def test_joules_that_could_not_be_had_are_a_dash_and_sort_last():
    page = rendered([entry(1, energy_j_per_output_token=None)])["index.html"]
    assert '<td data-v="">\u2014</td>' in page
    assert "<svg" not in page


def test_pages_ask_nobody_for_anything():
    for name, page in rendered([entry(1)]).items():
        tags = structure(page)
        sources = [a[k] for _, a in tags for k in ("src", "href", "action", "data") if a.get(k)]
        assert [s for s in sources if re.match(r"(https?:)?//", str(s))] == [], name
        [policy] = [a["content"] for _, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
        assert str(policy).startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in str(policy)
        assert "style" not in {key for _, a in tags for key in a}


@pytest.mark.parametrize("key", [k for k, v in BASE.items() if isinstance(v, str)])
def test_nothing_in_a_result_becomes_part_of_a_page(key: str):
    for name, page in rendered([entry(1, **{key: HOSTILE})]).items():
        assert page.count("<script") == 1, name
        assert "\x1b" not in page
        assert "\u202e" not in page
        assert re.fullmatch(r"[a-z0-9.-]+", name)


def test_everything_that_can_be_used_has_a_name():
    tags = structure(rendered([entry(1), entry(2)])["index.html"])
    assert ("html", {"lang": "en"}) in tags
    assert [a for tag, a in tags if tag == "svg" and not a.get("aria-label")] == []
    assert [a for tag, a in tags if tag in ("form", "nav") and not a.get("aria-label")] == []
    ids = [a["id"] for _, a in tags if a.get("id")]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for _, a in tags if a.get("aria-labelledby")} <= set(ids)
    assert sum(tag == "caption" for tag, _ in tags) == 1
    assert {a.get("scope") for tag, a in tags if tag == "th"} == {"col", "row"}


def test_a_thousand_results_weigh_less_than_one_and_a_half_megabytes():
    rng = random.Random(0)
    entries = [
        entry(n, model=f"Model-{rng.randrange(200)}B-Instruct", energy_j_per_output_token=0.2 * (1 + rng.random() / 9))
        for n in range(MOST_ROWS)
    ]
    [front] = [p.render() for p in pages(entries) if p.name == "index.html"]
    assert front.count("<tr id=") == MOST_ROWS
    assert len(front.encode()) < 1_500_000


def test_older_results_have_pages_of_their_own_that_later_ones_do_not_change():
    first = {p.name: p.key for p in pages([entry(n) for n in range(2 * MOST_ROWS)])}
    assert "index-older-1.html" in first
    more = [entry(n) for n in range(2 * MOST_ROWS)] + [entry(5000, created_utc="2027-01-01T00:00:00Z")]
    second = {p.name: p.key for p in pages(more)}
    assert second["index-older-1.html"] == first["index-older-1.html"] or "index-older-2.html" in second
    assert second["index.html"] != first["index.html"]


def test_what_does_not_hold_is_listed_without_its_numbers():
    bad = Entry(path="0/bad.json", stamp="1/1", against=("model.name: 'alice' looks like a name",))
    page = rendered([entry(1), bad])["index.html"]
    assert "0/bad.json" in page
    assert "alice" not in page
    assert page.count("<tr id=") == 1


def test_an_empty_folder_has_a_page():
    assert "No result has been published" in rendered([])["index.html"]


points = st.tuples(st.floats(0.1, 1e3), st.floats(0.1, 1e3))


@given(st.lists(points, max_size=30))
def test_the_front_is_what_nothing_beats(found: list[tuple[float, float]]):
    front = pareto_front(found)
    for rate, joules in found:
        assert any(r >= rate and j <= joules for r, j in front)
    assert all(not (r >= rate and j <= joules) for rate, joules in front for r, j in front if (r, j) != (rate, joules))
