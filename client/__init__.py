"""Typed client of the API. Imports nothing of api, workers or cli."""

from client.bunri import ApiProblem, BunriClient, StreamLost
from client.models import Event, Job, JobError, PipelineResult, Submitted, Upload

__all__ = [
    "ApiProblem",
    "BunriClient",
    "Event",
    "Job",
    "JobError",
    "PipelineResult",
    "StreamLost",
    "Submitted",
    "Upload",
]
