"""What was prepared is held against the scenario and the machine before anything is loaded."""

from __future__ import annotations

import msgspec
import pytest
from builders import make_model, make_scenario

from perjoule import preparation
from perjoule.errors import HostError, InputError
from perjoule.plan import Configuration, context_for
from perjoule.preparation import refuse_unfit
from perjoule.protocols import EngineOptions, Prepared
from perjoule.scenario import with_overrides

PREPARED = Prepared(folder="", model=make_model(), context_tokens=2048)


def make_configuration(batch: int = 1, **changes: object) -> Configuration:
    scenario = with_overrides(make_scenario(), {"shape": "offline", "batch": batch, **changes})
    options = EngineOptions(context_tokens=context_for(scenario), batch=batch)
    return Configuration(backend="null", model_ref="tiny.gguf", options=options, scenario=scenario)


@pytest.fixture(autouse=True)
def _needs_a_gigabyte_a_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "needed_bytes", lambda _model, _context, batch, _prompt: batch * 10**9)
    monkeypatch.setattr(preparation, "available_bytes", lambda: 5_500_000_000)


def test_a_prompt_that_the_model_cannot_hold_is_refused():
    with pytest.raises(InputError, match=r"tiny\.gguf holds 2048 tokens; the scenario needs 2049"):
        refuse_unfit(make_configuration(prompt_tokens=2048, new_tokens=1), PREPARED)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_batch_that_fits_is_let_through(batch: int):
    assert refuse_unfit(make_configuration(batch), PREPARED) is None


@pytest.mark.parametrize("batch", [6, 7, 64, 10_000])
def test_a_batch_larger_than_memory_is_refused_with_one_that_fits(batch: int):
    with pytest.raises(HostError, match=rf"batch of {batch} .* needs about {batch}\.0 GB .*; 5\.5 GB are") as caught:
        refuse_unfit(make_configuration(batch), PREPARED)
    assert caught.value.hint == "--set batch=5 would fit"


def test_where_no_batch_fits_another_model_is_advised(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preparation, "available_bytes", lambda: 1000)
    with pytest.raises(HostError) as caught:
        refuse_unfit(make_configuration(2), PREPARED)
    assert "smaller model" in caught.value.hint
    assert refuse_unfit(make_configuration(1), PREPARED) is None, "one sequence is left to the engine"


def test_memory_that_is_not_known_or_not_the_hosts_refuses_nothing(monkeypatch: pytest.MonkeyPatch):
    on_gpu = make_configuration(64)
    on_gpu = msgspec.structs.replace(on_gpu, options=msgspec.structs.replace(on_gpu.options, device="cuda:0"))
    assert refuse_unfit(on_gpu, PREPARED) is None
    monkeypatch.setattr(preparation, "available_bytes", lambda: None)
    assert refuse_unfit(make_configuration(64), PREPARED) is None
