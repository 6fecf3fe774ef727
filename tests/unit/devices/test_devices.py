"""``--device`` is read in one place: names, absent boards, and which board of NVML a board of CUDA is."""

from __future__ import annotations

import builtins
import os
from typing import TYPE_CHECKING, Any

import fake_nvml
import pytest
from fake_nvml import Board, steady
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import HostError, UsageError
from perjoule_backends import devices
from perjoule_backends.devices import cuda_index, device_names, energy_domain, refuse_absent_gpu

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


@pytest.fixture
def boards(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that puts boards into the machine, each at a place on the bus."""

    def put(*buses: int) -> None:
        fake_nvml.install(monkeypatch, [Board(steady(100), bus=bus) for bus in buses])

    return put


@given(number=st.integers(0, 999))
def test_a_board_is_named_by_its_number(number: int) -> None:
    assert cuda_index(f"cuda:{number}") == number


@given(text=st.text(max_size=8))
def test_everything_else_is_refused_in_words(text: str) -> None:
    if text == "cpu":
        assert cuda_index(text) is None
        return
    if text.startswith("cuda:") and text[5:].isascii() and text[5:].isdigit():
        return
    with pytest.raises(UsageError, match="names no device") as caught:
        cuda_index(text)
    assert "cuda:0" in caught.value.hint


@pytest.mark.parametrize("device", ["cuda", "cuda:", "cuda:-1", "cuda:01", "cuda:0 ", "CUDA:0", "gpu", "", "cuda:1000"])
def test_near_misses_are_refused(device: str) -> None:
    with pytest.raises(UsageError, match="names no device"):
        refuse_absent_gpu(device)


def test_every_name_that_is_offered_can_be_read() -> None:
    assert device_names(cuda=False) == ("cpu",)
    assert [cuda_index(name) for name in device_names(cuda=True)] == [None, *range(len(device_names(cuda=True)) - 1)]


def test_the_processor_needs_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml, _clock = fake_nvml.install(monkeypatch, [])
    refuse_absent_gpu("cpu")
    assert nvml.inits == 0


def test_without_a_driver_its_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml.install(monkeypatch, [], init_error=fake_nvml.LIBRARY_NOT_FOUND)
    with pytest.raises(HostError, match=r"no NVIDIA GPU is visible: .* libnvidia-ml\.so\.1 is not there") as caught:
        refuse_absent_gpu("cuda:0")
    assert "--device cpu" in caught.value.hint


def test_a_driver_that_does_not_answer_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml.install(monkeypatch, [], init_error=fake_nvml.DRIVER_NOT_LOADED)
    with pytest.raises(HostError, match="NVML Error with code 9"):
        refuse_absent_gpu("cuda:0")


def test_a_machine_without_boards_has_none(boards: Callable[..., None]) -> None:
    boards()
    with pytest.raises(HostError, match="no NVIDIA GPU is visible"):
        refuse_absent_gpu("cuda:0")


def test_a_number_beyond_the_boards_is_refused_with_those_there_are(boards: Callable[..., None]) -> None:
    boards(1, 2)
    refuse_absent_gpu("cuda:1")
    with pytest.raises(HostError, match=r"no device cuda:2: 2 GPU") as caught:
        refuse_absent_gpu("cuda:2")
    assert "cuda:0 to cuda:1" in caught.value.hint


def test_hidden_boards_are_not_there(boards: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    boards(1, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(HostError, match="CUDA_VISIBLE_DEVICES"):
        refuse_absent_gpu("cuda:0")


def test_a_library_that_breaks_at_import_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def broken(name: str, *args: Any, **options: Any) -> Any:
        if name == "pynvml":
            raise OSError("broken")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(HostError, match="broken"):
        refuse_absent_gpu("cuda:0")


@pytest.mark.parametrize(
    ("visible", "device", "domain"),
    [
        (None, "cuda:0", "gpu-1"),  # the first on the bus
        (None, "cuda:2", "gpu-0"),
        ("2,0", "cuda:0", "gpu-0"),
        ("2,0", "cuda:1", "gpu-1"),
        ("1", "cuda:0", "gpu-2"),
    ],
)
def test_the_meter_s_name_of_a_board_follows_its_place_on_the_bus(
    boards: Callable[..., None], monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str, domain: str
) -> None:
    boards(9, 3, 5)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert energy_domain(device) == {"nvml_domain": domain}


@pytest.mark.parametrize(
    ("visible", "device", "why"),
    [
        ("MIG-1", "cuda:0", "MIG"),
        ("GPU-abc", "cuda:0", "does not find"),
        ("0,7,1", "cuda:1", "sees 1 board"),
        (None, "cpu", "CPU"),
    ],
)
def test_where_the_board_is_not_known_that_is_said(
    boards: Callable[..., None], monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str, why: str
) -> None:
    boards(1, 2)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = energy_domain(device)
    assert found.keys() == {"nvml_domain_missing"}
    assert why in found["nvml_domain_missing"]


def test_numbers_mean_nothing_where_cuda_counts_otherwise(
    boards: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    boards(1, 2)
    assert "CUDA_DEVICE_ORDER" in energy_domain("cuda:0")["nvml_domain_missing"]
    boards(1)
    assert energy_domain("cuda:0") == {"nvml_domain": "gpu-0"}


def test_cuda_is_told_to_count_by_the_bus_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    monkeypatch.setattr(os, "environ", dict(os.environ))
    devices.count_as_nvml()
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    os.environ["CUDA_DEVICE_ORDER"] = "FASTEST_FIRST"
    devices.count_as_nvml()
    assert os.environ["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"
