"""How each store's signed URLs and error answers say "expired", and what must not be taken for it."""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kit.dates import http_date
from pipeline.intake.expiry import EXPIRED_STATUSES, expires_at, has_expired, is_expired_answer

END = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
"""When each URL below ends: epoch 1772366400, hexadecimal 69a42a40."""

FOREVER = "9999-12-31T23:59:59Z"
"""What people write into a SAS that is never to end."""


def policy(document: Any) -> str:
    """CloudFront's spelling of base64."""
    return b64encode(json.dumps(document).encode()).decode().translate(str.maketrans("+=/", "-_~"))


def statement(end: object) -> dict[str, Any]:
    return {"Resource": "*", "Condition": {"DateLessThan": {"AWS:EpochTime": end}}}


POLICY = policy({"Statement": [statement(1772366400)]})

# Beside each case stands the page that describes its form. "Topic page": the words of the case are not on it, or we
# could not see that they are; the case is then written after docs/intake.md's table. Nothing was recorded from a store.
SIGNED = {
    # https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
    "S3 v4": "https://b.s3.ap-northeast-2.amazonaws.com/a.jpg?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    "&X-Amz-Date=20260301T110000Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature=0a",
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/RESTAuthentication.html
    "S3 v2": "https://b.s3.amazonaws.com/a.jpg?AWSAccessKeyId=AKIA&Signature=a%2Bb%3D&Expires=1772366400",
    # https://developers.cloudflare.com/r2/api/s3/presigned-urls/
    "R2": "https://x.r2.cloudflarestorage.com/b/a.jpg?X-Amz-Expires=86400&X-Amz-Date=20260228T120000Z&X-Amz-Signature=0",
    # https://cloud.google.com/storage/docs/authentication/signatures
    "GCS v4": "https://storage.googleapis.com/b/a.jpg?X-Goog-Algorithm=GOOG4-RSA-SHA256"
    "&X-Goog-Date=20260301T115959Z&X-Goog-Expires=1&X-Goog-Signature=0a",
    # https://cloud.google.com/storage/docs/access-control/signed-urls-v2
    "GCS v2": "https://storage.googleapis.com/b/a.jpg?GoogleAccessId=a%40b.iam&Expires=1772366400&Signature=x",
    # https://learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas
    "Azure SAS": "https://x.blob.core.windows.net/c/a.jpg?sv=2024-11-04&st=2026-02-01T00:00:00Z"
    "&se=2026-03-01T12%3A00%3A00Z&sr=b&sp=r&sig=a%2Bb",
    # https://learn.microsoft.com/en-us/rest/api/storageservices/formatting-datetime-values, this one and the next
    "Azure SAS with an offset": "https://x.blob.core.windows.net/c/a.jpg?se=2026-03-01T21:00:00%2B09:00&sig=a",
    "Azure SAS to the minute": "https://x.blob.core.windows.net/c/a.jpg?se=2026-03-01T12:00Z&sig=a",
    # https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/private-content-creating-signed-url-canned-policy.html
    "CloudFront, canned": "https://d1.cloudfront.net/a.jpg?Expires=1772366400&Signature=x&Key-Pair-Id=K1",
    # https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/private-content-creating-signed-url-custom-policy.html
    "CloudFront, custom": f"https://d1.cloudfront.net/a.jpg?Policy={POLICY}&Signature=x&Key-Pair-Id=K1",
    # https://www.alibabacloud.com/help/en/oss/support/0002-00000070
    "OSS v1": "https://b.oss-ap-northeast-2.aliyuncs.com/a.jpg?OSSAccessKeyId=L&Expires=1772366400&Signature=x",
    # https://www.alibabacloud.com/help/en/oss/support/0002-00000235
    "OSS v2": "https://b.oss-ap-northeast-2.aliyuncs.com/a.jpg?x-oss-signature-version=OSS2&x-oss-expires=1772366400",
    "OSS v4": "https://b.oss-ap-northeast-2.aliyuncs.com/a.jpg?x-oss-date=20260301T110000Z&x-oss-expires=3600",
    # https://www.tencentcloud.com/document/product/436/7778, this one and the next
    "COS": "https://b.cos.ap-seoul.myqcloud.com/a.jpg?q-sign-algorithm=sha1&q-sign-time=1772360000;1772366400",
    "COS, encoded": "https://b.cos.ap-seoul.myqcloud.com/a.jpg?q-sign-time=1772360000%3B1772366400",
    # No vendor's: the name that most home-made signatures took over from S3.
    "any other": "https://photos.example.com/a.jpg?expires=1772366400&token=x",
    # Undocumented. Topic page: https://developers.facebook.com/docs/instagram-platform
    "Meta": "https://scontent.cdninstagram.com/v/a.jpg?stp=dst-jpg&oh=00_A&oe=69A42A40",
    # https://docs.discord.com/developers/reference ("Signed Attachment CDN URLs")
    "Discord": "https://cdn.discordapp.com/attachments/1/2/a.jpg?ex=69a42a40&is=69a2db40&hm=0a",
}

