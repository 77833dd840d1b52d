"""Paths with fields, e.g. `{case}/{case}-t1.nii.gz`."""

import re
from dataclasses import dataclass

_TOKEN = re.compile(r"\{(?P<field>[a-z_]+)\}|(?P<folders>\*\*/)|(?P<any>\*)|(?P<other>[^{}*])")
_INDEX = re.compile(r"(?P<path>.+)#(?P<index>[0-9]{1,4})")


@dataclass(frozen=True)
class PathPattern:
    """A parsed path.

    Attributes:
        text: The path as it was given.
        regex: Regular expression of whole paths.
        fields: Names of its fields in order.
        index: Number of the image along the fourth axis; `None` for all of the file.
    """

    text: str
    regex: re.Pattern[str]
    fields: tuple[str, ...]
    index: int | None = None

    @classmethod
    def parse(cls, text: str) -> "PathPattern":
        """Parses a path; see `LayoutSettings` for its form.

        Raises:
            ValueError: If it is not understood.
        """
        indexed = _INDEX.fullmatch(text)
        path = indexed["path"] if indexed else text
        fields: dict[str, None] = {}
        parts, place = [], 0
        while place < len(path):
            token = _TOKEN.match(path, place)
            if token is None:
                raise ValueError(f"path {text!r} is not understood at {path[place:]!r}")
            parts.append(_regex(token, fields))
            place = token.end()
        if not path or path.startswith("/"):
            raise ValueError(f"path {text!r} must be relative to the source")
        index = int(indexed["index"]) if indexed else None
        try:
            return cls(text, re.compile("".join(parts)), tuple(fields), index)
        except re.error as error:
            raise ValueError(f"path {text!r} is not understood: check its brackets") from error

    def match(self, path: str) -> dict[str, str] | None:
        """Returns the fields of a path, absent ones as empty text; `None` if it does not match."""
        found = self.regex.fullmatch(path)
        return None if found is None else {k: v or "" for k, v in found.groupdict().items()}

    def filled(self, fields: dict[str, str]) -> str:
        """The path of a case, for messages; optional parts are left out with their fields."""
        text = re.sub(r"\{([a-z_]+)\}", lambda found: fields.get(found[1]) or found[0], self.text)
        return re.sub(r"\[([^\]]*)\]", lambda found: "" if "{" in found[1] else found[1], text)


def _regex(token: re.Match[str], fields: dict[str, None]) -> str:
    name, other = token["field"], token["other"]
    if name:
        again = name in fields
        fields[name] = None
        return f"(?P={name})" if again else f"(?P<{name}>[^/]+?)"
    if other:
        return {"[": "(?:", "]": ")?"}.get(other, re.escape(other))
    return "(?:.*/)?" if token["folders"] else "[^/]*"
