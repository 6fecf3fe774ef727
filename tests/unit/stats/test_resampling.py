"""Counting how often each value is drawn gives the very percentiles that drawing the values themselves gives."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.stats.intervals import _RESAMPLES, _resampled, percentile

values = st.one_of(st.floats(0, 100), st.sampled_from([0.5, 1.0, 2.0]))


@settings(max_examples=30, deadline=None)  # the draws of each number of groups are made once
@given(st.lists(st.lists(values, min_size=1, max_size=9), min_size=8, max_size=14), st.sampled_from([0.9, 0.99]))
def test_resamples_have_the_percentiles_of_drawn_values(groups: list[list[float]], share: float):
    generator = random.Random(0)
    drawn = [
        percentile([v for group in generator.choices(groups, k=len(groups)) for v in group], share)
        for _ in range(_RESAMPLES)
    ]
    assert _resampled(groups, share) == drawn
