"""Stage 1: SourceImage → Observation, by the model that the job asks for."""

from collections.abc import Awaitable, Mapping

from pipeline.errors import ModelAccount
from pipeline.models import VisionModel
from pipeline.types import JobInput, Observation, SourceImage


class Vision:
    """`models` by the names that a job may ask for; `default` is one of them."""

    def __init__(self, models: Mapping[str, VisionModel], default: str) -> None:
        self._models = models
        self._default = default

    def observe(self, image: SourceImage, job: JobInput) -> Awaitable[Observation]:
        """Raises `model.*` errors, or ModelPaused. No coroutine of its own: that would keep the photo to the end."""
        return self.model_for(job).observe(image, question=job.user_input, locale=job.locale)

    def model_for(self, job: JobInput) -> VisionModel:
        """Raises ModelAccount for a model that this process does not have."""
        name = self.name_for(job)
        if name not in self._models:
            raise ModelAccount(f"the model {name} is not configured here")
        return self._models[name]

    def name_for(self, job: JobInput) -> str:
        """The name by which the job asks for its model."""
        return job.model or self._default
