"""The ``openai`` backend: what it can do, how it finds the model on a server, and what is known of it there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perjoule.clock import MonotonicClock
from perjoule.errors import EngineError, InputError
from perjoule.protocols import BackendInfo, EngineOptions, Prepared
from perjoule.records import UNSET, ModelFacts

if TYPE_CHECKING:
    from perjoule.protocols import Clock, Progress, Tokenizer
    from perjoule_backends.openai_server.engine import ServerEngine
    from perjoule_backends.openai_server.settings import Settings

_UNKNOWN = "unknown"
_UNSAID = "the server does not say it"
_MOST_SHOWN = 8
# Who owns the models that a server lists, and where the server then tells its version. Only llama-cpp-python has been
# run here; a path that is gone (SGLang moved its own to /server_info in 2026) leaves the version unknown, no more.
_VERSIONS = {
    "vllm": ("vLLM", "/version", "version"),
    "llamacpp": ("llama.cpp server", "/props", "build_info"),
    "sglang": ("SGLang", "/get_server_info", "version"),
    "library": ("Ollama", "/api/version", "version"),
}
_HAVE_IGNORE_EOS = frozenset({"vllm", "llamacpp", "sglang"})


class OpenAiBackend:
    """Any server that answers as OpenAI's does: vLLM, SGLang, llama.cpp's server, Ollama, TGI."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._version = _UNKNOWN

    def info(self) -> BackendInfo:
        return BackendInfo(
            name="openai",
            summary="a server with an OpenAI-compatible API (vLLM, SGLang, llama.cpp, Ollama), by its URL",
            devices=("server",),
            formats=(),
            quants=("faithful",),
            available=True,
            install="ships with perjoule",
            batching=True,
        )

    def engine_version(self) -> str:
        """Return what the server says it is; known once it was loaded."""
        return self._version

    def prepare(self, ref: str, options: EngineOptions, progress: Progress) -> Prepared:
        """Find the model on the server. Raises ``InputError`` naming those it has where it has none of that name."""
        from perjoule_backends.openai_server.connection import is_here  # noqa: PLC0415
        from perjoule_backends.openai_server.settings import read_settings  # noqa: PLC0415

        settings = read_settings(options)
        progress("asking the server for its models", None)
        here = is_here(settings.place)
        listed = _find(_models(settings), ref)
        context = _whole(listed.get("max_model_len")) or options.context_tokens
        context = min(options.context_tokens, context)
        return Prepared(
            folder="",
            model=_facts(ref, listed, settings, progress),
            context_tokens=context,
            stop_ids=_stop_ids(settings, progress),
            server="here" if here else "elsewhere",
        )

    def load(self, prepared: Prepared, options: EngineOptions) -> ServerEngine:
        """Connect, and find out in which form the server takes a request."""
        from perjoule_backends.openai_server.engine import ServerEngine  # noqa: PLC0415
        from perjoule_backends.openai_server.settings import read_settings  # noqa: PLC0415

        settings = read_settings(options)
        tokenizer, _sha256 = _tokenizer(settings, _silent)
        listed = _find(_models(settings), prepared.model.ref)
        owner = str(listed.get("owned_by"))
        self._version = _version_of(settings, owner)
        engine = ServerEngine(
            settings, str(listed["id"]), tokenizer, self._clock, context_tokens=prepared.context_tokens,
            batch=options.batch, ignores_eos=owner in _HAVE_IGNORE_EOS,
        )  # fmt: skip
        engine.negotiate()
        return engine


def _silent(_text: str, _share: float | None) -> None:
    return


def _get(settings: Settings, path: str) -> dict[str, Any]:
    from perjoule_backends.openai_server.connection import Connection, fetch, read_json  # noqa: PLC0415

    connection = Connection(settings.place, settings.headers)
    try:
        response, content = fetch(connection, "GET", path)
        return dict(read_json(response, content, path))
    finally:
        connection.close()


def _models(settings: Settings) -> list[dict[str, Any]]:
    listed = _get(settings, f"{settings.place.path}/models").get("data")
    models = [m for m in listed if isinstance(m, dict) and isinstance(m.get("id"), str)] if listed else []
    if not models:
        raise EngineError("the server lists no models", hint="load one, and see that its address ends in /v1")
    return models


def _find(models: list[dict[str, Any]], ref: str) -> dict[str, Any]:
    """Return the model of that name; servers that name a file by its path are asked for its last part too."""
    by_name = {str(m["id"]): m for m in models}
    found = by_name.get(ref) or next((m for name, m in by_name.items() if _shown(name) == ref), None)
    if found is None:
        names = [_shown(name) for name in by_name]
        more = f", and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
        raise InputError(
            f"the server has no model {ref!r}", hint=f"--model NAME; it has: {', '.join(names[:_MOST_SHOWN])}{more}"
        )
    return found


