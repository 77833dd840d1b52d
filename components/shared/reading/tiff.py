"""Slices: TIFF files of one page of 8-bit pixels, read by tifffile and imagecodecs.

Both take a file at its word: they load as many tags and unpack as many bytes as it claims, log some
damage instead of raising, and fill missing pixels. So the declared page is checked before anything
is unpacked, and every strip or tile before it becomes pixels. Damage that passes all checks can
still take memory or time: call this under a limit, see `components.shared.reading.workers`.
"""

import io
import logging
import lzma
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from tifffile import COMPRESSION, FILLORDER, PHOTOMETRIC
from tifffile.tifffile import jpeg_shape

from components.shared.dataset.volumes import Pixels
from components.shared.printable import printable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_AXES = ("YX", "YXS", "SYX")  # gray, channels of a pixel side by side, one channel after another
_COMPRESSIONS = (1, 5, 7, 8, 32946, 32773, 34925)  # none, LZW, JPEG, deflate, PackBits, LZMA
# of one sample: white is zero, black is zero, palette, YCbCr; of several: black is zero, RGB, YCbCr
_PHOTOMETRICS = ((0, 1, 3, 6), (1, 2, 6))
_PREDICTORS = (1, 2)  # none, differences to the left neighbor
_LZMA_BYTES = 2**27  # the strongest preset of xz needs 65 MiB to unpack
# Tags that say where and what the pixels are, by their number of values. tifffile guesses what is
# missing, and readers disagree on which of two is meant.
_SINGLE = (256, 257, 259, 262, 266, 274, 277, 278, 284, 317, 322, 323)
_PER_SAMPLE = (258, 339)  # bits, sample format
_PER_PART = (273, 279, 324, 325)  # offsets and byte counts of strips and tiles

_Bytes = bytes | bytearray
# depth x height x width x samples, and the place in planes x depth x height x width x samples
_Part = tuple[npt.NDArray[Any] | None, tuple[int, int, int, int, int]]


# A slice's directory takes a few hundred bytes. Values may overlap: without a limit, the tags of a
# small file take minutes.
_TAG_BYTES = 2**21


class BadTiffError(Exception):
    """A file is not a whole TIFF with one page that can be read; the text is the reason."""


def decode_tiff(data: bytes, max_bytes: int) -> Pixels:
    """Decodes the only page of a TIFF file, as its tags say that it is shown.

    Deflate and LZMA streams carry checksums, which are verified. Of uncompressed, PackBits and LZW
    pixels only the number is; of JPEG the size and both ends of the stream.

    Args:
        data: The file.
        max_bytes: Most bytes of pixels; a page that declares more is refused before it is decoded.

    Returns:
        Height x width, and x samples if there are several.

    Raises:
        BadTiffError: If the file is empty, truncated, damaged, no TIFF, has several pages,
            pixels other than 8-bit unsigned, or a compression that cannot be verified.
    """
    if not data:
        raise BadTiffError("empty file")
    try:
        page = _only_page(data)
        _check_page(page, max_bytes)
        return _upright(page, _black_is_zero(page, _pixels(page, _segments(page, data))))
    except (BadTiffError, MemoryError):
        raise
    except Exception as error:  # what these libraries raise for a damaged file is not limited
        raise BadTiffError(f"damaged: {_text(error)}") from error


def _only_page(data: bytes) -> tifffile.TiffPage:
    # formats with tags of their own, from which tifffile would load further pages
    others = dict.fromkeys(("is_lsm", "is_ndpi", "is_scanimage"), False)
    with _strict_logger(), tifffile.TiffFile(_Directory(data), **others) as file:  # type: ignore[arg-type]
        try:
            page = file.pages.first
        except IndexError as error:
            raise BadTiffError("no page in the TIFF") from error
        try:
            file.pages[1]
        except IndexError:
            return page
        raise BadTiffError("several pages in one TIFF, expected 1")


class _Directory(io.BytesIO):
    """A file of which only the tags are read."""

    _left = _TAG_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._count(len(data))
        return data

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        size = super().readinto(buffer)
        self._count(size)
        return size

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise BadTiffError(f"damaged: tags of more than {_TAG_BYTES // 2**20} MiB")


