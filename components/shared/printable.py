"""Names that others gave, made safe to print."""

import re

# C0 and C1 control characters (new lines and terminal escapes among them), line separators,
# marks that turn the direction of writing (Boucher and Anderson, "Trojan Source", 2021), and the
# lone surrogates that stand for bytes that are not UTF-8
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Shows what could forge a line or drive a terminal as an escape: `\n`, `\x1b`, `\u202e`.

    Args:
        text: Anything that holds a name, a path or a message from outside.

    Returns:
        One line; the same text where it is harmless.
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_lines(text: str) -> str:
    """The same for a text of several lines; those after the first are indented.

    So none of them can be taken for a line of its own, whatever it says.
    """
    return "\n  ".join(printable(line) for line in text.split("\n"))
