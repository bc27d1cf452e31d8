"""Stage 1, vision: SourceImage → Observation, by the model that the job asks for."""

from collections.abc import Awaitable, Mapping

from pipeline.errors import ModelAccount
from pipeline.models import VisionModel
from pipeline.types import JobInput, Observation, SourceImage


class VisionStage:
    """`models`: model by the name that a job may ask for; `default` is one of the names."""

    def __init__(self, models: Mapping[str, VisionModel], default: str) -> None:
        self._models = models
        self._default = default

    def observe(self, image: SourceImage, job: JobInput) -> Awaitable[Observation]:
        """Raises `model.*` errors, or ModelPaused.

        Not `async`: a coroutine of its own would keep a reference to the photo until the model has replied.
        """
        return self.model_for(job).observe(image, question=job.user_input, locale=job.locale)

    def model_for(self, job: JobInput) -> VisionModel:
        """Raises ModelAccount if this process has no such model."""
        name = self.requested_model(job)
        if name not in self._models:
            raise ModelAccount(f"the model {name} is not configured here")
        return self._models[name]

    def requested_model(self, job: JobInput) -> str:
        """The name of the model that the job asks for, or the default."""
        return job.model or self._default