@contextmanager
def _strict_logger() -> Iterator[None]:
    """Raises what tifffile logs as an error; its warnings are on tags that hold no pixels."""
    logger, errors = logging.getLogger("tifffile"), list[str]()

    def collect(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            errors.append(record.getMessage())
        return False

    logger.addFilter(collect)
    try:
        yield
    finally:
        logger.removeFilter(collect)
        if errors:
            raise BadTiffError(f"damaged: {_text(errors[0])}")


def _text(error: object) -> str:
    return printable(" ".join(str(error).split()))[:200] or type(error).__name__


def _check_page(page: tifffile.TiffPage, max_bytes: int) -> None:
    _check_tags(page)
    if page.bitspersample != 8 or page.dtype != np.uint8:
        kind = page.dtype if page.dtype and page.bitspersample != 1 else f"{page.bitspersample}-bit"
        raise BadTiffError(f"pixels are {kind}, expected uint8")
    if page.compression not in _COMPRESSIONS:
        name = getattr(page.compression, "name", page.compression)
        raise BadTiffError(
            f"compression {name}, expected none, LZW, JPEG, deflate, PackBits or LZMA"
        )
    # without the tag, tifffile's number is that of white
    is_named = 262 in page.tags
    if is_named and page.photometric not in _PHOTOMETRICS[page.samplesperpixel > 1]:
        name = getattr(page.photometric, "name", page.photometric)
        raise BadTiffError(f"photometric {name} of {page.samplesperpixel} samples is not supported")
    if page.photometric == PHOTOMETRIC.YCBCR and page.compression != COMPRESSION.JPEG:
        raise BadTiffError("YCbCr without JPEG is not supported, expected RGB")
    if page.predictor not in _PREDICTORS:
        raise BadTiffError(f"predictor {page.predictor:d}, expected 1 or 2")
    if page.axes not in _AXES:
        raise BadTiffError(f"axes {page.axes}, expected one of {', '.join(_AXES)}")
    lengths = (*page.shape, *_segment_shape(page))
    if not all(isinstance(length, int) and length > 0 for length in lengths):
        raise BadTiffError("damaged: a length is 0 or no whole number")
    declared = max(math.prod(page.shape), math.prod(_segment_shape(page)))
    if declared > max_bytes:
        raise BadTiffError(f"declares {declared / 2**20:.0f} MiB of pixels, beyond the limit")


def _check_tags(page: tifffile.TiffPage) -> None:
    allowed: dict[int, tuple[int, ...]] = {
        **dict.fromkeys(_SINGLE, (1,)),
        **dict.fromkeys(_PER_SAMPLE, (1, page.samplesperpixel)),
        **dict.fromkeys(_PER_PART, (len(page.databytecounts),)),
    }
    for tag in page.tags:
        if tag.code not in allowed:
            continue
        if tag.count not in allowed[tag.code]:
            raise BadTiffError(f"damaged: tag {tag.name} has {tag.count} values")
        allowed[tag.code] = ()  # a second one has no allowed number


def _segment_shape(page: tifffile.TiffPage) -> tuple[int, int, int]:
    """Height, width and samples of a whole strip or tile."""
    samples = page.shaped[-1]
    if page.is_tiled:
        return page.tilelength, page.tilewidth, samples
    return page.rowsperstrip, page.imagewidth, samples


def _segments(page: tifffile.TiffPage, data: bytes) -> Iterator[bytes]:
    """Bytes of every strip or tile, as the file holds them."""
    planes, _, height, width, _ = page.shaped
    rows, columns, _ = _segment_shape(page)
    expected = planes * math.ceil(height / rows) * math.ceil(width / columns)
    starts, sizes = page.dataoffsets, page.databytecounts
    if not len(starts) == len(sizes) == expected:
        raise BadTiffError(f"pixels are in {len(sizes)} parts, expected {expected}")
    if min(starts) < 0 or min(sizes) < 1:
        raise BadTiffError("pixels are missing")
    # parts that overlap would make the work as large as parts times file
    end = max(sum(sizes), *(start + size for start, size in zip(starts, sizes, strict=True)))
    if end > len(data):
        raise BadTiffError(f"truncated: {len(data)} bytes of {end}")
    return (data[start : start + size] for start, size in zip(starts, sizes, strict=True))


def _pixels(page: tifffile.TiffPage, segments: Iterator[bytes]) -> Pixels:
    planes, _, height, width, samples = page.shaped
    image = np.empty((planes, height, width, samples), np.uint8)
    for part, (plane, _, top, left, _) in _parts(page, segments):
        assert part is not None, "only a part without bytes has no pixels"
        place = image[plane, top : top + part.shape[1], left : left + part.shape[2]]
        place[:] = part[0, : place.shape[0], : place.shape[1]]
    pixels = np.moveaxis(image, 0, 2).reshape(height, width, planes * samples)
    return pixels if planes * samples > 1 else pixels[..., 0]


def _black_is_zero(page: tifffile.TiffPage, pixels: Pixels) -> Pixels:
    if page.photometric == PHOTOMETRIC.PALETTE:
        return _without_map(page, pixels)
    is_inverted = page.photometric == PHOTOMETRIC.MINISWHITE and 262 in page.tags
    return np.invert(pixels) if is_inverted else pixels


def _without_map(page: tifffile.TiffPage, pixels: Pixels) -> Pixels:
    """Applies a map to grays; keeps the numbers of colors if exactly 0 is black."""
    colors = np.asarray(page.colormap)
    if colors.shape != (3, 256):
        raise BadTiffError("damaged: the color map does not have 256 colors")
    grays: Pixels = (colors[0] >> 8).astype(np.uint8)
    if (colors == colors[0]).all():
        return np.take(grays, pixels)
    used = np.unique(pixels)
    if (colors[:, used].any(axis=0) != (used > 0)).any():
        raise BadTiffError("its color map does not show exactly 0 in black; store it in gray")
    return pixels


def _upright(page: tifffile.TiffPage, pixels: Pixels) -> Pixels:
    """Turns and flips pixels as the tag for orientation says."""
    orientation = page.tags.valueof(274, default=1)
    if orientation not in range(1, 9):
        raise BadTiffError(f"damaged: orientation {orientation}, expected 1 to 8")
    is_transposed, flips = divmod(orientation - 1, 4)
    upright = pixels.swapaxes(0, 1) if is_transposed else pixels
    return np.flip(upright, [(), (1,), (0, 1), (0,)][flips])  # TIFF 6.0, page 36


def _parts(page: tifffile.TiffPage, segments: Iterator[bytes]) -> Iterator[_Part]:
    if page.compression == COMPRESSION.JPEG:
        for index, segment in enumerate(segments):
            _check_jpeg(segment, page, _size(page, index))
            yield page.decode(segment, index, jpegtables=page.jpegtables)[:2]
        return
    compression, reverse = page.compression, page.fillorder == FILLORDER.LSB2MSB
    page.compression, page.fillorder = COMPRESSION.NONE, FILLORDER.MSB2LSB
    whole = math.prod(_segment_shape(page))
    for index, segment in enumerate(segments):
        packed = imagecodecs.bitorder_decode(segment) if reverse else segment
        pixels = _unpack(packed, compression, whole)
        if len(pixels) < whole and len(pixels) < (size := _size(page, index)):
            held = f"{len(pixels)} of {size} bytes"
            raise BadTiffError(f"pixels are missing: part {index + 1} holds {held}")
        yield page.decode(pixels, index)[:2]


def _size(page: tifffile.TiffPage, index: int) -> int:
    """Bytes of a strip or tile; the last strip may be lower than the others."""
    rows, columns, samples = _segment_shape(page)
    if not page.is_tiled:
        height = page.shaped[2]
        rows = min(rows, height - index % math.ceil(height / rows) * rows)
    return rows * columns * samples


def _check_jpeg(data: bytes, page: tifffile.TiffPage, size: int) -> None:
    # libjpeg fills what is missing with gray, and its warnings do not come through
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        raise BadTiffError("damaged: the JPEG stream has no start or no end")
    bits, height, width, samples = jpeg_shape(data)
    whole, pixels = _segment_shape(page), height * width * samples
    if bits != 8 or (width, samples) != whole[1:] or not size <= pixels <= math.prod(whole):
        raise BadTiffError(f"damaged: the JPEG is {height} x {width} x {samples}, {bits} bits")


def _unpack(data: _Bytes, compression: int, limit: int) -> _Bytes:
    if compression == COMPRESSION.NONE:
        return data[:limit]  # some writers pad
    if compression == COMPRESSION.LZW:
        unpacked = imagecodecs.lzw_decode(data, out=limit + 1)
    elif compression == COMPRESSION.PACKBITS:
        unpacked = imagecodecs.packbits_decode(data, out=limit + 1)
    else:
        is_lzma = compression == COMPRESSION.LZMA
        stream = lzma.LZMADecompressor(memlimit=_LZMA_BYTES) if is_lzma else zlib.decompressobj()
        # not by imagecodecs, which stops at the wanted size, before the checksum
        unpacked = stream.decompress(data, limit + 1)
        if not stream.eof and len(unpacked) <= limit:
            raise BadTiffError("damaged: the compressed stream has no end")
    if len(unpacked) > limit:
        raise BadTiffError(f"pixels unpack to more than the declared {limit} bytes")
    return unpacked
