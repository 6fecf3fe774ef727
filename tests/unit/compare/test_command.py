"""perjoule compare from the command line: exit codes, forms of output, mistakes; nothing from a file is obeyed."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from compared import measured, options

from perjoule import store
from perjoule.assemble import derive
from perjoule.cli import compare as command
from perjoule.cli import main
from perjoule.compare import QUESTIONS, compare
from perjoule.records import RunSettings
from perjoule.render.comparison import markdown
from perjoule.render.comparison_charts import Cross, RatioRow, ratios, scatter
from perjoule.render.comparison_page import page
from perjoule.store.write import encode

SLOW = options(extra={"spinning": False})
EVIL = "x<script>alert(1)</script>|`@everyone`\u202e\x1b[31m [a](b)"


@pytest.fixture(scope="module")
def results():
    return {
        "base": measured(), "same": measured(place=1), "slow": measured(1.1, place=1, options=SLOW),
        "fast": measured(0.9, seed=5, options=options(extra={"k": 1})),
        "threads": measured(1.3, seed=6, options=options(threads=1)),
        "both": measured(seed=7, options=options(threads=1, quant="int4")),
        "few": measured(place=1, processes=2),
        "sensor": msgspec.structs.replace(measured(1.1, seed=8, options=SLOW), settings=RunSettings(seed=0, tdp_w=9.0)),
    }  # fmt: skip


@pytest.fixture
def call(results, tmp_path, capsys):
    folder = tmp_path / "results"
    folder.mkdir(exist_ok=True)

    def run(*words):
        for name in words:
            path = folder / f"{name}.json"
            if name in results and not path.exists():
                path.write_bytes(encode(derive(results[name])))
        code = main(["compare", *(str(folder / f"{w}.json") if w in results else w for w in words)])
        told = capsys.readouterr()
        return code, told.out, told.err

    run.folder = folder
    return run


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["base", "same"], 0),
        (["base", "slow"], 1),
        (["slow", "base"], 0),
        (["base", "slow", "--threshold", "20"], 0),
        (["base", "fast", "slow"], 1),
        (["base", "threads"], 1),
        (["base", "threads", "--varying", "model"], 3),
        (["base", "both"], 3),
        (["base", "few"], 3),
        (["base", "few", "--allow-invalid"], 0),
        (["base", "sensor"], 3),  # other coefficients: joules are not comparable, and 3 comes before 1
    ],
)
def test_exit_codes(call, words, code):
    assert call(*words)[0] == code


def test_a_refusal_is_one_line_with_a_way_out(call):
    code, out, errors = call("base", "both")
    assert (code, out) == (3, "")
    assert errors.splitlines()[0].startswith("perjoule: error: not comparable: ")
    assert "threads: 2 / 1" in errors
    assert errors.splitlines()[1].startswith("hint: ")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["base"], "2 to"),
        (["base", "no-such.json"], "no-such.json"),
        (["base", "base"], "the same result"),
        (["base", "slow", "--metric", "ttft"], "ttft_s"),
        (["base", "slow", "--threshold", "-1"], "--threshold"),
        (["base", "slow", "--threshold", "nan"], "--threshold"),
        (["base", "slow", "--varying", "moon"], "--varying"),
        (["base", "slow", "--json", "-", "--markdown", "-"], "--markdown"),
    ],
)
def test_mistakes_are_two(call, words, names):
    code, out, errors = call(*words)
    assert (code, out) == (2, "")
    assert names in errors
    assert "hint: " in errors


def test_what_is_no_result_of_ours_or_was_changed_is_refused(call):
    call("base", "slow")
    content = json.loads((call.folder / "slow.json").read_bytes())
    content["model"]["name"] = "better"
    (call.folder / "edited.json").write_text(json.dumps(content))
    code, _, errors = call("base", str(call.folder / "edited.json"))
    assert code == 2
    assert "edited.json: its content was changed" in errors
    content["schema"] = "other.tool"
    (call.folder / "foreign.json").write_text(json.dumps(content))
    assert call("base", str(call.folder / "foreign.json"))[0] == 2


def test_the_verdict_stands_first_and_every_number_behind_it(call):
    _, out, _ = call("base", "slow")
    name = "Tiny-0.5B-Instruct, options of the engine"
    out = " ".join(out.split())
    text = " ".join(out.split())
    assert out.startswith(f"{name}: spinning False against {name}: none of these: WORSE in time to first token (+")
    for said in ("question: options (found", "modelled from CPU time", "Holm", "n = 12"):
        assert said in text


def test_outputs_are_files_or_standard_output_and_never_overwrite(call, tmp_path):
    page_file, text_file = str(tmp_path / "c.html"), str(tmp_path / "c.md")
    code, out, errors = call("base", "slow", "--json", "-", "--html", page_file, "--markdown", text_file)
    assert code == 1
    assert json.loads(out)["exit_code"] == 1
    assert errors.count("written: ") == 2
    assert call("base", "slow", "--html", page_file)[0] == 2
    _, out, _ = call("base", "slow", "--markdown", "-")
    assert out.startswith("**Tiny")
    assert "| metric | baseline |" in out


def test_an_invalid_result_is_said_to_be_one_before_the_verdict(call):
    code, out, _ = call("base", "few", "--allow-invalid")
    assert code == 0
    assert out.startswith("INVALID result: ")
    assert call("base", "few", "--allow-invalid", "--markdown", "-")[1].startswith("**INVALID result: ")


def test_a_folder_is_its_results(call):
    call("base", "slow")
    assert main(["compare", str(call.folder)]) in (0, 1)


def test_options_offer_every_question():
    assert command._VARYING == QUESTIONS


@pytest.fixture(scope="module")
def hostile(results):
    model = msgspec.structs.replace(results["base"].model, name=EVIL)
    sides = [msgspec.structs.replace(results[n], model=model) for n in ("base", "slow", "fast")]
    return compare(sides, [EVIL, f"{EVIL}2", f"{EVIL}3"])


def test_a_page_holds_pictures_and_obeys_nothing(hostile):
    text = page(hostile)
    assert text.count("<svg") >= 3
    assert "<script" not in text
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert not re.search(r"(src|href)=", text)
    assert "default-src 'none'" in text
    assert "Pareto front" in text or "surely beaten" in text


def test_markdown_obeys_nothing(hostile):
    text = markdown(hostile)
    assert "<script" not in text
    assert "@everyone" not in text
    assert "\\[a\\](b)" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}


def test_ratios_are_drawn_around_one_and_said():
    drawn = ratios([RatioRow(name="a<b", group=0, ratio=1.1, low=1.0, high=1.2),
                    RatioRow(name="c", group=1, ratio=1e-9, low=None, high=None)], "title")  # fmt: skip
    assert "a&lt;b: ratio 1.1, 1 to 1.2" in drawn
    assert "no interval" in drawn
    assert ">equal<" in drawn
    assert drawn.count('line class="s0 outer"') == 1


@pytest.mark.parametrize("value", [0.0, 1e-9, 123456.0])
def test_a_scatter_has_room_for_any_size(value):
    drawn = scatter([Cross(name="a", group=0, x=(0.0, value, value), y=(1.0, 2.0, 3.0), front=True)], "t", "J", "s")
    assert "on the front" in drawn
    xs = [float(x) for x in re.findall(r' (?:c?x|x1|x2)="([\d.]+)"', drawn)]
    assert max(xs) <= 440


def test_a_result_that_was_saved_compares(results, tmp_path):
    paths = [store.save(results[n], tmp_path) for n in ("base", "slow")]
    assert main(["compare", *map(str, paths)]) == 1
