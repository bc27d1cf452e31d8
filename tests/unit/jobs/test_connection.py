"""Which error replies of Redis count as an outage, in the wordings of the versions in use."""

import pytest
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from jobs.errors import LedgerUnavailable
from jobs.redis.connection import translated

IN_A_SCRIPT_OF_6 = "ERR Error running script (call to f_a7f3): @user_script:1: "
"""Redis 6.2.5 wraps the reply to a script's own command; since Redis 7 the reply stands by itself."""


@pytest.mark.parametrize(
    "error",
    [
        ResponseError(
            IN_A_SCRIPT_OF_6 + "@user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.",
            status_code="ERR",
        ),
        ResponseError(
            IN_A_SCRIPT_OF_6 + "@user_script: 1: -READONLY You can't write against a read only replica.",
            status_code="ERR",
        ),
        OutOfMemoryError(
            "command not allowed when used memory > 'maxmemory'. script: a7f3, on @user_script:1.", status_code="OOM"
        ),
        ReadOnlyError("You can't write against a read only replica.", status_code="READONLY"),
        ResponseError("NOREPLICAS Not enough good replicas to write."),
    ],
    ids=["6-script-oom", "6-script-readonly", "8-script-oom", "readonly", "noreplicas"],
)
def test_a_redis_that_cannot_serve_is_an_unavailable_ledger(error: ResponseError) -> None:
    with pytest.raises(LedgerUnavailable), translated():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        ResponseError(
            IN_A_SCRIPT_OF_6 + "WRONGTYPE Operation against a key holding the wrong kind of value", status_code="ERR"
        ),
        ResponseError(
            "WRONGTYPE Operation against a key holding the wrong kind of value script: aa97, on @user_script:1."
        ),
    ],
    ids=["6", "8"],
)
def test_a_mistake_of_ours_in_a_script_stays_what_it_is(error: ResponseError) -> None:
    with pytest.raises(ResponseError), translated():
        raise error
