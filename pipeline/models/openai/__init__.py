"""OpenAI, and servers that speak its Responses API. Importing this package does not import the SDK."""

from pipeline.models.provider import HostedClient
from pipeline.settings import PipelineSettings

__all__ = ["open_client"]


def open_client(settings: PipelineSettings) -> HostedClient | None:
    """None without an API key."""
    if settings.openai_api_key is None:
        return None
    # The SDK takes half a second and 50 MB, which a worker without a key need not spend.
    from pipeline.models.openai.client import OpenAIClient  # noqa: PLC0415

    return OpenAIClient(settings, settings.openai_api_key.get_secret_value())
