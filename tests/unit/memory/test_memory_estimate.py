"""What a model needs is above what was seen, and what there is of memory is the least that anything leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from builders import make_model
from hypothesis import given
from hypothesis import strategies as st
from simulated import use_tree

from perjoule.memory_estimate import available_bytes, needed_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.records import ModelFacts

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
UNLIMITED_V1 = 9223372036854771712
counts = st.integers(1, 4096)


def facts(parameters: int, weights_mib: int, kv_bytes: int | None) -> ModelFacts:
    reason = msgspec.UNSET if kv_bytes is not None else "the engine does not say"
    return make_model(
        parameters=parameters,
        weights_bytes=weights_mib * MIB,
        kv_bytes_per_position=kv_bytes,
        kv_bytes_per_position_missing=reason,
    )


SMOLLM2 = facts(134_515_008, 137, 46_080)
QWEN = facts(630_167_424, 626, 24_576)


@pytest.mark.parametrize(
    ("model_facts", "context", "batch", "prompt", "seen_mib"),
    [  # VmHWM on ONNX Runtime 1.32.0, x86, 8-bit weights, after a batch of full contexts
        (SMOLLM2, 512, 1, 448, 295),
        (SMOLLM2, 512, 4, 448, 368),
        (SMOLLM2, 512, 8, 448, 462),
        (SMOLLM2, 2048, 1, 1900, 459),
        (QWEN, 512, 1, 448, 756),
        (QWEN, 1024, 4, 900, 906),
    ],
)
def test_the_estimate_is_above_the_peak_that_was_seen_and_not_twice_it(
    model_facts: ModelFacts, context: int, batch: int, prompt: int, seen_mib: int
) -> None:
    assert 1.1 < needed_bytes(model_facts, context, batch, prompt) / (seen_mib * MIB) < 2


@given(context=counts, batch=st.integers(1, 256), prompt=counts)
def test_each_sequence_more_adds_at_least_its_keys_and_values(context: int, batch: int, prompt: int) -> None:
    more = needed_bytes(SMOLLM2, context, batch + 1, prompt) - needed_bytes(SMOLLM2, context, batch, prompt)
    assert more >= context * 46_080 - 1
    assert needed_bytes(SMOLLM2, context, batch, prompt + 1) >= needed_bytes(SMOLLM2, context, batch, prompt)
    assert needed_bytes(QWEN, context, batch, prompt) > needed_bytes(SMOLLM2, 0, batch, prompt)


@pytest.mark.parametrize(("parameters", "layers", "hidden"), [(6_738_415_616, 32, 4096), (13_015_864_320, 40, 5120)])
def test_keys_and_values_that_nobody_states_are_taken_as_those_of_unshared_heads(
    parameters: int, layers: int, hidden: int
) -> None:
    """Shapes of Llama-2-7B and 13B, which share no heads."""
    context = 4096
    unknown, without = (needed_bytes(facts(parameters, 0, kv), context, 1, 1) for kv in (None, 0))
    assert context * 2 * layers * hidden * 4 < unknown - without < 4 * context * 2 * layers * hidden * 4


def test_a_model_without_parameters_needs_the_process_alone() -> None:
    assert 64 * MIB < needed_bytes(facts(0, 0, 0), 2048, 8, 512) < 256 * MIB
    assert needed_bytes(facts(0, 0, None), 2048, 8, 512) == needed_bytes(facts(0, 0, 0), 2048, 8, 512)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_tree(tmp_path, monkeypatch)
    put(tmp_path / "proc/meminfo", f"MemTotal: {32 * GIB // KIB} kB\nMemAvailable:   {10 * GIB // KIB} kB\n")
    return tmp_path


def put(path: Path, text: str | int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def test_a_machine_without_limits_leaves_what_its_kernel_says(tree: Path) -> None:
    assert available_bytes() == 10 * GIB
    (tree / "proc/meminfo").unlink()
    assert available_bytes() is None


@pytest.mark.parametrize("limit", ["max", str(UNLIMITED_V1), "", "x", "-1", "9" * 30, str(64 * GIB)])
def test_a_limit_that_limits_nothing_changes_nothing(tree: Path, limit: str) -> None:
    put(tree / "sys/fs/cgroup/memory.max", limit)
    put(tree / "sys/fs/cgroup/memory/memory.limit_in_bytes", limit)
    put(tree / "proc/self/cgroup", "4:memory:/\n0::/")
    assert available_bytes() == 10 * GIB


def stat(**values_mib: int) -> str:
    return "\n".join(f"{name} {value * MIB}" for name, value in values_mib.items())


V2_STAT = stat(anon=900, inactive_file=300, active_file=200, file_dirty=50, file_writeback=10)
V1_STAT = stat(
    cache=1, inactive_file=7, total_inactive_file=300, total_active_file=200, total_dirty=50, total_writeback=10
)


@pytest.mark.parametrize(
    ("groups", "files", "left_mib"),
    [
        ("0::/a", {"a/memory.max": 4096 * MIB, "a/memory.current": 1500 * MIB, "a/memory.stat": V2_STAT}, 3036),
        ("0::/a", {"a/memory.max": 4096 * MIB, "a/memory.current": 1500 * MIB}, 2596),
        ("0::/a", {"a/memory.max": 4096 * MIB}, 4096),
        ("0::/a", {"unified/a/memory.max": 1024 * MIB}, 1024),
        ("0::/a", {"a/memory.max": 1024 * MIB, "a/memory.current": 2048 * MIB}, 0),
        ("0::/a", {"a/memory.max": 1024 * MIB, "a/memory.current": 9 * MIB, "a/memory.stat": V2_STAT}, 1024),
        (
            "0::/a/b",
            {"a/b/memory.max": "max", "a/memory.max": 2048 * MIB, "a/memory.current": 48 * MIB,
             "memory.max": 3072 * MIB},
            2000,
        ),
        ("0::/not/mounted/here", {"memory.max": 512 * MIB}, 512),
        (
            "4:memory:/a\n2:cpu:/b",
            {"memory/a/memory.limit_in_bytes": 4096 * MIB, "memory/a/memory.usage_in_bytes": 1500 * MIB,
             "memory/a/memory.stat": V1_STAT, "memory/memory.limit_in_bytes": UNLIMITED_V1},
            3036,
        ),
        ("2:cpu:/b\n", {"memory/b/memory.limit_in_bytes": 1, "cpu/b/memory.limit_in_bytes": 1}, 10240),
    ],
)  # fmt: skip
def test_the_tightest_cgroup_from_own_to_root_decides(
    tree: Path, groups: str, files: dict[str, str | int], left_mib: int
) -> None:
    put(tree / "proc/self/cgroup", groups)
    for name, text in files.items():
        put(tree / "sys/fs/cgroup" / name, text)
    assert available_bytes() == left_mib * MIB


@pytest.mark.parametrize("text", ["", "MemAvailable:", "MemAvailable: x kB", "MemAvailable: -5 kB", "\0" * 40, "a b c"])
@pytest.mark.parametrize("group", ["0::/\0", ":::", "x", "0::" + "/d" * 3000])
def test_files_that_hold_anything_say_nothing(tree: Path, text: str, group: str) -> None:
    put(tree / "proc/meminfo", text)
    put(tree / "proc/self/cgroup", group)
    assert available_bytes() is None
