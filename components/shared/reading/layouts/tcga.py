"""The layout of Kaggle's LGG MRI segmentation set: folders of TIFF slices."""

import hashlib
import io
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import tifffile

from components.shared.dataset.channels import (
    LGG_CHANNELS,
    LGG_LABELS,
    LGG_TARGETS,
    Channels,
    Target,
)
from components.shared.dataset.ingest_account import Quarantined
from components.shared.dataset.volumes import Pixels, Volume, paint_masks, size_text
from components.shared.errors import UserError
from components.shared.printable import printable
from components.shared.reading.scans import (
    MIB,
    BadScanError,
    Listing,
    Scan,
    ScanName,
    SizeLimits,
    is_system_file,
    nothing_accepted,
)
from components.shared.reading.sources.source import Source, SourceFile, UnreadableFileError
from components.shared.reading.table import TCGA_TABLE, TableForm
from components.shared.reading.tcga import (
    ATTRIBUTE_FILE,
    EXPECTED_LAYOUT,
    SCAN_FORM,
    parse_scan_name,
    parse_slice_name,
)
from components.shared.reading.tiff import BadTiffError, decode_tiff

_VOXEL_BYTES = 4  # three channels and the mask

_OTHER_FORMATS = (".nii", ".nii.gz", ".dcm")

Kind = Literal["image", "mask"]


@dataclass(frozen=True)
class TcgaLayout:
    """Folders of 8-bit TIFF slices, named as in `components.shared.reading.tcga`, at any depth.

    Attributes:
        with_labels: Whether every slice must have a mask. Otherwise masks are not read.
    """

    with_labels: bool = True
    channels: Channels = LGG_CHANNELS
    labels: Mapping[str, int] = field(default_factory=LGG_LABELS.copy)
    targets: tuple[Target, ...] = LGG_TARGETS
    table: TableForm = TCGA_TABLE
    mask_suffix: str = ".tif"

    def list_scans(self, source: Source) -> Listing:
        return list_scans(source)

    def read_scan(self, source: Source, scan: Scan, limits: SizeLimits) -> Volume:
        return read_scan(source, scan, limits, self.with_labels)

    def encode_mask(
        self,
        source: Source,
        scan: Scan,
        voxels: npt.NDArray[np.uint8 | np.float32],
        targets: Sequence[str],
    ) -> bytes:
        del source, scan
        return encode_tiff(paint_masks(voxels), white=255 if len(targets) == 1 else 1)

    def nothing_accepted(self, source_uri: str, quarantined: Sequence[Quarantined]) -> UserError:
        none_found = "no folder of TIFF files"
        return nothing_accepted(source_uri, quarantined, none_found, EXPECTED_LAYOUT)


def encode_tiff(voxels: npt.NDArray[np.uint8 | np.float32], white: int = 255) -> bytes:
    """Encodes a mask (as 0 and `white`) or a float32 probability, one page per slice."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as tiff:
        for pixels in voxels:
            tiff.write(
                pixels if pixels.dtype == np.float32 else pixels * np.uint8(white),
                photometric="minisblack",
                compression="zlib",
                metadata=None,
                contiguous=False,
            )
    return stream.getvalue()


class _Folders:
    """Properties of a source's folders."""

    def __init__(self, files: Sequence[SourceFile], top: str) -> None:
        self.with_tiff = {file.folder for file in files if _is_tiff(file)}
        # named as a volume
        self.scans = {f.folder for f in files if parse_scan_name(_last(f.folder, top))}
        # with such a folder at any depth
        self.holders = {parent for folder in self.scans for parent in _parents(folder)}


def list_scans(source: Source) -> Listing:
    """Groups a source's files by volume without reading them.

    Volumes are folders named as in `components.shared.reading.tcga`, at any depth.

    Raises:
        UserError: If the source holds no file.
    """
    files = source.files()
    if not files:
        raise UserError(f"source {source.uri} is empty; {EXPECTED_LAYOUT}")
    top = printable(source.name)
    folders = _Folders(files, top)
    ignored: dict[str, list[str]] = defaultdict(list)
    tables, members = [], defaultdict(list)
    for file in files:
        rule = _ignored_by(file, folders)
        if rule:
            ignored[rule].append(file.path)
        elif file.name.lower() == ATTRIBUTE_FILE and file.folder not in folders.scans:
            tables.append(file)
        else:
            members[file.folder].append(file)
    scans, quarantined = _group(members, top)
    archives = [file.path for file in files if file.name.lower().endswith(".zip")]
    if archives and not members:
        raise UserError(
            f"source {source.uri} holds no folder of TIFF files, but {archives[0]}; give that "
            ".zip file as the source"
        )
    others = [file.path for file in files if file.name.lower().endswith(_OTHER_FORMATS)]
    if others and not members:
        raise UserError(
            f"source {source.uri} holds no folder of TIFF files, but {others[0]}; set layout.name "
            "to nnunet, msd, bids, brats, dicom or declared"
        )
    rules = {rule: tuple(paths) for rule, paths in sorted(ignored.items())}
    return Listing(scans, quarantined, rules, tuple(tables), len(files))


