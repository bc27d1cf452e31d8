"""Stage 2: Observation → RuleMatch. Pure."""

from pipeline.errors import RulesNoMatch
from pipeline.insufficiency import Insufficiencies
from pipeline.rulebook import Rulebook
from pipeline.types import Locale, Observation, RuleMatch


class RuleMatcher:
    def __init__(self, rulebook: Rulebook, insufficiencies: Insufficiencies) -> None:
        self._rulebook = rulebook
        self._insufficiencies = insufficiencies

    def knows(self, observation: Observation) -> bool:
        """Whether the taxonomy has every name in it: one made under other resources may hold names that are gone."""
        seen = observation.classification
        middles = {seen.middle_category, *(each.middle_category for each in observation.candidates)}
        return (
            middles <= set(self._rulebook.middles())
            and set(observation.situation_tags) <= set(self._rulebook.tags)
            and seen.minor_category in {None, *self._rulebook.minors_of(seen.middle_category)}
        )

    def match(self, observation: Observation, locale: Locale) -> RuleMatch:
        """The rule of the observed category; for 미분류 it is advice. Raises RulesNoMatch."""
        category = observation.classification.middle_category
        document = self._rulebook.rule(category, locale)
        if document is None:
            raise RulesNoMatch(f"the rulebook has no rule for {category}")
        return RuleMatch(
            key=self._rulebook.middle(category).id,
            category=category,
            document=document,
            insufficiencies=self._insufficiencies.missing(category, observation.situation_tags),
        )
