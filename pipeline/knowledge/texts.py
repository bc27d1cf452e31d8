"""Prompts and user messages: load, validate, fill in. The texts are data under resources/."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pipeline.errors import CATALOGUE
from pipeline.knowledge.rulebook import MajorCategory, MiddleCategory, Rulebook, TagGroup
from pipeline.types import Locale, Strict

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
PROMPT_PLACEHOLDER = re.compile(r"\{\{([A-Z_]+)\}\}")


class ErrorText(Strict):
    """The user's text for one error code: what happened (`message`) and what to do now (`advice`)."""

    title: str
    message: str
    advice: str


class MessageFile(Strict):
    """One messages/{locale}.toml."""

    messages: dict[str, str]
    errors: dict[str, ErrorText]


@dataclass(frozen=True)
class Texts:
    """Immutable and shared. Lookups of an unknown name raise KeyError."""

    prompts: Mapping[str, str]
    messages: Mapping[Locale, MessageFile]

    @classmethod
    def load(cls, resources: Path) -> "Texts":
        """Read prompts/*.md and messages/{locale}.toml. Raises ValueError with every mistake."""
        mistakes: list[str] = []
        prompts = _read_prompts(resources / "prompts", mistakes)
        messages = {
            locale: read
            for locale in Locale
            if (read := _read_messages(resources / "messages" / f"{locale}.toml", mistakes)) is not None
        }
        if mistakes := [*mistakes, *_message_mistakes(messages)]:
            raise ValueError(f"Mistakes in {resources}:\n" + "\n".join(mistakes))
        return cls(prompts, messages)

    def prompt(self, name: str) -> str:
        """The template in prompts/{name}.md, with its {{PLACEHOLDERS}}."""
        return self.prompts[name]

    def message(self, key: str, locale: Locale, **params: object) -> str:
        """The message with each `{name}` replaced by that parameter. Braces within a parameter stay literal."""
        template = self.messages[locale].messages[key]
        return PLACEHOLDER.sub(lambda found: str(params[found[1]]), template)

    def error(self, code: str, locale: Locale) -> ErrorText:
        return self.messages[locale].errors[code]


def render_vision_prompt(texts: Texts, rulebook: Rulebook) -> str:
    """The system prompt of the vision model. Same resources, same bytes (prompt caches depend on it)."""
    return _render(texts.prompt("vision"), _names(rulebook))


def render_question_prompt(texts: Texts, rulebook: Rulebook) -> str:
    """The system prompt of the text model that reads a question. Same resources, same bytes."""
    return _render(texts.prompt("question"), _names(rulebook))


def render_answer_prompt(texts: Texts) -> str:
    """The system prompt of the text model that writes steps. Same resources, same bytes."""
    return _render(texts.prompt("answer"), {})


def render_chat_prompt(texts: Texts) -> str:
    """The system prompt of the text model that writes prose. Same resources, same bytes."""
    return _render(texts.prompt("chat"), {})


def _names(rulebook: Rulebook) -> dict[str, str]:
    categories = "\n".join(_category_line(major, middle) for major in rulebook.majors for middle in major.middles)
    tags = "\n".join(_tag_lines(group) for group in rulebook.tag_groups)
    return {"CATEGORIES": categories, "TAGS": tags}


def _category_line(major: MajorCategory, middle: MiddleCategory) -> str:
    minors = " | ".join(minor.ko for minor in middle.minors)
    return f"- {major.ko} > {middle.ko} ({middle.en}): {minors}"


def _tag_lines(group: TagGroup) -> str:
    return "\n".join([f"{group.en}:", *(f"- {tag.id}: {tag.hint}" for tag in group.tags)])


def _render(template: str, values: Mapping[str, str]) -> str:
    """One pass: a value that looks like a placeholder is not replaced. Raises KeyError for an unknown placeholder."""
    return PROMPT_PLACEHOLDER.sub(lambda found: values[found[1]], template)


def _read_prompts(folder: Path, mistakes: list[str]) -> dict[str, str]:
    prompts = {}
    for path in sorted(folder.glob("*.md")):
        try:
            prompts[path.stem] = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            mistakes.append(f"{path.name}: {error}")
    return prompts


def _read_messages(path: Path, mistakes: list[str]) -> MessageFile | None:
    try:
        return MessageFile.model_validate(tomllib.loads(path.read_text("utf-8")))
    except ValidationError as error:
        mistakes += [f"{path.name}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    except (OSError, ValueError) as error:
        mistakes.append(f"{path.name}: {error}")
    return None


def _message_mistakes(messages: Mapping[Locale, MessageFile]) -> Iterator[str]:
    """Every locale needs every message, with the same parameters, and a text for every error code."""
    keys = {key for each in messages.values() for key in each.messages}
    codes = {code for each in messages.values() for code in each.errors} | set(CATALOGUE)
    for locale, each in messages.items():
        yield from (f"{locale}.toml: no message {key}" for key in sorted(keys - set(each.messages)))
        yield from (f"{locale}.toml: no error {code}" for code in sorted(codes - set(each.errors)))
        for key, template in each.messages.items():
            if "{" in PLACEHOLDER.sub("", template) or "}" in PLACEHOLDER.sub("", template):
                yield f"{locale}.toml: {key} has a brace that is no parameter"
    for key in sorted(keys):
        templates = [each.messages[key] for each in messages.values() if key in each.messages]
        used = {frozenset(PLACEHOLDER.findall(template)) for template in templates}
        if len(used) > 1:
            yield f"messages: {key} has other parameters in another language"
