"""Effective settings of all packages: where each comes from, all mistakes at once, secrets masked."""

from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from jobs.settings import JobsSettings
from kit.logs import redact
from pipeline.settings import PipelineSettings
from workers.settings import WorkerSettings

PACKAGES: tuple[type[BaseSettings], ...] = (PipelineSettings, JobsSettings, WorkerSettings, ApiSettings)


@dataclass(frozen=True)
class Setting:
    """One setting as an operator sees it."""

    variable: str
    value: str | None
    is_default: bool
    description: str


def variable_of(package: type[BaseSettings], name: str, field: FieldInfo) -> str:
    """The environment variable of a field."""
    if field.validation_alias is not None:
        return str(field.validation_alias)
    return f"{package.model_config.get('env_prefix', '')}{name}".upper()


def mistakes() -> list[str]:
    """Every setting that cannot be used, of all packages. The values stay out: they may be secrets."""
    found = []
    for package in PACKAGES:
        try:
            package()
        except ValidationError as error:
            found += [f"{_named(package, each['loc'])}: {each['msg']}" for each in error.errors(include_input=False)]
        except UnicodeDecodeError:
            found.append(f"{package.model_config.get('env_file')}: is not UTF-8")
    return list(dict.fromkeys(found))


def effective() -> list[Setting]:
    """Every setting in force. Raises ValidationError: ask `mistakes` first."""
    found: dict[str, Setting] = {}
    for package in PACKAGES:
        settings = package()
        for name, field in package.model_fields.items():
            variable = variable_of(package, name, field)
            found[variable] = Setting(
                variable,
                masked(getattr(settings, name)),
                is_default=name not in settings.model_fields_set,
                description=field.description or "",
            )
    return list(found.values())


def masked(value: Any) -> str | None:
    """For people: secrets as stars, URLs without password and query. None for what is not set."""
    if value is None or value == "":
        return None
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        return redact(secret) if "://" in secret else "********"
    if isinstance(value, dict):
        return ", ".join(sorted(value))
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return redact(str(value))


def _named(package: type[BaseSettings], place: tuple[int | str, ...]) -> str:
    """Pydantic names a field by its variable when that is an alias, by its name otherwise, and several not at all."""
    if not place:
        return "together"
    name, *inside = map(str, place)
    field = package.model_fields.get(name)
    return ".".join([variable_of(package, name, field) if field else name, *inside])
