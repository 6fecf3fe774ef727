"""The project's own files, read as syntax trees: what the architecture tests look at."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "perjoule": ROOT / "profiler" / "perjoule",
    "perjoule_backends": ROOT / "backends" / "perjoule_backends",
    "perjoule_scenarios": ROOT / "scenarios" / "perjoule_scenarios",
}


@cache
def modules() -> dict[str, Path]:
    """Return every module of the three packages by its dotted name."""
    found = {}
    for package, root in PACKAGES.items():
        for path in sorted(root.rglob("*.py")):
            parts = [package, *path.relative_to(root).with_suffix("").parts]
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(module: str) -> set[str]:
    """Return the absolute names a module imports at run time, in functions too, without those for type checkers."""
    inside = tree(modules()[module])
    skipped = {
        inner
        for node in ast.walk(inside)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    names: set[str] = set()
    for node in ast.walk(inside):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively: absolute names say where a thing is"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return names


def own_imports(module: str) -> set[str]:
    """Return the project's modules that a module imports: ``from package import name`` counts as ``package.name``
    where that is a module, and as ``package`` otherwise."""
    found = set()
    for name in imports(module):
        known = next((n for n in (name, name.rpartition(".")[0]) if n in modules()), None)
        if known and known != module:
            found.add(known)
    return found


def listed_files() -> list[Path]:
    """Return the files of the repository: git's list, or outside a clone everything that is not an environment."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        tops = [p for p in ROOT.iterdir() if not p.name.startswith(".venv") and p.name not in ("dist", "build")]
        return [f for top in tops for f in ([top] if top.is_file() else top.rglob("*")) if f.is_file()]
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]
