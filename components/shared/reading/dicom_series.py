"""DICOM series as regular volumes, through pydicom and highdicom.

Only voxels and their position leave this module. No other attribute of a file is read, so names
of patients cannot reach a manifest, a log or a report.
"""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from components.shared.dataset.geometry import Geometry
from components.shared.dataset.volumes import size_text
from components.shared.errors import UserError
from components.shared.reading.layouts.formats import Files
from components.shared.reading.scans import MIB, BadScanError

if TYPE_CHECKING:  # of the extra `dicom`
    import highdicom
    from pydicom import Dataset

NO_FRAME = "2.25.0"  # stands for a frame of reference that was removed
_FEWEST_SLICES = 3
_STEP_TOLERANCE = 0.02  # of the distance of two slices
_TILT_TOLERANCE = 1e-3  # 1 minus the cosine of the angle to the normal: 2.6 degrees
_DEFLATED = "1.2.840.10008.1.2.1.99"

for _library in ("pydicom", "highdicom"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)  # as for `refusing`


@contextmanager
def refusing(reason: str) -> Iterator[None]:
    """Turns whatever the libraries raise into the reason of a quarantine.

    Their texts and warnings are not quoted: they hold values of attributes, e.g. names.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (BadScanError, UserError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - damaged files raise errors of any kind
        raise BadScanError(f"{reason} ({type(error).__name__})") from None


def parse_all(files: Files) -> list["Dataset"]:
    """Parses DICOM files; raises `BadScanError` for others and `UserError` without pydicom."""
    return [_parse(name, data) for name, data in files]


def _parse(name: str, data: bytes) -> "Dataset":
    try:
        import pydicom
    except ImportError as error:
        raise UserError(
            "DICOM needs the extra dicom: pip install 'brainseg[dicom]', or use the images"
        ) from error
    with refusing(f"{name}: no DICOM file"):
        dataset = pydicom.dcmread(io.BytesIO(data))
        syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == _DEFLATED:
        raise BadScanError(f"{name}: deflated DICOM, whose size has no bound; store it otherwise")
    if not dataset.get("FrameOfReferenceUID"):
        dataset.FrameOfReferenceUID = NO_FRAME
    if not dataset.get("SpecificCharacterSet", "-"):
        del dataset.SpecificCharacterSet  # an empty one stands for the default
    return dataset


def read_volume(slices: Sequence["Dataset"], max_bytes: int) -> "highdicom.Volume":
    """Reads a series as highdicom's volume, in the axes of the acquisition."""
    import highdicom

    first = slices[0]
    for dataset in slices:
        _check_gray(dataset)
    check_size("the series", first, max_bytes, frames=max(len(slices), _frames(first)))
    if len(slices) > 1:
        _check_series(slices)
    with refusing("no regular volume: frames at one place, of other directions, or damaged"):
        if len(slices) > 1:
            volume = highdicom.get_volume_from_series(slices, dtype=np.float32)
        else:
            image = highdicom.Image.from_dataset(first, copy=False)
            volume = image.get_volume(dtype=np.float32, allow_missing_positions=False)
    if volume.spatial_shape[0] < _FEWEST_SLICES:
        raise BadScanError(f"{volume.spatial_shape[0]} slices; a volume has {_FEWEST_SLICES}")
    return volume


def _check_gray(dataset: "Dataset") -> None:
    if "PixelData" not in dataset:
        raise BadScanError(f"a file without pixels (modality {dataset.get('Modality')})")
    if dataset.get("SamplesPerPixel", 1) != 1:
        raise BadScanError("a color image; slices have one gray value a pixel")


def _frames(dataset: "Dataset") -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def check_size(name: str, dataset: "Dataset", max_bytes: int, frames: int) -> None:
    """Raises `BadScanError` if a file declares more voxels than fit."""
    shape = (frames, int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0))
    needed = 4 * shape[0] * shape[1] * shape[2]
    if needed > max_bytes:
        raise BadScanError(
            f"{name} declares {size_text(shape)} voxels, {needed / MIB:.0f} MiB; the limit is "
            f"max_volume_mib={max_bytes / MIB:g}"
        )


