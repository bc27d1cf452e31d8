"""The only place that joins settings, adapters and `run`."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import structlog

from pipeline.address import AddressGuard
from pipeline.answer import AnswerWriter
from pipeline.contradiction import Contradictions
from pipeline.decode import ImageDecoder
from pipeline.fetch import Fetcher
from pipeline.insufficiency import Insufficiencies
from pipeline.model import LOCAL, AnswerModel, Gate, OpenGate, VisionModel
from pipeline.model.local import LocalAnswer, LocalVision
from pipeline.rulebook import Rulebook
from pipeline.rules import RuleMatcher
from pipeline.run import Pipeline
from pipeline.settings import PipelineSettings
from pipeline.storage import Store, open_store
from pipeline.texts import Texts, fingerprints, pipeline_version
from pipeline.types import JobInput, SourceImage
from pipeline.vision import Vision

log = structlog.get_logger()


def build_pipeline(settings: PipelineSettings, gate: Gate | None = None) -> Pipeline:
    """One per process, on the event loop that runs its jobs. Raises ValueError naming mistakes in the resources.

    With an API key the OpenAI models are the default; the local model is always there. Calls to hosted models go
    through `gate`; without one, every call passes.
    """
    gate = gate or OpenGate()
    texts = Texts.load(settings.resources)
    rulebook = Rulebook.load(settings.resources)
    contradictions = Contradictions.load(settings.resources, rulebook)
    insufficiencies = Insufficiencies.load(settings.resources, rulebook, texts)
    closing = AsyncExitStack()

    local_vision = LocalVision(settings.resources / "local_model", rulebook, settings.local_threshold)
    closing.push_async_callback(local_vision.close)
    lookers: dict[str, VisionModel] = {LOCAL: local_vision}
    writers: dict[str, AnswerModel] = {LOCAL: LocalAnswer(texts, rulebook)}
    default = LOCAL
    if settings.openai_api_key is not None:
        # Here, because the SDK takes half a second and 50 MB that a worker without a key need not spend.
        from pipeline.model.hosted import HostedAnswer, HostedVision  # noqa: PLC0415
        from pipeline.model.openai import OpenAIClient  # noqa: PLC0415

        client = OpenAIClient(settings, gate)
        closing.push_async_callback(client.close)
        default = settings.vision_model
        for model in {settings.vision_model, settings.text_model} - set(settings.prices):
            log.warning("model.price_unknown", model=model)
        lookers[default] = HostedVision(client, settings.vision_model, texts, rulebook)
        writers[default] = HostedAnswer(client, settings.text_model, texts)

    store = open_store(settings)
    closing.push_async_callback(store.close)
    return Pipeline(
        load=_image_loader(settings, store, closing),
        vision=Vision(lookers, default),
        rules=RuleMatcher(rulebook, insufficiencies),
        answer=AnswerWriter(writers, default, texts, contradictions),
        gate=gate,
        version=pipeline_version(fingerprints(settings.resources)),
        setup=repr(
            (
                settings.local_threshold,
                settings.reasoning_effort,
                settings.model_max_output_tokens,
                settings.openai_base_url,
                settings.image_long_side,
            )
        ),
        models=tuple(lookers),
        expire_uploads=store.expire,
        close=closing.aclose,
    )


def _image_loader(
    settings: PipelineSettings, store: Store, closing: AsyncExitStack
) -> Callable[[JobInput], Awaitable[SourceImage]]:
    fetcher = Fetcher(settings, AddressGuard(settings.fetch_allow, settings.fetch_ports))
    decoder = ImageDecoder(settings)
    closing.push_async_callback(fetcher.close)
    closing.push_async_callback(decoder.close)
    # From the first byte until it is decoded a file is in memory whole; there are far more jobs than room for those.
    room = asyncio.Semaphore(settings.fetch_concurrency)

    async def load(job: JobInput) -> SourceImage:
        async with room:
            data = await (store.read(job.image_key) if job.image_key else fetcher.fetch(job.image_url))
            return await decoder.prepare(data)

    return load
