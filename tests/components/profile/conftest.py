import numpy as np
import pytest

from components.shared.dataset.channels import Channels
from components.shared.dataset.geometry import Geometry
from components.shared.dataset.ingest_account import IngestAccount
from components.shared.dataset.manifest import ChannelIntensity, make_manifest


@pytest.fixture(scope="session")
def make_foreign(make_entry):
    """Twelve float scans of two channels, one millimeter wide, with slices of 5 mm unless told."""

    def make_foreign(slice_mm=(5.0,) * 12, names=("T1", "T2")):
        level = ChannelIntensity(mean=40, p1=0, p50=20, p99=150, black=-3.5, white=812.25)
        volumes = [
            make_entry(
                number,
                volume=f"sub-{number}",
                patient=f"P{number}",
                site="CS",
                slices=30,
                dtype="float32",
                geometry=step and Geometry.of_affine(np.diag([step, 1, 1, 1])),
                intensity=(level,) * len(names),
                attributes={"weight_kg": 60.0 + number},
            )
            for number, step in enumerate(slice_mm)
        ]
        return make_manifest(volumes, Channels(names=names, reference="T2", dtype="float32"))

    return make_foreign


@pytest.fixture(scope="session")
def make_account():
    """Report of ingest, by default on a source without any problem."""

    def make_account(**changes):
        values = {
            "source": "somewhere",
            "dataset_id": "0123",
            "volumes": 20,
            "slices": 800,
            "tumour_slices": 260,
            "quarantined": (),
            "ignored": {},
            "files_found": 1600,
            "files_accepted": 1600,
            "objects_written": 0,
            "bytes_written": 0,
            "warnings": (),
        }
        return IngestAccount.model_validate(values | changes)

    return make_account
