"""One answer as it arrives, and how many tokens it was: three witnesses, and who is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.errors import EngineError
from perjoule.protocols import UNKNOWN_TOKEN, Delivery
from perjoule_backends.openai_server.events import DONE, EventStream, Piece, Usage, read_piece

if TYPE_CHECKING:
    from collections.abc import Callable

    from perjoule.protocols import FinishReason, OnToken, Tokenizer

_SLACK_ONE_IN = 20  # tokens by which two counts of one text may differ, and one more: a text can be cut in several ways
_MOST_TIMES = 8  # as many pieces as tokens: a token holds several characters, and no piece less than one
_CUT_SHORT = "see the server's own log"


class Answer:
    """What is kept of an answer until it is counted: nothing is counted while others are on their way."""

    def __init__(self, prompt_tokens: int, wanted: int, reason_at_limit: FinishReason, on_token: OnToken) -> None:
        self.prompt_tokens, self.wanted, self._reason_at_limit = prompt_tokens, wanted, reason_at_limit
        self._on_token = on_token
        self._events = EventStream()
        self.texts: list[str] = []
        self.read_together = 0  # pieces that were read at once with the one before: sent so, or we came late
        self.all_single = True  # every piece was the text of one token
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.done = False

    def feed(self, data: bytes, token_of: Callable[[str], int], stop: frozenset[int]) -> None:
        """Take what has arrived of the body; report each piece that holds text."""
        before = len(self.texts)
        for event in self._events.feed(data):
            if event.strip() == DONE:
                self.done = True
            elif not self.done:
                self._piece(read_piece(event), token_of, stop)
        self.read_together += max(0, len(self.texts) - before - 1)

    def ended(self) -> None:
        """Hear that the response is complete. Raises ``EngineError`` if the answer in it is not."""
        if not self.done and self.finish_reason is None:
            raise EngineError("the server's answer ends without saying why", hint=_CUT_SHORT)
        self.done = True

    def refuse_empty(self) -> None:
        if not self.texts:
            raise EngineError(
                f"the server answered without any text ({self.finish_reason or 'no reason given'})",
                hint="its model may end at once: see whether it takes ignore_eos or min_tokens",
            )

    def _piece(self, piece: Piece, token_of: Callable[[str], int], stop: frozenset[int]) -> None:
        self.usage = piece.usage or self.usage
        if piece.text:
            token = token_of(piece.text)
            self._on_token(token)  # the stamp is taken here
            self.texts.append(piece.text)
            if len(self.texts) > _MOST_TIMES * self.wanted + _MOST_TIMES:
                raise EngineError(
                    f"{self.wanted} tokens were asked for and {len(self.texts)} pieces have come",
                    hint="the server does not heed max_tokens",
                )
            self.all_single = self.all_single and token != UNKNOWN_TOKEN
            if token in stop:
                self.finish_reason, self.done = "stop", True
                return
        self.finish_reason = piece.finish_reason or self.finish_reason

    def count(self, tokenizer: Tokenizer) -> Counted:
        """Count the tokens; see ``Counted`` for the rule."""
        return Counted(self, len(tokenizer.encode("".join(self.texts))))

    def reason(self, tokens: int) -> FinishReason:
        if self.finish_reason == "length" or tokens >= self.wanted:
            return self._reason_at_limit
        return "stop"


class Counted:
    """How many tokens an answer was, and what its witnesses said.

    The server's count (``usage``) is believed where our tokenizer's count of the text comes near it: nearer than one
    token and one in twenty, for one text can be cut in several ways. Where they disagree, our count stands, and where
    the server gives none the number of pieces does, if each of them is the text of one token. Times of tokens are
    known where as many pieces came as there are tokens.
    """

    def __init__(self, answer: Answer, of_text: int) -> None:
        usage, pieces = answer.usage, len(answer.texts)
        said = usage.completion_tokens if usage is not None else -1
        witness = said if said >= 0 else pieces if answer.all_single else of_text
        self.usage_missing = said < 0
        self.usage_differs = said >= 0 and not _near(said, of_text)
        self.tokens = max(1, of_text if not _near(witness, of_text) else witness)
        self.pieces_differ = pieces != self.tokens
        self.cached_tokens = usage.cached_tokens if usage is not None else -1
        prompt = usage.prompt_tokens if usage is not None else -1
        self.prompt_differs = prompt >= 0 and not _near(prompt, answer.prompt_tokens)
        self.delivery = Delivery(
            finish_reason=answer.reason(self.tokens),
            output_tokens=self.tokens,
            untimed=f"{self.tokens} tokens came in {pieces} pieces" if self.pieces_differ else "",
        )


def _near(one: int, other: int) -> bool:
    return abs(one - other) <= 1 + max(one, other) // _SLACK_ONE_IN
