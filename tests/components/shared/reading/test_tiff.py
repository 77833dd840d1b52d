import io
import lzma
import struct
import tracemalloc
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from components.shared.reading.tiff import BadTiffError, decode_tiff

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
LIMIT = 2**20
NONE, LZW, JPEG, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA = 1, 5, 7, 8, 32946, 32773, 34925
COMPRESSIONS = [None, "zlib", "adobe_deflate", "lzma", "lzw", "packbits"]
PACK = {
    NONE: bytes,
    LZW: imagecodecs.lzw_encode,
    DEFLATE: zlib.compress,
    OLD_DEFLATE: zlib.compress,
    PACKBITS: imagecodecs.packbits_encode,
    LZMA: lzma.compress,
}

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


def one_strip(stream, compression, shape=(1, 100, 1), tags=()):
    """A TIFF of one strip; `tags` are further (code, type, count, value)."""
    height, width, samples = shape
    known = {256: width, 257: height, 258: 8, 259: compression, 273: 8}
    known |= {277: samples, 278: height, 279: len(stream)}
    entries = [(code, 4, 1, value) for code, value in known.items()] + list(tags)
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries)) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(stream)) + stream + directory


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 4])),
    LAYOUTS,
    st.sampled_from([None, (16, 16), (32, 16)]),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_pixels_are_those_that_tifffile_reads(shape, options, tile, planar, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    if tile:
        options = {key: value for key, value in options.items() if key != "rowsperstrip"}
    if not options.get("compression"):
        options.pop("predictor", None)  # tifffile does not write it
    planar = planar and shape[2] > 1
    data = encode(
        pixels[..., 0] if shape[2] == 1 else np.moveaxis(pixels, 2, 0) if planar else pixels,
        photometric="rgb" if shape[2] > 1 else "minisblack",
        planarconfig="separate" if planar else "contig" if shape[2] > 1 else None,
        metadata=None,
        tile=tile,
        **options,
    )
    decoded = decode_tiff(data, LIMIT)
    np.testing.assert_array_equal(decoded, pixels if shape[2] > 1 else pixels[..., 0])
    assert decoded.dtype == np.uint8


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 16}, {"tile": (32, 32)}])
def test_jpeg(layout, photometric):
    pixels = np.add.outer(np.arange(40), 2 * np.arange(30))[..., None] + np.arange(3)
    pixels = pixels.astype(np.uint8)
    options = {"photometric": photometric, "compression": "jpeg", "compressionargs": {"level": 99}}
    data = encode(pixels, **options, **layout)
    decoded = decode_tiff(data, LIMIT)
    np.testing.assert_array_equal(decoded, tifffile.imread(io.BytesIO(data)))
    if photometric == "rgb":
        assert np.abs(decoded.astype(int) - pixels).max() < 20


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits"])
def test_files_that_libtiff_wrote(compression):
    """Among them JPEG with its tables in a tag of their own."""
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "TIFF", compression=compression)
    with Image.open(stream) as image:
        expected = np.asarray(image)
    np.testing.assert_array_equal(decode_tiff(stream.getvalue(), LIMIT), expected)


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


@pytest.mark.parametrize("compression", [LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, NONE])
def test_no_stream_that_is_too_short_passes(compression):
    """Not even where the file is whole: the byte counts fit the stream, not the pixels."""
    stream = PACK[compression](bytes(range(200)))
    whole = one_strip(stream, compression, (10, 20, 1))
    np.testing.assert_array_equal(decode_tiff(whole, LIMIT).ravel(), np.arange(200))
    for length in range(1, len(stream) - 4):
        with pytest.raises(BadTiffError):
            decode_tiff(one_strip(stream[:length], compression, (10, 20, 1)), LIMIT)


@pytest.mark.parametrize("compression", [DEFLATE, OLD_DEFLATE, LZMA])
def test_no_flipped_bit_of_a_stream_with_checksum_changes_pixels(compression):
    stream = PACK[compression](bytes(range(200)))
    for place in range(len(stream)):
        damaged = bytearray(stream)
        damaged[place] ^= 1 << place % 8
        try:
            decoded = decode_tiff(one_strip(damaged, compression, (10, 20, 1)), LIMIT)
        except BadTiffError:
            continue
        np.testing.assert_array_equal(decoded.ravel(), np.arange(200))


