"""What `perjoule models` shows: what is known by name, what can be done with it here, how its matrices are kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from perjoule_backends.checkpoints import catalogue, resolve, synthetic

if TYPE_CHECKING:
    from perjoule.protocols import Progress

_MANIFEST = "manifest.json"


def entries() -> list[dict[str, Any]]:
    """Return pinned checkpoints, then published models, each as a flat table.

    ``can`` names what is possible here, best first: ``cached`` (its bytes are here), ``mirror`` (on the package
    index), ``hub``, ``shape`` (``synthetic:NAME``); it is empty where ``refusal`` says why nothing is.
    """
    return [_of_checkpoint(row) for row in catalogue.rows()] + [_of_model(model) for model in catalogue.models()]


def _of_checkpoint(row: catalogue.Row) -> dict[str, Any]:
    ways = {"cached": resolve.cached_path(row).exists(), "mirror": row.mirror is not None, "hub": row.hub is not None}
    return {
        "name": row.name,
        "alias": row.alias,
        "title": row.title,
        "vendor": row.vendor,
        "country": row.country,
        "license": row.license,
        "parameters": row.parameters,
        "file_bytes": row.file_bytes,
        "can": [way for way, possible in ways.items() if possible],
        "refusal": None,
    }


def _of_model(model: catalogue.Model) -> dict[str, Any]:
    cached = model.hub is not None and not model.refusal and resolve.is_cached_repository(model.hub)
    ways = {
        "cached": cached,
        "hub": model.hub is not None and model.refusal is None,
        f"{synthetic.SCHEME}{model.shape}": model.shape is not None,
    }
    return {
        "name": model.name,
        "title": model.title,
        "vendor": model.vendor,
        "country": model.country,
        "license": model.license,
        "parameters": model.parameters,
        "active_parameters": model.active_parameters,
        "released": model.released,
        "context": model.context,
        "sources": list(model.sources),
        "file_bytes": None,
        "can": [way for way, possible in ways.items() if possible],
        "refusal": model.refusal,
    }


class _Form(msgspec.Struct):
    bits: int
    block: int = 0


class _Manifest(msgspec.Struct):
    forms: dict[str, _Form]
    relative_error: dict[str, float]


def import_of(ref: str, folder: str, progress: Progress) -> list[dict[str, object]]:
    """Say how the converted ``folder`` of a reference keeps each kind of matrix; empty for a folder of another kind."""
    from perjoule_backends.checkpoints.exact_forms import import_report  # noqa: PLC0415 - needs numpy
    from perjoule_backends.checkpoints.source import open_weights  # noqa: PLC0415

    path = Path(folder) / _MANIFEST
    if not path.is_file():
        return []
    manifest = msgspec.json.decode(path.read_bytes(), type=_Manifest)
    source = open_weights(Path(resolve.resolve(ref, progress).path))
    forms = {part: (form.bits, form.block) for part, form in manifest.forms.items()}
    return import_report(source, forms, manifest.relative_error)
