"""What every source of weights offers, whatever its format, in the names and conventions of GGUF files.

Three satisfy it: a GGUF file (``gguf``), a folder of safetensors files (``folder``) and weights drawn at random in the
shape of a published model (``synthetic``). Whoever converts or describes a model reads only this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from perjoule_backends.checkpoints.gguf import TensorInfo


class Weights(Protocol):
    """Metadata by GGUF key, tensors by GGUF name; values are read (or made) only when asked for.

    ``path`` is the file or folder: its name appears in messages and names the converted folder.
    """

    @property
    def path(self) -> Path: ...

    @property
    def metadata(self) -> Mapping[str, Any]: ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    def raw(self, name: str) -> NDArray[np.uint8]:
        """Return the bytes of a tensor as stored, shape (rows, bytes per row)."""

    def dequantize(self, name: str, rows: slice = ...) -> NDArray[np.float32]:
        """Return rows of a tensor as float32, shape (rows, columns); one-dimensional tensors come as one row."""


def open_weights(path: Path) -> Weights:
    """Open what ``resolve`` returned: a GGUF file, a folder of safetensors files, or a synthetic model's folder.

    Raises ``InputError`` for anything that is not whole and consistent, ``HostError`` if it cannot be read.
    """
    from perjoule_backends.checkpoints.folder import read_folder  # noqa: PLC0415 - only what is opened is loaded
    from perjoule_backends.checkpoints.gguf import read_gguf  # noqa: PLC0415
    from perjoule_backends.checkpoints.synthetic import NOTE_FILE, read_synthetic  # noqa: PLC0415

    if not path.is_dir():
        return read_gguf(path)
    return read_synthetic(path) if (path / NOTE_FILE).is_file() else read_folder(path)
