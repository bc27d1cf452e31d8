"""Settings of the api."""

import pytest

from api.settings import ApiSettings


def test_origins_are_split_and_trimmed() -> None:
    settings = ApiSettings.model_validate({"cors_origins": " https://a.example ,,https://b.example"})
    assert settings.origins == ["https://a.example", "https://b.example"]


def test_shared_names_carry_no_prefix_and_own_names_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://a.example")
    monkeypatch.setenv("LOG_LEVEL", "WARNING")
    monkeypatch.setenv("API_MAX_QUEUED", "7")
    settings = ApiSettings()
    assert (settings.origins, settings.log_level, settings.max_queued) == (["https://a.example"], "WARNING", 7)
