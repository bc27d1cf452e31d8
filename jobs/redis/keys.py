"""Every Redis key: its name, type and TTL. Nothing else spells a name: Python imports it, Lua gets it generated.

`docs/redis-keys.md` is made from REDIS_KEYS by `make docs`. Names are stored data: a rolling update needs them to stay.
"""

from dataclasses import dataclass
from enum import StrEnum

PREFIX = "bunri:"

JOB_PREFIX = f"{PREFIX}job:"
QUEUED = f"{PREFIX}queued"
OUTBOX = f"{PREFIX}outbox"
LEASES = f"{PREFIX}leases"
DEADLINES = f"{PREFIX}deadlines"
FEED = f"{PREFIX}feed"
COUNTS = f"{PREFIX}counts"
DELIVERIES = f"{PREFIX}deliveries"
DELIVERY_COUNTS = f"{PREFIX}delivery_counts"
WORKERS = f"{PREFIX}workers"
PACE = f"{PREFIX}pace"
USAGE = f"{PREFIX}usage"
LEADER = f"{PREFIX}leader"
MODELS = f"{PREFIX}models"
WRITE_PROBE = f"{PREFIX}probe"
NEVER_WRITTEN = f"{PREFIX}nothing"


def job(job_id: str) -> str:
    return JOB_PREFIX + job_id


def events(job_id: str) -> str:
    return f"{JOB_PREFIX}{job_id}:events"


def attempts(job_id: str) -> str:
    return f"{JOB_PREFIX}{job_id}:deliveries"


def idempotency(idempotency_key: str) -> str:
    return f"{PREFIX}idempotency:{idempotency_key}"


def result(fingerprint: str) -> str:
    return f"{PREFIX}result:{fingerprint}"


def usage_of_day(number: int) -> str:
    """`number`: days since 1970 (UTC)."""
    return f"{USAGE}:{number}"


def rate(caller: str) -> str:
    return f"{PREFIX}rate:{caller}"


def model(name: str) -> str:
    return f"{PREFIX}model:{name}"


LUA_CONSTANTS = {
    "JOB_PREFIX": JOB_PREFIX,
    "USAGE": USAGE,
    "PACE": PACE,
    "NEVER_WRITTEN": NEVER_WRITTEN,
}
"""Names that the scripts need beside their KEYS. `scripts.py` defines them as locals in front of each script."""


class RedisType(StrEnum):
    HASH = "hash"
    LIST = "list"
    SET = "set"
    SORTED_SET = "sorted set"
    STREAM = "stream"
    STRING = "string"


@dataclass(frozen=True)
class RedisKey:
    """One row of the key map. `ttl` None: the key is permanent, and `permanent` says why that is safe."""

    name: str
    type: RedisType
    holds: str
    written_by: str
    ttl: str | None = None
    permanent: str = ""


_LIVE_JOBS = "it lists live jobs only: each leaves with the write that ends it"
_COUNTER = "a counter that should not go back"

