from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
from builders import make_scenario

from perjoule.errors import InputError, UsageError
from perjoule.load.prompts import prompt_text
from perjoule.scenario import facts, from_facts, list_scenarios, load_scenario, with_overrides


def test_shipped_scenarios_are_what_the_documents_promise():
    assert {"chat", "quickstart"} < set(list_scenarios())
    quick, chat = load_scenario("quickstart"), load_scenario("chat")
    assert (quick.prompt_tokens, quick.new_tokens, quick.min_processes, quick.time_budget_s) == (256, 64, 5, 60)
    assert (chat.prompt_tokens, chat.new_tokens, chat.min_processes, chat.target_half_width) == (512, 128, 8, 0.02)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UsageError) as error:
        load_scenario("quickstar")
    assert "quickstart" in error.value.hint


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff", b"name = ", b'rigor = "lax"', b'name = "a"\nversion = 0', b"x = " + b"[" * 5000, b" " * 70000,
     b"rigor = {}", b'corpus = "../../etc/passwd"'],
)  # fmt: skip
def test_a_bad_file_is_refused_by_name(tmp_path, text):
    path = tmp_path / "s.toml"
    path.write_bytes(text)
    with pytest.raises(InputError):
        load_scenario(str(path))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        load_scenario(str(tmp_path / "none.toml"))


def test_a_new_rigor_brings_its_own_effort_and_strings_are_converted():
    changed = with_overrides(load_scenario("quickstart"), {"rigor": "strict", "prompt_tokens": "128"})
    assert (changed.min_processes, changed.target_half_width, changed.prompt_tokens) == (12, 0.01, 128)
    assert facts(changed).sha256 != facts(load_scenario("quickstart")).sha256


@pytest.mark.parametrize("changes", [{"promt_tokens": 1}, {"prompt_tokens": 0}, {"name": "x"}, {"rigor": "lax"}])
def test_wrong_settings_are_usage_errors(changes):
    with pytest.raises(UsageError):
        with_overrides(load_scenario("quickstart"), changes)


def test_facts_and_back():
    scenario = make_scenario()
    assert from_facts(facts(scenario)) == scenario
    spec = msgspec.structs.replace(facts(scenario), spec={"name": 1})
    with pytest.raises(InputError):
        from_facts(spec)


def test_prompts_repeat_exactly_and_each_opens_differently():
    first = [prompt_text("udhr-en", 0, 0, i) for i in range(180)]
    assert first[7] == prompt_text("udhr-en", 0, 0, 7)
    assert len({text.split()[0] for text in first}) == 180
    assert first[0] != prompt_text("udhr-en", 1, 0, 0) != prompt_text("udhr-en", 0, 1, 0)
    assert min(len(text.split()) for text in first) > 1024


def test_unknown_corpus():
    with pytest.raises(InputError, match="unknown corpus"):
        prompt_text("nope", 0, 0, 0)


def test_what_the_worker_imports_is_light():
    code = (
        "import sys, perjoule.scenario, perjoule.stats.steady, perjoule.load.prompts;"
        "print([m for m in ('numpy', 'scipy', 'rich') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"[]"
