"""Single-stream load: warm-up, measured requests, a block of prefills where a sensor is slow, a look at memory."""

from __future__ import annotations

import gc
import math
from typing import TYPE_CHECKING

from perjoule import memory, messages
from perjoule.drive.prompts import Prompts, asked_prompts
from perjoule.load.single_stream import Observed, observe_prefills, observe_request
from perjoule.protocols import RemoteEngine
from perjoule.quality.answer_text import opened_thought
from perjoule.stats.steady import is_steady

if TYPE_CHECKING:
    from perjoule.drive.link import Link
    from perjoule.drive.prompts import Prompt
    from perjoule.protocols import Clock, Engine
    from perjoule.records import MemoryPeak, ServerCounts

_TRIES, _SPANS = 2, 3  # how often disturbed requests are measured again, and how far beyond the window
_MAX_BLOCK = 2000  # prompts of one block
_TAIL = 16  # tokens of a prompt in which a thought is opened, if it is
_SPARE, _FULL = 1.5, 1.02  # prompts to spare, and a window a little over what the sensor needs


class RequestDriver:
    """Runs the requests of one process, one at a time; each has windows of its own."""

    def __init__(self, link: Link, clock: Clock, job: messages.MeasureJob, engine: Engine) -> None:
        self._link, self._clock, self._job, self._engine = link, clock, job, engine
        self.prompts = Prompts(job, engine.tokenizer)
        self.holder = memory.Holder(job.prepared.server, job.server_pid, job.options.device)
        self._kept = True  # the parent's verdict on the last request

    def run(self) -> None:
        """Do all of it, and say that it is finished."""
        job = self._job
        refused = memory.reset_peak(self.holder)
        steady = self.warm_up()
        shortest_prefill_s = self._measured_requests() if not job.questions else self._questions()
        if shortest_prefill_s < job.prefill_block_s:
            self._prefill_block(shortest_prefill_s)
        peaks = [memory.read_peak(job.process, "requests", reset_refused=refused, holder=self.holder)]
        if job.memory_request and job.shape != "cold-start":  # its process ends with the cold request
            peaks += self._memory_request()
        self._link.say(messages.Finished(
            steady=steady, shared_prefix_tokens=self.prompts.shared_prefix_tokens, memory=tuple(peaks),
            server=counts_of(self._engine),
        ))  # fmt: skip

    def warm_up(self) -> bool:
        """Run requests until prefill and decode times of successive ones agree; the first is the cold one.

        Returns whether they did; without any warm-up there is nothing to settle.
        """
        prefill_s: list[float] = []
        decode_s: list[float] = []
        self.last_s = 0.0
        for index in range(self._job.max_warmup_requests):
            seen = self._request(measured=False)
            self.last_s = (seen.end_ns - seen.start_ns) / 1e9
            if index == 0:
                continue
            prefill_s.append((seen.first_token_ns - seen.start_ns) / 1e9)
            decode_s.append((seen.end_ns - seen.first_token_ns) / 1e9)
            if is_steady(prefill_s) and is_steady(decode_s):
                return True
        return not self._job.max_warmup_requests

    def _measured_requests(self) -> float:
        """Run requests until enough undisturbed ones fill the meters' window and the scenario's duration.

        Returns the shortest prefill, seconds. Disturbed ones are measured again, up to twice as many requests, or
        three times the window, in all.
        """
        job = self._job
        kept, tries, kept_s, spent_s, shortest_prefill_s = 0, 0, 0.0, 0.0, math.inf
        until_ns = self._clock.now_ns() + int((job.duration_s or 0.0) * 1e9)
        while (
            (kept < job.requests and tries < _TRIES * job.requests)
            or (kept_s < job.min_span_s and spent_s < _SPANS * job.min_span_s)
            or self._clock.now_ns() < until_ns
        ):
            observed = self._request(measured=True)
            seconds = (observed.end_ns - observed.start_ns) / 1e9
            tries, spent_s = tries + 1, spent_s + seconds
            if self._kept:
                kept, kept_s = kept + 1, kept_s + seconds
            shortest_prefill_s = min(shortest_prefill_s, (observed.first_token_ns - observed.start_ns) / 1e9)
            if job.shape == "cold-start":
                break  # the next request would not be a cold one
        return shortest_prefill_s

    def _questions(self) -> float:
        """Ask every question once: what is answered is not measured again, since the answer would be the same."""
        asked = asked_prompts(self._job.questions, self._engine, first_index=self._job.max_warmup_requests)
        for question, prompt in zip(self._job.questions, asked, strict=True):
            self._request(measured=True, asked=(question, prompt))
        return math.inf  # they differ in length, so no block of them stands for one prefill

    def _request(self, *, measured: bool, asked: tuple[messages.Question, Prompt] | None = None) -> Observed:
        job = self._job
        question, prompt = asked or (None, self.prompts.next())
        said: list[int] = []
        gc.collect()  # here, not in the window: it takes milliseconds once an engine is loaded
        self._link.say(messages.Ready(index=prompt.index, measured=measured))
        self._link.wait_for_go()
        observed = observe_request(
            self._engine,
            self._clock,
            prompt.ids,
            job.new_tokens if question is None else question.max_new_tokens,
            stop=frozenset(job.prepared.stop_ids) if question is not None and question.chat else frozenset(),
            said=said if question is not None else None,
            on_first_token=lambda at_ns: self._link.say(messages.FirstToken(at_ns=at_ns)),
            on_end=lambda: self._link.say(messages.LastToken()),
        )
        self._link.say(messages.Request(
            index=prompt.index,
            measured=measured,
            prompt_text_sha256=prompt.text_sha256,
            prompt_ids_sha256=prompt.ids_sha256,
            prompt_tokens=len(prompt.ids),
            observed=observed,
            question=None if question is None else question.id,
            answer=None if question is None or not question.chat else self._answer(prompt, said),
        ))  # fmt: skip
        self._kept = self._link.verdict()
        return observed

    def _answer(self, prompt: Prompt, said: list[int]) -> str:
        """Return the text of an answer, without the token that ended it; with the thought that its prompt opened."""
        stop, tokenizer = frozenset(self._job.prepared.stop_ids), self._engine.tokenizer
        opened = opened_thought(tokenizer.decode(prompt.ids[-_TAIL:]))
        return opened + tokenizer.decode([token for token in said if token not in stop])

    def _prefill_block(self, prefill_s: float) -> None:
        """Repeat prefills, each of a new prompt, until a slow sensor's window is filled."""
        job = self._job
        need = math.ceil(_SPARE * job.prefill_block_s / max(prefill_s, 1e-4))
        if need > _MAX_BLOCK:
            return  # so many prompts would not be prepared in time; the phase is refused with the window it needs
        ready = [self.prompts.next().ids for _ in range(need)]
        gc.collect()
        self._link.say(messages.BlockReady(quiet_s=2 * job.prefill_block_s))
        self._link.wait_for_go()
        window_s = _FULL * job.prefill_block_s
        start_ns, end_ns, cpu_ns, done = observe_prefills(self._engine, self._clock, ready, window_s)
        self._link.say(messages.PrefillBlock(
            start_ns=start_ns, end_ns=end_ns, cpu_ns=cpu_ns, requests=done, prompt_tokens=done * job.prompt_tokens
        ))  # fmt: skip

    def _memory_request(self) -> list[MemoryPeak]:
        """Run one request more, outside all windows: its two phases have their own high-water mark."""
        job = self._job
        peaks: list[MemoryPeak] = []
        refused = memory.reset_peak(self.holder)

        def at_first_token(_at_ns: int) -> None:
            peaks.append(memory.read_peak(job.process, "prefill", reset_refused=refused, holder=self.holder))
            memory.reset_peak(self.holder)

        ids = self.prompts.next().ids
        observe_request(self._engine, self._clock, ids, job.new_tokens, on_first_token=at_first_token)
        peaks.append(memory.read_peak(job.process, "decode", reset_refused=refused, holder=self.holder))
        return peaks


def counts_of(engine: Engine) -> ServerCounts | None:
    """Return what a server said of its answers; None for an engine of our own process."""
    return engine.counts() if isinstance(engine, RemoteEngine) else None
