"""The compressions of TIFF, unpacked no further than the header declares."""

import lzma
import zlib
from collections.abc import Callable, Mapping

from components.shared.reading.tiff_tags import BadTiffError

_NONE = 1
_LZMA_BYTES = 2**27  # the strongest preset of xz needs 65 MiB to unpack
_NAMES = {5: "LZW", 6: "JPEG", 7: "JPEG", 34887: "LERC", 50000: "Zstandard", 50001: "WebP"}


def unpack_segment(data: bytes, compression: int, limit: int) -> bytes:
    """Unpacks a strip or a tile.

    Args:
        data: As the file holds it.
        compression: Value of the tag of this name.
        limit: Bytes of a whole segment. No more are made, whatever the stream would yield.

    Returns:
        At most `limit` bytes, fewer if the stream holds fewer.

    Raises:
        BadTiffError: If the compression is none of those below, the stream is damaged, or it
            unpacks to more.
    """
    if compression == _NONE:
        return data[:limit]  # some writers pad
    if compression not in _UNPACKERS:
        given = _NAMES.get(compression, compression)
        raise BadTiffError(f"compression {given}, expected none, deflate, PackBits or LZMA")
    try:
        unpacked = _UNPACKERS[compression](data, limit + 1)
    except (zlib.error, lzma.LZMAError) as error:
        raise BadTiffError(f"damaged pixels: {error}") from error
    if len(unpacked) > limit:
        raise BadTiffError(f"pixels unpack to more than the declared {limit} bytes")
    return unpacked


def _deflate(data: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj()
    unpacked = stream.decompress(data, limit)
    return _whole(unpacked, stream.eof, limit)


def _lzma(data: bytes, limit: int) -> bytes:
    stream = lzma.LZMADecompressor(memlimit=_LZMA_BYTES)
    unpacked = stream.decompress(data, limit)
    return _whole(unpacked, stream.eof, limit)


def _whole(unpacked: bytes, ended: bool, limit: int) -> bytes:
    if len(unpacked) < limit and not ended:  # the checksum stands at the end
        raise BadTiffError("damaged pixels: the compressed stream has no end")
    return unpacked


def _packbits(data: bytes, limit: int) -> bytes:
    """TIFF 6.0, section 9."""
    unpacked = bytearray()
    at = 0
    while at < len(data) and len(unpacked) < limit:
        head = data[at]
        if head < 128:
            unpacked += data[at + 1 : at + 2 + head]
            at += head + 1
        elif head > 128:
            unpacked += data[at + 1 : at + 2] * (257 - head)
            at += 1
        at += 1
    return bytes(unpacked)


_UNPACKERS: Mapping[int, Callable[[bytes, int], bytes]] = {
    8: _deflate,
    32946: _deflate,  # its number before Adobe gave it 8
    32773: _packbits,
    34925: _lzma,
}
