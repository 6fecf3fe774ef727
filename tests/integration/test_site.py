"""The published site in a real browser, headless: its script runs under its own policy, sorts and filters."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from published_results import publishable

from perjoule.publish.gate import row_of
from perjoule.publish.index import Entry
from perjoule.publish.site import write_site
from perjoule.render.site import pages

if TYPE_CHECKING:
    from pathlib import Path

BROWSER = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium")

RATES = {"b-model": 10.0, "a-model": 30.0, "c-model": 20.0, "d-model": None}
CLICK = """<script>
const heads = [...document.querySelectorAll("thead th")];
const order = () => [...document.querySelectorAll("tbody tr")].filter((r) => !r.hidden)
  .map((r) => r.cells[0].querySelector("a").textContent).join(",");
const told = [];
heads[4].querySelector("button").click(); told.push(order(), heads[4].getAttribute("aria-sort"));
heads[4].querySelector("button").click(); told.push(order(), heads[4].getAttribute("aria-sort"));
heads[0].querySelector("button").click(); told.push(order(), String(heads[4].getAttribute("aria-sort")));
const form = document.querySelector("form");
form.elements.words.value = "C-Model quickstart"; form.dispatchEvent(new Event("input")); told.push(order());
told.push(document.getElementById("shown").textContent, String(document.documentElement.scrollWidth <= innerWidth));
document.title = "TOLD " + told.join(" | ");
</script></body>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = row_of(publishable())
    entries = []
    for n, (model, rate) in enumerate(RATES.items()):
        row = {k: v for k, v in base.items() if not k.startswith("decode_tokens_per_s")}
        row |= {"model": model, "id": f"sha256:{n:012x}"} | ({"decode_tokens_per_s": rate} if rate else {})
        entries.append(Entry(path=f"0/{n}.json", stamp="1/1", fingerprint=str(n), row=row))
    folder = tmp_path_factory.mktemp("published") / "site"
    write_site(folder, [(p.name, p.key, p.render) for p in pages(entries)], {})
    return folder


def seen(page: Path, profile: Path, width: int = 1280) -> str:
    """Return the page as the browser holds it after its scripts ran."""
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", f"--window-size={width},900"]
    done = subprocess.run(
        [str(BROWSER), *words, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def test_the_script_runs_under_the_pages_own_policy(site: Path, tmp_path: Path):
    page = seen(site / "index.html", tmp_path)
    assert '<form role="search"' in page  # no longer hidden
    assert "4 of 4 results" in page
    assert page.count('<button type="button">') == 9


def test_without_scripts_the_table_is_there(site: Path):
    page = (site / "index.html").read_text(encoding="utf-8")
    assert "<form hidden" in page
    assert page.count("<tr id=") == 4


@pytest.mark.parametrize("width", [1280, 500])
def test_columns_sort_and_rows_are_filtered(site: Path, tmp_path: Path, width: int):
    page = (site / "index.html").read_text(encoding="utf-8")
    copy = site / f"clicked-{width}.html"  # the policy forbids every script but the page's own
    copy.write_text(re.sub(r"<meta http-equiv=[^>]*>", "", page).replace("</body>", CLICK), encoding="utf-8")
    [told] = re.findall(r"<title>TOLD ([^<]*)", seen(copy, tmp_path, width))
    assert told.split(" | ") == [
        "b-model,c-model,a-model,d-model", "ascending",
        "a-model,c-model,b-model,d-model", "descending",
        "a-model,b-model,c-model,d-model", "null",
        "c-model", "1 of 4 results", "true",
    ]  # fmt: skip
