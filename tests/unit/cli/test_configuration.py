"""The effective settings, and every mistake in them."""

from pathlib import Path

import pytest

from cli.configuration import effective, mistakes


@pytest.mark.parametrize(
    "wrong",
    [
        {"PIPELINE_PRICES": "{TOPSECRET", "API_PORT": "TOPSECRET"},
        {"PIPELINE_FETCH_PORTS": "80,TOPSECRET", "PIPELINE_PRICES": "[]", "OPENAI_BASE_URL": "TOPSECRET"},
        {"WORKERS_JOB_DEADLINE": "700", "WORKERS_MAX_DEADLINE": "600", "LOG_LEVEL": "TOPSECRET"},
    ],
)
def test_every_mistake_is_named_once_and_no_value(monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]) -> None:
    for variable, value in wrong.items():
        monkeypatch.setenv(variable, value)
    found = mistakes()
    assert [variable for variable in wrong if not any(variable in mistake for mistake in found)] == []
    assert len(found) == len(set(found))
    assert "TOPSECRET" not in repr(found)


def test_a_mistake_inside_a_setting_is_named_by_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_PRICES", '{"small": {"input": 1, "cached": 0, "cache_write": 0}}')
    [mistake] = mistakes()
    assert mistake.startswith("PIPELINE_PRICES.small.output: ")


def test_a_file_of_settings_that_is_no_text_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"LOG_LEVEL=\xff\xfe\n")
    monkeypatch.chdir(tmp_path)
    assert mistakes() == [".env: is not UTF-8"]


def test_what_is_not_set_has_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert {setting.variable: setting.value for setting in effective()}["OPENAI_API_KEY"] is None


def test_a_list_and_a_mapping_are_read_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    price = '{"input": 1, "cached": 0, "cache_write": 0, "output": 2}'
    monkeypatch.setenv("PIPELINE_PRICES", f'{{"small": {price}}}')
    monkeypatch.setenv("PIPELINE_FETCH_PORTS", "[80, 8080]")
    assert mistakes() == []
    shown = {setting.variable: setting.value for setting in effective()}
    assert (shown["PIPELINE_PRICES"], shown["PIPELINE_FETCH_PORTS"]) == ("small", "80, 8080")
