"""Converts a job's stored fields and events to and from our types. Pure."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import orjson

from jobs.model import PROGRESS, Claim, Job, JobError, Priority, Timings
from pipeline.types import (
    Answer,
    Checkpoints,
    Observation,
    PaidCall,
    PipelineResult,
    Stage,
    StageEvent,
    StageStatus,
    Usage,
)

PAID = "paid:"
"""Prefix of the fields that each hold one PaidCall."""

Fields = dict[str, str | int | float | bytes]


def flat(fields: Mapping[str, object]) -> list[Any]:
    """Fields as a list of script arguments: name, value, name, value…"""
    return [part for pair in fields.items() for part in pair]


def charges(claim: Claim, steps: Iterable[StageEvent] = (), spent: PaidCall | None = None) -> list[Any]:
    """Script arguments for `charge` in the prelude: the paid calls behind the steps' checkpoints, and `spent`.

    A claim has at most one call that came to nothing, and each stage once: that is how a repeat is recognised. Calls
    without token counts, such as the local model's, are not charged.
    """
    calls = {
        step.stage.value: PaidCall(model=made.model, usage=made.usage)
        for step in steps
        if (made := step.checkpoint) and made not in (claim.checkpoints.observation, claim.checkpoints.answer)
    }
    if spent:
        calls["spent"] = spent
    return [
        argument
        for name, call in calls.items()
        if call.usage.input_tokens or call.usage.output_tokens
        for argument in (f"{PAID}{claim.token}:{name}", call.model_dump_json(), call.model, *_amounts(call.usage))
    ]


def _amounts(usage: Usage) -> tuple[int, int, int, int]:
    nanodollars = round(usage.cost_usd * 1e9)
    return usage.input_tokens, usage.cached_tokens, usage.output_tokens, nanodollars


def event_body(
    job_id: str, stage: Stage, status: StageStatus, progress: int, extra: Mapping[str, object] | None = None
) -> bytes:
    body = {"job_id": job_id, "stage": stage, "status": status, "progress": progress} | dict(extra or {})
    return orjson.dumps(body)


def progress_of(event: StageEvent) -> int:
    """A completed stage shows its own figure, a started one that of the stage before it."""
    if event.status is not StageStatus.STARTED:
        return PROGRESS[event.stage]
    stages = list(PROGRESS)
    return PROGRESS[stages[stages.index(event.stage) - 1]]


def steps_of(job_id: str, events: Iterable[StageEvent]) -> tuple[Fields, list[bytes]]:
    """New fields for the record, and new entries for the event list."""
    fields: Fields = {}
    bodies = []
    for event in events:
        progress = progress_of(event)
        fields |= {"stage": event.stage, "progress": progress}
        if event.seconds is not None:
            fields[f"timing:{event.stage}"] = event.seconds
        if event.checkpoint is not None:
            fields[f"checkpoint:{event.stage}"] = event.checkpoint.model_dump_json()
        bodies.append(event_body(job_id, event.stage, event.status, progress))
    return fields, bodies


def checkpoints_of(fields: Mapping[bytes, bytes]) -> Checkpoints:
    observation = fields.get(b"checkpoint:vision")
    answer = fields.get(b"checkpoint:answer")
    return Checkpoints(
        observation=Observation.model_validate_json(observation) if observation else None,
        answer=Answer.model_validate_json(answer) if answer else None,
    )


def retries_of(fields: Mapping[bytes, bytes]) -> dict[str, int]:
    """Error code → retries after it."""
    prefix = b"retries:"
    return {name.removeprefix(prefix).decode(): int(n) for name, n in fields.items() if name.startswith(prefix)}


def usage_of(fields: Mapping[bytes, bytes]) -> Usage:
    """Usage of all calls of the job, also of attempts that failed."""
    paid = (value for name, value in fields.items() if name.startswith(PAID.encode()))
    return sum((PaidCall.model_validate_json(value).usage for value in paid), Usage())


def priority_of(value: bytes | None) -> Priority:
    """Interactive if the record, written by another version, has none or an unknown one."""
    return Priority.BULK if value == Priority.BULK.encode() else Priority.INTERACTIVE


def job_of(job_id: str, fields: Mapping[bytes, bytes], rank: int | None) -> Job:
    text = {name.decode(): value for name, value in fields.items()}
    timing = partial(_optional_float, text)
    result = PipelineResult.model_validate_json(text["result"]) if "result" in text else None
    done = checkpoints_of(fields)
    seen = result.observation if result else done.observation
    return Job.model_validate(
        {
            "job_id": job_id,
            "kind": text["kind"].decode(),
            "priority": priority_of(text.get("priority")),
            "status": text["status"].decode(),
            "stage": text["stage"].decode(),
            "progress": int(text["progress"]),
            "attempts": int(text["attempts"]),
            "pipeline_version": text["pipeline_version"].decode(),
            "input": orjson.loads(text["input"]),
            "metadata": orjson.loads(text["metadata"]),
            "trace_id": text["trace_id"].decode(),
            "created_at": float(text["created_at"]),
            "started_at": timing("started_at"),
            "finished_at": timing("finished_at"),
            "deadline_at": float(text["deadline_at"]),
            "expires_at": float(text["expires_at"]),
            "timings": Timings(
                queued=timing("timing:queued"),
                fetch=timing("timing:fetch"),
                vision=timing("timing:vision"),
                rules=timing("timing:rule"),
                answer=timing("timing:answer"),
            ),
            "usage": usage_of(fields),
            "model": seen.model if seen else None,
            "degraded": text.get("degraded") == b"1",
            "cached": text.get("cached") == b"1",
            "error": JobError.model_validate_json(text["error"]) if "error" in text else None,
            "result": result,
            "queue_position": None if rank is None else rank + 1,
        }
    )


def _optional_float(fields: Mapping[str, bytes], name: str) -> float | None:
    return float(fields[name]) if name in fields else None
