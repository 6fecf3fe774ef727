"""What is asked of a kernel process and what it answers: one line of JSON each."""

from __future__ import annotations

import msgspec

from perjoule.records import UNSET, Peak, Reason, Record

# Version of the kernels: a peak that was measured by an older one is not used. History: 1 first release.
KERNELS = 1


class PeaksJob(Record, frozen=True, kw_only=True, tag_field="job", tag="peaks"):
    """Measure the peaks with ``threads`` threads; buffers of ``buffer_bytes`` in all are streamed."""

    threads: int
    buffer_bytes: int


class WorkJob(Record, frozen=True, kw_only=True, tag_field="job", tag="work"):
    """Do ``rounds`` rounds of a fixed piece of work; 0: as many as fill ``seconds``."""

    threads: int
    buffer_bytes: int
    rounds: int
    seconds: float


class PeaksFound(Record, frozen=True, kw_only=True, tag_field="answer", tag="peaks"):
    bandwidth: Peak | None
    bandwidth_missing: Reason = UNSET
    int8: Peak | None
    int8_missing: Reason = UNSET
    fp32: Peak | None
    fp32_missing: Reason = UNSET
    bf16: Peak | None
    bf16_missing: Reason = UNSET


class WorkDone(Record, frozen=True, kw_only=True, tag_field="answer", tag="work"):
    """``round_s`` is the median round in seconds."""

    rounds: int
    round_s: float


Job = PeaksJob | WorkJob
Answer = PeaksFound | WorkDone

_JOBS: msgspec.json.Decoder[Job] = msgspec.json.Decoder(Job)
_ANSWERS: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def encode(message: Job | Answer) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def decode_job(data: bytes) -> Job:
    return _JOBS.decode(data)


def decode_answer(data: bytes) -> Answer:
    """Return the answer. Raises ``msgspec.MsgspecError`` for anything else."""
    return _ANSWERS.decode(data)
