"""Our signature held against the `standardwebhooks` package, which is another's reading of the same specification."""

from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from jobs.settings import JobsSettings
from tests.support.receiver import OTHER_SECRET, SECRET
from workers.webhooks.sender import signed_headers

BODY = '{"type":"job.completed","말":"유리병"}'.encode()


def now() -> datetime:
    return datetime.now(UTC)


def keys(*secrets: str) -> tuple[bytes, ...]:
    return JobsSettings.model_validate({"webhook_secrets": ",".join(secrets)}).webhook_keys


def test_the_signature_is_the_one_of_the_specification() -> None:
    """Its own example, as the reference libraries have it."""
    headers = signed_headers(
        keys(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', datetime.fromtimestamp(1614265330, UTC)
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_receiver_with_the_secret_accepts_it() -> None:
    headers = signed_headers(keys(SECRET), "id", BODY, now())
    assert Webhook(SECRET).verify(BODY, headers) == {"type": "job.completed", "말": "유리병"}


def test_while_secrets_rotate_a_receiver_may_hold_the_old_or_the_new_one() -> None:
    at = now()
    headers = signed_headers(keys(OTHER_SECRET, SECRET), "id", BODY, at)
    for secret in (SECRET, OTHER_SECRET):
        Webhook(secret).verify(BODY, headers)
    newest, _ = headers["webhook-signature"].split(" ")
    assert newest == signed_headers(keys(OTHER_SECRET), "id", BODY, at)["webhook-signature"]


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp"])
def test_the_signature_covers_id_and_time(name: str) -> None:
    headers = signed_headers(keys(SECRET), "id", BODY, now())
    other = {"webhook-id": "another", "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY, headers | {name: other[name]})


def test_the_signature_covers_the_body() -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY + b" ", signed_headers(keys(SECRET), "id", BODY, now()))


def test_a_captured_request_is_of_no_use_later() -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY, signed_headers(keys(SECRET), "id", BODY, now() - timedelta(minutes=6)))
