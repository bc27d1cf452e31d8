"""things.yaml: which of the things that the local model can name are of which category."""

from pydantic import RootModel

THINGS = "things.yaml"


class Things(RootModel[dict[str, dict[int, str]]]):
    """Middle category → index of an output of the second head → the name of that thing."""

    @property
    def category_of(self) -> dict[int, str]:
        return {index: category for category, group in self.root.items() for index in group}
