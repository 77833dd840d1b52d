"""A thousand hostile NIfTI files, read in worker processes of 1 GiB."""

import gzip
from collections import Counter

import numpy as np
import pytest

from components.shared.reading.axial import check_same_grid
from components.shared.reading.nifti import read_image, read_label
from components.shared.reading.scans import MIB
from components.shared.reading.sources.opening import open_source
from components.shared.reading.validation import check_image, label_map, stack_channels
from components.shared.reading.workers import Limits, Refused, run_in_workers

SEED = 21
LIMIT = 400 * MIB
HEADER = 348
BOMB = gzip.compress(bytes(2**27), 1)
WIDTHS = ("<i2", "<i4", "<f4", "<u8")
EXTREMES = (0, 1, -1, 2, 7, 127, 255, 2**15 - 1, -(2**15), 3000)


@pytest.mark.slow
def test_every_file_is_accepted_or_refused_with_a_reason():
    """A traceback would come through, and a dead worker be a reason."""
    random = np.random.default_rng(SEED)
    originals = seeds()
    files = [mutant(random, originals) for _ in range(1000)]
    found, reasons = Counter(), Counter()
    for _, result in run_in_workers(read, files, workers=1, limits=Limits(2**30, cpu_s=20)):
        refused = isinstance(result, Refused)
        found["refused" if refused else "accepted"] += 1
        if refused:
            reasons["".join(letter for letter in result.reason if not letter.isdigit())] += 1
    assert found.total() == 1000
    assert found["accepted"] > 50
    assert found["refused"] > 400
    assert len(reasons) > 20
    assert all(reason.isprintable() and reason for reason in reasons)
    assert not any(reason.startswith(("its process", "it needs")) for reason in reasons)


def read(data):
    """Reads a file as an image and as a label, as an ingest does."""
    image = read_image([("x", data)], LIMIT).chosen(None)
    check_image(image, "FLAIR")
    stack_channels([image])
    label = read_label([("x", data)], [], LIMIT).chosen(None)
    check_same_grid(label, image, "label", "FLAIR")
    label_map(label, {str(value): value for value in range(1, 256)})


def seeds():
    with open_source("synthetic:3,as=nifti") as source:
        paths = [file.path for file in source.files() if file.path.endswith("seg.nii.gz")]
        return [source.read(path) for path in paths]


def mutant(random, originals):
    """A file with a few changes in its header, its voxels or its packing."""
    data = bytearray(gzip.decompress(originals[random.integers(len(originals))]))
    change = CHANGES[random.integers(len(CHANGES))]
    return bytes(change(random, data))


def with_bytes(random, data):
    for _ in range(random.integers(1, 6)):
        data[random.integers(HEADER)] = random.integers(256)
    return gzip.compress(data, 1)


def with_numbers(random, data):
    """Extreme numbers where the header has its fields."""
    for _ in range(random.integers(1, 3)):
        dtype = np.dtype(WIDTHS[random.integers(len(WIDTHS))])
        place = int(random.integers(HEADER // dtype.itemsize - 1)) * dtype.itemsize
        value = np.array(EXTREMES[random.integers(len(EXTREMES))]).astype(dtype)
        if dtype.kind == "f" and random.random() < 0.5:
            value = np.array(random.choice([np.nan, np.inf, -np.inf, 1e38, 1e-38]), dtype)
        data[place : place + dtype.itemsize] = value.tobytes()
    return gzip.compress(data, 1)


def with_sizes(random, data):
    """Declared lengths of axes that the file does not have."""
    lengths = random.choice([0, 1, 2, 96, 1000, 3000, 32767, -5], 8).astype("<i2")
    lengths[0] = random.choice([3, 4, 7, 0, 8])
    data[40:56] = lengths.tobytes()
    return gzip.compress(data, 1)


def with_voxels(random, data):
    """Another type of voxels, or other values."""
    if random.random() < 0.5:
        data[70:74] = np.array(
            random.choice([[16, 32], [64, 64], [256, 8], [4, 16]]), "<i2"
        ).tobytes()
    for _ in range(20):
        data[random.integers(352, len(data))] = random.integers(256)
    return gzip.compress(data, 1)


def with_other_packing(random, data):
    packed = bytearray(gzip.compress(data, 1))
    for _ in range(random.integers(1, 4)):
        packed[random.integers(len(packed))] = random.integers(256)
    return packed


def cut(random, data):
    packed = gzip.compress(data, 1)
    whole = packed if random.random() < 0.5 else data
    return whole[: random.integers(len(whole))]


def with_more(random, data):
    """Members, zeros or a bomb after the voxels."""
    ends = (BOMB, b"\0" * 100, gzip.compress(b"x"), bytes(data))
    return gzip.compress(data, 1) + ends[random.integers(len(ends))]


CHANGES = (
    with_bytes,
    with_numbers,
    with_numbers,
    with_sizes,
    with_voxels,
    with_other_packing,
    cut,
    with_more,
)
