"""The directory of a TIFF file: header and tags, read without trusting them.

TIFF 6.0 (Adobe 1992), section 2; BigTIFF after libtiff's design (8-byte offsets).
"""

import struct
from collections.abc import Collection
from dataclasses import dataclass

Tags = dict[int, tuple[int, ...]]

# A slice's directory takes a few hundred bytes. Values may overlap, and a Python integer takes
# ten times what the file spends on it: without a limit a small file fills the memory.
_MOST_TAGS = 4096
_MOST_VALUE_BYTES = 2**20

# bytes of a value by the type's number; 16 to 18 are BigTIFF's
_SIZES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), start=1)) | {16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # BYTE, SHORT, LONG, LONG8


class BadTiffError(Exception):
    """A file is not a whole TIFF with one page that can be read; the text is the reason."""


@dataclass(frozen=True)
class _Form:
    """How a file writes its directory, in the letters of `struct`."""

    order: str
    offset: str
    tally: str
    entry: str
    first: int

    def unpack(self, letters: str, data: bytes, start: int) -> tuple[int, ...]:
        return struct.unpack(self.order + letters, cut(data, start, self.size(letters)))

    def size(self, letters: str) -> int:
        return struct.calcsize(self.order + letters)


def read_tags(data: bytes, wanted: Collection[int]) -> Tags:
    """Reads the tags of the only page.

    Args:
        data: The file.
        wanted: The tags whose values are returned, if they are there; they must be whole
            numbers. Of the others only the place is checked.

    Raises:
        BadTiffError: If this is no TIFF, holds several pages, or any tag is damaged: of an
            unknown type, with a value beyond the end of the file, with too long a value.
    """
    form = _form(data)
    (start,) = form.unpack(form.offset, data, form.first)
    (count,) = form.unpack(form.tally, data, start)
    if count > _MOST_TAGS:
        raise BadTiffError(f"{count} tags, the limit is {_MOST_TAGS}")
    start += form.size(form.tally)
    entries = cut(data, start, count * form.size(form.entry))
    (following,) = form.unpack(form.offset, data, start + len(entries))
    if following:
        raise BadTiffError("several pages in one TIFF, expected 1")
    return _values(form, data, entries, wanted)


def cut(data: bytes, start: int, size: int) -> bytes:
    """A part of the file.

    Raises:
        BadTiffError: If the file ends before it.
    """
    if start + size > len(data):
        raise BadTiffError(f"truncated: {len(data)} bytes of {start + size}")
    return data[start : start + size]


def _form(data: bytes) -> _Form:
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise BadTiffError("not a TIFF")
    (version,) = struct.unpack(order + "H", cut(data, 2, 2))
    if version == 42:
        return _Form(order, offset="I", tally="H", entry="HHI4s", first=4)
    if version == 43 and struct.unpack(order + "HH", cut(data, 4, 4)) == (8, 0):
        return _Form(order, offset="Q", tally="Q", entry="HHQ8s", first=8)
    raise BadTiffError(f"not a TIFF of a known version ({version})")


def _values(form: _Form, data: bytes, entries: bytes, wanted: Collection[int]) -> Tags:
    tags: Tags = {}
    total = 0
    for code, kind, count, field in struct.iter_unpack(form.order + form.entry, entries):
        if kind not in _SIZES:
            raise BadTiffError(f"tag {code} is of unknown type {kind}")
        size = count * _SIZES[kind]
        total += size
        if total > _MOST_VALUE_BYTES:
            raise BadTiffError(f"tags of more than {_MOST_VALUE_BYTES // 2**20} MiB")
        value = field[:size] if size <= len(field) else _far(form, data, code, field, size)
        if code in wanted and count:
            if code in tags or kind not in _INTEGERS:
                raise BadTiffError(f"tag {code} is there twice or is no whole number")
            tags[code] = struct.unpack(f"{form.order}{count}{_INTEGERS[kind]}", value)
    return tags


def _far(form: _Form, data: bytes, code: int, field: bytes, size: int) -> bytes:
    (start,) = struct.unpack(form.order + form.offset, field)
    if start + size > len(data):
        raise BadTiffError(f"truncated: tag {code} lies beyond the end of the file")
    return data[start : start + size]
