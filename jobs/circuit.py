"""The circuit breakers of the hosted models, shared by the fleet: which model is paused and why, and who probes it.

One hash a model, changed by the scripts `model_report` and `model_ask`. The breaker of each worker keeps a copy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from jobs.ledger.connection import LedgerConnection
from jobs.redis import keys
from jobs.redis.connection import translated
from jobs.usage import dollars
from pipeline.errors import ModelAccount, ModelRateLimited, ModelTimeout, ModelUnavailable, PipelineError

PAUSES: Mapping[type[PipelineError], tuple[int, ...]] = {
    ModelRateLimited: (2, 4, 8, 15),
    ModelUnavailable: (2, 4, 8, 15),
    ModelTimeout: (2, 4, 8, 15),
    ModelAccount: (30, 60, 120, 300),
}
"""Error → seconds of the first pause, of the second in a row, and so on; the last one repeats."""

PAUSE_ON_FIRST_FAILURE = frozenset({ModelRateLimited, ModelAccount})
"""The other failures pause a model only when there are many: `OUTAGE_…` in model_report.lua."""

MAX_RETRY_AFTER = 300.0
"""Seconds: the longest delay that a Retry-After can ask for, for a model's pause as for a job's retry."""

MAX_WAIT_IN_PLACE = 1.0
"""Seconds that a call waits in its worker for its turn under a limit; for a later turn its job is sent away."""

MAX_TURN_WAIT = 30.0
"""Seconds ahead that turns under a limit are given to jobs that were sent away."""

TTL_SECONDS = 86_400
"""A model without calls for a day is forgotten, its counters with it."""

CAUSES = {kind.spec.code: kind for kind in PAUSES}


@dataclass(slots=True)
class CallCounts:
    """Calls of one process to one model since its last report; `rejected` counts jobs that the pause sent away."""

    answered: int = 0
    failed: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """How one call ended, for an immediate report. Without `error` it was answered, or dropped by its job.

    `probe` is the token it held, if it was one.
    """

    error: PipelineError | None = None
    probe: str = ""
    is_dropped: bool = field(default=False, kw_only=True)

    @property
    def outcome(self) -> str:
        if self.error is not None:
            return self.error.spec.code
        return "dropped" if self.is_dropped else "answered"


@dataclass(frozen=True, slots=True)
class CircuitState:
    """A model's circuit. Without `cause` it is closed; else open for `seconds`, then half-open: one probe.

    `probing`: seconds left of a probe under way. `waiting`: about how many jobs wait. `streak`: if the report that
    returned this began a pause, how many that makes in a row. `spent`: US dollars all models have cost today (UTC).
    """

    cause: type[PipelineError] | None = None
    seconds: float = 0.0
    probing: float = 0.0
    waiting: int = 0
    streak: int = 0
    spent: float = 0.0


@dataclass(frozen=True, slots=True)
class CallPermit:
    """The call may be made after `wait` seconds. With a `probe` token, it is the probe that ends or renews a pause."""

    wait: float = 0.0
    probe: str = ""


@dataclass(frozen=True, slots=True)
class CallDeferred:
    """The rate limit defers the call: its job should return after `seconds`, plus a random part of `spread` seconds."""

    seconds: float
    spread: float


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """A model's circuit for the metrics. `cause` is a code of the catalogue, or empty; counts since the first call."""

    model: str
    cause: str
    seconds: float
    rejected: int
    probes: int
    pauses: int


class CircuitStore:
    """One per process. Every method raises LedgerUnavailable when Redis is in trouble."""

    def __init__(self, ledger: LedgerConnection) -> None:
        self._ledger = ledger
        self._report, self._ask = ledger.scripts.load("model_report"), ledger.scripts.load("model_ask")

    async def report(self, model: str, counts: CallCounts, ended: CallOutcome | None = None) -> CircuitState:
        """Report calls; returns the model's circuit. `ended` is one of the calls in `counts`."""
        error = ended.error if ended else None
        kind = type(error) if error else ModelUnavailable
        min_pause = min(error.retry_after or 0.0, MAX_RETRY_AFTER) if error else 0.0
        with translated():
            cause, seconds, probing, waiting, streak, spent = await self._report(
                model=keys.model(model),
                name=model,
                ttl=TTL_SECONDS,
                answered=counts.answered,
                failed=counts.failed,
                rejected=counts.rejected,
                outcome=ended.outcome if ended else "",
                token=ended.probe if ended else "",
                at_once=int(kind in PAUSE_ON_FIRST_FAILURE),
                min_pause=min_pause,
                pauses=PAUSES[kind],
            )
        if not cause:
            return CircuitState(spent=dollars(int(spent)))
        # Another version may know more causes than this one.
        cause = CAUSES.get(cause.decode(), ModelUnavailable)
        return CircuitState(cause, float(seconds), float(probing), int(waiting), int(streak), dollars(int(spent)))

    async def ask(
        self, model: str, *, token: str, probe_seconds: float, per_minute: int
    ) -> CallPermit | CallDeferred | None:
        """May a call be made? None: the model is paused. `token` becomes the probe's, if this call is to be one."""
        with translated():
            verdict, *figures = await self._ask(
                model=keys.model(model),
                ttl=TTL_SECONDS,
                token=token,
                probe_seconds=probe_seconds,
                per_minute=per_minute,
                max_wait=MAX_WAIT_IN_PLACE,
                max_turn_wait=MAX_TURN_WAIT,
            )
        match verdict:
            case b"paused":
                return None
            case b"probe":
                return CallPermit(probe=token)
            case b"limited":
                return CallDeferred(*map(float, figures))
            case _:
                return CallPermit(wait=float(figures[0]))

    async def figures(self) -> list[ModelFigures]:
        """Figures of each model that was called within the last day."""
        now = await self._ledger.now()
        with translated():
            names = sorted(await cast("Any", self._ledger.client.smembers(keys.MODELS)))
            async with self._ledger.client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hgetall(keys.model(name.decode()))
                states = await pipe.execute()
        return [_figures(name.decode(), state, now) for name, state in zip(names, states, strict=True) if state]


def _figures(model: str, state: Mapping[bytes, bytes], now: float) -> ModelFigures:
    cause = state.get(b"cause", b"").decode()
    return ModelFigures(
        model=model,
        cause=cause if cause in CAUSES else "",
        seconds=max(float(state.get(b"until", 0)) - now, 0.0),
        rejected=int(state.get(b"total:refused", 0)),
        probes=int(state.get(b"total:probes", 0)),
        pauses=int(state.get(b"total:pauses", 0)),
    )
