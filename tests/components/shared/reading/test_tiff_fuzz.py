"""Thousands of hostile TIFF files, read in worker processes of little memory and time."""

import io
import lzma
import struct
import time
import zlib
from collections import Counter

import numpy as np
import pytest
import tifffile

from components.shared.reading.scans import BadScanError
from components.shared.reading.tiff import BadTiffError, decode_tiff
from components.shared.reading.workers import Limits, Refused, run_in_workers

SEED = 20
LIMIT = 2**20  # bytes of pixels
LIMITS = Limits(memory_bytes=160 * 2**20, cpu_s=2)
FAR = 2**26  # bytes that a bomb would unpack to

PACKBITS, LZMA, DEFLATE = 32773, 34925, 8
COMPRESSIONS = sorted(int(one) for one in tifffile.COMPRESSION)


@pytest.mark.parametrize("mutants", [600, pytest.param(6000, marks=pytest.mark.slow)])
def test_every_file_is_accepted_or_refused_with_a_reason(mutants):
    """An exception other than `BadScanError` would come through, a dead worker be a reason."""
    random = np.random.default_rng(SEED)
    files = dict(hostile_files(random, seed_files(), mutants))
    found, reasons, slowest_s = Counter(), Counter(), 0.0
    for _, result in run_in_workers(read, files.items(), workers=1, limits=LIMITS):
        if isinstance(result, Refused):
            found["refused"] += 1
            reasons["".join(letter for letter in result.reason if not letter.isdigit())] += 1
        else:
            found["accepted"] += 1
            slowest_s = max(slowest_s, result)
    assert found.total() == mutants + len(COMPRESSIONS) + 12
    assert found["accepted"] > mutants / 20
    assert found["refused"] > mutants / 2
    assert len(reasons) > 12
    assert all(reason.isprintable() and reason for reason in reasons)
    assert not any(reason.startswith("its process") for reason in reasons)
    print(found, f"slowest accepted {slowest_s:.3f} CPU s", reasons.most_common(30))


def read(named):
    _, data = named
    started = time.process_time()
    try:
        assert decode_tiff(data, LIMIT).nbytes <= LIMIT
    except BadTiffError as error:
        raise BadScanError(str(error)) from error
    return time.process_time() - started


def hostile_files(random, seeds, mutants):
    for compression in COMPRESSIONS:
        yield f"compression {compression}", retagged(seeds[0], compression=compression)
    yield from bombs()
    for number in range(mutants):
        data = seeds[random.integers(len(seeds))]
        change = CHANGES[random.integers(len(CHANGES))]
        yield f"{number}, {change.__name__}", change(random, data, seeds)


def seed_files():
    """Every way in which slices are written, and some in which they are not."""
    pixels = np.random.default_rng(SEED).integers(0, 256, (40, 30, 3), np.uint8)
    layouts = [{}, {"rowsperstrip": 7}, {"tile": (16, 16)}, {"bigtiff": True}, {"byteorder": ">"}]
    files = [
        encode(pixels, photometric="rgb", compression=compression, **layout)
        for compression in (None, "zlib", "lzma", "lzw")
        for layout in layouts
    ]
    files += [encode(pixels, photometric="rgb", compression="zlib", predictor=True)]
    files += [encode(pixels[..., 0], rowsperstrip=7), encode(pixels[..., 0] > 99)]
    files += [encode(np.stack([pixels] * 3), photometric="rgb")]
    files += [encode(pixels, photometric="rgb", compression="jpeg", rowsperstrip=16)]
    files += [encode(pixels.astype(np.uint16)), encode(np.moveaxis(pixels, 2, 0))]
    files += [one_strip(pixels.shape, PACKBITS, b"\x81\x07" * 30)]
    return files


def bombs():
    """Streams that unpack to 64 MiB, in a page of 30 x 30 and in one that declares as much."""
    packed = {
        DEFLATE: zlib.compress(bytes(FAR)),
        LZMA: lzma.compress(bytes(FAR)),
        PACKBITS: b"\x81\0" * (FAR // 128),
    }
    for compression, stream in packed.items():
        yield f"bomb {compression}", one_strip((30, 30, 1), compression, stream)
        yield f"large {compression}", one_strip((FAR // 1024, 1024, 1), compression, stream)
        yield f"wide {compression}", one_strip((1, 2**32 - 1, 1), compression, stream)
        yield f"just below {compression}", one_strip((1024, 1024, 1), compression, stream)


def one_strip(shape, compression, stream):
    height, width, samples = shape
    tags = [(256, width), (257, height), (258, 8), (259, compression), (273, 8)]
    tags += [(277, samples), (278, height), (279, len(stream))]
    entries = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(stream)) + stream + directory


def encode(pixels, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def retagged(data, compression):
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        place = tiff.pages.first.tags["Compression"].valueoffset
    return data[:place] + struct.pack("<H", compression) + data[place + 2 :]


def flip_bits(random, data, seeds):
    damaged = bytearray(data)
    for _ in range(random.integers(1, 9)):
        damaged[random.integers(len(data))] ^= 1 << random.integers(8)
    return bytes(damaged)


def flip_directory(random, data, seeds):
    damaged = bytearray(data)
    for place in random.integers(0, min(len(data), 300), random.integers(1, 5)):
        damaged[place] = random.integers(256)
    return bytes(damaged)


def truncate(random, data, seeds):
    return data[: random.integers(len(data))]


def splice(random, data, seeds):
    """A directory entry, or what lies where one would, from another file."""
    other, size = seeds[random.integers(len(seeds))], int(random.choice([12, 20, 60]))
    here, there = random.integers(0, 200), random.integers(0, 200)
    return data[:here] + other[there : there + size] + data[here + size :]


def set_value(random, data, seeds):
    """An extreme number in one of the entries: huge dimensions, counts, offsets; loops."""
    value = int(random.choice([0, 1, 8, 16, 255, 2**16 - 1, 2**31, 2**32 - 1]))
    place = random.integers(4, min(len(data) - 4, 250))
    return data[:place] + struct.pack("<I", value) + data[place + 4 :]


def change_compression(random, data, seeds):
    if data[2] == 43 or data[:2] == b"MM":
        return flip_directory(random, data, seeds)
    return flip_bits(random, retagged(data, int(random.choice(COMPRESSIONS))), seeds)


def chain(random, data, seeds):
    """Many directories, the last of which leads back to an earlier one."""
    directory = struct.pack("<HHHII", 1, 256, 4, 1, 1)
    count = int(random.integers(2, 2000))
    starts = [8 + index * (len(directory) + 4) for index in range(count)]
    following = [*starts[1:], int(random.choice(starts))]
    links = (directory + struct.pack("<I", start) for start in following)
    return b"II*\0" + struct.pack("<I", 8) + b"".join(links)


CHANGES = (
    flip_bits,
    flip_directory,
    flip_directory,
    truncate,
    splice,
    set_value,
    set_value,
    change_compression,
    chain,
)
