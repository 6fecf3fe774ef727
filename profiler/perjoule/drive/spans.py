"""Loads in which requests wait for each other: several clients, everything at once, a schedule; or none at all."""

from __future__ import annotations

import gc
import math
from typing import TYPE_CHECKING

from perjoule import memory, messages
from perjoule.drive.requests import RequestDriver, counts_of
from perjoule.errors import EngineError
from perjoule.load.arrivals import arrival_times
from perjoule.load.rate_search import RateSearch
from perjoule.load.saturation import Saturation
from perjoule.load.serve import Served, Tally, serve_one_by_one, serve_remotely, serve_together
from perjoule.load.slo import meets
from perjoule.load.sources import AllAtOnce, ClosedLoop, OpenLoop
from perjoule.protocols import BatchEngine, RemoteEngine

if TYPE_CHECKING:
    from perjoule.drive.link import Link
    from perjoule.drive.prompts import Prompt
    from perjoule.load.serve import Answer, Judge
    from perjoule.load.sources import Source
    from perjoule.protocols import Clock, Engine
    from perjoule.records import MemoryPeak

_TRIES = 2  # a span that was disturbed is measured once more
_SPARE, _MAX_POOL = 2.0, 50_000  # prompts to spare where answers may come faster than in warm-up; most of one load
_FIRST_SHARE = 0.4  # of the rate that warm-up promises: where a search for the highest rate begins
_SLOWER = 3.0  # than in warm-up, before an engine is taken to hang
_SAY_EACH_NS = 1_000_000_000  # while prompts are prepared


class SpanDriver:
    """Serves the load of one process; all of it shares one window."""

    def __init__(self, link: Link, clock: Clock, job: messages.MeasureJob, engine: Engine) -> None:
        self._link, self._clock, self._job, self._engine = link, clock, job, engine
        self._places = job.options.batch
        if self._places > 1 and not isinstance(engine, BatchEngine | RemoteEngine):
            raise EngineError("this engine works on one request at a time", hint="set batch to 1")
        self._single = RequestDriver(link, clock, job, engine)
        self._prompts = self._single.prompts
        self._answers_per_s = 0.0  # in warm-up, with every place taken
        self._refused: str | None = None
        self._peak: MemoryPeak | None = None

    def run(self) -> None:
        """Do all of it, and say that it is finished."""
        job = self._job
        self._refused = memory.reset_peak(self._single.holder)
        steady = self._single.warm_up()
        if job.shape == "idle":
            self._wait()
        else:
            self._warm_up_together()
            rate = self._search() if job.find_rate and job.rate_per_s is None else job.rate_per_s
            self._measured(rate)
        peak = self._peak or self._read_peak()
        self._link.say(messages.Finished(
            steady=steady, shared_prefix_tokens=self._prompts.shared_prefix_tokens, memory=(peak,),
            server=counts_of(self._engine),
        ))  # fmt: skip

    def _warm_up_together(self) -> None:
        """Fill every place once: an engine that was warmed up alone meets its batched kernels here, not in the load."""
        self._answers_per_s = 1 / max(self._single.last_s, 1e-3)
        if self._places == 1:
            return
        tally = self._serve(_Plan(AllAtOnce(self._places), self._pool(self._places)), measured=False)
        self._link.verdict()
        self._answers_per_s = len(tally.answers) / max((tally.end_ns - tally.start_ns) / 1e9, 1e-3)

    def _measured(self, rate_per_s: float | None) -> None:
        for _ in range(_TRIES):
            self._serve(self._plan(rate_per_s), measured=True)
            if self._link.verdict():
                return

    def _search(self) -> float:
        """Try rates until the highest one that meets the service level is known; return it.

        If none did, return the lowest that was tried: measured, it shows by how much it misses.
        """
        slo = self._job.slo
        if slo is None:
            raise EngineError("a search for the highest rate needs a service level", hint="give slo")
        search = RateSearch(_FIRST_SHARE * self._answers_per_s)
        while (rate := search.next_per_s()) is not None:
            tally = self._serve(self._plan(rate), measured=False)
            self._link.verdict()
            met = [a for a in tally.answers if meets(slo, _ttft_s(a), _tpot_s(a))]
            search.tell(rate, met=not tally.verdict and len(met) >= slo.share * tally.offered)
        return search.best_per_s or min(t.rate_per_s for t in search.trials)

    def _serve(self, plan: _Plan, *, measured: bool) -> Tally:
        job = self._job
        ids = [prompt.packed for prompt in plan.pool]
        batch = self._engine.batch() if isinstance(self._engine, BatchEngine) and self._places > 1 else None
        gc.collect()
        self._link.say(messages.BlockReady(quiet_s=self._longest_s(plan)))
        self._link.wait_for_go()
        if isinstance(self._engine, RemoteEngine):
            tally = serve_remotely(
                self._engine, self._places, plan.source, ids, job.new_tokens, self._clock, plan.judge
            )  # fmt: skip
        elif batch is not None:
            tally = serve_together(batch, self._places, plan.source, ids, job.new_tokens, self._clock, plan.judge)
        else:
            tally = serve_one_by_one(self._engine, plan.source, ids, job.new_tokens, self._clock, plan.judge)
        self._over(tally, plan, measured=measured)
        return tally

    def _over(self, tally: Tally, plan: _Plan, *, measured: bool) -> None:
        """Say that a load is over, at once, so that the meters are read close to its end; then what it came to.

        The memory's high-water mark is read in between: to tell of many requests takes memory too.
        """
        self._link.say(messages.LastToken())
        self._peak = self._read_peak()
        self._link.say(_span_done(tally, plan, measured=measured))

    def _read_peak(self) -> MemoryPeak:
        return memory.read_peak(
            self._job.process, "requests", reset_refused=self._refused, holder=self._single.holder
        )  # fmt: skip

    def _longest_s(self, plan: _Plan) -> float:
        """Return the seconds that a load may take before its engine is taken to hang."""
        if isinstance(plan.judge, Saturation):
            return 2 * (plan.planned_s or 0.0)  # it is ended when it is overdue
        least = len(plan.pool) if plan.planned_s is None else self._job.requests
        return 2 * (plan.planned_s or 0.0) + _SLOWER * least / self._answers_per_s

    def _plan(self, rate_per_s: float | None) -> _Plan:
        job = self._job
        if job.shape == "server":
            duration_s = job.duration_s or 0.0
            times = arrival_times(
                job.arrivals or "poisson", rate_per_s=rate_per_s, duration_s=duration_s, seed=job.seed,
                recorded=job.arrival_times_s, process=job.process,
            )  # fmt: skip
            rate_per_s = rate_per_s or len(times) / duration_s
            return _Plan(
                OpenLoop(times, duration_s), self._pool(len(times)), Saturation(rate_per_s, duration_s, self._places),
                duration_s, rate_per_s,
            )  # fmt: skip
        if job.shape == "offline":
            return _Plan(AllAtOnce(job.requests), self._pool(job.requests))
        likely = math.ceil(_SPARE * (job.duration_s or 0.0) * self._answers_per_s)
        pool = self._pool(max(job.requests, min(_MAX_POOL, likely)))
        return _Plan(
            ClosedLoop(job.clients, job.requests, job.duration_s, len(pool)), pool, planned_s=job.duration_s
        )  # fmt: skip

    def _pool(self, count: int) -> list[Prompt]:
        """Prepare prompts; say so now and then, since many take longer than an engine may be silent."""
        pool: list[Prompt] = []
        said_ns = self._clock.now_ns()
        while len(pool) < count:
            pool.append(self._prompts.next())
            now_ns = self._clock.now_ns()
            if now_ns - said_ns > _SAY_EACH_NS:
                said_ns = now_ns
                self._link.say(messages.Progress(text="preparing prompts", done_share=len(pool) / count))
        return pool

    def _wait(self) -> None:
        """Do nothing for the scenario's duration, with the engine loaded."""
        clock, duration_s = self._clock, self._job.duration_s or 0.0
        gc.collect()
        self._link.say(messages.BlockReady(quiet_s=2 * duration_s))
        self._link.wait_for_go()
        tally = Tally()
        tally.start_cpu_ns, tally.start_ns = clock.cpu_ns(), clock.now_ns()
        clock.sleep(duration_s)
        tally.end_ns, tally.end_cpu_ns = clock.now_ns(), clock.cpu_ns()
        self._over(tally, _Plan(AllAtOnce(0), [], planned_s=duration_s), measured=True)
        self._link.verdict()


