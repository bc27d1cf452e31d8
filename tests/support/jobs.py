"""Jobs and results to put through the ledger without a pipeline."""

from jobs.ids import new_job_id
from jobs.model import NewJob, Priority, WorkerBeat
from pipeline.types import (
    Answer,
    Classification,
    JobInput,
    Observation,
    PaidCall,
    PipelineResult,
    RuleMatch,
    Stage,
    StageEvent,
    StageStatus,
    Usage,
)


def new_job(
    *,
    deadline: float = 60.0,
    image_url: str = "https://photos.example/cup.jpg",
    user_input: str = "",
    priority: Priority = Priority.INTERACTIVE,
) -> NewJob:
    return NewJob(
        job_id=new_job_id(),
        input=JobInput(image_url=image_url, user_input=user_input),
        priority=priority,
        deadline=deadline,
        pipeline_version="0123456789ab",
        trace_id="0af7651916cd43dd8448eb211c80319c",
    )


def beat(*, concurrency: int = 0, version: str = "0123456789ab", worker: str = "host:1") -> WorkerBeat:
    return WorkerBeat(worker=worker, pipeline_version=version, models=("local/test",), concurrency=concurrency)


def observation(middle: str = "유리병") -> Observation:
    return Observation(
        classification=Classification(major_category="재활용폐기물", middle_category=middle),
        confidence=0.9,
        model="local/test",
        usage=Usage(input_tokens=10, output_tokens=2, cost_usd=0.001),
    )


def paid(output_tokens: int = 2, model: str = "gpt-test") -> PaidCall:
    """A call that came to nothing."""
    return PaidCall(model=model, usage=Usage(input_tokens=10, output_tokens=output_tokens, cost_usd=0.001))


def answer(text: str = "헹궈서 배출하세요.") -> Answer:
    return Answer(disposal_steps=("비운다", "헹군다"), user_answer=text, model="local/rules")


def result(text: str = "헹궈서 배출하세요.") -> PipelineResult:
    rule = RuleMatch(key="glass", category="유리병", document={"title": "유리병", "steps": ["비운다"]})
    return PipelineResult(observation=observation(), rule=rule, answer=answer(text))


def started(stage: Stage) -> StageEvent:
    return StageEvent(stage=stage, status=StageStatus.STARTED)


def completed(stage: Stage, checkpoint: Observation | Answer | None = None) -> StageEvent:
    return StageEvent(stage=stage, status=StageStatus.COMPLETED, seconds=0.5, checkpoint=checkpoint)
