"""ImageNet labels → waste categories, from local_model/things.yaml: the second head of the local model names things."""

from pydantic import RootModel

LABELS_FILE = "things.yaml"


class ImagenetLabels(RootModel[dict[str, dict[int, str]]]):
    """Middle category → output index of the second head → name of that thing."""

    @property
    def category_of(self) -> dict[int, str]:
        return {index: category for category, group in self.root.items() for index in group}
