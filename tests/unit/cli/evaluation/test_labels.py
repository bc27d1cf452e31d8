"""Labels of data sets lead to middle categories, or are named as unknown."""

from pathlib import Path
from unicodedata import normalize

import pytest

from cli.evaluation.labels import Labels, load_labels
from cli.evaluation.records import CannotEvaluate, Labelled
from pipeline.knowledge.rulebook import Rulebook
from pipeline.settings import RESOURCES


@pytest.fixture(scope="module")
def rulebook() -> Rulebook:
    return Rulebook.load(RESOURCES)


def truth(labels: Labels, label: str) -> str:
    [photo] = labels.apply([Labelled("a.jpg", Path("a.jpg"), label)])
    return photo.truth


@pytest.mark.parametrize(
    ("label", "category"),
    [
        ("유리병", "유리병"),
        (normalize("NFD", "유리병"), "유리병"),
        ("glass_bottle", "유리병"),
        ("Glass bottles", "유리병"),
        ("GLASS", "유리병"),
        ("cardboard", "종이"),
        ("trash", "일반종량제폐기물"),
        ("unclassified", "미분류"),
    ],
)
def test_a_label_may_be_a_name_an_id_or_a_class_of_the_local_model(
    rulebook: Rulebook, label: str, category: str
) -> None:
    assert truth(load_labels(rulebook, RESOURCES, None), label) == category


def test_every_category_goes_by_each_of_its_names(rulebook: Rulebook) -> None:
    labels = load_labels(rulebook, RESOURCES, None)
    middles = [rulebook.middle(name) for name in rulebook.middles()]
    assert all(truth(labels, name) == each.ko for each in middles for name in (each.ko, each.id, each.en))


def test_unknown_labels_are_all_named_with_what_is_known(rulebook: Rulebook) -> None:
    labels = Labels(rulebook, {"glass": "유리병"})
    photos = [Labelled(f"{n}.jpg", Path(), label) for n, label in enumerate(("jar", "glass", "tin", "tin"))]
    with pytest.raises(CannotEvaluate) as caught:
        labels.apply(photos)
    assert all(named in str(caught.value) for named in ("jar (1)", "tin (2)", "glass_bottle", "미분류"))


def test_a_map_comes_first_and_may_lead_to_any_known_name(rulebook: Rulebook) -> None:
    labels = Labels(rulebook, {"glass": "유리병"}, {"jar": "glass", "glass": "noncombustible"})
    assert (truth(labels, "jar"), truth(labels, "glass")) == ("유리병", "불연성종량제폐기물")


def test_a_class_can_leave_open_what_it_means_unless_a_map_says_so(rulebook: Rulebook) -> None:
    photos = [Labelled("a.jpg", Path("a.jpg"), "Plastic"), Labelled("b.jpg", Path("b.jpg"), "플라스틱류")]
    classes, also = {"plastic": "플라스틱류"}, {"plastic": ["무색페트병"]}
    loose, exact = Labels(rulebook, classes, also=also).apply(photos)
    assert (loose.truth, loose.also, exact.also) == ("플라스틱류", frozenset({"무색페트병"}), frozenset())
    [mapped, _] = Labels(rulebook, classes, {"plastic": "플라스틱류"}, also).apply(photos)
    assert mapped.also == frozenset()


def test_a_map_to_what_is_no_category_is_refused(rulebook: Rulebook) -> None:
    with pytest.raises(CannotEvaluate, match="ceramics"):
        Labels(rulebook, {}, {"cup": "ceramics"})


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1}', "no JSON"])
def test_a_file_that_is_no_map_is_refused(rulebook: Rulebook, tmp_path: Path, text: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(CannotEvaluate):
        load_labels(rulebook, RESOURCES, path)