UNSIGNED = {
    "no query": "https://photos.example.com/a.jpg",
    "only a date": "https://b.s3.amazonaws.com/a.jpg?X-Amz-Date=20200301T110000Z",
    "only a duration": "https://b.s3.amazonaws.com/a.jpg?X-Amz-Expires=3600",
    "no date at all": "https://b.s3.amazonaws.com/a.jpg?X-Amz-Date=20201301T110000Z&X-Amz-Expires=3600",
    "a negative duration": "https://b.s3.amazonaws.com/a.jpg?X-Amz-Date=20200101T110000Z&X-Amz-Expires=-1",
    "foreign digits": "https://b.s3.amazonaws.com/a.jpg?X-Amz-Date=20200101T110000Z&X-Amz-Expires=３６００",
    "a duration beyond all dates": "https://b.s3.amazonaws.com/a.jpg?X-Amz-Date=99991231T235959Z&X-Amz-Expires=999999999",
    "milliseconds": "https://photos.example.com/a.jpg?Expires=1500000000000",
    "a relative time": "https://photos.example.com/a.jpg?Expires=3600",
    "an empty value": "https://photos.example.com/a.jpg?Expires=",
    "se without a signature": "https://photos.example.com/a.jpg?se=2020-01-01",
    "se of another meaning": "https://photos.example.com/a.jpg?se=stockholm&sig=x",
    "oe elsewhere": "https://photos.example.com/a.jpg?oe=50000000",
    "ex elsewhere": "https://discordapp.com.example.com/a.jpg?ex=50000000",
    "a host that only looks like Discord": "https://evildiscordapp.com/a.jpg?ex=50000000",
    "oe that is not hexadecimal": "https://scontent.cdninstagram.com/a.jpg?oe=zzzzzzzz",
    "a policy that is not base64": "https://d1.cloudfront.net/a.jpg?Policy=!&Key-Pair-Id=K1",
    "a policy that is not ASCII": "https://d1.cloudfront.net/a.jpg?Policy=컵&Key-Pair-Id=K1",
    "a policy of another service": f"https://photos.example.com/a.jpg?Policy={policy({'Statement': [statement(1)]})}",
    "a policy without an end": f"https://d1.cloudfront.net/a.jpg?Policy={policy({'Statement': []})}&Key-Pair-Id=K1",
    "COS with one time": "https://b.cos.ap-seoul.myqcloud.com/a.jpg?q-sign-time=1500000000",
    "not a URL": "http://[broken?Expires=1500000000",
    "a host of forbidden characters": "http://a℀.example/a.jpg?Expires=1500000000",
}


@pytest.mark.parametrize("url", SIGNED.values(), ids=SIGNED.keys())
def test_a_url_says_when_it_ends(url: str) -> None:
    assert expires_at(url) == END


@pytest.mark.parametrize("url", SIGNED.values(), ids=SIGNED.keys())
def test_a_url_has_expired_when_its_end_is_more_than_five_seconds_past(url: str) -> None:
    assert not has_expired(url, END)
    assert not has_expired(url, END + timedelta(seconds=5))
    assert has_expired(url, END + timedelta(seconds=6))


