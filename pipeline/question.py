"""Stage 1 of a question in words: text → Observation, by the reader that belongs to the job's model."""

from collections.abc import Mapping

from pipeline.errors import ModelAccount
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.models import TextModel
from pipeline.types import JobInput, NotWaste, Observation, Reading, Subject, ThingsNamed, UnknownThing, Usage


class QuestionReader:
    """`models` has the same names as the vision models: a job's model chooses the reader of its question, too."""

    def __init__(self, models: Mapping[str, TextModel], default: str, rulebook: Rulebook) -> None:
        self._models = models
        self._default = default
        self._rulebook = rulebook

    async def observe(self, job: JobInput) -> Observation:
        """Raises `model.*` errors, or ModelPaused."""
        model = self.model_for(job)
        reading, usage = await model.read(job.user_input, job.locale)
        return self._observation(reading, model.name, usage)

    def model_for(self, job: JobInput) -> TextModel:
        """Raises ModelAccount for a model that this process does not have."""
        name = job.model or self._default
        if name not in self._models:
            raise ModelAccount(f"the model {name} is not configured here")
        return self._models[name]

    def _observation(self, reading: Reading, model: str, usage: Usage) -> Observation:
        match reading:
            case ThingsNamed(things=(first, *others), has_unknown=has_unknown):
                return Observation(
                    classification=first.classification,
                    situation_tags=first.situation_tags,
                    confidence=first.confidence,
                    name=first.name,
                    others=tuple(others),
                    has_unknown=has_unknown,
                    model=model,
                    usage=usage,
                )
            case UnknownThing():
                subject = Subject.UNKNOWN
            case NotWaste():
                subject = Subject.NOT_WASTE
        nothing = self._rulebook.classification(UNCLASSIFIED, None)
        return Observation(classification=nothing, confidence=0.0, subject=subject, model=model, usage=usage)
