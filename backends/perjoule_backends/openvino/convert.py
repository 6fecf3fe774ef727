"""From a GGUF file to a folder that OpenVINO loads: GenAI's reader makes the model, our tokenizer stands beside it.

Folders are cached by (file hash, version of OpenVINO GenAI, version of this module) and appear under their name only
when complete. GenAI's own tokenizer is left out: prompts come as ids, and it would only take memory.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from perjoule.errors import EngineError
from perjoule.records import Record
from perjoule_backends.checkpoints.as_file import GGUF_LINK
from perjoule_backends.checkpoints.cache import cache_root, locked, need_space, refused_by_disk, remove_scrap
from perjoule_backends.checkpoints.gguf import read_gguf
from perjoule_backends.checkpoints.tokenizer import CONFIG_FILE, TOKENIZER_FILE
from perjoule_backends.openvino.spoken import told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perjoule.protocols import Progress
    from perjoule_backends.checkpoints.as_file import FileModel

MODEL_FOLDER, MODEL_FILE, WEIGHTS_FILE, NOTE_FILE = "ir", "openvino_model.xml", "openvino_model.bin", "note.json"
FORMAT = 1  # part of the cache key: raise it whenever a folder would differ
_SCRATCH = ".reading-"
_STEM_BYTES = 80
_GROWTH = 2.5  # times the file: 16 bits in place of 8 at most, a second copy while it is moved, the tokenizer
# Of gguf_utils/gguf.cpp and gguf_quants.cpp of openvino.genai 2026.4, and of its documentation.
_READ_TYPES = "matrices of F16, Q4_0, Q4_1, Q8_0, Q4_K and Q6_K"
_READ_ARCHITECTURES = "llama, qwen2 and qwen3"
_UNPACKING = frozenset({"Convert", "Subtract", "Multiply", "Reshape"})  # between stored numbers and their use


class Converted(Record, frozen=True, kw_only=True):
    """Bytes of the model that OpenVINO made of the file: all constants; those read for a token; bits of a matrix.

    ``kv_type``: how it keeps keys and values here where nobody says it; empty where it does not tell.
    """

    weights_bytes: int
    streamed_bytes_per_token: int
    bits_per_weight: float
    kv_type: str


def converted_folder(file_folder: Path, file: FileModel, version: str, progress: Progress) -> tuple[Path, Converted]:
    """Return the folder of a file, letting GenAI read the file first if it is not cached.

    Raises ``EngineError`` with GenAI's own reason where it does not take the file, ``HostError`` when the cache cannot
    be written. Runs in a child process: GenAI can only read a file by compiling it too.
    """
    key = hashlib.sha256(f"{file.checkpoint.sha256} {version} {FORMAT}".encode()).hexdigest()[:24]
    stem = Path(file.file).stem.encode()[:_STEM_BYTES].decode(errors="ignore")
    target = cache_root() / "openvino" / f"{stem}-{key}"
    if known := _whole(target):
        return target, known  # a cache that can only be read is enough
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent, progress):
            if known := _whole(target):
                return target, known  # another process was first
            remove_scrap(target.parent, _SCRATCH)
            shutil.rmtree(target, ignore_errors=True)  # damaged; if it cannot be removed, the rename says so
            need_space(target.parent, int(_GROWTH * file.weights_bytes), f"OpenVINO's form of {Path(file.file).name}")
            with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=target.parent) as folder:
                progress("OpenVINO reads the file", None)
                scratch, found = _converted(Path(folder), file_folder, file)
                scratch.rename(target)
    except OSError as error:
        raise refused_by_disk("cannot write the converted model", error) from error
    return target, found


def _whole(folder: Path) -> Converted | None:
    try:
        return msgspec.json.decode((folder / NOTE_FILE).read_bytes(), type=Converted)
    except (OSError, msgspec.MsgspecError, ValueError):
        return None


def _converted(folder: Path, file_folder: Path, file: FileModel) -> tuple[Path, Converted]:
    import openvino  # noqa: PLC0415 - seconds and tens of MB, needed only here

    reading, whole = folder / "reading", folder / "whole"
    model_folder = whole / MODEL_FOLDER
    for made in (reading, model_folder):
        made.mkdir(parents=True)
    (reading / GGUF_LINK).symlink_to(file.file)  # what GenAI saves lands beside the path that it was given
    told_of_it = _read(reading / GGUF_LINK, file)
    for name in (MODEL_FILE, WEIGHTS_FILE):
        (reading / name).rename(model_folder / name)
    for name in (TOKENIZER_FILE, CONFIG_FILE):
        shutil.copyfile(file_folder / name, whole / name)
    model = openvino.Core().read_model(model_folder / MODEL_FILE)
    found = _described(model, file, told_of_it.get("KV_CACHE_PRECISION", ""))
    (whole / NOTE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    return whole, found


def _read(path: Path, file: FileModel) -> dict[str, str]:
    """Let GenAI read a GGUF file and save what it made of it; return the properties it chose for it."""
    import openvino_genai  # noqa: PLC0415

    try:
        with told() as properties:
            openvino_genai.LLMPipeline(str(path), "CPU", enable_save_ov_model=True)
    except Exception as error:
        types = sorted({tensor.type_name for tensor in read_gguf(path).tensors.values()})
        raise EngineError(
            f"OpenVINO GenAI cannot read {Path(file.file).name}: {reason_of(error)}",
            hint=f"it holds {', '.join(types)} of architecture {file.architecture}; release 2026.4 reads "
            f"{_READ_TYPES} of {_READ_ARCHITECTURES}",
        ) from error
    missing = [name for name in (MODEL_FILE, WEIGHTS_FILE) if not (path.parent / name).is_file()]
    if missing:
        raise EngineError(
            f"OpenVINO GenAI read {Path(file.file).name} but did not save {missing[0]}",
            hint="free disk space, or install the release this was written for: openvino-genai 2026.4",
        )
    return properties


def reason_of(error: Exception) -> str:
    """Return the last line of an error of OpenVINO: those before it name files of its build."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


