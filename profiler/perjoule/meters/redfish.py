"""Baseboard management controllers over Redfish: the power that a chassis draws, as its supplies measure it.

DMTF Redfish schemas: ``EnvironmentMetrics`` has ``PowerWatts.Reading``; the older ``Power`` (deprecated in favour of it
in 2020.4) has ``PowerControl[0].PowerConsumedWatts``, "the actual power that the chassis consumes". Both are found by
the links of each member of ``/redfish/v1/Chassis``. User and password come from the environment at each request and are
kept nowhere.
"""

from __future__ import annotations

import base64
import os
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from perjoule.clock import MonotonicClock
from perjoule.errors import UsageError
from perjoule.meters import http
from perjoule.meters.gauge import GaugePoller, integral_unit_j
from perjoule.meters.plug import parse_address
from perjoule.protocols import Count, Probe
from perjoule.records import MeterFact, MeterRefusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perjoule.protocols import Clock

PERIOD_S = 5.0  # of polls; a BMC measures about once a second and may average over more (U)
TIMEOUT_S = 4.0
MIN_WINDOW_S = 600.0
TOLERANCE = 0.10
MAX_CHASSIS_W = 100_000.0  # a rack; no single enclosure draws more
MAX_MEMBERS = 32
PROBE_S = 12.0  # under the 15 s that a probe may take
_CHASSIS = "/redfish/v1/Chassis"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NS = 1_000_000_000
_MILLI = 1000
_FIX = (
    "set PERJOULE_REDFISH_USER and PERJOULE_REDFISH_PASSWORD to a user who may log in and read; where the certificate "
    "is the BMC's own, set SSL_CERT_FILE to a copy of it"
)


class _Chassis:
    """One enclosure with a power reading: where it is read, and in which other one it sits."""

    def __init__(self, domain: str, path: str, *, newer: bool, member: str, inside: str | None) -> None:
        self.domain, self.path, self.newer = domain, path, newer
        self.member, self.inside = member, inside

    def watts(self, answer: dict[str, Any]) -> float | str:
        if self.newer:
            power = answer.get("PowerWatts")
            return http.number(_entry(power, "Reading"), "PowerWatts.Reading", largest=MAX_CHASSIS_W)
        controls = answer.get("PowerControl")
        first = controls[0] if isinstance(controls, list) and controls else None
        return http.number(_entry(first, "PowerConsumedWatts"), "PowerConsumedWatts", largest=MAX_CHASSIS_W)


