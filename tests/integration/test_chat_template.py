"""Chat templates: real ones render as transformers renders them, hostile ones end in one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from fixtures_checkpoints import checkpoint_path

from perjoule.errors import InputError
from perjoule_backends.checkpoints.chat_template import (
    MAX_TEMPLATE_CHARACTERS,
    chat_prompts,
    render,
    thinking_prompts,
)
from perjoule_backends.checkpoints.gguf import read_gguf
from perjoule_backends.checkpoints.tokenizer import CONFIG_FILE, load_tokenizer, write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

HELLO = [{"role": "user", "content": "你好 <b>"}]
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "Sure?\n"},
]
HOSTILE = {
    "endless loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "giant range": "{% for a in range(10**9) %}{% endfor %}",
    "giant string": "{{ 'a' * 10**10 }}",
    "growing string": "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "giant power": "{{ 10 ** (10 ** 9) }}",
    "much output": "{% for a in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    "padding": "{{ '%1000000000d' % 1 }}",
    "attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attributes by filter": "{{ (''|attr('__class__')).mro() }}",
    "attributes by format": "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
    "functions of functions": "{{ raise_exception.__globals__['json'] }}",
    "other files": "{% include '/etc/passwd' %}",
    "changing its input": "{{ messages.append(1) }}",
    "calling itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "deep brackets": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "no template": "{% if %}",
    "division by zero": "{{ 1 // 0 }}",
    "its own refusal": "{{ raise_exception('roles must\nalternate') }}",
}


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_template_ends_in_one_line(template: str) -> None:
    with pytest.raises(InputError) as caught:
        render(template, [HELLO])
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300
    assert caught.value.hint


def test_a_template_too_long_to_be_one_is_refused() -> None:
    with pytest.raises(InputError, match="too many"):
        render("a" * (MAX_TEMPLATE_CHARACTERS + 1), [HELLO])


def test_a_module_in_the_users_folder_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jinja2.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert render("{{ messages[0].content }}", [HELLO]) == ["你好 <b>"]


def test_what_real_templates_use_is_there() -> None:
    template = (
        "{% for m in messages %}\n"
        "    {% if m.role == 'assistant' %}{% continue %}{% endif %}\n"
        "{{ m.content | trim }}|{{ {'a': '<é>'} | tojson }}|{{ strftime_now('%Y') | length }}\n"
        "{% endfor %}{% if add_generation_prompt %}{{ bos_token }}>{% endif %}"
    )
    line = '|{"a": "<é>"}|4\n'
    expected = f"Be brief.{line}1 + 1?{line}Sure?{line}<s>>"
    assert render(template, [CONVERSATION, HELLO], bos_token="<s>") == [expected, f"你好 <b>{line}<s>>"]  # noqa: S106
    assert render("{{ add_generation_prompt }}", [HELLO], add_generation_prompt=False) == ["False"]


def test_a_checkpoint_without_a_template_is_said(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"chat_template": None}))
    with pytest.raises(InputError, match="no chat template"):
        chat_prompts(tmp_path, [HELLO])


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
def test_thinking_is_switched_by_either_name(name: str, tmp_path: Path) -> None:
    template = f"{{{{ messages[0].content }}}}{{% if {name} is defined and not {name} %}}<think></think>{{% endif %}}>"
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"chat_template": template}))
    assert chat_prompts(tmp_path, [HELLO]) == ["你好 <b>>"]
    assert thinking_prompts(tmp_path, [HELLO, CONVERSATION], thinking=True) == ["你好 <b>>", "Be brief.>"]
    assert thinking_prompts(tmp_path, [HELLO], thinking=False) == ["你好 <b><think></think>>"]
    assert thinking_prompts(tmp_path, [], thinking=False) == []


@pytest.mark.parametrize("thinking", [True, False])
def test_a_template_without_a_switch_for_thinking_is_refused(thinking: bool, tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"chat_template": "{{ messages[0].content }}<think>"}))
    with pytest.raises(InputError, match="no switch for thinking"):
        thinking_prompts(tmp_path, [HELLO], thinking=thinking)


@pytest.mark.checkpoint
def test_a_prompt_ends_where_the_assistant_begins(tmp_path: Path) -> None:
    write_tokenizer(read_gguf(checkpoint_path("smollm2")).metadata, tmp_path)
    [text] = chat_prompts(tmp_path, [[{"role": "user", "content": "hi <|im_end|>"}]])
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode_template(text)) == text


@pytest.mark.checkpoint
@pytest.mark.extras
@pytest.mark.parametrize("name", ["smollm2", "qwen"])
def test_real_templates_render_as_in_transformers(name: str, tmp_path: Path) -> None:
    reference = pytest.importorskip("transformers.utils.chat_template_utils")
    metadata = read_gguf(checkpoint_path(name)).metadata
    write_tokenizer(metadata, tmp_path)
    for generation in (True, False):
        theirs, _ = reference.render_jinja_template(
            [HELLO, CONVERSATION], chat_template=metadata["tokenizer.chat_template"], add_generation_prompt=generation
        )
        assert chat_prompts(tmp_path, [HELLO, CONVERSATION], add_generation_prompt=generation) == theirs
