"""Thousands of hostile TIFF files, read in a process of little memory.

The process is this file, run as a program: it prints what became of the files.
"""

import io
import json
import lzma
import os
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import tifffile

from components.shared.reading.tiff import decode_tiff
from components.shared.reading.tiff_tags import BadTiffError

SEED = 20
MUTANTS = 6000
LIMIT = 2**20  # bytes of pixels
MEMORY = 160 * 2**20  # beside the interpreter and its libraries
FAR = 2**26  # bytes that a bomb would unpack to

PACKBITS, LZMA, DEFLATE = 32773, 34925, 8
COMPRESSIONS = sorted(int(one) for one in tifffile.COMPRESSION)


def test_every_file_is_accepted_or_refused_with_a_reason():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["escaped"] == []
    assert told["files"] == MUTANTS + len(COMPRESSIONS) + 12
    assert told["accepted"] > MUTANTS / 20
    assert told["refused"] > MUTANTS / 2
    assert len(told["reasons"]) > 12
    assert all(reason.isprintable() and reason for reason in told["reasons"])
    assert told["slowest_s"] < 2


def main():
    random = np.random.default_rng(SEED)
    seeds = seed_files()
    limit = memory() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    found, reasons, escaped, slowest_s = Counter(), Counter(), [], 0.0
    for name, data in hostile_files(random, seeds):
        started = time.process_time()
        try:
            found["accepted"] += decode_tiff(data, LIMIT).nbytes <= LIMIT
        except BadTiffError as error:
            found["refused"] += 1
            reasons["".join(letter for letter in str(error) if not letter.isdigit())] += 1
        except BaseException as error:  # noqa: BLE001 - what is looked for
            escaped.append(f"{name}: {error!r}")
        found["files"] += 1
        slowest_s = max(slowest_s, time.process_time() - started)
    print(json.dumps({**found, "escaped": escaped, "reasons": reasons, "slowest_s": slowest_s}))


def hostile_files(random, seeds):
    for compression in COMPRESSIONS:
        yield f"compression {compression}", retagged(seeds[0], compression=compression)
    yield from bombs()
    for number in range(MUTANTS):
        data = seeds[random.integers(len(seeds))]
        change = CHANGES[random.integers(len(CHANGES))]
        yield f"{number}, {change.__name__}", change(random, data, seeds)


def seed_files():
    """Every way in which slices are written, and some in which they are not."""
    pixels = np.random.default_rng(SEED).integers(0, 256, (40, 30, 3), np.uint8)
    layouts = [{}, {"rowsperstrip": 7}, {"tile": (16, 16)}, {"bigtiff": True}, {"byteorder": ">"}]
    files = [
        encode(pixels, photometric="rgb", compression=compression, **layout)
        for compression in (None, "zlib", "lzma")
        for layout in layouts
    ]
    files += [encode(pixels, photometric="rgb", compression="zlib", predictor=True)]
    files += [encode(pixels[..., 0], rowsperstrip=7), encode(pixels[..., 0] > 99)]
    files += [encode(np.stack([pixels] * 3), photometric="rgb")]
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


def memory():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
