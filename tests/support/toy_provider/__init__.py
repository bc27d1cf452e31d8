"""A provider of hosted models as docs/howto/add-a-provider.md builds one. Its model knows one thing, a glass bottle."""

from pipeline.settings import PipelineSettings
from tests.support.toy_provider.client import ToyClient

__all__ = ["open_client"]


def open_client(settings: PipelineSettings) -> ToyClient | None:
    return ToyClient(settings.prices[settings.text_model])
