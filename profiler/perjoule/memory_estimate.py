"""What a model will need of this machine's memory, and what there is of it: asked before anything is loaded.

An estimate to refuse by, not a measurement: each term is an upper bound of what decoders of the published shapes take,
so that it is somewhat above the peak that ``memory`` reads afterwards. It knows of a model only what a result tells.
"""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from perjoule.host import procfs_root, sysfs_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perjoule.records import ModelFacts

_MIB, _KIB, _FLOAT = 1 << 20, 1 << 10, 4
# Interpreter, engine library, tokenizer and graph: 75 to 130 MiB of SmolLM2-135M and Qwen2.5-Coder-0.5B on ONNX
# Runtime 1.32.0 and x86; a quarter more for what has not been seen.
_PROCESS_BYTES = 160 * _MIB
# Engines repack matrices, and ours keeps a float32 sum beside the scale of each block: 10/9 at 8 bits and 32 columns.
_REPACKED = 1.15
# Width of a decoder by its parameters: hidden / parameters^(1/3) is 1.12 (SmolLM2-135M), 1.13 (Qwen2.5-0.5B), 1.9
# (Llama-3.2-1B), 2.05 (Llama-3.1-8B), 2.2 (Llama-3.1-405B).
_NARROW, _WIDE = 1.1, 2.3
_HEAD_WIDTH = 64  # the narrowest heads that decoders of these sizes have: as many heads as there can be
# Activations of one token alive at once, in widths: gate, up and their product at up to 6 each, QKV up to 3, the
# running sum, its norm and an attention output.
_WIDTHS_ALIVE = 24
_LARGEST_VOCABULARY = 1 << 18  # Gemma's
_MAX_FILE_BYTES, _MAX_CGROUP_DEPTH = 1 << 16, 64


def needed_bytes(model: ModelFacts, context_tokens: int, batch: int, prompt_tokens: int) -> int:
    """Return an upper estimate of the peak resident bytes of one worker that decodes ``batch`` sequences together.

    The sum of: the process; the weights as the engine repacks them; keys and values of ``batch`` full contexts; the
    activations of the largest pass, which is one prompt or one token of each sequence; the attention scores of that
    pass against a whole context, all heads of one layer; logits of one position of each sequence and of a prompt.
    What is not known of a model counts 0.
    """
    tokens = max(prompt_tokens, batch)
    width = _WIDE * (model.parameters or 0) ** (1 / 3)
    heads = width / _HEAD_WIDTH
    logits = (batch + 1) * _LARGEST_VOCABULARY * _FLOAT if model.parameters else 0
    terms = (
        _PROCESS_BYTES,
        _REPACKED * (model.weights_bytes or 0),
        batch * context_tokens * _kv_bytes_per_position(model),
        tokens * width * _WIDTHS_ALIVE * _FLOAT,
        tokens * context_tokens * heads * _FLOAT,
        logits,
    )
    return int(sum(terms))


def _kv_bytes_per_position(model: ModelFacts) -> float:
    """Return what the backend says, else the bound of a decoder that shares no heads.

    That one has at least 12 hidden^2 parameters a layer (4 of attention, 8 of the MLP) and caches 2 hidden float32 a
    layer: 8 parameters / (12 hidden) bytes, most for a narrow one.
    """
    if model.kv_bytes_per_position is not None:
        return model.kv_bytes_per_position
    parameters = model.parameters or 0
    narrow = _NARROW * parameters ** (1 / 3)
    return 2 * _FLOAT * parameters / (12 * narrow) if narrow else 0.0


def available_bytes() -> int | None:
    """Return the bytes a new process can have without swapping: the least of what the machine and its cgroups leave.

    Page cache counts as free as far as it can be dropped: MemAvailable has the kernel's own judgement of it (proc(5)),
    and of a cgroup's usage its clean file pages are taken off. A converted model that stands there is thus counted as
    free, and as needed again by ``needed_bytes``. None where nothing says it: then nothing can be refused.
    """
    found = [_machine_bytes(), *(_left_in(folder, *names) for folder, *names in _memory_cgroups())]
    return min((value for value in found if value is not None), default=None)


def _machine_bytes() -> int | None:
    if sys.platform != "linux":
        import psutil  # noqa: PLC0415 - the kernel's file says it on Linux

        return int(psutil.virtual_memory().available)
    kib = _fields(procfs_root() / "meminfo").get("MemAvailable")
    return None if kib is None else kib * _KIB


def _memory_cgroups() -> Iterator[tuple[Path, str, str, str]]:
    """Yield this process's memory cgroups, own and above: folder, names of limit and usage, prefix of statistics.

    v2: memory.max, memory.current (cgroup-v2.rst of Linux). v1: memory.limit_in_bytes, memory.usage_in_bytes, and
    statistics that include the children as total_* (cgroup-v1/memory.rst). In a container the path may be the host's:
    folders that are not there say nothing, and the mount itself is always among them.
    """
    root = sysfs_root() / "fs" / "cgroup"
    for line in (_text(procfs_root() / "self" / "cgroup") or "0::/").splitlines():
        _number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        mounts = ("memory",) if controllers else (".", "unified")
        names = ("limit_in_bytes", "usage_in_bytes", "total_") if controllers else ("max", "current", "")
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")][:_MAX_CGROUP_DEPTH]
        for mount in mounts:
            for depth in range(len(parts) + 1):
                yield root / mount / Path(*parts[:depth]), *names


def _left_in(folder: Path, limit_name: str, usage_name: str, prefix: str) -> int | None:
    """Return limit less what cannot be dropped; None without a limit ("max", or v1's number beyond any memory)."""
    limit = _whole(_text(folder / f"memory.{limit_name}"))
    if limit is None:
        return None
    usage = _whole(_text(folder / f"memory.{usage_name}")) or 0
    stat = _fields(folder / "memory.stat")
    cached = stat.get(f"{prefix}inactive_file", 0) + stat.get(f"{prefix}active_file", 0)
    dirty = ("file_dirty", "file_writeback") if not prefix else (f"{prefix}dirty", f"{prefix}writeback")
    droppable = max(0, cached - sum(stat.get(name, 0) for name in dirty))
    return max(0, limit - max(0, usage - droppable))


def _fields(path: Path) -> dict[str, int]:
    """Return the numbers of a file of ``name value`` or ``name: value kB`` lines."""
    found = {}
    for line in (_text(path) or "").splitlines():
        name, _, rest = line.replace(":", " ", 1).partition(" ")
        value = _whole(rest.split()[0] if rest.split() else None)
        if value is not None:
            found[name] = value
    return found


def _text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES).decode(errors="replace").strip()
    except (OSError, ValueError):  # ValueError: a NUL in a path that a file named
        return None  # a file that this kernel does not have says nothing, which is no failure


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else None  # noqa: PLR2004 - 64 bits
