"""Strict reading of one-page TIFF files."""

import io
import logging
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

# tifffile logs what it also raises; the reason of a quarantine is told once
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)

# what tifffile lets through on damaged files
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class BadTiffError(Exception):
    """A file is not a whole TIFF with one page; the text is the reason."""


def decode_tiff(data: bytes, max_bytes: int) -> npt.NDArray[Any]:
    """Decodes the only page of a TIFF file.

    Args:
        data: The file.
        max_bytes: A page that declares more bytes of pixels is refused before it is decoded.

    Raises:
        BadTiffError: If the file is empty, truncated, damaged, no TIFF, or has several pages.
    """
    if not data:
        raise BadTiffError("empty file")
    if data[:2] not in (b"II", b"MM"):
        raise BadTiffError("not a TIFF")
    try:
        # closed here: tifffile's objects form cycles, which keep the bytes until some later day
        with io.BytesIO(data) as stream, tifffile.TiffFile(stream) as tiff:
            _check(tiff, len(data), max_bytes)
            # one worker: starting threads takes longer than a slice
            return np.asarray(tiff.pages.first.asarray(maxworkers=1))
    except _DAMAGE as error:
        raise BadTiffError(f"damaged or unsupported TIFF: {error}") from error


def _check(tiff: tifffile.TiffFile, size: int, max_bytes: int) -> None:
    if len(tiff.pages) != 1:
        raise BadTiffError(f"{len(tiff.pages)} pages in one TIFF, expected 1")
    page = tiff.pages.first
    if page.nbytes > max_bytes:
        raise BadTiffError(f"declares {page.nbytes / 2**20:.0f} MiB of pixels, beyond the limit")
    # tifffile fills what is missing with zeros: a truncated slice would pass as a black one
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    end = max((offset + count for offset, count in segments), default=0)
    if end > size:
        raise BadTiffError(f"truncated: {size} bytes of {end}")
    if not segments or any(count <= 0 for _, count in segments):
        raise BadTiffError("pixels are missing")
