"""Arguments of scripts go by name, in both languages."""

from typing import Any

import pytest

from jobs.redis.keys import FEED
from jobs.redis.signatures import ScriptSignature

SIGNATURE = ScriptSignature(keys=("job", "feed"), args=("job_id", "token"), lists=("fields", "bodies"))
VALUES: dict[str, Any] = {"bodies": (), "fields": ["a", 1], "token": 7, "job_id": "id", "job": "key"}


def test_named_values_become_keys_and_arguments_with_fixed_keys_first() -> None:
    assert SIGNATURE.binder()(VALUES) == [FEED, "key", "id", 7, 2, "a", 1, 0]


@pytest.mark.parametrize("name", VALUES)
def test_a_missing_name_is_an_error(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        SIGNATURE.binder()({each: value for each, value in VALUES.items() if each != name})


@pytest.mark.parametrize("name", ["other", "feed"])
def test_an_unknown_name_and_one_that_is_fixed_are_errors(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        SIGNATURE.binder()(VALUES | {name: "x"})


def test_each_name_is_a_local_of_the_script() -> None:
    assert SIGNATURE.header.splitlines() == [
        "local feed, job = KEYS[1], KEYS[2]",
        "local job_id, token = ARGV[1], ARGV[2]",
        "local fields = 3",
        "local bodies = fields + ARGV[fields] + 1",
    ]
