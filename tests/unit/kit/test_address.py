"""The address guard: what it refuses in every spelling, what it lets through, and a property over both."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given

from kit.address import MAX_URL_LENGTH, AddressGuard
from kit.errors import UnsafeUrl
from tests.support.addresses import addresses, is_public, urls

PORTS = (80, 443, 8080, 8443)
GUARD = AddressGuard("", PORTS)

UNSAFE = [
    # schemes and shapes
    "ftp://photos.example.com/a.jpg", "file:///etc/passwd", "gopher://photos.example.com/", "data:image/png;base64,AA",
    "//photos.example.com/a.jpg", "photos.example.com/a.jpg", "http:photos.example.com", "http:///a.jpg", "http://",
    "https://:443/a.jpg", "http://photos.example.com:port/", "http://photos.example.com:８０/", "",
    # users, and hosts that look like others
    "http://user@photos.example.com/", "http://user:word@photos.example.com/", "http://8.8.8.8@10.0.0.1/",
    "http://photos.example.com\\@10.0.0.1/", "http://photos.example.com＠10.0.0.1/", "http://10.0.0.1%2f@a.example/",
    "http://photos.example.com\t.evil.example/", "http://photos example.com/", "http://[::1/", "http://::1/",
    "http://photos..example.com/", "http://photos.example.com../", "http://%31%30.0.0.1/", "http://a%00b.example/",
    # loopback and private, in every spelling
    "http://127.0.0.1/", "http://127.0.0.1./", "http://127.1/", "http://127.0.1/", "http://2130706433/",
    "http://0x7f000001/", "http://0x7f.0.0.1/", "http://0177.0.0.1/", "http://017700000001/", "http://0/",
    "http://127.0.0.01/", "http://127.0.0.1.:80/", "http://１２７.０.０.１/", "http://127。0。0。1/", "http://127．0．0．1/",
    "http://①②⑦.⓪.⓪.①/", "http://0x7F.1/", "http://00000000177.0.0.1/", "http://4294967297/", "http://1.2.3.4.5/",
    "http://10.0.0.1/", "http://172.16.0.1/", "http://192.168.1.1/", "http://100.64.0.1/", "http://169.254.1.1/",
    "http://0.0.0.0/", "http://255.255.255.255/", "http://224.0.0.1/", "http://192.88.99.1/", "http://198.18.0.1/",
    # IPv6, plain and wrapping IPv4
    "http://[::1]/", "http://[::]/", "http://[0:0:0:0:0:0:0:1]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/", "http://[64:ff9b::10.0.0.1]/", "http://[64:ff9b:1::10.0.0.1]/", "http://[2002:7f00:1::]/",
    "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/", "http://[2600:1f18::5efe:10.0.0.1]/",
    "http://[2600:1f18::200:5efe:10.0.0.1]/", "http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[2600::1%eth0]/",
    "http://[fc00::1]/", "http://[fec0::1]/", "http://[ff02::1]/", "http://[2001:db8::1]/", "http://[3fff::1]/",
    "http://[5f00::1]/", "http://[100::1]/", "http://[::ffff:8.8.8.8]/",
    # names that are not public; metadata services
    "http://localhost/", "http://LOCALHOST./", "http://a.localhost/", "http://redis:8080/", "http://printer.local/",
    "http://metadata.google.internal/", "http://metadata/", "http://metadata.goog/", "http://169.254.169.254/latest/",
    "http://100.100.100.200/", "http://168.63.129.16/", "http://[fd00:ec2::254]/", "http://192.0.0.192/",
    # ports, control characters, length
    "http://photos.example.com:22/", "http://photos.example.com:6379/", "http://photos.example.com:0/",
    "http://photos.example.com:65616/", "http://photos.example.com:99999/", "http://photos.example.com/\r\nHost: a",
    "http://photos.example.com/a\x00b", "http://photos.example.com/a\x7f", "http://photos.example.com/\x85",
    "http://photos.example.com/\ud800", "http://photos.example.com/" + "a" * MAX_URL_LENGTH,
    "http://" + "a" * 64 + ".example.com/", "http://" + "한" * 300 + ".example.com/",
]  # fmt: skip


@pytest.mark.parametrize("url", UNSAFE)
def test_an_unsafe_url_is_refused(url: str) -> None:
    with pytest.raises(UnsafeUrl):
        GUARD.check_url(url)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://photos.example.com/a.jpg", "https://photos.example.com/a.jpg"),
        ("HTTPS://Photos.Example.COM", "https://photos.example.com/"),
        ("  https://photos.example.com/a.jpg ", "https://photos.example.com/a.jpg"),
        ("https://photos.example.com:443/a.jpg", "https://photos.example.com/a.jpg"),
        ("https://photos.example.com:/a.jpg", "https://photos.example.com/a.jpg"),
        ("http://photos.example.com:8080?x=1#part", "http://photos.example.com:8080/?x=1"),
        ("https://photos.example.com./a.jpg", "https://photos.example.com/a.jpg"),
        ("https://분리.한국/a.jpg", "https://xn--oy2b93e.xn--3e0b707e/a.jpg"),
        ("https://straße.example/a.jpg", "https://xn--strae-oqa.example/a.jpg"),
        ("https://i❤.example/a.jpg", "https://xn--i-7iq.example/a.jpg"),
        ("https://my_bucket.s3.amazonaws.com/a.jpg", "https://my_bucket.s3.amazonaws.com/a.jpg"),
        ("https://a.example/%EC%BB%B5%2F..%2f.jpg", "https://a.example/%EC%BB%B5%2F..%2f.jpg"),
        ("https://a.example/내 컵.jpg", "https://a.example/%EB%82%B4%20%EC%BB%B5.jpg"),
        ("http://8.8.8.8/a.jpg", "http://8.8.8.8/a.jpg"),
        ("http://[2606:4700:0:0::1111]:8443/a", "http://[2606:4700::1111]:8443/a"),
        ("http://3com.example/", "http://3com.example/"),
        ("http://8.8.8.8.example/", "http://8.8.8.8.example/"),
    ],
)
def test_a_safe_url_is_sent_in_ascii_without_its_fragment(url: str, sent: str) -> None:
    assert GUARD.check_url(url).url == sent


def test_a_long_presigned_query_is_kept_to_the_letter() -> None:
    query = "X-Amz-Credential=AKIA%2F20260101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Signature=" + "0a" * 32
    query += "&X-Amz-Security-Token=" + "IQoJb3JpZ2lu%2B%2F+/=" * 200 + "&response-content-disposition=a;b='c'"
    url = "https://bucket.s3.ap-northeast-2.amazonaws.com/a%20b+c/(1).jpg?" + query
    assert GUARD.check_url(url).url == url


def test_a_checked_url_shows_neither_query_nor_credentials() -> None:
    checked = GUARD.check_url("https://photos.example.com/a.jpg?sig=secret")
    assert checked.log_url == "photos.example.com/a.jpg"
    assert "secret" not in repr(checked)


@pytest.mark.parametrize("url", ["http://photos.example.com:22/?sig=secret", "http://10.0.0.1/?sig=secret"])
def test_a_refusal_does_not_show_the_query(url: str) -> None:
    with pytest.raises(UnsafeUrl) as refused:
        GUARD.check_url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("allow", "url"),
    [
        ("minio", "http://minio:9000/a.jpg"),
        ("minio:9000", "http://minio:9000/a.jpg"),
        ("MinIO.internal", "http://minio.internal/a.jpg"),
        ("127.0.0.1", "http://127.0.0.1:43567/a.jpg"),
        ("127.0.0.1:43567", "http://127.0.0.1:43567/a.jpg"),
        ("10.1.0.0/16", "http://10.1.2.3:9000/a.jpg"),
        ("::1", "http://[::1]:9000/a.jpg"),
        ("[::1]:9000", "http://[::1]:9000/a.jpg"),
        ("fd00::/8", "http://[fd12::1]/a.jpg"),
        ("a.example, 10.0.0.1 ,", "http://10.0.0.1/a.jpg"),
    ],
)
def test_an_allowed_target_is_exempt_from_address_and_port(allow: str, url: str) -> None:
    guard = AddressGuard(allow, PORTS)
    checked = guard.check_url(url)
    is_name = checked.host.endswith(("minio", "internal"))
    guard.check_ip("10.9.9.9" if is_name else checked.host, host=checked.host, port=checked.port)


@pytest.mark.parametrize(
    ("allow", "url"),
    [
        ("minio:9000", "http://minio:9001/a.jpg"),
        ("127.0.0.1:43567", "http://127.0.0.1:43568/a.jpg"),
        ("127.0.0.1", "http://127.0.0.2/a.jpg"),
        ("127.0.0.1", "http://2130706433/a.jpg"),
        ("10.1.0.0/16", "http://10.2.0.1/a.jpg"),
        ("example.com", "http://photos.example.com:22/"),
    ],
)
def test_an_exemption_reaches_no_further_than_it_says(allow: str, url: str) -> None:
    with pytest.raises(UnsafeUrl):
        AddressGuard(allow, PORTS).check_url(url)


@pytest.mark.parametrize("allow", ["10.0.0.0/33", "host:port", "a b", "user@host", "http://host/", "1.2.3", "[::1"])
def test_a_mistake_in_the_allow_list_is_an_error_at_once(allow: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        AddressGuard(allow, PORTS)


def test_an_allowed_address_may_be_dialled_under_any_name() -> None:
    AddressGuard("10.1.0.0/16", PORTS).check_ip("10.1.2.3", host="photos.example.com", port=443)


@pytest.mark.parametrize("ip", ["fe80::1%eth0", "::ffff:10.0.0.1", "10.0.0.1", "not an address"])
def test_the_dialled_address_is_checked_whatever_the_name(ip: str) -> None:
    with pytest.raises(UnsafeUrl):
        GUARD.check_ip(ip, host="photos.example.com", port=443)


@given(ip=addresses)
@example(ip=IPv4Address("168.63.129.16"))
def test_no_address_that_is_not_public_may_be_dialled(ip: IPv4Address | IPv6Address) -> None:
    try:
        GUARD.check_ip(str(ip), host="photos.example.com", port=443)
    except UnsafeUrl:
        return
    assert is_public(ip)
    assert ip != IPv4Address("168.63.129.16")


@given(url=urls)
def test_no_accepted_url_stands_for_an_address_that_is_not_public(url: str) -> None:
    try:
        checked = GUARD.check_url(url)
    except UnsafeUrl:
        return
    try:  # The C library's own reading of the host; AI_NUMERICHOST asks no name server.
        found = socket.getaddrinfo(checked.host, checked.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return  # A name: `check_ip` judges what it resolves to.
    assert all(is_public(ip_address(str(info[4][0]))) for info in found)


@given(url=urls)
def test_an_accepted_url_is_accepted_again_as_it_is_sent(url: str) -> None:
    try:
        checked = GUARD.check_url(url)
    except UnsafeUrl:
        return
    assert GUARD.check_url(checked.url) == checked
    assert checked.url.isascii()
    assert checked.port in PORTS
