"""DICOM files out: segmentations of predictions, and series of synthetic volumes."""

import io
import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from components.shared.dataset.geometry import Geometry
from components.shared.dataset.volumes import Mask
from components.shared.reading.dicom import AXES, NO_FRAME, Files, parse_all, read_volume, refusing
from components.shared.reading.scans import BadScanError

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


@refusing("damaged DICOM files")
def write_segmentation(mask: Mask, name: str, model: str, image_files: Files) -> bytes:
    """Encodes a mask as DICOM-SEG of its image's study.

    As DICOM demands, the file carries the identity of the patient, which it copies from the image.

    Args:
        mask: slices x height x width, as `read_series` places them.
        name: Name of the segment, e.g. `tumour`.
        model: URI of the model, for the description.
        image_files: Files of the image, as for `read_series`.

    Returns:
        The file: a BINARY segmentation on the image's own slices.

    Raises:
        BadScanError: If the image lacks what a segmentation must refer to, e.g. its study.
    """
    import highdicom
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    images = parse_all(image_files)
    if images[0].FrameOfReferenceUID == NO_FRAME:
        raise BadScanError("the series has no FrameOfReferenceUID, which a DICOM-SEG refers to")
    with refusing("no DICOM-SEG can refer to the series"):
        grid = read_volume(images, sys.maxsize)
        upright = grid.get_geometry().to_patient_orientation(AXES)
        placed = upright.with_array(mask.view(np.uint8)).match_geometry(grid.get_geometry())
        algorithm = highdicom.AlgorithmIdentificationSequence(
            name="brainseg", version=model[:64], family=codes.cid7162.ArtificialIntelligence
        )
        segment = highdicom.seg.SegmentDescription(
            segment_number=1,
            segment_label=name,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Neoplasm,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        segmentation = highdicom.seg.Segmentation(
            source_images=images,
            pixel_array=placed,
            segmentation_type="BINARY",
            segment_descriptions=[segment],
            series_instance_uid=generate_uid(),
            series_number=1000,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="brainseg",
            manufacturer_model_name="brainseg",
            software_versions=model[:64],
            device_serial_number="0",
        )
        stream = io.BytesIO()
        segmentation.save_as(stream)
    return stream.getvalue()
