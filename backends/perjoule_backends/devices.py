"""``--device cpu`` and ``--device cuda:N``, read in one place, and which board of the machine the latter is.

CUDA counts boards from the fastest unless CUDA_DEVICE_ORDER says PCI_BUS_ID, and only those that CUDA_VISIBLE_DEVICES
names, in that order (CUDA C++ Programming Guide, "CUDA Environment Variables"). NVML counts all of them and promises
no order, so that a board is found there by its place on the bus.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Any

from perjoule.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPERIMENTAL = "experimental: the authors have never run it on a GPU"
_NAMED = 8  # boards that are offered by name; whether there is such a one is seen when a model is prepared
_CUDA = re.compile(r"cuda:(0|[1-9][0-9]{0,2})", re.ASCII)
_LIBRARY_NOT_FOUND = 12  # nvml.h, NVML_ERROR_LIBRARY_NOT_FOUND
_NO_LIBRARY = "the driver's library libnvidia-ml.so.1 is not there"


def device_names(*, cuda: bool) -> tuple[str, ...]:
    """Return what a build runs on: the CPU, and boards where it has CUDA."""
    return ("cpu", *(f"cuda:{number}" for number in range(_NAMED))) if cuda else ("cpu",)


def cuda_index(device: str) -> int | None:
    """Return N of ``cuda:N`` as CUDA counts, None for ``cpu``. Raises ``UsageError`` for anything else."""
    if device == "cpu":
        return None
    found = _CUDA.fullmatch(device)
    if found is None:
        raise UsageError(
            f"--device {device!r} names no device", hint="use cpu, or cuda:N with N from 0, such as cuda:0"
        )
    return int(found.group(1))


def refuse_absent_gpu(device: str) -> None:
    """Raise ``HostError`` where CUDA can see no such board as ``cuda:N``, ``UsageError`` for a wrong name.

    What NVML knows without CUDA is asked, so that it costs milliseconds and no engine.
    """
    index = cuda_index(device)
    if index is None:
        return
    with _nvml() as nvml:
        if isinstance(nvml, str):
            raise HostError(f"no NVIDIA GPU is visible: {nvml}", hint="use --device cpu, or install the NVIDIA driver")
        boards = _visible(nvml)
    if not boards:
        raise HostError(
            "no NVIDIA GPU is visible: the driver sees no board, or CUDA_VISIBLE_DEVICES hides it",
            hint="use --device cpu, or see what nvidia-smi lists",
        )
    if index >= len(boards):
        raise HostError(
            f"there is no device {device}: {len(boards)} GPU(s) are visible",
            hint=f"use cuda:0{f' to cuda:{len(boards) - 1}' if len(boards) > 1 else ''}",
        )


def count_as_nvml() -> None:
    """Let CUDA count boards by their place on the bus; before anything in this process starts CUDA."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def energy_domain(device: str) -> dict[str, str]:
    """Return ``nvml_domain``, the name by which the meter knows the board (``gpu-0``), or ``nvml_domain_missing``."""
    index = cuda_index(device)
    if index is None:
        return {"nvml_domain_missing": "the engine runs on the CPU"}
    with _nvml() as nvml:
        if isinstance(nvml, str):
            return {"nvml_domain_missing": nvml}
        boards = _visible(nvml)
    if index >= len(boards):
        return {"nvml_domain_missing": f"NVML sees {len(boards)} board(s)"}
    if len(boards) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        return {"nvml_domain_missing": "CUDA_DEVICE_ORDER is not PCI_BUS_ID, so CUDA's numbers are not NVML's"}
    board = boards[index]
    return {"nvml_domain": f"gpu-{board}"} if isinstance(board, int) else {"nvml_domain_missing": board}


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """Give the initialised library, or in words why it cannot be had."""
    try:
        import pynvml  # noqa: PLC0415 - provided by nvidia-ml-py; opens no driver by itself

        pynvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - a broken driver may raise anything at import
        missing = getattr(error, "value", None) == _LIBRARY_NOT_FOUND
        yield _NO_LIBRARY if missing else f"NVML: {error}"
        return
    try:
        yield pynvml
    finally:
        with contextlib.suppress(Exception):
            pynvml.nvmlShutdown()


def _visible(nvml: Any) -> list[int | str]:
    """Return NVML's number of each board in CUDA's order, or in words why that one's is not known."""
    try:
        by_bus = _by_bus(nvml)
    except Exception as error:
        raise HostError(f"NVML cannot list the boards: {error}", hint="check that nvidia-smi runs") from error
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    if names is None:
        return list(by_bus)
    boards: list[int | str] = []
    for name in (part.strip() for part in names.split(",")):
        if name.startswith("MIG-"):
            boards.append("CUDA_VISIBLE_DEVICES names a part of a board (MIG), which has no energy of its own")
        elif name.startswith("GPU-"):
            boards.append(_by_uuid(nvml, name))
        elif name.isdecimal() and int(name) < len(by_bus):
            boards.append(by_bus[int(name)])
        else:
            break  # CUDA sees what comes before the first name that is none
    return boards


def _by_bus(nvml: Any) -> list[int]:
    found = []
    for number in range(nvml.nvmlDeviceGetCount()):
        place = nvml.nvmlDeviceGetPciInfo(nvml.nvmlDeviceGetHandleByIndex(number))
        found.append(((place.domain, place.bus, place.device), number))
    return [number for _place, number in sorted(found)]


def _by_uuid(nvml: Any, name: str) -> int | str:
    try:
        return int(nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetHandleByUUID(name)))
    except Exception as error:  # noqa: BLE001 - CUDA takes the beginning of a name too, NVML the whole only
        return f"NVML does not find the board that CUDA_VISIBLE_DEVICES names: {error}"
