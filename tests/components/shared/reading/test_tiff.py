import io

import numpy as np
import pytest
import tifffile

from components.shared.reading.tiff import BadTiffError, decode_tiff

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
LIMIT = 2**20


def encode(pixels, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "options", [{}, {"rowsperstrip": 5}, {"compression": "zlib"}, {"byteorder": ">"}]
)
def test_pixels_come_back(options):
    data = encode(PIXELS, photometric="rgb", **options)
    np.testing.assert_array_equal(decode_tiff(data, LIMIT), PIXELS)


@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 5}, {"compression": "zlib"}])
def test_no_truncated_file_passes(options):
    data = encode(PIXELS, photometric="rgb", metadata=None, **options)
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
        (b"\x89PNG\r\n", "not a TIFF"),
        (b"II*\0", "damaged or unsupported TIFF"),
        (encode(PIXELS, photometric="rgb")[:-500], "truncated"),
        (encode(np.stack([PIXELS] * 2), photometric="rgb"), "2 pages in one TIFF"),
        (encode(np.zeros((1200, 1200), np.uint8), compression="zlib"), "beyond the limit"),
    ],
)
def test_reason(data, reason):
    with pytest.raises(BadTiffError, match=reason):
        decode_tiff(data, LIMIT)


def test_no_damage_escapes_the_door():
    """Bytes changed at random in the structure of a file: pixels or a reason, nothing else."""
    random = np.random.default_rng(0)
    whole = np.frombuffer(encode(PIXELS, photometric="rgb", rowsperstrip=5), np.uint8)
    refused = 0
    for _ in range(2000):
        damaged = whole.copy()
        places = random.integers(0, 250, random.integers(1, 5))
        damaged[places] = random.integers(0, 256, places.size)
        try:
            decode_tiff(damaged.tobytes(), LIMIT)
        except BadTiffError:
            refused += 1
    assert refused > 200
