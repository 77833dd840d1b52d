"""DICOM in and out, on series that the tests write."""

import io

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from components.shared.dataset.geometry import Geometry
from components.shared.reading.dicom import encode_mask, read_image, read_label
from components.shared.reading.dicom_series import encode_series
from components.shared.reading.scans import BadScanError

LIMIT = 2**28


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(-50, 3000, (5, 24, 20)).astype(np.int16)


def encoded(image, column_mm=0.9):
    # maps (slice, row, column) to (left, back, up)
    geometry = Geometry.of_affine([[0, 0, column_mm, -9], [0, 0.8, 0, 12], [5.5, 0, 0, -30]])
    files = encode_series(image, geometry, "case-1")
    return [(f"{index}.dcm", data) for index, data in enumerate(files)], geometry


def changed(data, **attributes):
    dataset = pydicom.dcmread(io.BytesIO(data))
    for name, value in attributes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def test_a_series_comes_back_whatever_the_order_of_its_files(image):
    files, geometry = encoded(image)
    found = read_image(files[::-1], LIMIT)
    assert found.voxels.dtype == np.int16
    assert np.array_equal(found.voxels, image)
    assert found.geometry == geometry


def test_a_sagittal_series_is_turned(image):
    # slices to the left, rows down, columns to the back
    affine = np.array([[3.0, 0, 0, -8], [0, 0, 1, -20], [0, -1, 0, 40], [0, 0, 0, 1]])
    files = [
        (str(i), d) for i, d in enumerate(encode_series(image, Geometry.of_affine(affine), "a"))
    ]
    found = read_image(files, LIMIT)
    assert np.array_equal(found.voxels, image.transpose(1, 2, 0)[::-1])
    assert found.geometry.spacing_mm == (1, 1, 3)
    place = found.geometry.matrix @ (23 - 4, 7, 2, 1)
    assert place == pytest.approx(affine @ (2, 4, 7, 1))


def test_rescaled_fractions_are_floats(image):
    files, _ = encoded(image)
    files = [(n, changed(d, RescaleSlope=0.5, RescaleIntercept=1)) for n, d in files]
    found = read_image(files, LIMIT)
    assert found.voxels.dtype == np.float32
    assert np.allclose(found.voxels, image * 0.5 + 1)


def missing_slice(files):
    return files[:2] + files[3:]


def double_slice(files):
    return [*files, ("again.dcm", files[1][1])]


def tilted(files):
    return [
        (name, changed(data, ImagePositionPatient=[0, 2.0 * index, 5.5 * index]))
        for index, (name, data) in enumerate(files)
    ]


def each(**attributes):
    return lambda files: [(name, changed(data, **attributes)) for name, data in files]


def first(**attributes):
    return lambda files: [(files[0][0], changed(files[0][1], **attributes)), *files[1:]]


