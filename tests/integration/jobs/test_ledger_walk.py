"""Random walks through the ledger: every operation, with claims fresh and stale, in every order, on a real Redis.

Time passes when the walk says so: it moves the times that Redis keeps, because waiting would take too long.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import uuid4

import orjson
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobs.errors import StaleClaim
from jobs.ledger.ledger import Ledger
from jobs.model import TRANSITIONS, Claim, JobError, JobStatus
from jobs.redis.keys import DEADLINES, LEASES, OUTBOX, QUEUED
from jobs.settings import JobsSettings
from jobs.usage import ModelUsage, UsageReader
from pipeline.types import Stage
from tests.support.jobs import completed, new_job, observation, paid, result, started

MOST_JOBS = 5
"""Few, so that a walk does many things to each."""

FAILURE = JobError(code="source.forbidden", retryable=False, trace_id="t")


class Walk(RuleBasedStateMachine):
    """What is expected is kept beside what Redis says: each job's status, which claim on it is the latest, and
    what each claim has paid for.
    """

    jobs: Bundle[str] = Bundle("jobs")
    claims: Bundle[tuple[Claim, str]] = Bundle("claims")

    def __init__(self, redis_url: str) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.ledger = Ledger.connect(JobsSettings.model_validate({"redis_url": redis_url, "lease": 60.0}))
        self.was: dict[str, JobStatus] = {}
        self.holder: dict[str, int] = {}
        self.endings: dict[str, list[bytes]] = {}
        self.paid: set[tuple[str, int, str]] = set()

    def teardown(self) -> None:
        self.run(self.ledger.close())
        self.loop.close()

    def run(self, work: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        self.run(self.ledger.client.flushdb())

    # --- the api ---

    @precondition(lambda walk: len(walk.was) < MOST_JOBS)
    @rule(target=jobs, key=st.sampled_from([None, "a", "b"]))
    def create(self, key: str | None) -> str:
        job = new_job()
        made = self.run(self.ledger.submissions.create(job, idempotency_key=key, fingerprint="f"))
        assert made.is_new == (made.job_id == job.job_id)
        self.was.setdefault(made.job_id, JobStatus.QUEUED)
        return str(made.job_id)

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        self.run(self.ledger.submissions.cancel(job_id))
        assert self.status(job_id).is_final

    # --- workers ---

    @rule(target=claims, job_id=jobs)
    def claim(self, job_id: str) -> Any:
        before, name = self.status(job_id), uuid4().hex
        claim = self.run(self.ledger.claims.claim(job_id, name))
        if claim is None:
            assert before is not JobStatus.QUEUED or self.not_before(job_id) > self.now()
            return multiple()
        assert before is JobStatus.QUEUED
        assert claim.token > self.holder.get(job_id, 0)
        self.holder[job_id] = claim.token
        return claim, name

    @rule(held=claims)
    def ask_for_the_same_claim_again(self, held: tuple[Claim, str]) -> None:
        claim, name = held
        if self.holds(claim):
            again = self.run(self.ledger.claims.claim(claim.job_id, name))
            assert (again.token, again.attempts) == (claim.token, claim.attempts)

    @rule(held=claims, stage=st.sampled_from([Stage.FETCH, Stage.VISION]), write=st.integers(1, 3))
    def record_twice(self, held: tuple[Claim, str], stage: Stage, write: int) -> None:
        claim, _ = held
        events = (started(stage), completed(stage, observation() if stage is Stage.VISION else None))
        if stage is Stage.VISION and claim.checkpoints.observation is None:
            self.paid.add((claim.job_id, claim.token, "vision"))
        self.fenced(claim, lambda: self.ledger.claims.record(claim, *events, write=write))
        seen = self.events(claim.job_id)
        self.fenced(claim, lambda: self.ledger.claims.record(claim, *events, write=write))
        assert self.events(claim.job_id) == seen

    @rule(held=claims)
    def complete(self, held: tuple[Claim, str]) -> None:
        self.end(held[0], lambda: self.ledger.claims.complete(held[0], result()))

    @rule(held=claims)
    def fail(self, held: tuple[Claim, str]) -> None:
        self.paid.add((held[0].job_id, held[0].token, "spent"))
        self.end(held[0], lambda: self.ledger.claims.fail(held[0], FAILURE, Stage.FETCH, spent=paid()))

    @rule(held=claims, delay=st.sampled_from([0.0, 3600.0]))
    def retry(self, held: tuple[Claim, str], delay: float) -> None:
        self.paid.add((held[0].job_id, held[0].token, "spent"))
        self.fenced(held[0], lambda: self.ledger.claims.retry(held[0], "model.timeout", delay=delay, spent=paid()))

    @rule(held=claims)
    def release(self, held: tuple[Claim, str]) -> None:
        held_before = self.holds(held[0])
        assert self.run(self.ledger.claims.release(held[0])) == held_before

    # --- time, and the sweep ---

    @rule(job_id=jobs)
    def the_lease_runs_out(self, job_id: str) -> None:
        if self.status(job_id) is JobStatus.RUNNING:
            self.run(self.ledger.client.hset(f"bunri:job:{job_id}", "lease_until", 1))
            self.run(self.ledger.client.zadd(LEASES, {job_id: 1}))
        self.run(self.ledger.upkeep.rescue_stalled())

    @rule(job_id=jobs)
    def the_retry_is_due(self, job_id: str) -> None:
        if self.status(job_id) is JobStatus.QUEUED:
            self.run(self.ledger.client.hset(f"bunri:job:{job_id}", "not_before", 1))
            self.run(self.ledger.client.zadd(OUTBOX, {job_id: 1}))
        assert all(self.status(due) is JobStatus.QUEUED for due, _ in self.run(self.ledger.upkeep.take_due()))

    @rule(job_id=jobs)
    def the_deadline_passes(self, job_id: str) -> None:
        if not self.status(job_id).is_final:
            self.run(self.ledger.client.zadd(DEADLINES, {job_id: 1}))
        self.run(self.ledger.upkeep.expire_overdue())
        assert self.status(job_id).is_final

    # --- what always holds ---

    @invariant()
    def the_ledger_is_sound(self) -> None:
        self.every_job_moved_as_the_table_says()
        self.a_job_that_ended_has_one_last_event_and_never_changes()
        self.every_list_agrees_with_the_records()
        self.every_call_was_charged_once()

    def every_job_moved_as_the_table_says(self) -> None:
        for job_id, before in self.was.items():
            after = self.status(job_id)
            assert after is before or after in TRANSITIONS[before], (before, after)
            self.was[job_id] = after

    def a_job_that_ended_has_one_last_event_and_never_changes(self) -> None:
        for job_id, status in self.was.items():
            events = self.events(job_id)
            ends = [orjson.loads(event)["seq"] for event in events if orjson.loads(event)["stage"] == "done"]
            assert ends == ([len(events)] if status.is_final else [])
            assert [orjson.loads(event)["seq"] for event in events] == list(range(1, len(events) + 1))
            if status.is_final:
                assert self.endings.setdefault(job_id, events) == events

    def every_list_agrees_with_the_records(self) -> None:
        alive = {status for status in JobStatus if not status.is_final}
        lists = {QUEUED: {JobStatus.QUEUED}, OUTBOX: {JobStatus.QUEUED}, LEASES: {JobStatus.RUNNING}, DEADLINES: alive}
        for key, statuses in lists.items():
            listed = {member.decode() for member in self.run(self.ledger.client.zrange(key, 0, -1))}
            assert listed == {job_id for job_id, status in self.was.items() if status in statuses}, key

    def every_call_was_charged_once(self) -> None:
        days = sum(
            (day.total for day in self.run(UsageReader(self.ledger).days(2))), ModelUsage()
        )  # It may be about midnight.
        ever = sum(self.run(UsageReader(self.ledger).ever()).values(), ModelUsage())
        assert days.calls == ever.calls == len(self.paid)
        for job_id in self.was:
            calls = sum(1 for charged, _, _ in self.paid if charged == job_id)
            assert self.run(self.ledger.submissions.get(job_id)).usage.input_tokens == 10 * calls

    # --- looking ---

    def status(self, job_id: str) -> JobStatus:
        return JobStatus(self.run(self.ledger.client.hget(f"bunri:job:{job_id}", "status")).decode())

    def events(self, job_id: str) -> list[bytes]:
        return [event.data for event in self.run(self.ledger.submissions.events(job_id))]

    def not_before(self, job_id: str) -> float:
        return float(self.run(self.ledger.client.hget(f"bunri:job:{job_id}", "not_before")) or 0)

    def now(self) -> float:
        return float(self.run(self.ledger.now()))

    def holds(self, claim: Claim) -> bool:
        return self.status(claim.job_id) is JobStatus.RUNNING and self.holder[claim.job_id] == claim.token

    def end(self, claim: Claim, write: Callable[[], Awaitable[object]]) -> None:
        """As any write; and once more, as when its answer was lost, without a trace."""
        if self.holds(claim):
            self.run(write())
            seen = self.events(claim.job_id)
            self.run(write())
            assert self.events(claim.job_id) == seen
        elif not self.has_ended_by(claim):
            self.fenced(claim, write)
        else:  # By this claim, but perhaps otherwise: then it is refused like any other.
            with suppress(StaleClaim):
                self.run(write())

    def has_ended_by(self, claim: Claim) -> bool:
        return bool(self.run(self.ledger.client.hget(f"bunri:job:{claim.job_id}", "ended_by")) == b"%d" % claim.token)

    def fenced(self, claim: Claim, write: Callable[[], Awaitable[object]]) -> None:
        """The write goes through for the holder of the job, and changes nothing for anybody else."""
        held, seen = self.holds(claim), self.events(claim.job_id)
        try:
            self.run(write())
        except StaleClaim:
            assert not held
            assert self.events(claim.job_id) == seen
        else:
            assert held


def test_no_order_of_operations_breaks_the_table_of_transitions(redis_url: str) -> None:
    bounds = settings(
        max_examples=15,
        stateful_step_count=60,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],  # To shrink a walk takes minutes.
    )
    run_state_machine_as_test(partial(Walk, redis_url), settings=bounds)  # type: ignore[arg-type]  # any factory will do
