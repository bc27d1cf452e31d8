"""Settings of webhooks: secrets and schedule are checked when they are read."""

import pytest
from pydantic import ValidationError

from jobs.settings import JobsSettings
from tests.support.receiver import OTHER_SECRET, SECRET


def settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> JobsSettings:
    for name, value in variables.items():
        monkeypatch.setenv(f"WORKERS_WEBHOOK_{name}", value)
    return JobsSettings(_env_file=None)


def test_secrets_are_read_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    both = settings(monkeypatch, SECRETS=f"{OTHER_SECRET}, {SECRET}")
    assert [len(key) for key in both.webhook_keys] == [25, 24]


@pytest.mark.parametrize("value", ["", None])
def test_without_a_secret_there_are_no_keys(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    assert settings(monkeypatch, **({} if value is None else {"SECRETS": value})).webhook_keys == ()


@pytest.mark.parametrize(
    "wrong",
    [
        SECRET.removeprefix("whsec_"),
        "whsec_",
        "whsec_dG9vIHNob3J0",
        "whsec_" + "A" * 88,  # 66 bytes
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",  # cut
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_",  # base64 for URLs
        f"{SECRET},",
        f"{SECRET};{OTHER_SECRET}",
    ],
)
def test_a_secret_out_of_form_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(monkeypatch, SECRETS=wrong)
    assert "MfKQ9r8G" not in str(refused.value)


def test_the_schedule_is_plain_data(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(monkeypatch, SCHEDULE="[0.5, 2, 86400]").webhook_schedule == (0.5, 2.0, 86_400.0)


@pytest.mark.parametrize("wrong", ["[]", "[0]", "[-1]", "[604801]", "[1e999]", '["soon"]', str([1] * 51)])
def test_a_schedule_out_of_bounds_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    with pytest.raises(ValidationError):
        settings(monkeypatch, SCHEDULE=wrong)