TRAPS = {
    "missing slice": (missing_slice, "slices 5.50 mm apart, but 11.00 mm between"),
    "double slice": (double_slice, "two slices at"),
    "two slices": (lambda files: files[:2], "2 slices; a volume has 3"),
    "tilted gantry": (tilted, "tilted by 20 degrees"),
    "orientations": (first(ImageOrientationPatient=[1, 0, 0, 0, 0, 1]), "different orientations"),
    "two series": (first(SeriesInstanceUID="1.2.3"), "files of 2 series"),
    "color": (each(SamplesPerPixel=3), "color image"),
    "no pixels": (each(PixelData=None), "without pixels"),
    "no position": (first(ImagePositionPatient=None), "without position"),
    "too large": (each(Rows=60000, Columns=60000), "max_volume_mib=256"),
    "truncated": (lambda files: [(n, d[:-400]) for n, d in files], "no regular volume"),
    "text": (lambda files: [("a.dcm", b"hello")], "a.dcm: no DICOM file"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_defective_series_is_refused(image, trap):
    spoil, reason = TRAPS[trap]
    files, _ = encoded(image)
    with pytest.raises(BadScanError, match=reason):
        read_image(spoil(files), LIMIT)


def test_deflated_files_are_refused(image):
    files, _ = encoded(image)
    dataset = pydicom.dcmread(io.BytesIO(files[0][1]))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    stream = io.BytesIO()
    dataset.save_as(stream)
    with pytest.raises(BadScanError, match="deflated"):
        read_image([("a.dcm", stream.getvalue())], LIMIT)


def test_a_probability_is_a_fractional_segmentation(image):
    files, _ = encoded(image)
    probability = ((image + 50) / 3050).astype(np.float32)
    data = encode_mask(files, probability[None], ["core"])
    found = highdicom.seg.segread(io.BytesIO(data)).get_volume(segment_numbers=[1])
    found = found.to_patient_orientation("HPL")
    assert np.abs(found.array[..., 0] - probability).max() < 1 / 255


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_segmentation_comes_back_on_the_grid_of_its_image(image, is_empty):
    files, _ = encoded(image)
    mask = (image > 2500) & (not is_empty)
    data = encode_mask(files, mask.astype(np.uint8)[None], ["tumour"])
    labels = read_label([("seg.dcm", data)], files[::-1], LIMIT)
    assert np.array_equal(labels.voxels, mask)


def test_overlapping_targets_are_segments_of_one_file(image):
    files, _ = encoded(image)
    masks = np.stack([image > 500, image > 2500, image > 5000])
    data = encode_mask(files, masks.astype(np.uint8), ["whole", "core", "none"])
    found = highdicom.seg.segread(io.BytesIO(data))
    named = {number: found.get_segment_description(number).SegmentLabel for number in (1, 2, 3)}
    assert named == {1: "whole", 2: "core", 3: "none"}
    voxels = found.get_volume(segment_numbers=[1, 2, 3]).to_patient_orientation("HPL").array
    assert np.array_equal(np.moveaxis(voxels, -1, 0), masks)


def test_segmentations_that_cannot_be_labels_are_refused(image):
    files, _ = encoded(image)
    data = encode_mask(files, (image > 2500).astype(np.uint8)[None], ["tumour"])
    other, _ = encoded(image, column_mm=1.1)
    for labels, images, reason in (
        (files[:1], files, "no DICOM segmentation"),
        (files[:2], files, "2 files"),
        ([("s", changed(data, SegmentationType="FRACTIONAL"))], files, "a FRACTIONAL segm"),
        ([("s", data)], other, "another grid"),
    ):
        with pytest.raises(BadScanError, match=reason):
            read_label(labels, images, LIMIT)


def test_a_series_without_frame_of_reference_gets_no_segmentation(image):
    files, _ = encoded(image)
    files = each(FrameOfReferenceUID=None)(files)
    assert read_image(files, LIMIT).voxels.shape == image.shape
    with pytest.raises(BadScanError, match="FrameOfReferenceUID"):
        encode_mask(files, (image > 0).astype(np.uint8)[None], ["tumour"])


def test_no_identity_is_quoted(image, caplog, recwarn):
    files, _ = encoded(image)
    spoiled = [
        (name, changed(data, PatientName="Doe^Jane", PatientID="4711").replace(b"Doe^", b"Doe\\"))
        for name, data in files
    ]
    spoiled = each(SpecificCharacterSet="no such set")(spoiled)
    for trap, (spoil, _) in TRAPS.items():
        with pytest.raises(BadScanError) as refusal:
            read_image(spoil(spoiled), LIMIT)
        assert "Doe" not in str(refusal.value), trap
    assert not [warning for warning in recwarn if "Doe" in str(warning.message)]
    assert "Doe" not in caplog.text


@pytest.mark.slow
def test_mutated_files_are_accepted_or_refused(image):
    files, _ = encoded(image)
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(1000):
        number = int(generator.integers(len(files)))
        data = np.frombuffer(files[number][1], np.uint8).copy()
        head = len(data) - image[0].nbytes
        places = generator.integers(132, head if generator.random() < 0.8 else len(data), 4)
        data[places] = generator.integers(0, 256, 4)
        spoiled = [*files[:number], (files[number][0], data.tobytes()), *files[number + 1 :]]
        try:
            assert read_image(spoiled, LIMIT).voxels.ndim == 3
        except BadScanError:
            refused += 1
    assert 100 < refused < 1000