class RedfishMeter:
    """``redfish:https://BMC``; plain http only to this machine itself, for a tunnel."""

    def __init__(self, argument: str = "", clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._base, _options = parse_address("redfish", argument, ("http", "https"), frozenset())
        if self._base.startswith("http:") and not _is_loopback(self._base):
            raise UsageError("redfish: a password would go over plain http", hint="use https://BMC")
        self._chassis: list[_Chassis] = []
        self._poller: GaugePoller | None = None

    def probe(self) -> Probe:
        end_ns = self._clock.now_ns() + int(PROBE_S * _NS)
        members = self._members(end_ns)
        if isinstance(members, str):
            return Probe(refusals=(_refusal(members),))
        refusals: list[MeterRefusal] = []
        for index, member in enumerate(members[:MAX_MEMBERS]):
            found = self._find(f"chassis-{index}", member, end_ns)
            if isinstance(found, str):
                refusals.append(_refusal(f"chassis-{index}: {found}", f"chassis-{index}"))
            elif found is not None:
                self._chassis.append(found)
        if len(members) > MAX_MEMBERS:
            refusals.append(_refusal(f"only the first {MAX_MEMBERS} of {len(members)} chassis were asked"))
        if not self._chassis and not refusals:
            refusals.append(_refusal("no chassis of this BMC shows its power"))
        return Probe(domains=tuple(self._facts()), refusals=tuple(refusals))

    def open(self) -> None:
        domains = [chassis.domain for chassis in self._chassis]
        self._poller = GaugePoller("redfish", self._look, domains, PERIOD_S, self._clock, fresh=False)
        self._poller.start()

    def read(self) -> list[Count | MeterRefusal]:
        return self._poller.snapshot() if self._poller is not None else []

    def close(self) -> None:
        if self._poller is not None:
            self._poller.stop()
            self._poller = None

    def _facts(self) -> Iterator[MeterFact]:
        domains = {chassis.member: chassis.domain for chassis in self._chassis}
        for chassis in self._chassis:
            yield MeterFact(
                domain=chassis.domain, scope="chassis", kind="gauge", label="measured", grade="bmc", tick_s=PERIOD_S,
                source=f"Redfish {'EnvironmentMetrics' if chassis.newer else 'PowerControl'}",
                unit_j=integral_unit_j(Fraction(1, _MILLI)), min_window_s=MIN_WINDOW_S, tolerance=TOLERANCE,
                parent=domains.get(chassis.inside or ""), only_simulated=True,
            )  # fmt: skip

    def _members(self, end_ns: int) -> list[str] | str:
        answer = self._get(_CHASSIS, end_ns)
        if isinstance(answer, str):
            return answer
        members = answer.get("Members")
        if not isinstance(members, list) or not members:
            return "its list of chassis is empty"
        return [path for member in members if (path := _link(member)) is not None] or "its list of chassis has no links"

    def _find(self, domain: str, member: str, end_ns: int) -> _Chassis | str | None:
        """Return where a chassis shows its power, None where it does not, or why that cannot be told."""
        answer = self._get(member, end_ns)
        if isinstance(answer, str):
            return answer
        inside = _link(_entry(answer.get("Links"), "ContainedBy"))
        why: str | None = None
        for key, newer in (("EnvironmentMetrics", True), ("Power", False)):
            path = _link(answer.get(key))
            if path is None:
                continue
            chassis = _Chassis(domain, path, newer=newer, member=member, inside=inside)
            metrics = self._get(path, end_ns)
            watts = metrics if isinstance(metrics, str) else _running(chassis.watts(metrics))
            if not isinstance(watts, str):
                return chassis
            why = watts
        return why

    def _look(self) -> dict[str, int | str]:
        seen: dict[str, int | str] = {}
        for chassis in self._chassis:
            answer = self._get(chassis.path)
            watts = answer if isinstance(answer, str) else _running(chassis.watts(answer))
            seen[chassis.domain] = watts if isinstance(watts, str) else round(watts * _MILLI)
        return seen

    def _get(self, path: str, end_ns: int | None = None) -> dict[str, Any] | str:
        left_s = TIMEOUT_S if end_ns is None else min(TIMEOUT_S, (end_ns - self._clock.now_ns()) / _NS)
        if left_s <= 0:
            return f"the BMC was not done answering after {PROBE_S:g} s"
        return http.get_json(self._base + path, timeout_s=left_s, clock=self._clock, headers=_credentials())


def _credentials() -> dict[str, str]:
    user, password = os.environ.get("PERJOULE_REDFISH_USER"), os.environ.get("PERJOULE_REDFISH_PASSWORD")
    if not user or password is None:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")}


def _running(watts: float | str) -> float | str:
    return "it reads 0 W while this machine runs" if watts == 0 else watts


def _entry(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, dict) else None


def _link(value: object) -> str | None:
    """Return the path of a Redfish link; one that leads out of the service is none."""
    path = _entry(value, "@odata.id")
    return path if isinstance(path, str) and path.startswith("/redfish/") else None


def _is_loopback(base: str) -> bool:
    host = base.partition("://")[2]
    return any(host == name or host.startswith((f"{name}:", f"[{name}]")) for name in _LOOPBACK)


def _refusal(reason: str, domain: str | None = None) -> MeterRefusal:
    return MeterRefusal(meter="redfish", reason=reason, fix=_FIX, domain=domain)
