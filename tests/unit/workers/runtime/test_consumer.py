"""The worker refuses to start on a Celery whose consumer is not the one we change."""

import pytest
from celery.worker.consumer import Consumer as CeleryConsumer

from workers.runtime.consumer import DELAYED_DELIVERY, OVERRIDDEN, Consumer, check_consumer


def consumer_without(name: str) -> type:
    """A class with what Celery's consumer has, but for one method or step."""
    steps = [step for step in CeleryConsumer.Blueprint.default_steps if step != name]
    methods = {method: getattr(CeleryConsumer, method) for method in OVERRIDDEN if method != name}
    return type("Other", (), methods | {"Blueprint": type("Blueprint", (), {"default_steps": steps})})


def test_the_installed_celery_has_all_that_is_changed() -> None:
    check_consumer(CeleryConsumer)
    assert DELAYED_DELIVERY not in Consumer.Blueprint.default_steps


@pytest.mark.parametrize("name", [*OVERRIDDEN, DELAYED_DELIVERY])
def test_each_missing_piece_is_named_with_the_file_to_read(name: str) -> None:
    with pytest.raises(RuntimeError, match=f"no {name}: read workers/runtime/consumer.py"):
        check_consumer(consumer_without(name))


def test_the_check_runs_before_a_consumer_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CeleryConsumer.Blueprint, "default_steps", [])
    with pytest.raises(RuntimeError):
        Consumer(lambda _: None)
