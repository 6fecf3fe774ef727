"""The quality of an engine as it was timed. Runs in a process of its own, beside the fp32 reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perjoule.errors import InputError
from perjoule.protocols import BeginningTokenizer, LogitsEngine
from perjoule.quality.bits_per_byte import predict
from perjoule.quality.divergence import blocks_of, fidelity_of
from perjoule.quality.fidelity import load_corpus
from perjoule.quality.languages import languages, passage
from perjoule.records.base import UNSET, Missing
from perjoule.records.quality import Quality, TextBits

if TYPE_CHECKING:
    from perjoule.protocols import Engine, Progress, Tokenizer
    from perjoule.records.quality import Fidelity

NO_LOGITS = "the engine gives no logits"
NO_LANGUAGES = "not asked for: --quality full measures it"


def measure_quality(
    engine: Engine,
    engine_version: str,
    reference: LogitsEngine | str,
    said: str,
    progress: Progress,
    *,
    context_tokens: int = 0,
) -> Quality:
    """Return the quality of ``engine``; bits per byte too where a ``context_tokens`` to read passages in is given.

    ``reference`` gives the logits of the checkpoint's own weights in fp32 (``said``: what computes them), or is the
    reason why nothing does. Raises ``InputError`` where a text is shorter than the corpus asks for.
    """
    why = NO_LOGITS if not isinstance(engine, LogitsEngine) else reference if isinstance(reference, str) else ""
    fidelity = None
    if isinstance(engine, LogitsEngine) and not isinstance(reference, str):
        fidelity = _fidelity(engine, reference, engine.tokenizer, said, progress)
    bits: dict[str, TextBits] | str = NO_LANGUAGES
    if context_tokens:
        bits = _bits(engine, context_tokens, progress) if isinstance(engine, LogitsEngine) else NO_LOGITS
    return Quality(
        engine_version=engine_version,
        fidelity=fidelity,
        fidelity_missing=UNSET if fidelity is not None else why,
        bits_per_byte=None if isinstance(bits, str) else bits,
        bits_per_byte_missing=bits if isinstance(bits, str) else UNSET,
    )


def _bits(engine: LogitsEngine, context_tokens: int, progress: Progress) -> dict[str, TextBits] | str:
    """Return bits per byte of the pinned passage in every language, or why there are none."""
    tokenizer = engine.tokenizer  # type: ignore[attr-defined]  # what gives logits here is an engine too
    bos = tokenizer.beginning_id if isinstance(tokenizer, BeginningTokenizer) else None
    found: dict[str, TextBits] = {}
    unsaid = []
    tags = [one.tag for one in languages().language]
    for done, tag in enumerate(tags):
        progress("predicting a passage in each language", done / len(tags))
        text = passage(tag)
        seen = predict(engine.logits, tokenizer, text.text, bos=bos, context=context_tokens)
        if isinstance(seen, Missing):
            unsaid.append(f"{tag}: {seen.reason}")
            continue
        found[tag] = TextBits(
            text_sha256=text.sha256, bits_per_byte=seen.bits_per_byte, perplexity=seen.perplexity,
            tokens_count=seen.tokens, bytes_count=seen.bytes, windows=seen.windows, first_token=seen.first_token,
        )  # fmt: skip
    return found or "; ".join(unsaid)


def _fidelity(
    engine: LogitsEngine, reference: LogitsEngine, tokenizer: Tokenizer, said: str, progress: Progress
) -> Fidelity:
    corpus = load_corpus()
    blocks, divergences = [], []
    for done, (listed, text) in enumerate(zip(corpus.text, corpus.read(), strict=True)):
        progress("comparing with the file's own weights", done / len(corpus.text))
        ids = tokenizer.encode(text)[: corpus.tokens_per_text]
        if len(ids) < corpus.tokens_per_text:
            raise InputError(
                f"fidelity corpus: {listed.file} has only {len(ids)} of {corpus.tokens_per_text} tokens",
                hint="this tokenizer is too coarse for the pinned corpus",
            )
        of_text, divergence = blocks_of(listed.file, ids, reference.logits(ids), engine.logits(ids))
        blocks += of_text
        divergences.append(divergence)
    return fidelity_of(said, corpus, blocks, np.concatenate(divergences))
