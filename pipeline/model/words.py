"""The local reader of questions: a lexicon and a grammar (docs/chat-text.md), no model and no network."""

from pipeline.matcher import Matcher
from pipeline.model import LOCAL
from pipeline.types import Locale, Reading, Usage


class LocalText:
    """Shared by all jobs of a process."""

    name = f"{LOCAL}/words"

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher

    async def read(self, question: str, locale: Locale) -> tuple[Reading, Usage]:
        """Takes a millisecond or two, so it runs on the loop. Never raises, whatever the question holds."""
        return self._matcher.read(question, locale), Usage()
