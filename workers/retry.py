"""Whether, and when, to try again. Pure: the error's own spec decides, time and chance come in as arguments."""

from dataclasses import dataclass

from pipeline.errors import PipelineError

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
    """Exponential back-off with full jitter, never before the upstream's Retry-After, never past the deadline.

    `retries` counts those done so far; `chance` is uniform in [0, 1).
    """
    if not error.spec.retryable:
        return GiveUp("not retryable")
    if retries + 1 >= error.spec.max_attempts:
        return GiveUp("attempts used up")
    ceiling = min(LONGEST_DELAY, BASE_DELAY * 2**retries)
    delay = (error.retry_after or 0.0) + ceiling * chance
    if delay + SHORTEST_RUN > time_left:
        return GiveUp("deadline too near")
    return RetryIn(delay)
