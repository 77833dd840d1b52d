"""NIfTI-1 and NIfTI-2 files, read within a limit and written in another file's form.

The header is checked before nibabel sees it, and never more bytes are unpacked than it declares:
a kilobyte of a file may declare terabytes.
"""

import gzip
import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from components.shared.dataset.geometry import Affine
from components.shared.dataset.volumes import paint_masks, size_text
from components.shared.reading.axial import (
    AxialImage,
    Turn,
    distance_mm,
    tolerance_mm,
    turn_axial,
)
from components.shared.reading.layouts.formats import Files
from components.shared.reading.scans import MIB, BadScanError

MASK_SUFFIX = ".nii.gz"
IS_SERIES = False

_GZIP = b"\x1f\x8b"  # RFC 1952
_HEADER_BYTES = 540  # of NIfTI-2, the longer one
_CLASSES: dict[int, tuple[Any, bytes]] = {
    348: (nibabel.Nifti1Header, b"n+1\0"),
    540: (nibabel.Nifti2Header, b"n+2\0"),
}
_LPS = np.diag((-1.0, -1.0, 1.0, 1.0))  # from RAS, which NIfTI uses
_PADDING_BYTES = MIB  # at the end of a file, after the voxels
_UNITS = {1: "meters", 3: "micrometers"}  # other codes are millimeters or unknown
# numbers of one component, of at most 64 bits
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"} | {
    1024: "i8",
    1280: "u8",
}
_OTHER_TYPES = {
    1: "single bits",
    32: "complex numbers",
    128: "RGB colors",
    1536: "128-bit numbers",
    1792: "complex numbers",
    2048: "complex numbers",
    2304: "RGBA colors",
}


