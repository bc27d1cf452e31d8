"""Stage 2, rules: Observation → RuleMatch. Pure."""

from pipeline.errors import RulesNoMatch
from pipeline.knowledge.insufficiency import Insufficiencies
from pipeline.knowledge.rulebook import Rulebook
from pipeline.types import Classification, Locale, NamedThing, Observation, RuleMatch


class RuleMatcher:
    def __init__(self, rulebook: Rulebook, insufficiencies: Insufficiencies) -> None:
        self._rulebook = rulebook
        self._insufficiencies = insufficiencies

    def knows(self, observation: Observation) -> bool:
        """Whether the taxonomy has every category and tag of a checkpoint, which older resources may have named."""
        things: tuple[Observation | NamedThing, ...] = (observation, *observation.others)
        categories = [each.classification for each in things]
        tags = {tag for each in things for tag in each.situation_tags}
        middles = {each.middle_category for each in categories}
        middles |= {each.middle_category for each in observation.candidates}
        return (
            middles <= set(self._rulebook.middles())
            and tags <= set(self._rulebook.tags)
            and all(
                each.minor_category in {None, *self._rulebook.minors_of(each.middle_category)} for each in categories
            )
        )

    def match(self, observation: Observation, locale: Locale) -> RuleMatch:
        """The rule of each observed category; the one of 미분류 is advice. Raises RulesNoMatch."""
        first = self._match(observation.classification, observation.situation_tags, locale)
        others = (self._match(each.classification, each.situation_tags, locale) for each in observation.others)
        return first.model_copy(update={"others": tuple(others)})

    def _match(self, classification: Classification, tags: tuple[str, ...], locale: Locale) -> RuleMatch:
        category = classification.middle_category
        document = self._rulebook.rule(category, locale)
        if document is None:
            raise RulesNoMatch(f"the rulebook has no rule for {category}")
        return RuleMatch(
            key=self._rulebook.middle(category).id,
            category=category,
            document=document,
            insufficiencies=self._insufficiencies.missing(category, tags),
        )
