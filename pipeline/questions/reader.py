"""Question reader without a model: question → things named, their situation tags, or not about waste. Pure.

Lexicon and grammar are data. `mentions.py` finds names, `situations.py` finds states; this file decides how the things
of one question relate: a container and its contents, a thing and its parts, a thing and the bin asked about.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from pipeline.knowledge.grammar import Grammar
from pipeline.knowledge.lexicon import Lexicon, name_key
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.questions.mentions import MAX_QUESTION_CHARS, Mention, MentionFinder, blank_out, normalise, split_words
from pipeline.questions.situations import TagMention, find_situation_tags
from pipeline.questions.unknown_items import lists_unknown
from pipeline.types import Classification, KnownThings, Locale, NamedThing, NotWaste, ParsedQuestion, UnknownThing

MAX_CONTAINER_DISTANCE_WORDS = 6
"""A container is searched for among this many words after its contents: "요거트 다 먹고 남은 통"."""

MAX_BARE_NAME_WORDS = 2
"""A question of at most this many words is taken for a name, known or not: "짐볼링기"."""

BRACKETS = frozenset("([\uff08\uff3b")
"""Text in brackets describes a thing and names no other: "냄비(스텐)". Full-width brackets as well."""

BRACKETED = re.compile(r"(\S{1,20})[(\uff08\uff3b]([^()\uff08\uff09\uff3b\uff3d]{1,14})[)\uff09\uff3d]")
"""A word and what stands in brackets right after it."""

ADNOMINAL = "\u11ab"
"""The final ㄴ of a Korean verb form that modifies the noun after it: 붙은, 깨진, 남는."""

Mentions = list[Mention]


class LexiconReader:
    """Immutable; shared by all questions."""

    def __init__(self, lexicon: Lexicon, grammar: Grammar, rulebook: Rulebook) -> None:
        self._grammar = grammar
        self._rulebook = rulebook
        self._finder = MentionFinder(lexicon, grammar, rulebook)
        self._parts = frozenset(map(name_key, grammar.parts))
        self._ambiguous = frozenset(map(name_key, grammar.ambiguous))
        self._by_material = frozenset(map(name_key, grammar.by_material))
        self._materials = {name_key(name): each.category for each in grammar.materials for name in each.names}

    def read(self, question: str, locale: Locale) -> ParsedQuestion:
        """Reads both languages; `locale` is the language of the names returned. Never raises.

        Takes up to 60 ms of CPU: the longest question that is read has MAX_QUESTION_CHARS.
        """
        text = normalise(BRACKETED.sub(self._material_first, question))
        # A question that was cut may be about waste in the part that is not read.
        nothing: ParsedQuestion = UnknownThing() if len(question) > MAX_QUESTION_CHARS else NotWaste()
        about_waste = self._grammar.disposal.either.search(text) is not None
        if self._grammar.off_topic.either.search(text) and not about_waste:
            return nothing
        tags = find_situation_tags(text, self._grammar)
        readable, mentions = self._found(text)
        if mentions:
            things = self._resolve(readable, mentions, tags)
            known = [thing for thing in things if thing.classification.middle_category != UNCLASSIFIED]
            if not known:
                return UnknownThing()
            return KnownThings(
                things=tuple(self._named(thing, things, tags, text, locale) for thing in known),
                has_unknown=len(known) < len(things)
                or (BRACKETS.isdisjoint(question) and lists_unknown(readable, mentions, tags, self._grammar.listing)),
            )
        discarded = self._grammar.discarded.either.search(text) is not None
        if about_waste or discarded or len(split_words(text.replace(",", " "))) <= MAX_BARE_NAME_WORDS:
            return UnknownThing()
        return nothing

    def _material_first(self, bracketed: re.Match[str]) -> str:
        """A material in brackets goes before a thing that is sorted by its material, and is dropped after others."""
        noun, material = bracketed[1], bracketed[2].removesuffix("재질").strip()
        if name_key(material) not in self._materials:
            return bracketed[0]
        return f"{material} {noun}" if name_key(noun) in self._by_material else noun

    def _found(self, text: str) -> tuple[str, Mentions]:
        """The text searched, and its mentions. A bin that is asked about counts only if nothing else is named."""
        masked = blank_out(text, self._grammar.masks.either)
        for readable in (blank_out(masked, self._grammar.destinations.either), masked):
            mentions = self._finder.find(readable)
            if mentions:
                return readable, mentions
        return masked, []

    def _resolve(self, text: str, mentions: Mentions, tags: list[TagMention]) -> Mentions:
        steps: tuple[Callable[[str, Mentions], Mentions], ...] = (
            self._rejoined,
            self._without_lone_context,
            self._without_context,
            self._by_its_material,
            self._without_modifiers,
            self._without_parts,
            self._without_ambiguous,
        )
        mentions = _without_states(mentions, tags)
        for step in steps:
            mentions = step(text, mentions)
        return mentions

    def _rejoined(self, text: str, mentions: Mentions) -> Mentions:
        """Contents and a container further on become one name: "참기름 다 쓴 병"."""
        joined: Mentions = []
        for mention in mentions:
            if joined and mention.start < joined[-1].end:
                continue
            joined.append(self._container_of(text, mention) or mention)
        return joined

    def _container_of(self, text: str, contents: Mention) -> Mention | None:
        rest = text[contents.end :].partition(",")[0]
        if not self._grammar.relations.first_is_context.either.match(rest):
            return None
        for word in split_words(rest)[:MAX_CONTAINER_DISTANCE_WORDS]:
            for cut in range(len(word.text), 0, -1):
                end = contents.end + word.start + cut
                for begin in self._beginnings(text, contents):
                    name = name_key(text[begin : contents.end]) + name_key(word.text[:cut])
                    if (mention := self._finder.find_name(name, begin, end, word.text[cut:])) is not None:
                        return mention
        return None

    def _beginnings(self, text: str, mention: Mention) -> list[int]:
        """Start of each word of the mention: in "커피 원두" the last words may be the core of the name."""
        return [mention.start + word.start for word in split_words(text[mention.start : mention.end])]

    def _without_lone_context(self, text: str, mentions: Mentions) -> Mentions:
        pattern = self._grammar.relations.only_context.either
        return [mention for mention in mentions if not pattern.match(text[mention.end :])] or mentions

    def _without_context(self, text: str, mentions: Mentions) -> Mentions:
        dropped: set[int] = set()
        for at, (first, second) in enumerate(pairwise(mentions)):
            between = text[first.end : second.start].rstrip()
            if "," in between:
                continue
            if self._is_context(first, between):
                dropped.add(at)
            elif at not in dropped and self._has_context(first, between):
                dropped.add(at + 1)
        return [mention for at, mention in enumerate(mentions) if at not in dropped]

    def _is_context(self, first: Mention, between: str) -> bool:
        relations = self._grammar.relations
        if first.classification.middle_category in self._grammar.dangerous and relations.left_inside.either.match(
            between
        ):
            return False
        if relations.first_is_vessel.either.match(between):
            return first.key not in self._parts
        return relations.first_is_context.either.match(between) is not None

    def _has_context(self, first: Mention, between: str) -> bool:
        relations = self._grammar.relations
        patterns = [relations.second_is_context, relations.first_is_vessel]
        if first.classification.middle_category in self._grammar.dangerous:
            patterns.append(relations.left_inside)
        return any(pattern.either.match(between) for pattern in patterns)

    def _by_its_material(self, text: str, mentions: Mentions) -> Mentions:
        """A material before a thing overrides its usual category: a steel bowl ("스텐 그릇") is metal."""
        before = [None, *mentions[:-1]]
        return [self._made_of(text, one, mention) for one, mention in zip(before, mentions, strict=True)]

    def _made_of(self, text: str, before: Mention | None, mention: Mention) -> Mention:
        if mention.key not in self._by_material:
            return mention
        words = split_words(text[: mention.start])
        names = [before.key] if before and text[before.end : mention.start] == " " else []
        names += [name_key(words[-1].text)] if words else []
        category = next((self._materials[name] for name in names if name in self._materials), None)
        return replace(mention, classification=self._rulebook.classification(category, None)) if category else mention

    def _without_modifiers(self, text: str, mentions: Mentions) -> Mentions:
        """Adjacent names without a particle are one thing, the last ("콜라 페트병"), unless the last is a part."""
        return [
            first
            for first, second in zip(mentions, [*mentions[1:], None], strict=True)
            if second is None
            or second.key in self._parts
            or first.suffix
            or not self._finder.is_bare_noun(text[first.end : second.start])
        ]

    def _without_parts(self, text: str, mentions: Mentions) -> Mentions:
        del text
        return [mention for at, mention in enumerate(mentions) if at == 0 or mention.key not in self._parts]

    def _without_ambiguous(self, text: str, mentions: Mentions) -> Mentions:
        del text
        sure = [each for each in mentions if each.suffix or each.key not in self._ambiguous]
        return sure or mentions

    def _named(
        self, mention: Mention, mentions: Mentions, found: list[TagMention], text: str, locale: Locale
    ) -> NamedThing:
        tags = tuple(each.tag for each in found if _owner(each, mentions, text) is mention)
        return NamedThing(
            name=mention.ko if locale is Locale.KO else mention.en,
            classification=self._recategorised(mention.classification, tags),
            situation_tags=tags,
            confidence=round(mention.confidence, 2),
        )

    def _recategorised(self, classification: Classification, tags: tuple[str, ...]) -> Classification:
        for change in self._grammar.moves:
            if classification.middle_category in change.origin and set(tags) & set(change.tags):
                return self._rulebook.classification(change.to, change.minor)
        return classification


def _without_states(mentions: Mentions, tags: list[TagMention]) -> Mentions:
    """Drops mentions inside the phrase of a tag: in "박스에 기름이 묻었어" the oil is a state of the box."""
    things = [
        mention
        for mention in mentions
        if not any(each.start <= mention.start and mention.end < each.end for each in tags)
    ]
    return things or mentions[:1]


def _owner(tag: TagMention, mentions: Mentions, text: str) -> Mention:
    """The mention that a tag describes: mostly the one before it ("박스에 기름이 묻었어").

    Or the one right after, if the tag modifies it ("라벨 붙은 소주병").
    """
    word_end = text.find(" ", tag.end) if " " in text[tag.end :] else len(text)
    qualified = [mention for mention in mentions if mention.start == word_end + 1]
    if qualified and unicodedata.normalize("NFD", text[word_end - 1]).endswith(ADNOMINAL):
        return qualified[0]

    def distance(mention: Mention) -> int:
        if mention.start < tag.end and tag.start < mention.end:  # The name "broken glass" contains its state.
            return 0
        return tag.start - mention.end if mention.end <= tag.start else 2 * abs(mention.start - tag.end) + 1

    return min(mentions, key=distance)
