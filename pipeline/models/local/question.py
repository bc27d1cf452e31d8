"""The local reader of questions: a lexicon and a grammar (docs/chat-text.md), no model and no network."""

import asyncio

from pipeline.models import LOCAL
from pipeline.questions.reader import LexiconReader
from pipeline.types import Locale, ParsedQuestion, Usage

MAX_CHARACTERS_ON_LOOP = 100
"""These take ten milliseconds at most; four times as many take some 40 to 60."""


class LocalText:
    """Shared by all jobs of a process."""

    name = f"{LOCAL}/words"

    def __init__(self, lexicon_reader: LexiconReader) -> None:
        self._reader = lexicon_reader

    async def read(self, question: str, locale: Locale) -> tuple[ParsedQuestion, Usage]:
        """Blocks the loop for a few milliseconds with a short question; reads a long one on a thread. Never raises."""
        if len(question) > MAX_CHARACTERS_ON_LOOP:
            return await asyncio.to_thread(self._reader.read, question, locale), Usage()
        return self._reader.read(question, locale), Usage()
