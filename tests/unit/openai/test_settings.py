"""What may be set of a server, and how mistakes are told."""

from __future__ import annotations

from typing import Any

import pytest

from perjoule.errors import UsageError
from perjoule.protocols import EngineOptions
from perjoule_backends.openai_server.settings import read_settings

SOUND = {"url": "http://127.0.0.1:8000/v1", "tokenizer": "tokenizer.json"}


def settings_of(**more: Any) -> EngineOptions:
    return EngineOptions(device="server", extra=SOUND | more)


def test_an_address_says_where_and_which_path():
    place = read_settings(settings_of(url="https://[::1]:8443/api/v1/")).place
    assert (place.host, place.port, place.path, place.secure) == ("::1", 8443, "/api/v1", True)
    assert place.root == "/api"
    assert read_settings(settings_of()).place.port == 8000


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"url": "127.0.0.1:8000"}, "backend.url"),
        ({"url": "ftp://host/v1"}, "backend.url"),
        ({"url": "http:///v1"}, "backend.url"),
        ({"url": "http://host:port/v1"}, "backend.url"),
        ({"url": "http://me:secret@host/v1"}, "password"),
        ({"url": "http://host/v1?key=secret"}, "more than an address"),
        ({"url": "http://host/v1 x"}, "more than an address"),
        ({"url": 8000}, "backend.url"),
        ({"endpoint": "responses"}, "backend.endpoint"),
        ({"kv_bits": "f16"}, "backend.kv_bits"),
        ({"kv_bits": 0}, "backend.kv_bits"),
        ({"kv_bits": True}, "backend.kv_bits"),
        ({"spinning": True}, "spinning"),
        ({"checkpoint": "a.gguf"}, "one of"),
        ({"tokenizer": ""}, "backend.tokenizer"),
    ],
)
def test_a_wrong_setting_is_named_with_what_to_write(extra: dict[str, Any], named: str):
    with pytest.raises(UsageError, match=named) as caught:
        read_settings(settings_of(**extra))
    assert caught.value.hint
    assert "secret" not in caught.value.message


def test_what_is_missing_is_named():
    with pytest.raises(UsageError, match="address"):
        read_settings(EngineOptions(extra={"tokenizer": "t.json"}))
    with pytest.raises(UsageError, match=r"backend\.checkpoint and backend\.tokenizer"):
        read_settings(EngineOptions(extra={"url": SOUND["url"]}))


def test_precision_is_the_servers():
    with pytest.raises(UsageError, match="--quant"):
        read_settings(EngineOptions(quant="int8", extra=dict(SOUND)))


def test_the_key_is_read_from_the_variable_that_was_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_KEY", "sk-1")
    settings = read_settings(settings_of(api_key_env="MY_KEY"))
    assert settings.headers == {"Authorization": "Bearer sk-1"}
    monkeypatch.setenv("MY_KEY", "")
    with pytest.raises(UsageError, match="MY_KEY"):
        _ = settings.headers
    assert read_settings(settings_of()).headers == {}
