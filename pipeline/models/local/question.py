"""The local reader of questions: a lexicon and a grammar (docs/chat-text.md), no model and no network."""

import asyncio

from pipeline.models import LOCAL
from pipeline.questions.reader import LexiconReader
from pipeline.types import Locale, ParsedQuestion, Usage

FEW_LETTERS = 100
"""So many are read in ten milliseconds at most, four times as many in some 40 to 60."""


class LocalText:
    """Shared by all jobs of a process."""

    name = f"{LOCAL}/words"

    def __init__(self, lexicon_reader: LexiconReader) -> None:
        self._reader = lexicon_reader

    async def read(self, question: str, locale: Locale) -> tuple[ParsedQuestion, Usage]:
        """On the loop, which a short question holds for a few milliseconds; a long one is read on a thread.

        Never raises, whatever the question holds.
        """
        if len(question) > FEW_LETTERS:
            return await asyncio.to_thread(self._reader.read, question, locale), Usage()
        return self._reader.read(question, locale), Usage()
