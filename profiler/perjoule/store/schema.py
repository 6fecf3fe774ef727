"""The JSON Schema of result files, generated from the records."""

from __future__ import annotations

from typing import Any

import msgspec

from perjoule.records import SCHEMA_VERSION, RunResult


def run_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a run result."""
    schema = msgspec.json.schema(RunResult)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"perjoule run result, version {SCHEMA_VERSION}",
        **schema,
    }
