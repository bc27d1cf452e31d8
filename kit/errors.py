"""Errors of guarded HTTP (`kit.address`, `kit.http`). Each caller translates them into its own words at one seam.

    HttpError
    ├── UnsafeUrl            the URL, its port or an address behind its name must not be called
    ├── HostNotFound         there is no such name
    ├── Timeout
    │   ├── ConnectTimeout   no connection in time: lookup, TCP and TLS together
    │   └── ReadTimeout      the server was silent for too long while it should send
    └── Unreachable          the lookup failed, the connection was refused or cut, TLS failed, or the reply is not HTTP

`str(error)` is for logs: host, path and kind of failure. It never holds a query, which may be a credential.
"""


class HttpError(Exception):
    """Base of the tree. Only its leaves are raised."""


class UnsafeUrl(HttpError):
    """The URL, its port or an address behind its name must not be called. Trying again does not help."""


class HostNotFound(HttpError):
    """The name servers answered that there is no such name."""


class Timeout(HttpError):
    """A limit of the client passed."""


class ConnectTimeout(Timeout):
    """There was no connection in time: lookup, TCP and TLS together."""


class ReadTimeout(Timeout):
    """The server was silent for too long while it should send."""


class Unreachable(HttpError):
    """The lookup failed, the connection was refused or cut, TLS failed, or the reply is not HTTP."""