def _check_series(slices: Sequence["Dataset"]) -> None:
    series = {str(dataset.get("SeriesInstanceUID")) for dataset in slices}
    if len(series) > 1:
        raise BadScanError(f"files of {len(series)} series; give each channel one series")
    sizes = {(dataset.get("Rows"), dataset.get("Columns")) for dataset in slices}
    if len(sizes) > 1:
        raise BadScanError(f"slices of {len(sizes)} sizes: {sorted(map(str, sizes))}")
    with refusing("a slice without position or orientation"):
        positions = np.array([d.ImagePositionPatient for d in slices], np.float64)
        axes = np.array([d.ImageOrientationPatient for d in slices], np.float64)
    if np.abs(axes - axes[0]).max() > _TILT_TOLERANCE:
        raise BadScanError("slices of different orientations; a volume has one")
    _check_positions(positions, np.cross(axes[0, :3], axes[0, 3:]))


def _check_positions(positions: npt.NDArray[np.float64], normal: npt.NDArray[np.float64]) -> None:
    heights = positions @ normal
    order = np.argsort(heights)
    steps = np.diff(heights[order])
    if steps.min() < 1e-3:
        doubled = float(heights[order][steps.argmin()])
        raise BadScanError(
            f"two slices at {doubled:.2f} mm; a series with several images at one place (time, "
            "diffusion, echoes) is no volume"
        )
    usual = float(np.median(steps))
    wrong = np.abs(steps - usual) > _STEP_TOLERANCE * usual
    if wrong.any():
        place = int(wrong.argmax())
        raise BadScanError(
            f"slices {usual:.2f} mm apart, but {steps[place]:.2f} mm between "
            f"{heights[order][place]:.2f} and {heights[order][place + 1]:.2f} mm: slices are "
            "missing"
        )
    along = positions[order][-1] - positions[order][0]
    if abs(along @ normal) / np.linalg.norm(along) < 1 - _TILT_TOLERANCE:
        angle = np.degrees(np.arccos(min(1, abs(along @ normal) / np.linalg.norm(along))))
        raise BadScanError(
            f"the gantry is tilted by {angle:.0f} degrees: slices are shifted against each other; "
            "resample the series"
        )


_FIXED = {
    "Modality": "MR",
    "StudyDate": "20000101",
    "StudyTime": "000000",
    "StudyID": "1",
    "AccessionNumber": "",
    "ReferringPhysicianName": "",
    "PatientBirthDate": "",
    "PatientSex": "",
    "Manufacturer": "brainseg",
    "SeriesNumber": 1,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
}


def encode_series(
    image: npt.NDArray[np.int16], geometry: Geometry, identity: str
) -> Iterator[bytes]:
    """Encodes an axial volume as MR images, one file a slice.

    Args:
        image: slices x height x width.
        geometry: Position of the volume.
        identity: Text from which the identifiers follow; it stands for patient and study too.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid

    def uid(part: object) -> UID:
        return generate_uid(entropy_srcs=[identity, str(part)])

    affine = geometry.matrix
    rows, columns = affine[:3, 1] / geometry.spacing_mm[1], affine[:3, 2] / geometry.spacing_mm[2]
    for index, pixels in enumerate(image):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = uid(index)
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        for name, value in _FIXED.items():
            setattr(dataset, name, value)
        dataset.PatientID = dataset.PatientName = identity
        dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, uid(index)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("study"), uid("series")
        dataset.FrameOfReferenceUID = uid("frame")
        dataset.InstanceNumber = index + 1
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelSpacing = list(geometry.spacing_mm[1:])
        dataset.SliceThickness = geometry.spacing_mm[0]
        dataset.ImageOrientationPatient = [round(float(v), 8) for v in (*columns, *rows)]
        position = affine @ (index, 0, 0, 1)
        dataset.ImagePositionPatient = [round(float(value), 5) for value in position[:3]]
        dataset.PixelData = pixels.astype("<i2").tobytes()
        stream = io.BytesIO()
        dataset.save_as(stream, enforce_file_format=True)
        yield stream.getvalue()
