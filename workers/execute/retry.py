"""Whether, and when, to try again. Pure: the error's own spec decides, time and chance come in as arguments."""

from dataclasses import dataclass

from jobs.circuit import MAX_RETRY_AFTER
from pipeline.errors import PipelineError
from pipeline.models import ModelPaused

BASE_DELAY = 1.0
LONGEST_DELAY = 30.0
SHORTEST_RUN = 1.0
"""A retry that would leave less than this of the deadline is not worth a call."""


@dataclass(frozen=True, slots=True)
class RetryIn:
    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


def decide(error: PipelineError, *, retries: int, time_left: float, chance: float) -> RetryIn | GiveUp:
    """Exponential back-off with full jitter, never before the upstream's Retry-After, which is bounded, and never past
    the deadline.

    `retries` counts those done so far; `chance` is uniform in [0, 1).
    """
    if not error.spec.retryable:
        return GiveUp("not retryable")
    if retries + 1 >= error.spec.max_attempts:
        return GiveUp("attempts used up")
    ceiling = min(LONGEST_DELAY, BASE_DELAY * 2**retries)
    delay = min(error.retry_after or 0.0, MAX_RETRY_AFTER) + ceiling * chance
    if delay + SHORTEST_RUN > time_left:
        return GiveUp("deadline too near")
    return RetryIn(delay)


def wait_out(pause: ModelPaused, *, time_left: float, chance: float) -> RetryIn | GiveUp:
    """Come back at some moment of the time in which those that were sent away come back, as the deadline allows."""
    room = time_left - SHORTEST_RUN - pause.seconds
    if room < 0:
        return GiveUp("deadline too near")
    return RetryIn(pause.seconds + min(pause.spread, room) * chance)
