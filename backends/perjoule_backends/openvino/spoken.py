"""What OpenVINO GenAI prints of a compiled model: the only place where a pipeline tells what it really uses.

``LLMPipeline`` has no way to ask its compiled model for properties. With OPENVINO_LOG_LEVEL at 3 or above GenAI prints
them to standard output, once, when the pipeline is made (openvino.genai, src/docs/DEBUG_LOG.md).
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEVEL = "OPENVINO_LOG_LEVEL"
_STDOUT = 1
_LINE = re.compile(r"^\s+([A-Z][A-Z_]+): *(\S.*?)?\s*$")
_MOST_BYTES = 1 << 20


@contextmanager
def told() -> Iterator[dict[str, str]]:
    """Gather the properties that are printed inside; they are there afterwards, empty where none were.

    Standard output as a whole goes there meanwhile, for the library writes to the file descriptor.
    """
    found: dict[str, str] = {}
    before = os.environ.get(_LEVEL)
    os.environ[_LEVEL] = "3"
    sys.stdout.flush()
    kept = os.dup(_STDOUT)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), _STDOUT)
            try:
                yield found
            finally:
                os.dup2(kept, _STDOUT)
                file.seek(0)
                found |= properties_in(file.read(_MOST_BYTES).decode(errors="replace"))
    finally:
        os.close(kept)
        if before is None:
            del os.environ[_LEVEL]
        else:
            os.environ[_LEVEL] = before


def properties_in(text: str) -> dict[str, str]:
    """Return the indented ``NAME: value`` lines; one without a value is left out."""
    matches = (_LINE.match(line) for line in text.splitlines())
    return {m[1]: m[2] for m in matches if m and m[2]}
