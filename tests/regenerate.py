"""Write the generated files that tests compare: schema and key tables, and the golden result if it is not there.

Run as ``python tests/regenerate.py``. A golden file of a released version is never written again.
"""

from __future__ import annotations

import json
from pathlib import Path

from builders import make_result
from key_tables import with_key_tables

from perjoule.records import SCHEMA_VERSION
from perjoule.store.schema import run_schema
from perjoule.store.write import encode

ROOT = Path(__file__).parents[1]


def schema_text() -> str:
    return json.dumps(run_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    schema = ROOT / f"results/schema/run-{SCHEMA_VERSION}.schema.json"
    schema.write_text(schema_text(), encoding="utf-8")
    page = ROOT / "docs/results-format.md"
    page.write_text(with_key_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
    golden = ROOT / f"tests/golden/run-{SCHEMA_VERSION}.json"
    if not golden.exists():
        golden.write_bytes(encode(make_result()))
