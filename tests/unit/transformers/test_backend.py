"""What the transformers backend says and refuses before it loads anything. No torch."""

from __future__ import annotations

import pytest

from perjoule.errors import HostError, UsageError
from perjoule.protocols import EngineOptions
from perjoule_backends.transformers import TransformersBackend, backend
from perjoule_backends.transformers.settings import settings_of


def prepare(**options: object) -> object:
    return TransformersBackend().prepare("none.gguf", EngineOptions(**options), lambda _text, _share: None)  # type: ignore[arg-type]


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_missing", lambda: None)


def test_what_is_missing_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_missing", lambda: "torch")
    info = TransformersBackend().info()
    assert not info.available
    with pytest.raises(HostError, match="torch is not installed") as caught:
        prepare()
    assert caught.value.hint == info.install


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quant": "int4"}, "int4"),
        ({"device": "tpu"}, "tpu"),
        ({"batch": 2}, "batch of 2"),
        ({"extra": {"attention": "flash"}}, "flash"),
        ({"extra": {"trust_remote_code": True}}, "trust_remote_code"),
    ],
)
def test_what_cannot_be_had_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        prepare(**options)
    assert caught.value.hint


def test_settings_have_the_libraries_own_default() -> None:
    assert settings_of({}).attention == "sdpa"
    assert settings_of({"attention": "eager"}).attention == "eager"
