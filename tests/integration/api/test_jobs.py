"""Looking at a job over HTTP while the test plays the worker."""

import asyncio
import time
import uuid

import pytest

from jobs.ids import new_job_id
from jobs.ledger.ledger import Ledger
from jobs.model import Claim, JobError, NewJob
from jobs.settings import JobsSettings
from pipeline.types import Classification, JobInput, Locale, PipelineResult, Stage
from tests.support.api_server import ApiServer, running_api
from tests.support.jobs import answer, completed, new_job, observation, result, started

SCAN = "/api/v1/scan"


async def claimed(ledger: Ledger, job: NewJob) -> Claim:
    await ledger.submissions.create(job)
    claim = await ledger.claims.claim(job.job_id)
    assert claim
    return claim


async def completed_job(ledger: Ledger, *, user_input: str = "", outcome: PipelineResult | None = None) -> str:
    claim = await claimed(ledger, new_job(user_input=user_input))
    end = outcome or result()
    await ledger.claims.record(claim, completed(Stage.VISION, end.observation), completed(Stage.ANSWER, end.answer))
    await ledger.claims.complete(claim, end)
    return claim.job_id


async def failed_job(ledger: Ledger, *, locale: Locale = Locale.KO) -> str:
    job = new_job().model_copy(update={"input": JobInput(image_url="https://photos.example/x", locale=locale)})
    claim = await claimed(ledger, job)
    error = JobError(code="source.not_found", retryable=False, trace_id=job.trace_id)
    await ledger.claims.fail(claim, error, Stage.FETCH)
    return claim.job_id


def id_born_at(seconds: float) -> str:
    """A job id as it was given out then."""
    return str(uuid.UUID(int=int(seconds * 1000) << 80 | 7 << 76 | 2 << 62 | 5))


async def test_a_waiting_job_shows_its_place_and_metadata(api: ApiServer, ledger: Ledger) -> None:
    job = new_job().model_copy(update={"metadata": {"order": "<17>"}})
    await ledger.submissions.create(job)
    reply = await api.client.get(f"{SCAN}/{job.job_id}")
    assert reply.status_code == 200
    view = reply.json()
    assert (view["status"], view["stage"], view["progress"], view["queue_position"]) == ("queued", "queued", 0, 1)
    assert view["metadata"] == {"order": "<17>"}
    assert (view["result"], view["error"], view["finished_at"]) == (None, None, None)


async def test_a_running_job_shows_stage_progress_and_timings(api: ApiServer, ledger: Ledger) -> None:
    claim = await claimed(ledger, new_job())
    await ledger.claims.record(claim, completed(Stage.FETCH), started(Stage.VISION))
    view = (await api.client.get(f"{SCAN}/{claim.job_id}")).json()
    assert (view["status"], view["stage"], view["progress"], view["attempts"]) == ("running", "vision", 20, 1)
    assert view["timings"]["fetch"] == 0.5
    assert view["timings"]["queued"] >= 0


async def test_a_completed_job_shows_its_result_model_and_usage(api: ApiServer, ledger: Ledger) -> None:
    view = (await api.client.get(f"{SCAN}/{await completed_job(ledger)}")).json()
    assert (view["status"], view["stage"], view["progress"], view["model"]) == ("completed", "done", 100, "local/test")
    assert view["usage"] == {"input_tokens": 10, "cached_tokens": 0, "output_tokens": 2, "cost_usd": 0.001}
    assert view["created_at"] <= view["started_at"] <= view["finished_at"]
    assert view["result"]["disposal_rules"]["key"] == "glass"


async def test_a_failed_job_shows_the_model_calls_that_were_paid(api: ApiServer, ledger: Ledger) -> None:
    claim = await claimed(ledger, new_job())
    await ledger.claims.record(claim, completed(Stage.VISION, observation()))
    await ledger.claims.fail(
        claim, JobError(code="model.timeout", retryable=True, trace_id=claim.trace_id), Stage.ANSWER
    )
    view = (await api.client.get(f"{SCAN}/{claim.job_id}")).json()
    assert (view["status"], view["model"], view["usage"]["output_tokens"]) == ("failed", "local/test", 2)