@pytest.mark.parametrize("url", UNSIGNED.values(), ids=UNSIGNED.keys())
def test_a_url_that_says_no_end_has_none(url: str) -> None:
    assert expires_at(url) is None
    assert not has_expired(url, END)


def test_the_earliest_of_several_ends_counts() -> None:
    url = "https://d1.cloudfront.net/a.jpg?Expires=1772366400&X-Amz-Date=20260301T000000Z&X-Amz-Expires=60"
    assert expires_at(url) == datetime(2026, 3, 1, 0, 1, tzinfo=UTC)


def test_the_earliest_statement_of_a_policy_counts() -> None:
    both = policy({"Statement": [statement(1772366401), statement(1772366400)]})
    assert expires_at(f"https://d1.cloudfront.net/a.jpg?Key-Pair-Id=K1&Policy={both}") == END


def test_a_sas_may_name_a_day() -> None:
    assert expires_at("https://x.blob.core.windows.net/a.jpg?sig=a&se=2026-03-01") == datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "url",
    [
        f"https://x.blob.core.windows.net/a.jpg?sig=a&se={FOREVER}",
        "https://x.blob.core.windows.net/a.jpg?sig=a&se=9999-12-31T23:59:59-14:00",
        "https://b.s3.amazonaws.com/a.jpg?X-Amz-Date=99991231T235959Z&X-Amz-Expires=0",
    ],
)
def test_the_end_of_all_dates_is_not_past(url: str) -> None:
    assert expires_at(url) is not None
    assert not has_expired(url, END)


# The bodies below are written after the pages named beside them, not recorded from the stores.
XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
EXPIRED = {
    # S3 v4 and v2. MinIO says the same, and COS: https://intl.cloud.tencent.com/document/product/436/10687
    # Topic page: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    "S3": (
        403,
        XML + "<Error><Code>AccessDenied</Code><Message>Request has expired</Message><X-Amz-Expires>60</X-Amz-Expires>"
        "<Expires>2026-03-01T12:00:00Z</Expires><ServerTime>2026-03-01T13:00:00Z</ServerTime></Error>",
    ),
    # OSS: the same sentence with a dot, on lines of its own.
    # https://www.alibabacloud.com/help/en/oss/support/0002-00000069
    "OSS": (
        403,
        XML + "<Error>\n  <Code>AccessDenied</Code>\n  <Message>Request has expired.</Message>\n"
        "  <HostId>b.oss-ap-northeast-2.aliyuncs.com</HostId>\n</Error>",
    ),
    # S3, signed with session credentials that ended before the URL did.
    # https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html (ExpiredToken), and for when this happens
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html
    "S3 with session credentials": (
        400,
        XML + "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>",
    ),
    # GCS, v4 and v2. Topic page: https://cloud.google.com/storage/docs/xml-api/reference-status
    "GCS": (
        400,
        XML + "<Error><Code>ExpiredToken</Code><Message>Invalid argument.</Message><Details>The provided token has "
        "expired. Request signature expired at: 2026-03-01T12:00:00+00:00</Details></Error>",
    ),
    # GCS, if a proxy in between lost the code.
    "GCS, details only": (400, "<Details>Request signature expired at: 2026-03-01T12:00:00+00:00</Details>"),
    # R2. Its table says 400; 403 was reported, so both count. https://developers.cloudflare.com/r2/api/error-codes
    "R2": (
        403,
        XML + "<Error><Code>ExpiredRequest</Code><Message>Request has expired. Please sign again.</Message></Error>",
    ),
    "R2 with 400": (400, "<Error><Code> ExpiredRequest </Code></Error>"),
    # Azure Blob: an end in the past. The code: https://learn.microsoft.com/en-us/rest/api/storageservices/common-rest-api-error-codes
    # The sentence, for a start in the future: https://learn.microsoft.com/en-us/archive/blogs/kwill/
    # http-403-server-failed-to-authenticate-the-request-when-using-shared-access-signatures
    "Azure": (
        403,
        "\ufeff" + XML + "<Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate the request."
        "</Message><AuthenticationErrorDetail>Signature not valid in the specified time frame: "
        "Start [Sun, 01 Feb 2026 00:00:00 GMT] - Expiry [Sun, 01 Mar 2026 11:59:59 GMT] - "
        "Current [Sun, 01 Mar 2026 12:00:00 GMT]</AuthenticationErrorDetail></Error>",
    ),
    # Meta's CDN: plain text, documented nowhere. Topic page: https://developers.facebook.com/docs/instagram-platform
    "Meta": (403, "URL signature expired"),
}

