"""Strict reading of slices: TIFF files of one page of 8-bit pixels.

Only what slices are written with is read; all else is refused. A general reader (tifffile) takes
nearly every TIFF there is at its word: it unpacks as much as a stream yields, loads as many
values as the tags claim, and goes on without a tag that is cut off.
"""

import enum
import math
from dataclasses import dataclass

import numpy as np

from components.shared.dataset.volumes import Voxels
from components.shared.reading.tiff_compression import unpack_segment
from components.shared.reading.tiff_tags import BadTiffError, Tags, cut, read_tags

_UNSIGNED = {1, 4}  # sample formats: unsigned, not said which
_SAMPLE_TYPES = {1: "uint", 2: "int", 3: "float"}
_PREDICTORS = {1: False, 2: True}  # whether samples are differences to their left neighbours


class _Tag(enum.IntEnum):
    """Where the pixels lie and what they are, TIFF 6.0."""

    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    SAMPLES = 277
    STRIP_HEIGHT = 278
    STRIP_BYTES = 279
    PLANAR = 284
    PREDICTOR = 317
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_BYTES = 325
    SAMPLE_FORMAT = 339


@dataclass(frozen=True)
class _Page:
    """Its segments are strips or tiles; a strip is as wide as the page."""

    shape: tuple[int, int, int]  # height, width, samples
    segment: tuple[int, int]  # height and width
    segments: tuple[tuple[int, int], ...]  # first byte and number of bytes
    tiled: bool
    compression: int
    differences: bool

    @property
    def segment_bytes(self) -> int:
        return math.prod(self.segment) * self.shape[2]


def decode_tiff(data: bytes, max_bytes: int) -> Voxels:
    """Decodes the only page of a TIFF file.

    Beside the file it takes at most four times `max_bytes` of memory (and 128 MiB for LZMA),
    whatever the file holds.

    Args:
        data: The file.
        max_bytes: A page that declares more bytes of pixels is refused before it is decoded.

    Returns:
        Height x width, and x samples if there are several.

    Raises:
        BadTiffError: If the file is empty, truncated, damaged, no TIFF, has several pages,
            other pixels than 8-bit unsigned, or a compression other than none, deflate,
            PackBits and LZMA.
    """
    if not data:
        raise BadTiffError("empty file")
    page = _page(read_tags(data, frozenset(_Tag)))
    _check_size(page, len(data), max_bytes)
    pixels = np.empty(page.shape, np.uint8)
    for index, (start, size) in enumerate(page.segments):
        _fill(pixels, page, index, cut(data, start, size))
    return pixels if page.shape[2] > 1 else pixels[..., 0]


def _page(tags: Tags) -> _Page:
    height, width = _one(tags, _Tag.HEIGHT), _one(tags, _Tag.WIDTH)
    samples = _one(tags, _Tag.SAMPLES, 1)
    _check_samples(tags, samples)
    tiled = _Tag.TILE_WIDTH in tags
    return _Page(
        shape=(height, width, samples),
        segment=(
            (_one(tags, _Tag.TILE_HEIGHT), _one(tags, _Tag.TILE_WIDTH))
            if tiled
            else (min(_one(tags, _Tag.STRIP_HEIGHT, height), height), width)
        ),
        segments=_places(tags, tiled),
        tiled=tiled,
        compression=_one(tags, _Tag.COMPRESSION, 1),
        differences=_differences(tags),
    )


def _one(tags: Tags, tag: _Tag, default: int = 0) -> int:
    value = tags.get(tag, (default,))[0]
    if value < 1:
        raise BadTiffError(f"tag {tag.name} is missing or 0")
    return value


def _check_samples(tags: Tags, samples: int) -> None:
    bits, formats = set(tags.get(_Tag.BITS, (1,))), set(tags.get(_Tag.SAMPLE_FORMAT, (1,)))
    if bits != {8} or not formats <= _UNSIGNED:
        kind = _SAMPLE_TYPES.get(min(formats - _UNSIGNED, default=1), "unknown")
        raise BadTiffError(f"pixels are {kind}{min(bits - {8}, default=8)}, expected uint8")
    if samples > 1 and _one(tags, _Tag.PLANAR, 1) != 1:
        raise BadTiffError("its channels are stored one after the other, expected pixel by pixel")
    if _one(tags, _Tag.FILL_ORDER, 1) != 1:
        raise BadTiffError("the bits of its bytes are in reverse order")


def _differences(tags: Tags) -> bool:
    predictor = _one(tags, _Tag.PREDICTOR, 1)
    if predictor not in _PREDICTORS:
        raise BadTiffError(f"predictor {predictor}, expected 1 or 2")
    return _PREDICTORS[predictor]


def _places(tags: Tags, tiled: bool) -> tuple[tuple[int, int], ...]:
    offsets = tags.get(_Tag.TILE_OFFSETS if tiled else _Tag.STRIP_OFFSETS, ())
    sizes = tags.get(_Tag.TILE_BYTES if tiled else _Tag.STRIP_BYTES, ())
    if not offsets or len(offsets) != len(sizes) or 0 in sizes:
        raise BadTiffError("pixels are missing")
    return tuple(zip(offsets, sizes, strict=True))


def _check_size(page: _Page, file_bytes: int, max_bytes: int) -> None:
    declared = max(math.prod(page.shape), page.segment_bytes)
    if declared > max_bytes:
        raise BadTiffError(f"declares {declared / 2**20:.0f} MiB of pixels, beyond the limit")
    lengths = zip(page.shape[:2], page.segment, strict=True)
    expected = math.prod(math.ceil(length / part) for length, part in lengths)
    if len(page.segments) != expected:
        raise BadTiffError(f"pixels are in {len(page.segments)} parts, expected {expected}")
    # parts that overlap would make the work as large as parts times file
    taken = sum(size for _, size in page.segments)
    if taken > file_bytes:
        raise BadTiffError(f"truncated: {file_bytes} bytes, its pixels alone take {taken}")


def _fill(pixels: Voxels, page: _Page, index: int, data: bytes) -> None:
    rows, columns = page.segment
    across = math.ceil(page.shape[1] / columns)
    top, left = index // across * rows, index % across * columns
    if not page.tiled:
        rows = min(rows, page.shape[0] - top)
    part = unpack_segment(data, page.compression, page.segment_bytes)
    size = rows * columns * page.shape[2]
    if len(part) < size:
        raise BadTiffError(
            f"pixels are missing: part {index + 1} holds {len(part)} of {size} bytes"
        )
    block = np.frombuffer(part, np.uint8, size).reshape(rows, columns, -1)
    if page.differences:
        block = np.add.accumulate(block, axis=1, dtype=np.uint8)
    place = pixels[top : top + rows, left : left + columns]
    place[:] = block[: place.shape[0], : place.shape[1]]
