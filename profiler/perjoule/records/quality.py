"""What a result says of the quality of the very file, engine and precision that were timed."""

from __future__ import annotations

from perjoule.records.base import UNSET, Energy, Quantity, Reason, Record


class FidelityBlock(Record, frozen=True, kw_only=True):
    """Successive positions of one pinned text, as the engine and the reference predicted them.

    ``kl_nats`` is the sum of KL(reference || engine) over the positions, ``same_top`` at how many both rank the same
    token first. ``nll_nats`` and ``reference_nll_nats`` are the sums of -ln p of the tokens that follow, over
    ``predicted`` of them (the last position of a text predicts none).
    """

    text: str
    positions: int
    predicted: int
    kl_nats: float
    same_top: int
    nll_nats: float
    reference_nll_nats: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.positions < 1 or not 0 <= self.predicted <= self.positions or not 0 <= self.same_top <= self.positions:
            msg = "a block of fidelity counts more than its positions"
            raise ValueError(msg)
        if min(self.kl_nats, self.nll_nats, self.reference_nll_nats) < 0:
            msg = "divergence and likelihood in nats are never below zero"
            raise ValueError(msg)


class KlDivergence(Record, frozen=True, kw_only=True):
    """KL(reference || engine) of the next-token distributions, nats a position. Median and p99 are of the positions."""

    mean: Quantity
    median: float
    p99: float


class Fidelity(Record, frozen=True, kw_only=True):
    """How far the engine, as it was timed, is from the checkpoint's own weights in fp32, on the pinned corpus.

    ``reference`` says what computed the fp32 side. ``perplexity`` is exp of the mean -ln p of the corpus' tokens;
    ``perplexity_ratio`` that of the engine over the reference's. ``blocks`` are what the intervals are made from.
    """

    reference: str
    corpus_version: int
    corpus_sha256: str
    kl_divergence_nats: KlDivergence
    same_top_token: Quantity
    perplexity: Quantity
    perplexity_ratio: Quantity
    blocks: tuple[FidelityBlock, ...]


class TextBits(Record, frozen=True, kw_only=True):
    """How well a passage is predicted: ``tokens_count`` tokens that carry ``bytes_count`` bytes of its UTF-8 form.

    ``first_token`` says whether a token of the beginning stood before it; a passage longer than the context is read in
    ``windows``.
    """

    text_sha256: str
    bits_per_byte: float
    perplexity: float
    tokens_count: int
    bytes_count: int
    windows: int
    first_token: str


class Quality(Record, frozen=True, kw_only=True):
    """Measured in a process of its own with the engine, file and precision that were timed.

    ``bits_per_byte`` holds a text per language; it compares models within a language, never languages.
    """

    engine_version: str
    fidelity: Fidelity | None
    fidelity_missing: Reason = UNSET
    bits_per_byte: dict[str, TextBits] | None
    bits_per_byte_missing: Reason = UNSET


class LanguageCost(Record, frozen=True, kw_only=True):
    """What reading the same passage costs in one language: tokens, energy, latency, and each relative to a reference.

    Latency is that of the first token after the passage. ``energy_j_per_1000_characters`` is secondary: languages say
    the same in more or fewer characters. Ratios are of values of the same process.
    """

    language: str
    reference: str
    tokens_count: int
    characters_count: int | None
    characters_count_missing: Reason = UNSET
    relative_tokens: float
    ttft_s: Quantity
    relative_ttft: Quantity
    energy_j_per_passage: Energy | None
    energy_j_per_passage_missing: Reason = UNSET
    relative_energy: Quantity | None
    relative_energy_missing: Reason = UNSET
    energy_j_per_1000_characters: float | None
    energy_j_per_1000_characters_missing: Reason = UNSET
