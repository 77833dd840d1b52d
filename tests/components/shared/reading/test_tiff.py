import io
import struct

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from components.shared.reading.tiff import decode_tiff
from components.shared.reading.tiff_tags import BadTiffError

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
LIMIT = 2**20
COMPRESSIONS = [None, "zlib", "adobe_deflate", "lzma"]  # and PackBits, which tifffile only reads

LAYOUTS = st.fixed_dictionaries(
    {"byteorder": st.sampled_from("<>"), "bigtiff": st.booleans()},
    optional={
        "compression": st.sampled_from(COMPRESSIONS),
        "rowsperstrip": st.integers(1, 40),
        "predictor": st.booleans(),
        "description": st.text("some words", min_size=1),
    },
)


def encode(pixels, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 4])),
    LAYOUTS,
    st.sampled_from([None, (16, 16), (32, 16)]),
    st.integers(0, 2**32),
)
def test_pixels_are_those_that_tifffile_reads(shape, options, tile, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    if tile:
        options = {key: value for key, value in options.items() if key != "rowsperstrip"}
    if not options.get("compression"):
        options.pop("predictor", None)  # tifffile does not write it
    data = encode(
        pixels[..., 0] if shape[2] == 1 else pixels,
        photometric="rgb" if shape[2] > 1 else "minisblack",
        metadata=None,
        tile=tile,
        **options,
    )
    decoded = decode_tiff(data, LIMIT)
    np.testing.assert_array_equal(decoded, tifffile.imread(io.BytesIO(data)))
    assert decoded.dtype == np.uint8


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 5}, {"tile": (16, 16)}])
def test_no_truncated_file_passes(options, compression):
    data = encode(PIXELS, photometric="rgb", metadata=None, compression=compression, **options)
    passed = []
    for length in range(len(data)):
        try:
            decode_tiff(data[:length], LIMIT)
        except BadTiffError:
            continue
        passed.append(length)
    assert passed == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (encode(PIXELS, photometric="rgb")[:-500], "truncated"),
        (encode(np.zeros((1200, 1200), np.uint8), compression="zlib"), "1 MiB .* beyond the limit"),
        (encode(PIXELS.astype(np.uint16), photometric="rgb"), "pixels are uint16, expected uint8"),
        (encode(PIXELS.astype(np.int8), photometric="rgb"), "pixels are int8, expected uint8"),
        (encode(PIXELS.astype(np.float32), photometric="rgb"), "pixels are float32, expected"),
        (encode(PIXELS[..., 0] > 9), "pixels are uint1, expected uint8"),
        (
            encode(np.moveaxis(PIXELS, 2, 0), photometric="rgb", planarconfig="separate"),
            "channels are stored one after the other",
        ),
    ],
)
def test_reason(data, reason):
    with pytest.raises(BadTiffError, match=reason):
        decode_tiff(data, LIMIT)


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [
        ("ImageWidth", 0, "tag WIDTH is missing or 0"),
        ("ImageLength", 2**32 - 1, "declares 245760 MiB of pixels, beyond the limit"),
        ("SamplesPerPixel", 65535, "beyond the limit"),
        ("Compression", 5, "compression LZW, expected none, deflate, PackBits or LZMA"),
        ("Compression", 12345, "compression 12345, expected"),
        ("RowsPerStrip", 7, "pixels are in 5 parts, expected 4"),
    ],
)
def test_tag_that_cannot_be_right(tag, value, reason):
    data = encode(PIXELS, photometric="rgb", rowsperstrip=5, metadata=None)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        found = tiff.pages.first.tags[tag]
    whole = bytearray(data)
    struct.pack_into("<H" if found.dtype == 3 else "<I", whole, found.valueoffset, value)
    with pytest.raises(BadTiffError, match=reason):
        decode_tiff(bytes(whole), LIMIT)


@pytest.mark.parametrize(
    ("code", "value", "reason"),
    [
        (317, 3, "predictor 3, expected 1 or 2"),
        (266, 2, "bits of its bytes are in reverse order"),
    ],
)
def test_tag_that_tifffile_does_not_write(code, value, reason):
    private = {"extratags": [(60000, 3, 1, value, True)]}
    data = encode(PIXELS, photometric="rgb", metadata=None, **private)
    assert data.count(struct.pack("<H", 60000)) == 1
    with pytest.raises(BadTiffError, match=reason):
        decode_tiff(data.replace(struct.pack("<H", 60000), struct.pack("<H", code)), LIMIT)


def test_parts_that_overlap_are_refused():
    """Each part could be as large as the file: the work would be parts times file."""
    data = encode(PIXELS, photometric="rgb", rowsperstrip=5, metadata=None)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        place = tiff.pages.first.tags["StripByteCounts"].valueoffset
    whole = bytearray(data)
    whole[place : place + 10] = struct.pack("<5H", *[1000] * 5)
    with pytest.raises(BadTiffError, match="its pixels alone take 5000"):
        decode_tiff(bytes(whole), LIMIT)
