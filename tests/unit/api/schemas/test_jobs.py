"""Answers about one job."""

from api.schemas.jobs import SubmittedView
from jobs.model import JobKind, JobStatus


def test_a_submitted_jobs_id_is_the_second_last_segment_of_its_result_url() -> None:
    taken = SubmittedView.of(
        "the-id", JobKind.SCAN, status=JobStatus.QUEUED, queue_position=1, estimated_wait=None, pipeline_version="v"
    )
    assert taken.result_url.split("/")[-2] == "the-id"