async def test_the_result_has_the_shape_that_existing_clients_read(api: ApiServer, ledger: Ledger) -> None:
    job_id = await completed_job(ledger, user_input="이거 뭐예요?")
    reply = await api.client.get(f"{SCAN}/{job_id}/result")
    assert reply.status_code == 200
    assert reply.json() == {
        "task_id": job_id,
        "status": "completed",
        "message": reply.json()["message"],
        "pipeline_result": {
            "classification_result": {
                "classification": {
                    "major_category": "재활용폐기물",
                    "middle_category": "유리병",
                    "minor_category": None,
                },
                "situation_tags": [],
                "confidence": 0.9,
                "meta": {"user_input": "이거 뭐예요?", "pipeline_version": None},
            },
            "disposal_rules": {"key": "glass", "category": "유리병", "title": "유리병", "steps": ["비운다"]},
            "final_answer": {
                "disposal_steps": {"단계1": "비운다", "단계2": "헹군다"},
                "insufficiencies": [],
                "user_answer": "헹궈서 배출하세요.",
            },
            "others": [],
            "pipeline_version": None,
        },
        "reward": None,
        "error": None,
    }


async def test_script_in_a_model_answer_or_question_arrives_escaped_once(api: ApiServer, ledger: Ledger) -> None:
    script, escaped = "<script>alert('1') & 2</script>", "&lt;script&gt;alert(&#x27;1&#x27;) &amp; 2&lt;/script&gt;"
    outcome = result().model_copy(
        update={"answer": answer().model_copy(update={"disposal_steps": (script,), "insufficiencies": (script,)})}
    )
    outcome = outcome.model_copy(update={"answer": outcome.answer.model_copy(update={"user_answer": script})})
    job_id = await completed_job(ledger, user_input=script, outcome=outcome)
    for path in (f"{SCAN}/{job_id}/result", f"{SCAN}/{job_id}", f"{SCAN}/{job_id}/events"):
        text = (await api.client.get(path)).text
        assert text.count(escaped) == 4, path
        assert "<script>" not in text, path


async def test_a_failed_job_is_a_200_with_the_error_in_the_jobs_language(api: ApiServer, ledger: Ledger) -> None:
    job_id = await failed_job(ledger, locale=Locale.EN)
    reply = await api.client.get(f"{SCAN}/{job_id}/result", headers={"Accept-Language": "ko"})
    assert reply.status_code == 200
    body = reply.json()
    assert (body["status"], body["pipeline_result"], body["reward"]) == ("failed", None, None)
    assert (body["error"]["code"], body["error"]["retryable"]) == ("source.not_found", False)
    assert body["error"]["message"].isascii()
    assert len(body["error"]["trace_id"]) == 32


async def test_an_unfinished_result_is_a_202_that_says_when_to_ask_again(api: ApiServer, ledger: Ledger) -> None:
    claim = await claimed(ledger, new_job())
    await ledger.claims.record(claim, completed(Stage.FETCH), started(Stage.VISION))
    reply = await api.client.get(f"{SCAN}/{claim.job_id}/result")
    assert reply.status_code == 202
    assert reply.headers["retry-after"] == "2"
    assert reply.json() == {
        "status": "processing",
        "current_stage": "vision",
        "progress": 20,
        "message": reply.json()["message"],
    }


@pytest.mark.parametrize("tail", ["", "/result"])
async def test_a_wait_ends_when_the_job_does(api: ApiServer, ledger: Ledger, tail: str) -> None:
    claim = await claimed(ledger, new_job())
    waiting = asyncio.create_task(api.client.get(f"{SCAN}/{claim.job_id}{tail}?wait=20"))
    await ledger.claims.complete(claim, result())
    assert (await waiting).json()["status"] == "completed"


async def test_a_wait_that_is_too_short_shows_the_job_as_it_is(api: ApiServer, ledger: Ledger) -> None:
    claim = await claimed(ledger, new_job())
    reply = await api.client.get(f"{SCAN}/{claim.job_id}/result?wait=0.01")
    assert (reply.status_code, reply.json()["status"]) == (202, "processing")


@pytest.mark.parametrize("tail", ["", "/result"])
async def test_a_wait_above_the_limit_is_cut_to_it(jobs_settings: JobsSettings, ledger: Ledger, tail: str) -> None:
    claim = await claimed(ledger, new_job())
    async with running_api(jobs_settings, max_wait=0.05) as api:
        reply = await api.client.get(f"{SCAN}/{claim.job_id}{tail}?wait=600", timeout=20)
    assert reply.json()["status"] in {"running", "processing"}


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "x"])
async def test_a_wait_that_is_no_time_is_refused(api: ApiServer, ledger: Ledger, wait: str) -> None:
    reply = await api.client.get(f"{SCAN}/{await completed_job(ledger)}?wait={wait}")
    assert (reply.status_code, reply.json()["code"]) == (422, "request.invalid")


