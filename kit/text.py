"""Cleaning of text from users and models, before it goes into a prompt, a table or a page. Pure.

Visible text stays: letters of any script, emoji and line breaks. Invisible characters are removed, because they can
only mislead the next reader, person or model: control and escape characters, bidi marks, zero-width letters, halves of
surrogate pairs, tags and selectors that hide a message in an emoji.
"""

import re
import unicodedata

_EMOJI = "\u2190-\u21ff\u2300-\u27bf\u2934-\u2935\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
_JOINER, _SELECTORS = "\u200d", "\ufe0e\ufe0f"

_BREAK = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")

_STRAY = re.compile(
    f"(?<![{_EMOJI}])(?<![{_EMOJI}]\ufe0f){_JOINER}|{_JOINER}(?![{_EMOJI}])|(?<![{_EMOJI}0-9#*])[{_SELECTORS}]"
)
"""Joiners and selectors that do not stand at an emoji: "👩‍🔧" keeps its joiner and "유리\u200d병" does not."""

_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]")
"""Characters that Unicode calls printable but that show nothing: fillers, joiners, variation selectors."""

_KEPT = re.compile(f"[\n{_JOINER}{_EMOJI}]")
"""Not printable by Python, but kept. Among the emoji are some that this Python's Unicode does not know yet."""


def clean(text: str) -> str:
    """Keep visible characters, spaces and newlines. Idempotent; the result is never longer than the text."""
    if text.isprintable() and not _INVISIBLE.search(text) and not _STRAY.search(text):
        return text
    joined = _BREAK.sub("\n", text)
    shown = "".join(char if char.isprintable() or _KEPT.match(char) else _replacement(char) for char in joined)
    return _STRAY.sub("", _INVISIBLE.sub("", shown))


def one_line(text: str) -> str:
    """`clean`, then each run of spaces and line breaks as one space."""
    return " ".join(clean(text).split())


def _replacement(char: str) -> str:
    """A space for control characters and unusual spaces: they separate words. Nothing for the rest: it has no width."""
    return " " if unicodedata.category(char) in {"Cc", "Zs"} else ""
