"""Jobs for the measured process' side of a load, and a parent that answers it without a pipe."""

from __future__ import annotations

from typing import Any

import msgspec

from perjoule import messages
from perjoule.drive.link import Link
from perjoule.protocols import EngineOptions
from perjoule_backends.null import NullBackend


def make_job(**changes: Any) -> messages.MeasureJob:
    options = changes.pop("options", EngineOptions(context_tokens=2048))
    prepared = NullBackend().prepare("null", options, lambda _text, _share: None)
    job = messages.MeasureJob(
        backend="null", prepared=prepared, options=options, process=0, corpus="udhr-en", seed=0, prompt_tokens=16,
        new_tokens=8, requests=4, max_warmup_requests=3, min_span_s=0.0,
    )  # fmt: skip
    return msgspec.structs.replace(job, **changes)


class Parent(Link):
    """Keeps what the worker says, lets it go at once, and gives the verdicts it was told to give (then: kept)."""

    def __init__(self, verdicts: list[bool] | None = None) -> None:
        self.said: list[messages.Event] = []
        self._verdicts = list(verdicts or [])

    def say(self, event: messages.Event) -> None:
        self.said.append(messages.decode_event(messages.encode(event)))

    def wait_for_go(self) -> None:
        assert isinstance(self.said[-1], messages.Ready | messages.BlockReady), "nobody asked to go"

    def verdict(self) -> bool:
        assert isinstance(self.said[-1], messages.Request | messages.SpanDone), "nothing to judge was said"
        return isinstance(self.said[-1], messages.Request) or not self._verdicts or self._verdicts.pop(0)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.said if isinstance(event, kind)]
