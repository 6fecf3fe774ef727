"""Requests that come as they come, served by one engine: a queue in front of it, and places inside it."""

from __future__ import annotations

from perjoule.records import Record


class Served(Record, frozen=True, kw_only=True):
    """One answered request: monotonic ns at which it was due, begun, and each of its tokens existed."""

    index: int
    prompt_text_sha256: str
    prompt_ids_sha256: str
    prompt_tokens: int
    due_ns: int
    start_ns: int
    token_ns: tuple[int, ...]
    finish_reason: str
