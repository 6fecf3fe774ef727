"""A known truth is found again from its readings; what does not suit is refused; a fit stays on its machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest
from builders import make_host, make_result
from calibrated import (
    E_J_PER_BYTE,
    LARGE,
    LONG_ANSWER,
    LONG_PROMPT,
    MIDDLE,
    P0_W,
    SMALL,
    measured,
    rapl,
    truth_j,
)

from perjoule.errors import HostError, InputError
from perjoule.meters import calibration as module
from perjoule.meters.calibration import CalibratedModel, Calibration, load_calibration, save_calibration
from perjoule.meters.calibration_fit import evidence_of, fit
from perjoule.records import RunResult, Window

if TYPE_CHECKING:
    from pathlib import Path

ID, OTHER_ID = "0123456789abcdef" * 2, "fedcba9876543210" * 2


def fitted(*results: RunResult) -> Calibration:
    return fit([evidence_of(r, "a.json") for r in results], more="run more")


def four(**changes: object) -> list[RunResult]:
    return [measured(m, load, **changes) for m in (SMALL, LARGE) for load in (LONG_ANSWER, LONG_PROMPT)]  # type: ignore[arg-type]


def make_fit(**changes: object) -> Calibration:
    found = Calibration(
        p0_w=P0_W, e_j_per_byte=E_J_PER_BYTE, error_mean_share=0.05, error_max_share=0.1, tolerance_share=0.05,
        low_bytes_per_s=2e9, high_bytes_per_s=8e9, low_cores=1.9, high_cores=2.0, scope="package",
        grade="rapl-package", points=20, configurations=4, models=2,
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)


def work(bytes_per_s: float, *, cores: float = 2.0, seconds: float = 2.0) -> list[Window]:
    return [Window(
        id="0.0/decode", process=0, phase="decode", start_s=0.0, end_s=seconds, cpu_s=cores * seconds, steal_s=0.0,
        foreign_cpu_s=0.0, bytes_streamed=int(bytes_per_s * seconds),
    )]  # fmt: skip


def test_the_truth_is_found_again_exactly_and_predicts_a_model_it_has_not_seen():
    found = fitted(*four())
    assert (found.p0_w, found.e_j_per_byte) == pytest.approx((P0_W, E_J_PER_BYTE), rel=1e-5)
    assert found.error_max_share < 1e-5
    assert (found.points, found.configurations, found.models) == (20, 4, 2)
    assert (found.scope, found.grade, found.simulated) == ("package", "rapl-package", False)
    assert found.half_width == 0.18
    unseen = measured(MIDDLE, LONG_ANSWER)
    (part,) = CalibratedModel(found).parts(unseen.windows) or []
    assert part.joules.value == pytest.approx(truth_j(unseen.windows), rel=1e-4)
    assert part.joules.low == pytest.approx(0.82 * part.joules.value)
    assert part.joules.high == pytest.approx(1.18 * part.joules.value)


def test_the_error_is_that_of_models_left_out():
    other = measured(MIDDLE, LONG_ANSWER, factor=1.3)
    found = fitted(*four(), other)
    # Middle is 30 % above what the others, which agree, say of it: told 1 / 1.3 of what was measured
    assert found.error_max_share == pytest.approx(1 - 1 / 1.3, rel=1e-3)
    assert 0 < found.error_mean_share < found.error_max_share
    assert found.half_width == found.error_max_share


def test_every_configuration_counts_the_same_however_many_processes_it_has():
    evidence = [evidence_of(r, "a.json") for r in [*four(), measured(MIDDLE, LONG_ANSWER, factor=1.2)]]
    many = [*evidence[:-1], msgspec.structs.replace(evidence[-1], points=evidence[-1].points * 9)]
    once, often = fit(evidence, more=""), fit(many, more="")
    assert often.p0_w == pytest.approx(once.p0_w)
    assert often.points == once.points + 40


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ([measured(SMALL, LONG_ANSWER), measured(LARGE, LONG_ANSWER)], "too few"),
        ([measured(SMALL, {**LONG_PROMPT, "output_tokens": n}) for n in (8, 12, 16)], "1 models are too few"),
        ([measured(m, LONG_ANSWER) for m in (SMALL, MIDDLE, LARGE)], "too much alike"),
        ([measured(SMALL, LONG_ANSWER), measured(SMALL, LONG_PROMPT), measured(LARGE, LONG_ANSWER)],
         "without Small"),
        ([*four()[:3], measured(LARGE, LONG_PROMPT, meter=rapl(grade="amd-rapl"))], "different things"),
        (four(p0_w=-0.01, e_j_per_byte=1e-9), "power that is always there"),
        (four(e_j_per_byte=-1e-10), "energy per byte"),
        ([*four(), measured(MIDDLE, LONG_ANSWER, factor=4.0)], "missed by"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_is_refused(results: list[RunResult], says: str):
    with pytest.raises(InputError, match=says):
        fitted(*results)


def test_only_measured_joules_with_all_their_windows_are_evidence():
    with pytest.raises(InputError, match="utilisation-modelled, not measured"):
        evidence_of(make_result(), "a.json")
    result = measured(SMALL, LONG_ANSWER)
    first = msgspec.structs.replace(result.windows[0], bytes_streamed=None, bytes_streamed_missing="unknown")
    with pytest.raises(InputError, match="how many bytes"):
        evidence_of(msgspec.structs.replace(result, windows=(first, *result.windows[1:])), "a.json")
    reading = msgspec.structs.replace(result.windows[0].readings[0], end_count=10**8)
    moved = msgspec.structs.replace(result.windows[0], readings=(reading,))
    with pytest.raises(InputError, match="its headline says"):
        evidence_of(msgspec.structs.replace(result, windows=(moved, *result.windows[1:])), "a.json")
    assert evidence_of(measured(SMALL, LONG_ANSWER, meter=rapl(simulated=True)), "a.json").simulated


def test_outside_the_fitted_range_the_interval_widens_and_then_there_are_no_joules():
    model = CalibratedModel(make_fit())
    assert (model.label, model.convention, model.scope) == ("counter-modelled", "gross", "package")
    assert model.grade == "fitted on this machine against rapl-package"
    for rate, outside in ((2e9, 1.0), (8e9, 1.0), (10e9, 1.25), (1.6e9, 1.25)):
        (part,) = model.parts(work(rate)) or []
        joules = 2 * (P0_W + E_J_PER_BYTE * rate)
        assert part.joules.value == pytest.approx(joules)
        assert part.joules.high == pytest.approx(joules * (1 + 0.18 * outside))
    assert "12.5 GB/s streamed is outside what was calibrated (2-8 GB/s)" in model.parts(work(12.5e9))
    assert isinstance(model.parts(work(1.3e9)), str)
    assert "8 busy cores are outside what was calibrated (1.9-2)" in model.parts(work(4e9, cores=8.0))
    assert (model.floor_j([]), model.ceiling_j([]), model.outside([])) == (None, None, [])


def test_windows_that_do_not_say_enough_give_the_reason():
    model, (window,) = CalibratedModel(make_fit()), work(4e9)
    silent = msgspec.structs.replace(window, bytes_streamed=None, bytes_streamed_missing="unknown")
    unread = msgspec.structs.replace(window, cpu_s=None, cpu_s_missing="unknown")
    assert "how many bytes" in model.parts([silent])
    assert "CPU time was not read" in model.parts([unread])
    assert model.parts([]) == "there is no time to price"


@pytest.mark.parametrize(
    "changes",
    [
        {"p0_w": 0.0}, {"e_j_per_byte": -1e-12}, {"low_bytes_per_s": 9e9}, {"low_cores": 0.0}, {"error_max_share": 0.9},
        {"error_mean_share": 0.2}, {"tolerance_share": 1.5}, {"configurations": 2}, {"models": 1}, {"points": 3},
        {"p0_w": float("nan")},
    ],
)  # fmt: skip
def test_numbers_that_no_fit_gives_are_refused(changes: dict[str, object]):
    with pytest.raises(ValueError, match=r".+"):
        Calibration(**{**msgspec.structs.asdict(make_fit()), **changes})  # type: ignore[arg-type]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file with the id of a made-up machine, whose cache is empty."""
    file = tmp_path / "machine-id"
    file.write_text(f"{ID}\n")
    monkeypatch.setattr(module, "MACHINE_ID_FILES", (tmp_path / "none", file))
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    return file


