"""The only place that joins settings, adapters and `run`."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import structlog

from kit.address import AddressGuard
from pipeline.answer import AnswerWriter
from pipeline.intake.decode import ImageDecoder
from pipeline.intake.fetch import Fetcher
from pipeline.knowledge.fingerprint import local_model_dir
from pipeline.knowledge.knowledge import Knowledge
from pipeline.models import LOCAL, AnswerModel, Gate, OpenGate, TextModel, VisionModel, openai
from pipeline.models.hosted import HostedAnswer, HostedText, HostedVision
from pipeline.models.local.answer import LocalAnswer
from pipeline.models.local.question import LocalText
from pipeline.models.local.vision import LocalVision
from pipeline.models.provider import GatedClient, HostedClient
from pipeline.question import QuestionStage
from pipeline.questions.reader import LexiconReader
from pipeline.rules import RuleMatcher
from pipeline.run import Pipeline
from pipeline.settings import PipelineSettings
from pipeline.storage import Store, open_store
from pipeline.types import JobInput, SourceImage
from pipeline.vision import VisionStage

log = structlog.get_logger()

PROVIDERS: dict[str, Callable[[PipelineSettings], HostedClient | None]] = {
    "openai": openai.open_client,
}
"""By name, what opens a client, or returns None if the settings do not configure that provider. The first one that is
configured serves VISION_MODEL and TEXT_MODEL. How to add one: docs/howto/add-a-provider.md.
"""

HostedModels = Callable[[Knowledge], tuple[VisionModel, TextModel, AnswerModel]]


def build_pipeline(settings: PipelineSettings, gate: Gate | None = None) -> Pipeline:
    """One per process, on the event loop that runs its jobs. Raises ValueError naming mistakes in the resources.

    With an API key the hosted models are the default; the local model is always there. Calls to hosted models go
    through `gate`; without one, every call passes. Clients, sessions and stores opened here are shared with the
    pipelines that `with_knowledge` makes.
    """
    gate = gate or OpenGate()
    first = Knowledge.load(settings.resources)
    closing = AsyncExitStack()

    model_dir = local_model_dir(settings.resources)
    local_vision = LocalVision(model_dir, first.rulebook, settings.local_threshold)
    closing.push_async_callback(local_vision.close)
    hosted = _open_hosted(settings, gate, closing)
    default = settings.vision_model if hosted else LOCAL
    store = open_store(settings)
    closing.push_async_callback(store.close)
    load = _image_loader(settings, store, closing)

    def build(knowledge: Knowledge) -> Pipeline:
        """Opens nothing."""
        texts, rulebook = knowledge.texts, knowledge.rulebook
        visions: dict[str, VisionModel] = {LOCAL: local_vision.with_rulebook(rulebook)}
        readers: dict[str, TextModel] = {
            LOCAL: LocalText(LexiconReader(knowledge.lexicon, knowledge.grammar, rulebook))
        }
        writers: dict[str, AnswerModel] = {LOCAL: LocalAnswer(texts, rulebook)}
        if hosted is not None:
            visions[default], readers[default], writers[default] = hosted(knowledge)
        return Pipeline(
            load=load,
            vision=VisionStage(visions, default),
            question=QuestionStage(readers, default, rulebook),
            rules=RuleMatcher(rulebook, knowledge.insufficiencies),
            answer=AnswerWriter(writers, default, texts, knowledge.contradictions),
            gate=gate,
            knowledge=knowledge,
            setup=repr(
                (
                    settings.local_threshold,
                    settings.reasoning_effort,
                    settings.model_max_output_tokens,
                    settings.openai_base_url,
                    settings.image_long_side,
                )
            ),
            models=tuple(visions),
            with_knowledge=build,
            expire_uploads=store.expire,
            close=closing.aclose,
        )

    return build(first)


def _open_hosted(settings: PipelineSettings, gate: Gate, closing: AsyncExitStack) -> HostedModels | None:
    """None if no provider is configured."""
    opened = (open_client(settings) for open_client in PROVIDERS.values())
    provider = next((each for each in opened if each is not None), None)
    if provider is None:
        return None
    closing.push_async_callback(provider.close)
    client = GatedClient(provider, gate)
    for model in {settings.vision_model, settings.text_model} - set(settings.prices):
        log.warning("model.price_unknown", model=model)

    def models(knowledge: Knowledge) -> tuple[VisionModel, TextModel, AnswerModel]:
        texts, rulebook = knowledge.texts, knowledge.rulebook
        return (
            HostedVision(client, settings.vision_model, texts, rulebook),
            HostedText(client, settings.text_model, texts, rulebook),
            HostedAnswer(client, settings.text_model, texts),
        )

    return models


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