DENIED = {
    # S3, MinIO, COS, OSS: the same code without the sentence. These five:
    # https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    "S3": (403, XML + "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"),
    "S3, wrong key": (
        403,
        XML + "<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature we calculated does not match "
        "the signature you provided. Check your key and signing method.</Message></Error>",
    ),
    "S3, unknown key": (403, XML + "<Error><Code>InvalidAccessKeyId</Code></Error>"),
    "S3, no such object": (404, XML + "<Error><Code>NoSuchKey</Code><Key>ExpiredToken/a.jpg</Key></Error>"),
    "S3, clocks apart": (403, XML + "<Error><Code>RequestTimeTooSkewed</Code></Error>"),
    # https://cloud.google.com/storage/docs/xml-api/reference-status
    "GCS": (403, XML + "<Error><Code>AccessDenied</Code><Message>Access denied.</Message></Error>"),
    # GCS's JSON API: https://cloud.google.com/storage/docs/json_api/v1/status-codes
    "GCS, JSON": (401, json.dumps({"error": {"code": 401, "message": "Anonymous caller does not have access."}})),
    # https://developers.cloudflare.com/r2/api/error-codes
    "R2": (403, XML + "<Error><Code>Unauthorized</Code><Message>Unauthorized</Message></Error>"),
    # CloudFront says the same for forbidden and expired; only its URL tells. Topic page:
    # https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/http-403-permission-denied.html
    "CloudFront": (403, XML + "<Error><Code>AccessDenied</Code><Message>Access denied</Message></Error>"),
    # https://learn.microsoft.com/en-us/rest/api/storageservices/common-rest-api-error-codes
    "Azure, wrong signature": (
        403,
        XML + "<Error><Code>AuthenticationFailed</Code><AuthenticationErrorDetail>Signature did not match."
        "</AuthenticationErrorDetail></Error>",
    ),
    # Azure says the same sentence of a signature that is not valid yet.
    "Azure, too early": (
        403,
        XML + "<AuthenticationErrorDetail>Signature not valid in the specified time frame: Start [Mon, 02 Mar 2026 "
        "00:00:00 GMT] - Expiry [Tue, 03 Mar 2026 00:00:00 GMT] - Current [Sun, 01 Mar 2026 12:00:00 GMT]"
        "</AuthenticationErrorDetail>",
    ),
    "Azure, unreadable": (403, "Signature not valid in the specified time frame: Start [?] - Expiry [tomorrow]"),
    "a web page": (403, "<html><title>Forbidden</title>Your session has expired, log in again</html>"),
    "JSON": (403, '{"error": "forbidden"}'),
    "nothing": (404, ""),
    "bytes that are no text": (403, "\udcff\udcfe"),
}


@pytest.mark.parametrize(("status", "body"), EXPIRED.values(), ids=EXPIRED.keys())
def test_an_answer_that_says_expired_is_believed(status: int, body: str) -> None:
    assert is_expired_answer("https://photos.example.com/a.jpg", status, body.encode(), END)


@pytest.mark.parametrize(("status", "body"), DENIED.values(), ids=DENIED.keys())
def test_a_plain_denial_is_not_expired(status: int, body: str) -> None:
    raw = body.encode("utf-8", "surrogateescape")
    assert not is_expired_answer("https://photos.example.com/a.jpg", status, raw, END)
    for url in SIGNED.values():
        assert not is_expired_answer(url, status, raw, END)


