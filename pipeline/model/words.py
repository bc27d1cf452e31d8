"""The local reader of questions: a lexicon and a grammar (docs/chat-text.md), no model and no network."""

from pathlib import Path

from pipeline.grammar import Grammar
from pipeline.lexicon import Lexicon
from pipeline.matcher import Matcher
from pipeline.model import LOCAL
from pipeline.rulebook import Rulebook
from pipeline.types import Locale, Reading


class LocalText:
    """Holds some megabytes of names; share it among all jobs of a process."""

    name = f"{LOCAL}/words"

    def __init__(self, resources: Path, rulebook: Rulebook) -> None:
        """Blocks while the files load. Raises ValueError naming every mistake of lexicon or grammar."""
        self._matcher = Matcher(Lexicon.load(resources, rulebook), Grammar.load(resources, rulebook), rulebook)

    async def read(self, question: str, locale: Locale) -> Reading:
        """Takes a millisecond or two, so it runs on the loop. Never raises, whatever the question holds."""
        return self._matcher.read(question, locale)
