"""The matrix: every combination once, names that tell them apart, and what cannot be had refused before it is tried."""

from __future__ import annotations

import msgspec
import pytest
from builders import make_scenario
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import HostError, UsageError
from perjoule.plan import Configuration, Matrix, combine, context_for, labels, refuse_impossible
from perjoule.protocols import BackendInfo
from perjoule.scenario import Sweep, with_overrides

INFO = BackendInfo(
    name="null", summary="", devices=("cpu",), formats=(), quants=("faithful", "int8"), available=True, install="x"
)


def make_matrix(**changes: object) -> Matrix:
    matrix = Matrix(scenarios=(make_scenario(),), engines=(("null", "null"),), threads=None, default_threads=2)
    return msgspec.structs.replace(matrix, **changes)


def swept(key: str, *values: float, **changes: object):
    return msgspec.structs.replace(make_scenario(**changes), sweep=Sweep(key=key, values=values))  # type: ignore[arg-type]


def server(**changes: object):
    wanted = {
        "shape": "server", "arrivals": "poisson", "rate_per_s": 1.0, "duration_s": 30.0, "batch": 1, **changes,
    }  # fmt: skip
    return with_overrides(make_scenario(), wanted)


@given(
    scenarios=st.sets(st.sampled_from(["one", "two"]), min_size=1),
    models=st.sets(st.sampled_from(["a.gguf", "b.gguf", "x/a.gguf"]), min_size=1),
    backends=st.sets(st.sampled_from(["null", "onnxruntime"]), min_size=1),
    threads=st.none() | st.sets(st.integers(1, 4), min_size=1),
    quants=st.sets(st.sampled_from(["faithful", "int8"]), min_size=1),
    control=st.booleans(),
)
def test_every_combination_comes_once_and_has_a_name_of_its_own(scenarios, models, backends, threads, quants, control):
    matrix = make_matrix(
        scenarios=tuple(make_scenario(name=n) for n in scenarios),
        engines=tuple((b, m) for b in backends for m in models),
        threads=None if threads is None else tuple(threads),
        quants=tuple(quants),
        control=control,
    )
    found = combine(matrix)
    size = len(scenarios) * len(models) * len(backends) * len(threads or {2}) * len(quants) * (2 if control else 1)
    assert len(found) == len({msgspec.json.encode(c) for c in found}) == size
    assert len(set(labels(found))) == size


def test_one_configuration_is_named_by_what_it_runs_alone():
    assert labels(combine(make_matrix(engines=(("null", "some/where/tiny.gguf"),)))) == ["tiny.gguf on null (faithful)"]


def test_what_differs_is_in_the_name():
    found = combine(make_matrix(threads=(1, 2), quants=("faithful", "int8"), control=True))
    assert labels(found)[:4] == [
        "null on null (faithful, 1 thread, A)", "null on null (faithful, 1 thread, A')",
        "null on null (faithful, 2 threads, A)", "null on null (faithful, 2 threads, A')",
    ]  # fmt: skip
    assert labels(found)[-1] == "null on null (int8, 2 threads, A')"


def test_models_of_one_name_are_numbered():
    found = combine(make_matrix(engines=(("null", "x/tiny.gguf"), ("null", "y/tiny.gguf"))))
    assert labels(found) == ["tiny.gguf on null (faithful) #1", "tiny.gguf on null (faithful) #2"]


def test_a_sweep_of_threads_sets_the_engines_option():
    found = combine(make_matrix(scenarios=(swept("threads", 1, 4),)))
    assert [c.options.threads for c in found] == [1, 4]
    assert labels(found) == ["null on null (faithful, 1 thread)", "null on null (faithful, 4 threads)"]


def test_threads_are_not_to_be_given_twice_over():
    with pytest.raises(UsageError, match="--threads: scenario quickstart sweeps threads itself"):
        combine(make_matrix(scenarios=(swept("threads", 1, 2),), threads=(1,)))


