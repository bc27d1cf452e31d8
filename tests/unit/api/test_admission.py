"""The key of the rate limit."""

import pytest
from starlette.requests import Request

from api.admission import rate_limit_key


def request_from(host: str | None) -> Request:
    return Request({"type": "http", "headers": [], "client": None if host is None else (host, 4711)})


@pytest.mark.parametrize(
    ("host", "caller"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("testclient", "testclient"),
        ("x" * 500, "x" * 64),
        (None, ""),
    ],
)
def test_a_caller_is_an_address_or_an_ipv6_customers_network(host: str | None, caller: str) -> None:
    assert rate_limit_key(request_from(host)) == caller
