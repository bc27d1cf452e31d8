"""Reads a question: which things does it name, in which state, and is it about waste at all? Pure; data decides.

Names are found by `names`, states by `situation`; here is what the things of one question are to one another: a
container and what it held, a thing and its parts, a thing and the bin that somebody asks about.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from pipeline.knowledge.grammar import Grammar
from pipeline.knowledge.lexicon import Lexicon, key
from pipeline.knowledge.rulebook import Rulebook
from pipeline.questions.mentions import MOST_LETTERS, Mention, MentionFinder, blanked, normalised, words_of
from pipeline.questions.situations import Said, situations
from pipeline.questions.unknown_items import lists_unknown
from pipeline.types import Classification, Locale, NamedThing, NotWaste, Reading, ThingsNamed, UnknownThing

REACH = 6
"""A container is looked for among so many words after what it held: "요거트 다 먹고 남은 통"."""

FEW_WORDS = 2
"""A question of so few words is a name, known or not: "짐볼링기"."""

BRACKETS = frozenset("([\uff08\uff3b")
"""What stands in them says more of a thing, and is none of its own: "냄비(스텐)". The full-width ones too."""

ADNOMINAL = "\u11ab"
"""The final ㄴ of a Korean verb that qualifies the noun after it: 붙은, 깨진, 남는."""

Mentions = list[Mention]


class Matcher:
    """Immutable; shared by all questions."""

    def __init__(self, lexicon: Lexicon, grammar: Grammar, rulebook: Rulebook) -> None:
        self._grammar = grammar
        self._rulebook = rulebook
        self._finder = MentionFinder(lexicon, grammar, rulebook)
        self._parts = frozenset(map(key, grammar.parts))
        self._ambiguous = frozenset(map(key, grammar.ambiguous))
        self._by_material = frozenset(map(key, grammar.by_material))
        self._materials = {key(name): each.category for each in grammar.materials for name in each.names}

    def read(self, question: str, locale: Locale) -> Reading:
        """Either language, whatever the locale, which is that of the names in the answer. Never raises."""
        text = normalised(question)
        # What is not read whole may be about waste all the same.
        nothing: Reading = UnknownThing() if len(question) > MOST_LETTERS else NotWaste()
        about_waste = self._grammar.disposal.either.search(text) is not None
        if self._grammar.off_topic.either.search(text) and not about_waste:
            return nothing
        said = situations(text, self._grammar)
        readable, mentions = self._found(text)
        if mentions:
            things = self._sorted_out(readable, mentions, said)
            return ThingsNamed(
                things=tuple(self._named(thing, things, said, text, locale) for thing in things),
                has_unknown=BRACKETS.isdisjoint(question)
                and lists_unknown(readable, mentions, said, self._grammar.listing),
            )
        discarded = self._grammar.discarded.either.search(text) is not None
        if about_waste or discarded or len(words_of(text.replace(",", " "))) <= FEW_WORDS:
            return UnknownThing()
        return nothing

    def _found(self, text: str) -> tuple[str, Mentions]:
        """The text without the bins that somebody asks about is read first: often they are all that is left."""
        masked = blanked(text, self._grammar.masks.either)
        for readable in (blanked(masked, self._grammar.destinations.either), masked):
            mentions = self._finder.find(readable)
            if mentions:
                return readable, mentions
        return masked, []

    def _sorted_out(self, text: str, mentions: Mentions, said: list[Said]) -> Mentions:
        steps: tuple[Callable[[str, Mentions], Mentions], ...] = (
            self._rejoined,
            self._without_lone_context,
            self._without_context,
            self._of_its_material,
            self._without_modifiers,
            self._without_parts,
            self._without_ambiguous,
        )
        mentions = _without_circumstances(mentions, said)
        for step in steps:
            mentions = step(text, mentions)
        return mentions

    def _rejoined(self, text: str, mentions: Mentions) -> Mentions:
        """What a container held, and a container further on, are one name: "참기름 다 쓴 병"."""
        joined: Mentions = []
        for mention in mentions:
            if joined and mention.start < joined[-1].end:
                continue
            joined.append(self._container_of(text, mention) or mention)
        return joined

    def _container_of(self, text: str, held: Mention) -> Mention | None:
        rest = text[held.end :].partition(",")[0]
        if not self._grammar.relations.first_is_context.either.match(rest):
            return None
        for word in words_of(rest)[:REACH]:
            for cut in range(len(word.text), 0, -1):
                end = held.end + word.start + cut
                for begin in self._beginnings(text, held):
                    name = key(text[begin : held.end]) + key(word.text[:cut])
                    if (mention := self._finder.named(name, begin, end, word.text[cut:])) is not None:
                        return mention
        return None

    def _beginnings(self, text: str, mention: Mention) -> list[int]:
        """Of a name of several words, the last words may be the name's core: "커피 원두"."""
        return [mention.start + word.start for word in words_of(text[mention.start : mention.end])]

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
        if first.place.middle_category in self._grammar.dangerous and relations.left_inside.either.match(between):
            return False
        if relations.first_is_vessel.either.match(between):
            return first.key not in self._parts
        return relations.first_is_context.either.match(between) is not None

    def _has_context(self, first: Mention, between: str) -> bool:
        relations = self._grammar.relations
        patterns = [relations.second_is_context, relations.first_is_vessel]
        if first.place.middle_category in self._grammar.dangerous:
            patterns.append(relations.left_inside)
        return any(pattern.either.match(between) for pattern in patterns)

    def _of_its_material(self, text: str, mentions: Mentions) -> Mentions:
        """A steel bowl ("스텐 그릇") is metal, whatever a bowl most often is."""
        before = [None, *mentions[:-1]]
        return [self._made_of(text, one, mention) for one, mention in zip(before, mentions, strict=True)]

    def _made_of(self, text: str, before: Mention | None, mention: Mention) -> Mention:
        if mention.key not in self._by_material:
            return mention
        words = words_of(text[: mention.start])
        names = [before.key] if before and text[before.end : mention.start] == " " else []
        names += [key(words[-1].text)] if words else []
        category = next((self._materials[name] for name in names if name in self._materials), None)
        return replace(mention, place=self._rulebook.classification(category, None)) if category else mention

    def _without_modifiers(self, text: str, mentions: Mentions) -> Mentions:
        """Of names side by side without a particle the last is the thing ("콜라 페트병"), unless it is a part."""
        return [
            first
            for first, second in zip(mentions, [*mentions[1:], None], strict=True)
            if second is None
            or second.key in self._parts
            or first.suffix
            or not self._finder.are_nouns(text[first.end : second.start])
        ]

    def _without_parts(self, text: str, mentions: Mentions) -> Mentions:
        del text
        return [mention for at, mention in enumerate(mentions) if at == 0 or mention.key not in self._parts]

    def _without_ambiguous(self, text: str, mentions: Mentions) -> Mentions:
        del text
        sure = [each for each in mentions if each.suffix or each.key not in self._ambiguous]
        return sure or mentions

    def _named(self, mention: Mention, mentions: Mentions, said: list[Said], text: str, locale: Locale) -> NamedThing:
        tags = tuple(each.tag for each in said if _of_which(each, mentions, text) is mention)
        return NamedThing(
            name=mention.ko if locale is Locale.KO else mention.en,
            classification=self._moved(mention.place, tags),
            situation_tags=tags,
            confidence=round(mention.confidence, 2),
        )

    def _moved(self, place: Classification, tags: tuple[str, ...]) -> Classification:
        for move in self._grammar.moves:
            if place.middle_category in move.origin and set(tags) & set(move.tags):
                return self._rulebook.classification(move.to, move.minor)
        return place


def _without_circumstances(mentions: Mentions, said: list[Said]) -> Mentions:
    """What is on a thing is no other thing: in "박스에 기름이 묻었어" the oil is a state of the box."""
    things = [
        mention
        for mention in mentions
        if not any(each.start <= mention.start and mention.end < each.end for each in said)
    ]
    return things or mentions[:1]


def _of_which(said: Said, mentions: Mentions, text: str) -> Mention:
    """A state is mostly said behind its thing ("박스에 기름이 묻었어"), or right before it ("라벨 붙은 소주병")."""
    word_end = text.find(" ", said.end) if " " in text[said.end :] else len(text)
    qualified = [mention for mention in mentions if mention.start == word_end + 1]
    if qualified and unicodedata.normalize("NFD", text[word_end - 1]).endswith(ADNOMINAL):
        return qualified[0]

    def distance(mention: Mention) -> int:
        if mention.start < said.end and said.start < mention.end:  # "broken glass" is a name that says its state.
            return 0
        return said.start - mention.end if mention.end <= said.start else 2 * abs(mention.start - said.end) + 1

    return min(mentions, key=distance)
