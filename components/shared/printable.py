"""Escapes untrusted text for printing."""

import re

# C0 and C1 control characters (new lines and terminal escapes among them), line separators,
# marks that change the direction of text (Boucher and Anderson, "Trojan Source", 2021), and the
# lone surrogates that stand for bytes that are not UTF-8
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Escapes what could forge a line or control a terminal: `\n`, `\x1b`, `\u202e`."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_lines(text: str) -> str:
    """Does the same for a text of several lines, and indents those after the first.

    So none of them can be mistaken for a line of its own.
    """
    return "\n  ".join(printable(line) for line in text.split("\n"))
