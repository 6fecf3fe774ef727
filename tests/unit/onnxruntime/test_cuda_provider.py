"""The code of a board, with the processor in its place: memory, moves, and refusals where CUDA is not what is had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fake_nvml
import numpy as np
import pytest
from board_stand_in import board, stand_in
from company import comings_and_goings, seat
from fake_nvml import Board, steady
from hypothesis import HealthCheck, given, settings
from reference.tiny_checkpoint import VOCABULARY, write_tiny

from perjoule.errors import EngineError, HostError, UsageError
from perjoule.protocols import EngineOptions

pytest.importorskip("onnxruntime")
import onnxruntime as ort

from perjoule_backends.onnxruntime import OnnxRuntimeBackend, backend, cuda
from perjoule_backends.onnxruntime.cuda import CUDA, CudaProvider, refuse_other_provider
from perjoule_backends.onnxruntime.engine import OnnxRuntimeEngine
from perjoule_backends.onnxruntime.manifest import read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.protocols import Prepared

CONTEXT, PLACES, LONGEST = 32, 4, 12


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


OPTIONS = EngineOptions(threads=1, quant="int8", context_tokens=CONTEXT, batch=PLACES, extra={"spinning": False})


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return board().prepare(str(write_tiny(tmp_path / "tiny.gguf", "qwen2")), OPTIONS, lambda _text, _share: None)


@pytest.fixture
def engine(prepared: Prepared) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(prepared.path, OPTIONS, CONTEXT, stand_in())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=comings_and_goings(VOCABULARY, PLACES, LONGEST))
def test_whoever_joins_and_leaves_each_sequence_goes_on_as_alone(
    engine: OnnxRuntimeEngine, events: list[tuple[int, ...] | int | str]
) -> None:
    for prompt, said in seat(engine.batch(), PLACES, events):
        alone: list[int] = []
        engine.generate(prompt, len(said) or 1, frozenset(), alone.append)
        assert said == alone[: len(said)]


def test_a_move_copies_one_place_and_no_other(prepared: Prepared) -> None:
    cache = stand_in().cache(read_manifest(prepared.path), 6, places=3)
    assert isinstance(cache, cuda.DeviceCache)
    filled = []
    for number, (_past, _present, value) in enumerate(cache._values):
        array = np.zeros((3, *cache._place), dtype=np.float16)
        array[2] = number + 1
        value.update_inplace(array)
        filled.append(array)
    cache.move(2, 0, 4)
    for array, (_past, _present, value) in zip(filled, cache._values, strict=True):
        found = value.numpy()
        assert (found[0] == array[2]).all()
        assert (found[2] == array[2]).all()
        assert not found[1].any()


def test_keys_and_values_take_half_of_what_they_take_in_float32(engine: OnnxRuntimeEngine, prepared: Prepared) -> None:
    used = engine.effective_options()
    assert prepared.model.kv_bytes_per_position is not None
    assert used["kv_cache_bytes"] == PLACES * CONTEXT * prepared.model.kv_bytes_per_position
    assert (used["activations"], used["kv_cache"]) == ("float16", "float16")
    assert "never" in used["experimental"]


def test_the_result_names_the_board_by_which_the_meter_knows_it(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(monkeypatch, [Board(steady(100), bus=4)])
    used = CudaProvider(0).effective_options(read_manifest(prepared.path))
    assert (used["provider"], used["device_id"], used["nvml_domain"]) == (CUDA, 0, "gpu-0")


@pytest.mark.parametrize("found", [[], ["CPUExecutionProvider"], ["CPUExecutionProvider", CUDA]])
def test_a_session_that_would_run_elsewhere_is_refused(found: list[str]) -> None:
    with pytest.raises(EngineError, match="did not take CUDAExecutionProvider") as caught:
        refuse_other_provider(found, CUDA)
    assert "perjoule[cuda]" in caught.value.hint
    refuse_other_provider([CUDA, "CPUExecutionProvider"], CUDA)


def test_a_build_without_cuda_is_refused_with_the_command_and_the_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(HostError, match="without CUDA") as caught:
        CudaProvider(0).copier(1)
    assert "pip install 'perjoule[cuda]'" in caught.value.hint
    assert "onnxruntime-gpu cannot lie in one" in caught.value.hint


class KernelError(Exception):
    """As ONNX Runtime's own, which is no RuntimeError."""


class Session:
    """What ONNX Runtime gives: a list of providers, or an exception where a node finds no kernel on the board."""

    def __init__(self, model: Any, options: Any, *, providers: Any, **_other: Any) -> None:
        self.options = options
        assert providers[0][0] == CUDA
        assert providers[0][1]["device_id"] == "3"
        if not isinstance(model, bytes):
            assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
            raise KernelError("This session contains graph nodes that are assigned to the default CPU EP\nmore")

    def get_providers(self) -> list[str]:
        return [CUDA, "CPUExecutionProvider"]


def test_nodes_that_would_run_on_the_processor_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(ort, "InferenceSession", Session)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    with pytest.raises(EngineError, match=r"on GPU 3: This session contains graph nodes .* CPU EP$"):
        CudaProvider(3).session(tmp_path / "model.onnx", 1, spinning=False)


def test_what_is_asked_for_is_checked_before_anything_is_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(**options: Any) -> None:
        OnnxRuntimeBackend().prepare("nothing", EngineOptions(device="cuda:0", **options), lambda _text, _share: None)

    with pytest.raises(UsageError, match="16 bits"):
        prepare(quant="fp32")
    with pytest.raises(HostError, match="build without CUDA"):
        prepare()
    monkeypatch.setattr(backend, "_devices", lambda: ("cpu", "cuda:0"))
    fake_nvml.install(monkeypatch, [], init_error=fake_nvml.LIBRARY_NOT_FOUND)
    with pytest.raises(HostError, match="no NVIDIA GPU is visible"):
        prepare()


def test_boards_are_offered_only_by_a_build_that_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "capi").mkdir()

    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(backend, "find_spec", lambda _name: Spec)
    assert OnnxRuntimeBackend().info().devices == ("cpu",)
    assert "perjoule[cuda]" in OnnxRuntimeBackend().info().more_devices
    (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").touch()
    assert OnnxRuntimeBackend().info().devices[:2] == ("cpu", "cuda:0")