def _shown(name: str) -> str:
    """Return a model's name without the folders of the server's machine."""
    return Path(name).name if os.path.isabs(name) or name.endswith(".gguf") else name  # noqa: PTH117 - of text


def _version_of(settings: Settings, owner: str) -> str:
    """Return the server and its version. One that does not tell is unknown, which is no failure."""
    known = _VERSIONS.get(owner)
    if known is None:
        return _UNKNOWN
    name, path, key = known
    try:
        said = _get(settings, f"{settings.place.root}{path}").get(key)
    except EngineError:
        return name
    return f"{name} {said}" if isinstance(said, str) and said.isprintable() else name


def _tokenizer(settings: Settings, progress: Progress) -> tuple[Tokenizer, str]:
    """Return the tokenizer that makes prompts and counts tokens, and the SHA-256 of its file."""
    from perjoule_backends.checkpoints.as_file import file_folder  # noqa: PLC0415 - heavy
    from perjoule_backends.checkpoints.tokenizer import TOKENIZER_FILE, load_tokenizer  # noqa: PLC0415

    ref = settings.checkpoint or settings.tokenizer or ""
    path = Path(ref)
    if settings.checkpoint is None and (path.is_dir() or path.suffix == ".json"):
        folder = path if path.is_dir() else path.parent
        file = folder / TOKENIZER_FILE
        if not path.is_dir() and path.name != TOKENIZER_FILE:
            raise InputError(f"backend.tokenizer {path.name!r} is no {TOKENIZER_FILE}", hint=f"give a {TOKENIZER_FILE}")
        try:
            return load_tokenizer(folder), hashlib.sha256(file.read_bytes()).hexdigest()
        except Exception as error:
            raise InputError(
                f"backend.tokenizer {path.name!r} cannot be read: {str(error).splitlines()[0][:120]}",
                hint=f"give a {TOKENIZER_FILE}, or a GGUF file",
            ) from error
    folder, described = file_folder(ref, progress)
    return load_tokenizer(folder), described.tokenizer_sha256


def _stop_ids(settings: Settings, progress: Progress) -> tuple[int, ...]:
    """Return the ids that end a turn, where a GGUF file says them."""
    from perjoule_backends.checkpoints.as_file import file_folder  # noqa: PLC0415

    ref = settings.checkpoint or settings.tokenizer or ""
    if settings.checkpoint is None and (Path(ref).is_dir() or ref.endswith(".json")):
        return ()
    return file_folder(ref, progress)[1].stop_ids


def _facts(ref: str, listed: dict[str, Any], settings: Settings, progress: Progress) -> ModelFacts:
    """Return what is known of the model: of its file, on the user's word; else what the server says of it."""
    from perjoule_backends.checkpoints.as_file import file_folder  # noqa: PLC0415

    if settings.checkpoint is not None:
        _folder, described = file_folder(settings.checkpoint, progress)
        width = None if settings.kv_bits is None else settings.kv_bits / 8
        return described.facts(_shown(ref), quant="served", kv_value_bytes=width)
    _loaded, tokenizer_sha256 = _tokenizer(settings, progress)
    meta = listed.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    parameters, size = _whole(meta.get("n_params")), _whole(meta.get("size"))  # llama.cpp's server says both
    bits = 8 * size / parameters if parameters and size else None
    return ModelFacts(
        ref=_shown(ref),
        name=_shown(ref),
        family=_UNKNOWN,
        vendor=_UNKNOWN,
        country=_UNKNOWN,
        license=_UNKNOWN,
        architecture=_UNKNOWN,
        weights="unknown",
        source_format=_UNKNOWN,
        source_quantization=_UNKNOWN,
        runtime_quantization="served",
        tokenizer_sha256=tokenizer_sha256,
        **_known("parameters", parameters),
        **_known("file_sha256", None),
        **_known("file_bytes", None),
        **_known("bits_per_weight", bits),
        **_known("weights_bytes", size),
        **_known("streamed_bytes_per_token", None),
        **_known("kv_bytes_per_position", None),
    )


def _known(name: str, value: float | None) -> dict[str, Any]:
    return {name: value, f"{name}_missing": UNSET if value is not None else _UNSAID}


def _whole(value: object) -> int | None:
    return value if type(value) is int and 0 < value < 1 << 53 else None
