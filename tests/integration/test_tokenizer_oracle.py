"""Token ids equal llama.cpp's, for each checkpoint, on many scripts and on random Unicode."""

# ruff: noqa: RUF001 - many scripts are the point

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

llama_cpp = pytest.importorskip("llama_cpp")

from fixtures_checkpoints import checkpoint_path  # noqa: E402 - only after the skip above

from perjoule_backends.checkpoints.gguf import read_gguf  # noqa: E402
from perjoule_backends.checkpoints.tokenizer import load_tokenizer, write_tokenizer  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.checkpoint, pytest.mark.all_checkpoints, pytest.mark.extras]

TEXTS = (
    "Hello world, it's 12345 o'clock! WE'LL DON'T I'm I'Ll",
    "你好，世界。人人生而自由，在尊严和权利上一律平等。",
    "すべての人間は、生まれながらにして自由であり、カタカナ ﾊﾝｶｸ",
    "모든 인간은 태어날 때부터 자유로우며",
    "يولد جميع الناس أحرارًا متساوين في الكرامة ٣٤٥",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में १२३",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาค",
    "כל בני אדם נולדו בני חורין; Все люди рождаются; Όλοι οι άνθρωποι; Ünïcödé Straße ſ K İı",
    "👩‍👩‍👧‍👦 😀🏽 ❤️‍🔥 🇨🇳🇫🇷",
    'def f(x):\n    return x**2  # ok\n\n\tfoo();;\r\n  if (a<=b&&c) { s[0x1F] = "%d\\n"; }',
    "   leading   spaces  \n\n\n a\n \n\t\t x \r\n\r\n ",
    " " * 40 + "\n" * 40 + "\t" * 40,
    "3.14159 2026-11-24 1000000 0000000000 1,234,567 ⅷ ² ½",
    "e\u0301 n\u0303 a\u0300\u0301\u0302 \u202eabc\u202c \u200b\u200d\ufeff",
    "\u00a0\u2003\u3000x\u0085y \u2581a \u2581",
    "\x00\x01\x02\x1b\x7f\x80\x9f",
    "<|im_start|>user\nhi<|im_end|>\n<start_of_turn>user <bos><eos></s><s><unk><0x0A><|endoftext|><tool_call>",
    "<table><tr><td>1</td></tr></table> <s>struck</s> [multimodal] <unused7>",
    "x" * 300,
    "",
)
RANGES = (
    *((0x20, 0x7E),) * 4, (0x01, 0x1F), (0x80, 0x9F), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x4FF), (0x590, 0x6FF),
    (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x2000, 0x23FF), (0x2600, 0x27BF), (0x3000, 0x30FF),
    (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFE00, 0xFE0F), (0xFF00, 0xFFEF), (0x10330, 0x1034F), (0x1D400, 0x1D7FF),
    (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF),
)  # fmt: skip
PIECES = (" ", "  ", "     ", "\n", "\n\n", "\r\n", "\t", "'s", "'LL", "123", "</s>", "<|im_end|>", "<bos>", "\u00a0")


def random_texts(count: int) -> list[str]:
    source = random.Random(20)
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(source.randint(1, 25)):
            low, high = source.choice(RANGES)
            letters = "".join(chr(source.randint(low, high)) for _ in range(source.randint(1, 5)))
            parts.append(source.choice(PIECES) if source.random() < 0.2 else letters)
        texts.append("".join(parts))
    return texts


@pytest.mark.parametrize("name", ["smollm2", "qwen", "gemma"])
def test_ids_equal_llama_cpp(name: str, tmp_path: Path) -> None:
    path = checkpoint_path(name)
    write_tokenizer(read_gguf(path).metadata, tmp_path)
    ours = load_tokenizer(tmp_path)
    theirs = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    different = []
    for text in (*TEXTS, *random_texts(300)):
        for special, encode in ((False, ours.encode), (True, ours.encode_template)):
            expected = theirs.tokenize(text.encode(), add_bos=False, special=special)
            if encode(text) != expected:
                different.append((special, text))
    theirs.close()
    assert different == []


@pytest.mark.parametrize("name", ["smollm2", "qwen", "gemma"])
def test_text_comes_back_from_its_ids(name: str, tmp_path: Path) -> None:
    write_tokenizer(read_gguf(checkpoint_path(name)).metadata, tmp_path)
    ours = load_tokenizer(tmp_path)
    for text in TEXTS:
        if "\u2581" not in text:  # SentencePiece writes a space as this character
            assert ours.decode(ours.encode(text)) == text
