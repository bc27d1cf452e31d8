"""Stage 1 for a question without a photo: text → Observation, by the text model that the job asks for."""

from collections.abc import Mapping

from pipeline.errors import ModelAccount
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.models import TextModel
from pipeline.types import JobInput, KnownThings, NotWaste, Observation, ParsedQuestion, Subject, UnknownThing, Usage


class QuestionStage:
    """`models` has the same names as the vision models, so that a job's `model` selects both."""

    def __init__(self, models: Mapping[str, TextModel], default: str, rulebook: Rulebook) -> None:
        self._models = models
        self._default = default
        self._rulebook = rulebook

    async def observe(self, job: JobInput) -> Observation:
        """Raises `model.*` errors, or ModelPaused."""
        model = self.model_for(job)
        parsed, usage = await model.read(job.user_input, job.locale)
        return self._observation(parsed, model.name, usage)

    def model_for(self, job: JobInput) -> TextModel:
        """Raises ModelAccount if this process has no such model."""
        name = job.model or self._default
        if name not in self._models:
            raise ModelAccount(f"the model {name} is not configured here")
        return self._models[name]

    def _observation(self, parsed: ParsedQuestion, model: str, usage: Usage) -> Observation:
        match parsed:
            case KnownThings(things=(first, *others), has_unknown=has_unknown):
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
        unclassified = self._rulebook.classification(UNCLASSIFIED, None)
        return Observation(classification=unclassified, confidence=0.0, subject=subject, model=model, usage=usage)