@pytest.mark.parametrize("status", sorted(EXPIRED_STATUSES))
@pytest.mark.parametrize("url", SIGNED.values(), ids=SIGNED.keys())
def test_a_denial_of_a_url_past_its_end_is_expired(url: str, status: int) -> None:
    """Discord and CloudFront have no other sign."""
    assert is_expired_answer(url, status, b"", END + timedelta(seconds=6))
    assert not is_expired_answer(url, status, b"", END + timedelta(seconds=5))


@pytest.mark.parametrize("status", [200, 302, 408, 429, 500, 503])
def test_other_statuses_never_mean_expired(status: int) -> None:
    body = b"<Error><Code>ExpiredToken</Code></Error>"
    assert not is_expired_answer(SIGNED["S3 v4"], status, body, END + timedelta(days=1))


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("Sun, 01 Mar 2026 12:00:00 GMT", END),
        ("Sun, 01 Mar 2026 12:00:00 -0000", END),  # The standard library calls this zone unknown.
        ("Sun, 01 Mar 2026 21:00:00 +0900", END),
        ("Sun, 01 Mar 99999999999 12:00:00 GMT", None),
        ("tomorrow", None),
        ("", None),
    ],
)
def test_a_date_of_a_header_is_read_or_is_none(text: str, date: datetime | None) -> None:
    assert http_date(text) == date


names = st.sampled_from(
    ["X-Amz-Date", "X-Amz-Expires", "x-goog-date", "x-goog-expires", "Expires", "se", "sig", "Policy", "Key-Pair-Id",
     "oe", "ex", "q-sign-time"]
)  # fmt: skip
policies: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.just(1772366400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["Statement", "Condition"]), inner),
    max_leaves=8,
) | st.lists(st.builds(statement, st.integers() | st.text() | st.none()), max_size=3).map(lambda s: {"Statement": s})
values = st.one_of(
    st.text(max_size=20),
    st.datetimes().map(lambda date: date.strftime("%Y%m%dT%H%M%SZ")),
    st.datetimes(timezones=st.timezones()).map(datetime.isoformat),
    st.integers().map(str),
    policies.map(policy),
)
hosts = st.sampled_from(["cdn.discordapp.com", "x.fbcdn.net", "[::1]", "[", "a℀", ""]) | st.text(max_size=10)
queries = st.lists(st.tuples(names, values), max_size=6).map(lambda pairs: "&".join("=".join(pair) for pair in pairs))
urls = st.text() | st.builds("https://{}/a.jpg?{}".format, hosts, queries)
moments = st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants naive bounds


@given(url=urls, now=moments)
@example(url=f"https://a.example/?sig=1&se={FOREVER}", now=END)
@example(
    url=f"https://a.example/?Key-Pair-Id=1&Policy={policy({'Statement': [statement(1), statement('1')]})}", now=END
)
def test_any_url_has_expired_or_not(url: str, now: datetime) -> None:
    end = expires_at(url)
    assert has_expired(url, now) == (end is not None and now - end > timedelta(seconds=5))


@given(
    date=st.text(max_size=40).filter(lambda text: "]" not in text)
    | st.datetimes().map("{:%a, %d %b %Y %H:%M:%S} -0000".format),
    rest=st.binary(max_size=40),
    now=moments,
)
@example(date="Sun, 01 Mar 2026 12:00:00 -0000", rest=b"", now=END)
@example(date="Sun, 01 Mar 99999999999 12:00:00 GMT", rest=b"", now=END)
def test_any_answer_means_expired_or_not(date: str, rest: bytes, now: datetime) -> None:
    sentence = f"Signature not valid in the specified time frame: Start [] - Expiry [{date}]"
    body = rest + sentence.encode("utf-8", "replace") + rest
    end = http_date(date)
    assert is_expired_answer("https://photos.example.com/a.jpg", 403, body, now) == (end is not None and now > end)
