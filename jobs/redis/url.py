"""URLs of Redis and of the broker, converted to the forms of redis-py and kombu. Pure."""

from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

REDIS_SCHEMES = ("redis://", "rediss://", "unix://", "sentinel://")
SENTINEL_PORT = 26379


@dataclass(frozen=True)
class Sentinels:
    """A Redis that Sentinels watch: they are asked which server is the master now, at each connection.

    User and password are the servers' own; `sentinel_password` is the Sentinels'.
    """

    hosts: tuple[tuple[str, int], ...]
    master: str
    db: int
    username: str | None
    password: str | None
    sentinel_password: str | None

    @classmethod
    def parse(cls, url: str) -> Self:
        """`sentinel://[[user]:password@]host[:port],…/master[/db][?sentinel_password=…]`.

        Raises ValueError, which says nothing of the URL: it may hold a password.
        """
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        master, _, db = parts.path.strip("/").partition("/")
        query = parse_qs(parts.query)
        if not hosts or not master or not (db or "0").isdecimal() or set(query) - {"sentinel_password"}:
            raise ValueError("not like sentinel://host:26379,other:26379/master/0")
        return cls(
            hosts=tuple(map(_host_and_port, hosts.split(","))),
            master=unquote(master),
            db=int(db or 0),
            username=unquote(user) or None,
            password=unquote(password) or None,
            sentinel_password=query.get("sentinel_password", [None])[0],
        )


def sentinels(url: str) -> Sentinels | None:
    return Sentinels.parse(url) if url.startswith("sentinel://") else None


def is_redis(url: str) -> bool:
    return url.startswith(REDIS_SCHEMES)


def kombu_url(url: str) -> tuple[str, dict[str, Any]]:
    """The URL as kombu spells it, and the transport options that go with it."""
    if url.startswith("unix://"):
        return f"redis+socket://{url.removeprefix('unix://')}", {}
    if url.startswith("rediss://") and "ssl_cert_reqs=" not in url:
        # redis-py checks the certificate by default; kombu does not.
        return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required", {}
    if (watched := sentinels(url)) is None:
        return url, {}
    login, at, _ = urlsplit(url).netloc.rpartition("@")
    each = (f"sentinel://{login}{at}{host}:{port}/{watched.db}" for host, port in watched.hosts)
    return ";".join(each), {"master_name": watched.master, "sentinel_kwargs": {"password": watched.sentinel_password}}


def _host_and_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a Sentinel without a host")
    return parts.hostname, parts.port or SENTINEL_PORT
