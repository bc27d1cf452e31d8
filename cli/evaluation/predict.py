"""Photos on disk → predictions: prepared and observed as in a job, without queue and fetch."""

import asyncio
import hashlib
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from structlog.contextvars import bind_contextvars

from cli.evaluation.journal import Journal
from cli.evaluation.records import NOT_WASTE, CannotEvaluate, Identity, Labelled, Prediction
from pipeline.build import build_pipeline
from pipeline.errors import Internal, ModelAccount, PipelineError, SourceNotFound, SourceTooLarge
from pipeline.intake.decode import ImageDecoder
from pipeline.knowledge.knowledge import Knowledge
from pipeline.knowledge.rulebook import UNCLASSIFIED
from pipeline.models import is_local
from pipeline.run import Pipeline
from pipeline.settings import PipelineSettings
from pipeline.types import JobInput, Observation, Subject, Usage
from workers.execute.retry import GiveUp, decide

CONCURRENCY_HOSTED = 8

log = structlog.get_logger()


class Predictor:
    """One model of a pipeline, with the decoder in front of it."""

    def __init__(
        self,
        pipeline: Pipeline,
        decoder: ImageDecoder,
        settings: PipelineSettings,
        model: str | None,
        *,
        reads_questions: bool = False,
    ) -> None:
        """Raises CannotEvaluate for a model that is not configured. `reads_questions`: it names the text model."""
        self._job = JobInput(model=model)
        self._vision, self._question = pipeline.vision, pipeline.question
        self._decoder = decoder
        self.max_bytes = settings.fetch_max_bytes
        try:
            name = (self._question if reads_questions else self._vision).model_for(self._job).name
        except ModelAccount as error:
            raise CannotEvaluate(f"{error.detail}; there are: {', '.join(pipeline.models)}") from error
        setup = hashlib.sha256(pipeline.setup.encode()).hexdigest()[:12]
        self.identity = Identity(model=name, pipeline_version=pipeline.version, setup=setup)
        self.knowledge: Knowledge = pipeline.knowledge
        self.is_local = is_local(name)
        self.priced = self.is_local or name in settings.prices

    async def predict(self, photo: Labelled, data: bytes, sha256: str) -> Prediction:
        """Never raises: a failure is the prediction's `error`."""
        try:
            if photo.question:
                job = self._job.model_copy(update={"user_input": photo.question, "locale": photo.locale})
                return await self._observe(lambda: self._question.observe(job), sha256)
            if len(data) > self.max_bytes:
                raise SourceTooLarge(f"more than {self.max_bytes} bytes")  # noqa: TRY301 - as the fetcher would
            image = await self._decoder.prepare(data)
            return await self._observe(lambda: self._vision.observe(image, self._job), sha256)
        except PipelineError as error:
            return self._failed(error, sha256, Usage())
        except Exception as error:
            log.exception("photo.crashed")
            return self._failed(Internal(type(error).__name__), sha256, Usage())

    async def _observe(self, observe: Callable[[], Awaitable[Observation]], sha256: str) -> Prediction:
        """Retries as a job would. The usage of failed attempts is counted, their time is not."""
        spent = Usage()
        retries = 0
        while True:
            started_at = time.perf_counter()
            try:
                observation = await observe()
            except PipelineError as error:
                spent += error.spent.usage if error.spent else Usage()
                plan = decide(error, retries=retries, time_left=math.inf, chance=random.random())  # noqa: S311 - jitter
                if isinstance(plan, GiveUp):
                    return self._failed(error, sha256, spent)
                await asyncio.sleep(plan.seconds)
                retries += 1
            else:
                return self._prediction_of(observation, sha256, seconds=time.perf_counter() - started_at, spent=spent)

    def _failed(self, error: PipelineError, sha256: str, spent: Usage) -> Prediction:
        log.warning("photo.failed", code=error.spec.code, detail=error.detail)
        return Prediction(sha256=sha256, by=self.identity, error=error.spec.code, usage=spent)

    def _prediction_of(self, observation: Observation, sha256: str, *, seconds: float, spent: Usage) -> Prediction:
        if observation.subject is Subject.NOT_WASTE:
            classified = NOT_WASTE
        else:
            classified = observation.classification.middle_category
        likeliest = observation.candidates[0].middle_category if observation.candidates else classified
        return Prediction(
            sha256=sha256,
            by=self.identity,
            predicted=classified,
            guess=None if likeliest == UNCLASSIFIED else likeliest,
            confidence=round(observation.confidence, 6),
            candidates=tuple(
                each.model_copy(update={"confidence": round(each.confidence, 6)}) for each in observation.candidates
            ),
            usage=observation.usage + spent,
            seconds=round(seconds, 6),
        )


@asynccontextmanager
async def open_predictor(
    settings: PipelineSettings, model: str | None, *, reads_questions: bool = False
) -> AsyncIterator[Predictor]:
    """Raises CannotEvaluate for an unknown model or invalid resources."""
    try:
        pipeline = build_pipeline(settings)
    except (ValueError, OSError) as error:
        raise CannotEvaluate(str(error)) from error
    decoder = ImageDecoder(settings)
    try:
        yield Predictor(pipeline, decoder, settings, model, reads_questions=reads_questions)
    finally:
        await decoder.close()
        await pipeline.close()


async def predict_all(
    photos: Sequence[Labelled],
    predictor: Predictor,
    journal: Journal,
    *,
    concurrency: int,
    on_prediction: Callable[[Labelled, Prediction, bool], None],
) -> list[Prediction]:
    """Predictions in the order of the photos. `on_prediction(photo, prediction, was_in_journal)` is called for each."""
    slots = asyncio.Semaphore(concurrency)

    async def one(each: Labelled) -> Prediction:
        async with slots:
            bind_contextvars(photo=each.photo)
            data = await _data_of(each, predictor.max_bytes + 1)
            sha256 = hashlib.sha256(data).hexdigest() if data is not None else ""
            earlier = journal.find(sha256)
            prediction = earlier or await _predict_new(predictor, journal, each, data, sha256)
            on_prediction(each, prediction, earlier is not None)
            return prediction

    return list(await asyncio.gather(*map(one, photos)))


async def _predict_new(
    predictor: Predictor, journal: Journal, photo: Labelled, data: bytes | None, sha256: str
) -> Prediction:
    if data is None:
        return Prediction(sha256=sha256, by=predictor.identity, error=SourceNotFound.spec.code)
    prediction = await predictor.predict(photo, data, sha256)
    journal.add(prediction)
    return prediction


async def _data_of(photo: Labelled, limit: int) -> bytes | None:
    """The bytes that a prediction depends on: a photo's file, or a question in its language."""
    if photo.question:
        return f"{photo.locale} {photo.question}".encode()
    return await asyncio.to_thread(_read, photo.path, limit)


def _read(path: Path, limit: int) -> bytes | None:
    """The first `limit` bytes, enough to see that a file is too large. None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except (OSError, ValueError) as error:  # ValueError: not a path, such as one with a null byte.
        log.warning("photo.unreadable", error=type(error).__name__)
        return None
