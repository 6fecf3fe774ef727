"""From a checkpoint to a folder that ``ORTModelForCausalLM`` loads: optimum's exporter, ONNX Runtime's quantizers.

Folders are cached by (file hash, precision and its settings, versions of the exporters) and appear under their name
only when complete. The export traces the torch model: its peak memory is several times the weights in fp32.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from perjoule.records import Record
from perjoule_backends.checkpoints.cache import cache_root, locked, need_space, refused_by_disk, remove_scrap
from perjoule_backends.checkpoints.dequantized import (
    GENERATION_FILE,
    HF_CONFIG_FILE,
    FolderModel,
    dequantized_folder,
)
from perjoule_backends.checkpoints.tokenizer import CONFIG_FILE, TOKENIZER_FILE
from perjoule_backends.optimum.initializers import Held, held_by

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from perjoule.protocols import Progress
    from perjoule_backends.optimum.settings import Settings

Precision = Literal["fp32", "int8", "int4"]

NOTE_FILE, MODEL_FILE = "exported.json", "model.onnx"
FORMAT = 1  # part of the cache key: raise it whenever a folder would differ
TASK = "text-generation-with-past"  # what from_pretrained(export=True) asks the exporter for
_SCRATCH = ".exporting-"
_STEM_BYTES = 80
_TELL_S = 10.0
_SLACK_BYTES = 64 << 20
_IN_ONE_FILE_BYTES = 1_500_000_000  # protobuf ends at 2 GiB; weights beyond go to a file beside the graph
_MAKERS = ("optimum-onnx", "transformers", "torch", "onnx")


class Exported(Record, frozen=True, kw_only=True):
    """What an exported folder holds. Bytes and bits are those of the graph's initializers, as written."""

    source: FolderModel
    precision: Precision
    weights_bytes: int
    streamed_bytes_per_token: int
    bits_per_weight: float
    quantizer: dict[str, Any]
    versions: dict[str, str]


def exported_folder(ref: str, precision: Precision, settings: Settings, progress: Progress) -> tuple[Path, Exported]:
    """Return the exported folder and what it holds, exporting and quantizing first if it is not cached.

    Raises ``InputError`` and ``HostError`` as ``dequantized_folder`` does, and whatever optimum raises.
    """
    source, held = dequantized_folder(ref, "fp32", progress)
    plain, exported = _kept(source, held, "fp32", {}, progress, lambda folder: _export(source, folder))
    if precision == "fp32":
        return plain, exported
    quantizer = _quantizer(precision, settings)
    make = _quantize_int8 if precision == "int8" else _quantize_int4
    return _kept(plain, held, precision, quantizer, progress, lambda folder: make(plain, folder, quantizer))


def read_note(folder: Path) -> Exported:
    """Return what ``exported_folder`` noted."""
    return msgspec.json.decode((folder / NOTE_FILE).read_bytes(), type=Exported)


def _kept(
    source: Path,
    held: FolderModel,
    precision: Precision,
    quantizer: dict[str, Any],
    progress: Progress,
    make: Any,
) -> tuple[Path, Exported]:
    """Return a folder of the cache, made by ``make`` in a scratch folder if it is not there whole."""
    versions = _versions()
    told = json.dumps([held.checkpoint.sha256, precision, quantizer, versions, FORMAT], sort_keys=True)
    key = hashlib.sha256(told.encode()).hexdigest()[:24]
    stem = source.name.removesuffix("-fp32").encode()[:_STEM_BYTES].decode(errors="ignore").rpartition("-fp32-")[0]
    target = cache_root() / "optimum" / f"{stem or 'model'}-{precision}-{key}"
    if known := _whole(target):
        return target, msgspec.structs.replace(known, source=held)  # a cache that can only be read is enough
    what = "exporting with optimum" if precision == "fp32" else f"quantizing to {precision}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent, progress):
            if known := _whole(target):
                return target, msgspec.structs.replace(known, source=held)  # another process was first
            remove_scrap(target.parent, _SCRATCH)
            shutil.rmtree(target, ignore_errors=True)  # damaged; if it cannot be removed, the rename says so
            # The exporter writes the weights twice: as traced, and with what is tied put together.
            need_space(target.parent, 2 * held.weights_bytes + _SLACK_BYTES, f"what optimum makes of {stem}")
            with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=target.parent) as folder:
                scratch = Path(folder) / "whole"
                scratch.mkdir()
                with _told(progress, what), _quiet():
                    make(scratch)
                made = _finish(source, held, precision, quantizer, versions, scratch)
                _to_disk(scratch)
                scratch.rename(target)
    except OSError as error:
        raise refused_by_disk("cannot write the exported model", error) from error
    return target, made


def _export(source: Path, folder: Path) -> None:
    """Export as ``ORTModelForCausalLM.from_pretrained(..., export=True)`` does, without the session it opens then."""
    from optimum.exporters.onnx import main_export  # noqa: PLC0415 - torch: only in the child

    main_export(
        str(source),
        output=folder,
        task=TASK,
        do_validation=False,
        no_post_process=False,
        local_files_only=True,
        trust_remote_code=False,
    )


