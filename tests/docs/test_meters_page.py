"""docs/meters.md names every meter, and its worked example is a package that runs."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule import registry
from perjoule.meters import MeterSet
from perjoule.protocols import Count
from perjoule.records import MeterRefusal

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).parents[2] / "docs" / "meters.md"


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return str(found)


def test_every_meter_is_on_the_page():
    named = set(re.findall(r"^\| `([a-z-]+)[:`]", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert named == set(registry.BUILT_IN["perjoule.meters"])


def test_the_worked_example_runs_as_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    project = tomllib.loads(block("toml"))["project"]
    ((group, entries),) = project["entry-points"].items()
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "joulefile.py").write_text(block("python"))
    monkeypatch.syspath_prepend(str(tmp_path))
    counter = tmp_path / "count"
    counter.write_text("5000\n")
    try:
        assert "joulefile" in registry.names("perjoule.meters")
        with MeterSet([f"joulefile:{counter}"]) as meters:
            (fact,) = meters.facts
            (start,) = meters.read()
            counter.write_text("17500\n")
            (end,) = meters.read()
            counter.write_text("rubbish")
            (lost,) = meters.read()
    finally:
        sys.modules.pop("joulefile", None)
    assert (fact.domain, fact.unit_j) == ("wall", "1/1000")
    assert isinstance(start, Count)
    assert isinstance(end, Count)
    assert (end.count - start.count) / 1000 == 12.5
    assert isinstance(lost, MeterRefusal)
    assert lost.fix == "start the driver"