class TestJpegStream:
    """JPEG has no checksum: only the size and both ends can be verified."""

    STREAM = imagecodecs.jpeg8_encode(PIXELS, level=95)

    def decode(self, stream, shape=(24, 20, 3)):
        return decode_tiff(one_strip(stream, JPEG, shape, [(262, 3, 1, 6)]), LIMIT)

    def test_whole(self):
        assert self.decode(self.STREAM).shape == (24, 20, 3)

    @pytest.mark.parametrize("cut", [1, 2, 50, 500])
    def test_truncated(self, cut):
        with pytest.raises(BadTiffError, match="JPEG stream has no start or no end"):
            self.decode(self.STREAM[:-cut])

    def test_filled_up_with_zeros(self):
        with pytest.raises(BadTiffError, match="JPEG stream has no start or no end"):
            self.decode(self.STREAM[:-500] + bytes(500))

    @pytest.mark.parametrize("shape", [(20, 24, 3), (24, 20, 1), (12, 40, 3), (25, 20, 3)])
    def test_another_size_than_the_header_declares(self, shape):
        with pytest.raises(BadTiffError, match="the JPEG is 24 x 20 x 3, 8 bits"):
            self.decode(self.STREAM, shape)

    def test_declares_gigabytes(self):
        start = self.STREAM.index(struct.pack(">HH", 24, 20))
        huge = struct.pack(">HH", 65500, 65500)
        with pytest.raises(BadTiffError, match="the JPEG is 65500 x 65500 x 3"):
            self.decode(self.STREAM[:start] + huge + self.STREAM[start + 4 :])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"\x89PNG\r\n\x1a\n", "not a TIFF"),
        (b"II", "not a TIFF|unpack requires"),
        (b"II*\0" + bytes(4), "no page in the TIFF"),
        (encode(PIXELS, photometric="rgb")[:-500], "truncated"),
        (encode(np.stack([PIXELS] * 2), photometric="rgb"), "several pages in one TIFF, expected"),
        (encode(np.zeros((1200, 1200), np.uint8), compression="zlib"), "1 MiB .* beyond the limit"),
        (encode(PIXELS.astype(np.uint16), photometric="rgb"), "pixels are uint16, expected uint8"),
        (encode(PIXELS.astype(np.int8), photometric="rgb"), "pixels are int8, expected uint8"),
        (encode(PIXELS.astype(np.float32), photometric="rgb"), "pixels are float32, expected"),
        (encode(PIXELS[..., 0] > 9), "pixels are 1-bit, expected uint8"),
    ],
)
def test_reason(data, reason):
    with pytest.raises(BadTiffError, match=reason):
        decode_tiff(data, LIMIT)


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [
        ("ImageWidth", 0, "a length is 0 or no whole number"),
        ("ImageLength", 2**32 - 1, "incorrect StripByteCounts count"),
        ("SamplesPerPixel", 65535, "BitsPerSample has 3 values"),
        ("Compression", 50000, "compression ZSTD, expected none, LZW, JPEG, deflate, PackBits"),
        ("Compression", 12345, "compression 12345, expected"),
        ("RowsPerStrip", 7, r"incorrect StripByteCounts count \(5 != 4\)"),
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


SHORT, LONG, RATIONAL = 3, 4, 5


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ((317, SHORT, 1, 3), "predictor 3, expected 1 or 2"),
        ((256, LONG, 1, 100), "ImageWidth has 1 values"),  # a second one
        ((256, LONG, 1, 10), "ImageWidth has 1 values"),
        ((270, 99, 1, 0), "invalid data type"),
        ((270, 2, 2**32 - 1, 8), "invalid value offset"),
        ((339, SHORT, 1, 3), "pixels are 8-bit, expected uint8"),
        ((32997, SHORT, 1, 2), "incorrect StripByteCounts count"),
        ((322, LONG, 1, 2**20), "a length is 0"),
        ((284, SHORT, 2, 1), "PlanarConfiguration has 2 values"),
    ],
)
def test_tag_that_is_not_expected(tag, reason):
    with pytest.raises(BadTiffError, match=reason):
        decode_tiff(one_strip(bytes(100), NONE, tags=[tag]), LIMIT)


def test_missing_byte_counts_are_not_guessed():
    data = one_strip(bytes(100), NONE)
    entry = data.index(struct.pack("<HHI", 279, LONG, 1))
    empty = data[:entry] + struct.pack("<HHI", 279, LONG, 0) + data[entry + 8 :]
    with pytest.raises(BadTiffError, match="StripByteCounts has 0 values"):
        decode_tiff(empty, LIMIT)


def test_bits_in_reverse_order():
    packed = imagecodecs.bitorder_encode(zlib.compress(bytes(range(100))))
    data = one_strip(packed, DEFLATE, tags=[(266, SHORT, 1, 2)])
    np.testing.assert_array_equal(decode_tiff(data, LIMIT)[0], np.arange(100))


def test_parts_that_overlap_are_refused():
    """Each part could be as large as the file: the work would be parts times file."""
    data = encode(PIXELS, photometric="rgb", rowsperstrip=5, metadata=None)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        place = tiff.pages.first.tags["StripByteCounts"].valueoffset
    whole = bytearray(data)
    whole[place : place + 10] = struct.pack("<5H", *[1000] * 5)
    with pytest.raises(BadTiffError, match=r"truncated: .* bytes of 5000"):
        decode_tiff(bytes(whole), LIMIT)


