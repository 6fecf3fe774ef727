"""docs/results-format.md lists every key with its meaning, generated from the records."""

from __future__ import annotations

from key_tables import MEANINGS, comments, reached, shown, with_key_tables
from regenerate import ROOT

from perjoule.records import RunResult

RECORDS = [record for record, _ in reached(RunResult)]


def test_the_page_is_what_the_records_give():
    page = (ROOT / "docs" / "results-format.md").read_text(encoding="utf-8")
    assert with_key_tables(page) == page, "run python tests/regenerate.py"
    assert page.count("| key | type | unit | meaning |") == len(RECORDS)


def test_every_key_says_what_it_means():
    bare = [
        f"{record.__name__}.{field.name}"
        for record in RECORDS
        for field in shown(record)
        if field.name not in comments(record) and f"``{field.name}``" not in (record.__doc__ or "")
    ]
    assert bare == [], "say it behind the field, or in tests/key_meanings.toml"


def test_no_meaning_is_left_over():
    keys = {record.__name__: {field.name for field in shown(record)} for record in RECORDS}
    left = [f"{name}.{key}" for name, said in MEANINGS.items() for key in said if key not in keys.get(name, set())]
    assert left == []