def read_scan(source: Source, scan: Scan, limits: SizeLimits, with_masks: bool = True) -> Volume:
    """Reads a scan and validates all of it.

    Args:
        source: Source of its files.
        scan: A scan that `list_scans` found.
        limits: Largest file, which is also the largest size of its pixels, and largest volume.
        with_masks: Whether every slice must have a mask. Otherwise masks are not read and the
            volume's mask is empty.

    Returns:
        The voxels. Several copies of a scan must be equal.

    Raises:
        BadScanError: If anything is wrong with any copy.
    """

    def read(copy: Sequence[SourceFile]) -> Volume:
        return _read_copy(source, scan.name, copy, limits, with_masks)

    *others, last = scan.copies
    digests = [_digest(read(copy)) for copy in others]  # one copy at a time is in memory
    volume = read(last)
    for copy, digest in zip(others, digests, strict=True):
        if digest != _digest(volume):
            raise BadScanError(f"its copies differ: {copy[0].folder} and {last[0].folder}")
    return volume


def _ignored_by(file: SourceFile, folders: _Folders) -> str | None:
    """Returns the rule that ignores a file; `None` for files of volumes and tables."""
    if is_system_file(file.path):
        return "hidden or system file"
    if file.folder in folders.scans:
        # An unreadable file may be a slice, and a volume without a TIFF must not vanish: both are
        # kept here and quarantine the volume.
        kept = _is_tiff(file) or file.problem or file.folder not in folders.with_tiff
        return None if kept else "not a TIFF"
    if _is_tiff(file) and file.folder not in folders.holders:
        return None  # a folder of its own: a volume under a wrong name
    if file.problem or file.name.lower() == ATTRIBUTE_FILE:
        return file.problem
    return "TIFF outside a volume folder" if _is_tiff(file) else "not a TIFF"


def _group(
    folders: Mapping[str, Sequence[SourceFile]], top: str
) -> tuple[tuple[Scan, ...], tuple[Quarantined, ...]]:
    copies: dict[str, list[tuple[SourceFile, ...]]] = defaultdict(list)
    for folder in sorted(folders):
        copies[_last(folder, top)].append(tuple(folders[folder]))
    scans, quarantined = [], []
    for label in sorted(copies):
        name = parse_scan_name(label)
        if name is not None:
            scans.append(Scan(name, tuple(copies[label])))
        else:
            files = tuple(file.path for copy in copies[label] for file in copy)
            reason = f"the folder's name is not {SCAN_FORM}"
            quarantined.append(Quarantined(label, reason, files))
    return tuple(scans), tuple(quarantined)


def _last(folder: str, top: str) -> str:
    return folder.rpartition("/")[2] or top


def _parents(folder: str) -> list[str]:
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:depth]) for depth in range(len(parts))]


def _is_tiff(file: SourceFile) -> bool:
    return file.name.lower().endswith((".tif", ".tiff"))


def _digest(volume: Volume) -> bytes:
    digest = hashlib.sha256(repr(volume.image.shape).encode())
    digest.update(volume.image.ravel().data)
    digest.update(volume.mask.ravel().data)
    return digest.digest()


def _read_copy(
    source: Source,
    name: ScanName,
    files: Sequence[SourceFile],
    limits: SizeLimits,
    with_masks: bool,
) -> Volume:
    images, masks = _pair(name, files, limits.max_file_mib, with_masks)
    image = _stack(source, images, "image", limits)
    if not with_masks:
        return Volume(image, np.zeros(image.shape[:3], np.uint8))
    mask = _stack(source, masks, "mask", limits)
    if mask.shape != image.shape[:3]:
        raise BadScanError(
            f"masks are {size_text(mask.shape[1:])}, images are {size_text(image.shape[1:3])}"
        )
    return Volume(image, _binary(mask, masks))


