"""Numbers as people see them, and a page that carries nothing it should not."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from io import StringIO

import msgspec
import pytest
from builders import make_result
from rich.console import Console

from perjoule.records import Energy, Missing, Quantity, RunResult
from perjoule.render import format as fmt
from perjoule.render import svg
from perjoule.render.html import report
from perjoule.render.plain import printable
from perjoule.render.text import summary


def make_energy(**changes: object) -> Energy:
    energy = Energy(
        value=412.3, low=228.1, high=760.4, unit="J", n=5, statistic="sum", interval="x",
        label="utilisation-modelled", grade="g", scope="share of a server", convention="fair-share",
        random=(400.0, 425.0), systematic=(230.0, 750.0),
    )  # fmt: skip
    return msgspec.structs.replace(energy, **changes)


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [(0.0123, "s", "12.3 ms"), (1.0, "s", "1.00 s"), (0.9999, "s", "1.00 s"), (2.5e-7, "J", "250 nJ"), (0, "s", "0 s")],
)
def test_si_prefixes(value: float, unit: str, shown: str):
    assert fmt.si(value, unit) == shown


def test_modelled_joules_have_two_digits_interval_label_and_scope():
    assert fmt.energy(make_energy()) == "410 J (230-760, modelled from CPU time, share of a server)"


def test_measured_joules_have_three_digits():
    energy = make_energy(label="measured", scope="package+dram", value=412.34, low=400.0, high=425.0)
    assert fmt.energy(energy) == "412 J (400-425, measured, package+dram)"


def test_all_bounds_share_the_prefix_of_the_value():
    energy = make_energy(value=0.00072, low=0.00035, high=0.0014, random=(0.0007, 0.0008), systematic=(0.0004, 0.0013))
    assert fmt.energy(energy).startswith("720 \u00b5J (350-1,400, ")


def test_a_missing_metric_is_a_dash_and_a_spread_is_relative():
    assert fmt.metric(Missing(reason="none")) == fmt.DASH
    rate = Quantity(value=50.0, low=49.0, high=51.0, unit="tokens/s", n=5, statistic="m", interval="95 % t")
    assert fmt.metric(rate) == "50.0 tokens/s \u00b12.0 %"


def test_a_wide_interval_names_both_bounds():
    """ "+-129 %" of 15 ms would let the time be below zero; its lower bound is not."""
    slow = Quantity(value=0.015, unit="s", n=3, statistic="m", low=0.0065, high=0.0344, interval="t")
    assert fmt.metric(slow) == "15.0 ms (6.50 ms to 34.4 ms)"
    assert fmt.metric(Quantity(value=2**20, unit="bytes", n=3, statistic="m", low=2**19, high=2**22, interval="t")) == (
        "1.00 MiB (512 KiB to 4.00 MiB)"
    )


def test_a_long_name_breaks_behind_its_hyphens():
    assert fmt.hyphenated("SmolLM2-135M-Instruct", 20) == "SmolLM2-135M-\nInstruct"
    assert fmt.hyphenated("Gemma", 3) == "Gemma"
    assert fmt.hyphenated("") == ""


def test_printable_shows_what_a_terminal_would_obey():
    assert printable("a\x1b[31m\u202eb") == "a\\u001b[31m\\u202eb"


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_the_page_is_self_contained_and_has_its_pictures():
    text = report([make_result(), make_result()])
    page = _Page()
    page.feed(text)
    assert page.tags.count("svg") == 5
    assert not page.targets
    assert "script" not in page.tags
    assert not re.search(r"url\(|@import|https?://", text)


def test_hostile_strings_are_text_on_the_page():
    result = make_result()
    hostile = "<script>alert(1)</script>\x1b[2J\u202e'\""
    result = msgspec.structs.replace(result, model=msgspec.structs.replace(result.model, name=hostile))
    text = report([result])
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize("top", [0.0, 1e-12, 0.45, 1.0, 28.0, 900.0, 3e9])
def test_ticks_are_few_round_and_inside(top: float):
    ticks = svg._ticks(top)
    assert ticks[0] == 0
    assert ticks[-1] <= top * (1 + 1e-6)
    assert 1 <= len(ticks) <= 6
    if len(ticks) > 1:
        assert f"{ticks[1]:.3e}"[:5] in ("1.000", "2.000", "5.000")


def test_each_process_has_its_own_lane_and_a_screen_reader_gets_the_values():
    drawn = svg.dots([svg.Series(name="m", xs=(1.0, 2.0, 9.0), lanes=(3, 3, 4))], "Time", "ms")
    heights = re.findall(r'cy="([0-9.]+)"', drawn)
    assert heights[0] == heights[1] != heights[2]
    assert 'aria-label="Time. m: median 2 ms"' in drawn


def test_energy_shows_random_and_systematic_apart_and_the_limits():
    bar = svg.Bar(name="m", group=0, value=2.0, inner=(1.9, 2.1), outer=(1.0, 4.0), limits=(0.5, 5.0))
    drawn = svg.bars([bar], "Energy", "J")
    assert drawn.count('class="limit"') == 2
    assert drawn.count('class="s0 inner"') == drawn.count('class="s0 outer"') == 1
    assert "m: 2 J, 1 to 4" in drawn


def test_a_result_without_limits_of_energy_still_has_a_page():
    result = make_result()
    energy = msgspec.structs.replace(result.energy, ceiling_j=None, ceiling_j_missing="a stranger's file")
    text = report([msgspec.structs.replace(result, energy=energy)])
    assert "a stranger&#39;s file" in text


def shown(results: list[RunResult], width: int = 80) -> str:
    console = Console(width=width, file=StringIO(), color_system=None)
    console.print(summary(results))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_summary_fits_eighty_columns_and_names_what_it_speaks_of():
    first = make_result()
    model = msgspec.structs.replace(first.model, name="Other-Coder-1.5B-Instruct-With-A-Long-Name")
    noisy = make_result(model=model, processes=first.processes[:1])
    text = shown([first, noisy])
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "modelled from CPU time" in " ".join(text.split())
    assert "Other-Coder-1.5B" in text


def test_a_dash_in_the_summary_comes_with_its_reason():
    result = make_result()
    metrics = result.metrics | {"power_w": None, "power_w_missing": "the meter was unplugged"}
    text = shown([msgspec.structs.replace(result, metrics=metrics), result])
    assert "no Power while working: the meter was unplugged" in " ".join(text.split())


def test_hostile_strings_do_not_reach_the_terminal():
    result = make_result()
    model = msgspec.structs.replace(result.model, name="a\x1b[2J[red]\u202eb")
    text = shown([msgspec.structs.replace(result, model=model)], width=200)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[red]" in text
