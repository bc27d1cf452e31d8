"""The peer on taskiq and a Redis stream, with aiohttp: `taskiq worker benchmarks.peers.with_taskiq:broker`."""

import os

import aiohttp
import orjson
import redis.asyncio as redis
from taskiq import TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker

from benchmarks.peers.call import DONE, KEPT, MODEL, QUESTION, prompt, redis_url

broker = RedisStreamBroker(url=redis_url(), queue_name="peers")


@broker.on_event(TaskiqEvents.WORKER_STARTUP)  # type: ignore[untyped-decorator]
async def start(state: TaskiqState) -> None:
    state.http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(60))
    state.redis = redis.Redis.from_url(redis_url(), max_connections=KEPT)  # 100 by default, and an error beyond
    state.prompt = prompt()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)  # type: ignore[untyped-decorator]
async def stop(state: TaskiqState) -> None:
    await state.http.close()
    await state.redis.aclose()


@broker.task(task_name="ask")  # type: ignore[untyped-decorator]
async def ask(job_id: str) -> None:
    state = broker.state
    body = orjson.dumps({"model": MODEL, "instructions": state.prompt, "input": QUESTION})
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    async with state.http.post(f"{os.environ['OPENAI_BASE_URL']}/responses", data=body, headers=headers) as response:
        response.raise_for_status()
        answer = orjson.loads(await response.read())
    assert answer["status"] == "completed"  # noqa: S101 - it is a measurement
    await state.redis.xadd(DONE, {"job": job_id}, maxlen=KEPT)