def _pair(
    name: ScanName, files: Sequence[SourceFile], max_file_mib: float, with_masks: bool
) -> tuple[list[SourceFile], list[SourceFile]]:
    found: dict[Kind, dict[int, SourceFile]] = {"image": {}, "mask": {}}
    for file in files:
        _check_file(file, max_file_mib)
        part = parse_slice_name(file.name)
        if part is None or part.volume != name.volume:
            raise BadScanError(
                f"{file.name} disagrees with its folder: expected {name.volume}_<n>.tif "
                f"or {name.volume}_<n>_mask.tif"
            )
        kind: Kind = "mask" if part.is_mask else "image"
        twin = found[kind].setdefault(part.number, file)
        if twin is not file:
            raise BadScanError(f"two {kind}s of slice {part.number}: {twin.name}, {file.name}")
    images, masks = found["image"], found["mask"]
    _check_numbers(images, masks, with_masks)
    order = sorted(images)
    return [images[number] for number in order], [masks[n] for n in order if n in masks]


def _check_file(file: SourceFile, max_file_mib: float) -> None:
    if file.problem:
        raise BadScanError(f"{file.name}: {file.problem}")
    if not _is_tiff(file):
        raise BadScanError(f"no TIFF in the folder, only e.g. {file.name}")
    if file.size > max_file_mib * MIB:
        raise BadScanError(
            f"{file.name}: {file.size / MIB:.1f} MiB, the limit is max_file_mib={max_file_mib:g}"
        )


def _check_numbers(
    images: Mapping[int, SourceFile], masks: Mapping[int, SourceFile], with_masks: bool
) -> None:
    if with_masks:
        _refuse_numbers("missing mask", images.keys() - masks.keys())
    _refuse_numbers("missing image", masks.keys() - images.keys())
    if 0 in images:
        raise BadScanError("slice number 0: numbers start at 1")
    # without a hole a set is whole: some lack the slices beyond the head at their start
    for expected, number in enumerate(sorted(images), start=min(images, default=1)):
        if number != expected:
            raise BadScanError(f"gap in slice numbers: {expected} is missing, {number} is there")


def _refuse_numbers(what: str, numbers: set[int]) -> None:
    if numbers:
        shown = ", ".join(str(number) for number in sorted(numbers)[:5])
        more = ", ..." if len(numbers) > 5 else ""
        raise BadScanError(f"{what} of slice {shown}{more}")


def _stack(source: Source, files: Sequence[SourceFile], kind: Kind, limits: SizeLimits) -> Pixels:
    stack: Pixels | None = None
    max_bytes = int(limits.max_file_mib * MIB)
    for index, file in enumerate(files):
        pixels = _read_slice(source, file, kind, max_bytes)
        if stack is None:
            _check_volume((len(files), *pixels.shape[:2]), limits.max_volume_mib)
            stack = np.empty((len(files), *pixels.shape), np.uint8)
        if pixels.shape != stack.shape[1:]:
            raise BadScanError(
                f"{file.name}: {kind} is {size_text(pixels.shape)}, the slices before it are "
                f"{size_text(stack.shape[1:])}"
            )
        stack[index] = pixels
    assert stack is not None, "a scan has at least one slice"
    return stack


def _check_volume(shape: Sequence[int], max_mib: float) -> None:
    declared_mib = math.prod(shape) * _VOXEL_BYTES / MIB
    if declared_mib > max_mib:
        raise BadScanError(
            f"{size_text(shape)} voxels take {declared_mib:.0f} MiB, the limit of a volume is "
            f"{max_mib:g} MiB"
        )


def _read_slice(source: Source, file: SourceFile, kind: Kind, max_bytes: int) -> Pixels:
    try:
        pixels = decode_tiff(source.read(file.path), max_bytes)
    except (UnreadableFileError, BadTiffError) as error:
        raise BadScanError(f"{file.name}: {error}") from error
    if kind == "mask" and pixels.ndim != 2:
        raise BadScanError(f"{file.name}: mask is {size_text(pixels.shape)}, expected one channel")
    if kind == "image" and (pixels.ndim != 3 or pixels.shape[2] != 3):
        raise BadScanError(f"{file.name}: image is {size_text(pixels.shape)}, expected 3 channels")
    if kind == "image" and pixels.min() == pixels.max():
        raise BadScanError(f"{file.name}: constant image, all pixels are {pixels.min()}")
    return pixels


def _binary(mask: Pixels, files: Sequence[SourceFile]) -> Pixels:
    # tumour is 255 in this set and 1 elsewhere; a second value may be another class or a blurred
    # edge, and either choice would be a guess
    positive = max(int(mask.max()), 1)
    for pixels, file in zip(mask, files, strict=True):
        if np.count_nonzero(pixels) != np.count_nonzero(pixels == positive):
            values = Counter(pixels.ravel().tolist())
            shown = ", ".join(str(value) for value in sorted(values)[:5])
            raise BadScanError(
                f"{file.name}: mask values {shown}; expected 0 and one positive value, "
                f"{positive} in this volume"
            )
    return np.minimum(mask, 1, out=mask)