def _quantizer(precision: Precision, settings: Settings) -> dict[str, Any]:
    """Return what is asked of the quantizer; it is kept in the folder and told in results."""
    if precision == "int8":
        return {"tool": "optimum ORTQuantizer, dynamic", "configuration": _instruction_set(), "per_channel": True}
    return {
        "tool": "onnxruntime MatMulNBitsQuantizer",
        "bits": 4,
        "block": settings.block,
        "symmetric": False,
        "accuracy_level": 4,  # int8 activations: what MatMulNBits has fast code for
    }


def _instruction_set() -> str:
    """Return the name of optimum's configuration for this machine's processor."""
    if platform.machine() in ("aarch64", "arm64"):
        return "arm64"
    if platform.machine() == "ppc64le":
        return "ppc64le"
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - the kernel's own file
        flags = next((line.split() for line in file if line.startswith("flags")), [])
    if "avx512_vnni" in flags:
        return "avx512_vnni"
    return "avx512" if "avx512f" in flags else "avx2"


def _quantize_int8(source: Path, folder: Path, quantizer: Mapping[str, Any]) -> None:
    from optimum.onnxruntime import ORTQuantizer  # noqa: PLC0415
    from optimum.onnxruntime.configuration import AutoQuantizationConfig  # noqa: PLC0415

    configure = getattr(AutoQuantizationConfig, quantizer["configuration"])
    with tempfile.TemporaryDirectory(dir=folder.parent) as aside:  # it writes a tokenizer and configurations too
        ORTQuantizer.from_pretrained(source, file_name=MODEL_FILE).quantize(
            save_dir=aside,
            file_suffix=None,
            quantization_config=configure(is_static=False, per_channel=quantizer["per_channel"]),
            use_external_data_format=_bytes_of(source) / 4 > _IN_ONE_FILE_BYTES,
        )
        for path in Path(aside).glob(f"{MODEL_FILE}*"):
            path.rename(folder / path.name)


def _quantize_int4(source: Path, folder: Path, quantizer: Mapping[str, Any]) -> None:
    import onnx  # noqa: PLC0415
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # noqa: PLC0415

    made = MatMulNBitsQuantizer(
        onnx.load(source / MODEL_FILE),
        bits=quantizer["bits"],
        block_size=quantizer["block"],
        is_symmetric=quantizer["symmetric"],
        accuracy_level=quantizer["accuracy_level"],
    )
    made.process()
    # Embeddings stay as they are, so that the whole is not much smaller where they are most of it.
    made.model.save_model_to_file(str(folder / MODEL_FILE), _bytes_of(source) > _IN_ONE_FILE_BYTES)


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{MODEL_FILE}*"))


def _finish(
    source: Path,
    held: FolderModel,
    precision: Precision,
    quantizer: dict[str, Any],
    versions: dict[str, str],
    folder: Path,
) -> Exported:
    """Put tokenizer and configurations beside the graph, those of the source and no others, and note what is held."""
    kept = {TOKENIZER_FILE, CONFIG_FILE, HF_CONFIG_FILE, GENERATION_FILE}
    for path in folder.iterdir():
        if not path.name.startswith(MODEL_FILE):
            path.unlink()
    for name in kept:
        shutil.copyfile(source / name, folder / name)
    found = held_by(folder / MODEL_FILE)
    plain = found if precision == "fp32" else held_by(source / MODEL_FILE)
    note = Exported(
        source=held,
        precision=precision,
        weights_bytes=found.nbytes,
        streamed_bytes_per_token=found.streamed_bytes,
        bits_per_weight=_bits_per_weight(found, plain),
        quantizer=quantizer,
        versions=versions,
    )
    (folder / NOTE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(note), indent=1))
    return note


def _bits_per_weight(found: Held, plain: Held) -> float:
    """Return bits per weight of a matrix: all that is stored but the vectors, over the weights of the fp32 graph."""
    return 8 * (found.nbytes - plain.vector_bytes) / plain.matrix_weights


def _versions() -> dict[str, str]:
    import onnxruntime  # noqa: PLC0415

    return {name: version(name) for name in _MAKERS} | {"onnxruntime": str(onnxruntime.__version__)}


@contextmanager
def _told(progress: Progress, what: str) -> Iterator[None]:
    """Say every few seconds that something silent goes on, lest it be taken for a hang. The caller says nothing."""
    done = Event()

    def tell() -> None:
        while not done.wait(_TELL_S):
            progress(what, None)

    progress(what, None)
    teller = Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what tracing warns of: it is about the code of transformers, and nothing a user could change."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _to_disk(folder: Path) -> None:
    """Make the bytes durable before the folder gets its name: after a power cut it is whole or not there."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _whole(folder: Path) -> Exported | None:
    try:
        return read_note(folder)
    except (OSError, msgspec.MsgspecError, ValueError):
        return None
