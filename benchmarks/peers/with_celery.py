"""The peer on Celery's threads, with the openai SDK as one usually writes it: `celery -A benchmarks.peers.with_celery`.

Its request asks for a structured reply, as Bunri's does, and the SDK validates it. The task has the name and the queue
of Bunri's, so that the same sender serves both.
"""

import redis
from celery import Celery
from openai import OpenAI

from benchmarks.model_server import PURPOSE_HEADER
from benchmarks.peers.call import DONE, KEPT, MODEL, QUESTION, prompt, redis_url
from jobs.broker.message import RUN_JOB
from jobs.settings import JobsSettings
from pipeline.models.hosted import QuestionReply

app = Celery("peers", broker=redis_url())
app.conf.update(
    task_default_queue=JobsSettings.model_fields["queue"].default,
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
)
client = OpenAI(default_headers={PURPOSE_HEADER: "question"})
ledger = redis.Redis.from_url(redis_url())
instructions = prompt()


@app.task(name=RUN_JOB)  # type: ignore[untyped-decorator]
def ask(job_id: str) -> None:
    answer = client.responses.parse(model=MODEL, instructions=instructions, input=QUESTION, text_format=QuestionReply)
    assert answer.output_parsed is not None  # noqa: S101 - it is a measurement
    ledger.xadd(DONE, {"job": job_id}, maxlen=KEPT)
