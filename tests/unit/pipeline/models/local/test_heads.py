"""The two heads of the local model together, on outputs made by hand."""

import numpy as np
import pytest

from pipeline.models.local.heads import HeadBlend

CLASSES = ["종이", "종이", "유리병"]
THINGS = {1: "음식물류폐기물", 2: "음식물류폐기물", 4: "유리병"}
BLEND = HeadBlend.of(CLASSES, THINGS, 5, temperature=2.0, ood_limit=1.0, trust_threshold=0.5, trust_slope=3.0)


def blended(classes: list[float], things: list[float], ood_score: float = 0.0) -> dict[str, float]:
    """Probabilities in, so that the test can be read; the logits are those at the temperature."""
    logits, named = np.log([classes]) * 2.0, np.log([things])
    (row,) = BLEND.probabilities(logits, named, np.array([ood_score]))
    return dict(zip(BLEND.categories, row.tolist(), strict=True))


def test_where_nothing_is_named_the_first_head_decides_and_its_classes_of_one_category_add_up() -> None:
    probabilities = blended([0.3, 0.2, 0.5], [0.96, 0.01, 0.01, 0.01, 0.01])
    assert probabilities["종이"] == pytest.approx(0.5, abs=0.01)
    assert probabilities["유리병"] == pytest.approx(0.5, abs=0.01)


def test_a_thing_that_is_named_wins_over_the_first_head_and_things_of_one_category_add_up() -> None:
    probabilities = blended([0.98, 0.01, 0.01], [0.04, 0.45, 0.45, 0.05, 0.01])
    assert max(probabilities, key=lambda name: probabilities[name]) == "음식물류폐기물"
    assert probabilities["음식물류폐기물"] > 0.9


def test_at_the_threshold_both_heads_count_the_same() -> None:
    probabilities = blended([0.5, 0.5, 1e-9], [0.5, 0.25, 0.25, 1e-9, 1e-9])
    assert probabilities["종이"] == pytest.approx(0.5, abs=0.01)
    assert probabilities["음식물류폐기물"] == pytest.approx(0.5, abs=0.01)


def test_things_without_a_category_do_not_count() -> None:
    sure_of_an_unmapped_one = blended([0.9, 0.05, 0.05], [0.01, 0.01, 0.01, 0.96, 0.01])
    assert sure_of_an_unmapped_one["종이"] > 0.9


def test_out_of_distribution_only_the_second_head_counts() -> None:
    nothing = blended([0.98, 0.01, 0.01], [0.96, 0.01, 0.01, 0.01, 0.01], ood_score=1.1)
    assert sum(nothing.values()) < 0.01
    fruit = blended([0.98, 0.01, 0.01], [0.02, 0.95, 0.01, 0.01, 0.01], ood_score=1.1)
    assert fruit["음식물류폐기물"] > 0.9


def test_rows_sum_to_one_and_do_not_depend_on_each_other() -> None:
    random = np.random.default_rng(0)
    logits, things = random.normal(size=(50, 3)), random.normal(size=(50, 5)) * 4
    together = BLEND.probabilities(logits, things, np.zeros(50))
    assert together.sum(axis=1) == pytest.approx(np.ones(50))
    alone = [BLEND.probabilities(logits[i : i + 1], things[i : i + 1], np.zeros(1))[0] for i in range(50)]
    assert together == pytest.approx(np.array(alone))
