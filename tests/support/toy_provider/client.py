"""No network: the replies are fixed, one for each purpose."""

import orjson

from pipeline.models.provider import Content, OnDelta, Prompt
from pipeline.settings import ModelPrice
from pipeline.types import SourceImage, Usage
from tests.support.openai_server import PROSE, READ, SEEN, WRITTEN

REPLIES = {"vision": SEEN, "question": READ, "answer": WRITTEN}
OUTPUT_TOKENS = 10


class ToyClient:
    def __init__(self, price: ModelPrice) -> None:
        self.usage = Usage(output_tokens=OUTPUT_TOKENS, cost_usd=OUTPUT_TOKENS * price.output / 1_000_000)
        self.is_closed = False

    def prepare(self, prompt: Prompt) -> "ToyPrompt":
        return ToyPrompt(prompt, self.usage)

    async def close(self) -> None:
        self.is_closed = True


class ToyPrompt:
    def __init__(self, prompt: Prompt, usage: Usage) -> None:
        self._purpose = prompt.purpose
        self._usage = usage

    async def ask(self, *content: Content) -> tuple[str, Usage]:
        assert isinstance(content[0], SourceImage) == (self._purpose == "vision")
        return orjson.dumps(REPLIES[self._purpose]).decode(), self._usage

    async def stream(self, *content: Content, temperature: float | None, on_delta: OnDelta) -> tuple[str, Usage]:
        del content, temperature
        for piece in PROSE:
            await on_delta(piece)
        return "".join(PROSE), self._usage
