"""What `perjoule tune` tries of each engine: about as much of every one, and only what the engine takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.cli import build_parser, tune
from perjoule.plan import refuse_impossible
from perjoule.registry import backend
from perjoule.scenario import load_scenario
from perjoule_backends.llamacpp.settings import settings_of as llamacpp_settings
from perjoule_backends.openvino.settings import settings_of as openvino_settings

if TYPE_CHECKING:
    import pytest

    from perjoule.plan import Configuration

ENGINES = ("onnxruntime", "llamacpp", "openvino")


def field(*words: str, scenario: str = "quickstart", **extra: object) -> list[Configuration]:
    args = build_parser("tune").parse_args(["tune", scenario, *words])
    return list(tune._field(args, load_scenario(scenario), extra))


def test_each_engine_gets_about_as_many_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "usable_cpus", lambda: range(8))
    for threads in ("2", "1,2", "1,2,4,8"):
        counts = {name: len(field("--backend", name, "--threads", threads)) for name in ENGINES}
        assert max(counts.values()) <= 1.5 * min(counts.values()), counts


def test_no_configuration_stands_twice_and_all_options_are_ones_the_engine_takes() -> None:
    for name, settings_of in (("llamacpp", llamacpp_settings), ("openvino", openvino_settings)):
        tried = [(c.options.threads, settings_of(c.options.extra)) for c in field("--backend", name, "--threads", "1")]
        assert len(tried) > 1
        assert all(one not in tried[:i] for i, one in enumerate(tried))


def test_what_the_user_set_is_not_varied() -> None:
    found = field("--backend", "llamacpp", "--threads", "1", flash_attn=False)
    assert [c.options.extra for c in found] == [{"flash_attn": False}, {"flash_attn": False, "ubatch": 128}]
    spun = field("--backend", "onnxruntime", "--threads", "1", "--quant", "faithful", spinning=False)
    assert [c.options.extra for c in spun] == [{"spinning": False}]


def test_an_engine_without_variants_is_tried_as_it_is() -> None:
    assert [c.options.extra for c in field("--backend", "null", "--threads", "1")] == [{}]


def test_a_server_is_tried_on_its_own_device_and_threads_are_its_own() -> None:
    found = field("--backend", "openai", "--batch", "1,4", scenario="server")
    assert [(c.options.device, c.options.batch) for c in found] == [("server", 1), ("server", 4)]
    for configuration in found:
        refuse_impossible(configuration, backend("openai").info(), cpus=2)


def test_a_device_that_is_asked_for_is_the_one_that_is_tried() -> None:
    assert {c.options.device for c in field("--device", "cuda:1")} == {"cuda:1"}
