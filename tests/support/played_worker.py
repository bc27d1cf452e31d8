"""The worker as the tests of the page play it: results to show, and what a worker records on the way to them."""

from collections.abc import Mapping
from pathlib import Path

from jobs.ledger.ledger import Ledger
from jobs.model import Claim, JobError
from pipeline.types import Answer, Classification, Observation, PipelineResult, RuleMatch, Stage
from tests.support.jobs import completed, started

HOSTILE = "<img src=x onerror=\"window.pwned=1\"><script>window.pwned=1</script> & '&lt;b&gt;' &amp;amp;"
"""Words of a model that would be markup."""


async def run_to_end(ledger: Ledger, claim: Claim, outcome: PipelineResult) -> None:
    """Record what a worker records for a job that goes well."""
    await ledger.claims.record(claim, started(Stage.FETCH))
    await ledger.claims.record(claim, completed(Stage.FETCH), started(Stage.VISION))
    await ledger.claims.record(
        claim, completed(Stage.VISION, outcome.observation), completed(Stage.RULE), started(Stage.ANSWER)
    )
    await ledger.claims.record(claim, completed(Stage.ANSWER, outcome.answer))
    await ledger.claims.complete(claim, outcome)


def result_saying(words: str, *, degraded: bool = False) -> PipelineResult:
    """A result in which every text of a model is `words`."""
    category = Classification(major_category="재활용폐기물", middle_category="유리병", minor_category=words)
    return PipelineResult(
        observation=Observation(classification=category, confidence=0.876, model="gpt-test"),
        rule=RuleMatch(key="glass", category="유리병", document={"title": "유리병"}),
        answer=Answer(disposal_steps=(words, "헹군다"), insufficiencies=(words,), user_answer=words, model="gpt-test"),
        degraded=degraded,
    )


def result_with_rule(document: Mapping[str, object]) -> PipelineResult:
    rule = RuleMatch(key="glass", category="유리병", document=dict(document))
    return result_saying("헹군다").model_copy(update={"rule": rule})


def job_error(claim: Claim, code: str = "source.timeout", *, retryable: bool = True) -> JobError:
    return JobError(code=code, retryable=retryable, trace_id=claim.trace_id)


def image_key_of(claim: Claim) -> str:
    assert claim.input.image_key
    return claim.input.image_key


def uploaded(uploads: Path, claim: Claim) -> bytes:
    """The photo that the job will read, as it lies in the API's folder."""
    return content(uploads / image_key_of(claim))


def content(photo: Path) -> bytes:
    return photo.read_bytes()
