"""The layout is what docs/adr/0001-layout.md says: imports go downward only, clocks are read in one place."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = {
    "perjoule": ROOT / "profiler" / "perjoule",
    "perjoule_backends": ROOT / "backends" / "perjoule_backends",
    "perjoule_scenarios": ROOT / "scenarios" / "perjoule_scenarios",
}
LAYERS = [
    {"records", "protocols", "errors", "clock"},
    {"registry", "host", "meters", "stats", "load", "scenario", "store", "quality", "memory"},
    {"checks", "assemble", "messages", "child", "measure", "worker", "runner", "verify"},
    {"render"},
    {"cli", "__main__"},
]
BACKENDS_MAY_IMPORT = {"records", "protocols", "errors", "clock", "quality"}
MAX_LINES = 460  # of declarations alone, as in records.py; code should stay under 400


def modules() -> list[tuple[str, Path]]:
    found = []
    for package, root in SOURCES.items():
        for path in sorted(root.rglob("*.py")):
            parts = [package, *path.relative_to(root).with_suffix("").parts]
            found.append((".".join(p for p in parts if p != "__init__"), path))
    return found


def imports(path: Path) -> set[str]:
    """Return the absolute names imported anywhere in a file, type-checking blocks left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer(module: str) -> int:
    part = module.partition(".")[2].partition(".")[0]
    return next((i for i, names in enumerate(LAYERS) if part in names), -1)


def test_perjoule_imports_downward_only():
    wrong = []
    for module, path in modules():
        if not module.startswith("perjoule."):
            continue
        assert layer(module) >= 0, f"{module} is in no layer: add it to docs/adr/0001-layout.md and here"
        wrong += [f"{module} -> {n}" for n in imports(path) if n.startswith("perjoule.") and layer(n) > layer(module)]
    assert not wrong


def test_plug_ins_are_reached_by_name_only():
    reached = [(m, n) for m, p in modules() if m.startswith("perjoule.") for n in imports(p)]
    assert not [pair for pair in reached if pair[1].startswith(("perjoule_backends", "perjoule_scenarios"))]
    used = [(m, n) for m, p in modules() if m.startswith("perjoule_backends") for n in imports(p)]
    wrong = [(m, n) for m, n in used if n.startswith("perjoule.") and n.split(".")[1] not in BACKENDS_MAY_IMPORT]
    assert not wrong


def test_only_the_clock_reads_clocks():
    users = [m for m, p in modules() for n in imports(p) if n.split(".")[0] == "time" and m != "perjoule.clock"]
    assert not users


def test_modules_fit_one_reading_and_say_what_they_are():
    long = {m: len(p.read_text().splitlines()) for m, p in modules() if len(p.read_text().splitlines()) > MAX_LINES}
    assert not long
    assert not [m for m, p in modules() if m.split(".")[-1] in ("utils", "common", "helpers", "misc")]
    assert not [m for m, p in modules() if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))]


def test_no_file_names_a_machine_or_a_registry():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    pattern = re.compile(r"(^|[\s\"'(=])/(work|root|home)/|https?://[a-z.-]*(pypi|pythonhosted|npmjs|debian)")
    readable = (".py", ".toml", ".md", ".json", ".txt", "")
    paths = [ROOT / name for name in listed.splitlines() if Path(name).suffix in readable]
    wrong = []
    for path in paths:
        if path.is_file() and path != Path(__file__):
            lines = path.read_text(errors="replace").splitlines()
            wrong += [f"{path.name}: {line[:80]}" for line in lines if pattern.search(line)]
    assert paths
    assert not wrong
