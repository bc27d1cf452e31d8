"""The job as it is stored and read: states, their legal transitions, the record and its events."""

from enum import StrEnum
from typing import Self

import orjson
from pydantic import BaseModel, ConfigDict, Field

from pipeline.types import Checkpoints, JobInput, PipelineResult, Refusal, Stage, Strict, Usage, VersionTolerant


class JobKind(StrEnum):
    SCAN = "scan"
    CHAT = "chat"


class Priority(StrEnum):
    """The lane a job waits in: for people who wait for the answer, or for work that may take its time."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class OverBudget(StrEnum):
    """Policy for jobs of hosted models when the day's budget is used up."""

    LOCAL = "local"
    REFUSE = "refuse"


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return not TRANSITIONS[self]


TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset({JobStatus.QUEUED, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}
"""The legal transitions; a running job goes back to queued when its worker lets go of it."""

PROGRESS: dict[Stage, int] = {
    Stage.QUEUED: 0,
    Stage.FETCH: 20,
    Stage.VISION: 60,
    Stage.RULE: 65,
    Stage.ANSWER: 95,
    Stage.REWARD: 95,
    Stage.DONE: 100,
}
"""Percent done when a stage has completed; a started stage shows the figure of the one before it."""


class JobError(VersionTolerant):
    """Why a job failed. The message is added at the edge, in the reader's language."""

    code: str
    retryable: bool
    trace_id: str


class Timings(VersionTolerant):
    """Seconds spent in each stage, and in the queue."""

    queued: float | None = None
    fetch: float | None = None
    vision: float | None = None
    rules: float | None = None
    answer: float | None = None


class NewJob(Strict):
    """A job to record. `deadline` is seconds from now; `callback_url` is a credential as a whole."""

    job_id: str
    kind: JobKind = JobKind.SCAN
    priority: Priority = Priority.INTERACTIVE
    input: JobInput
    deadline: float
    pipeline_version: str
    trace_id: str
    metadata: dict[str, str] = Field(default_factory=dict)
    callback_url: str | None = Field(None, repr=False)


class Created(Strict):
    """The answer to create: the job that holds, which may be an earlier one with the same idempotency key.

    `is_waiting`: no worker has taken it yet, so its message should be sent, perhaps once more.
    """

    job_id: str
    is_new: bool
    is_waiting: bool


class Claim(Strict):
    """A worker's hold on a job. Writes carry the token; a token that is not the latest is rejected.

    `time_left` is the seconds to the job's deadline when the claim was made; it may be negative. `retries` counts by
    error code.
    """

    job_id: str
    token: int
    input: JobInput
    checkpoints: Checkpoints
    attempts: int
    retries: dict[str, int]
    time_left: float
    trace_id: str


class Job(BaseModel):
    """The whole record. Times are Unix seconds of the Redis server's clock.

    `estimated_wait` is not stored: `BacklogReader.with_wait` adds it to a waiting job.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    kind: JobKind
    priority: Priority = Priority.INTERACTIVE
    status: JobStatus
    stage: Stage
    progress: int
    attempts: int
    pipeline_version: str
    input: JobInput
    metadata: dict[str, str]
    trace_id: str
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    deadline_at: float
    expires_at: float
    timings: Timings = Timings()
    usage: Usage = Usage()
    model: str | None = None
    degraded: bool = False
    cached: bool = False
    error: JobError | None = None
    result: PipelineResult | None = None
    queue_position: int | None = None
    estimated_wait: float | None = None


class CacheLookup(Strict):
    """An earlier result, or the id of the job that is making it; neither: the caller is to make it."""

    result: PipelineResult | None = None
    holder: str | None = None


class CacheEntry(Strict):
    """Caches a result for other jobs under this fingerprint, for `ttl` seconds."""

    fingerprint: str
    ttl: int


class JobEvent(Strict):
    """One entry of a job's event list: `seq` is its position there, from 1; `data` the JSON object as stored.

    The data of `done` has `outcome` and perhaps `error`, never the result: that is in the job's record by then.
    """

    seq: int
    stage: Stage
    data: bytes

    @classmethod
    def parse(cls, seq: int, data: bytes) -> Self:
        return cls(seq=seq, stage=Stage(orjson.loads(data)["stage"]), data=data)


class WorkerBeat(VersionTolerant):
    """The heartbeat of a worker process. `concurrency`: jobs in flight at most; 0 if it did not say.

    `stale`: the files on disk differ from those it uses; `refusal`: because of a mistake in them.
    """

    worker: str
    pipeline_version: str
    models: tuple[str, ...]
    concurrency: int = 0
    stale: bool = False
    refusal: Refusal | None = None
