"""Metadata keys of our own, beside those of GGUF, that sources of weights other than GGUF files set."""

from __future__ import annotations

# Said by sources whose rows of Q and K lie otherwise than a GGUF file of the architecture would have them: true where
# the two numbers of a rotary pair are side by side, false where they are half a head apart.
ROTARY_INTERLEAVED = "perjoule.rotary_interleaved"
# A ``TokenizerFiles`` record. No file can hold one, so no file can claim to have it.
TOKENIZER_FILES = "perjoule.tokenizer_files"