@pytest.mark.parametrize("compression", [DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, LZW])
def test_a_bomb_is_unpacked_no_further_than_declared(compression):
    # imagecodecs takes minutes to pack this much by PackBits
    size = 16 * 2**20
    bomb = b"\x81\0" * (size // 128) if compression == PACKBITS else PACK[compression](bytes(size))
    tracemalloc.start()
    with pytest.raises(BadTiffError, match=r"more than the declared 100 bytes|OUTPUT_TOO_SMALL"):
        decode_tiff(one_strip(bomb, compression), LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(bomb) * 3 + 10 * 2**20  # LZMA's dictionary takes 8 MiB


def test_a_dictionary_beyond_the_limit_is_refused():
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**28}]
    data = lzma.compress(bytes(100), filters=filters, format=lzma.FORMAT_XZ)
    with pytest.raises(BadTiffError, match="damaged: Memory usage limit"):
        decode_tiff(one_strip(data, LZMA), LIMIT)


def test_tags_that_overlap_take_neither_memory_nor_time():
    """4,000 tags that all name the same mebibyte."""
    tags = [(270, 2, 2**20, 8)] * 4000
    tracemalloc.start()
    with pytest.raises(BadTiffError, match="tags of more than 2 MiB"):
        decode_tiff(one_strip(b"a" * 2**20, NONE, tags=tags), LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 2**20


def test_the_logger_of_other_code_is_left_alone(caplog):
    with pytest.raises(BadTiffError):
        decode_tiff(one_strip(bytes(100), NONE, tags=[(270, 99, 1, 0)]), LIMIT)
    assert not caplog.records
    tifffile.logger().error("of other code")
    assert [record.message for record in caplog.records] == ["of other code"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_upright(orientation):
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "TIFF", tiffinfo={274: orientation})
    with Image.open(stream) as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(decode_tiff(stream.getvalue(), LIMIT), shown)


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_unknown_orientation_is_refused(orientation):
    data = one_strip(bytes(100), NONE, tags=[(274, 4, 1, orientation)])
    with pytest.raises(BadTiffError, match=f"orientation {orientation}, expected 1 to 8"):
        decode_tiff(data, LIMIT)


MASK = np.zeros((24, 20), np.uint8)
MASK[3:9, 4:7] = 255


def color_map(**colors):
    """A map in which `cN` is the color of N, and all others are white."""
    colors = {int(name[1:]): color for name, color in colors.items()}
    return np.array([colors.get(n, (255,) * 3) for n in range(256)], np.uint16).T * 257


def test_zero_is_black():
    white = encode(255 - MASK, photometric="miniswhite")
    np.testing.assert_array_equal(decode_tiff(white, LIMIT), MASK)
    nothing_said = one_strip(MASK.tobytes(), NONE, (*MASK.shape, 1))
    np.testing.assert_array_equal(decode_tiff(nothing_said, LIMIT), MASK)


@pytest.mark.parametrize(
    ("stored", "colors", "shown"),
    [
        (MASK, {"c0": (0, 0, 0)}, MASK),
        (MASK // 255, {"c0": (0, 0, 0)}, MASK),  # white stands for 1
        (255 - MASK, {"c255": (0, 0, 0)}, MASK),  # an inverted map
        (MASK, {"c0": (0, 0, 0), "c255": (200, 0, 0)}, MASK),
        (MASK // 255, {"c0": (0, 0, 0), "c1": (0, 0, 9)}, MASK // 255),
    ],
)
def test_a_color_map_with_black_is_applied(stored, colors, shown):
    data = encode(stored, photometric="palette", colormap=color_map(**colors))
    np.testing.assert_array_equal(decode_tiff(data, LIMIT), shown)


@pytest.mark.parametrize(
    "colors",
    [
        {"c255": (200, 0, 0)},  # 0 is white
        {"c0": (0, 0, 0), "c255": (0, 0, 0), "c7": (1, 2, 3)},
        {"c0": (9, 0, 0)},
    ],
)
def test_a_color_map_without_one_black_is_refused(colors):
    data = encode(MASK, photometric="palette", colormap=color_map(**colors))
    with pytest.raises(BadTiffError, match="does not show exactly 0 in black; store it in gray"):
        decode_tiff(data, LIMIT)


@pytest.mark.parametrize(
    ("photometric", "samples", "reason"),
    [
        (0, 3, "photometric MINISWHITE of 3 samples"),
        (2, 1, "photometric RGB of 1 samples"),
        (3, 3, "photometric PALETTE of 3 samples"),
        (8, 3, "photometric CIELAB of 3 samples"),
        (6, 3, "YCbCr without JPEG is not supported"),
        (3, 1, "the color map does not have 256 colors"),
    ],
)
def test_other_photometrics_are_refused(photometric, samples, reason):
    data = one_strip(bytes(300), NONE, (10, 10, samples), [(262, 4, 1, photometric)])
    with pytest.raises(BadTiffError, match=reason):
        decode_tiff(data, LIMIT)
