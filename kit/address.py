"""The address guard: may we connect to this URL, to this IP address? Pure: resolves no name, opens no connection.

Called at submit, at connect with the address that is dialled, at each redirect, and for webhook targets.
"""

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import quote

import idna

from kit.errors import UnsafeUrl

MAX_URL_LENGTH = 8192
MAX_PORT = 65535

DEFAULT_PORTS = {"http": 80, "https": 443}

Address = IPv4Address | IPv6Address

_REFUSED_V4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's metadata and DNS service has a public-looking address.
    )
)  # fmt: skip
"""Always refused, whatever Python's `is_global` says: 3.11 calls multicast and 192.88.99.0/24 global."""

_GLOBAL_V6 = IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # IETF protocols: Teredo (which wraps an IPv4 address), ORCHID, benchmarking
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, wraps an IPv4 address
        "3fff::/20",  # documentation
    )
)
_ISATAP = (0x00005EFE, 0x02005EFE)
"""Upper half of an interface identifier that wraps an IPv4 address (RFC 5214)."""

_SPECIAL_NAMES = ("localhost", "localdomain", "local", "internal", "home.arpa", "metadata.goog", "onion")
"""Names that never mean a public host, and neither do names below them; cloud metadata services among them."""

_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<rest>[^#]*)", re.IGNORECASE | re.ASCII)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]+)(?::(?P<port>[0-9]{0,5}))?", re.ASCII)
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_VALID_CHARACTERS = "%/:?[]@!$&'()*+,;="


@dataclass(frozen=True, slots=True)
class CheckedUrl:
    """A URL that passed the guard. `url` is sent as it is: ASCII, no fragment; it may hold credentials."""

    url: str = field(repr=False)
    scheme: str
    host: str
    port: int
    path: str

    @property
    def log_url(self) -> str:
        """Host and the first 200 characters of the path: for logs, because a query may be a credential."""
        return f"{self.host}{self.path[:200]}"


@dataclass(frozen=True, slots=True)
class _Exemption:
    """One entry of FETCH_ALLOW: a name or a network, on one port or on all."""

    target: str | IPv4Network | IPv6Network
    port: int | None

    def covers_host(self, host: str, port: int) -> bool:
        return self.target == host and self.port in {None, port}

    def covers_ip(self, ip: Address, port: int) -> bool:
        if isinstance(self.target, str) or ip.version != self.target.version:
            return False
        return ip in self.target and self.port in {None, port}


class AddressGuard:
    """Checks a URL by its text (`check_url`) and the address that is about to be dialled (`check_ip`).

    `allow` is FETCH_ALLOW: `host`, `host:port`, IP, `IP:port`, `[IPv6]:port` or CIDR, separated by commas. These
    targets are exempt from the checks of address and port. Raises ValueError if an entry is none of these.
    """

    def __init__(self, allow: str, ports: tuple[int, ...]) -> None:
        self._ports = frozenset(ports)
        self._exemptions = tuple(_exemption(entry.strip()) for entry in allow.split(",") if entry.strip())

    def check_url(self, url: str) -> CheckedUrl:
        """Raise UnsafeUrl unless the URL may be tried. Resolves no name: `check_ip` checks the address at connect."""
        checked = _parse(url)
        ip = _ip_of(checked.host)
        if self._is_exempt(checked.host, ip, checked.port):
            return checked
        if checked.port not in self._ports:
            raise UnsafeUrl(f"port {checked.port} of {checked.host} is not allowed")
        if ip is not None:
            _require_global(ip, checked.host)
        elif _is_special(checked.host):
            raise UnsafeUrl(f"{checked.host} is not a public name")
        return checked

    def check_ip(self, ip: str, *, host: str, port: int) -> None:
        """Raise UnsafeUrl unless `ip`, to which `host` resolved, may be dialled."""
        try:
            address = ip_address(ip)
        except ValueError:
            raise UnsafeUrl(f"{host} has no IP address") from None
        if not self._is_exempt(host, address, port):
            _require_global(address, host)

    def _is_exempt(self, host: str, ip: Address | None, port: int) -> bool:
        return any(
            exemption.covers_host(host, port) or (ip is not None and exemption.covers_ip(ip, port))
            for exemption in self._exemptions
        )


def is_global(ip: Address) -> bool:
    """Whether an address is a host on the public internet. IPv6 addresses that wrap an IPv4 address are not."""
    if isinstance(ip, IPv4Address):
        return ip.is_global and not any(ip in network for network in _REFUSED_V4)
    if ip.scope_id is not None or ip not in _GLOBAL_V6 or any(ip in network for network in _REFUSED_V6):
        return False
    return ip.is_global and (int(ip) >> 32) & 0xFFFFFFFF not in _ISATAP


def _require_global(ip: Address, host: str) -> None:
    if not is_global(ip):
        raise UnsafeUrl(f"{host} is at {ip}, which is not public")


def _parse(url: str) -> CheckedUrl:
    url = url.strip(" ")
    if len(url) > MAX_URL_LENGTH:
        raise UnsafeUrl("the URL is too long")
    if _FORBIDDEN.search(url):
        raise UnsafeUrl("the URL holds a control character or a backslash")
    parts = _URL.match(url)
    if parts is None:
        raise UnsafeUrl("the URL is not http or https")
    if "@" in parts["authority"]:
        raise UnsafeUrl("the URL names a user")
    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None:
        raise UnsafeUrl("the URL has no valid host and port")
    scheme = parts["scheme"].lower()
    port = int(authority["port"] or DEFAULT_PORTS[scheme])
    if port > MAX_PORT:
        raise UnsafeUrl("the URL has no valid host and port")
    host = _ascii_host(authority["host"])
    rest = _ascii_rest(parts["rest"])
    netloc = f"[{host}]" if ":" in host else host
    if port != DEFAULT_PORTS[scheme]:
        netloc += f":{port}"
    sent = f"{scheme}://{netloc}{rest}"
    if len(sent) > MAX_URL_LENGTH:
        raise UnsafeUrl("the URL is too long")
    return CheckedUrl(url=sent, scheme=scheme, host=host, port=port, path=rest.partition("?")[0])


def _ascii_rest(rest: str) -> str:
    """Path and query as sent: valid characters verbatim, so that signatures hold; others percent-encoded."""
    if not rest.startswith("/"):
        rest = "/" + rest
    try:
        return quote(rest, safe=_VALID_CHARACTERS, errors="surrogateescape")
    except UnicodeEncodeError:
        raise UnsafeUrl("the URL is not valid Unicode") from None


def _ascii_host(host: str) -> str:
    if host.startswith("["):
        return _ipv6_literal(host[1:-1])
    name = _ascii_name(host).removesuffix(".")
    if not _NAME.fullmatch(name):
        raise UnsafeUrl("the URL's host is not a name")
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        return _ipv4_literal(name)
    return name


def _ascii_name(host: str) -> str:
    """The host as a resolver sees it: lower-case ASCII; full-width digits and Unicode dots become plain ones."""
    if host.isascii():
        return host.lower()
    if len(host) > 253:  # noqa: PLR2004 - the longest name in DNS; idna is slow on longer ones
        raise UnsafeUrl("the URL's host is too long")
    try:
        return idna.encode(host, uts46=True).decode().lower()
    except idna.IDNAError:
        pass  # IDNA 2003 still knows names that 2008 dropped: emoji and underscores.
    try:
        return host.encode("idna").decode().lower()
    except UnicodeError:
        raise UnsafeUrl("the URL's host is not a name") from None


def _ipv4_literal(name: str) -> str:
    """Resolvers read a host that ends in a number as an IPv4 address. Only the dotted decimal spelling passes."""
    try:
        return str(IPv4Address(name))
    except ValueError:
        raise UnsafeUrl("the URL's host is an unusual spelling of an IP address") from None


def _ipv6_literal(text: str) -> str:
    try:
        ip = IPv6Address(text)
    except ValueError:
        raise UnsafeUrl("the URL's host is not an IP address") from None
    if ip.scope_id is not None:
        raise UnsafeUrl("the URL's host has a zone")
    return str(ip)


def _ip_of(host: str) -> Address | None:
    if ":" in host or host.rpartition(".")[2].isdigit():
        return ip_address(host)
    return None


def _is_special(name: str) -> bool:
    if "." not in name:
        return True
    return any(name == special or name.endswith(f".{special}") for special in _SPECIAL_NAMES)


def _exemption(entry: str) -> _Exemption:
    if "/" in entry:
        return _Exemption(ip_network(entry, strict=False), None)
    if entry.count(":") > 1 and not entry.startswith("["):
        return _Exemption(ip_network(entry), None)
    authority = _AUTHORITY.fullmatch(entry)
    if authority is None:
        raise ValueError(f"not a host, IP or CIDR: {entry!r}")
    port = int(authority["port"]) if authority["port"] else None
    try:
        host = _ascii_host(authority["host"])
    except UnsafeUrl as error:
        raise ValueError(f"not a host, IP or CIDR: {entry!r}") from error
    ip = _ip_of(host)
    return _Exemption(host if ip is None else ip_network(ip), port)
