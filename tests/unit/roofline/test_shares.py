"""Shares of the machine's peaks: computed from raw parts alone, or null with the reason."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from builders import make_model, make_process, make_raw, make_result, make_sample, make_windows
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from perjoule.assemble import assemble, derive
from perjoule.protocols import EngineOptions
from perjoule.records import Missing, Peak, Peaks, Roofline, RunResult
from perjoule.render.html import report
from perjoule.render.text import roofline as told
from perjoule.render.text import summary
from perjoule.roofline import NOT_MEASURED, NULL_ENGINE, TOLERANCE_SHARE, impossible, roofline
from perjoule.roofline.shares import precision

GB = 1e9


def make_peak(best: float, unit: Any = "ops/s") -> Peak:
    return Peak(unit=unit, best=best, median=best / 1.1, spread_share=0.02, repeats=9, way="a kernel", slower={})


def make_peaks(**changes: Any) -> Peaks:
    peaks = Peaks(
        measured_utc="2026-01-02T03:04:05Z", threads=2, runtime="onnxruntime 1.32.0, numpy 2.4.6", kernels=1,
        cache_bytes=2**25, bandwidth=make_peak(30 * GB, "bytes/s"), int8=make_peak(800 * GB),
        fp32=make_peak(200 * GB), bf16=None, bf16_missing="no such kernel",
    )  # fmt: skip
    return msgspec.structs.replace(peaks, **changes)


def run(peaks: Peaks | str | None, **changes: Any) -> RunResult:
    return assemble(make_raw(roofline_peaks=peaks, **changes))


def shares(result: RunResult) -> Roofline:
    assert result.roofline is not None, result.roofline_missing
    return result.roofline


def test_shares_are_medians_over_what_was_measured():
    found = shares(run(make_peaks()))
    # make_process: 315 MB a token and 20 ms between tokens, a per cent slower each process; the third is the median
    assert found.bandwidth_share == pytest.approx(315e6 / (0.02 * 1.02) / (30 * GB))
    assert found.compute_share == pytest.approx(2 * 494_032_768 * 256 / (0.5 * 1.02) / (800 * GB))
    assert found.compute_precision == "int8"


def test_neither_the_embedding_nor_the_head_counts_as_multiplied():
    found = shares(run(make_peaks(), model=make_model(body_parameters=358_000_000)))
    assert found.compute_share == pytest.approx(2 * 358e6 * 256 / (0.5 * 1.02) / (800 * GB))


def test_the_peak_is_that_of_the_precision_of_the_run():
    found = shares(run(make_peaks(), model=make_model(bits_per_weight=32.0, runtime_quantization="fp32")))
    assert found.compute_precision == "fp32"
    assert found.compute_share == pytest.approx(2 * 494_032_768 * 256 / (0.5 * 1.02) / (200 * GB))


@pytest.mark.parametrize(
    ("bits", "name", "expected"),
    [(8.25, "faithful", "int8"), (5.1, "int8 and int4 blocks", "int8"), (32.0, "fp32", "fp32"), (16.0, "bf16", "bf16")],
)
def test_precision_of_a_model(bits: float, name: str, expected: str):
    assert precision(make_model(bits_per_weight=bits, runtime_quantization=name)) == expected


def test_a_precision_without_a_peak_is_named():
    found = precision(make_model(bits_per_weight=16.0, runtime_quantization="f16"))
    assert isinstance(found, Missing)
    assert "f16" in found.reason
    result = shares(run(make_peaks(), model=make_model(bits_per_weight=16.0, runtime_quantization="bf16")))
    assert result.compute_share is None
    assert "no such kernel" in str(result.compute_share_missing)


def test_disturbed_requests_do_not_count():
    slow = make_sample(0, 7, start_s=90.0, itl_s=2.0, ttft_s=50.0)
    clean = run(make_peaks())
    process = make_process(0)
    runs = [make_process(p) for p in range(1, 5)]
    disturbed = msgspec.structs.replace(
        process, samples=(*process.samples, slow), windows=(*process.windows, *make_windows(slow, rejected="noise"))
    )
    assert run(make_peaks(), runs=(disturbed, *runs)).roofline == clean.roofline


@pytest.mark.parametrize(
    ("peaks", "changes", "reason"),
    [
        (None, {}, NOT_MEASURED),
        (NULL_ENGINE, {}, NULL_ENGINE),
        (make_peaks(threads=4), {}, "4 threads; the engine ran with 2"),
        (make_peaks(disturbed="other processes used 7.0% of all cores (limit 2%)"), {}, "used 7.0%"),
        (make_peaks(), {"options": EngineOptions(threads=2, device="cuda")}, "ran on cuda"),
    ],
)
def test_no_shares_without_peaks_that_fit(peaks: Any, changes: dict[str, Any], reason: str):
    result = run(peaks, **changes)
    assert result.roofline is None
    assert reason in str(result.roofline_missing)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"streamed_bytes_per_token": 2**25}, "fit the caches (33.6 MB)"),
        ({"streamed_bytes_per_token": 2**25 + 1}, None),
        ({"streamed_bytes_per_token": None, "streamed_bytes_per_token_missing": "unknown"}, None),
    ],
)
def test_what_fits_the_caches_shows_no_bandwidth(model: dict[str, Any], reason: str | None):
    found = shares(run(make_peaks(), model=make_model(**model)))
    assert (found.bandwidth_share is None) is (reason is not None)
    assert reason is None or reason in str(found.bandwidth_share_missing)


def test_unknown_bytes_give_their_reason():
    process = make_process(0)
    silent = tuple(
        msgspec.structs.replace(w, bytes_streamed=None, bytes_streamed_missing="the engine is silent")
        for w in process.windows
    )
    found = shares(run(make_peaks(), runs=(msgspec.structs.replace(process, windows=silent),)))
    assert found.bandwidth_share is None
    assert found.bandwidth_share_missing == "the engine is silent"
    assert found.compute_share is not None


def test_an_engine_that_computes_nothing_has_no_share():
    process = make_process(0)
    nothing = tuple(msgspec.structs.replace(w, bytes_streamed=0) for w in process.windows)
    found = shares(
        run(make_peaks(), model=make_model(parameters=0), runs=(msgspec.structs.replace(process, windows=nothing),))
    )
    assert found.bandwidth_share_missing == "nothing was streamed"
    assert found.compute_share_missing == "the engine multiplies nothing"


def test_requests_served_together_share_the_bandwidth_of_their_window():
    process = make_process(0)
    decode = process.windows[-1]
    span = msgspec.structs.replace(
        decode, id="0.s0/serve", phase="serve", start_s=10.0, end_s=12.0, bytes_streamed=30_000_000_000
    )
    samples = tuple(msgspec.structs.replace(s, span=span.id) for s in process.samples)
    result = msgspec.structs.replace(make_result(), peaks=make_peaks(), samples=samples, windows=(span,))
    found = roofline(result)
    assert isinstance(found, Roofline)
    assert found.bandwidth_share == pytest.approx(0.5)
    assert "overlap" in str(found.compute_share_missing)


def test_peaks_are_raw_and_shares_are_derived_again():
    result = run(make_peaks())
    wrong = msgspec.structs.replace(result, roofline=None, roofline_missing="forgotten")
    assert derive(wrong).roofline == result.roofline
    assert derive(wrong).id == result.id
    slower = msgspec.structs.replace(result, peaks=make_peaks(bandwidth=make_peak(10 * GB, "bytes/s")))
    assert shares(derive(slower)).bandwidth_share == pytest.approx(3 * (shares(result).bandwidth_share or 0.0))


def test_a_result_without_peaks_is_written_without_the_key():
    assert "peaks" not in msgspec.to_builtins(make_result())
    assert msgspec.to_builtins(run("no numpy"))["peaks_missing"] == "no numpy"
    again = msgspec.convert(msgspec.to_builtins(run(make_peaks())), RunResult)
    assert again.peaks == make_peaks()


@given(share=st.floats(0, 5), where=st.sampled_from(["bandwidth_share", "compute_share"]))
def test_only_more_than_the_machine_can_do_is_impossible(share: float, where: str):
    found = Roofline(bandwidth_share=0.5, compute_share=0.5, compute_precision="int8")
    changed = msgspec.structs.replace(found, **{where: share})
    assert bool(list(impossible(changed))) is (share > 1 + TOLERANCE_SHARE)


def test_nothing_is_impossible_where_nothing_is_known():
    assert list(impossible(None)) == []


def shown(result: RunResult) -> str:
    console = Console(width=100, color_system=None)
    with console.capture() as text:
        console.print(summary([result]))
    return " ".join(text.get().split())


def test_shares_are_shown_with_their_peaks():
    result = run(make_peaks())
    line = "51 % of memory bandwidth (30.0 GB/s); 62 % of int8 arithmetic in prefill (800 Gop/s)"
    assert told(result) == line
    assert line in shown(result)
    assert line in report([result])


def test_a_share_that_is_missing_says_why():
    result = run(make_peaks(bandwidth=None, bandwidth_missing="no numpy"))
    assert "no share of bandwidth: bandwidth was not measured: no numpy" in shown(result)
    assert f"no share of the machine's peaks: {NULL_ENGINE}" in shown(run(NULL_ENGINE))
    assert "peaks" not in shown(make_result()), "nobody asked for them"
