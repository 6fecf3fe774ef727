"""The layout is what docs/adr/0001-layout.md says: imports go downward only, clocks are read in one place."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

import pytest
from architecture.sources import ROOT, imports, listed_files, modules, own_imports, tree

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = [
    {"records", "protocols", "errors", "clock"},
    {"registry", "host", "meters", "stats", "load", "scenario", "store", "quality", "memory", "lock", "placement",
     "page_cache", "memory_estimate", "server_process"},
    {
        "checks", "assemble", "messages", "child", "measure", "worker", "whereabouts", "joined", "runner", "noise",
        "own_cost", "noise_floor", "roofline",
        "plan", "preparation", "judging", "progress", "journal", "resumption",
        "examine", "verify", "publish", "plausibility", "upgrade",
        "drive", "by_process", "race", "contest", "tuning", "compare", "answers", "reading", "claims", "asking",
    },
    {"render"},
    {"interchange"},
    {"cli", "__main__"},
]  # fmt: skip
# cli modules and the table of what ships are imported by name, which no syntax tree shows
BACKENDS_MAY_IMPORT = {"records", "protocols", "errors", "clock", "quality"}
MAX_LINES = {"perjoule.records": 460}  # declarations alone
DEFAULT_MAX_LINES = 400
VAGUE = {"utils", "util", "common", "helpers", "helper", "misc"}


def layer(module: str) -> int:
    part = module.partition(".")[2].partition(".")[0]
    return next((i for i, names in enumerate(LAYERS) if part in names), -1)


def of(package: str) -> list[str]:
    return [m for m in modules() if m.split(".")[0] == package]


def test_every_module_of_perjoule_has_a_layer():
    lost = [m for m in of("perjoule") if m != "perjoule" and layer(m) < 0]
    assert lost == [], "add it to docs/adr/0001-layout.md and to LAYERS"


def test_the_layout_document_names_every_part():
    text = (ROOT / "docs" / "adr" / "0001-layout.md").read_text(encoding="utf-8")
    assert [n for names in LAYERS for n in names if n != "__main__" and not re.search(rf"\b{n}\b", text)] == []


def test_perjoule_imports_downward_only():
    pairs = [(m, n) for m in of("perjoule") for n in own_imports(m)]
    assert pairs
    assert [f"{m} -> {n}" for m, n in pairs if m != "perjoule" and layer(n) > layer(m)] == []


def test_the_package_itself_imports_nothing():
    assert imports("perjoule") == set()


def test_there_are_no_import_cycles():
    graph = {m: own_imports(m) for m in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
    assert graph["perjoule.cli.run"]


def test_plug_ins_are_reached_by_name_only():
    reached = [(m, n) for m in of("perjoule") for n in imports(m)]
    assert [p for p in reached if p[1].startswith(("perjoule_backends", "perjoule_scenarios"))] == []


def test_backends_know_only_the_contracts():
    used = [(m, n) for m in of("perjoule_backends") for n in imports(m) if n.split(".")[0] == "perjoule"]
    assert used
    assert [p for p in used if p[1].split(".")[1] not in BACKENDS_MAY_IMPORT] == []


def test_scenarios_are_data():
    assert of("perjoule_scenarios") == ["perjoule_scenarios"]
    assert imports("perjoule_scenarios") == set()


def test_only_the_clock_reads_clocks():
    assert [m for m in modules() for n in imports(m) if n.split(".")[0] == "time" and m != "perjoule.clock"] == []
    calls = [(m, ast.unparse(node)) for m in modules() for node in ast.walk(tree(modules()[m])) if is_now(node)]
    assert [c for c in calls if c[0] != "perjoule.clock"] == []


def is_now(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "today", "monotonic_ns", "perf_counter")


def test_modules_fit_one_reading():
    lines = {m: len(p.read_text(encoding="utf-8").splitlines()) for m, p in modules().items()}
    assert {m: n for m, n in lines.items() if n > MAX_LINES.get(m, DEFAULT_MAX_LINES)} == {}


def test_modules_have_a_name_and_a_first_line_that_say_what_they_are():
    assert [m for m in modules() if VAGUE & set(m.split("."))] == []
    assert [m for m, p in modules().items() if not ast.get_docstring(tree(p))] == []


def test_no_file_names_a_machine_or_a_registry_host():
    # split, so that this file does not name them either
    places = r"(^|[\s\"'`(=])/" + r"(work|root|home/\w+)/|/tmp/" + r"pj\b"
    hosts = r"https?://[\w.-]*(py" + r"pi|pythonhosted|npm" + r"js|debian|ubuntu)\b"
    pattern = re.compile(f"{places}|{hosts}")
    wrong = []
    for path in listed_files():
        data = path.read_bytes()
        if b"\0" not in data:
            lines = data.decode(errors="replace").splitlines()
            wrong += [
                f"{path.name}:{n}: {text.strip()[:80]}" for n, text in enumerate(lines, 1) if pattern.search(text)
            ]
    assert wrong == []


def test_no_large_or_generated_file_is_in_the_repository():
    large = {p.name: p.stat().st_size for p in listed_files() if p.stat().st_size > 1_000_000}
    assert large == {}
    assert [p.name for p in listed_files() if p.suffix in (".gguf", ".onnx", ".pyc", ".whl")] == []


def test_every_test_asserts_something():
    checking: set[str] = set()
    tests: list[tuple[Path, ast.FunctionDef]] = []
    functions: list[ast.FunctionDef] = []
    for path in (ROOT / "tests").rglob("*.py"):
        found = [n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef)]
        functions += found
        tests += [(path, f) for f in found if f.name.startswith("test_") and path.name.startswith("test_")]
    while more := {f.name for f in functions if f.name not in checking and asserts(f, checking)}:
        checking |= more
    assert tests
    assert [f"{path.name}: {test.name}" for path, test in tests if not asserts(test, checking)] == []


def asserts(function: ast.FunctionDef, checking: set[str]) -> bool:
    """Return whether a function asserts, expects an error, or calls a function of the tests that does."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            last = name.split(".")[-1]
            if (
                name in ("pytest.raises", "pytest.fail", "pytest.warns")
                or last.startswith("assert_")
                or last in checking
            ):
                return True
    return False
