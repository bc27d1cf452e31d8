"""The circuit breaker before the hosted models: a 429 or an outage that one worker meets stops the calls of all
(decision 0007).

Each process caches the models' states, so a call while all is well costs no request to Redis. The cached state includes
today's spending of the fleet, for the budget (decision 0013).
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import structlog

from jobs.circuit import (
    PAUSE_ON_FIRST_FAILURE,
    PAUSES,
    CallCounts,
    CallDeferred,
    CallOutcome,
    CallPermit,
    CircuitState,
    CircuitStore,
)
from jobs.errors import LedgerUnavailable
from pipeline.errors import ModelAccount, ModelRateLimited, PipelineError
from pipeline.models import ModelPaused
from workers.execute.budget import Budget

CIRCUIT_REFRESH_INTERVAL_SECONDS = 0.25

PROBE_RETRY_SECONDS = 1.0
"""A job that meets another's probe in flight returns after at most this."""

RETURNS_PER_SECOND = 20
MAX_SPREAD_SECONDS = 30.0
"""Rejected jobs return at about this rate, spread over at most MAX_SPREAD_SECONDS however many they are."""

log = structlog.get_logger()


class _CachedState:
    """A copy of a model's circuit state, by this process's clock."""

    def __init__(self, state: CircuitState) -> None:
        now = time.monotonic()
        self.cause = state.cause
        self.spread = min(MAX_SPREAD_SECONDS, state.waiting / RETURNS_PER_SECOND)
        self._paused_until = now + state.seconds
        self._probe_until = now + state.probing

    @property
    def seconds(self) -> float:
        """Seconds until a call is worth a try: 0 while calls are allowed, and when one may probe."""
        now = time.monotonic()
        if self.cause is None:
            return 0.0
        if now < self._paused_until:
            return self._paused_until - now
        return min(PROBE_RETRY_SECONDS, max(self._probe_until - now, 0.0))


class CircuitBreaker:
    """The pipeline's Gate. One per process; trouble with Redis never stops a call."""

    def __init__(
        self, store: CircuitStore, *, probe_seconds: float, per_minute: int = 0, budget: Budget | None = None
    ) -> None:
        """After `probe_seconds` another call may take over a probe that has not ended. `per_minute` 0: no limit."""
        self._store = store
        self._probe_seconds = probe_seconds
        self._per_minute = per_minute
        self._budget = budget or Budget()
        self._states: dict[str, _CachedState] = {}
        self._counts: defaultdict[str, CallCounts] = defaultdict(CallCounts)

    def check(self, model: str) -> None:
        """Raises ModelPaused or ModelBudgetExhausted, from the cached state, if a call would be rejected."""
        state = self._states.get(model)
        if state is not None and self._budget.is_checked_early:
            self._budget.check()
        if state is not None and state.cause is not None and state.seconds > 0:
            raise self._rejection(model, state.cause, state.seconds, state.spread)

    @asynccontextmanager
    async def call(self, model: str) -> AsyncIterator[None]:
        """Around one call. Raises ModelPaused or ModelBudgetExhausted instead of the call."""
        probe = await self._acquire(model)
        try:
            yield
        except PipelineError as error:
            if type(error) not in PAUSES:  # The model answered: the error says nothing of its health.
                await self._on_success(model, probe)
                raise
            await self._on_failure(model, error, probe)
            raise
        except BaseException:  # Its job was cancelled, or ran out of time.
            if probe:
                await self._report(model, CallOutcome(probe=probe, is_dropped=True))
            raise
        await self._on_success(model, probe)

    async def refresh(self) -> None:
        """Report the counts of all models and renew the cached states: every CIRCUIT_REFRESH_INTERVAL_SECONDS."""
        for model in tuple(self._states):
            await self._report(model)

    async def _acquire(self, model: str) -> str:
        """Wait for permission to call. Returns the token of a probe, or "" for any other call."""
        if model not in self._states:
            await self._report(model)
        self._budget.check()
        self.check(model)
        if self._states[model].cause is None and self._per_minute == 0:
            return ""
        match await self._ask(model):
            case CallPermit(wait, probe):
                if wait > 0:
                    await asyncio.sleep(wait)
                return probe
            case CallDeferred(seconds, spread):
                raise self._rejection(model, ModelRateLimited, seconds, spread)
            case None:
                await self._report(model)
                raise self._paused(model)

    async def _ask(self, model: str) -> CallPermit | CallDeferred | None:
        try:
            return await self._store.ask(
                model, token=uuid4().hex, probe_seconds=self._probe_seconds, per_minute=self._per_minute
            )
        except LedgerUnavailable:
            return CallPermit()

    async def _on_success(self, model: str, probe: str) -> None:
        self._counts[model].answered += 1
        if probe:
            await self._report(model, CallOutcome(probe=probe))
            log.info("model.resumed", model=model)

    async def _on_failure(self, model: str, error: PipelineError, probe: str) -> None:
        """Raises ModelPaused in place of a rate limit's error: the job did nothing wrong, and waits like others."""
        self._counts[model].failed += 1
        earlier = self._states[model]
        if type(error) in PAUSE_ON_FIRST_FAILURE:  # Stops this process's other calls while the report is under way.
            self._states[model] = _CachedState(CircuitState(type(error), PAUSES[type(error)][0]))
        state = await self._report(model, CallOutcome(error, probe))
        if state is None:
            self._states[model] = earlier
            return
        if state.streak:
            level = log.error if isinstance(error, ModelAccount) and state.streak == 1 else log.warning
            level("model.paused", model=model, code=error.spec.code, seconds=state.seconds, detail=error.detail)
        if isinstance(error, ModelRateLimited):
            raise self._paused(model) from error

    async def _report(self, model: str, ended: CallOutcome | None = None) -> CircuitState | None:
        """Report the counts and renew the cached state. None: Redis is unavailable, and the cached state unchanged."""
        counts = self._counts.pop(model, CallCounts())
        try:
            state = await self._store.report(model, counts, ended)
        except LedgerUnavailable:
            self._states.setdefault(model, _CachedState(CircuitState()))
            return None
        self._states[model] = _CachedState(state)
        self._budget.update(state.spent)
        return state

    def _paused(self, model: str) -> ModelPaused:
        """For a call that was rejected, even if the cached state allows calls by now."""
        state = self._states[model]
        return self._rejection(
            model, state.cause or ModelRateLimited, state.seconds or PROBE_RETRY_SECONDS, state.spread
        )

    def _rejection(self, model: str, cause: type[PipelineError], seconds: float, spread: float) -> ModelPaused:
        self._counts[model].rejected += 1
        return ModelPaused(model, cause, seconds=seconds, spread=spread)
