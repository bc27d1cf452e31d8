"""The state of a job's webhook."""

from enum import StrEnum
from typing import Self

from jobs.deliveries import Attempt, Delivery
from jobs.model import Job
from jobs.view import View


class DeliveryState(StrEnum):
    """`none`: the job has no callback; `waiting`: it has not ended; `due`: an attempt is planned or under way."""

    NONE = "none"
    WAITING = "waiting"
    DUE = "due"
    DELIVERED = "delivered"
    GAVE_UP = "gave_up"
    STOPPED = "stopped"


class DeliveryView(View):
    """What became of a job's webhook. The address is not shown: it is a credential."""

    job_id: str
    state: DeliveryState
    next_attempt_at: float | None
    attempts: tuple[Attempt, ...]

    @classmethod
    def of(cls, job: Job, delivery: Delivery) -> Self:
        return cls(
            job_id=job.job_id,
            state=_delivery_state(job, delivery),
            next_attempt_at=delivery.due_at,
            attempts=delivery.attempts,
        )


def _delivery_state(job: Job, delivery: Delivery) -> DeliveryState:
    if not delivery.has_callback:
        return DeliveryState.NONE
    if not job.status.is_final:
        return DeliveryState.WAITING
    if delivery.due_at is not None or not delivery.attempts:
        return DeliveryState.DUE
    return DeliveryState(delivery.attempts[-1].outcome)
