"""Whether and when a job is retried. Pure: the error's spec decides; time left and chance are arguments."""

from dataclasses import dataclass

from jobs.circuit import MAX_RETRY_AFTER
from pipeline.errors import PipelineError
from pipeline.models import ModelPaused

BASE_DELAY_SECONDS = 1.0
MAX_DELAY_SECONDS = 30.0

MIN_RUN_SECONDS = 1.0
"""A retry that would leave less than this of the deadline is not worth a call."""


@dataclass(frozen=True, slots=True)
class RetryIn:
    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


def decide(error: PipelineError, *, retries: int, time_left: float, chance: float) -> RetryIn | GiveUp:
    """Exponential back-off with full jitter. Never before the upstream's Retry-After, which is cut to MAX_RETRY_AFTER,
    and never past the deadline.

    `retries` counts those done so far; `time_left` is in seconds; `chance` is uniform in [0, 1).
    """
    if not error.spec.retryable:
        return GiveUp("not retryable")
    if retries + 1 >= error.spec.max_attempts:
        return GiveUp("attempts used up")
    ceiling = min(MAX_DELAY_SECONDS, BASE_DELAY_SECONDS * 2**retries)
    delay = min(error.retry_after or 0.0, MAX_RETRY_AFTER) + ceiling * chance
    if delay + MIN_RUN_SECONDS > time_left:
        return GiveUp("deadline too near")
    return RetryIn(delay)


def wait_out(pause: ModelPaused, *, time_left: float, chance: float) -> RetryIn | GiveUp:
    """Retry at a random moment of the spread that follows the pause, cut short so that the deadline leaves time to run.

    Units and `chance` as in `decide`.
    """
    room = time_left - MIN_RUN_SECONDS - pause.seconds
    if room < 0:
        return GiveUp("deadline too near")
    return RetryIn(pause.seconds + min(pause.spread, room) * chance)