class _Plan:
    """One load: where its requests come from, with their prompts; who judges whether the engine keeps up."""

    def __init__(
        self, source: Source, pool: list[Prompt], judge: Judge | None = None, planned_s: float | None = None,
        rate_per_s: float | None = None,
    ) -> None:  # fmt: skip
        self.source, self.pool, self.judge = source, pool, judge
        self.planned_s, self.rate_per_s = planned_s, rate_per_s


def _span_done(tally: Tally, plan: _Plan, *, measured: bool) -> messages.SpanDone:
    pool = plan.pool
    served = tuple(
        Served(
            index=pool[a.index].index,
            prompt_text_sha256=pool[a.index].text_sha256,
            prompt_ids_sha256=pool[a.index].ids_sha256,
            prompt_tokens=a.prompt_tokens,
            due_ns=a.due_ns,
            start_ns=a.start_ns,
            token_ns=tuple(a.token_ns),
            finish_reason=a.finish_reason,
            output_tokens=a.tokens,
            untimed=a.untimed,
        )
        for a in tally.answers
    )
    return messages.SpanDone(
        start_ns=tally.start_ns, end_ns=tally.end_ns, cpu_ns=tally.end_cpu_ns - tally.start_cpu_ns,
        measured=measured, requests=served, offered=tally.offered, planned_s=plan.planned_s,
        rate_per_s=plan.rate_per_s, saturated=bool(tally.verdict), verdict=tally.verdict or _kept_up(tally, plan),
        longest_wait_ns=tally.longest_wait_ns,
        forward_passes=tally.forward_passes if tally.passes_known else None,
        positions=tally.positions if tally.passes_known else None,
    )  # fmt: skip


def _kept_up(tally: Tally, plan: _Plan) -> str:
    told, seconds = f"all {tally.offered} requests were answered", (tally.end_ns - tally.start_ns) / 1e9
    if plan.planned_s is not None and seconds < plan.planned_s:
        return f"{told}, faster than expected: their prompts were used up after {seconds:.3g} s of {plan.planned_s:g}"
    return told


def _ttft_s(answer: Answer) -> float:
    return (answer.token_ns[0] - answer.due_ns) / 1e9


def _tpot_s(answer: Answer) -> float | None:
    count = answer.tokens
    return (answer.token_ns[-1] - answer.token_ns[0]) / 1e9 / (count - 1) if count > 1 else None
