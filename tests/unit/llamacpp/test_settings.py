"""Options of llama.cpp are checked before it is loaded, and what it lacks is said with the way to get it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from perjoule.errors import HostError, UsageError
from perjoule.protocols import EngineOptions
from perjoule_backends.llamacpp import LlamaCppBackend, backend
from perjoule_backends.llamacpp.settings import Settings, settings_of

if TYPE_CHECKING:
    from pathlib import Path


class Spec:
    def __init__(self, origin: Path) -> None:
        self.origin = str(origin / "__init__.py")


def prepare(options: EngineOptions, tmp_path: Path) -> None:
    LlamaCppBackend().prepare(str(tmp_path / "none.gguf"), options, lambda _text, _share: None)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if llama-cpp-python were there, its libraries in the folder that is returned."""
    monkeypatch.setattr(backend, "find_spec", lambda _name: Spec(tmp_path))
    (tmp_path / "lib").mkdir()
    return tmp_path / "lib"


def test_flash_attention_is_on_and_a_pass_computes_512_tokens() -> None:
    assert settings_of({}) == Settings(flash_attn=True, batch=2048, ubatch=512, kv_type="f16", mmap=True)


def test_a_small_batch_takes_its_micro_batch_with_it() -> None:
    assert settings_of({"batch": 64}).ubatch == 64
    assert settings_of({"batch": 64, "ubatch": 16}).ubatch == 16


@pytest.mark.parametrize(
    "extra",
    [
        {"spinning": True}, {"flash_attn": 1}, {"flash_attn": "on"}, {"batch": 0}, {"batch": True}, {"batch": 1.5},
        {"ubatch": 1 << 20}, {"batch": 8, "ubatch": 16}, {"kv_type": "q4_0"}, {"kv_type": 8}, {"mmap": None},
        {"kv_type": "q8_0", "flash_attn": False},
    ],
)  # fmt: skip
def test_what_llama_cpp_would_not_take_is_refused(extra: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        settings_of(extra)
    assert caught.value.hint


def test_where_it_is_missing_the_command_that_installs_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda _name: None)
    info = LlamaCppBackend().info()
    assert (info.available, info.devices) == (False, ("cpu",))
    with pytest.raises(HostError, match="llama-cpp-python is not installed") as caught:
        prepare(EngineOptions(), tmp_path)
    assert caught.value.hint == info.install == "pip install 'perjoule[llamacpp]'"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("quant", ["int8", "fp32", ""])
def test_it_runs_the_file_as_it_is_and_nothing_else(tmp_path: Path, quant: str) -> None:
    with pytest.raises(UsageError, match="as it is") as caught:
        prepare(EngineOptions(quant=quant), tmp_path)
    assert "--model" in caught.value.hint


def test_boards_are_offered_only_by_a_build_that_has_them(tmp_path: Path, installed: Path) -> None:
    assert LlamaCppBackend().info().devices == ("cpu",)
    with pytest.raises(UsageError, match="cuda:0") as caught:
        prepare(EngineOptions(device="cuda:0"), tmp_path)
    assert "GGML_CUDA" in caught.value.hint
    (installed / "libggml-cuda.so").touch()
    assert "cuda:0" in LlamaCppBackend().info().devices


def test_asking_what_it_can_do_imports_neither_it_nor_numpy() -> None:
    code = (
        "import sys; from perjoule_backends.llamacpp import LlamaCppBackend as B; B().info();"
        "sys.exit(bool({'llama_cpp', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