def save(calibration: Calibration) -> Path:
    return save_calibration(calibration, make_host(), created_utc="2026-01-02T03:04:05Z", tool_version="0")


def test_a_fit_is_found_again_on_its_machine_only(machine: Path):
    assert load_calibration(make_host()) is None
    path = save(make_fit())
    assert load_calibration(make_host()) == make_fit()
    assert save(make_fit(p0_w=20.0)) == path
    assert load_calibration(make_host()) == make_fit(p0_w=20.0)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert load_calibration(make_host(machine_id="ba9876543210")) is None
    machine.write_text(OTHER_ID)
    assert load_calibration(make_host()) is None


def test_the_id_of_the_machine_is_nowhere_in_the_file(machine: Path):
    path = save(make_fit())
    text = path.read_text()
    assert ID not in text
    assert machine.name not in text
    assert json.loads(text)["digest"] == path.stem
    assert len(path.stem) == 64


@pytest.mark.parametrize("own", ["", "uninitialized\n", "0" * 31, "not an id"])
def test_a_machine_without_an_id_gets_no_calibration(own: str, machine: Path):
    machine.write_text(own)
    assert load_calibration(make_host()) is None
    with pytest.raises(HostError, match="no id of its own") as refused:
        save(make_fit())
    assert "machine-id" in refused.value.hint


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema_version": 2, "more": 1}, "newer"),
        ({"schema": "perjoule.run"}, "not a calibration"),
        ({"digest": "0" * 64}, "another machine"),
        ({"calibration": None}, "not a calibration"),
        ({"more": 1}, "not a calibration"),
    ],
)
def test_files_that_were_changed_are_refused(change: dict[str, object], says: str, machine: Path):
    path = save(make_fit())
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=says) as refused:
        load_calibration(make_host())
    assert str(path) in refused.value.message
    assert machine.exists()


@pytest.mark.parametrize("data", [b"", b"\xff", b"[" * 100_000, b'{"schema": "perjoule.calibration"'])
def test_files_that_are_no_json_are_refused(data: bytes, machine: Path):
    save(make_fit()).write_bytes(data)
    with pytest.raises(InputError, match="not a calibration"):
        load_calibration(make_host())
    assert machine.exists()


def test_a_fit_of_simulated_sensors_stays_marked(machine: Path):
    found = fitted(
        *(measured(m, load, meter=rapl(simulated=True)) for m in (SMALL, LARGE) for load in (LONG_ANSWER, LONG_PROMPT))
    )
    assert found.simulated
    save(found)
    stored = load_calibration(make_host())
    assert stored is not None
    assert stored.simulated
    assert machine.exists()
