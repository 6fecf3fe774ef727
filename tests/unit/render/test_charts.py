"""Pictures fit the load: a queue that grows, limits that were to be met, and captions that promise what can be seen."""

from __future__ import annotations

import re

import msgspec
import pytest
from builders import make_result
from load_builders import make_idle, make_multi_stream, make_offline, make_server, make_sustained, make_sweep

from perjoule.render import svg
from perjoule.render.charts import Chart, charts
from perjoule.render.html import report


def titles(*results) -> list[str]:
    return [c.title for c in charts(results, [f"r{i}" for i in range(len(results))])]


def chart(result, title: str) -> Chart:
    return next(c for c in charts([result], ["m"]) if c.title == title)


OVER_TIME = "Time to first token as the load goes on"
WITHIN = "Time to first token: how many are within"


def test_a_served_load_shows_ttft_over_the_scheduled_time_with_its_limit():
    drawn = chart(make_server(), OVER_TIME).svg
    assert drawn.count("<circle") == 300
    assert "limit of TTFT: 2.00 s" in drawn
    assert "m: 300 points" in drawn


def test_latency_in_a_picture_counts_from_the_scheduled_arrival():
    result = make_server()
    first = next(s for s in result.samples if s.phase == "measured")
    assert first.sent_s < first.start_s
    longest = max(s.first_token_s - s.sent_s for s in result.samples)
    assert f"at most {longest:.2f}" in chart(result, OVER_TIME).svg


def test_a_growing_queue_is_drawn_but_no_distribution_of_latencies():
    found = titles(make_server(saturated=True))
    assert OVER_TIME in found
    assert WITHIN not in found
    assert "Time to first token" not in found


def last_height(picture: Chart) -> float:
    """Return where a line ends, in units of the picture from its top."""
    found = re.search(r'points="[^"]*,([0-9.]+)"', picture.svg)
    assert found
    return float(found[1])


def test_the_share_within_a_latency_is_of_all_offered_requests():
    result = make_server()
    spans = tuple(msgspec.structs.replace(s, offered=2 * s.offered) for s in result.spans)
    full, half = (last_height(chart(r, WITHIN)) for r in (result, msgspec.structs.replace(result, spans=spans)))
    bottom = 300 - 46
    assert bottom - half == pytest.approx((bottom - full) / 2, abs=0.2)


def test_a_limit_that_was_to_be_met_is_drawn_in_each_distribution():
    result = make_server()
    assert "limit of TTFT: 2.00 s" in chart(result, WITHIN).svg
    assert 'class="limit"' in chart(result, "Time per output token: how many are within").svg


def test_limits_that_differ_are_not_drawn_as_one():
    other = make_server(**{"slo.ttft_s": 0.5, "slo.tpot_s": 0.03})
    both = next(c for c in charts([make_server(), other], ["a", "b"]) if c.title == OVER_TIME)
    assert "limit" not in both.svg
    assert both.legend == ((0, "a"), (1, "b"))


def test_offline_and_idle_loads_have_no_pictures_of_latency():
    assert titles(make_offline()) == ["Peak resident memory by phase", "Energy per output token"]
    assert titles(make_idle()) == ["Peak resident memory by phase"]


def test_other_loads_have_theirs():
    assert "Decode speed as the load goes on" in titles(make_sustained())
    assert WITHIN in titles(make_multi_stream())
    assert "Decode speed as the load goes on" not in titles(make_result())


def test_colours_stay_with_their_result_when_another_is_left_out_of_a_picture():
    pictures = charts([make_offline(), make_result()], ["a", "b"])
    dots = next(c for c in pictures if c.title == "Time to first token")
    assert 'circle class="s1"' in dots.svg
    assert 'circle class="s0"' not in dots.svg


def test_captions_say_where_a_bar_is_narrower_than_its_mark():
    narrow = svg.Bar(name="n", group=0, value=100.0, inner=(99.9, 100.1), outer=(99.9, 100.1))
    wide = svg.Bar(name="w", group=0, value=50.0, inner=(40.0, 60.0), outer=(30.0, 70.0))
    assert svg.hidden_bars([narrow, wide]) == 1
    assert svg.hidden_bars([wide]) == 0
    memory = chart(make_result(), "Peak resident memory by phase")
    assert "In each row the span is narrower than the mark of the value, which hides it." in memory.note
    assert "narrower" not in chart(make_result(), "Energy per output token").note


def test_the_numbers_of_a_bar_stand_beside_it():
    bar = svg.Bar(name="m", group=0, value=2.0, inner=(1.9, 2.1), outer=(1.0, 4.0))
    assert "m: 2 J, 1 to 4</tspan>" in svg.bars([bar], "Energy", "J")


def test_long_names_are_broken_into_lines_that_fit_a_phone():
    drawn = svg.dots([svg.Series(name="word " * 30, xs=(1.0,), lanes=(0,))], "Time", "ms")
    assert max(len(t) for t in re.findall(r"<tspan[^>]*>([^<]*)<", drawn)) <= 46


def test_a_page_of_many_requests_stays_small_and_says_what_was_left_out():
    result = make_server()
    many = tuple(msgspec.structs.replace(s, window=f"{s.window}.{i}") for i in range(10) for s in result.samples)
    picture = chart(msgspec.structs.replace(result, samples=many), OVER_TIME)
    assert picture.svg.count("<circle") <= 600
    assert "Of 3,000 requests every 5th is drawn." in picture.note


def test_text_is_larger_on_a_phone_and_every_picture_has_a_name():
    page = report([make_server(), make_result()])
    phone = page[page.index("@media (max-width: 600px)") :]
    assert "svg text { font-size: 16px; }" in phone
    assert page.count("<svg") == page.count('role="img" aria-label="')


def test_what_was_too_much_stands_before_every_number():
    page = report([make_server(saturated=True)])
    assert page.index("cannot keep up with this load") < page.index("Energy in one line")


def test_hostile_names_are_text_in_pictures_sweeps_and_legends():
    hostile = "<script>alert(1)</script>\x1b[2J\u202e'\""
    named = [make_server(), *make_sweep(name=hostile), *make_sweep(name=hostile, ref="other")]
    first = msgspec.structs.replace(named[0], model=msgspec.structs.replace(named[0].model, name=hostile))
    page = report([first, *named])
    assert "<script>" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page


def test_a_service_level_that_is_not_one_is_not_drawn():
    result = make_server()
    spec = {**result.scenario.spec, "slo": "soon"}
    changed = msgspec.structs.replace(result, scenario=msgspec.structs.replace(result.scenario, spec=spec))
    assert "limit" not in chart(changed, OVER_TIME).svg
