"""DICOM: series in, segmentations (DICOM-SEG) in and out. A format of layouts."""

import io
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from components.shared.reading.axial import AxialImage, Turn, turn_axial
from components.shared.reading.dicom_series import (
    NO_FRAME,
    check_size,
    parse_all,
    read_volume,
    refusing,
)
from components.shared.reading.layouts.formats import Files
from components.shared.reading.scans import BadScanError

if TYPE_CHECKING:  # of the extra `dicom`
    from highdicom.seg import SegmentDescription

MASK_SUFFIX = ".dcm"
IS_SERIES = True

_SEG = "1.2.840.10008.5.1.4.1.1.66."  # Segmentation Storage and Label Map Segmentation Storage
_GRID_TOLERANCE_MM = 1e-3


@refusing("damaged DICOM files")
def read_image(files: Files, max_bytes: int) -> AxialImage:
    """Reads the images of one series and turns them to axial LPS.

    Args:
        files: All files of a series: one for each slice, or one of many frames (enhanced DICOM).
        max_bytes: Largest size of the voxels in memory.

    Returns:
        int16 or float32: rescaled values.

    Raises:
        BadScanError: If they are not one regular volume of at least three slices.
    """
    volume = read_volume(parse_all(files), max_bytes)
    values = volume.array
    short = values.astype(np.int16) if np.abs(values).max() < 2**15 else values
    return turn_axial(short if np.array_equal(short, values) else values, volume.affine)


@refusing("damaged DICOM files")
def read_label(files: Files, image_files: Files, max_bytes: int) -> AxialImage:
    """Reads a DICOM-SEG on the grid of its image and turns it to axial LPS.

    Args:
        files: The segmentation's one file.
        image_files: Files of the image, as for `read_image`.
        max_bytes: Largest size of the voxels in memory.

    Returns:
        uint8: the number of the segment in each voxel, or 0.

    Raises:
        BadScanError: If it is no binary or label-map segmentation, its segments overlap, or it
            lies on another grid.
    """
    import highdicom

    if len(files) != 1:
        raise BadScanError(f"{len(files)} files; a DICOM-SEG is one file")
    (labels,) = parse_all(files)
    if not str(labels.get("SOPClassUID", "")).startswith(_SEG):
        raise BadScanError("no DICOM segmentation")
    kind = labels.get("SegmentationType")
    if kind not in ("BINARY", "LABELMAP"):
        raise BadScanError(f"a {kind} segmentation; BINARY and LABELMAP are read")
    image = read_volume(parse_all(image_files), max_bytes)
    check_size("it", labels, max_bytes, frames=image.spatial_shape[0])
    with refusing("its segments overlap, or it is damaged"):
        segmentation = highdicom.seg.Segmentation.from_dataset(labels, copy=False)
        found = segmentation.get_volume(combine_segments=True, dtype=np.uint8)
    with refusing("it lies on another grid than the image; resample them to one grid first"):
        matched = found.match_geometry(image.get_geometry(), tol=_GRID_TOLERANCE_MM)
    return turn_axial(matched.array, image.affine)


@refusing("no DICOM-SEG can refer to the series")
def encode_mask(
    image_files: Files, voxels: npt.NDArray[np.uint8 | np.float32], targets: Sequence[str]
) -> bytes:
    """Encodes masks or probabilities as DICOM-SEG of their image's study, a segment each.

    As DICOM demands, the file carries the identity of the patient, which it copies from the image.

    Args:
        image_files: Files of the image, as for `read_image`.
        voxels: uint8 (a BINARY segmentation) or float32 (FRACTIONAL, in steps of 1/255), targets
            x slices x height x width.
        targets: Names of the segments.

    Raises:
        BadScanError: If the image lacks what a segmentation must refer to, e.g. its study.
    """
    import highdicom
    from pydicom.uid import generate_uid

    images, version = parse_all(image_files), metadata.version("brainseg")
    if images[0].FrameOfReferenceUID == NO_FRAME:
        raise BadScanError("the series has no FrameOfReferenceUID, which a DICOM-SEG refers to")
    grid = read_volume(images, sys.maxsize)
    segments = [_describe(number, name) for number, name in enumerate(targets, start=1)]
    turn = Turn.of_affine(grid.affine)
    stacked = np.stack([turn.undo(each) for each in voxels], axis=-1)
    segmentation = highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=grid.with_array(stacked, {"SegmentNumber": range(1, len(segments) + 1)}),
        segmentation_type="BINARY" if voxels.dtype == np.uint8 else "FRACTIONAL",
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=1000,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="brainseg",
        manufacturer_model_name="brainseg",
        software_versions=version,
        device_serial_number="0",
    )
    stream = io.BytesIO()
    segmentation.save_as(stream)
    return stream.getvalue()


def _describe(number: int, name: str) -> "SegmentDescription":
    import highdicom
    from pydicom.sr.codedict import codes

    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="brainseg",
            version=metadata.version("brainseg"),
            family=codes.cid7162.ArtificialIntelligence,
        ),
    )
