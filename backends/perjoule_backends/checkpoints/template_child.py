"""Renders a chat template in this process, which has limits and nothing worth taking.

Reads one JSON job from standard input and writes one JSON answer to standard output. The environment is the one
templates are written for: blocks trimmed, ``tojson`` without HTML escapes, ``raise_exception``, ``strftime_now``,
``break`` and ``continue``.
"""

from __future__ import annotations

import json
import resource
import sys
from contextlib import suppress
from typing import Any, NoReturn

from perjoule.clock import MonotonicClock

CPU_S = 5
MEMORY_BYTES = 512 << 20
MAX_OUTPUT_CHARACTERS = 4 << 20
_MESSAGE_CHARACTERS = 200


class _RefusedError(Exception):
    pass


def main() -> None:
    job = json.load(sys.stdin)
    _limit()
    try:
        answer: dict[str, Any] = {"texts": _render(job)}
    except MemoryError:
        answer = {"error": f"more than {MEMORY_BYTES >> 20} MiB of memory"}
    except Exception as error:  # noqa: BLE001 - a template can raise anything; the parent turns it into one line
        text = " ".join(str(error).split()) or type(error).__name__
        answer = {"error": text[:_MESSAGE_CHARACTERS]}
    json.dump(answer, sys.stdout)


def _limit() -> None:
    for what, value in (
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(ValueError, OSError):  # a system without this limit; the parent's clock remains
            resource.setrlimit(what, (value, value))


def _render(job: dict[str, Any]) -> list[str]:
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415 - under the limits too

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
    template = environment.from_string(job["template"])
    texts, left = [], MAX_OUTPUT_CHARACTERS
    for messages in job["conversations"]:
        parts = []
        for part in template.generate(messages=messages, **job["variables"]):
            left -= len(part)
            if left < 0:
                raise _RefusedError(f"more than {MAX_OUTPUT_CHARACTERS} characters of text")
            parts.append(part)
        texts.append("".join(parts))
    return texts


def _raise_exception(message: str) -> NoReturn:
    raise _RefusedError(str(message))


def _strftime_now(form: str) -> str:
    return MonotonicClock().utc_now().strftime(form)


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, **({"ensure_ascii": False} | options))


if __name__ == "__main__":
    main()
