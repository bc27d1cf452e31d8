import pytest
from structlog.testing import capture_logs

from jobs.model import OverBudget
from pipeline.errors import ModelBudgetExhausted
from workers.execute.budget import Budget


@pytest.mark.parametrize(("limit", "spent"), [(None, 1e9), (1.0, 0.0), (1.0, 0.999999)])
def test_calls_go_on_below_the_budget_or_without_one(limit: float | None, spent: float) -> None:
    budget = Budget(limit)
    budget.check()
    budget.update(spent)
    budget.check()


@pytest.mark.parametrize(("limit", "spent"), [(1.0, 1.0), (1.0, 7.5), (0.0, 0.0)])
def test_no_call_is_made_once_it_is_used_up(limit: float, spent: float) -> None:
    budget = Budget(limit)
    budget.update(spent)
    with pytest.raises(ModelBudgetExhausted):
        budget.check()


def test_a_new_day_renews_it_and_each_change_is_logged_once() -> None:
    budget = Budget(1.0)
    with capture_logs() as logs:
        for spent in (0.5, 1.2, 1.3, 0.0, 0.1):
            budget.update(spent)
    budget.check()
    assert [entry["event"] for entry in logs] == ["budget.used_up", "budget.renewed"]


@pytest.mark.parametrize(("then", "early"), [(OverBudget.LOCAL, True), (OverBudget.REFUSE, False)])
def test_only_a_job_with_somewhere_else_to_go_is_told_before_its_photo_is_there(
    then: OverBudget, *, early: bool
) -> None:
    assert Budget(1.0, then).is_checked_early is early