REDIS_KEYS: tuple[RedisKey, ...] = (
    RedisKey(
        job("<job id>"),
        RedisType.HASH,
        "the job's record: input, state, checkpoints, result or error, model calls paid for, draft of the answer",
        "`create`, `claim`, `record`, `draft`, `release`, `finish`, `take_due`, "
        "`begin_attempt`, `end_attempt`, `resend`",
        ttl="deadline + `RESULT_TTL`; from its end `RESULT_TTL`; with a callback 24 h after the next attempt at least",
    ),
    RedisKey(
        events("<job id>"),
        RedisType.LIST,
        "the job's events as JSON; an event's number is its position, from 1",
        "`create`, `record`, `finish`",
        ttl="that of the job's record",
    ),
    RedisKey(
        attempts("<job id>"),
        RedisType.LIST,
        "the last 100 attempts to deliver the job's webhook, as JSON",
        "`begin_attempt`, `end_attempt`",
        ttl="that of the job's record",
    ),
    RedisKey(
        idempotency("<caller and key>"),
        RedisType.HASH,
        "the job recorded under an idempotency key (`job`), and its request's fingerprint (`fingerprint`)",
        "`create`",
        ttl="deadline + `RESULT_TTL`",
    ),
    RedisKey(
        result("<fingerprint>"),
        RedisType.HASH,
        "the result cache: a result to share (`result`), or the job that is making it (`holder`)",
        "`reserve`, `finish`",
        ttl="a result `RESULT_CACHE_TTL`; a reservation `WORKERS_MAX_DEADLINE`",
    ),
    RedisKey(
        QUEUED,
        RedisType.SORTED_SET,
        "waiting jobs → created at; bulk jobs 1e10 s more, so that they stand behind all others",
        "`create`, `claim`, `release`, `finish`, the sweep",
        permanent=_LIVE_JOBS,
    ),
    RedisKey(
        OUTBOX,
        RedisType.SORTED_SET,
        "waiting jobs → when the sweep sends their message (again), unless a worker has claimed them by then",
        "`create`, `claim`, `release`, `take_due`, `finish`, the sweep",
        permanent=_LIVE_JOBS,
    ),
    RedisKey(
        LEASES,
        RedisType.SORTED_SET,
        "running jobs → when their lease runs out",
        "`claim`, `record`, `release`, `finish`, the sweep",
        permanent=_LIVE_JOBS,
    ),
    RedisKey(
        DEADLINES,
        RedisType.SORTED_SET,
        "live jobs → their deadline",
        "`create`, `finish`, the sweep",
        permanent=_LIVE_JOBS,
    ),
    RedisKey(
        FEED,
        RedisType.STREAM,
        "events and draft chunks of all jobs: it wakes followers, who read the job's own list",
        "`record`, `draft`, `finish`",
        permanent="it is trimmed to about 5 000 entries",
    ),
    RedisKey(
        DELIVERIES,
        RedisType.SORTED_SET,
        "jobs whose webhook is to be delivered → when that is due, or when the lease of the attempt runs out",
        "`finish`, `take_deliveries`, `begin_attempt`, `end_attempt`, `resend`, the dispatcher",
        permanent="a delivery leaves when it has ended or its job's record is gone",
    ),
    RedisKey(
        WORKERS,
        RedisType.SORTED_SET,
        "heartbeats of the workers as JSON → when they were written",
        "each worker's heartbeat",
        permanent="heartbeats older than 60 s leave with the next one",
    ),
    RedisKey(
        LEADER,
        RedisType.STRING,
        "the worker that runs the sweep",
        "`lead`",
        ttl="3 s (`LEADER_TTL`)",
    ),
    RedisKey(
        COUNTS,
        RedisType.HASH,
        "jobs ended since the ledger began, by `completed`, `cancelled` or `failed:<code>`",
        "`finish`",
        permanent=_COUNTER,
    ),
    RedisKey(
        DELIVERY_COUNTS,
        RedisType.HASH,
        "attempts to deliver a webhook, by outcome",
        "`begin_attempt`, `end_attempt`",
        permanent=_COUNTER,
    ),
    RedisKey(
        PACE,
        RedisType.HASH,
        "decaying sums (30 s): seconds that jobs held their slot, how many, and how many of those were interactive",
        "`release`, `finish`",
        permanent="one hash of four numbers",
    ),
    RedisKey(
        USAGE,
        RedisType.HASH,
        "model calls, tokens and nanodollars in all, by model",
        "`record`, `release`, `finish`",
        permanent=_COUNTER,
    ),
    RedisKey(
        f"{USAGE}:<days since 1970>",
        RedisType.HASH,
        "the same of one day (UTC), and what all models have cost on it (`spent`)",
        "`record`, `release`, `finish`",
        ttl="100 days",
    ),
    RedisKey(
        MODELS,
        RedisType.SET,
        "names of the models that have been called",
        "`model_report`",
        ttl="24 h after the last report",
    ),
    RedisKey(
        model("<model>"),
        RedisType.HASH,
        "the model's circuit: calls and failures of the last seconds, pause, probe, next free turn, totals",
        "`model_report`, `model_ask`",
        ttl="24 h after the last call",
    ),
    RedisKey(
        rate("<caller>"),
        RedisType.STRING,
        "when the caller's allowance is whole again (GCRA)",
        "`take_token`",
        ttl="until the allowance is whole",
    ),
    RedisKey(
        WRITE_PROBE,
        RedisType.STRING,
        "nothing: it is written to see whether anything can be",
        "readiness of the API",
        ttl="60 s",
    ),
    RedisKey(
        NEVER_WRITTEN,
        RedisType.STRING,
        "never exists: scripts that must run on a full Redis begin by deleting it",
        "–",
        ttl="none: it is never written",
    ),
)

PERMANENT_KEYS = frozenset(key.name for key in REDIS_KEYS if key.ttl is None)
