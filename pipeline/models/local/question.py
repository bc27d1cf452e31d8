"""The local reader of questions: a lexicon and a grammar (docs/chat-text.md), no model and no network."""

import asyncio

from pipeline.models import LOCAL
from pipeline.questions.reader import Matcher
from pipeline.types import Locale, Reading, Usage

FEW_LETTERS = 100
"""So many are read in ten milliseconds at most, four times as many in some 40 to 60."""


class LocalText:
    """Shared by all jobs of a process."""

    name = f"{LOCAL}/words"

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher

    async def read(self, question: str, locale: Locale) -> tuple[Reading, Usage]:
        """On the loop, which a short question holds for a few milliseconds; a long one is read on a thread.

        Never raises, whatever the question holds.
        """
        if len(question) > FEW_LETTERS:
            return await asyncio.to_thread(self._matcher.read, question, locale), Usage()
        return self._matcher.read(question, locale), Usage()
