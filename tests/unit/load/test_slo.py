"""Service levels: what meets them."""

from __future__ import annotations

import pytest

from perjoule.load.slo import meets
from perjoule.scenario import Slo

BOTH = Slo(ttft_s=2.0, tpot_s=0.1)


@pytest.mark.parametrize(
    ("slo", "ttft_s", "tpot_s", "met"),
    [
        (BOTH, 2.0, 0.1, True),
        (BOTH, 2.000001, 0.1, False),
        (BOTH, 2.0, 0.100001, False),
        (BOTH, 2.0, None, True),  # one token has no time per output token
        (BOTH, 2.1, None, False),
        (Slo(ttft_s=1.0), 1.0, 99.0, True),
        (Slo(ttft_s=1.0), 1.1, 0.0, False),
        (Slo(tpot_s=0.1), 99.0, 0.1, True),
        (Slo(tpot_s=0.1), 0.0, 0.2, False),
    ],
)
def test_a_request_meets_every_limit_there_is(slo: Slo, ttft_s: float, tpot_s: float | None, met: bool):
    assert meets(slo, ttft_s, tpot_s) is met


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({}, "ttft_s or tpot_s"),
        ({"ttft_s": 0.0}, "slo.ttft_s"),
        ({"tpot_s": 0.0}, "slo.tpot_s"),
        ({"ttft_s": 1.0, "share": 0.0}, "slo.share"),
        ({"ttft_s": 1.0, "share": 1.0}, "slo.share"),
        ({"ttft_s": 1.0, "share": 99.0}, "slo.share"),
    ],
)
def test_impossible_limits_are_refused_by_name(limits: dict[str, float], named: str):
    with pytest.raises(ValueError, match=named):
        Slo(**limits)  # type: ignore[arg-type]