def _described(model: Any, file: FileModel, kv_type: str) -> Converted:
    """Count the bytes of the constants of a model.

    A table whose rows are only looked up is not streamed: what a Gather reaches and no MatMul does. The number of
    weights is the file's; scales and zero points count as their bits.
    """
    sizes = {node.get_friendly_name(): _bytes_of(node) for node in model.get_ops() if _is_constant(node)}
    matrices = sum(_bytes_of(n) for n in model.get_ops() if _is_constant(n) and len(n.get_output_shape(0)) > 1)
    looked_up = {name for n in model.get_ops() if n.get_type_name() == "Gather" for name in _constants(n, 0)}
    multiplied = {name for n in model.get_ops() if n.get_type_name() == "MatMul" for name in _constants(n, 1)}
    total = sum(sizes.values())
    return Converted(
        weights_bytes=total,
        streamed_bytes_per_token=total - sum(sizes[name] for name in looked_up - multiplied),
        bits_per_weight=8 * matrices / file.matrix_weights if file.matrix_weights else 0.0,
        kv_type=kv_type,
    )


def _is_constant(node: Any) -> bool:
    return bool(node.get_type_name() == "Constant")


def _bytes_of(constant: Any) -> int:
    elements = 1
    for size in constant.get_output_shape(0):
        elements *= size
    return int(elements * constant.get_output_element_type(0).bitwidth + 7) // 8


def _constants(node: Any, index: int) -> Iterator[str]:
    """Yield the names of constants that an input unpacks."""
    waiting = [node.input_value(index).get_node()]
    while waiting:
        source = waiting.pop()
        if _is_constant(source):
            yield source.get_friendly_name()
        elif source.get_type_name() in _UNPACKING:
            waiting += [source.input_value(i).get_node() for i in range(source.get_input_size())]
