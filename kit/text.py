"""Text that others wrote, made fit to be data: for a model, a table, a page. Pure.

Nothing that people read is lost: letters of any script, emoji and line breaks stay. What nobody sees goes, because it
can only mislead whoever reads the text next: control and escape characters, bidi marks, zero-width letters, halves of
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
"""What makes one emoji of several, where there is none: "👩‍🔧" keeps its joiner and "유리\u200d병" does not."""

_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]")
"""Printable as Unicode has it, and yet nothing to see: fillers, joiners, selectors of variants."""

_KEPT = re.compile(f"[\n{_JOINER}{_EMOJI}]")
"""Not printable, and wanted all the same. Among the emoji are those that this Python's Unicode does not know yet."""


def clean(text: str) -> str:
    """Visible characters, spaces and newlines. Cleaning twice is cleaning once; it never gets longer."""
    if text.isprintable() and not _UNSEEN.search(text) and not _STRAY.search(text):
        return text
    joined = _BREAK.sub("\n", text)
    shown = "".join(char if char.isprintable() or _KEPT.match(char) else _in_place_of(char) for char in joined)
    return _STRAY.sub("", _UNSEEN.sub("", shown))


def one_line(text: str) -> str:
    """Clean, without line breaks, and with one space where there were several."""
    return " ".join(clean(text).split())


def _in_place_of(char: str) -> str:
    """Control characters and odd spaces part words, so they leave a space. The rest had no width."""
    return " " if unicodedata.category(char) in {"Cc", "Zs"} else ""
