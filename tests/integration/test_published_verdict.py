"""From results to a verdict, to a published folder and its site, by the commands alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PUBLISHED = Path(__file__).parents[2] / "results"
[RESULT, *_] = RESULTS = sorted(PUBLISHED.glob("*/2*-tasks-quick-*.json"))


def perjoule(*words: object, code: int = 0) -> tuple[str, str]:
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "perjoule", *map(str, words)], capture_output=True, text=True, env=environment,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_a_verdict_is_judged_published_shown_and_verified(tmp_path: Path) -> None:
    mine, to = tmp_path / "mine", tmp_path / "to"
    mine.mkdir()
    for path in RESULTS:
        shutil.copy(path, mine)
    judging = ("claim", "qwen-low-power", mine, "--exploratory")

    asked = tmp_path / "asked.json"
    perjoule(*judging, "--json", asked, "--out", mine)
    [left] = mine.glob("claim-qwen-low-power-*.verdict.json")
    assert left.read_bytes() == asked.read_bytes()
    perjoule(*judging, "--out", mine)  # again: the same verdict is there, and nothing is written over
    perjoule(*judging, "--json", asked, code=2)
    measured = perjoule("claim", "qwen-low-power", "--quick", "--out", mine)[1]  # all is there already
    assert "measuring" not in measured
    assert [left] == list(mine.glob("*.verdict.json"))

    assert "not shown" not in perjoule("show", mine)[1]
    assert perjoule("verify", mine)[0].count(": ok\n") == 3

    refused = perjoule("publish", asked, RESULT, "--to", tmp_path / "half", code=5)[1]
    assert "is not published here" in refused
    assert "1 published, 0 there already, 1 refused, 0 not read" in refused

    assert "3 published" in perjoule("publish", mine, "--to", to)[1]
    [verdict] = (to / "claims").iterdir()
    front = (to / "site" / "index.html").read_text(encoding="utf-8")
    [page] = (to / "site").glob("claim-qwen-low-power-*.html")
    assert page.name in front
    assert f"../claims/{verdict.name}" in front
    assert ">holds</strong>" in front
    before = {p.name: p.stat().st_mtime_ns for p in (to / "site").glob("*.html")}
    assert "0 published, 3 there already, 0 refused" in perjoule("publish", mine, "--to", to)[1]
    assert {p.name: p.stat().st_mtime_ns for p in (to / "site").glob("*.html")} == before

    assert perjoule("verify", verdict)[0] == f"{verdict}: ok\n"
    verdict.write_text(verdict.read_text(encoding="utf-8").replace('"answer": "holds"', '"answer": "fails"', 1))
    assert "does not hold" in perjoule("verify", to, code=5)[0]
    assert "is shown on no page: claims/" in perjoule("publish", "--to", to)[1]
    assert not list((to / "site").glob("claim-*.html"))
