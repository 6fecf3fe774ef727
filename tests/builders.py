"""Results for tests: raw parts made by hand, numbers derived from them by the program."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from perjoule.assemble import RawRun, assemble, derive
from perjoule.measure import ProcessRun
from perjoule.protocols import EngineOptions
from perjoule.quality.divergence import fidelity_of
from perjoule.quality.fidelity import load_corpus
from perjoule.records import (
    CpuCache,
    CpuFacts,
    FidelityBlock,
    HostFacts,
    IdlePower,
    MemoryPeak,
    ModelFacts,
    ProcessRecord,
    Quality,
    RunResult,
    RunSettings,
    Sample,
    Window,
)
from perjoule.scenario import Scenario, load_scenario

HEX = "ab" * 32
CLOSED = "closed loop: nothing is scheduled"
NO_SENSOR = "no sensor reads idle power"


def make_scenario(**changes: Any) -> Scenario:
    return msgspec.structs.replace(load_scenario("quickstart"), **changes)


def make_host(**changes: Any) -> HostFacts:
    cpu = CpuFacts(
        vendor="AuthenticAMD", family=25, model=17, stepping=1, name="AMD EPYC 9R14", isa=("avx2", "avx512f"),
        cores_visible=2, threads=2, governor=None, governor_missing="not visible to a guest", freq_max_hz=None,
        freq_max_hz_missing="not visible to a guest",
        caches=(CpuCache(level=3, kind="unified", size_bytes=2**25),),
    )  # fmt: skip
    host = HostFacts(
        os="Linux", kernel="6.1", cpu=cpu, memory_bytes=8 * 2**30, virtualization="kvm",
        libraries={"numpy": "2.0.0"}, machine_id="0123456789ab",
    )  # fmt: skip
    return msgspec.structs.replace(host, **changes)


def make_model(**changes: Any) -> ModelFacts:
    model = ModelFacts(
        ref="tiny:q4_k_m", name="Tiny-0.5B-Instruct", family="tiny", vendor="Nobody", country="none",
        license="Apache-2.0", architecture="qwen2",
        parameters=494_032_768, weights="trained", source_format="gguf",
        source_quantization="Q4_K_M", file_sha256=HEX, file_bytes=397_805_216, tokenizer_sha256=HEX,
        runtime_quantization="int8 and int4 blocks", bits_per_weight=5.1, weights_bytes=315_000_000,
        streamed_bytes_per_token=315_000_000, kv_bytes_per_position=12_288,
    )  # fmt: skip
    return msgspec.structs.replace(model, **changes)


def make_sample(
    process: int = 0, index: int = 2, *, start_s: float = 10.0, ttft_s: float = 0.5, itl_s: float = 0.02,
    output_tokens: int = 64, **changes: Any,
) -> Sample:  # fmt: skip
    first = start_s + ttft_s
    times = tuple(first + i * itl_s for i in range(output_tokens))
    sample = Sample(
        process=process, window=f"{process}.{index}", index=index, phase="measured", prompt_text_sha256=HEX,
        prompt_ids_sha256=HEX, prompt_tokens=256, output_tokens=output_tokens, finish_reason="length",
        scheduled_s=None, scheduled_s_missing=CLOSED, start_s=start_s, first_token_s=first, token_times_s=times,
        end_s=times[-1],
    )  # fmt: skip
    return msgspec.structs.replace(sample, **changes)


def make_windows(sample: Sample, *, rejected: str | None = None) -> tuple[Window, Window]:
    """Return the sample's two windows: both cores busy, nobody else, unless they are rejected."""
    spans = (
        ("prefill", sample.start_s, sample.first_token_s, 318_000_000),
        ("decode", sample.first_token_s, sample.end_s, 315_000_000 * (sample.output_tokens - 1)),
    )
    prefill, decode = (
        Window(
            id=f"{sample.window}/{phase}", process=sample.process, phase=phase,  # type: ignore[arg-type]
            start_s=start, end_s=end, cpu_s=2 * (end - start), steal_s=0.0,
            foreign_cpu_s=1.0 if rejected else 0.0,
            bytes_streamed=streamed, rejected=rejected,
        )
        for phase, start, end, streamed in spans
    )  # fmt: skip
    return prefill, decode


def make_process(process: int, *, requests: int = 3, rejected: str | None = None, steady: bool = True) -> ProcessRun:
    """Return one process: two warm-ups, then ``requests``; each process a little slower than the last."""
    slow = 1 + 0.01 * process
    samples = tuple(
        make_sample(
            process, i, start_s=100.0 * process + 5 * i, ttft_s=0.5 * slow, itl_s=0.02 * slow,
            phase="measured" if i > 1 else "warmup",
        )
        for i in range(requests + 2)
    )  # fmt: skip
    memory = tuple(
        MemoryPeak(
            process=process, phase=phase, rss_peak_bytes=rss + 4096 * process, pss_bytes=rss,  # type: ignore[arg-type]
            gpu_bytes=None, gpu_bytes_missing="the engine runs on the CPU",
        )
        for phase, rss in (("load", 350_000_000), ("requests", 380_000_000), ("prefill", 380_000_000),
                           ("decode", 370_000_000))
    )  # fmt: skip
    return ProcessRun(
        record=ProcessRecord(
            process=process, start_s=100.0 * process, load_s=0.8 * slow, cold_ttft_s=0.7, warmup_requests=2,
            steady=steady, shared_prefix_tokens=0,
        ),
        samples=samples,
        windows=tuple(w for s in samples for w in make_windows(s, rejected=rejected)),
        memory=memory,
        engine_version="1.22.0",
        effective_options={"threads": 2},
        libraries={"numpy": "2.0.0"},
        harness_cpu_s=0.001,
    )  # fmt: skip


def make_raw(**changes: Any) -> RawRun:
    raw = RawRun(
        created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        reproduce="perjoule run quickstart --model tiny:q4_k_m",
        settings=RunSettings(seed=0),
        scenario=make_scenario(),
        model=make_model(),
        backend="onnxruntime",
        options=EngineOptions(threads=2, context_tokens=320),
        host=make_host(),
        meters=(),
        meters_refused=(),
        idle=IdlePower(
            before=None,
            before_missing=NO_SENSOR,
            loaded=None,
            loaded_missing=NO_SENSOR,
            after=None,
            after_missing=NO_SENSOR,
        ),
        runs=tuple(make_process(p) for p in range(5)),
    )
    return msgspec.structs.replace(raw, **changes)


def make_quality(*, kl_nats: float = 0.01, perplexity_ratio: float = 1.0) -> Quality:
    """Return a fidelity whose mean divergence and perplexity ratio are about these, the same in every text."""
    corpus = load_corpus()
    blocks = [
        FidelityBlock(text=text.file, positions=64, predicted=64, kl_nats=64 * kl_nats * spread, same_top=60,
                      nll_nats=64 * (2.0 + math.log(perplexity_ratio)), reference_nll_nats=128.0)
        for text in corpus.text for spread in (0.9, 1.0, 1.1)
    ]  # fmt: skip
    fidelity = fidelity_of("the checkpoint in fp32", corpus, blocks, np.array([kl_nats]))
    return Quality(engine_version="1.0", fidelity=fidelity, bits_per_byte=None, bits_per_byte_missing="not asked for")


def make_result(**changes: Any) -> RunResult:
    """Return a complete, publishable result; changed raw parts have their numbers derived again."""
    result = assemble(make_raw())
    return derive(msgspec.structs.replace(result, **changes)) if changes else result
