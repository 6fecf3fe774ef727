"""Plugs and BMCs against local servers that are slow, lose, lie, and never end."""

from __future__ import annotations

import os
import ssl
import subprocess
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import fake_plugs as fake
import pytest

from perjoule import meters
from perjoule.clock import MonotonicClock
from perjoule.errors import UsageError
from perjoule.meters import http, plug
from perjoule.meters.gauge import GaugePoller
from perjoule.meters.plug import ShellyMeter, TasmotaMeter
from perjoule.meters.redfish import RedfishMeter
from perjoule.protocols import Count
from perjoule.records import MeterRefusal

if TYPE_CHECKING:
    from datetime import datetime

REAL = MonotonicClock()


class Clock:
    """A clock that a test moves; http deadlines follow it too."""

    def __init__(self) -> None:
        self.ns = 1_000_000_000

    def now_ns(self) -> int:
        return self.ns

    def cpu_ns(self) -> int:
        return 0

    def sleep(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)

    def utc_now(self) -> datetime:
        raise NotImplementedError


def drip(device: fake.FakeDevice, head: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> Any:
    def send(connection: Any) -> None:
        for byte in head + b'{"a": 1' + b" " * 1000:
            connection.sendall(bytes([byte]))
            if device.wait(0.02):
                return

    return send


def get(answer: Any, timeout_s: float = 2.0) -> dict[str, Any] | str:
    with fake.FakeDevice(lambda _path, _headers: answer) as device:
        return http.get_json(device.address + "/x", timeout_s=timeout_s, clock=REAL)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (fake.ok("{nonsense"), "not JSON"),
        (fake.ok(b'{"a": \xff}'), "not JSON"),
        (fake.ok('{"a": NaN}'), "not JSON"),
        (fake.ok('{"a": 1, "a": 2}'), "not JSON"),
        (fake.ok("[" * 30000), "not JSON"),
        (fake.ok('{"a": ' + "9" * 5000 + "}"), "not JSON"),
        (fake.ok([1]), "not a JSON object"),
        (fake.ok({"a": "x" * 70_000}), "larger than 65536 bytes"),
        (fake.endless, "larger than 65536 bytes"),
        (fake.endless_headers, "not an HTTP answer|larger than"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}", "not an HTTP answer"),
        (fake.lost, "not an HTTP answer|reset"),
        (fake.status(401), "password"),
        (fake.status(500), "HTTP 500"),
        (fake.status(302, more="Location: http://192.0.2.1/y\r\n"), "another place"),
        (fake.status(302, more="Location: /x\r\n"), "circles"),
    ],
)
def test_an_answer_that_is_none_becomes_a_reason(answer: Any, reason: str):
    found = get(answer)
    assert isinstance(found, str)
    assert any(part in found for part in reason.split("|")), found
    assert "127.0.0.1" not in found


def test_answers_that_are_one():
    assert get(fake.chunked({"a": 1.5})) == {"a": 1.5}
    assert get(b'HTTP/1.0 200 OK\r\n\r\n{"a": 2}') == {"a": 2}
    moved = fake.status(308, more="Location: /x/\r\n")
    with fake.FakeDevice(lambda path, _h: fake.ok({"a": 3}) if path == "/x/" else moved) as device:
        assert http.get_json(device.address + "/x", timeout_s=2, clock=REAL) == {"a": 3}


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 500])
def test_a_slow_drip_ends_at_the_deadline(head: bytes):
    with fake.FakeDevice(lambda _path, _headers: drip(device, head)) as device:
        begin_ns = REAL.now_ns()
        assert http.get_json(device.address, timeout_s=0.2, clock=REAL) == "no answer within 0.2 s"
        assert REAL.now_ns() - begin_ns < 1e9


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert get(fake.ok({"a": 1})) == {"a": 1}


def test_nobody_listens():
    with fake.FakeDevice(lambda _path, _headers: b"") as device:
        address = device.address
    assert http.get_json(address, timeout_s=1, clock=REAL) == "Connection refused"


