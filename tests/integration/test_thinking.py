"""Thinking end to end, on a tiny Qwen3 whose chat template opens or closes the thought in the prompt."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from reference import tiny_folder

from perjoule import store
from perjoule.cli import main
from perjoule.verify import verify

pytest.importorskip("onnxruntime")

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.records import RunResult

TEMPLATE = (
    "{{ messages[-1].content }}\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n</think>\n{% else %}<think>\n{% endif %}"
)
QUESTIONS = [
    '{"prompt": "1 + 1?", "answer": "2", "match": "exact"}',
    '{"prompt": "2 + 2?", "answer": "4", "match": "exact"}',
]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PERJOULE_LOCK", str(tmp_path / "lock"))
    folder = tiny_folder.write_folder(tmp_path / "tiny", "qwen3", max_position_embeddings=256)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": TEMPLATE}))
    (tmp_path / "sums.jsonl").write_text("\n".join(QUESTIONS))
    return folder


def answers(model: Path, thinking: str) -> RunResult:
    out = model.parent / thinking
    words = [
        f"tasks={json.dumps([str(model.parent / 'sums.jsonl')])}", "languages=[]", "levels=[]", "items=2",
        "new_tokens=8", "prompt_tokens=32", "min_processes=1", "max_warmup_requests=1", f"thinking={thinking}",
    ]  # fmt: skip
    command = ["run", "tasks-thinking", "--model", str(model), "--threads", "1", "--quality", "none", "--out", str(out)]
    assert main([*command, "--time-budget", "0.001", *(w for word in words for w in ("--set", word))]) == 0
    [path] = out.glob("*.json")
    return store.load(path)


def test_a_thought_that_the_prompt_opened_and_the_limit_cut_off_is_no_answer(model: Path) -> None:
    on, off = answers(model, "on"), answers(model, "off")
    said = {name: [s.answer for s in r.samples if isinstance(s.answer, str)] for name, r in (("on", on), ("off", off))}
    assert len(said["on"]) == len(said["off"]) == 2
    assert all(answer.startswith("<think>\n") for answer in said["on"])
    assert not any(answer.startswith("<think>") for answer in said["off"])
    assert on.metric("accuracy").value == 0.0
    assert {s.correct for s in on.samples if isinstance(s.answer, str)} == {False}
    assert verify(on) == verify(off) == []
