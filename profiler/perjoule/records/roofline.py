"""What the machine can do at most, and which share of it a run used (the roofline model of Williams et al., 2009)."""

from __future__ import annotations

from typing import Literal

from perjoule.records.base import UNSET, Reason, Record

Precision = Literal["int8", "fp32", "bf16"]


class Peak(Record, frozen=True, kw_only=True):
    """The fastest of several ways to do one kind of work, and how far its repeats lie apart.

    A peak is an upper bound, so ``best`` is what shares are taken of: the median repeat of the best of several blocks,
    which a run can keep up, not a single lucky one. ``spread_share`` is the interquartile range of the repeats over
    their median. ``slower`` holds the best rate of every way that was not the fastest.
    """

    unit: Literal["bytes/s", "ops/s"]
    best: float
    median: float
    spread_share: float
    repeats: int
    way: str
    slower: dict[str, float]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.median <= self.best or self.repeats < 1:
            msg = f"a peak needs repeats and rates above 0 in order, got {self.median} and {self.best} {self.unit}"
            raise ValueError(msg)


class Peaks(Record, frozen=True, kw_only=True):
    """Streaming bandwidth (reading alone) and arithmetic of the CPU with ``threads`` threads, multiply and add as 2.

    ``cache_bytes`` is the size of all last-level caches together. ``disturbed`` says what else the machine did
    meanwhile, if it was too much: the peaks are then too low.
    """

    measured_utc: str
    threads: int
    runtime: str  # the libraries that did the work, with versions
    kernels: int  # version of perjoule's own code for it
    cache_bytes: int | None
    cache_bytes_missing: Reason = UNSET
    bandwidth: Peak | None
    bandwidth_missing: Reason = UNSET
    int8: Peak | None
    int8_missing: Reason = UNSET
    fp32: Peak | None
    fp32_missing: Reason = UNSET
    bf16: Peak | None
    bf16_missing: Reason = UNSET
    disturbed: str | None = None


class Roofline(Record, frozen=True, kw_only=True):
    """Shares of the peaks that a run used: of bandwidth while decoding (or serving), of arithmetic in prefill."""

    bandwidth_share: float | None
    bandwidth_share_missing: Reason = UNSET
    compute_share: float | None
    compute_share_missing: Reason = UNSET
    compute_precision: Precision | None  # which peak the compute share is taken of
    compute_precision_missing: Reason = UNSET
