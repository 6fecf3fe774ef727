"""Token ids equal llama.cpp's, on text of many scripts, with special tokens read as text and as tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from perjoule_backends.checkpoints.gguf import read_gguf
from perjoule_backends.checkpoints.resolve import resolve
from perjoule_backends.checkpoints.tokenizer import load_tokenizer, write_tokenizer

llama_cpp = pytest.importorskip("llama_cpp")
pytestmark = [pytest.mark.checkpoint, pytest.mark.extras]

TEXTS = [
    "Hello world, it's 12345 o'clock!",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u4eba\u4eba\u751f\u800c\u81ea\u7531",
    "\u3059\u3079\u3066\u306e\u4eba\u9593\u306f\u3001\u751f\u307e\u308c\u306a\u304c\u3089",
    "\ubaa8\ub4e0 \uc778\uac04\uc740 \ud0dc\uc5b4\ub0a0 \ub54c\ubd80\ud130",
    "\u064a\u0648\u0644\u062f \u062c\u0645\u064a\u0639 \u0623\u062d\u0631\u0627\u0631\u064b\u0627",
    "\u0938\u092d\u0940 \u092e\u0928\u0941\u0937\u094d\u092f\u094b\u0902 \u0915\u094b",
    "\u0e21\u0e19\u0e38\u0e29\u0e22\u0e4c\u0e17\u0e31\u0e49\u0e07\u0e2b\u0e25\u0e32\u0e22",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f600\U0001f3fd \u2764\ufe0f\u200d\U0001f525",
    "def f(x):\n    return x**2  # ok\n\n\tfoo();;\r\n  ",
    "   leading   spaces  ",
    "\n\n\n a\n \n",
    "3.14159 2026-11-24 1000000",
    "e\u0301 n\u0303 \u202eabc",
    "<|im_start|>user\nhi<|im_end|>\n<start_of_turn>user <bos><eos>",
    "",
    "\x00\x01\x7f",
    "WE'LL DON'T I'M I'Ll",
    "\u017f \u212a \u0130\u0131",
    "\u00dcn\u00efc\u00f6d\u00e9 Stra\u00dfe na\u00efve fa\u00e7ade",
    "\u00a0\u2003\u3000x",
    "\u0663\u0664\u0665 \u2177 \u00b2 \u00bd",
    "a\tb\t\tc",
    "x" * 300,
    "\u2581a \u2581",
]


@pytest.mark.parametrize("ref", ["smollm2", "qwen", "gemma"])
def test_ids_equal_llamacpp(ref: str, tmp_path: Path):
    path = Path(resolve(ref, lambda _text, _share: None).path)
    write_tokenizer(read_gguf(path).metadata, tmp_path)
    ours = load_tokenizer(tmp_path)
    theirs = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    for text in TEXTS:
        plain = theirs.tokenize(text.encode(), add_bos=False, special=False)
        special = theirs.tokenize(text.encode(), add_bos=False, special=True)
        assert ours.encode(text) == plain, text
        assert ours.encode_template(text) == special, text
