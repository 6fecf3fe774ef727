"""Plug-ins by name: one table for what ships, entry points for the rest; loads only what is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, cast

from perjoule.errors import UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

    from perjoule.protocols import Backend

Group = Literal["perjoule.backends", "perjoule.meters"]

BUILT_IN: dict[Group, dict[str, str]] = {
    "perjoule.backends": {
        "onnxruntime": "perjoule_backends.onnxruntime:OnnxRuntimeBackend",
        "llamacpp": "perjoule_backends.llamacpp:LlamaCppBackend",
        "openvino": "perjoule_backends.openvino:OpenVinoBackend",
        "genai": "perjoule_backends.genai:GenaiBackend",
        "optimum": "perjoule_backends.optimum:OptimumBackend",
        "transformers": "perjoule_backends.transformers:TransformersBackend",
        "openai": "perjoule_backends.openai_server.backend:OpenAiBackend",
        "null": "perjoule_backends.null:NullBackend",
    },
    "perjoule.meters": {
        "rapl-perf": "perjoule.meters.perf:PerfMeter",
        "rapl-powercap": "perjoule.meters.powercap:PowercapMeter",
        "hwmon": "perjoule.meters.hwmon:HwmonMeter",
        "nvml": "perjoule.meters.nvml:NvmlMeter",
        "battery": "perjoule.meters.battery:BatteryMeter",
        "shelly": "perjoule.meters.plug:ShellyMeter",
        "tasmota": "perjoule.meters.plug:TasmotaMeter",
        "redfish": "perjoule.meters.redfish:RedfishMeter",
        "csv": "perjoule.meters.log:CsvMeter",
        "command": "perjoule.meters.command:CommandMeter",
        "amdsmi": "perjoule.meters.amdsmi:AmdSmiMeter",
        "apple": "perjoule.meters.apple:AppleMeter",
        "null": "perjoule.meters.null:NullMeter",
    },
}


def names(group: Group) -> list[str]:
    """Return every known name, built-in first. A third party cannot replace a built-in."""
    found = list(BUILT_IN[group])
    found += sorted(ep.name for ep in _entry_points(group) if ep.name not in BUILT_IN[group])
    return found


def load(group: Group, name: str) -> Any:
    """Import and return the class behind ``name``. Raises ``UsageError`` with the nearest names."""
    target = BUILT_IN[group].get(name)
    if target is not None:
        module, _, attribute = target.partition(":")
        return getattr(import_module(module), attribute)
    for entry in _entry_points(group):
        if entry.name == name:
            return entry.load()
    known = names(group)
    import difflib  # noqa: PLC0415 - for mistakes only

    near = difflib.get_close_matches(name, known, n=3)
    kind = group.removeprefix("perjoule.").removesuffix("s")
    others = [other for other in known if other not in near]
    raise UsageError(f"unknown {kind} {name!r}", hint=f"known: {', '.join(near + others)}")


def _entry_points(group: Group) -> EntryPoints:
    from importlib.metadata import entry_points  # noqa: PLC0415 - costs more than the meter layer itself

    return entry_points(group=group)


def backend(name: str) -> Backend:
    return cast("Backend", load("perjoule.backends", name)())
