import bz2
import lzma
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.shared.reading.tiff_compression import unpack_segment
from components.shared.reading.tiff_tags import BadTiffError

NONE, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA = 1, 8, 32946, 32773, 34925
PACK = {
    NONE: bytes,
    DEFLATE: zlib.compress,
    OLD_DEFLATE: zlib.compress,
    LZMA: lzma.compress,
}


def pack_bits(data):
    """Literal runs and runs of one byte, after TIFF 6.0, section 9."""
    packed = bytearray()
    for start in range(0, len(data), 50):
        run = data[start : start + 50]
        packed += bytes([257 - len(run), run[0]]) if len(set(run)) == 1 < len(run) else b""
        packed += bytes([len(run) - 1]) + run if len(set(run)) > 1 or len(run) == 1 else b""
        packed += b"\x80"  # says nothing
    return bytes(packed)


PACK[PACKBITS] = pack_bits


@given(st.binary(min_size=1, max_size=300) | st.integers(1, 300).map(bytes))
@pytest.mark.parametrize("compression", PACK)
def test_what_was_packed_comes_back(compression, data):
    assert unpack_segment(PACK[compression](data), compression, len(data)) == data
    assert unpack_segment(PACK[compression](data), compression, len(data) + 9) == data


def test_the_example_of_the_tiff_specification():
    packed = bytes.fromhex("FEAA028000 2AFDAA038000 2A22F7AA")
    unpacked = bytes.fromhex("AAAAAA 80002A AAAAAAAA 80002A22 AAAAAAAAAAAAAAAAAAAA")
    assert unpack_segment(packed, PACKBITS, 100) == unpacked


@pytest.mark.parametrize("compression", [DEFLATE, OLD_DEFLATE, PACKBITS, LZMA])
def test_a_bomb_is_unpacked_no_further_than_declared(compression):
    bomb = PACK[compression](bytes(16 * 2**20))
    tracemalloc.start()
    with pytest.raises(BadTiffError, match="unpack to more than the declared 1000 bytes"):
        unpack_segment(bomb, compression, 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**20  # LZMA's dictionary takes 8 MiB


@pytest.mark.parametrize("compression", [DEFLATE, LZMA])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"garbage" + data,
        lambda data: data[:-1],  # the checksum
        lambda data: data[: len(data) // 2],
        lambda data: bz2.compress(data),
        lambda data: b"",
    ],
)
def test_damage_is_told(compression, damage):
    with pytest.raises(BadTiffError, match=r"damaged pixels: .+"):
        unpack_segment(damage(PACK[compression](bytes(range(200)))), compression, 200)


def test_a_dictionary_of_gigabytes_is_refused():
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**30}]
    data = lzma.compress(b"small", filters=filters, format=lzma.FORMAT_XZ)
    with pytest.raises(BadTiffError, match="damaged pixels: Memory usage limit"):
        unpack_segment(data, LZMA, 100)


@pytest.mark.parametrize(
    ("compression", "name"), [(5, "LZW"), (7, "JPEG"), (50000, "Zstandard"), (4321, "4321")]
)
def test_other_compressions_are_named(compression, name):
    with pytest.raises(BadTiffError, match=f"compression {name}, expected none, deflate"):
        unpack_segment(b"", compression, 1)
