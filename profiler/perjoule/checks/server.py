"""What a reader must know of a result for which a server was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.records import UNSET, Check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perjoule.records import RunResult, ServerCounts

# Tokens of a prompt that a prefix cache may hold before its TTFT is another's: a beginning and a word, and one block of
# 16 as vLLM and SGLang keep them.
MAX_CACHED = 24
MAX_TOGETHER_SHARE = 0.02  # of the pieces: beyond it the tail of the gaps between tokens is one of reading


def _one_server(result: RunResult) -> Iterator[Check]:
    if result.backend.server is not UNSET:
        yield Check(
            code="one_server",
            severity="note",
            message="every process asked the same server: how much it differs from one start to the next is in no "
            "interval",
            hint="start the server again and measure once more, to see it",
            data={"place": result.backend.server.place, "processes_known": result.backend.server.processes_known},
        )


def _elsewhere(result: RunResult) -> Iterator[Check]:
    if result.backend.server is not UNSET and result.backend.server.place == "elsewhere":
        yield Check(
            code="server_elsewhere",
            severity="warning",
            message="the server runs on another machine: times hold the network between, and host facts, CPU time, "
            "memory and joules here are not the server's",
            hint="run perjoule on the machine of the server, with --server-pid",
        )


def _counts(result: RunResult) -> tuple[list[ServerCounts], int]:
    found = [p.server for p in result.processes if p.server is not UNSET]
    return found, sum(c.requests_count for c in found)


def _tokens_in_doubt(result: RunResult) -> Iterator[Check]:
    counts, requests = _counts(result)
    differ = sum(c.usage_differs_count for c in counts)
    if differ:
        yield Check(
            code="server_count_differs",
            severity="warning",
            message=f"of {differ} of {requests} answers the server counts other tokens than their text has; the text's "
            "count is used",
            hint="see that the tokenizer is the model's own; a server may also count tokens that it does not send",
            data={"requests": requests, "differ": differ},
        )


def _not_token_by_token(result: RunResult) -> Iterator[Check]:
    counts, requests = _counts(result)
    differ = sum(c.pieces_differ_count for c in counts)
    if differ:
        yield Check(
            code="pieces_not_tokens",
            severity="note",
            message=f"of {differ} of {requests} answers the pieces were not one token each: they have no gaps between "
            "tokens, and TTFT is that of the first piece",
            hint="have the server stream every token, if it can (vLLM: --stream-interval 1)",
            data={"requests": requests, "differ": differ},
        )


def _read_together(result: RunResult) -> Iterator[Check]:
    counts, _requests = _counts(result)
    pieces, together = sum(c.pieces_count for c in counts), sum(c.read_together_count for c in counts)
    if together > MAX_TOGETHER_SHARE * pieces:
        yield Check(
            code="pieces_read_together",
            severity="warning",
            message=f"{together} of {pieces} pieces were read at once with the one before: gaps between tokens are "
            "those of reading; TTFT and the time per output token are not moved by it",
            hint="leave a core to perjoule (--pin), or stop other work; a server may also send several tokens at once",
            data={"pieces": pieces, "together": together},
        )


def _other_prompt(result: RunResult) -> Iterator[Check]:
    counts, requests = _counts(result)
    differ = sum(c.prompt_differs_count for c in counts)
    if differ:
        yield Check(
            code="server_prompt_differs",
            severity="warning",
            message=f"of {differ} of {requests} prompts the server counts other tokens than were sent; those sent are "
            "recorded",
            hint="see that the tokenizer is the model's own; a chat endpoint adds its template",
            data={"requests": requests, "differ": differ},
        )


def _cached_prompt(result: RunResult) -> Iterator[Check]:
    most = max((c.most_cached_tokens or 0 for c in _counts(result)[0]), default=0)
    if most > MAX_CACHED:
        yield Check(
            code="prompt_cached",
            severity="warning",
            message=f"the server had {most} tokens of a prompt in its prefix cache: they cost no prefill",
            hint="start the server without prefix caching, or run with another --seed",
            data={"tokens": most},
        )


RULES: tuple[Callable[[RunResult], Iterator[Check]], ...] = (
    _one_server,
    _elsewhere,
    _tokens_in_doubt,
    _not_token_by_token,
    _read_together,
    _other_prompt,
    _cached_prompt,
)
