"""The gate before the hosted models: a 429 or an outage that one worker meets stops the calls of all (decision 0007).

Each process keeps a copy of how the models stand, so a call that finds all well asks nobody. The copy brings along what
they have cost today, for the budget (decision 0013).
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import structlog

from jobs.circuit import AT_ONCE, PAUSES, CallOutcome, CircuitState, CircuitStore, Permit, Tally, Turn
from jobs.redis.connection import LedgerUnavailable
from pipeline.errors import ModelAccount, ModelRateLimited, PipelineError
from pipeline.models import ModelPaused
from workers.execute.budget import Budget

REFRESH_EVERY = 0.25
PROBE_PATIENCE = 1.0
"""Seconds after which it is worth coming back while another's probe is on its way."""

COMEBACKS_PER_SECOND = 20
LONGEST_SPREAD = 30.0
"""Jobs that were sent away come back at about this rate, and within so many seconds however many they are."""

log = structlog.get_logger()


class _View:
    """A copy of a model's state, by this process's clock."""

    def __init__(self, pause: CircuitState) -> None:
        now = time.monotonic()
        self.cause = pause.cause
        self.spread = min(LONGEST_SPREAD, pause.waiting / COMEBACKS_PER_SECOND)
        self._paused_until = now + pause.seconds
        self._probe_until = now + pause.probing

    @property
    def seconds(self) -> float:
        """Until it is worth asking for a call: 0 when calls go on, or when one may try."""
        now = time.monotonic()
        if self.cause is None:
            return 0.0
        if now < self._paused_until:
            return self._paused_until - now
        return min(PROBE_PATIENCE, max(self._probe_until - now, 0.0))


class CircuitBreaker:
    """The pipeline's Gate. One per process; trouble with Redis never stops a call."""

    def __init__(
        self, upstream: CircuitStore, *, probe_seconds: float, per_minute: int = 0, budget: Budget | None = None
    ) -> None:
        """A probe that has not ended after `probe_seconds` is another's to make. `per_minute` 0: no limit."""
        self._upstream = upstream
        self._probe_seconds = probe_seconds
        self._per_minute = per_minute
        self._budget = budget or Budget()
        self._views: dict[str, _View] = {}
        self._tallies: defaultdict[str, Tally] = defaultdict(Tally)

    def check(self, model: str) -> None:
        view = self._views.get(model)
        if view is not None and self._budget.is_told_early:
            self._budget.check()
        if view is not None and view.cause is not None and view.seconds > 0:
            raise self._refusal(model, view.cause, view.seconds, view.spread)

    @asynccontextmanager
    async def call(self, model: str) -> AsyncIterator[None]:
        probe = await self._enter(model)
        try:
            yield
        except PipelineError as error:
            if type(error) not in PAUSES:  # It was answered, though not to our liking.
                await self._answered(model, probe)
                raise
            await self._failed(model, error, probe)
            raise
        except BaseException:  # Its job was cancelled, or ran out of time.
            if probe:
                await self._tell(model, CallOutcome(probe=probe, is_dropped=True))
            raise
        await self._answered(model, probe)

    async def refresh(self) -> None:
        """Every REFRESH_EVERY seconds: hand in what was counted, learn how the models stand."""
        for model in tuple(self._views):
            await self._tell(model)

    async def _enter(self, model: str) -> str:
        """Wait for permission to call. Returns the token of a probe, or "" for a call like any other."""
        if model not in self._views:
            await self._tell(model)
        self._budget.check()
        self.check(model)
        if self._views[model].cause is None and self._per_minute == 0:
            return ""
        match await self._ask(model):
            case Permit(wait, probe):
                if wait > 0:
                    await asyncio.sleep(wait)
                return probe
            case Turn(seconds, spread):
                raise self._refusal(model, ModelRateLimited, seconds, spread)
            case None:
                await self._tell(model)
                raise self._sent_away(model)

    async def _ask(self, model: str) -> Permit | Turn | None:
        try:
            return await self._upstream.ask(
                model, token=uuid4().hex, probe_seconds=self._probe_seconds, per_minute=self._per_minute
            )
        except LedgerUnavailable:
            return Permit()

    async def _answered(self, model: str, probe: str) -> None:
        self._tallies[model].answered += 1
        if probe:
            await self._tell(model, CallOutcome(probe=probe))
            log.info("model.resumed", model=model)

    async def _failed(self, model: str, error: PipelineError, probe: str) -> None:
        """Raises ModelPaused in place of a rejected call: its job has done nothing wrong, and waits with the others."""
        self._tallies[model].failed += 1
        earlier = self._views[model]
        if type(error) in AT_ONCE:  # No other call of this process goes out while Redis is being told.
            self._views[model] = _View(CircuitState(type(error), PAUSES[type(error)][0]))
        pause = await self._tell(model, CallOutcome(error, probe))
        if pause is None:
            self._views[model] = earlier
            return
        if pause.streak:
            level = log.error if isinstance(error, ModelAccount) and pause.streak == 1 else log.warning
            level("model.paused", model=model, code=error.spec.code, seconds=pause.seconds, detail=error.detail)
        if isinstance(error, ModelRateLimited):
            raise self._sent_away(model) from error

    async def _tell(self, model: str, ended: CallOutcome | None = None) -> CircuitState | None:
        """Hand in the tally and renew the view. None when Redis cannot be asked; then the view stays as it was."""
        tally = self._tallies.pop(model, Tally())
        try:
            pause = await self._upstream.report(model, tally, ended)
        except LedgerUnavailable:
            self._views.setdefault(model, _View(CircuitState()))
            return None
        self._views[model] = _View(pause)
        self._budget.learn(pause.spent)
        return pause

    def _sent_away(self, model: str) -> ModelPaused:
        """For a call that could not be made, whatever the view says by now."""
        view = self._views[model]
        return self._refusal(model, view.cause or ModelRateLimited, view.seconds or PROBE_PATIENCE, view.spread)

    def _refusal(self, model: str, cause: type[PipelineError], seconds: float, spread: float) -> ModelPaused:
        self._tallies[model].refused += 1
        return ModelPaused(model, cause, seconds=seconds, spread=spread)