@pytest.mark.parametrize("tail", ["", "/result", "/events"])
@pytest.mark.parametrize(
    "job_id",
    ["nonsense", new_job_id().upper(), str(uuid.uuid4()), new_job_id()],
    ids=["no uuid", "upper case", "another version", "never given out"],
)
async def test_an_unknown_job_is_not_found(api: ApiServer, job_id: str, tail: str) -> None:
    reply = await api.client.get(f"{SCAN}/{job_id}{tail}")
    assert (reply.status_code, reply.json()["code"]) == (404, "job.not_found")


@pytest.mark.parametrize("tail", ["", "/result", "/events"])
async def test_a_job_older_than_the_results_are_kept_has_expired(api: ApiServer, tail: str) -> None:
    job_id = id_born_at(time.time() - 2 * api.services.jobs.result_ttl)
    reply = await api.client.get(f"{SCAN}/{job_id}{tail}")
    assert (reply.status_code, reply.json()["code"]) == (410, "job.expired")


async def test_a_job_is_cancelled_once_and_again(api: ApiServer, ledger: Ledger) -> None:
    job = new_job()
    await ledger.submissions.create(job)
    replies = [await api.client.post(f"{SCAN}/{job.job_id}/cancel") for _ in range(2)]
    assert [reply.status_code for reply in replies] == [202, 202]
    assert replies[0].json() == replies[1].json()
    ended = (await api.client.get(f"{SCAN}/{job.job_id}/result")).json()
    assert (ended["status"], ended["error"]["code"], ended["pipeline_result"]) == ("cancelled", "job.cancelled", None)


async def test_a_job_that_has_ended_otherwise_cannot_be_cancelled(api: ApiServer, ledger: Ledger) -> None:
    for job_id in (await completed_job(ledger), await failed_job(ledger)):
        reply = await api.client.post(f"{SCAN}/{job_id}/cancel")
        assert (reply.status_code, reply.json()["code"]) == (409, "job.finished")


async def test_cancelling_an_unknown_job_is_not_found(api: ApiServer) -> None:
    for job_id in ("nonsense", new_job_id()):
        reply = await api.client.post(f"{SCAN}/{job_id}/cancel")
        assert (reply.status_code, reply.json()["code"]) == (404, "job.not_found")


async def test_the_legacy_task_path_is_the_result(api: ApiServer, ledger: Ledger) -> None:
    done, waiting = await completed_job(ledger), new_job()
    await ledger.submissions.create(waiting)
    for job_id in (done, waiting.job_id, new_job_id()):
        legacy = await api.client.get(f"{SCAN}/task/{job_id}")
        today = await api.client.get(f"{SCAN}/{job_id}/result")
        assert legacy.status_code == today.status_code
        assert legacy.json() | {"trace_id": ""} == today.json() | {"trace_id": ""}


async def test_categories_name_every_middle_category_in_the_callers_language(api: ApiServer) -> None:
    korean = (await api.client.get(f"{SCAN}/categories")).json()
    english = (await api.client.get(f"{SCAN}/categories", headers={"Accept-Language": "en-US,en;q=0.9"})).json()
    asked = (await api.client.get(f"{SCAN}/categories?locale=en")).json()
    assert [entry["name"] for entry in korean] == list(api.services.knowledge.rulebook.middles())
    assert [entry["name"] for entry in english] == [entry["name"] for entry in korean]
    assert set(korean[0]) == {"id", "name", "display_name", "instructions"}
    assert korean[0]["display_name"] == korean[0]["name"]
    assert english[0]["display_name"] != english[0]["name"]
    assert english == asked


async def test_a_category_outside_the_first_major_keeps_its_names(api: ApiServer, ledger: Ledger) -> None:
    place = Classification(major_category="미분류", middle_category="미분류")
    outcome = result().model_copy(
        update={"observation": observation().model_copy(update={"classification": place, "situation_tags": ("a",)})}
    )
    job_id = await completed_job(ledger, outcome=outcome)
    shown = (await api.client.get(f"{SCAN}/{job_id}/result")).json()["pipeline_result"]["classification_result"]
    assert shown["classification"]["major_category"] == "미분류"
    assert shown["situation_tags"] == ["a"]
