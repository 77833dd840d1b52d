import struct
import tracemalloc

import pytest

from components.shared.reading.tiff_tags import BadTiffError, read_tags

BYTE, ASCII, SHORT, LONG, RATIONAL, LONG8 = 1, 2, 3, 4, 5, 16
WIDTH, NOTE = 256, 270


def classic(*entries, following=0, rest=b"", order="<"):
    """A TIFF of one directory; an entry is (code, type, count, four bytes)."""
    data = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    data += struct.pack(order + "H", len(entries))
    for entry in entries:
        data += struct.pack(order + "HHI4s", *entry)
    return data + struct.pack(order + "I", following) + rest


def big(*entries, count=None, following=0):
    data = b"II" + struct.pack("<HHHQQ", 43, 8, 0, 16, len(entries) if count is None else count)
    for entry in entries:
        data += struct.pack("<HHQ8s", *entry)
    return data + struct.pack("<Q", following)


def test_whole_numbers_of_every_size_and_order():
    assert read_tags(classic((WIDTH, BYTE, 3, b"\1\2\3\0")), {WIDTH}) == {WIDTH: (1, 2, 3)}
    assert read_tags(classic((WIDTH, SHORT, 2, b"\1\0\2\0")), {WIDTH}) == {WIDTH: (1, 2)}
    assert read_tags(classic((WIDTH, LONG, 1, b"\0\0\0\1"), order=">"), {WIDTH}) == {WIDTH: (1,)}
    assert read_tags(big((WIDTH, LONG8, 1, b"\5" + bytes(7))), {WIDTH}) == {WIDTH: (5,)}


def test_values_that_do_not_fit_in_the_entry_are_elsewhere():
    far = struct.pack("<I", 26)  # right after a directory of one entry
    data = classic((WIDTH, SHORT, 3, far), rest=b"\1\0\2\0\3\0")
    assert read_tags(data, {WIDTH}) == {WIDTH: (1, 2, 3)}


def test_only_what_is_wanted_is_read():
    data = classic((WIDTH, SHORT, 1, b"\7\0\0\0"), (NOTE, ASCII, 4, b"note"))
    assert read_tags(data, {257}) == {}
    assert read_tags(data, {WIDTH, 257}) == {WIDTH: (7,)}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n", "not a TIFF"),
        (b"II", "truncated: 2 bytes of 4"),
        (b"II*\0", "truncated: 4 bytes of 8"),
        (b"II\x55\0" + bytes(20), r"not a TIFF of a known version \(85\)"),
        (b"II+\0\4\0\0\0" + bytes(20), r"not a TIFF of a known version \(43\)"),
        (b"II*\0" + struct.pack("<I", 2**32 - 1), "truncated: 8 bytes of 4294967297"),
        (b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**64 - 1), "truncated: 16 bytes of"),
        (classic((NOTE, ASCII, 4, b"note"))[:-1], "truncated"),
        (classic((NOTE, ASCII, 4, b"note"), following=8), "several pages in one TIFF, expected 1"),
        (big(count=2**63), "9223372036854775808 tags, the limit is 4096"),
        (classic(*[(NOTE, ASCII, 4, b"note")] * 4097), "4097 tags, the limit is 4096"),
        (classic((NOTE, 99, 1, b"note")), "tag 270 is of unknown type 99"),
        (classic((NOTE, ASCII, 5, b"\1\0\0\0")), None),
        (classic((NOTE, ASCII, 26, b"\1\0\0\0")), "tag 270 lies beyond the end of the file"),
        (classic((NOTE, ASCII, 2**32 - 1, b"\0\0\0\0")), "tags of more than 1 MiB"),
        (classic((WIDTH, RATIONAL, 1, b"\1\0\0\0")), "tag 256 .* is no whole number"),
        (classic(*[(WIDTH, SHORT, 1, b"\1\0\0\0")] * 2), "tag 256 is there twice"),
    ],
)
def test_reason(data, reason):
    if reason is None:
        read_tags(data, {WIDTH})
        return
    with pytest.raises(BadTiffError, match=reason):
        read_tags(data, {WIDTH})


def test_values_that_overlap_do_not_fill_the_memory():
    """4,000 tags that all name the same mebibyte."""
    far = struct.pack("<I", 8)
    data = classic(*[(NOTE, ASCII, 2**19, far)] * 4000, rest=bytes(2**20))
    tracemalloc.start()
    with pytest.raises(BadTiffError, match="tags of more than 1 MiB"):
        read_tags(data, {WIDTH})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20