class Profile:
    """A plug's truth: power by the second, and a register that counts it (or not)."""

    def __init__(self, clock: Clock, *, gain: float = 1.0, step_wh: float = 0.001) -> None:
        self.clock, self.gain, self.step_wh = clock, gain, step_wh
        self.fault: Any = None

    def watts(self) -> float:
        return 80.0 if (self.clock.ns // 1_000_000_000) % 40 < 20 else 140.0

    def register_wh(self) -> float:
        wh = self.gain * 110.0 * self.clock.ns / 1e9 / 3600
        return round(wh / self.step_wh) * self.step_wh

    def shelly(self, path: str, _headers: dict[str, str]) -> Any:
        assert path == "/rpc/Switch.GetStatus?id=0"
        return self.fault or fake.shelly(self.watts(), self.register_wh())

    def tasmota(self, path: str, _headers: dict[str, str]) -> Any:
        assert path == "/cm?cmnd=Status%208"
        return self.fault or fake.tasmota(round(self.watts()), round(self.register_wh() / 1000, 3))


def run_by_hand(meter: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch, seconds: int) -> tuple[Count, Count]:
    monkeypatch.setattr(GaugePoller, "start", GaugePoller.poll)
    (fact,) = meter.probe().domains
    assert (fact.domain, fact.grade, fact.min_window_s, fact.only_simulated) == ("wall", "plug", 120.0, True)
    assert Fraction(fact.unit_j) == Fraction(1, 10**12)
    meter.open()
    (start,) = meter.read()
    for _ in range(seconds):
        clock.sleep(1)
        meter._poller.poll()
    (end,) = meter.read()
    meter.close()
    return start, end


@pytest.mark.parametrize("kind", [ShellyMeter, TasmotaMeter])
def test_a_plug_integrates_to_the_truth(kind: Any, monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    truth = Profile(clock, step_wh=1.0 if kind is TasmotaMeter else 0.001)
    with fake.FakeDevice(getattr(truth, kind.name)) as device:
        meter = kind(device.address, clock)
        start, end = run_by_hand(meter, clock, monkeypatch, 400)
    joules = float((end.count - start.count) * Fraction(1, 10**12))
    assert joules == pytest.approx(110.0 * 400, rel=0.01)
    assert end.polls == 401
    assert meter.notes() == []


@pytest.mark.parametrize(
    ("gain", "step_wh", "said"), [(1.3, 0.001, "differ"), (1.0, 5.0, "coarse"), (0.0, 1.0, "differ")]
)
def test_a_register_that_disagrees_is_noted(gain: float, step_wh: float, said: str, monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    with fake.FakeDevice(Profile(clock, gain=gain, step_wh=step_wh).shelly) as device:
        meter = ShellyMeter(device.address, clock)
        run_by_hand(meter, clock, monkeypatch, 400 if gain != 1 else 100)
    (note,) = meter.notes()
    assert said in note


def test_losing_some_answers_costs_nothing_and_losing_many_refuses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(GaugePoller, "start", GaugePoller.poll)
    clock = Clock()
    truth = Profile(clock)
    faults = [fake.lost, fake.shelly("lots", 1), fake.shelly(-5, 1), fake.shelly(1e9, 1), fake.shelly(0, 1)]
    with fake.FakeDevice(truth.shelly) as device:
        meter = ShellyMeter(device.address, clock)
        meter.open()
        for second in range(60):
            clock.sleep(1)
            truth.fault = faults[second // 3 % 5] if second % 3 else None
            meter._poller.poll()
        (held,) = meter.read()
        assert isinstance(held, Count)
        assert held.polls == 21
        truth.fault = fake.shelly(None, 1)
        for _ in range(12):
            clock.sleep(1)
            meter._poller.poll()
        truth.fault = None
        meter._poller.poll()
        (gone,) = meter.read()
        meter.close()
    assert isinstance(gone, MeterRefusal)
    assert "power is missing" in gone.reason or "no reading" in gone.reason


@pytest.mark.parametrize(
    ("kind", "answer", "reason"),
    [
        (ShellyMeter, fake.ok({"ison": True, "power": 5}), "no apower"),
        (ShellyMeter, fake.shelly(5, 1, output=False), "output is off"),
        (ShellyMeter, fake.shelly("5", 1), "power is text"),
        (ShellyMeter, fake.shelly(True, 1), "power is a truth value"),
        (ShellyMeter, fake.ok('{"apower": 1e999, "output": true}'), "power is above"),
        (ShellyMeter, fake.ok('{"apower": ' + "9" * 400 + "}"), "power is above"),
        (TasmotaMeter, fake.tasmota([5, 6], 1), "several outputs"),
        (TasmotaMeter, fake.tasmota(-3, 1), "negative"),
        (TasmotaMeter, fake.tasmota(0, 1), "0 W"),
        (TasmotaMeter, fake.ok({"WARNING": "Need user=<username>&password=<password>"}), "password"),
    ],
)
def test_an_answer_without_power_is_refused_with_a_fix(kind: Any, answer: bytes, reason: str):
    with fake.FakeDevice(lambda _path, _headers: answer) as device:
        probe = kind(device.address).probe()
    (refusal,) = probe.refusals
    assert probe.domains == ()
    assert reason in refusal.reason
    assert refusal.fix
    assert "127.0.0.1" not in refusal.reason


def test_a_real_thread_polls_and_the_guard_closes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plug, "PERIOD_S", 0.05)
    with fake.FakeDevice(lambda _path, _headers: fake.shelly(100.0, 5.0)) as device:
        with meters.MeterSet([f"shelly:{device.address}?calibrated=1"]) as opened:
            (fact,) = opened.facts
            (start,) = opened.read()
            device.wait(0.6)
            (end,) = opened.read()
        asked = len(device.paths)
        device.wait(0.2)
        assert len(device.paths) == asked, "a closed meter still polls"
    assert fact.tolerance == 0.03
    assert isinstance(start, Count)
    assert isinstance(end, Count)
    assert (end.polls or 0) - (start.polls or 0) >= 4
    watts = (end.count - start.count) / 1e3 / (end.before_ns - start.before_ns)
    assert watts == pytest.approx(100.0, rel=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "shelly", "shelly:", "shelly:192.0.2.7", "shelly:https://192.0.2.7", "shelly:http://u:p@192.0.2.7",
        "shelly:http://192.0.2.7/path", "shelly:http://192.0.2.7?calibrate=1", "shelly:http://192.0.2.7?id=x",
        "shelly:http://192.0.2.7:port", "tasmota:http://192.0.2.7?id=1", "redfish", "redfish:http://192.0.2.7",
        "redfish:https://u:p@192.0.2.7", "redfish:http://127.0.0.1.example.org",
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_used_is_a_usage_error(name: str):
    with pytest.raises(UsageError) as error:
        meters.build(name)
    assert error.value.hint
    assert "u:p" not in str(error.value)


class Bmc:
    def __init__(self, chassis: list[dict[str, Any]]) -> None:
        self.chassis = {c["@odata.id"]: c for c in chassis}
        self.watts: dict[str, Any] = {}
        self.wanted = ""

    def answer(self, path: str, headers: dict[str, str]) -> Any:
        if self.wanted and headers.get("Authorization") != self.wanted:
            return fake.status(401)
        if path == "/redfish/v1/Chassis":
            return fake.ok({"Members": [{"@odata.id": p} for p in self.chassis]})
        if path in self.chassis:
            return fake.ok(self.chassis[path])
        owner, _, leaf = path.rpartition("/")
        value = self.watts.get(path, self.watts.get(owner))
        if leaf == "Power":
            return fake.ok({"PowerControl": [{"MemberId": "0", "PowerConsumedWatts": value}]})
        return fake.ok({"PowerWatts": {"Reading": value}})


def test_a_bmc_is_found_by_its_links(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(GaugePoller, "start", GaugePoller.poll)
    monkeypatch.setenv("PERJOULE_REDFISH_USER", "reader")
    monkeypatch.setenv("PERJOULE_REDFISH_PASSWORD", "s3cret")
    bare = fake.redfish_chassis(3, newer=False, older=False)
    bmc = Bmc([fake.redfish_chassis(1), fake.redfish_chassis(2, inside=1, newer=False), bare])
    bmc.wanted = "Basic cmVhZGVyOnMzY3JldA=="
    bmc.watts = {
        "/redfish/v1/Chassis/1": 590,
        "/redfish/v1/Chassis/1/EnvironmentMetrics": None,
        "/redfish/v1/Chassis/2": 200.5,
    }
    clock = Clock()
    with fake.FakeDevice(bmc.answer) as device:
        meter = RedfishMeter(device.address, clock)
        probe = meter.probe()
        meter.open()
        start = {c.domain: c.count for c in meter.read() if isinstance(c, Count)}
        for _ in range(10):
            clock.sleep(5)
            meter._poller.poll()
        end = {c.domain: c.count for c in meter.read() if isinstance(c, Count)}
        bmc.watts = {"/redfish/v1/Chassis/1": -1, "/redfish/v1/Chassis/2": 200.5}
        for _ in range(11):
            clock.sleep(5)
            meter._poller.poll()
        lost = [r for r in meter.read() if isinstance(r, MeterRefusal)]
        meter.close()
    assert probe.refusals == ()
    first, second = probe.domains
    assert (first.domain, first.source, first.parent) == ("chassis-0", "Redfish PowerControl", None)
    assert (second.domain, second.parent, second.min_window_s) == ("chassis-1", "chassis-0", 600.0)
    joules = {d: float((end[d] - start[d]) * Fraction(first.unit_j or "0")) for d in end}
    assert joules == pytest.approx({"chassis-0": 590 * 50, "chassis-1": 200.5 * 50})
    (refusal,) = lost
    assert "chassis-0" in refusal.reason
    assert "s3cret" not in repr(vars(meter)) + repr(probe) + repr(lost)


def test_a_bmc_that_wants_a_password_names_the_variables(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PERJOULE_REDFISH_USER", raising=False)
    bmc = Bmc([fake.redfish_chassis(1)])
    bmc.wanted = "Basic x"
    with fake.FakeDevice(bmc.answer) as device:
        (refusal,) = RedfishMeter(device.address).probe().refusals
    assert "password" in refusal.reason
    assert "PERJOULE_REDFISH_USER" in refusal.fix


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([], "empty"),
        ([{"@odata.id": "http://192.0.2.1/redfish/v1/x"}], "no links"),
        ([{"@odata.id": "/redfish/v1/Chassis/1 HTTP/1.0"}], "characters"),
        ("many", "empty"),
    ],
)
def test_a_bmc_that_lists_nonsense_is_refused(members: Any, reason: str):
    with fake.FakeDevice(lambda _path, _headers: fake.ok({"Members": members})) as device:
        (refusal,) = RedfishMeter(device.address).probe().refusals
    assert reason in refusal.reason


def test_tls_needs_a_certificate_that_is_trusted(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    certificate, key = tmp_path / "bmc.pem", tmp_path / "bmc.key"
    try:
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=bmc",
                "-addext", "subjectAltName=IP:127.0.0.1",
            ],
            check=True, capture_output=True, env={**os.environ, "OPENSSL_CONF": os.devnull},
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no openssl command to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    bmc = Bmc([fake.redfish_chassis(1)])
    bmc.watts = {"/redfish/v1/Chassis/1": 300}
    with fake.FakeDevice(bmc.answer, tls=context) as device:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        (refusal,) = RedfishMeter(device.address).probe().refusals
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        trusted = RedfishMeter(device.address).probe()
    assert "not trusted" in refusal.reason
    assert "SSL_CERT_FILE" in refusal.fix
    assert [f.source for f in trusted.domains] == ["Redfish EnvironmentMetrics"]
