"""From NIfTI files in declared layouts to a data set version."""

import json
import shutil

import numpy as np
import pytest

from components.ingest.ingestion import ingest_source
from components.ingest.plan import plan_ingest, plan_lines
from components.ingest.settings import IngestSettings
from components.shared.dataset.gray import gray_levels
from components.shared.dataset.parts import open_volume
from components.shared.errors import UserError
from components.shared.reading.sources.opening import open_source
from components.shared.storage.store import FolderStore

LAYOUT = {
    "name": "declared",
    "channels": {name: f"{{case}}/{name}.nii.gz" for name in ("T1", "T1c", "FLAIR")},
    "label": "{case}/seg.nii.gz",
    "labels": {"necrosis": 1, "edema": 2, "enhancing": 3},
    "targets": {"core": (1, 3)},
    "table": "patients.csv",
    "site": "site",
}


@pytest.fixture
def source(tmp_path):
    """Three patients with names."""
    folder = tmp_path / "source"
    with open_source("synthetic:3,as=nifti") as opened:
        shutil.copytree(opened.root, folder)
    for path in folder.glob("patient-*"):
        path.rename(path.with_name(path.name.replace("patient", "Jane-Doe")))
    table = folder / "patients.csv"
    table.write_text(table.read_text().replace("patient-", "Jane-Doe-"))
    return folder


def ingest(source, tmp_path, **changes):
    settings = IngestSettings(layout=LAYOUT | changes)
    return ingest_source(str(source), FolderStore(tmp_path / "store"), settings, workers=1)


def test_the_manifest_describes_channels_labels_and_places(source, tmp_path):
    manifest = ingest(source, tmp_path).manifest
    assert manifest.channels.names == ("T1", "T1c", "FLAIR")
    assert (manifest.channels.reference, manifest.channels.dtype) == ("FLAIR", "float32")
    assert manifest.labels == LAYOUT["labels"]
    assert [(each.name, each.labels) for each in manifest.targets] == [("core", (1, 3))]
    for entry in manifest.volumes:
        volume = open_volume(manifest, entry, FolderStore(tmp_path / "store"), tmp_path / "cache")
        assert (entry.dtype, entry.geometry.spacing_mm[1:]) == ("int16", (2.5, 2.0))
        assert entry.tumour_pixels == volume.truth[0].sum()
        assert entry.tumour_pixels == sum(
            entry.label_voxels[name] for name in ("necrosis", "enhancing")
        )
        levels = gray_levels(volume.image)[:, ::4, ::4]
        for channel, found in enumerate(entry.intensity):
            assert abs(found.mean - levels[..., channel].mean()) < 0.5
            assert abs(found.p50 - np.median(levels[..., channel])) < 1
            assert found.black == volume.image[..., channel].min()
    assert {entry.site for entry in manifest.volumes} == {"CS", "DU", "FG"}
    assert all(entry.attributes["age"] > 0 for entry in manifest.volumes)


def test_each_layout_of_the_same_voxels_has_the_same_id(tmp_path):
    ids = {
        ingest_source(
            f"synthetic:2,as={form}",
            FolderStore(tmp_path),
            IngestSettings(layout={"name": form}),
            workers=1,
        ).account.dataset_id
        for form in ("nnunet", "msd")
    }
    assert ids == {"7107a352e45410d9"}


def test_hashed_names_are_in_nothing_that_an_ingest_leaves(source, tmp_path, caplog):
    caplog.set_level("INFO")
    plain = ingest(source, tmp_path)
    (source / "Jane-Doe-0002" / "T1.nii.gz").write_bytes(b"broken")
    (source / "Jane-Doe-0003" / "seg.nii.gz").unlink()
    caplog.clear()
    store = tmp_path / "hashed"
    settings = IngestSettings(layout=LAYOUT | {"hash_patients": True})
    result = ingest_source(str(source), FolderStore(store), settings, workers=1)
    assert (result.account.volumes, len(result.account.quarantined)) == (1, 2)
    (entry,) = result.manifest.volumes
    (before,) = (each for each in plain.manifest.volumes if each.volume == "Jane-Doe-0001")
    assert (entry.digest, entry.attributes) == (before.digest, before.attributes)
    left = [path.read_bytes() for path in store.rglob("*") if path.is_file()]
    left += [result.account.model_dump_json().encode(), caplog.text.encode()]
    assert not any(b"Jane" in content for content in left)


def test_a_plan_says_which_file_becomes_what(source):
    (source / "Jane-Doe-0003" / "seg.nii.gz").unlink()
    (source / "notes.txt").touch()
    plan = plan_ingest(str(source), IngestSettings(layout=LAYOUT))
    json.loads(plan.model_dump_json())
    lines = plan_lines(plan)
    assert lines[:3] == [
        "channels T1, T1c, FLAIR (reference FLAIR)",
        "labels necrosis=1, edema=2, enhancing=3; targets core = 1, 3",
        "Jane-Doe-0001: patient Jane-Doe-0001, site CS",
    ]
    assert "  FLAIR        Jane-Doe-0001/FLAIR.nii.gz" in lines
    assert lines[-4:] == [
        "Jane-Doe-0003: quarantined, label is missing, expected Jane-Doe-0003/seg.nii.gz",
        "table: patients.csv",
        "ignored, no path of the layout: 1",
        "2 volumes to read, 1 quarantined, 1 of 13 files ignored",
    ]


def test_a_plan_without_a_volume_is_an_error(source):
    settings = IngestSettings(layout=LAYOUT | {"label": "{case}/mask.nii.gz"})
    with pytest.raises(
        UserError, match=r"3 refused .*label is missing, expected Jane-Doe-0001/mask"
    ):
        plan_ingest(str(source), settings)
