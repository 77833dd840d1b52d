"""A source of DICOM series with DICOM-SEG labels, from ingest to a mask."""

import io

import numpy as np
import pydicom
import pytest

from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.shared.dataset.geometry import Geometry
from components.shared.dataset.parts import open_volume
from components.shared.reading.dicom import encode_mask, read_label
from components.shared.reading.dicom_series import encode_series
from components.shared.reading.layouts.opening import open_layout
from components.shared.reading.layouts.settings import LayoutSettings
from components.shared.reading.sources.opening import open_source
from components.shared.storage.store import FolderStore

GEOMETRY = Geometry.of_affine([[0, 0, 0.9, -9], [0, 0.8, 0, 12], [5.5, 0, 0, -30]])
LAYOUT = {
    "name": "declared",
    "format": "dicom",
    "channels": {"FLAIR": "{case}/FLAIR/*.dcm", "T1": "{case}/T1/*.dcm"},
    "label": "{case}/seg.dcm",
}


def write_case(folder, number):
    generator = np.random.default_rng(number)
    for name in ("FLAIR", "T1"):
        image = generator.integers(0, 3000, (6, 24, 20)).astype(np.int16)
        image[:, :2] = image[:, -2:] = image[:, :, :2] = image[:, :, -2:] = 0
        files = list(encode_series(image, GEOMETRY, f"Doe^Jane{number}"))
        (folder / name).mkdir(parents=True)
        for index, data in enumerate(files):
            (folder / name / f"{index}.dcm").write_bytes(data)
        named = [(f"{index}.dcm", data) for index, data in enumerate(files)]
        if name == "FLAIR":
            (folder / "seg.dcm").write_bytes(
                encode_mask(named, (image > 2500).astype(np.uint8)[None], ["tumour"])
            )
            expected = image
    return expected


def test_series_become_volumes_without_any_identity(tmp_path, caplog):
    images = {f"case-{n}": write_case(tmp_path / "source" / f"case-{n}", n) for n in range(3)}
    (tmp_path / "source/case-2/T1/3.dcm").unlink()
    store = FolderStore(tmp_path / "store")
    settings = IngestSettings(layout=LAYOUT)
    result = ingest_source(str(tmp_path / "source"), store, settings, workers=1)
    ((name, reason),) = [(bad.volume, bad.reason) for bad in result.account.quarantined]
    assert name == "case-2"
    assert reason.startswith("T1: slices 5.50 mm apart, but 11.00 mm between")
    for entry in result.manifest.volumes:
        volume = open_volume(result.manifest, entry, store, tmp_path / "cache")
        assert np.array_equal(volume.reference, images[entry.volume])
        assert np.array_equal(volume.mask, images[entry.volume] > 2500)
        assert entry.geometry == GEOMETRY
    left = [result.manifest.to_json(), result.account.model_dump_json().encode()]
    left += [path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert not any(b"Doe" in content for content in [*left, caplog.text.encode()])


@pytest.fixture
def scan(tmp_path):
    image = write_case(tmp_path / "source" / "case-1", 1)
    layout = open_layout(LayoutSettings(**LAYOUT), None, with_labels=False)
    with open_source(str(tmp_path / "source")) as source:
        yield layout, source, layout.list_scans(source).scans[0], image


def test_a_mask_is_a_segmentation_of_its_series(scan, tmp_path):
    layout, source, found, image = scan
    mask = (image > 2000).astype(np.uint8)
    data = layout.encode_mask(source, found, mask[None], ["tumour"])
    series = [(p.name, p.read_bytes()) for p in (tmp_path / "source/case-1/FLAIR").iterdir()]
    assert np.array_equal(read_label([("a", data)], series, 2**28).voxels, mask)
    written = pydicom.dcmread(io.BytesIO(data))
    assert written.SegmentSequence[0].SegmentLabel == "tumour"
    assert written.PatientID == "Doe^Jane1"  # as DICOM demands
