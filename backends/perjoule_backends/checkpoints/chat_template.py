"""Chat templates of checkpoints. A template is a program by a stranger: it runs in a child process of its own.

jinja2's sandbox keeps a template from files and attributes, but not from endless loops or giant strings; only a
process with limits on its CPU time and memory does (``template_child``).
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from perjoule.errors import InputError
from perjoule_backends.checkpoints.published_tokenizer import TOKENIZER_CONFIG

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MAX_TEMPLATE_CHARACTERS = 256 * 1024  # the longest published templates have some 20,000
WALL_S = 20
_HINT = "use a checkpoint with another template, or prompts without one"
_CHILD = "perjoule_backends.checkpoints.template_child"


def render(
    template: str,
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    **variables: Any,
) -> list[str]:
    """Return the text of each conversation, a list of messages with ``role`` and ``content``.

    ``variables`` are what templates expect beside the messages: ``bos_token``, ``eos_token``, ``tools``, ...;
    ``add_generation_prompt`` is true unless given. Raises ``InputError`` when the template fails, refuses the
    conversation, or wants more time or memory than a template needs.
    """
    if len(template) > MAX_TEMPLATE_CHARACTERS:
        raise InputError(f"the chat template has {len(template)} characters, too many to be one", hint=_HINT)
    job = {
        "template": template,
        "conversations": [list(messages) for messages in conversations],
        "variables": {"add_generation_prompt": True} | variables,
    }
    # -P: a file named jinja2.py in the user's folder must not be imported
    command = [sys.executable, "-P", "-m", _CHILD]
    try:
        done = subprocess.run(command, input=json.dumps(job).encode(), capture_output=True, check=False, timeout=WALL_S)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"the chat template took more than {WALL_S} s", hint=_HINT) from error
    if done.returncode:  # ended by a limit: there is nothing it could have said
        raise InputError("the chat template wanted more time or memory than a template needs", hint=_HINT)
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise InputError(f"the chat template failed: {answer['error']}", hint=_HINT)
    return [str(text) for text in answer["texts"]]


class _Config(msgspec.Struct):
    chat_template: str | None = None
    bos_token: str | None = None
    eos_token: str | None = None


def chat_prompts(folder: Path, conversations: Sequence[Sequence[Mapping[str, Any]]], **variables: Any) -> list[str]:
    """Render with the template that ``write_tokenizer`` saved; encode the texts with ``encode_template``."""
    config = msgspec.json.decode((folder / TOKENIZER_CONFIG).read_bytes(), type=_Config)
    if config.chat_template is None:
        raise InputError("the checkpoint carries no chat template", hint=_HINT)
    tokens = {"bos_token": config.bos_token or "", "eos_token": config.eos_token or ""}
    return render(config.chat_template, conversations, **(tokens | variables))


def thinking_prompts(
    folder: Path, conversations: Sequence[Sequence[Mapping[str, Any]]], *, thinking: bool
) -> list[str]:
    """Render with the template's switch for thinking set.

    Templates read it as ``enable_thinking`` or ``thinking``; both are given. Raises ``InputError`` where turning it
    changes nothing: such a model thinks always, or never.
    """
    if not conversations:
        return []

    def rendered(asked: Sequence[Sequence[Mapping[str, Any]]], *, on: bool) -> list[str]:
        return chat_prompts(folder, asked, enable_thinking=on, thinking=on)

    texts = rendered(conversations, on=thinking)
    if rendered(conversations[:1], on=not thinking) == texts[:1]:
        raise InputError(
            "the model's chat template has no switch for thinking",
            hint="leave thinking out, or use a model that has one",
        )
    return texts
