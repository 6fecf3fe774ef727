"""Options of OpenVINO, what it prints of a compiled model, and what it says when it refuses a file."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from perjoule.errors import HostError, UsageError
from perjoule.protocols import EngineOptions
from perjoule_backends.openvino import OpenVinoBackend, backend
from perjoule_backends.openvino.convert import reason_of
from perjoule_backends.openvino.settings import Settings, settings_of
from perjoule_backends.openvino.spoken import properties_in, told

if TYPE_CHECKING:
    from pathlib import Path

PRINTED = """Model: Stateful LLM model
  NETWORK_NAME: Model9
  NUM_STREAMS: 1
  INFERENCE_NUM_THREADS: 2
  INFERENCE_PRECISION_HINT: bf16
  MODEL_DISTRIBUTION_POLICY:\x20
  KV_CACHE_PRECISION: u8
  RUNTIME_REQUIREMENTS: meta=1.0;ov=2026.4.1;isa=Some AVX
EXECUTION_DEVICES:
 CPU: Some Processor
"""


def prepare(options: EngineOptions, tmp_path: Path) -> None:
    OpenVinoBackend().prepare(str(tmp_path / "none.gguf"), options, lambda _text, _share: None)


def test_what_is_not_said_is_left_to_openvino() -> None:
    assert settings_of({}).properties(3) == {"INFERENCE_NUM_THREADS": 3, "NUM_STREAMS": 1}
    said = settings_of({"attention": "paged", "precision": "f32", "kv_type": "f16"})
    assert said == Settings(attention="paged", precision="f32", kv_type="f16")
    assert said.properties(1)["INFERENCE_PRECISION_HINT"] == "f32"
    assert said.properties(1)["KV_CACHE_PRECISION"] == "f16"


@pytest.mark.parametrize("extra", [{"spinning": True}, {"attention": "flash"}, {"precision": "int8"}, {"kv_type": 8}])
def test_what_is_not_an_option_is_refused(extra: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        settings_of(extra)
    assert caught.value.hint


def test_properties_are_read_from_what_is_printed() -> None:
    found = properties_in(PRINTED)
    assert found["INFERENCE_NUM_THREADS"] == "2"
    assert found["KV_CACHE_PRECISION"] == "u8"
    assert found["RUNTIME_REQUIREMENTS"] == "meta=1.0;ov=2026.4.1;isa=Some AVX"
    assert "MODEL_DISTRIBUTION_POLICY" not in found  # it says nothing
    assert "EXECUTION_DEVICES" not in found  # its value is on the next line
    assert properties_in("") == properties_in("Loading: done\nKEY: 1\n") == {}


@pytest.mark.parametrize("before", [None, "0"])
def test_what_a_library_prints_is_gathered_and_all_is_as_before(
    before: str | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENVINO_LOG_LEVEL", raising=False)
    if before is not None:
        monkeypatch.setenv("OPENVINO_LOG_LEVEL", before)
    with told() as found:
        os.write(1, PRINTED.encode())  # as a library does, past Python's own stream
        assert os.environ["OPENVINO_LOG_LEVEL"] == "3"
    assert found["NUM_STREAMS"] == "1"
    assert os.environ.get("OPENVINO_LOG_LEVEL") == before
    with pytest.raises(ZeroDivisionError):
        _fails()
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "after\n"


def _fails() -> None:
    with told():
        os.write(1, b"lost\n")
        raise ZeroDivisionError


def test_a_reason_is_the_last_line_without_the_files_of_their_build() -> None:
    text = "Check 'data != nullptr' failed at builds/src/cpp/src/gguf_utils/gguf.cpp:84:\n[load_gguf] it failed\n\n"
    assert reason_of(RuntimeError(text)) == "[load_gguf] it failed"
    assert reason_of(RuntimeError("\n")) == "RuntimeError"


def test_where_it_is_missing_the_command_that_installs_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda _name: None)
    with pytest.raises(HostError, match="openvino-genai is not installed") as caught:
        prepare(EngineOptions(), tmp_path)
    assert caught.value.hint == OpenVinoBackend().info().install == "pip install 'perjoule[openvino]'"
    assert not OpenVinoBackend().info().available


@pytest.mark.parametrize("options", [{"quant": "int8"}, {"device": "cuda:0"}, {"batch": 2}, {"batch": 0}])
def test_what_it_cannot_do_is_refused(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda _name: object())
    with pytest.raises(UsageError) as caught:
        prepare(EngineOptions(**options), tmp_path)
    assert caught.value.hint


def test_asking_what_it_can_do_imports_neither_it_nor_numpy() -> None:
    code = (
        "import sys; from perjoule_backends.openvino import OpenVinoBackend as B; B().info();"
        "sys.exit(bool({'openvino', 'openvino_genai', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