@dataclass(frozen=True)
class Header:
    """Form and position of a file's voxels.

    Attributes:
        nifti: The header as nibabel reads it.
        shape: Lengths of the axes; more than three if the file holds several images.
        dtype: Type of a voxel.
        offset: Place of the first voxel in the file.
        affine: From indices to LPS millimeters.
    """

    nifti: nibabel.Nifti1Header
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    affine: Affine

    @property
    def file_bytes(self) -> int:
        """Declared size of the unpacked file."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def read_image(files: Files, max_bytes: int) -> AxialImage:
    """Reads the images of a file and turns them to axial LPS.

    Args:
        files: One file, gzipped or not.
        max_bytes: Limit of the unpacked size.

    Returns:
        The images; their voxels are a view of the unpacked file.

    Raises:
        BadScanError: If the file is damaged, too large, or no image with a position in space.
    """
    ((_, data),) = files
    stream = _Unpacked(data)
    header = parse_header(stream.peek(_HEADER_BYTES))
    if header.file_bytes > max_bytes:
        raise BadScanError(
            f"its header declares {size_text(header.shape)} voxels, {header.file_bytes / MIB:.0f} "
            f"MiB; the limit is max_volume_mib={max_bytes / MIB:.4g}"
        )
    unpacked = stream.exactly(header.file_bytes)
    count = math.prod(header.shape)
    voxels = np.frombuffer(unpacked, header.dtype, count, header.offset)
    slope, intercept = _scaling(header.nifti)
    return turn_axial(voxels.reshape(header.shape, order="F"), header.affine, slope, intercept)


def read_label(files: Files, image_files: Files, max_bytes: int) -> AxialImage:
    """Reads a label map, which has a position of its own; see `read_image`."""
    del image_files
    return read_image(files, max_bytes)


def encode_mask(
    image_files: Files, voxels: npt.NDArray[np.uint8 | np.float32], targets: Sequence[str]
) -> bytes:
    """Writes voxels on the grid of another file, with its affines and their codes.

    Several masks become one label map, see `paint_masks`. Texts and extensions of that file are
    left out.

    Args:
        image_files: The other file.
        voxels: uint8 masks or one float32 probability, targets x slices x height x width, as
            `read_image` orders them.
        targets: Not used: the form has no place for names.

    Returns:
        A .nii.gz file; equal voxels give equal bytes.
    """
    del targets
    ((_, data),) = image_files
    found = read_header(data)
    turned = Turn.of_affine(found.affine).undo(paint_masks(voxels))
    header = found.nifti.copy()
    header.set_data_shape(turned.shape)
    header.set_data_dtype(voxels.dtype)
    header.set_slope_inter(1, 0)
    for name in ("descrip", "aux_file", "intent_name", "db_name", "data_type"):
        if name in header:
            header[name] = b""
    for name in ("cal_min", "cal_max", "intent_code", "intent_p1", "intent_p2", "intent_p3"):
        header[name] = 0
    header["vox_offset"] = header.sizeof_hdr + 4
    no_extension = b"\0\0\0\0"
    body = turned.astype(header.get_data_dtype(), copy=False).tobytes(order="F")
    return gzip.compress(header.binaryblock + no_extension + body, compresslevel=5, mtime=0)


def read_header(data: bytes) -> Header:
    """Reads and checks the header of a file, gzipped or not; see `parse_header`."""
    return parse_header(_Unpacked(data).peek(_HEADER_BYTES))


def parse_header(data: bytes) -> Header:
    """Reads and checks the first 540 bytes of a file.

    Raises:
        BadScanError: If they are not the header of a NIfTI file with an image in space.
    """
    for order in ("<", ">"):
        size = int(np.frombuffer(data[:4].ljust(4, b"\0"), f"{order}i4")[0])
        if size in _CLASSES and len(data) >= size:
            kind, magic = _CLASSES[size]
            nifti = kind(data[:size], endianness=order, check=False)
            _check_magic(bytes(nifti["magic"].item())[:4].ljust(4, b"\0"), magic)
            return _checked(nifti)
    raise BadScanError("it is no NIfTI file, or its header is damaged")


def _check_magic(found: bytes, expected: bytes) -> None:
    if found in (b"ni1\0", b"ni2\0"):
        raise BadScanError("its voxels are in another file (.img); convert it to one .nii.gz file")
    if found != expected:
        raise BadScanError("it is no NIfTI file, or its header is damaged")


def _checked(nifti: nibabel.Nifti1Header) -> Header:
    shape = _shape(nifti)
    dtype = _dtype(nifti)
    offset = float(nifti["vox_offset"])
    if not nifti.sizeof_hdr + 4 <= offset < 2**31 or offset != int(offset):
        raise BadScanError(f"its header is damaged: voxels start at byte {offset:g}")
    return Header(nifti, shape, dtype, int(offset), _LPS @ _affine(nifti, shape))


def _shape(nifti: nibabel.Nifti1Header) -> tuple[int, ...]:
    count, *lengths = (int(length) for length in nifti["dim"])
    shape = tuple(lengths[:count])
    if not 1 <= count <= 7 or min(shape) < 1:
        raise BadScanError(f"its header is damaged: it declares {count} axes, {lengths}")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) < 3 or min(shape[:3]) < 2:
        raise BadScanError(f"it has {size_text(shape)} voxels; expected three axes of 2 or more")
    if len(shape) > 4:
        raise BadScanError(f"it has {len(shape)} axes ({size_text(shape)}); expected three")
    return shape


def _dtype(nifti: nibabel.Nifti1Header) -> np.dtype[Any]:
    code, bits = int(nifti["datatype"]), int(nifti["bitpix"])
    if code not in _TYPES:
        kind = _OTHER_TYPES.get(code, f"of unknown type {code}")
        raise BadScanError(f"its voxels are {kind}; expected integers or real numbers")
    dtype = np.dtype(_TYPES[code]).newbyteorder(nifti.endianness)
    if bits != dtype.itemsize * 8:
        raise BadScanError(f"its header is damaged: {bits} bits a voxel of type {dtype.name}")
    return dtype


def _affine(nifti: nibabel.Nifti1Header, shape: tuple[int, ...]) -> Affine:
    units = int(nifti["xyzt_units"]) & 7
    if units in _UNITS:
        raise BadScanError(f"its spacing is in {_UNITS[units]}; expected millimeters")
    try:
        qform = nifti.get_qform(coded=True)[0]
    except (HeaderDataError, ValueError, ArithmeticError) as error:
        raise BadScanError("its qform is damaged: no rotation") from error
    sform = nifti.get_sform(coded=True)[0]
    known = [form for form in (sform, qform) if form is not None]
    if not known:
        raise BadScanError(
            "neither its sform nor its qform is set, so its orientation is unknown; set one"
        )
    if not all(np.isfinite(form).all() for form in known):
        raise BadScanError("its affine is singular or not finite, so its voxels have no size")
    distance = distance_mm(known[0], known[-1], shape)
    if distance > tolerance_mm(known[0]):
        raise BadScanError(
            f"its sform and its qform differ: corners are up to {distance:.3g} mm apart; remove "
            "the wrong one"
        )
    return np.asarray(known[0], np.float64)


def _scaling(nifti: nibabel.Nifti1Header) -> tuple[float, float]:
    slope, intercept = float(nifti["scl_slope"]), float(nifti["scl_inter"])
    if slope == 0 or math.isnan(slope):  # by the standard: no scaling
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise BadScanError(f"its header is damaged: slope {slope:g}, intercept {intercept:g}")
    return slope, intercept


class _Unpacked:
    """A file that is gzipped or not; unpacks no more than it is asked for."""

    def __init__(self, data: bytes) -> None:
        self._data, self._is_packed = data, data[:2] == _GZIP

    def peek(self, size: int) -> bytes:
        """The first bytes, fewer if the file is shorter."""
        return self._first(size)[0]

    def exactly(self, size: int) -> bytes:
        """The first `size` bytes and a little padding; the checksum is verified.

        Raises:
            BadScanError: If there are fewer, the file is damaged, or much follows.
        """
        data, is_whole = self._first(size + _PADDING_BYTES)
        if len(data) < size:
            raise BadScanError(f"it is truncated: {len(data)} bytes of {size}")
        if not is_whole:
            raise BadScanError("it does not end after the voxels that its header declares")
        return data

    def _first(self, size: int) -> tuple[bytes, bool]:
        """Returns at most `size` bytes, and whether the file ends with them."""
        if not self._is_packed:
            return self._data[:size], len(self._data) <= size
        try:
            stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            data = stream.decompress(self._data, size)
            if not stream.unused_data.startswith(_GZIP):
                return data, stream.eof
            # bgzip and pigz write several members
            with gzip.GzipFile(fileobj=io.BytesIO(self._data)) as members:
                return members.read(size), not members.read(1)
        except (zlib.error, EOFError, OSError) as error:
            raise BadScanError(f"it is damaged: {error}") from error