def test_a_sweep_of_batches_sets_scenario_and_option():
    scenario = msgspec.structs.replace(
        with_overrides(make_scenario(), {"shape": "offline"}), sweep=Sweep(key="batch", values=(1, 2, 4))
    )
    found = combine(make_matrix(scenarios=(scenario,)))
    assert [(c.options.batch, c.scenario.batch) for c in found] == [(1, 1), (2, 2), (4, 4)]
    assert labels(found)[2] == "null on null (faithful, batch 4)"


def test_a_sweep_of_prompts_sets_the_context():
    found = combine(make_matrix(scenarios=(swept("prompt_tokens", 64, 500, new_tokens=64),)))
    assert [c.options.context_tokens for c in found] == [128, 576]
    assert labels(found)[1] == "null on null (faithful, prompt_tokens 500)"


def test_rates_of_a_sweep_are_in_the_name():
    scenario = msgspec.structs.replace(server(), sweep=Sweep(key="rate_per_s", values=(0.5, 2)))
    assert labels(combine(make_matrix(scenarios=(scenario,)))) == [
        "null on null (faithful, rate_per_s 0.5)", "null on null (faithful, rate_per_s 2)",
    ]  # fmt: skip


def test_the_same_twice_is_refused():
    with pytest.raises(UsageError, match="the same configuration twice: null on null"):
        combine(make_matrix(engines=(("null", "null"), ("null", "null"))))


def test_equal_options_load_the_same_whatever_is_run():
    one, control = combine(make_matrix(control=True))
    [other] = combine(make_matrix(quants=("int8",)))
    assert one.loads_as(control)
    assert not one.loads_as(other)


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_context_holds_the_request(prompt, new):
    context = context_for(make_scenario(prompt_tokens=prompt, new_tokens=new))
    assert prompt + new <= context < prompt + new + 64


def refused(configuration: Configuration, info: BackendInfo = INFO, cpus: int = 2) -> str:
    with pytest.raises((UsageError, HostError)) as caught:
        refuse_impossible(configuration, info, cpus)
    return f"{caught.value.message} | {caught.value.hint}"


def test_what_an_engine_cannot_do_is_refused_with_what_it_can():
    [plain] = combine(make_matrix())
    [int4] = combine(make_matrix(quants=("int4",)))
    [gpu] = combine(make_matrix(device="cuda:0"))
    refuse_impossible(plain, INFO, 2)
    assert "it has: faithful, int8" in refused(int4)
    assert "it has: cpu" in refused(gpu)
    more = msgspec.structs.replace(INFO, more_devices="cuda:N: pip install it")
    assert "it has: cpu; cuda:N: pip install it" in refused(gpu, more)
    assert "not installed | x" in refused(plain, msgspec.structs.replace(INFO, available=False))
    assert "--threads 2: this process may use 1 to 1" in refused(plain, cpus=1)


@pytest.mark.parametrize("shape", ["server", "multi-stream", "offline"])
def test_a_queue_is_asked_of_no_engine_that_has_none(shape: str):
    scenario = server() if shape == "server" else with_overrides(make_scenario(), {"shape": shape})
    [wanted] = combine(make_matrix(scenarios=(scenario,)))
    refuse_impossible(wanted, INFO, 2)
    assert f"scenario quickstart is {shape}" in refused(wanted, msgspec.structs.replace(INFO, queues=False))


def test_a_batch_is_asked_of_no_engine_that_takes_one_at_a_time():
    [wanted] = combine(make_matrix(scenarios=(with_overrides(make_scenario(), {"shape": "offline", "batch": 4}),)))
    assert "asks for batch 4" in refused(wanted)
    refuse_impossible(wanted, msgspec.structs.replace(INFO, batching=True), 2)


def test_a_budget_holds_at_least_one_repeat():
    long = server(duration_s=600.0, time_budget_s=60.0)
    [wanted] = combine(make_matrix(scenarios=(long,)))
    said = refused(wanted)
    assert "time_budget_s 60 is smaller than one repeat of 600 s" in said
    assert "--time-budget 3000" in said
    [enough] = combine(make_matrix(scenarios=(server(duration_s=60.0, time_budget_s=60.0),)))
    refuse_impossible(enough, INFO, 2)
